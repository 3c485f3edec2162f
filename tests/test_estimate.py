"""Laws of a plan's arithmetic: what is added up adds up, what is twice as much is twice as much, ranges hold."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.estimate import (
    ENDLESS,
    SUMMED,
    Cost,
    Line,
    Needs,
    Range,
    Terms,
    about,
    at,
    cost,
    exactly,
    rate,
    shards,
    total,
    workers_for,
)

NUMBERS = st.floats(min_value=0, max_value=1e9)
RANGES = st.lists(NUMBERS, min_size=3, max_size=3).map(lambda three: Range(*sorted(three)))
LINES = st.builds(Line, RANGES, RANGES, RANGES | st.just(ENDLESS))
NEEDS = st.builds(
    Needs,
    step=st.just("01-step"),
    is_shared=st.booleans(),
    **{
        name: st.lists(LINES, max_size=2)
        for name in ("rows", "read", "written", "calls_s", "other_s", "disk", "books", "files", "memory")
    },
)
TERMS = st.builds(
    Terms,
    workers=st.integers(1, 9),
    gpus=st.sampled_from([0.0, 0.5, 1.0, 8.0]),
    **{name: st.floats(min_value=0, max_value=100) for name in ("price_per_hour", "price_per_gpu_hour", "watts")},
    co2_kg_per_kwh=st.floats(min_value=0, max_value=1),
)
BLOCKS = st.lists(st.tuples(NUMBERS, st.floats(min_value=1, max_value=1e6)), min_size=1, max_size=8)


def values(one: Range) -> tuple[float, float, float]:
    return one.low, one.middle, one.high


# --- ranges


@pytest.mark.parametrize("crooked", [(2, 1, 3), (1, 3, 2), (1, math.nan, 2)])
def test_a_range_that_does_not_hold_its_middle_is_refused(crooked: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low <= middle <= high"):
        Range(*crooked)


@settings(deadline=None)
@given(BLOCKS)
def test_a_rate_lies_in_its_range_and_is_never_negative(blocks: list[tuple[float, float]]) -> None:
    found = rate(blocks)
    assert found.low >= 0
    assert found.middle == pytest.approx(sum(y for y, _ in blocks) / sum(x for _, x in blocks))


@settings(deadline=None)
@given(BLOCKS)
def test_what_is_twice_as_slow_has_twice_the_rate_and_twice_the_range(blocks: list[tuple[float, float]]) -> None:
    slow = rate([(2 * amount, units) for amount, units in blocks])
    assert values(slow) == pytest.approx(values(rate(blocks) * 2), abs=1e-9)


def test_the_range_of_a_rate_is_two_standard_errors_of_a_ratio() -> None:
    assert values(rate([(2, 1), (4, 1), (6, 1)])) == pytest.approx(
        (4 - 2 * 2 / math.sqrt(3), 4, 4 + 2 * 2 / math.sqrt(3))
    )
    assert values(rate([(3, 1), (6, 2)])) == pytest.approx((3, 3, 3))


def test_what_was_measured_once_is_half_to_twice_of_it() -> None:
    assert rate([(6, 2)]) == about(3) == Range(1.5, 3, 6)


@pytest.mark.parametrize("blocks", [[], [(1.0, 0.0)]])
def test_a_rate_of_nothing_is_refused(blocks: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="no unit"):
        rate(blocks)


# --- lines


@settings(deadline=None)
@given(RANGES, NUMBERS)
def test_twice_the_passages_are_twice_what_goes_with_them(slope: Range, passages: float) -> None:
    one, two = (at([Line(slope=slope)], exactly(count)) for count in (passages, 2 * passages))
    assert values(two) == pytest.approx(values(one * 2))


@settings(deadline=None)
@given(st.lists(LINES, max_size=3), RANGES, RANGES)
def test_more_passages_never_take_less(lines: list[Line], passages: Range, more: Range) -> None:
    before, after = (at(lines, count) for count in (passages, passages + more))
    assert all(x <= y for x, y in zip(values(before), values(after), strict=True))


@settings(deadline=None)
@given(LINES, RANGES)
def test_a_line_stays_below_its_bound(line: Line, passages: Range) -> None:
    assert all(x <= y for x, y in zip(values(line.at(passages)), values(line.most), strict=True))


def test_an_endless_line_taken_no_times_is_nothing() -> None:
    assert (Line(exactly(3), exactly(2)) * 0.0).at(exactly(7)) == exactly(0)


# --- costs


@settings(deadline=None)
@given(st.lists(NEEDS, max_size=4), RANGES, TERMS)
def test_all_is_the_sum_of_the_steps(needs: list[Needs], passages: Range, terms: Terms) -> None:
    costs = [cost(one, passages, terms) for one in needs]
    whole = total(costs)
    for name in SUMMED:
        for end in ("low", "middle", "high"):
            assert getattr(getattr(whole, name), end) == pytest.approx(
                sum(getattr(getattr(c, name), end) for c in costs)
            )
    assert whole.memory.high == max((one.memory.high for one in costs), default=0)


@settings(deadline=None)
@given(NEEDS, RANGES, TERMS)
def test_no_cost_is_negative_and_every_range_holds_its_middle(needs: Needs, passages: Range, terms: Terms) -> None:
    found = cost(needs, passages, terms)
    for name in ("rows", "memory", *SUMMED):
        low, middle, high = values(getattr(found, name))
        assert 0 <= low <= middle <= high


@settings(deadline=None)
@given(NEEDS, RANGES, TERMS)
def test_workers_share_time_and_not_cost(needs: Needs, passages: Range, terms: Terms) -> None:
    alone, many = (cost(needs, passages, replace(terms, workers=count)) for count in (1, 4))
    assert values(many.hours * (4 if needs.is_shared else 1)) == pytest.approx(values(alone.hours))
    assert (many.money, many.kwh, many.machine_hours) == (alone.money, alone.kwh, alone.machine_hours)


def test_money_is_hours_gpu_hours_and_tokens_at_their_prices() -> None:
    needs = Needs(
        step="x",
        calls_s=[Line(exactly(3600))],
        other_s=[Line(exactly(1800))],
        read=[Line(exactly(2e6))],
        written=[Line(exactly(1e6))],
    )
    prices = {"price_per_hour": 0.4, "price_per_gpu_hour": 2.0, "price_per_million_read": 0.1}
    terms = Terms(gpus=2, watts=300, co2_kg_per_kwh=0.5, price_per_million_written=0.7, **prices)
    found = cost(needs, exactly(0), terms)
    assert found.money.middle == pytest.approx(1.5 * 0.4 + 2 * 2.0 + 2 * 0.1 + 0.7)
    assert (found.gpu_hours.middle, found.kwh.middle, found.co2_kg.middle) == pytest.approx((2.0, 0.45, 0.225))
    assert cost(needs, exactly(0), Terms()).money == exactly(0)


# --- sizes


@settings(deadline=None)
@given(
    st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=100), st.floats(min_value=0.5, max_value=30)
)
def test_so_many_workers_are_enough_and_one_less_is_not(shared_h: float, alone_h: float, days: float) -> None:
    costs = [
        Cost(step="a", machine_hours=exactly(alone_h)),
        Cost(step="b", machine_hours=exactly(shared_h), is_shared=True),
    ]
    found = workers_for(days, costs)
    if found is None:
        assert alone_h >= days * 24
        return
    slack = 1 + 1e-9
    assert alone_h + shared_h / found <= days * 24 * slack
    assert found == 1 or alone_h + shared_h / (found - 1) >= days * 24 / slack


@pytest.mark.parametrize(
    ("rows", "size", "count"), [(0, 256, 0), (1, 256, 1), (256, 256, 1), (257, 256, 2), (10**9, 256, 3906250)]
)
def test_a_shard_that_is_begun_counts(rows: int, size: int, count: int) -> None:
    assert shards(rows, size) == count
