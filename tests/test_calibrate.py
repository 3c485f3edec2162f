"""Laws of calibration: planted judges are told apart, nothing is shown on rows it was fitted on, no label is lost."""

import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from askback import calibrating
from askback.calibrating import CALIBRATION, PAGE, REPORT, UNUSED, calibrate_rows, calibrate_run, measure_rows, summary
from askback.calibration import Calibration
from askback.chance import row_seed
from askback.config import check_options, to_toml
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, DataError
from askback.grades import Grade, Preference
from askback.options import Options
from askback.readers.labels import read_labels
from askback.records import Judgement, Pair
from askback.stages import calibrate as stage
from askback.stages.calibrate import NotCalibrated, Row, Wanted, calibrate, collect_labels, hang_together, measure
from askback.stages.calibration_page import render_calibration
from askback.store import open_run, write_text

sklearn = pytest.importorskip("sklearn")

HOSTILE = "<script>alert('x')</script> & {{ 7 * 7 }} </p>"
WANTED = Wanted(precision=0.8, resamples=200, seed=1)
Says = Callable[[Pair], float | None]


def pair(id: str, **more: Any) -> Pair:
    texts = {"instruction": f"Explain matter {id}.", "output": f"Matter {id} is this. " * (1 + len(id))}
    return Pair(**{"id": id, "document": f"doc-{id}", **texts, **more})


def chance(of: str, name: str = "noise") -> float:
    return random.Random(row_seed(0, f"{name}/{of}", 0)).gauss(0, 1)


def graded(count: int = 120, per_document: int = 1) -> list[Grade]:
    """Return grades from 1 to 5 in turn, the pairs of one document beside each other."""
    found = []
    for n in range(count):
        five = float(1 + n * 7 % 5)
        made = pair(f"p{n:03}", document=f"doc-{n // per_document}")
        found.append(Grade(made, five, (1.0, 5.0), five >= 4))
    return found


def said(pairs: Iterable[Pair], judge: Says, name: str = "expected") -> list[Judgement]:
    scores = [(one.id, judge(one)) for one in pairs]
    return [
        Judgement(pair=id, round=1, judge=name, score=score, outcome="too_long" if score is None else "scored")
        for id, score in scores
    ]


def perfect(grades: Sequence[Grade]) -> Says:
    five = {grade.pair.id: grade.five for grade in grades}
    return lambda one: five[one.id]


def noisy(grades: Sequence[Grade], by: float, name: str = "noise") -> Says:
    five = {grade.pair.id: grade.five for grade in grades}
    return lambda one: five[one.id] + by * chance(one.id, name)


def blind(one: Pair) -> float:
    """A judge that throws a die."""
    return random.Random(row_seed(5, one.id, 0)).uniform(1, 5)


def calibrated(grades: Sequence[Grade], wanted: Wanted = WANTED, **judges: Says) -> tuple[Calibration, dict[str, Any]]:
    pairs = [grade.pair for grade in grades]
    return calibrate({name: said(pairs, judge, name) for name, judge in judges.items()}, grades, [], wanted)


# --- planted judges


@pytest.fixture(scope="module")
def ratings(shared: Path) -> dict[str, Any]:
    """Both sets of ratings: the labels, and what a perfect judge would say."""
    found = {}
    for name in ("llmbar_natural.json", "vicuna_answers_scored.jsonl.gz"):
        rows = list(read_labels(shared / "ratings" / name))
        labels = collect_labels(
            [row for row in rows if isinstance(row, Grade)], [row for row in rows if isinstance(row, Preference)]
        )
        truth = {grade.pair.id: grade.five for grade in labels.grades}
        if not truth:
            truth = {one.better.id: 5.0 for one in labels.preferences} | {
                one.worse.id: 1.0 for one in labels.preferences
            }
        found[name.split("_")[0]] = (labels, truth)
    return found


@pytest.mark.parametrize("name", ["llmbar", "vicuna"])
def test_a_planted_perfect_and_a_planted_random_judge_are_told_apart(ratings: dict[str, Any], name: str) -> None:
    labels, truth = ratings[name]
    signals = {
        "expected": said(labels.pairs, lambda one: truth[one.id]),
        "reasoned": said(labels.pairs, blind, "reasoned"),
    }
    found = measure(signals, labels, Wanted(resamples=500, seed=2))["signals"]
    right, random_ = found["expected"], found["reasoned"]
    assert right["preferences"]["value"] == 1.0
    assert right["preferences"]["low"] > 0.9
    assert random_["preferences"]["low"] < 0.5 < random_["preferences"]["high"]
    for part in ("shorter_better", "longer_better"):
        assert right["length"][part]["value"] == 1.0
        assert random_["length"][part]["low"] < 0.5 < random_["length"][part]["high"]
    if name == "llmbar":
        assert right["preferences"]["n"] == random_["preferences"]["n"] == 100
        return
    assert [right[figure]["value"] for figure in ("spearman", "kappa", "auc", "pairwise")] == pytest.approx([1] * 4)
    assert right["average_precision"] == pytest.approx(1.0)
    for figure, none in (("spearman", 0.0), ("kappa", 0.0), ("auc", 0.5), ("pairwise", 0.5)):
        assert random_[figure]["low"] < none < random_[figure]["high"]
    assert (right["n"], right["spearman"]["drawn"]) == (1315, 40)  # answers to one question are drawn together


def test_a_judge_that_likes_length_is_found_out(ratings: dict[str, Any]) -> None:
    labels, _ = ratings["llmbar"]
    found = measure({"likelihood": said(labels.pairs, lambda one: float(len(one.output)))}, labels, WANTED)
    length = found["signals"]["likelihood"]["length"]
    assert (length["shorter_better"]["value"], length["longer_better"]["value"]) == (0.0, 1.0)
    assert length["shorter_better"]["n"] + length["longer_better"]["n"] == 99  # two outputs are of equal length


def test_without_preferences_length_is_held_against_any_two_graded_pairs() -> None:
    grades = [replace(one, pair=replace(one.pair, output="x" * (10 + n))) for n, one in enumerate(graded(60))]
    found = measure(
        {"likelihood": said([one.pair for one in grades], lambda one: float(len(one.output)))},
        collect_labels(grades, []),
        WANTED,
    )["signals"]["likelihood"]
    assert found["length"]["compared"] == "graded pairs"
    assert found["length"]["score"]["value"] == pytest.approx(1.0)
    assert (found["length"]["shorter_better"]["value"], found["length"]["longer_better"]["value"]) == (0.0, 1.0)
    assert found["kappa"] is None  # a likelihood is no grade


# --- what hangs together


def test_pairs_of_one_document_output_or_instruction_hang_together() -> None:
    chain = [
        pair("a", document="d1"),
        pair("b", document="d1", output="Same."),
        pair("c", document="d2", output=" same. "),
        pair("d", document="d3", instruction="Explain matter c."),
        pair("e", document=""),
        pair("f", document=""),
    ]
    group = hang_together(chain)
    assert len({group[id] for id in "abcd"}) == 1
    assert len({group[id] for id in "aef"}) == 3
    assert hang_together(reversed(chain)) == group


def test_no_group_is_on_both_sides_of_a_fold() -> None:
    rows = [Row(f"{n:03}", n // 4, n % 3 == 0, {"expected": float(n)}) for n in range(100)]
    folds = stage._folds(rows)
    assert sorted(place for fold in folds for place in fold) == list(range(100))
    for fold in folds:
        inside = {rows[place].group for place in fold}
        assert inside.isdisjoint(row.group for row in stage._without(rows, fold))


# --- figures that are honest


def test_what_people_said_of_a_row_does_not_reach_its_own_score(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(f"{n:03}", n, n % 2 == 0, {"expected": chance(str(n))}) for n in range(40)]
    monkeypatch.setattr(stage, "_folds", lambda rows: [list(range(at, len(rows), 5)) for at in range(5)])
    before = stage._out_of_fold(rows)
    after = stage._out_of_fold([replace(row, good=not row.good) if n % 5 == 0 else row for n, row in enumerate(rows)])
    assert after[0::5] == before[0::5]
    assert all(x != y for x, y in zip(after[1::5], before[1::5], strict=True))


def test_signals_of_mere_noise_do_not_look_good() -> None:
    judges = {name: (lambda one, name=name: chance(one.id, name)) for name in ("expected", "likelihood", "backward")}
    grades = [replace(one, good=n % 2 == 0) for n, one in enumerate(graded(60))]
    with pytest.raises(NotCalibrated) as caught:
        calibrated(grades, replace(WANTED, precision=0.95), **judges)
    assert caught.value.report["combined"]["auc"]["low"] < 0.5


def test_precision_at_the_threshold_is_counted_where_nothing_was_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many sets of noisy labels the shown precision is, on average, the one new pairs would have."""
    shown, true = [], []
    for draw in range(6):
        rows = [made_row(f"{draw}/{n}") for n in range(100)]
        proved = stage._proved(rows, 0.7)
        floor = stage._lowest_reaching(
            stage.agreement.precision_recall(stage._out_of_fold(rows), [row.good for row in rows]), 0.7
        )
        if floor is None or proved["precision"] is None:
            continue
        model = stage._fit(rows)
        fresh = [made_row(f"new/{draw}/{n}") for n in range(1000)]
        kept = [row.good for row in fresh if stage._score(model, row) >= floor]
        shown.append(proved["precision"]["value"])
        true.append(sum(kept) / len(kept))
    assert len(shown) == 6
    assert sum(shown) / len(shown) == pytest.approx(sum(true) / len(true), abs=0.02)


def made_row(id: str) -> Row:
    signal = chance(id, "signal")
    return Row(id, row_seed(0, id, 0), signal + 1.2 * chance(id, "label") > 0.5, {"expected": signal})


# --- the calibration


def test_a_calibration_reaches_its_precision_and_says_with_what_interval() -> None:
    grades = graded()
    made, report = calibrated(grades, expected=noisy(grades, 0.7), likelihood=noisy(grades, 3, "other"))
    assert made.signals == ("expected", "likelihood")
    assert made.weights[0] > made.weights[1] > 0
    assert (made.n, made.good, made.wanted_precision) == (120, 48, 0.8)
    threshold = report["threshold"]
    assert threshold["keep_from"] == made.keep_from
    curve = {at: (precision, recall) for at, precision, recall, _ in report["combined"]["curve"]}
    assert curve[made.keep_from][0] >= 0.8
    assert all(precision < 0.8 for at, (precision, _) in curve.items() if at < made.keep_from)
    assert threshold["precision"]["n"] == threshold["kept"]
    assert threshold["recall"]["n"] == 48
    assert threshold["precision"]["low"] < threshold["precision"]["value"] < threshold["precision"]["high"]
    assert Calibration.loads(made.dumps(), "here") == made
    assert report["calibration"]["weights"] == made.weights


def test_the_combination_is_scikit_learns_on_standardized_signals() -> None:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    grades = graded()
    made, _ = calibrated(grades, expected=noisy(grades, 0.7), likelihood=noisy(grades, 3, "other"))
    table = np.array([[noisy(grades, 0.7)(g.pair), noisy(grades, 3, "other")(g.pair)] for g in grades])
    scaler = StandardScaler().fit(table)
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaler.transform(table), [g.good for g in grades])
    known = 1 + 4 * model.predict_proba(scaler.transform(table))[:, 1]
    found = [made.score({"expected": row[0], "likelihood": row[1]}) for row in table]
    assert found == pytest.approx(known.tolist(), abs=1e-4)


def test_neither_the_order_of_labels_nor_that_of_judgements_matters() -> None:
    grades = graded()
    pairs = [grade.pair for grade in grades]
    judge = noisy(grades, 0.8)
    first = calibrate({"expected": said(pairs, judge)}, grades, [], WANTED)
    again = calibrate({"expected": said(pairs[::-1], judge)}, grades[::-1], [], WANTED)
    assert first == again


def test_a_signal_that_never_changes_has_no_weight() -> None:
    grades = graded()
    made, _ = calibrated(grades, expected=noisy(grades, 0.7), likelihood=lambda one: 0.25)
    assert made.weights[1] == 0.0
    assert made.score({"expected": 4.0, "likelihood": 0.25}) == made.score({"expected": 4.0, "likelihood": 9.0})


def test_pairs_that_a_signal_could_not_read_are_counted_and_not_fitted_to() -> None:
    grades = graded()
    deaf = noisy(grades, 3, "other")
    made, report = calibrated(
        grades, expected=noisy(grades, 0.5), likelihood=lambda one: None if one.id < "p010" else deaf(one)
    )
    assert made.n == report["combined"]["n"] == 110
    assert report["signals"]["expected"]["n"] == 120
    assert report["signals"]["likelihood"]["unscored"] == {"too_long": 10}
    assert [row["combined"] is None for row in report["rows"]] == [True] * 10 + [False] * 110


def test_the_same_pair_graded_by_two_is_one_row() -> None:
    grades = graded()
    _, report = calibrate(
        {"expected": said([g.pair for g in grades], perfect(grades))}, [*grades, *grades[:7]], [], WANTED
    )
    assert report["labels"] == {"grades": 120, "good": 48, "preferences": 0, "followed": 0, "twice": 7}
    assert report["signals"]["expected"]["n"] == 120


# --- labels that do not carry a calibration


def test_a_precision_that_no_score_reaches_is_an_error_with_the_best_one_and_the_whole_report() -> None:
    with pytest.raises(NotCalibrated, match=r"no score reaches the precision 0\.99 on 120 .* the best is 0\.\d\d, of"):
        calibrated(graded(), replace(WANTED, precision=0.99), expected=blind)
    with pytest.raises(NotCalibrated) as caught:
        calibrated(graded(), replace(WANTED, precision=0.99), expected=blind)
    report = caught.value.report
    assert report["combined"]["n"] == 120
    assert report["calibration"] is report["threshold"] is None
    assert report["not_calibrated"] == str(caught.value)


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        (graded(19), "19 of 19 graded pairs have a value of every signal, and 20 are the least"),
        ([replace(one, good=True) for one in graded(40)], "0 of 40 graded pairs are bad, from 0 documents"),
        ([replace(one, good=n < 4) for n, one in enumerate(graded(40))], "4 of 40 graded pairs are good, from 4"),
        (graded(40, per_document=10), "16 of 40 graded pairs are good, from 4 documents"),
    ],
)
def test_too_few_labels_are_an_error_with_its_remedy(grades: list[Grade], message: str) -> None:
    with pytest.raises(NotCalibrated, match=f"{re.escape(message)}.*label") as caught:
        calibrated(grades, expected=perfect(grades))
    assert caught.value.report["signals"]["expected"]["n"] == len(grades)


def test_preferences_alone_set_no_threshold_and_still_show_the_judge() -> None:
    one, two = pair("a"), pair("b")
    with pytest.raises(NotCalibrated, match="preferences alone set no threshold") as caught:
        calibrate({"expected": said([one, two], lambda at: float(at.id == "a"))}, [], [Preference(one, two)], WANTED)
    assert caught.value.report["signals"]["expected"]["preferences"]["value"] == 1.0


@pytest.mark.parametrize("precision", [0, -1, 1.01, float("nan")])
def test_an_impossible_precision_is_refused(precision: float) -> None:
    with pytest.raises(ConfigError, match="precision"):
        Wanted(precision=precision)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"pip install 'askback\[calibrate\]'"):
        calibrated(graded(), expected=blind)
    with pytest.raises(ConfigError, match=r"pip install 'askback\[calibrate\]'"):  # before any model is asked
        calibrate_rows(Path("none"), EchoEngine(options().engine), None, None, options(), 0.9, Path("none"))


# --- of a run


def options(**curate: Any) -> Options:
    return check_options(
        {"seed": {"path": "s"}, "corpus": {"path": "c"}, "evaluate": {"bootstrap": 100}, "curate": curate}, "test"
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two rounds with two signals; its judge is good in the second round only."""
    folder, grades = tmp_path / "run", graded()
    pairs = [grade.pair for grade in grades]
    steps: list[tuple[str, type, Sequence[Any]]] = [
        ("05-candidates", Pair, [*pairs, pair("gone")]),
        ("06-gated", Pair, pairs),
        ("08-judged-1", Judgement, said(pairs, blind)),
        ("09-judged-backward", Judgement, said(pairs, noisy(grades, 2, "back"), "backward")),
        ("10-kept-1", Pair, pairs[:9]),
        ("12-judged-2", Judgement, said(pairs, noisy(grades, 0.6))),
        ("13-kept-2", Pair, pairs[:9]),
    ]
    with open_run(folder) as held:
        for name, record, rows in steps:
            step = held.step(name, record, {})
            step.begin()
            step.write_part(0, rows)
            step.finish({})
    write_text(folder / "run.toml", to_toml(options(judge=["expected", "backward"])))
    return folder


def write_labels(folder: Path, rows: Iterable[object]) -> Path:
    file = folder / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_run_is_calibrated_from_ids_and_from_texts_alike(run: Path, tmp_path: Path) -> None:
    grades = graded()
    by_id = write_labels(tmp_path, [{"id": g.pair.id, "grade": g.grade} for g in grades])
    first = calibrate_run(by_id, run, options(), 0.8, tmp_path / "by_id")
    texts = [{"instruction": g.pair.instruction, "output": g.pair.output, "grade": g.grade} for g in grades]
    again = calibrate_run(write_labels(tmp_path, texts), run, options(), 0.8, tmp_path / "by_text")
    assert list(first["signals"]) == ["expected", "backward"]
    assert first["signals"]["expected"]["spearman"]["value"] > 0.8  # the last round's judge, not the first one's
    assert first["calibration"] == again["calibration"]
    assert sorted(file.name for file in (tmp_path / "by_id").iterdir()) == [PAGE, CALIBRATION, REPORT]
    text = (tmp_path / "by_id" / CALIBRATION).read_text(encoding="utf-8")
    assert Calibration.loads(text, "x").keep_from == first["threshold"]["keep_from"]
    assert json.loads((tmp_path / "by_id" / REPORT).read_text(encoding="utf-8"))["files"]["used"] == 120
    assert f"keep from   {first['threshold']['keep_from']:.3f}: precision" in summary(first)


def test_labels_that_match_no_candidate_are_counted_and_named(run: Path, tmp_path: Path) -> None:
    fine = [{"id": g.pair.id, "grade": g.grade} for g in graded()]
    odd = [
        {"id": "nobody", "grade": 3},
        {"id": "gone", "grade": 3},
        {"id": "p001", "instruction": "Other.", "output": "Other.", "grade": 3},
        {"id": "p002"},
        {"instruction": "A?", "output_1": "B.", "output_2": "C.", "label": 1},
    ]
    found = calibrate_run(write_labels(tmp_path, [*odd, *fine]), run, options(), 0.8, tmp_path / "out")
    reasons = {"no_candidate": 2, "not_judged": 1, "other_text": 1, "no_grade": 1}
    assert found["files"] == {"read": 125, "used": 120, "reasons": reasons}
    lines = (tmp_path / "out" / UNUSED).read_text(encoding="utf-8").splitlines()
    named = {json.loads(line)["source"]: json.loads(line)["reason"] for line in lines}
    assert named == {
        "labels.jsonl:1": "no_candidate",
        "labels.jsonl:2": "not_judged",
        "labels.jsonl:3": "other_text",
        "labels.jsonl:4": "no_grade",
        "labels.jsonl:5": "no_candidate",
    }
    assert "1 other_text" in summary(found)


def test_labels_of_another_run_are_an_error_that_names_the_first(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label is about a judged candidate.*labels\.jsonl:1: no_candidate"):
        calibrate_run(write_labels(tmp_path, [{"id": "nobody", "grade": 3}]), run, options(), 0.8, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="want a run folder with a finished round"):
        calibrate_run(write_labels(tmp_path, [{"id": "a", "grade": 3}]), tmp_path, options(), 0.8, tmp_path / "out")


def test_an_unreached_precision_leaves_the_report_and_no_calibration(run: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [{"id": g.pair.id, "label": chance(g.pair.id) > 0} for g in graded()])
    out = tmp_path / "out"
    (out).mkdir()
    (out / REPORT).write_text("{}", encoding="utf-8")
    (out / CALIBRATION).write_text("of an earlier day", encoding="utf-8")
    with pytest.raises(DataError, match=r"no score reaches the precision 1 .*calibration\.html"):
        calibrate_run(labels, run, options(), 1.0, out)
    assert sorted(file.name for file in out.iterdir()) == [PAGE, REPORT]
    assert "No calibration was written" in (out / PAGE).read_text(encoding="utf-8")


def test_somebody_elses_folder_is_not_written_over(run: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [{"id": g.pair.id, "grade": g.grade} for g in graded()])
    with pytest.raises(ConfigError, match="not of askback's making"):
        calibrate_run(labels, run, options(), 0.8, run)
    assert (run / "run.toml").exists()


# --- of rows


def test_labelled_rows_are_judged_with_every_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grades = graded()
    texts = [{"instruction": g.pair.instruction, "output": g.pair.output, "grade": g.grade} for g in grades]
    labels = write_labels(tmp_path, [*texts, {"id": "alone", "grade": 4}])
    five = {(g.pair.instruction, g.pair.output.strip()): g.five for g in grades}
    asked: list[tuple[Any, ...]] = []

    def open_signal(engine: Any, name: str, *models: Any, round: int, seed: int) -> Any:
        asked.append((name, *models[:2], round, seed))
        return lambda pairs: said(
            pairs, lambda one: five[one.instruction, one.output] + 0.5 * chance(one.id, name), name
        )

    monkeypatch.setattr(calibrating, "open_signal", open_signal)
    table = options(judge=["expected"], beside=["backward"])
    engine = EchoEngine(table.engine)
    found = calibrate_rows(labels, engine, Path("f"), Path("b"), table, 0.8, tmp_path / "out")
    assert asked == [("expected", Path("f"), Path("b"), 1, 0), ("backward", Path("f"), Path("b"), 1, 0)]
    assert found["files"] == {"read": 121, "used": 120, "reasons": {"no_text": 1}}
    assert found["calibration"]["signals"] == ("expected", "backward")
    measured = measure_rows(labels, engine, Path("f"), Path("b"), table)
    assert measured["signals"] == found["signals"]


def test_the_echo_engine_is_no_judge(shared: Path, tmp_path: Path) -> None:
    table = options(judge=["expected", "likelihood"])
    found = measure_rows(shared / "ratings" / "llmbar_natural.json", EchoEngine(table.engine), None, None, table)
    order = found["signals"]["expected"]["preferences"]
    assert (order["n"], found["files"]["used"]) == (100, 100)
    assert order["low"] < 0.5 < order["high"]


def test_labels_without_texts_need_a_run(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, [{"id": "a", "grade": 3}])
    with pytest.raises(DataError, match="give the run its ids are of with --run"):
        calibrate_rows(labels, EchoEngine(options().engine), None, None, options(), 0.9, tmp_path / "out")


# --- the page


class Page(HTMLParser):
    """Collects tags and addresses, and holds that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.unnamed = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.unnamed += tag == "svg" and not (named.get("role") == "img" and named.get("aria-label"))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    grades = graded(60)
    hostile = [replace(one, pair=replace(one.pair, instruction=f"{one.pair.id} {HOSTILE}")) for one in grades]
    _, found = calibrated(hostile, expected=noisy(grades, 0.7), likelihood=noisy(grades, 3, "other"))
    return found | {"files": {"read": 61, "used": 60, "reasons": {HOSTILE: 1}}}


def test_the_page_asks_for_nothing_from_outside_and_shows_texts_as_texts(report: dict[str, Any]) -> None:
    text = render_calibration(report)
    page = Page(text)
    assert page.open == []
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in text
    assert "{{ 7 * 7 }}" in text


def test_every_picture_has_a_name_and_every_heading_cell_a_scope(report: dict[str, Any]) -> None:
    text = render_calibration(report)
    assert (text.count("<svg"), Page(text).unnamed) == (3, 0)
    assert len(re.findall(r"<th\b", text)) == len(re.findall(r'<th scope="(?:col|row)"', text)) > 20


def test_the_same_numbers_give_the_same_page(report: dict[str, Any]) -> None:
    assert render_calibration(report) == render_calibration(report)


def test_what_was_not_measured_reads_so() -> None:
    found = measure({"expected": []}, collect_labels([], []), WANTED)
    text = render_calibration(found)
    assert text.count("not measured") > 10
    assert "<svg" not in text
    assert Page(text).open == []


def test_a_precision_below_the_wanted_one_is_said(report: dict[str, Any]) -> None:
    precision = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 50}
    short = report | {"threshold": report["threshold"] | {"precision": precision}}
    assert "below the 80 % that was wanted" in render_calibration(short)
    reached = report | {"threshold": report["threshold"] | {"precision": precision | {"value": 0.8}}}
    assert "that was wanted" not in render_calibration(reached)


def test_the_pairs_shown_are_those_on_which_score_and_people_part_most(report: dict[str, Any]) -> None:
    from askback.stages.calibration_page import ODD_PAIRS, odd_pairs

    shown = odd_pairs(report["rows"])
    assert len(shown) == 2 * ODD_PAIRS
    best = max((row for row in report["rows"] if row["role"] == "bad"), key=lambda row: row["combined"])
    assert shown[0]["instruction"] == best["instruction"]
