"""Laws of the evaluation: a perfect model, a blind one, the floors, and rows that never go missing."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from askback.errors import DataError, IntegrityError
from askback.options import EvaluateOptions
from askback.ports import Ask, Example, LogLikelihood, Prompt, Reply, Sampling
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT
from askback.records import Pair
from askback.stages.evaluate import compare_rows, compare_with_floors, evaluate_backward, evaluate_forward, floors

OPTIONS = EvaluateOptions(retrieval_of=4, retrieval_rows=10, bootstrap=100)
BACKWARD = BACKWARD_LAYOUTS["plain"]
WORDS = "tides knives bread bicycles clocks gardens rivers lenses violins bridges ferns kettles"
PAIRS = [
    Pair(
        id=f"p{at:02}",
        instruction=f"Please explain in one short paragraph how {thing} work and why",
        output=f"Mostly {thing} do what they are made for. Nobody who has seen {thing} at work forgets it.",
    )
    for at, thing in enumerate(WORDS.split())
]


def knows(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
    return (Reply(next(p.instruction for p in PAIRS if p.output == ask.prompt.body), "stop", 9) for ask in asks)


def babbles(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
    return (Reply("etc etc etc", "length", 6) for _ in asks)


def matches(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
    return (LogLikelihood(-8.0 + 6 * (e.target.split()[7] in e.prompt.body), 4) for e in examples)


def shrugs(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
    return (LogLikelihood(-8.0, 4) for _ in examples)


def has_no_room(examples: Iterable[Example]) -> Iterator[None]:
    return (None for _ in examples)


def test_a_perfect_model_gets_perfect_figures() -> None:
    report = evaluate_backward(PAIRS, knows, matches, BACKWARD, OPTIONS, 0)
    assert [report[name]["value"] for name in ("bleu", "chrf", "rouge1", "rougeL")] == pytest.approx([100] * 4)
    assert report["retrieval"] == {"value": 1, "low": 1, "high": 1, "n": 10, "of": 4, "unscored": 0}
    assert report["nll_per_token"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 12}
    assert (report["length_ratio"]["value"], report["cut_off"]["value"], report["n"]) == (1, 0, 12)
    assert report["cut_off"]["high"] > 0  # twelve whole answers do not rule out one that is cut
    assert report["copy_share"]["generated"] == report["copy_share"]["true"]
    assert report["copy_share"]["true"]["low"] > 0


def test_a_model_that_only_shrugs_retrieves_nothing_for_a_tie_is_no_success() -> None:
    report = evaluate_backward(PAIRS, babbles, shrugs, BACKWARD, OPTIONS, 0)
    assert report["retrieval"]["value"] == 0
    assert report["cut_off"]["value"] == 1
    assert report["copy_share"]["generated"]["value"] == 0
    assert report["rougeL"]["high"] < 20


def test_a_report_is_json_and_has_a_row_per_pair() -> None:
    report = evaluate_backward(PAIRS, babbles, matches, BACKWARD_LAYOUTS["asked"], OPTIONS, 0)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [row["id"] for row in report["rows"]] == [pair.id for pair in PAIRS]
    assert set(report["rows"][0]) == {"id", "instruction", "generated", "rougeL", "output", "nll", "first"}
    assert "tok:13a" in report["bleu"]["signature"]


def test_the_order_in_which_pairs_arrive_does_not_matter() -> None:
    there = evaluate_backward(PAIRS, knows, matches, BACKWARD, OPTIONS, 0)
    assert evaluate_backward(PAIRS[::-1], knows, matches, BACKWARD, OPTIONS, 0) == there


def test_generation_is_greedy_and_as_long_as_the_options_say() -> None:
    seen: list[Sampling] = []

    def note(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        seen.append(sampling)
        return babbles(asks, sampling)

    evaluate_backward(PAIRS, note, shrugs, BACKWARD, OPTIONS, 0)
    assert seen == [Sampling(temperature=0, top_p=1, max_new_tokens=OPTIONS.max_new_tokens)]


def _lineups(seed: int) -> list[list[str]]:
    bodies: list[str] = []

    def note(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        for example in examples:
            bodies.append(example.prompt.body)
            yield LogLikelihood(-1.0, 1)

    evaluate_backward(PAIRS, babbles, note, BACKWARD, OPTIONS, seed)
    ranked = bodies[len(PAIRS) :]
    return [ranked[at : at + 4] for at in range(0, len(ranked), 4)]


def test_each_output_is_ranked_once_among_others_that_the_seed_decides() -> None:
    lineups = _lineups(0)
    assert [lineup[0] for lineup in lineups] == [pair.output for pair in PAIRS[:10]]
    assert all(len(set(lineup)) == 4 for lineup in lineups)
    assert lineups == _lineups(0) != _lineups(1)


def test_too_few_different_outputs_to_rank_is_said_not_scored() -> None:
    same = [replace(pair, output=PAIRS[0].output) for pair in PAIRS]
    report = evaluate_backward(same, babbles, shrugs, BACKWARD, OPTIONS, 0)
    assert report["retrieval"] is None
    assert report["retrieval_why"] == "want 4 different outputs to rank, got 1"
    assert {row["first"] for row in report["rows"]} == {None}


def test_a_pair_without_room_is_counted_not_scored() -> None:
    def all_but_one(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
        return (None if example.id == "p03" else LogLikelihood(-8.0, 4) for example in examples)

    report = evaluate_backward(PAIRS, babbles, all_but_one, BACKWARD, OPTIONS, 0)
    assert (report["unscored"], report["nll_per_token"]["n"], report["rows"][3]["nll"]) == (1, 11, None)
    assert (report["retrieval"]["unscored"], report["retrieval"]["n"]) == (1, 9)
    assert [row["first"] for row in report["rows"]] == [False] * 3 + [None] + [False] * 6 + [None] * 2


def test_a_model_without_room_for_anything_has_no_likelihood() -> None:
    report = evaluate_backward(PAIRS, babbles, has_no_room, BACKWARD, OPTIONS, 0)
    assert (report["nll_per_token"], report["retrieval"], report["unscored"]) == (None, None, 12)
    assert "fitted" in report["retrieval_why"]


def test_a_likelihood_that_is_not_finite_stops_the_evaluation() -> None:
    def breaks(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        return (LogLikelihood(math.nan, 4) for _ in examples)

    with pytest.raises(IntegrityError, match="pair p00: want a finite"):
        evaluate_forward(PAIRS, breaks, FORWARD_LAYOUT, OPTIONS, 0)


def test_a_reply_that_goes_missing_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        evaluate_backward(PAIRS, lambda asks, sampling: iter([Reply("x", "stop")]), shrugs, BACKWARD, OPTIONS, 0)


def test_one_pair_is_no_evaluation() -> None:
    with pytest.raises(DataError, match="at least 2"):
        floors(PAIRS[:1], OPTIONS, 0)


def test_the_floors_are_the_opening_of_the_output_and_anothers_instruction() -> None:
    report = floors(PAIRS, OPTIONS, 0)
    assert report["first_sentence"]["rows"][0]["generated"] == "Mostly tides do what they are made for."
    shuffled = report["shuffled"]["rows"]
    assert {row["generated"] for row in shuffled} == {pair.instruction for pair in PAIRS}
    assert all(row["generated"] != row["instruction"] for row in shuffled)
    assert report["shuffled"]["rougeL"]["value"] < 100


def test_a_perfect_model_clears_both_floors_and_a_babbler_neither() -> None:
    below = floors(PAIRS, OPTIONS, 0)
    perfect = evaluate_backward(PAIRS, knows, matches, BACKWARD, OPTIONS, 0)
    for test in compare_with_floors(perfect, below, resamples=200).values():
        assert test["low"] > 0
        assert test["p_value"] < 0.01
    babble = evaluate_backward(PAIRS, babbles, matches, BACKWARD, OPTIONS, 0)
    assert not any(test["low"] > 0 for test in compare_with_floors(babble, below).values())


def test_a_floor_compared_with_itself_does_not_differ() -> None:
    floor = floors(PAIRS, OPTIONS, 0)["shuffled"]
    test = compare_rows(floor, floor, of="rougeL")
    assert (test["difference"], test["p_value"], test["n"], test["unscored"]) == (0, 1, 12, 0)


def test_forward_loss_is_per_token_of_the_output() -> None:
    def by_length(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        return (LogLikelihood(-0.5 * len(e.target), len(e.target)) for e in examples)

    report = evaluate_forward(PAIRS, by_length, FORWARD_LAYOUT, OPTIONS, 0)
    assert report["nll_per_token"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 12}
    assert report["rows"][0] == {"id": "p00", "nll": 0.5}


def test_two_models_are_compared_on_the_rows_both_could_score() -> None:
    def worse(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
        return (None if e.id == "p03" else LogLikelihood(-12.0 - int(e.id[1:]), 4) for e in examples)

    base = evaluate_forward(PAIRS, worse, FORWARD_LAYOUT, OPTIONS, 0)
    tuned = evaluate_forward(PAIRS, shrugs, FORWARD_LAYOUT, OPTIONS, 0)
    test = compare_rows(tuned, base)
    assert (test["n"], test["unscored"], test["of"]) == (11, 1, "nll")
    assert test["high"] < 0


def test_reports_on_other_pairs_or_without_the_figure_are_not_compared() -> None:
    one, other = (evaluate_forward(part, shrugs, FORWARD_LAYOUT, OPTIONS, 0) for part in (PAIRS[:6], PAIRS[6:]))
    with pytest.raises(DataError, match="same pairs"):
        compare_rows(one, other)
    with pytest.raises(DataError, match="first report has no `rougeL`"):
        compare_rows(one, one, of="rougeL")


def test_silence_scores_zero_without_failing() -> None:
    report = evaluate_backward(PAIRS, lambda asks, s: (Reply("", "stop") for _ in asks), shrugs, BACKWARD, OPTIONS, 0)
    assert (report["bleu"]["value"], report["rougeL"]["value"], report["length_ratio"]["value"]) == (0, 0, 0)


def test_any_layout_will_do_that_lays_out_a_pair() -> None:
    class Bare:
        def prompt(self, pair: Pair) -> Prompt:
            return Prompt("", pair.output)

        def example(self, pair: Pair) -> Example:
            return Example(pair.id, self.prompt(pair), pair.instruction)

    assert evaluate_backward(PAIRS, knows, matches, Bare(), OPTIONS, 0)["retrieval"]["value"] == 1
