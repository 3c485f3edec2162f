"""Sets found again by what overlaps them: every one that comparing all of them finds, in order, and no other."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.nearness import Overlapping
from askback.records import Pair
from askback.stages.diversity import count_near_duplicates
from askback.stages.gates import Passed

SETS = st.lists(st.frozensets(st.integers(0, 7), max_size=8), max_size=12)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


@given(sets=SETS, asked=st.frozensets(st.integers(0, 9), max_size=9), least=st.sampled_from([0.1, 0.5, 0.55, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
def test_what_overlaps_enough_is_found_with_its_overlap_and_nothing_else_is(
    sets: list[frozenset[int]], asked: frozenset[int], least: float
) -> None:
    seen: Overlapping[int] = Overlapping(least)
    for each in sets:
        seen.add(each)
    expected = [
        (place, jaccard(asked, each))
        for place, each in enumerate(sets)
        if asked & each and jaccard(asked, each) >= least
    ]
    assert list(seen.find(asked)) == expected


def test_a_set_of_nothing_is_like_nothing() -> None:
    seen: Overlapping[int] = Overlapping(0.5)
    seen.add(frozenset())
    assert list(seen.find(frozenset())) == []


@pytest.mark.parametrize("shared", [18, 27, 36, 54, 63])
def test_an_overlap_that_is_just_enough_is_enough(shared: int) -> None:
    seen: Overlapping[int] = Overlapping(0.9)
    seen.add(frozenset(range(shared)))
    assert len(list(seen.find(frozenset(range(shared // 9 * 10))))) == 1
    assert not list(seen.find(frozenset(range(shared // 9 * 10 + 1))))


def test_gates_and_diversity_call_the_same_instructions_near() -> None:
    random = Random(3)
    words = [f"word{n}" for n in range(400)]
    texts = [" ".join(random.choices(words, k=random.randint(15, 30))) for _ in range(150)]
    texts += [f"{text} please" for text in texts[::3]]  # one word pair more
    passed = Passed(0.9)
    verdicts = [passed.admit(Pair(id=str(n), instruction=text, output="")) for n, text in enumerate(texts)]
    assert sum(not verdict.keep for verdict in verdicts) == count_near_duplicates(texts) == 50
