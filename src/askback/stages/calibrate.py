"""Hold judges against what people said, and make one calibrated score of their signals.

Takes: Judgements by signal, Grades, Preferences.  Gives: a Calibration, and a report in which every figure has its n.
Never: shows a figure of the calibrated score on rows that it, or its threshold, was fitted on.

The calibrated score is a logistic regression on standardized signals. What the report says of it comes from folds: the
score of a row from a model that never saw the row, nor another row of its document, output or instruction; precision
and recall at the threshold from thresholds that were found without the rows they are counted on.

    wanted, not_calibrated: the precision asked for, and why there is no calibration, if there is none
    labels       {grades, good, preferences, followed, twice}
    signals      {name: an agreement, as below, + {unscored: {outcome: count}}}
    combined     null | an agreement + {calibration_error, reliability: [{low, high, predicted, good}], folds}
    threshold    null | {keep_from, kept, precision, recall}
    calibration  null | as Calibration
    rows         [{id, source, instruction, output, output_chars, role, grade, scores: {name: score}, combined}]

    an agreement is {n, good, spearman, kappa, auc, pairwise, preferences, average_precision, length, curve}
    length       {score, grade, shorter_better, longer_better, compared}
    curve        [[threshold, precision, recall, kept]], the highest threshold first
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, pstdev
from typing import Any

from askback import agreement
from askback.agreement import Draws, Point
from askback.calibration import Calibration
from askback.chance import normal
from askback.errors import ConfigError, DataError, borrow
from askback.grades import Grade, Preference, merge_grades, preferences_within
from askback.records import Judgement, Pair, excerpt

EXTRA = "calibrate"
"""The extra that brings scikit-learn."""
FOLDS = 5
LEAST = 20
"""Fewer graded pairs than this are not fitted to."""
LEAST_OF_EACH = 5
"""So many documents (or questions) must hold a good pair, and so many a bad one: each fold then has both."""
LEAST_KEPT = 5
"""A threshold that keeps fewer labelled pairs has a precision that says nothing."""
RUBRIC_SIGNALS = ("expected", "reasoned")
"""Signals whose values are grades, so that they can be compared with people's grade for grade.

An additive rubric begins at 0; there it counts as the lowest grade.
"""
EXCERPT_CHARS = 300

Report = dict[str, Any]
Values = Mapping[str, float]
"""Pair id -> score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a calibration is to reach, and how intervals are drawn."""

    precision: float = 0.9
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.precision <= 1:
            raise ConfigError(f"precision: want a share above 0 and up to 1, got {self.precision}")


class NotCalibrated(DataError):
    """The labels do not carry a calibration; `report` holds what they do show of the judges."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report | {"not_calibrated": message}


@dataclass(frozen=True, slots=True)
class Labels:
    """What people said, each pair graded once, and which pairs hang together."""

    grades: tuple[Grade, ...]
    preferences: tuple[Preference, ...]
    """Those that were given, and those that follow from the grades of answers to one instruction."""
    group: Mapping[str, int]
    """Pair id -> a number it shares with every pair of its document, its output or its instruction."""
    counts: Mapping[str, int]

    @property
    def pairs(self) -> list[Pair]:
        """Every pair something was said of, once."""
        return list(_unique([grade.pair for grade in self.grades], self.preferences).values())


@dataclass(frozen=True, slots=True)
class Row:
    """A graded pair for which every signal has a value."""

    id: str
    group: int
    good: bool
    values: Mapping[str, float]


def check_extra() -> None:
    """Find out before any model is asked whether the regression can be fitted.

    Raises:
        MissingExtra: scikit-learn is absent.
    """
    borrow("sklearn", EXTRA)


def calibrate(
    signals: Mapping[str, Sequence[Judgement]],
    grades: Sequence[Grade],
    preferences: Sequence[Preference],
    wanted: Wanted,
) -> tuple[Calibration, Report]:
    """Return the calibration of all signals together and the whole report.

    Raises:
        NotCalibrated: too few labels, all alike or from too few documents; or no score reaches the precision. A
            threshold that keeps nothing would let a run fail hours later: it is said here, with the best precision.
        MissingExtra: scikit-learn is absent.
    """
    check_extra()
    labels = collect_labels(grades, preferences)
    report = measure(signals, labels, wanted)
    try:
        found = _calibrated(_rows(signals, labels), labels, wanted, report)
    except DataError as why:
        raise NotCalibrated(str(why), report) from why
    return found, report | {"calibration": asdict(found)}


def _calibrated(rows: Sequence[Row], labels: Labels, wanted: Wanted, report: Report) -> Calibration:
    """Return the calibration; the report is filled as far as one comes."""
    _check_enough(rows, labels)
    scores = _out_of_fold(rows)
    combined = dict(zip([row.id for row in rows], scores, strict=True))
    report["combined"] = _combined(combined, labels, wanted)
    for shown in report["rows"]:
        shown["combined"] = combined.get(shown["id"])
    curve = agreement.precision_recall(scores, [row.good for row in rows])
    keep_from = _lowest_reaching(curve, wanted.precision)
    if keep_from is None:
        raise DataError(_out_of_reach(curve, wanted.precision))
    report["threshold"] = {"keep_from": keep_from, **_proved(rows, wanted.precision)}
    return replace(_fit(rows), keep_from=keep_from, wanted_precision=wanted.precision)


def measure(signals: Mapping[str, Sequence[Judgement]], labels: Labels, wanted: Wanted) -> Report:
    """Return how far each single signal agrees with the labels; nothing is fitted."""
    values = {name: _values(said) for name, said in signals.items()}
    found = {
        name: measure_scores(scores, labels, wanted, rubric=name in RUBRIC_SIGNALS)
        | {"unscored": _unscored(signals[name], labels)}
        for name, scores in values.items()
    }
    rows = _shown(labels, values)
    return {
        "wanted": wanted.precision,
        "not_calibrated": "",
        "labels": dict(labels.counts),
        "signals": found,
        "combined": None,
        "threshold": None,
        "calibration": None,
        "rows": rows,
    }


def measure_scores(scores: Values, labels: Labels, wanted: Wanted, *, rubric: bool) -> Report:
    """Return how far one kind of score agrees with the labels; `rubric` scores are grades from 1 to 5 themselves."""
    graded = [grade for grade in labels.grades if grade.pair.id in scores]
    said, five = [scores[grade.pair.id] for grade in graded], [grade.five for grade in graded]
    good = [grade.good for grade in graded]
    draws = _draws([grade.pair for grade in graded], labels, wanted)
    whole_said, whole_five = (list(map(agreement.five_point, side)) for side in (said, five))
    curve = agreement.precision_recall(said, good)
    return {
        "n": len(graded),
        "good": sum(good),
        "spearman": _plain(agreement.rank_correlation(said, five, draws)),
        "kappa": _plain(agreement.weighted_kappa(whole_said, whole_five, draws)) if rubric else None,
        "auc": _plain(agreement.pairwise_accuracy(said, list(map(float, good)), draws)),
        "pairwise": _plain(agreement.pairwise_accuracy(said, five, draws)),
        "preferences": _plain(_preferred(scores, labels, wanted, lambda better, worse: True)),
        "average_precision": agreement.average_precision(curve),
        "length": _length_bias(scores, graded, labels, wanted),
        "curve": [[point.threshold, point.precision, point.recall, point.kept] for point in curve],
    }


# --- labels


def collect_labels(grades: Sequence[Grade], preferences: Sequence[Preference]) -> Labels:
    """Return one grade for each pair, all preferences, and which pairs hang together."""
    merged = merge_grades(grades)
    followed = preferences_within(merged)
    every = (*preferences, *followed)
    counts = {
        "grades": len(merged),
        "good": sum(grade.good for grade in merged),
        "preferences": len(preferences),
        "followed": len(followed),
        "twice": len(grades) - len(merged),
    }
    pairs = _unique([grade.pair for grade in merged], every)
    return Labels(tuple(merged), every, hang_together(pairs.values()), counts)


def hang_together(pairs: Iterable[Pair]) -> dict[str, int]:
    """Return pair id -> a number that pairs of one document, one output or one instruction share."""
    ordered = sorted(pairs, key=lambda pair: pair.id)
    parent = list(range(len(ordered)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, pair in enumerate(ordered):
        for kind in ("document", "output", "instruction"):
            if text := normal(getattr(pair, kind)):
                parent[root(place)] = root(first.setdefault((kind, text), place))
    return {pair.id: root(place) for place, pair in enumerate(ordered)}


def _unique(pairs: Iterable[Pair], preferences: Iterable[Preference]) -> dict[str, Pair]:
    preferred = (pair for one in preferences for pair in (one.better, one.worse))
    return {pair.id: pair for pair in (*preferred, *pairs)}


def _values(judgements: Iterable[Judgement]) -> dict[str, float]:
    return {said.pair: said.score for said in judgements if said.score is not None}


def _unscored(judgements: Sequence[Judgement], labels: Labels) -> dict[str, int]:
    """Count the labelled pairs that a signal has no value for, by the judge's own word for why."""
    outcomes = {said.pair: said.outcome for said in judgements if said.score is None}
    scored = {said.pair for said in judgements if said.score is not None}
    missing = [outcomes.get(pair.id, "not_judged") for pair in labels.pairs if pair.id not in scored]
    return dict(sorted(Counter(missing).items()))


def _rows(signals: Mapping[str, Sequence[Judgement]], labels: Labels) -> list[Row]:
    found = {name: _values(said) for name, said in signals.items()}
    whole = [grade for grade in labels.grades if all(grade.pair.id in values for values in found.values())]
    return [
        Row(
            grade.pair.id, labels.group[grade.pair.id], grade.good, {name: found[name][grade.pair.id] for name in found}
        )
        for grade in whole
    ]


def _shown(labels: Labels, values: Mapping[str, Values]) -> list[Report]:
    """Return every labelled pair as the page shows it; a pair without a grade is known by its first preference."""
    grades = {grade.pair.id: grade for grade in labels.grades}
    roles: dict[str, str] = {}
    for one in labels.preferences:
        roles.setdefault(one.better.id, "better")
        roles.setdefault(one.worse.id, "worse")
    roles |= {id: "good" if grade.good else "bad" for id, grade in grades.items()}
    return [
        {
            "id": pair.id,
            "source": pair.source,
            "instruction": excerpt(pair.instruction, EXCERPT_CHARS),
            "output": excerpt(pair.output, EXCERPT_CHARS),
            "output_chars": len(pair.output),
            "role": roles[pair.id],
            "grade": grades[pair.id].five if pair.id in grades else None,
            "scores": {name: scores.get(pair.id) for name, scores in values.items()},
            "combined": None,
        }
        for pair in sorted(labels.pairs, key=lambda pair: pair.id)
    ]


# --- agreement


def _combined(scores: Values, labels: Labels, wanted: Wanted) -> Report:
    good = [grade.good for grade in labels.grades if grade.pair.id in scores]
    chances = [(scores[grade.pair.id] - 1) / 4 for grade in labels.grades if grade.pair.id in scores]
    bins = agreement.reliability(chances, good)
    return measure_scores(scores, labels, wanted, rubric=False) | {
        "calibration_error": agreement.calibration_error(bins),
        "reliability": [asdict(one) for one in bins],
        "folds": FOLDS,
    }


def _length_bias(scores: Values, graded: Sequence[Grade], labels: Labels, wanted: Wanted) -> Report:
    """Return how score and people's grade go with the output's length, and accuracy by which answer is the longer.

    The latter over the preferences, or where there are none over any two graded pairs.
    """
    pairs = [grade.pair for grade in graded]
    said, five = [scores[pair.id] for pair in pairs], [grade.five for grade in graded]
    chars, draws = [float(len(pair.output)) for pair in pairs], _draws(pairs, labels, wanted)
    if labels.preferences:
        shorter = _preferred(scores, labels, wanted, lambda better, worse: better < worse)
        longer = _preferred(scores, labels, wanted, lambda better, worse: better > worse)
    else:
        shorter = agreement.pairwise_accuracy(said, five, draws, smaller=chars)
        longer = agreement.pairwise_accuracy(said, five, draws, smaller=[-size for size in chars])
    return {
        "score": _plain(agreement.rank_correlation(said, chars, draws)),
        "grade": _plain(agreement.rank_correlation(five, chars, draws)),
        "shorter_better": _plain(shorter),
        "longer_better": _plain(longer),
        "compared": "preferences" if labels.preferences else "graded pairs",
    }


def _preferred(
    scores: Values, labels: Labels, wanted: Wanted, counts: Callable[[int, int], bool]
) -> agreement.Agreed | None:
    """Return the accuracy on the preferences whose lengths (of the better, of the worse output) `counts` accepts."""
    asked = [
        one
        for one in labels.preferences
        if one.better.id in scores and one.worse.id in scores and counts(len(one.better.output), len(one.worse.output))
    ]
    pairs = [(scores[one.better.id], scores[one.worse.id]) for one in asked]
    return agreement.preference_accuracy(pairs, _draws([one.better for one in asked], labels, wanted))


def _draws(pairs: Iterable[Pair], labels: Labels, wanted: Wanted) -> Draws:
    return Draws(wanted.resamples, wanted.seed, tuple(labels.group[pair.id] for pair in pairs))


def _plain(figure: Any) -> Report | None:
    return None if figure is None else asdict(figure)


# --- the model


def _fit(rows: Sequence[Row]) -> Calibration:
    """Return the regression on these rows; it keeps nothing until a threshold is put in."""
    linear_model = borrow("sklearn.linear_model", EXTRA)
    names = tuple(rows[0].values)
    columns = [[row.values[name] for row in rows] for name in names]
    means = tuple(fmean(column) for column in columns)
    scales = tuple(pstdev(column) or 1.0 for column in columns)  # a constant signal gets the weight 0
    table = [
        [(value - mean) / scale for value, mean, scale in zip(row, means, scales, strict=True)] for row in zip(*columns)
    ]
    good = [row.good for row in rows]
    model = linear_model.LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(table, good)
    return Calibration(
        signals=names,
        means=means,
        scales=scales,
        weights=tuple(float(weight) for weight in model.coef_[0]),
        bias=float(model.intercept_[0]),
        keep_from=5.0,
        wanted_precision=1.0,
        n=len(rows),
        good=sum(good),
    )


def _score(model: Calibration, row: Row) -> float:
    score = model.score(row.values)
    assert score is not None, "a row has every signal"
    return score


def _folds(rows: Sequence[Row]) -> list[list[int]]:
    """Return the places of each fold's rows: groups stay whole, good and bad are spread; the same rows, the same folds.

    The rows come ordered by id, so the order of reading does not matter.

    Raises:
        DataError: without one of the folds only good or only bad rows are left.
    """
    selection = borrow("sklearn.model_selection", EXTRA)
    good, groups = [row.good for row in rows], [row.group for row in rows]
    spread = min(len({row.group for row in rows if row.good is kind}) for kind in (True, False))
    splitter = selection.StratifiedGroupKFold(n_splits=max(2, min(FOLDS, spread)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few of one kind within a fold: what matters is checked below
        folds = [list(map(int, test)) for _, test in splitter.split(good, good, groups)]
    if any(len({row.good for row in _without(rows, fold)}) < 2 for fold in folds):
        raise DataError(
            "good and bad pairs are spread too unevenly over documents and questions to hold some of them out: label "
            "pairs of more documents"
        )
    return folds


def _out_of_fold(rows: Sequence[Row]) -> list[float]:
    """Return each row's score by a model fitted on the other folds."""
    scores = [0.0] * len(rows)
    for fold in _folds(rows):
        model = _fit(_without(rows, fold))
        for place in fold:
            scores[place] = _score(model, rows[place])
    return scores


def _without(rows: Sequence[Row], fold: Iterable[int]) -> list[Row]:
    out = set(fold)
    return [row for place, row in enumerate(rows) if place not in out]


# --- the threshold


def _lowest_reaching(curve: Sequence[Point], precision: float) -> float | None:
    reaching = [point.threshold for point in curve if point.kept >= LEAST_KEPT and point.precision >= precision]
    return min(reaching, default=None)


def _proved(rows: Sequence[Row], precision: float) -> Report:
    """Return precision and recall of keeping, each fold's rows by a model and a threshold found on the other folds."""
    kept: list[bool] = []
    for fold in _folds(rows):
        training = _without(rows, fold)
        curve = agreement.precision_recall(_out_of_fold(training), [row.good for row in training])
        floor = _lowest_reaching(curve, precision)
        model = _fit(training)
        kept += [rows[place].good for place in fold if floor is not None and _score(model, rows[place]) >= floor]
    right = sum(kept)
    return {
        "kept": len(kept),
        "precision": _plain(agreement.wilson(right, len(kept))),
        "recall": _plain(agreement.wilson(right, sum(row.good for row in rows))),
    }


def _check_enough(rows: Sequence[Row], labels: Labels) -> None:
    if not labels.grades:
        raise DataError(
            "preferences alone set no threshold: grade single pairs (id or instruction and output, and grade or label)"
        )
    if len(rows) < LEAST:
        raise DataError(
            f"{len(rows)} of {len(labels.grades)} graded pairs have a value of every signal, and {LEAST} are the "
            "least: label more pairs, or leave out a signal that gives no values"
        )
    for kind, name in ((True, "good"), (False, "bad")):
        mine = [row for row in rows if row.good is kind]
        groups = {row.group for row in mine}
        if len(groups) < LEAST_OF_EACH:
            raise DataError(
                f"{len(mine)} of {len(rows)} graded pairs are {name}, from {len(groups)} documents or questions, and "
                f"{LEAST_OF_EACH} are the least: label {name} pairs of more documents"
            )


def _out_of_reach(curve: Sequence[Point], precision: float) -> str:
    best = max((point for point in curve if point.kept >= LEAST_KEPT), key=lambda point: (point.precision, point.kept))
    return (
        f"no score reaches the precision {precision:g} on {curve[-1].kept} graded pairs; the best is "
        f"{best.precision:.2f}, of the {best.kept} pairs that score {best.threshold:.2f} or more: ask for less with "
        "--precision, let a stronger model judge, add signals to curate.judge, or label more pairs"
    )
