"""Curation: scores from what a judge really said, and the best of them kept, with nothing lost on the way."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import pytest

from askback import commands
from askback.config import check_options
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, DataError
from askback.options import CurateOptions, EngineOptions
from askback.ports import Ask, Choice, Example, LogLikelihood, Prompt, Reply, Sampling
from askback.prompts import FORWARD_LAYOUT, build_rubric
from askback.records import Judgement, Pair, Reject
from askback.stages.curate import (
    check_kept,
    check_parsed,
    judge_expected,
    judge_likelihood,
    judge_reasoned,
    keep,
    keep_floor,
    to_scores,
)

RUBRIC = build_rubric()


def pairs_of(count: int, *, per_passage: int = 1) -> list[Pair]:
    return [
        Pair(
            id=f"c{n}",
            instruction=f"Ask {n}.",
            output=f"Text {n // per_passage}.",
            kind="augmented",
            passage=f"p{n // per_passage}",
            candidate=n % per_passage,
        )
        for n in range(count)
    ]


def judged(scores: Sequence[float | None], judge: str = "expected") -> list[Judgement]:
    return [
        Judgement(pair=f"c{n}", round=1, judge=judge, score=s, outcome="scored" if s is not None else "parse_failed")
        for n, s in enumerate(scores)
    ]


def kept(scores: Sequence[float | None], per_passage: int = 1, **options: float) -> list[str]:
    found = keep(pairs_of(len(scores), per_passage=per_passage), judged(scores), CurateOptions(**options))
    return [row.id for row in found if isinstance(row, Pair)]


# --- expected score


def test_the_expected_score_is_the_mean_under_the_digits_own_probabilities() -> None:
    choice = Choice((0.1, 0.0, 0.1, 0.2, 0.4), 0.2)
    [found] = judge_expected(pairs_of(1), lambda prompts, choices: (choice for _ in prompts), RUBRIC, round=2)
    assert found.score == pytest.approx((1 * 0.1 + 3 * 0.1 + 4 * 0.2 + 5 * 0.4) / 0.8)
    assert (found.round, found.judge, found.outcome) == (2, "expected", "scored")
    assert found.distribution == (0.1, 0.0, 0.1, 0.2, 0.4, 0.2)


def test_no_mass_on_any_digit_is_no_score() -> None:
    none = Choice((0.0,) * 5, 1.0)
    [found] = judge_expected(pairs_of(1), lambda prompts, choices: (none for _ in prompts), RUBRIC, round=1)
    assert (found.score, found.outcome) == (None, "no_mass_on_digits")


def test_the_judge_is_offered_the_digits_one_to_five() -> None:
    def check(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice]:
        assert tuple(choices) == ("1", "2", "3", "4", "5")
        return (Choice((0.2,) * 5, 0.0) for _ in prompts)

    assert [j.score for j in judge_expected(pairs_of(3), check, RUBRIC, round=1)] == [pytest.approx(3.0)] * 3


def test_a_lost_choice_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(judge_expected(pairs_of(2), lambda prompts, choices: iter([Choice((0.2,) * 5, 0.0)]), RUBRIC, round=1))


# --- reasoned score


def reasoned(replies: Sequence[str], count: int = 1) -> tuple[list[Judgement], list[tuple[float, int]]]:
    """Return the judgements and (temperature, requests) of each attempt; attempt n is answered by replies[n]."""
    attempts: list[tuple[float, int]] = []

    def ask(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        asked = list(asks)
        text = replies[len(attempts)]
        attempts.append((sampling.temperature, len(asked)))
        return iter([Reply(text, "stop")] * len(asked))

    return list(judge_reasoned(pairs_of(count), ask, RUBRIC, CurateOptions(), round=1, seed=0)), attempts


def test_a_first_reply_with_a_score_is_taken_and_not_asked_for_again() -> None:
    [found], attempts = reasoned(["Fine.\nScore: 4", "", ""])
    assert (found.score, found.detail) == (4.0, "Fine.\nScore: 4")
    assert attempts == [(0.0, 1), (0.7, 0), (0.7, 0)]


def test_a_reply_without_a_score_is_asked_for_twice_more_with_chance() -> None:
    [found], attempts = reasoned(["Hm.", "Score: 10", "Score: 2"])
    assert found.score == 2.0
    assert attempts == [(0.0, 1), (0.7, 1), (0.7, 1)]


def test_three_replies_without_a_score_stay_without_a_number() -> None:
    found, _ = reasoned(["Hm.", "4 or 5", "Score: 7/10"], count=2)
    assert [(j.score, j.outcome, j.detail) for j in found] == [(None, "parse_failed", "Score: 7/10")] * 2


def test_a_score_inside_the_material_is_not_the_judges() -> None:
    pair = replace(pairs_of(1)[0], output="A fine text.\nScore: 5")
    silent = [Reply("I will not grade this.", "stop")]
    [found] = judge_reasoned(
        [pair], lambda asks, s: iter(silent * len(list(asks))), RUBRIC, CurateOptions(), round=1, seed=0
    )
    assert found.score is None


def test_each_attempt_has_a_chance_of_its_own() -> None:
    seeds: list[int] = []

    def ask(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        asked = list(asks)
        seeds.extend(one.seed for one in asked)
        return iter([Reply("Hm.", "stop")] * len(asked))

    list(judge_reasoned(pairs_of(2), ask, RUBRIC, CurateOptions(), round=1, seed=0))
    assert len(set(seeds)) == 6


def test_a_lost_judge_reply_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(judge_reasoned(pairs_of(2), lambda asks, s: iter([]), RUBRIC, CurateOptions(), round=1, seed=0))


# --- likelihood gain


def test_the_gain_is_what_the_instruction_adds_per_token_of_the_output() -> None:
    def likelihood(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
        return (LogLikelihood(-6.0 if "Ask" in e.prompt.before else -10.0, 8) for e in examples)

    [found] = judge_likelihood(pairs_of(1), likelihood, FORWARD_LAYOUT, round=1)
    assert found.score == pytest.approx(0.5)


def test_an_output_with_no_room_has_no_gain() -> None:
    [found] = judge_likelihood(pairs_of(1), lambda examples: (None for _ in examples), FORWARD_LAYOUT, round=1)
    assert (found.score, found.outcome) == (None, "too_long")


def test_gains_become_ranks_from_one_to_five() -> None:
    scores = to_scores(judged([0.1, -3.0, 9.0, 0.2, 0.15], "likelihood"))
    assert scores == {"c1": 1.0, "c0": 2.0, "c4": 3.0, "c3": 4.0, "c2": 5.0}


def test_equal_gains_share_their_rank() -> None:
    scores = to_scores(judged([0.5, 0.5, 0.1, 0.9, 0.5], "likelihood"))
    assert [scores[f"c{n}"] for n in range(5)] == [3.0, 3.0, 1.0, 5.0, 3.0]


def test_ranks_depend_on_order_alone_and_those_without_a_gain_have_none() -> None:
    gains = [Random(1).gauss(0, 1) for _ in range(9)]
    assert to_scores(judged(gains, "likelihood")) == to_scores(judged([3 * g + 7 for g in gains], "likelihood"))
    assert to_scores(judged([None, 0.2], "likelihood")) == {"c1": 1.0}
    assert to_scores([]) == {}


def test_other_judges_scores_stay_as_they_are() -> None:
    assert to_scores(judged([4.25, None, 1.0])) == {"c0": 4.25, "c2": 1.0}


# --- too many replies without a score


def test_one_in_twenty_without_a_score_is_allowed() -> None:
    found = judged([None] + [4.0] * 19)
    check_parsed(found, CurateOptions())
    assert to_scores(found).keys() == {f"c{n}" for n in range(1, 20)}


def test_more_than_that_stop_the_run_and_three_replies_are_shown() -> None:
    said = [replace(j, detail=f"reply {n}\nof two lines") for n, j in enumerate(judged([None] * 5 + [4.0] * 20))]
    with pytest.raises(DataError, match="5 of 25 judgements hold no score") as caught:
        check_parsed(said, CurateOptions())
    assert [f"reply {n} of two lines" in str(caught.value) for n in range(5)] == [True] * 3 + [False] * 2
    assert "curate.judge=expected" in str(caught.value)


# --- keeping


def test_keep_from_is_a_threshold_that_is_itself_kept() -> None:
    assert kept([4.4, 4.5, 4.6, 1.0], keep_from=4.5) == ["c1", "c2"]


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_keep_top_keeps_that_share(share: float, count: int) -> None:
    scores = [1 + 0.4 * n for n in range(10)]
    assert kept(scores, keep_top=share) == [f"c{n}" for n in range(10 - count, 10)]


def test_keep_top_keeps_all_that_tie_with_the_last() -> None:
    assert kept([3.0, 3.0, 3.0, 1.0], keep_top=0.25) == ["c0", "c1", "c2"]


def test_keep_top_of_nothing_has_a_floor_all_the_same() -> None:
    assert keep_floor([], CurateOptions(keep_top=0.5)) == 4.5


def test_of_one_passage_at_most_the_best_candidate_is_kept() -> None:
    assert kept([4.6, 4.9, 4.7, 4.8, 4.8, 1.0], per_passage=3, keep_from=4.5) == ["c1", "c3"]  # a tie: the first asked


def test_every_candidate_comes_out_kept_or_with_a_reason() -> None:
    scores = [4.9, 4.8, 2.0, None, None, 4.6]
    found = list(keep(pairs_of(6, per_passage=2), judged(scores), CurateOptions()))
    reasons = {row.id: row.reason for row in found if isinstance(row, Reject)}
    assert [row.id for row in found] == [f"c{n}" for n in range(6)]
    assert reasons == {"c1": "not_best_of_passage", "c2": "below_threshold", "c3": "parse_failed", "c4": "parse_failed"}


def test_a_kept_pair_carries_its_score_and_is_otherwise_as_it_was() -> None:
    pairs = pairs_of(1)
    [found] = keep(pairs, judged([4.75]), CurateOptions())
    assert found == replace(pairs[0], score=4.75)


def test_order_of_the_candidates_does_not_change_who_is_kept() -> None:
    pairs, scores = pairs_of(12, per_passage=3), judged([Random(4).uniform(1, 5) for _ in range(12)])
    table = CurateOptions(keep_top=0.5)
    there, back = (
        {row.id for row in keep(some, scores, table) if isinstance(row, Pair)} for some in (pairs, pairs[::-1])
    )
    assert there == back


def test_too_few_kept_stop_the_run_with_the_histogram_and_the_option_that_helps() -> None:
    scores = [1.2, 1.4, 2.6, 4.5, 5.0] * 8
    with pytest.raises(DataError, match=r"2 of 40 candidates are kept, fewer than curate\.min_kept = 16") as caught:
        check_kept(2, judged(scores), CurateOptions())
    lines = str(caught.value).splitlines()
    bars = [int(line.rsplit(": ", 1)[1]) for line in lines if " to " in line and line.startswith("  ")]
    assert bars == [16, 0, 0, 8, 0, 0, 0, 16]
    assert "curate.keep_top=0.80" in lines[-1]


def test_the_option_that_is_named_does_help() -> None:
    scores = [1 + n / 20 for n in range(60)]
    with pytest.raises(DataError) as caught:
        check_kept(len(kept(scores)), judged(scores), CurateOptions())
    share = float(str(caught.value).rpartition("keep_top=")[2])
    check_kept(len(kept(scores, keep_top=share)), judged(scores), CurateOptions())
    assert len(kept(scores, keep_top=share)) >= 16


def test_enough_kept_rows_go_on() -> None:
    assert check_kept(16, judged([5.0] * 16), CurateOptions()) is None


# --- labels are for the report alone


@pytest.mark.parametrize("judge", ["expected", "reasoned", "likelihood"])
def test_what_people_said_of_a_document_never_moves_a_score(judge: str) -> None:
    options = check_options({"curate": {"judge": judge, "keep_top": 0.5}}, "test")
    engine = EchoEngine(EngineOptions(kind="echo"))
    labels = ["good", "bad", ""]
    pairs = pairs_of(12)
    told = [replace(pair, label=labels[n % 3], genre="recipe") for n, pair in enumerate(pairs)]
    plain, labelled = (list(commands.judge_pairs(some, None, options, engine)) for some in (pairs, told))
    assert [replace(row, label="", genre="") if isinstance(row, Pair) else row for row in labelled] == plain
    assert fmean(isinstance(row, Pair) for row in plain) >= 0.5


def test_an_empty_rubric_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "rubric.txt"
    file.write_text("")
    options = check_options({"curate": {"rubric": str(file), "keep_top": 1}}, "test")
    with pytest.raises(ConfigError, match=r"rubric\.txt: a rubric holds"):
        commands.judge_pairs(pairs_of(2), None, options, EchoEngine(EngineOptions(kind="echo")))
