"""Laws of agreement: figures against another library or a hand-computed value, and intervals that are wide enough."""

import math
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback import agreement
from askback.agreement import (
    Bin,
    Draws,
    average_precision,
    calibration_error,
    five_point,
    pairwise_accuracy,
    precision_recall,
    preference_accuracy,
    rank_correlation,
    reliability,
    weighted_kappa,
    wilson,
)
from askback.metrics import Score, roc_auc, spearman

DRAWS = Draws(300, 3)
CHANCE = Random(7)
SCORES = [round(CHANCE.uniform(1, 5), 1) for _ in range(60)]
GRADES = [min(5, max(1, round(score + CHANCE.gauss(0, 1)))) for score in SCORES]
GOOD = [grade >= 4 for grade in GRADES]
LENGTHS = [float(CHANCE.randrange(50, 400)) for _ in SCORES]
GROUPS = tuple(n // 3 for n in range(60))


def quantiles(draws: Draws, rows: int, figure) -> tuple[float, float]:
    """Return the interval the slow way: write every resample out and compute the figure on it."""
    weights = np.concatenate(list(draws.weights(rows))).astype(int)
    found = [figure([row for row, times in enumerate(drawn) for _ in range(times)]) for drawn in weights]
    low, high = np.quantile([value for value in found if value is not None and not math.isnan(value)], [0.025, 0.975])
    return float(low), float(high)


def near(low: float, high: float) -> tuple[object, object]:
    return pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5)


def test_importing_agreement_loads_no_library() -> None:
    code = "import sys, askback.agreement; print({'numpy', 'scipy', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- what is drawn


def test_rows_of_a_group_are_drawn_together() -> None:
    weights = np.concatenate(list(Draws(50, 1, (4, 4, 9, 9, 9)).weights(5)))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()


def test_the_seed_alone_decides_what_is_drawn() -> None:
    first, again, other = (np.concatenate(list(Draws(9, seed).weights(6))) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (first.sum(axis=1) == 6).all()


def test_blocks_of_resamples_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rank_correlation(SCORES, GRADES, DRAWS)
    monkeypatch.setattr(agreement, "CELLS_AT_ONCE", 60 * 7)
    assert rank_correlation(SCORES, GRADES, DRAWS) == whole


def test_a_group_for_some_rows_only_is_refused() -> None:
    with pytest.raises(ValueError, match="a group for each of 3 rows, got 2"):
        next(Draws(9, 1, (1, 2)).weights(3))


# --- scores beside grades


@pytest.mark.parametrize("groups", [(), GROUPS])
def test_rank_correlation_is_scipys_in_every_resample(groups: tuple[int, ...]) -> None:
    stats = pytest.importorskip("scipy.stats")
    draws = Draws(200, 3, groups)
    found = rank_correlation(SCORES, GRADES, draws)
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(SCORES, GRADES).statistic)
    slow = quantiles(
        draws, 60, lambda rows: stats.spearmanr([SCORES[r] for r in rows], [GRADES[r] for r in rows]).statistic
    )
    assert (found.low, found.high) == near(*slow)
    assert (found.n, found.drawn) == (60, 20 if groups else 60)


@pytest.mark.parametrize("groups", [(), GROUPS])
def test_kappa_is_scikit_learns_in_every_resample(groups: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    whole = [five_point(score) for score in SCORES]
    draws = Draws(200, 3, groups)
    found = weighted_kappa(whole, GRADES, draws)

    def slow(rows: list[int]) -> float:
        return metrics.cohen_kappa_score([whole[r] for r in rows], [GRADES[r] for r in rows], weights="quadratic")

    assert found is not None
    assert found.value == pytest.approx(slow(list(range(60))))
    assert (found.low, found.high) == near(*quantiles(draws, 60, slow))


def test_kappa_of_a_hand_computed_case() -> None:
    # squared distances 0, 1, 1, 0 sum to 2; of independent raters to 30 + 30 - 2 * 10 * 10 / 4 = 10
    found = weighted_kappa([1, 2, 3, 4], [1, 3, 2, 4], DRAWS)
    assert found is not None
    assert found.value == pytest.approx(1 - 2 / 10)


def test_raters_who_differ_by_a_constant_do_not_agree_fully() -> None:
    same, shifted = (weighted_kappa([1, 2, 3, 4], [n + by for n in (1, 2, 3, 4)], DRAWS) for by in (0, 1))
    assert same is not None
    assert shifted is not None
    assert same.value == 1.0
    assert 0 < shifted.value < 1


def test_a_score_becomes_the_nearest_grade_and_stays_on_the_scale() -> None:
    assert [five_point(score) for score in (-3.0, 1.49, 1.5, 2.5, 4.4, 4.5, 9.0)] == [1, 1, 2, 3, 4, 5, 5]


# --- two rows in the right order


@pytest.mark.parametrize("groups", [(), GROUPS])
def test_pairs_of_two_grades_are_the_area_under_the_curve(groups: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draws = Draws(200, 3, groups)
    found = pairwise_accuracy(SCORES, list(map(float, GOOD)), draws)
    assert found is not None
    assert found.value == pytest.approx(metrics.roc_auc_score(GOOD, SCORES))
    slow = quantiles(draws, 60, lambda rows: roc_auc([SCORES[r] for r in rows], [GOOD[r] for r in rows]))
    assert (found.low, found.high) == near(*slow)
    assert found.n == sum(GOOD) * (60 - sum(GOOD))


def test_ties_of_scores_count_half_and_equal_grades_not_at_all() -> None:
    # (2, 1) right, (3, 1) right, (3, 2) a tie; the two rows of grade 1 are not compared with each other
    found = pairwise_accuracy([1.0, 2.0, 2.0, 0.0], [1, 2, 3, 1], DRAWS)
    assert found is not None
    assert (found.value, found.n) == (pytest.approx((4 + 0.5) / 5), 5)


def test_a_smaller_figure_of_the_better_row_may_be_asked_for() -> None:
    scores, grades = [3.0, 1.0, 2.0], [1, 2, 3]
    shorter = pairwise_accuracy(scores, grades, DRAWS, smaller=[30.0, 20.0, 25.0])
    longer = pairwise_accuracy(scores, grades, DRAWS, smaller=[-30.0, -20.0, -25.0])
    assert shorter is not None
    assert longer is not None
    assert (shorter.value, shorter.n) == (0.0, 2)  # the grades 2 and 3 stand above grade 1, both wrongly scored
    assert (longer.value, longer.n) == (1.0, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 9)), min_size=2, max_size=12))
def test_shorter_longer_and_equal_lengths_make_all_pairs(rows: list[tuple[int, int, int]]) -> None:
    scores, grades, sizes = ([float(row[at]) for row in rows] for at in range(3))
    few = Draws(100, 1)
    every = pairwise_accuracy(scores, grades, few)
    parts = [pairwise_accuracy(scores, grades, few, smaller=[sign * size for size in sizes]) for sign in (1, -1)]
    equal = sum(x > y and sizes[i] == sizes[j] for i, x in enumerate(grades) for j, y in enumerate(grades))
    assert (every.n if every else 0) == sum(part.n for part in parts if part) + equal


def test_of_very_many_rows_a_drawn_part_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_ROWS", 40)
    found = pairwise_accuracy(SCORES, GRADES, Draws(100, 3, GROUPS), smaller=LENGTHS)
    assert found is not None
    assert found.drawn <= 20
    assert found.n < 40 * 39 / 2
    assert found == pairwise_accuracy(SCORES, GRADES, Draws(100, 3, GROUPS), smaller=LENGTHS)


def test_preferences_that_stand_alone_have_wilsons_interval() -> None:
    found = preference_accuracy([(2.0, 1.0)] * 7 + [(1.0, 1.0)] + [(1.0, 2.0)] * 2, DRAWS)
    known = wilson(7.5, 10)
    assert found is not None
    assert known is not None
    assert (found.value, found.low, found.high, found.n, found.drawn) == (0.75, known.low, known.high, 10, 10)


def test_preferences_of_few_questions_are_less_certain() -> None:
    pairs = [(2.0, 1.0) if n % 10 < 6 or n < 30 else (1.0, 2.0) for n in range(100)]
    alone = preference_accuracy(pairs, Draws(500, 1))
    grouped = preference_accuracy(pairs, Draws(500, 1, tuple(n // 10 for n in range(100))))
    assert alone is not None
    assert grouped is not None
    assert alone.value == grouped.value == pytest.approx(0.72)
    assert grouped.high - grouped.low > alone.high - alone.low
    slow = quantiles(
        Draws(500, 1, tuple(n // 10 for n in range(100))), 100, lambda rows: np.mean([pairs[r][0] > 1 for r in rows])
    )
    assert (grouped.low, grouped.high) == near(*slow)


def test_a_judge_that_is_always_right_is_not_certain() -> None:
    found = preference_accuracy([(2.0, 1.0)] * 40, Draws(100, 1, tuple(n // 4 for n in range(40))))
    assert found is not None
    assert (found.value, found.high, found.drawn) == (1.0, 1.0, 10)
    assert 0.6 < found.low < 0.75


# --- thresholds


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (450, 1000)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    known = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(known.low), pytest.approx(known.high))
    assert found.low <= found.value <= found.high


def test_precision_and_recall_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    points = precision_recall(SCORES, GOOD)
    precision, recall, thresholds = metrics.precision_recall_curve(GOOD, SCORES)
    known = list(zip(thresholds, precision[:-1], recall[:-1], strict=True))
    assert [point.threshold for point in points] == [threshold for threshold, _, _ in reversed(known)]
    assert [point.precision for point in points] == pytest.approx([value for _, value, _ in reversed(known)])
    assert [point.recall for point in points] == pytest.approx([value for _, _, value in reversed(known)])
    assert average_precision(points) == pytest.approx(metrics.average_precision_score(GOOD, SCORES))


def test_equal_scores_are_kept_together() -> None:
    points = precision_recall([5.0, 4.0, 4.0, 1.0], [True, True, False, False])
    assert [(point.kept, point.precision) for point in points] == [(1, 1.0), (3, pytest.approx(2 / 3)), (4, 0.5)]


# --- probabilities


def test_reliability_of_a_hand_computed_case() -> None:
    bins = reliability([0.05, 0.15, 0.12, 0.95, 1.0], [False, True, False, True, True], bins=10)
    assert [(one.low, one.high, one.good.n) for one in bins] == [(0.0, 0.1, 1), (0.1, 0.2, 2), (0.9, 1.0, 2)]
    assert [one.predicted for one in bins] == pytest.approx([0.05, 0.135, 0.975])
    assert [one.good.value for one in bins] == [0.0, 0.5, 1.0]
    assert calibration_error(bins) == pytest.approx((0.05 + 2 * 0.365 + 2 * 0.025) / 5)


def test_reliability_bins_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.calibration")
    chances = [(score - 0.97) / 4.13 for score in SCORES]
    share, predicted = sklearn.calibration_curve(GOOD, chances, n_bins=10)
    bins = reliability(chances, GOOD)
    assert [one.good.value for one in bins] == pytest.approx(list(share))
    assert [one.predicted for one in bins] == pytest.approx(list(predicted))
    assert sum(one.good.n for one in bins) == 60


def test_a_perfect_forecast_has_no_calibration_error() -> None:
    assert calibration_error(reliability([0.0, 1.0, 1.0], [False, True, True])) == 0.0
    assert calibration_error([Bin(0.0, 0.5, 0.25, Score(0.75, 0, 1, 4))]) == 0.5


# --- what is undefined


@pytest.mark.parametrize(
    "figure",
    [
        lambda: rank_correlation([], [], DRAWS),
        lambda: rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], DRAWS),
        lambda: rank_correlation([1.0, 2.0], [1.0, 2.0], Draws(9, 1, (0, 0))),
        lambda: weighted_kappa([], [], DRAWS),
        lambda: weighted_kappa([3, 3], [3, 3], DRAWS),
        lambda: pairwise_accuracy([], [], DRAWS),
        lambda: pairwise_accuracy([1.0, 2.0], [4, 4], DRAWS),
        lambda: pairwise_accuracy([1.0, 2.0], [1, 2], Draws(9, 1, (5, 5))),
        lambda: preference_accuracy([], DRAWS),
        lambda: preference_accuracy([(2.0, 1.0), (1.0, 2.0)], Draws(9, 1, (0, 0))),
        lambda: wilson(0, 0),
        lambda: average_precision(precision_recall([1.0, 2.0], [False, False])),
        lambda: calibration_error(reliability([], [])),
    ],
)
def test_what_is_undefined_is_none(figure) -> None:
    assert figure() is None


@pytest.mark.parametrize(
    "figure",
    [
        lambda: weighted_kappa([1], [], DRAWS),
        lambda: pairwise_accuracy([1.0], [], DRAWS),
        lambda: precision_recall([1.0], []),
        lambda: reliability([0.5], []),
    ],
)
def test_columns_of_different_length_are_refused(figure) -> None:
    with pytest.raises(ValueError, match="want two columns of one length, got 1 and 0 rows"):
        figure()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=15), st.integers(0, 5))
def test_every_interval_holds_its_figure(rows: list[tuple[int, int]], seed: int) -> None:
    a, b = [float(x) for x, _ in rows], [float(y) for _, y in rows]
    few = Draws(60, seed, tuple(n // 2 for n in range(len(rows))))
    whole = [[int(value) for value in side] for side in (a, b)]
    found = [rank_correlation(a, b, few), weighted_kappa(*whole, few), pairwise_accuracy(a, b, few)]
    found.append(preference_accuracy(rows, few))
    assert all(one.low <= one.value <= one.high for one in found if one is not None)
    assert found[0] is None or found[0].value == spearman(a, b)
