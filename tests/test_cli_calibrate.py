"""Laws of `askback calibrate`: the files it writes can be used as they are, and a refusal comes before any work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askback.finished import rows_of
from askback.records import Judgement, Pair
from command_line import ECHO, askback, help_of, refused
from small_run import do_run, small_options, snapshot, still

pytest.importorskip("sklearn")

QUICK = ("--set", "evaluate.bootstrap=100")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with still():
        yield


@pytest.fixture(scope="module")
def run(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one round and two signals."""
    options = small_options(small_inputs, "curate.rounds=1", 'curate.beside=["likelihood"]')
    return do_run(options, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def labels(run: Path) -> Path:
    """Grades by somebody who is mostly of the judge's mind: of every candidate, and rows that are of no use."""
    scores = sorted((row.score or 0, row.pair) for row in rows_of(run, "judged-1", Judgement))
    grades = {pair: 1 + 4 * place // len(scores) + (place % 7 == 0) for place, (_, pair) in enumerate(scores)}
    rows: list[dict[str, Any]] = [{"id": pair, "grade": min(5, grade)} for pair, grade in grades.items()]
    return write(run.parent / "labels.jsonl", [*rows, {"id": "nobody", "grade": 3}, {"id": scores[0][1]}])


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_grades_of_a_run_become_a_threshold_with_report_page_and_ledger(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before, out = snapshot(run), tmp_path / "out"
    assert askback("calibrate", "--labels", labels, "--run", run, "--precision", 0.7, "--out", out, *QUICK) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["labels", "expected", "likelihood", "combined", "keep", "written"]
    assert said[0].startswith("labels      32 rows: 30 graded pairs")
    assert said[0].endswith("not used: 1 no_candidate, 1 no_grade")
    assert sorted(file.name for file in out.iterdir()) == [
        *("calibration.html", "calibration.json", "calibration_report.json", "unused_labels.jsonl"),
    ]
    report = json.loads((out / "calibration_report.json").read_text())
    assert report["threshold"]["precision"].keys() == {"value", "low", "high", "n"}
    assert report["signals"]["expected"]["spearman"]["value"] > report["signals"]["likelihood"]["spearman"]["value"]
    page = (out / "calibration.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page
    unused = [json.loads(line) for line in (out / "unused_labels.jsonl").read_text().splitlines()]
    assert [(row["source"], row["reason"]) for row in unused] == [
        *(("labels.jsonl:32", "no_grade"), ("labels.jsonl:31", "no_candidate")),
    ]
    assert snapshot(run) == before


def test_what_it_wrote_decides_in_the_next_curation(run: Path, labels: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept.jsonl"
    assert askback("calibrate", "--labels", labels, "--run", run, "--precision", 0.7, "--out", out, *QUICK) == 0
    made = json.loads((out / "calibration.json").read_text())
    words = (
        "--set",
        f"curate.calibration={out / 'calibration.json'}",
        "--set",
        'curate.judge=["expected","likelihood"]',
    )
    assert askback("curate", next(run.glob("*-gated")), "--out", kept, *ECHO, *words) == 0
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert min(row["score"] for row in rows) >= made["keep_from"] - 1e-6
    aside = [json.loads(line) for line in Path(f"{kept}.rejected.jsonl").read_text().splitlines()]
    assert {row["detail"].split(" < ")[1] for row in aside} == {f"{made['keep_from']:.3f}"}


def test_the_lines_the_page_shows_are_a_run_file_that_uses_it(run: Path, labels: Path, tmp_path: Path) -> None:
    from askback.config import load_options
    from askback.stages.calibration_page import run_file

    report = {"calibration": {"signals": ["likelihood", "likeness"]}}
    (tmp_path / "run.toml").write_text(run_file(report))
    assert load_options(tmp_path / "run.toml", ["engine.base=tiny"]).curate.keep_top == 0


def test_the_share_the_tiny_base_keeps_gives_way_to_a_calibration() -> None:
    from askback.config import load_options

    tiny = "engine.base=tiny"
    assert load_options(None, [tiny]).curate.keep_top == 0.5
    assert load_options(None, [tiny, "curate.calibration=made.json"]).curate.keep_top == 0
    assert load_options(None, [tiny, "curate.calibration=made.json", "curate.keep_top=0.2"]).curate.keep_top == 0.2


def test_graded_texts_are_judged_by_a_model_where_there_is_no_run(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = {pair.id: pair for pair in rows_of(run, "gated", Pair)}
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    texts = [
        {"instruction": pairs[row["id"]].instruction, "output": pairs[row["id"]].output, "grade": row["grade"]}
        for row in rows
        if row["id"] in pairs and "grade" in row
    ]
    file = write(tmp_path / "texts.jsonl", texts)
    words = ("calibrate", "--labels", file, "--model", run / "models" / "forward", "--precision", 0.5)
    both = ("--backward", run / "models" / "backward", "--set", 'curate.judge=["expected","backward"]')
    assert askback(*words, *both, "--out", tmp_path / "out", *QUICK) == 0
    assert "backward    Spearman" in capsys.readouterr().out
    made = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert made["signals"] == ["expected", "backward"]
    line = refused(capsys, 2, *words, "--set", "curate.judge=cycle", "--out", tmp_path / "none")
    assert "name its folder with --backward" in line
    assert not (tmp_path / "none").exists()


def test_the_grade_a_good_pair_begins_at_can_be_said(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("calibrate", "--labels", labels, "--run", run, "--precision", 0.5, *QUICK)
    good = []
    for least in (3, 4):
        assert askback(*words, "--good-from", least, "--out", tmp_path / f"{least}") == 0
        good.append(json.loads((tmp_path / f"{least}" / "calibration_report.json").read_text())["labels"]["good"])
    capsys.readouterr()
    assert good[0] > good[1]
    assert "want a grade above 1 and up to 5, got 9" in refused(
        capsys, 2, *words, "--good-from", 9, "--out", tmp_path / "9"
    )


def test_an_earlier_calibration_is_replaced_whole_and_nothing_else_is(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("calibrate", "--labels", labels, "--run", run, *QUICK)
    assert askback(*words, "--precision", 0.5, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert "no score reaches the precision 1" in refused(capsys, 3, *words, "--precision", 1, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "calibration.json").exists()  # the old one would be taken for the new one
    assert "No calibration was written" in (tmp_path / "out" / "calibration.html").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    line = refused(capsys, 2, *words, "--out", tmp_path / "mine")
    assert (
        line
        == f"askback: {tmp_path / 'mine'} is there already and not of askback's making; give another folder with --out"
    )
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        (None, 2, "labels.jsonl: no such file"),
        ([], 3, "labels.jsonl: the file is empty"),
        ([{"question": "Why?", "reply": "So."}], 3, "no row holds a grade; the first: no_pair at labels.jsonl:1"),
        ([{"id": "a", "grade": 7}], 3, "off_scale at labels.jsonl:1 (grade: want 1 to 5, got 7"),
        ([{"id": "a", "label": "perhaps"}], 3, "want good, bad, true, false, 1 or 0, got 'perhaps'"),
        ([{"id": "a", "grade": 4}], 3, "no label is about a judged candidate of "),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: list[Any] | None, code: int, said: str
) -> None:
    file = tmp_path / "labels.jsonl"
    if rows is not None:
        write(file, rows)
    assert said in refused(capsys, code, "calibrate", "--labels", file, "--run", run, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_grades_leave_a_report_that_says_so(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", [json.loads(line) for line in labels.read_text().splitlines()[:12]])
    line = refused(capsys, 3, "calibrate", "--labels", few, "--run", run, "--out", tmp_path / "out", *QUICK)
    assert "12 of 12 graded pairs have a value of every signal, and 20 are the least: label more pairs" in line
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["calibration.html", "calibration_report.json"]


def test_a_run_that_is_not_there_or_not_finished_is_told(
    run: Path, labels: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("calibrate", "--labels", labels, "--out", tmp_path / "out", "--run")
    assert "want a run folder with a finished round" in refused(capsys, 2, *words, tmp_path / "nowhere")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.toml").write_text((run / "run.toml").read_text())
    assert f"run `askback run --out {tmp_path / 'begun'}` to go on" in refused(capsys, 2, *words, tmp_path / "begun")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "1.5"), "precision: want a share above 0 and up to 1, got 1.5"),
        (("--precision", "high"), "argument --precision: invalid float value: 'high'"),
        (("--model", "models/forward"), "--run has its own judgements: leave out --model and --backward"),
        (("--set", "curate.judje=expected"), "did you mean `curate.judge`?"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_anything_is_read(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    line = refused(capsys, 2, "calibrate", "--labels", "nowhere", "--run", run, "--out", tmp_path / "out", *words)
    assert said in line


def test_a_precision_that_cannot_be_is_refused_before_a_model_is_asked(
    labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("askback.calibrating.judge_labels", lambda *asked: pytest.fail("a model was asked"))
    words = ("calibrate", "--labels", labels, "--precision", 0, "--out", tmp_path / "out", *ECHO)
    assert "precision: want a share above 0" in refused(capsys, 2, *words)


def test_the_folder_is_called_calibration_where_none_is_named(
    run: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert askback("calibrate", "--labels", labels, "--run", run, "--precision", 0.5, *QUICK) == 0
    assert (tmp_path / "calibration" / "calibration.json").is_file()


def test_help_says_what_labels_are_and_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, "calibrate")
    assert "rows of id or instruction and output with a grade (1 to 5) or label (good, bad)" in said
    assert "example: askback calibrate --labels grades.jsonl --run runs/mine" in said
    for flag in ("--precision", "--good-from", "--model", "--backward"):
        assert flag in said


def test_the_same_labels_give_the_same_files(run: Path, labels: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        words = ("calibrate", "--labels", labels, "--run", run, "--precision", 0.5, "--out", tmp_path / name)
        assert askback(*words, *QUICK) == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
