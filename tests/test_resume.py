"""Laws of going on: nothing is done twice, and a run that was killed anywhere ends in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_run
from askback import steps
from askback.errors import IntegrityError
from askback.store import Manifest, open_run
from small_run import differences, do_run, do_steps, small_options, snapshot

STEPS = [
    *("01-seed", "02-corpus", "03-passages", "04-distinct", "05-backward", "06-candidates", "07-gated"),
    *("08-forward-0", "09-judged-1", "10-kept-1", "11-forward-1", "12-judged-2", "13-kept-2", "14-forward-2"),
    "15-evaluation",
]


class Witness(steps.Silent):
    """Remembers what was done, what was reused and what was said."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.reused: list[str] = []
        self.notes: list[str] = []

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        (self.reused if reused else self.done).append(manifest.step)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def undisturbed(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing disturbed; tests read it and leave it as it is."""
    return do_run(small_options(small_inputs), tmp_path_factory.mktemp("undisturbed") / "run")


def witnessed(inputs: Path, out: Path, *more: str, do: Callable[..., Any] = do_run) -> Witness:
    witness = Witness()
    do(small_options(inputs, *more), out, witness)
    return witness


def disturb(what: str, inputs: Path, out: Path, number: int) -> dict[str, Any]:
    """Run the script that kills; return what it found."""
    command = [sys.executable, small_run.__file__, what, str(inputs), str(out), str(number)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=1800)
    assert not done.returncode, done.stderr.decode()
    return dict(json.loads(done.stdout))


# --- nothing twice


def test_a_finished_run_is_not_done_again(undisturbed: Path, small_inputs: Path) -> None:
    before = snapshot(undisturbed)
    witness = witnessed(small_inputs, undisturbed)
    assert (witness.done, witness.reused) == ([], STEPS)
    assert snapshot(undisturbed) == before


def test_two_runs_in_two_folders_are_the_same_bytes(undisturbed: Path, small_inputs: Path, tmp_path: Path) -> None:
    witness = witnessed(small_inputs, tmp_path / "run")
    assert witness.done == STEPS
    assert differences(tmp_path / "run", snapshot(undisturbed)) == []


def test_every_row_read_is_written_or_rejected_by_name(undisturbed: Path) -> None:
    for step in STEPS:
        manifest = json.loads((undisturbed / step / "manifest.json").read_text())
        ledger = (undisturbed / step / "rejected.jsonl").read_text().splitlines()
        assert manifest["read"] == manifest["written"] + manifest["rejected"]
        assert sum(manifest["reasons"].values()) == manifest["rejected"] == len(ledger)


def test_no_row_is_lost_between_two_steps(undisturbed: Path) -> None:
    counts = {step: json.loads((undisturbed / step / "manifest.json").read_text()) for step in STEPS}
    for step, source in (
        ("06-candidates", "03-passages"),
        ("09-judged-1", "06-candidates"),
        ("10-kept-1", "06-candidates"),
    ):
        assert counts[step]["read"] == counts[source]["written"]


# --- what changed, and only what follows it


def test_a_changed_option_redoes_what_follows_it_and_says_so(few_inputs: Path, tmp_path: Path) -> None:
    do_steps(small_options(few_inputs), tmp_path / "run")
    witness = witnessed(few_inputs, tmp_path / "run", "curate.keep_top=0.5", do=do_steps)
    assert (witness.reused, witness.done) == (STEPS[:9], STEPS[9:])
    assert any("10-kept-1" in note and "options.keep_top: 0.7 -> 0.5" in note for note in witness.notes)
    do_steps(small_options(few_inputs, "curate.keep_top=0.5"), tmp_path / "fresh")
    assert differences(tmp_path / "run", snapshot(tmp_path / "fresh")) == []


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_rounds_leaves_nothing_of_the_old_one(
    few_inputs: Path, tmp_path: Path, before: int, after: int
) -> None:
    do_run(small_options(few_inputs, f"curate.rounds={before}"), tmp_path / "run")
    do_run(small_options(few_inputs, f"curate.rounds={after}"), tmp_path / "run")
    do_run(small_options(few_inputs, f"curate.rounds={after}"), tmp_path / "fresh")
    assert differences(tmp_path / "run", snapshot(tmp_path / "fresh")) == []


def test_a_folder_that_is_no_step_is_left_alone(few_inputs: Path, tmp_path: Path) -> None:
    do_steps(small_options(few_inputs), tmp_path / "run")
    mine = tmp_path / "run" / "99-mine" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    do_steps(small_options(few_inputs), tmp_path / "run")
    assert mine.read_text() == "keep"


def test_a_changed_input_redoes_the_step_that_reads_it(few_inputs: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_bytes((few_inputs / "pairs.jsonl").read_bytes())
    do_steps(small_options(few_inputs, f"seed.path={pairs}"), tmp_path / "run")
    with pairs.open("a") as more:
        more.write('{"instruction": "Explain one thing more.", "output": "One thing more is explained here."}\n')
    witness = witnessed(few_inputs, tmp_path / "run", f"seed.path={pairs}", do=do_steps)
    assert witness.reused == ["02-corpus", "03-passages", "04-distinct"]
    assert any("01-seed" in note and "input:" in note for note in witness.notes)


def test_changed_code_changes_what_a_step_depends_on() -> None:
    assert steps.code("prompts") == steps.code("prompts")
    assert len({steps.code("prompts"), steps.code("metrics"), steps.code("prompts", "metrics")}) == 3


# --- what is damaged is not built upon


@pytest.mark.parametrize("harm", ["flipped", "gone"])
def test_a_damaged_part_of_a_finished_step_is_named(few_inputs: Path, tmp_path: Path, harm: str) -> None:
    do_steps(small_options(few_inputs), tmp_path / "run")
    part = tmp_path / "run" / "06-candidates" / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data) if harm == "flipped" else part.unlink()
    with pytest.raises(IntegrityError, match=r"06-candidates/part-00001\.parquet.*run again"):
        do_steps(small_options(few_inputs), tmp_path / "run")


def test_a_damaged_step_comes_back_when_its_folder_is_deleted(few_inputs: Path, tmp_path: Path) -> None:
    do_steps(small_options(few_inputs), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    with open_run(tmp_path / "run"):
        for file in (tmp_path / "run" / "06-candidates").iterdir():
            file.unlink()
    do_steps(small_options(few_inputs), tmp_path / "run")
    assert differences(tmp_path / "run", before) == []


# --- killed


def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(few_inputs: Path, tmp_path: Path) -> None:
    found = disturb("kills", few_inputs, tmp_path, 10)
    assert found["wrong"] == {}
    assert found["killed"] >= 5


def test_a_run_killed_at_a_rename_or_removal_ends_in_the_same_bytes(few_inputs: Path, tmp_path: Path) -> None:
    found = disturb("points", few_inputs, tmp_path, 17)
    assert found["wrong"] == {}
    assert found["points"] > 100


def test_a_changed_run_that_is_killed_ends_as_if_never_run_before(few_inputs: Path, tmp_path: Path) -> None:
    assert disturb("change", few_inputs, tmp_path, 37)["wrong"] == {}


def test_a_publishing_that_is_killed_ends_in_the_same_bytes(few_inputs: Path, tmp_path: Path) -> None:
    assert disturb("publish", few_inputs, tmp_path, 6)["wrong"] == {}


def test_a_changed_run_that_is_killed_finds_the_way_back(few_inputs: Path, tmp_path: Path) -> None:
    assert disturb("back", few_inputs, tmp_path, 17)["wrong"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["points", "change", "back", "publish"])
def test_a_run_killed_at_every_rename_and_removal_ends_in_the_same_bytes(
    few_inputs: Path, tmp_path: Path, what: str
) -> None:
    found = disturb(what, few_inputs, tmp_path, 1)
    assert found["wrong"] == {}
    assert found["points"] > 15


def test_a_terminated_run_leaves_with_5_and_goes_on(small_inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, small_run.__file__, "slow", str(small_inputs), str(out), "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "06-candidates" / "started.json").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=10)[1].splitlines()
    assert process.returncode == 5
    assert said[-1] == "askback: stopped; the same command goes on from here"
    witness = witnessed(small_inputs, out)
    assert (witness.reused, witness.done) == (STEPS[:5], STEPS[5:])
    assert differences(out, snapshot(undisturbed)) == []
