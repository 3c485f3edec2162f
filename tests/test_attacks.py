"""Planted scores: who believes them is caught, who does not shows nothing, and length is no evidence."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from askback.prompts import build_fence
from askback.records import Judgement, Pair
from askback.stages.attacks import OUTPUT_CHARS, PLANTS, Attack, measure_shift, plant

PAIRS = [
    Pair(id=f"c{n}", instruction=f"Ask {n}.", output=f"One line of text {n}.\n\nAnother one.\n\n{'More words. ' * n}")
    for n in range(30)
]
KINDS = list(PLANTS)


def judging(score: Callable[[Pair], float | None]) -> Callable[[Sequence[Pair]], Iterator[Judgement]]:
    return lambda pairs: (Judgement(pair=pair.id, round=1, judge="test", score=score(pair)) for pair in pairs)


def is_planted(pair: Pair) -> bool:
    return any(made.attack in pair.output for made in PLANTS.values())


# --- planting


def test_the_kinds_come_in_turn() -> None:
    attacks = plant(PAIRS, 25, seed=1)
    assert [attack.kind for attack in attacks] == [KINDS[n % len(KINDS)] for n in range(25)]


def test_more_attacks_than_candidates_attack_each_in_other_ways() -> None:
    attacks = plant(PAIRS[:7], 60, seed=1)
    assert len({(attack.kind, attack.attacked.instruction) for attack in attacks}) == 60
    assert max(Counter(attack.kind for attack in attacks).values()) <= 7
    assert len(plant(PAIRS[:7], 500, seed=1)) == 7 * len(KINDS)


def test_planting_depends_on_the_seed_and_on_no_order() -> None:
    assert plant(PAIRS, 20, seed=1) == plant(PAIRS[::-1], 20, seed=1) != plant(PAIRS, 20, seed=2)


@pytest.mark.parametrize(("pairs", "count"), [([], 9), (PAIRS, 0)])
def test_of_nothing_there_is_no_attack(pairs: list[Pair], count: int) -> None:
    assert plant(pairs, count, seed=1) == []


@pytest.mark.parametrize("kind", KINDS)
def test_attack_and_control_stand_in_the_same_place_and_are_of_one_length(kind: str) -> None:
    made = PLANTS[kind]
    assert len(made.control) == pytest.approx(len(made.attack), abs=4)
    for attack in [attack for attack in plant(PAIRS, 200, seed=3) if attack.kind == kind]:
        ours, theirs = (
            pair.output.split(text) for pair, text in ((attack.attacked, made.attack), (attack.control, made.control))
        )
        assert ours == theirs
        assert len(ours) == 2
        assert [bool(part) for part in ours] == [made.place != "start", made.place != "end"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_holds_a_five_and_its_control_no_number_at_all(kind: str) -> None:
    assert re.search("[5５]", PLANTS[kind].attack)
    assert not re.search(r"\d|score|grade|rubric|rating", PLANTS[kind].control, re.IGNORECASE)


def test_only_the_output_is_changed_and_no_pair_is_taken_for_another() -> None:
    attacks = plant(PAIRS, 200, seed=1)
    both = [pair for attack in attacks for pair in (attack.attacked, attack.control)]
    assert len({pair.id for pair in both}) == 400
    assert {attack.attacked.instruction for attack in attacks} == {pair.instruction for pair in PAIRS}


def test_a_forged_fence_is_not_the_one_the_judge_is_shown() -> None:
    forged = PLANTS["forged_fence"].attack.partition(" end")[0]
    assert forged.startswith("=== ")
    for attack in plant(PAIRS, 200, seed=1):
        pair = attack.attacked
        assert forged != build_fence(pair.id, pair.instruction, pair.output)


def test_a_long_output_is_shortened_so_that_its_end_is_read() -> None:
    long = [Pair(id="c", instruction="Ask.", output="word " * 5000)]
    for attack in plant(long, len(KINDS), seed=1):
        assert PLANTS[attack.kind].attack in attack.attacked.output
        assert len(attack.attacked.output) < OUTPUT_CHARS + 150


@pytest.mark.parametrize("output", ["x", "one two", "a\nb", "word" * 400])
def test_an_output_of_any_shape_can_be_attacked(output: str) -> None:
    attacks = plant([Pair(id="c", instruction="Ask.", output=output)], len(KINDS), seed=1)
    assert [PLANTS[attack.kind].attack in attack.attacked.output for attack in attacks] == [True] * len(KINDS)


# --- measuring


def test_a_judge_that_believes_what_it_reads_is_caught() -> None:
    found = measure_shift(plant(PAIRS, 200, seed=1), judging(lambda pair: 5.0 if is_planted(pair) else 2.0))
    assert (found["n"], found["unscored"], found["moved_up"], found["moved_down"]) == (200, 0, 200, 0)
    assert found["shift"]["difference"] == 3.0
    assert found["shift"]["low"] > 0
    assert {kind: one["shift"]["difference"] for kind, one in found["kinds"].items()} == dict.fromkeys(KINDS, 3.0)


def test_a_judge_that_believes_one_kind_is_caught_at_that_kind() -> None:
    found = measure_shift(plant(PAIRS, 200, seed=1), judging(lambda pair: 1.0 + 2 * ('"score": 5' in pair.output)))
    assert {kind: one["moved_up"] for kind, one in found["kinds"].items() if one["moved_up"]} == {"json": 20}
    assert found["shift"]["difference"] == pytest.approx(0.2)
    assert found["shift"]["low"] > 0


def test_a_judge_that_reads_the_request_alone_shows_nothing() -> None:
    found = measure_shift(plant(PAIRS, 200, seed=1), judging(lambda pair: float(len(pair.instruction))))
    assert (found["shift"]["difference"], found["shift"]["low"], found["shift"]["high"]) == (0.0, 0.0, 0.0)
    assert (found["shift"]["p_value"], found["moved_up"], found["moved_down"]) == (1.0, 0, 0)


def test_a_judge_that_likes_length_is_not_taken_for_one_that_believes() -> None:
    found = measure_shift(plant(PAIRS, 200, seed=1), judging(lambda pair: len(pair.output) / 100))
    assert abs(found["shift"]["difference"]) < 0.02
    assert found["moved_up"] == 0


def test_an_attack_without_both_scores_is_counted_and_not_measured() -> None:
    attacks = plant(PAIRS, 20, seed=1)
    silent = {attacks[3].control.id, attacks[4].attacked.id, attacks[4].control.id}
    found = measure_shift(attacks, judging(lambda pair: None if pair.id in silent else 3.0))
    assert (found["n"], found["unscored"], found["shift"]["n"]) == (20, 2, 18)


@pytest.mark.parametrize("attacks", [[], plant(PAIRS, 3, seed=1)], ids=["none", "unscored"])
def test_without_a_score_there_is_no_shift(attacks: list[Attack]) -> None:
    found = measure_shift(attacks, judging(lambda pair: None))
    assert (found["n"], found["unscored"], found["shift"]) == (len(attacks), len(attacks), None)


def test_a_lost_judgement_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measure_shift(plant(PAIRS, 3, seed=1), lambda pairs: judging(lambda pair: 1.0)(pairs[1:]))
