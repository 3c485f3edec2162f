"""Laws of the figures: hand-computed cases, identities, and intervals that hold what they are about."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.metrics import (
    Score,
    bleu,
    bootstrap_mean,
    bootstrap_ratio,
    chrf,
    content_words,
    copy_share,
    derangement,
    distinct_n,
    first_sentence,
    histogram,
    paired_difference,
    roc_auc,
    rouge,
    spearman,
    words,
)

DRAWS = {"resamples": 200, "seed": 3}
TEXTS = [
    "How do I sharpen a kitchen knife on a whetstone?",
    "Explain in two paragraphs why the sky looks blue at noon.",
    "Write a short note that asks the landlord to mend the heating.",
]
SHUFFLED = TEXTS[1:] + TEXTS[:1]
FLOATS = st.floats(-1e6, 1e6)


def test_importing_the_metrics_loads_no_library() -> None:
    code = "import sys, askback.metrics; print({'numpy', 'sacrebleu', 'rouge_score'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("score", [bleu, chrf])
def test_a_text_scores_100_against_itself(score) -> None:
    result = score(TEXTS, TEXTS, **DRAWS)
    assert result.value == pytest.approx(100)
    assert (result.low, result.high) == (pytest.approx(100), pytest.approx(100))
    assert result.n == 3


@pytest.mark.parametrize("score", [bleu, chrf])
def test_corpus_scores_do_not_depend_on_the_order_of_rows(score) -> None:
    some = [TEXTS[0], TEXTS[2], TEXTS[1]]
    there = score(some, TEXTS, **DRAWS).value
    assert there == pytest.approx(score(some[::-1], TEXTS[::-1], **DRAWS).value)
    assert 0 < there < 100


@pytest.mark.parametrize("score", [bleu, chrf])
def test_a_resample_is_scored_as_sacrebleu_scores_that_corpus(score) -> None:
    rows = [(TEXTS[0], TEXTS[0]), ("Why is the sky so blue at noon?", TEXTS[1])]
    result = score([h for h, _ in rows], [r for _, r in rows], resamples=100, seed=0)
    alone = [score([h, h], [r, r], resamples=1, seed=0).value for h, r in rows]
    assert result.high == pytest.approx(max(alone))  # one draw in four takes the same row twice
    assert result.low == pytest.approx(min(alone))


def test_bleu_says_how_it_was_computed() -> None:
    signature = bleu(TEXTS, TEXTS, **DRAWS).signature
    assert "eff:no" in signature
    assert "tok:13a" in signature
    assert "version:" in signature


def test_bleu_of_a_hand_computed_case() -> None:
    # precisions 5/5, 4/4, 3/3, 2/2 over 5 of 6 tokens: only the brevity penalty is left
    result = bleu(["a b c d e"], ["a b c d e f"], **DRAWS)
    assert result.value == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_rouge_of_a_hand_computed_case() -> None:
    scores = rouge(["the cat sat"], ["the cat was on a mat"])
    assert scores["rouge1"] == [pytest.approx(100 * 2 * 2 / (3 + 6))]
    assert scores["rouge2"] == [pytest.approx(100 * 2 * 1 / (2 + 5))]
    assert scores["rougeL"] == [pytest.approx(100 * 2 * 2 / (3 + 6))]


@pytest.mark.parametrize(
    "text", ["请解释潮汐是如何形成的。", "हिन्दी में ज्वार समझाइए", "Объясни приливы.", "อธิบายน้ำขึ้นน้ำลง"]
)
def test_rouge_works_in_every_script(text: str) -> None:
    assert rouge([text], [text])["rougeL"] == [pytest.approx(100)]
    assert rouge([text], [TEXTS[0]])["rougeL"] == [0]


def test_words_keep_marks_and_split_unspaced_scripts() -> None:
    assert words("Don't use snake_case, naïve हिन्दी!") == ["don", "t", "use", "snake", "case", "naïve", "हिन्दी"]
    assert words("潮汐tide，2") == ["潮", "汐", "tide", "2"]


def test_rows_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 and 2 rows"):
        rouge(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one row"):
        bleu([], [], **DRAWS)


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_an_interval_contains_its_mean_and_stays_in_range(values: list[float]) -> None:
    score = bootstrap_mean(values, **DRAWS)
    assert score.low <= score.value <= score.high
    assert min(values) - 1e-6 <= score.low
    assert score.high <= max(values) + 1e-6


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = [0.0, 1.0] * 200
    score = bootstrap_mean(values, resamples=4000, seed=0)
    assert score.high - score.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(400), rel=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    values = [float(n * n) for n in range(30)]
    assert bootstrap_mean(values, resamples=300, seed=1) == bootstrap_mean(values, resamples=300, seed=1)
    assert bootstrap_mean(values, resamples=300, seed=1) != bootstrap_mean(values, resamples=300, seed=2)


def test_resamples_in_blocks_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_mean([1.0, 2.0, 5.0], resamples=101, seed=1)
    monkeypatch.setattr("askback.metrics.CELLS_AT_ONCE", 30)
    assert bootstrap_mean([1.0, 2.0, 5.0], resamples=101, seed=1) == whole


def test_one_row_has_no_width() -> None:
    assert bootstrap_mean([2.5], **DRAWS) == Score(2.5, 2.5, 2.5, 1)


def test_equal_systems_do_not_differ_and_a_clear_gain_does() -> None:
    a = [float(n) for n in range(40)]
    assert paired_difference(a, a, **DRAWS).p_value == 1
    better = paired_difference([x + 1 + x % 2 for x in a], a, **DRAWS)
    assert better.low > 0
    assert better.p_value == pytest.approx(1 / 201)


def test_swapping_the_systems_only_turns_the_sign() -> None:
    a, b = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0], [2.0, 7.0, 1.0, 8.0, 2.0, 8.0]
    one, other = paired_difference(a, b, **DRAWS), paired_difference(b, a, **DRAWS)
    assert (other.difference, other.low, other.high) == pytest.approx((-one.difference, -one.high, -one.low))
    assert other.p_value == one.p_value


def test_few_rows_are_never_proof() -> None:
    assert paired_difference([9.0], [1.0], **DRAWS).p_value == 1
    assert paired_difference([9.0, 9.0, 9.0], [1.0, 2.0, 1.0], **DRAWS).p_value >= 0.25


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Tides rise. They fall.", "Tides rise."),
        ("Use a file, e.g. a flat one. Then sand.", "Use a file, e.g. a flat one."),
        ("1. Release the brake.\n2. Work two levers.", "Release the brake."),
        ("1. Release the brake\n2. Work two levers", "Release the brake"),
        ("# Tides\n\nThe moon pulls.", "Tides"),
        ("A line that\ngoes on. And on.", "A line that goes on."),
        ('He said "Go!" Then he went.', 'He said "Go!"'),
        ("潮汐上涨。然后下降。", "潮汐上涨。"),
        ("Version 3.5 is out! Now", "Version 3.5 is out!"),
        ("no end in sight", "no end in sight"),
        ("  \n ", ""),
    ],
)
def test_the_first_sentence_is_what_a_reader_would_call_it(text: str, first: str) -> None:
    assert first_sentence(text) == first


@given(st.integers(2, 60), st.integers(0, 9))
def test_a_derangement_is_a_permutation_in_which_nobody_keeps_his_own(n: int, seed: int) -> None:
    order = derangement(n, seed=seed)
    assert sorted(order) == list(range(n))
    assert all(at != to for at, to in enumerate(order))
    assert order == derangement(n, seed=seed)


def test_a_single_row_cannot_be_shuffled() -> None:
    assert derangement(0, seed=0) == []
    with pytest.raises(ValueError, match="got 1"):
        derangement(1, seed=0)


def test_content_words_fold_plurals_and_drop_small_talk() -> None:
    assert content_words("Which berries and knives have their own classes? The cat, 12345") == {
        *("berry", "knive", "class")
    }


def test_copy_share_counts_what_the_output_already_says() -> None:
    assert copy_share("Describe the tides of the Moon", "The moon makes a tide.") == pytest.approx(2 / 3)
    assert copy_share("Why is it so?", "anything") == 0


def test_auc_of_perfect_reversed_and_blind_scorers() -> None:
    labels = [False, False, True, True]
    assert roc_auc([1, 2, 3, 4], labels) == 1
    assert roc_auc([4, 3, 2, 1], labels) == 0
    assert roc_auc([7, 7, 7, 7], labels) == 0.5
    assert roc_auc([1, 2, 2, 3], labels) == pytest.approx(3.5 / 4)
    assert roc_auc([1, 2], [True, True]) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_put_in_order(rows: list[tuple[int, bool]]) -> None:
    true, false = [s for s, label in rows if label], [s for s, label in rows if not label]
    auc = roc_auc([s for s, _ in rows], [label for _, label in rows])
    if not true or not false:
        assert auc is None
    else:
        wins = sum((t > f) + (t == f) / 2 for t in true for f in false)
        assert auc == pytest.approx(wins / (len(true) * len(false)))


def test_spearman_sees_order_not_distance() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman([1, 2], [5, 5]) is None


@given(st.lists(FLOATS, max_size=50))
def test_a_histogram_loses_no_value(values: list[float]) -> None:
    assert sum(histogram(values, [-10, 0, 1, 10])) == len(values)


def test_a_value_on_an_edge_belongs_to_the_bin_it_opens() -> None:
    assert histogram([1, 2, 2.5, 3, 99, -99], [1, 2, 3]) == [2, 4]
    with pytest.raises(ValueError, match="rising"):
        histogram([1.0], [3, 2])


def test_distinct_n_counts_repeated_ngrams_once() -> None:
    assert distinct_n(["a b c", "a b d"], 1) == pytest.approx(4 / 6)
    assert distinct_n(["a b c", "a b d"], 2) == pytest.approx(3 / 4)
    assert distinct_n(["a"], 2) == 0


def test_a_ratio_of_sums_weighs_rows_by_their_size_and_has_an_interval() -> None:
    found = bootstrap_ratio([1.0, 30.0, 2.0, 9.0], [2.0, 20.0, 2.0, 4.0], resamples=300, seed=1)
    assert found is not None
    assert found.value == pytest.approx(42 / 28)
    assert found.low < found.value < found.high
    assert bootstrap_ratio([1.0, 2.0], [0.0, 0.0], resamples=300, seed=1) is None
    zero = bootstrap_ratio([1.0, 2.0], [0.0, 4.0], resamples=300, seed=1)  # half the resamples of two have some below
    assert zero is not None
    assert zero.value == 0.75
