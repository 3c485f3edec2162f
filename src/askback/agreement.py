"""How far a judge agrees with people: rank correlation, kappa, pairs in order, precision at a threshold, reliability.

Takes: scores, grades, labels.  Gives: floats, and intervals that carry the number behind them.
Never: knows a record, a signal's name or what counts as good; draws chance from anywhere but the caller's seed.

Rows that hang together (candidates of one document, answers to one question) are drawn together, so that an interval
is as wide as the number of independent things says. Where a figure is undefined, or all rows hang together so that
nothing can be drawn, the answer is None.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist
from typing import TYPE_CHECKING

from askback.metrics import CELLS_AT_ONCE, Score, spearman

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Z_95 = NormalDist().inv_cdf(0.975)
BINS = 10
MOST_ROWS = 2000
"""Rows that are all compared with each other: four million pairs; more make no interval narrower that matters."""


@dataclass(frozen=True, slots=True)
class Agreed(Score):
    """A figure over `n` rows or comparisons; for its interval `drawn` things were drawn: rows, or groups of them."""

    drawn: int


@dataclass(frozen=True, slots=True)
class Point:
    """What keeping everything from `threshold` on gives: precision, recall and the number of rows kept."""

    threshold: float
    precision: float
    recall: float
    kept: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose predicted probability lies in one stretch: the mean prediction beside the share that was good."""

    low: float
    high: float
    predicted: float
    good: Score


@dataclass(frozen=True, slots=True)
class Draws:
    """How an interval is drawn: how often, from which seed, and which rows are drawn together.

    `groups` holds one key per row; empty, every row stands alone.
    """

    resamples: int
    seed: int
    groups: tuple[int, ...] = ()

    def count(self, rows: int) -> int:
        """Return how many things are drawn: groups, or rows where they stand alone."""
        return len(set(self.groups)) if self.groups else rows

    def of(self, rows: Sequence[int]) -> "Draws":
        """Return how those rows are drawn."""
        return Draws(self.resamples, self.seed, tuple(self.groups[row] for row in rows) if self.groups else ())

    def weights(self, rows: int) -> "Iterator[NDArray[np.float64]]":
        """Yield blocks of resamples, B x rows: how often each row is in each resample."""
        import numpy as np

        if self.groups and len(self.groups) != rows:
            raise ValueError(f"draws: want a group for each of {rows} rows, got {len(self.groups)}")
        places_N = np.unique(self.groups, return_inverse=True)[1] if self.groups else np.arange(rows)
        count = self.count(rows)
        random, block = np.random.default_rng(self.seed), max(1, CELLS_AT_ONCE // rows)
        for done in range(0, self.resamples, block):
            size = min(block, self.resamples - done)
            yield random.multinomial(count, np.full(count, 1 / count), size=size)[:, places_N].astype(np.float64)


# --- scores beside grades


def rank_correlation(a: Sequence[float], b: Sequence[float], draws: Draws) -> Agreed | None:
    """Spearman's correlation of the ranks with its bootstrap interval; None where one side is constant.

    The ranks are taken anew in every resample.
    """
    import numpy as np

    value = spearman(a, b) if a else None
    if value is None:
        return None
    places = [np.unique(np.asarray(side, dtype=np.float64), return_inverse=True)[1] for side in (a, b)]
    found = [_correlations(w, _mid_ranks(w, places[0]), _mid_ranks(w, places[1])) for w in draws.weights(len(a))]
    return _drawn(value, found, len(a), draws.count(len(a)))


def weighted_kappa(a: Sequence[int], b: Sequence[int], draws: Draws) -> Agreed | None:
    """Agreement beyond chance of two raters on a scale of whole numbers, weighted quadratically (Cohen 1968).

    1 - sum (a - b)^2 / what two independent raters with these grades would differ by; None where that is 0.
    """
    import numpy as np

    _check_rows(a, b)
    if not a:
        return None
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sums = np.stack([np.ones_like(x), x, y, (x - y) ** 2, x**2 + y**2], axis=1)
    value = float(_kappas(sums.sum(axis=0, keepdims=True))[0])
    if math.isnan(value):
        return None
    found = [_kappas(w @ sums) for w in draws.weights(len(a))]
    return _drawn(value, found, len(a), draws.count(len(a)))


def five_point(score: float) -> int:
    """Return the nearest whole grade from 1 to 5; a half goes up."""
    return min(5, max(1, math.floor(score + 0.5)))


# --- two rows in the right order


def pairwise_accuracy(
    scores: Sequence[float], grades: Sequence[float], draws: Draws, *, smaller: Sequence[float] = ()
) -> Agreed | None:
    """Chance that of two rows the one with the higher grade has the higher score, ties of scores counting half.

    Pairs of equal grade are left out; with two grades this is the area under the ROC curve. With `smaller`, one figure
    per row, only pairs count whose better row has the smaller figure. None where no pair is left.

    Every row meets every other, so of more than MOST_ROWS rows so many are drawn with the seed, and `drawn` says so.
    """
    import numpy as np

    _check_rows(scores, grades)
    if len(scores) > MOST_ROWS:
        rows = sorted(np.random.default_rng(draws.seed).choice(len(scores), MOST_ROWS, replace=False).tolist())
        scores, grades, smaller = ([side[row] for row in rows] if side else [] for side in (scores, grades, smaller))
        draws = draws.of(rows)
    s_N, counted_NN = np.asarray(scores, dtype=np.float64), _above(grades)
    if smaller:
        counted_NN &= _above(smaller).T
    pairs, count = int(counted_NN.sum()), draws.count(len(scores))
    if not pairs:
        return None
    right_NN = counted_NN * (_above(scores) + np.float32(0.5) * (s_N[:, None] == s_N[None, :]))
    value = float(right_NN.sum(dtype=np.float64) / pairs)
    counts_NN = counted_NN.astype(np.float32)
    shares = [_ratio((w @ right_NN * w).sum(1), (w @ counts_NN * w).sum(1)) for w in draws.weights(len(scores))]
    return _drawn(value, shares, pairs, count)


def preference_accuracy(pairs: Sequence[tuple[float, float]], draws: Draws) -> Agreed | None:
    """Share of (score of the better, score of the worse) that are in order, a tie counting half; None of none."""
    return share([1.0 if better > worse else 0.5 if better == worse else 0.0 for better, worse in pairs], draws)


def share(values: Sequence[float], draws: Draws) -> Agreed | None:
    """Return the mean of values from 0 to 1, such as right and wrong; None of none.

    The interval is Wilson's where every row stands alone, and where all or none are right, which resampling would take
    for certain; else it is drawn over the groups.
    """
    import numpy as np

    if not values:
        return None
    values_N = np.asarray(values, dtype=np.float64)
    value, count = float(values_N.mean()), draws.count(len(values))
    if count == len(values) or value in (0.0, 1.0):
        return Agreed(value, *_wilson_bounds(value, count), len(values), count)
    shares = [_ratio(w @ values_N, w.sum(1)) for w in draws.weights(len(values))]
    return _drawn(value, shares, len(values), count)


# --- what is kept from a threshold on


def wilson(successes: float, n: int) -> Score | None:
    """Return a share with its 95 % interval by Wilson (1927); None of nothing."""
    if n == 0:
        return None
    value = successes / n
    return Score(value, *_wilson_bounds(value, n), n)


def precision_recall(scores: Sequence[float], good: Sequence[bool]) -> list[Point]:
    """Return precision and recall for each score as the threshold, the highest first; none where no row is good."""
    _check_rows(scores, good)
    total, kept, right = sum(good), 0, 0
    points: list[Point] = []
    ranked = sorted(zip(scores, good, strict=True), key=lambda row: -row[0])
    for threshold, rows in groupby(ranked, key=lambda row: row[0]):
        at = [is_good for _, is_good in rows]
        kept, right = kept + len(at), right + sum(at)
        if total:
            points.append(Point(threshold, right / kept, right / total, kept))
    return points


def average_precision(points: Sequence[Point]) -> float | None:
    """Return the precision averaged over the steps of the recall; None of an empty curve."""
    before = [0.0, *(point.recall for point in points)]
    steps = [(point.recall - recall) * point.precision for recall, point in zip(before, points, strict=False)]
    return sum(steps) if points else None


# --- probabilities beside what happened


def reliability(probabilities: Sequence[float], good: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """Return mean prediction and share of good rows for each of `bins` equal stretches of 0 to 1 that holds rows."""
    _check_rows(probabilities, good)
    places: dict[int, list[tuple[float, bool]]] = {}
    for p, is_good in zip(probabilities, good, strict=True):
        places.setdefault(min(int(p * bins), bins - 1), []).append((p, is_good))
    return [_bin(place, places[place], bins) for place in sorted(places)]


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Return the mean distance of prediction and share, weighted by rows (Naeini et al. 2015); None without rows."""
    n = sum(one.good.n for one in bins)
    return sum(one.good.n * abs(one.predicted - one.good.value) for one in bins) / n if n else None


# --- inner workings


def _bin(place: int, rows: Sequence[tuple[float, bool]], bins: int) -> Bin:
    share = wilson(sum(is_good for _, is_good in rows), len(rows))
    assert share is not None, "a bin is made of its rows"
    return Bin(place / bins, (place + 1) / bins, sum(p for p, _ in rows) / len(rows), share)


def _wilson_bounds(share: float, n: int) -> tuple[float, float]:
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def _mid_ranks(weights_BN: "NDArray[np.float64]", places_N: "NDArray[np.intp]") -> "NDArray[np.float64]":
    """Return every row's rank in each resample; rows of one place share the middle of theirs."""
    import numpy as np

    order = np.argsort(places_N, kind="stable")
    starts = np.searchsorted(places_N[order], np.arange(places_N.max() + 1))
    totals_BU = np.add.reduceat(weights_BN[:, order], starts, axis=1)
    ranks_BU: NDArray[np.float64] = np.cumsum(totals_BU, axis=1) - totals_BU / 2 + 0.5
    return ranks_BU[:, places_N]


def _above(values: Sequence[float]) -> "NDArray[np.bool_]":
    """Return a square: whether row i has more than row j."""
    import numpy as np

    values_N = np.asarray(values, dtype=np.float64)
    above_NN: NDArray[np.bool_] = values_N[:, None] > values_N[None, :]
    return above_NN


def _correlations(
    w: "NDArray[np.float64]", a: "NDArray[np.float64]", b: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Return the weighted correlation of each resample; NaN where a side is constant."""
    import numpy as np

    n = w.sum(1)
    a, b = (side - ((w * side).sum(1) / n)[:, None] for side in (a, b))
    spread = np.sqrt((w * a * a).sum(1) * (w * b * b).sum(1))
    return _ratio((w * a * b).sum(1), spread)


def _kappas(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
    n, a, b, apart, squares = sums.T
    return 1 - _ratio(apart, squares - 2 * a * b / n)


def _ratio(above: "NDArray[np.float64]", below: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Divide; NaN where there is nothing to divide by, up to what rounding leaves."""
    import numpy as np

    return np.where(below > 1e-9, above / np.where(below > 1e-9, below, 1.0), np.nan)


def _drawn(value: float, resampled: "Sequence[NDArray[np.float64]]", n: int, drawn: int) -> Agreed | None:
    """Return the figure with the middle 95 % of the resamples in which it is defined, stretched to hold it."""
    import numpy as np

    found = np.concatenate(resampled)
    defined = found[~np.isnan(found)]
    if drawn < 2 or not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return Agreed(value, min(float(low), value), max(float(high), value), n, drawn)


def _check_rows(a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b):
        raise ValueError(f"agreement: want two columns of one length, got {len(a)} and {len(b)} rows")
