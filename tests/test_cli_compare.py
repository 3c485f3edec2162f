"""Laws of `askback compare`: two finished runs and their difference, or one sentence on why there is none."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import askback, help_of, refused
from small_run import do_run, do_steps, small_options, snapshot, still, write_inputs


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with still():
        yield


@pytest.fixture(scope="module")
def runs(few_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs on the same seed pairs: `one`, and `two` with another seed and a round more."""
    folder = tmp_path_factory.mktemp("runs")
    do_run(small_options(few_inputs, "curate.rounds=1"), folder / "one")
    do_run(small_options(few_inputs, "random_seed=4"), folder / "two")
    return folder


def test_two_runs_are_set_side_by_side_and_left_as_they_were(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = snapshot(runs)
    assert askback("compare", runs / "one", runs / "two", "--out", tmp_path / "found.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a: one", "b: two"]
    assert lines[3].split() == ["one", "two", "a", "-", "b", "95", "%", "interval", "p", "n", "better"]
    titles = {line.split("  ")[0] for line in lines[4:] if "[" in line}
    assert titles == {
        *("backward ROUGE-L", "backward nll", "backward retrieval"),
        *("forward 0 nll", "forward 1 nll", "forward 1 and 2 nll"),
    }
    assert "Only b has forward model 2." in lines
    assert any(line.startswith("Note: the seeds differ (3 and 4)") for line in lines)
    found = json.loads((tmp_path / "found.json").read_text())
    held = json.loads((runs / "one" / "metrics.json").read_text())["evaluation"]["backward"]["n"]
    assert found["pairs"] == {"both": held, "only_a": 0, "only_b": 0}
    for each in [*found["backward"].values(), *found["forward"].values()]:
        assert each["low"] <= each["difference"] <= each["high"]
        assert each["n"] == held
    assert snapshot(runs) == before


def test_a_run_does_not_differ_from_itself(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert askback("compare", runs / "two", runs / "two") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"a: {runs / 'two'}"  # one name for both would tell nothing
    assert {line.split()[-1] for line in lines if "[" in line} == {"neither"}


def test_turning_the_runs_round_turns_the_differences_round(runs: Path, tmp_path: Path) -> None:
    for name, pair in (("there", ("one", "two")), ("back", ("two", "one"))):
        assert askback("compare", *(runs / run for run in pair), "--out", tmp_path / name) == 0
    there, back = (json.loads((tmp_path / name).read_text())["backward"]["rougeL"] for name in ("there", "back"))
    assert there["difference"] == pytest.approx(-back["difference"])
    assert (there["a"], there["b"]) == (back["b"], back["a"])


def test_runs_that_held_out_other_pairs_are_not_compared(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = write_inputs(tmp_path / "inputs", documents=10, pairs=16)
    rows = (other / "pairs.jsonl").read_text().replace('"instruction": "Explain', '"instruction": "Say')
    (other / "pairs.jsonl").write_text(rows)
    do_run(small_options(other, "curate.rounds=1"), tmp_path / "three")
    line = refused(capsys, 3, "compare", runs / "one", tmp_path / "three", "--out", tmp_path / "found.json")
    assert line.startswith("askback: one and three share no held-out pair (")
    assert line.endswith("want runs with the same seed.path and seed.held_out")
    assert not (tmp_path / "found.json").exists()


def test_a_run_that_is_not_finished_is_refused_on_either_side(
    runs: Path, few_inputs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    do_steps(small_options(few_inputs, "curate.rounds=1"), tmp_path / "begun")  # all steps, and nothing published
    for pair in ((runs / "one", tmp_path / "begun"), (tmp_path / "begun", runs / "one")):
        line = refused(capsys, 2, "compare", *pair)
        assert line.startswith(
            f"askback: {tmp_path / 'begun'}: no metrics.json is in it; want the folder of a finished"
        )


@pytest.mark.parametrize("name", ["nowhere", "inputs", "one/metrics.json"])
def test_what_is_no_run_is_refused_by_name(
    runs: Path, few_inputs: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = few_inputs if name == "inputs" else runs / name
    assert refused(capsys, 2, "compare", runs / "one", path).startswith(f"askback: {path}: no metrics.json is in it")


def test_a_damaged_file_of_numbers_is_told(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text((runs / "one" / "metrics.json").read_text()[:500])
    assert "metrics.json" in refused(capsys, 6, "compare", runs / "one", tmp_path)


def test_one_run_alone_is_a_usage_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the following arguments are required: RUN" in refused(capsys, 2, "compare", runs / "one")


def test_numbers_that_cannot_be_written_are_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "could not be written" in refused(capsys, 2, "compare", runs / "one", runs / "two", "--out", runs)


def test_help_says_what_is_tested_and_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, "compare")
    assert "whether two runs differ, by paired tests on the same pairs" in said
    assert "example: askback compare runs/one runs/two" in said
