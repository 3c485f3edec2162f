"""Laws of the rounds: every signal is a step of its own, rounds stop when asked to, earlier runs can join."""

import json
from pathlib import Path

import pytest

from askback import steps
from askback.finished import has_step, judged_names, rows_of
from askback.options import CurateOptions
from askback.records import Judgement, Pair
from small_run import do_run, small_options

CYCLE = 'curate.judge=["likelihood", "backward"]'


class Notes(steps.Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def names(folder: Path) -> list[str]:
    return sorted(path.parent.name[3:] for path in folder.glob("[0-9][0-9]-*/manifest.json"))


def test_the_first_signal_that_scores_is_the_round_and_the_backward_one_serves_all_rounds() -> None:
    options = CurateOptions(judge=("backward", "likelihood"), beside=("expected",))
    assert judged_names(options, 2) == {
        "backward": "judged-backward",
        "likelihood": "judged-2",
        "expected": "judged-2-expected",
    }


def test_every_signal_is_a_step_and_what_stands_beside_decides_nothing(small_inputs: Path, tmp_path: Path) -> None:
    plain = do_run(small_options(small_inputs, CYCLE), tmp_path / "plain")
    beside = do_run(small_options(small_inputs, CYCLE, 'curate.beside=["expected"]'), tmp_path / "beside")
    assert {"judged-1", "judged-2", "judged-backward"} <= {*names(plain)}
    assert {*names(beside)} - {*names(plain)} == {"judged-1-expected", "judged-2-expected"}
    assert [p.id for p in rows_of(beside, "kept-2", Pair)] == [p.id for p in rows_of(plain, "kept-2", Pair)]
    metrics = json.loads((beside / "metrics.json").read_text())
    assert metrics["rounds"]["1"]["judge"] == ["likelihood", "backward"]
    assert {*metrics["rounds"]["1"]["signals"]} == {"likelihood", "backward", "expected"}
    assert {row.judge for row in rows_of(beside, "judged-1-expected", Judgement)} == {"expected"}


@pytest.mark.parametrize(
    ("setting", "said"), [("curate.stop_overlap=0.01", "is the same"), ("curate.stop_gain=9", "loss")]
)
def test_rounds_stop_when_nothing_moves(small_inputs: Path, tmp_path: Path, setting: str, said: str) -> None:
    notes = Notes()
    run = do_run(small_options(small_inputs, "curate.rounds=5", setting), tmp_path / "run", notes)
    assert 1 <= sum(name.startswith("kept-") for name in names(run)) < 5
    assert any(said in note for note in notes.said if note.startswith("no further round"))


def test_no_round_is_skipped_unless_asked(small_inputs: Path, tmp_path: Path) -> None:
    run = do_run(small_options(small_inputs, "curate.rounds=3"), tmp_path / "run")
    assert sum(name.startswith("kept-") for name in names(run)) == 3
    assert not has_step(run, "loss-1")


def test_candidates_of_an_earlier_run_join_once(small_inputs: Path, tmp_path: Path) -> None:
    first = do_run(small_options(small_inputs), tmp_path / "first")
    same = do_run(small_options(small_inputs, f'curate.join=["{first}"]'), tmp_path / "same")
    other = do_run(small_options(small_inputs, "random_seed=4", f'curate.join=["{first}"]'), tmp_path / "other")
    own = len(rows_of(first, "candidates", Pair))
    gated = json.loads(next(same.glob("*-gated/manifest.json")).read_text())
    assert (gated["read"], gated["reasons"].get("same_candidate")) == (2 * own, own)
    joined = rows_of(other, "gated", Pair)
    assert len(joined) > own  # another seed asked otherwise
    assert len({pair.id for pair in joined}) == len(joined)
    assert len({pair.passage for pair in rows_of(other, "kept-2", Pair)}) == len(rows_of(other, "kept-2", Pair))


def test_rewriting_keeps_every_pair_and_counts_what_was_refused(small_inputs: Path, tmp_path: Path) -> None:
    run = do_run(small_options(small_inputs, "rewrite.on=true"), tmp_path / "run")
    kept, rewritten = rows_of(run, "kept-2", Pair), rows_of(run, "rewritten-2", Pair)
    notes = json.loads(next(run.glob("*-rewritten-2/manifest.json")).read_text())["notes"]
    assert [pair.id for pair in rewritten] == [pair.id for pair in kept]
    assert notes["rewritten"] + sum(notes["kept_original"].values()) == len(kept)
    assert all(new.output == old.output for new, old in zip(rewritten, kept, strict=True) if not new.original)
