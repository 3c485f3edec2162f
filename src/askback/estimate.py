"""Arithmetic of a plan: ranges, straight lines over the number of passages, and what they cost.

Takes: what a sample took, in numbers.  Gives: what the whole will take, each number with a range.
Never: measures, or claims more than the sample: a single measurement is taken for half to twice of what it says.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

ONCE = 2.0
"""What was measured only once may be so many times more or less."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known exactly: the least, the most likely, and the most it may be."""

    low: float
    middle: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.middle <= self.high:
            raise ValueError(f"want low <= middle <= high, got {self.low}, {self.middle}, {self.high}")

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Return the product of two numbers, neither of them negative."""
        by = other if isinstance(other, Range) else exactly(other)
        return Range(self.low * by.low, self.middle * by.middle, self.high * by.high)

    def at_most(self, bound: "Range") -> "Range":
        """Return the smaller of two, point by point."""
        return Range(min(self.low, bound.low), min(self.middle, bound.middle), min(self.high, bound.high))


def exactly(value: float) -> Range:
    """Return a number that is known."""
    return Range(value, value, value)


def about(value: float) -> Range:
    """Return a number that was measured once."""
    return Range(value / ONCE, value, value * ONCE)


NONE, ENDLESS = exactly(0.0), exactly(math.inf)


def rate(blocks: Sequence[tuple[float, float]]) -> Range:
    """Return amount per unit of (amount, units) blocks: the ratio of the sums, two standard errors either way.

    The standard error is that of a ratio estimator over blocks (Cochran 1977, section 6.4).

    Raises:
        ValueError: there is no unit to divide by.
    """
    amount, units = (math.fsum(column) for column in zip(*blocks, strict=True)) if blocks else (0.0, 0.0)
    if units <= 0:
        raise ValueError(f"no unit in {len(blocks)} blocks")
    ratio, n = amount / units, len(blocks)
    if n < 2:
        return about(ratio)
    residuals = math.fsum((y - ratio * x) ** 2 for y, x in blocks)
    margin = 2 * math.sqrt(residuals * n / (n - 1)) / units
    return Range(max(0.0, ratio - margin), ratio, ratio + margin)


@dataclass(frozen=True, slots=True)
class Line:
    """An amount that grows with the passages: a fixed part, a part for each passage, and a bound it stays below."""

    fixed: Range = NONE
    slope: Range = NONE
    most: Range = ENDLESS

    def at(self, passages: Range) -> Range:
        """Return the amount for so many passages."""
        return (self.fixed + self.slope * passages).at_most(self.most)

    def __mul__(self, each: "Range | float") -> "Line":
        """Return so much of each unit of this one."""
        most = self.most if self.most == ENDLESS else self.most * each  # endless times nothing is no number
        return Line(self.fixed * each, self.slope * each, most)


Lines = Sequence[Line]
"""Amounts that are added up."""


def at(lines: Lines, passages: Range) -> Range:
    """Return the sum of several amounts for so many passages."""
    return reduce(Range.__add__, (line.at(passages) for line in lines), NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """How what a step needs grows with the passages; `is_shared` where workers share the work of its shards."""

    step: str
    is_shared: bool = False
    rows: Lines = ()
    read: Lines = ()
    """Tokens the engine reads, those it trains on among them."""
    written: Lines = ()
    """Tokens the engine writes."""
    calls_s: Lines = ()
    """Seconds of one machine in which the engine works."""
    other_s: Lines = ()
    """Seconds of one machine in which it does not."""
    disk: Lines = ()
    """Bytes that stay in the run folder."""
    books: Lines = ()
    """Those of them that are no rows: manifests, ledgers of rejects, the frames of parts."""
    files: Lines = ()
    memory: Lines = ()
    """Bytes in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Where a run is done and what that costs; a price, a wattage or a carbon figure of 0 is not known."""

    workers: int = 1
    gpus: float = 0
    """GPUs of a worker."""
    price_per_hour: float = 0
    price_per_gpu_hour: float = 0
    price_per_million_read: float = 0
    price_per_million_written: float = 0
    watts: float = 0
    co2_kg_per_kwh: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a step, or several, will take."""

    step: str
    is_shared: bool = False
    """Whether workers share it."""
    rows: Range = NONE
    read: Range = NONE
    written: Range = NONE
    hours: Range = NONE
    """By the clock."""
    machine_hours: Range = NONE
    """Of all workers together."""
    gpu_hours: Range = NONE
    memory: Range = NONE
    """Bytes in memory at once; the most of several steps."""
    disk: Range = NONE
    books: Range = NONE
    files: Range = NONE
    money: Range = NONE
    kwh: Range = NONE
    co2_kg: Range = NONE

    def __add__(self, other: "Cost") -> "Cost":
        memory = Range(*(max(getattr(one.memory, at) for one in (self, other)) for at in ("low", "middle", "high")))
        sums = {name: getattr(self, name) + getattr(other, name) for name in SUMMED}
        return replace(self, memory=memory, **sums)


SUMMED = (
    *("read", "written", "hours", "machine_hours", "gpu_hours", "disk", "books", "files", "money", "kwh", "co2_kg"),
)
"""What of several steps is added up: not rows, since the same ones go from step to step, and not memory."""


def cost(needs: Needs, passages: Range, terms: Terms) -> Cost:
    """Return what a step takes for so many passages, under these terms."""
    calls, read, written = (at(lines, passages) for lines in (needs.calls_s, needs.read, needs.written))
    hours = (calls + at(needs.other_s, passages)) * (1 / HOUR_S)
    gpu_hours = calls * (terms.gpus / HOUR_S)
    kwh = hours * (terms.watts / 1000)
    return Cost(
        step=needs.step,
        is_shared=needs.is_shared,
        rows=at(needs.rows, passages),
        read=read,
        written=written,
        hours=hours * (1 / terms.workers if needs.is_shared else 1),
        machine_hours=hours,
        gpu_hours=gpu_hours,
        memory=at(needs.memory, passages),
        disk=at(needs.disk, passages),
        books=at(needs.books, passages),
        files=at(needs.files, passages),
        money=hours * terms.price_per_hour
        + gpu_hours * terms.price_per_gpu_hour
        + read * (terms.price_per_million_read / 1e6)
        + written * (terms.price_per_million_written / 1e6),
        kwh=kwh,
        co2_kg=kwh * terms.co2_kg_per_kwh,
    )


def total(costs: Iterable[Cost]) -> Cost:
    """Return several steps together; `rows` stay 0."""
    return reduce(Cost.__add__, costs, Cost(step="all"))


def workers_for(days: float, costs: Iterable[Cost]) -> int | None:
    """Return how many workers finish in so many days, by the middle of the ranges; None if none can.

    Only shards are shared: what one machine does alone must fit into the time as it is.
    """
    hours = {True: 0.0, False: 0.0}
    for one in costs:
        hours[one.is_shared] += one.machine_hours.middle
    left = days * 24 - hours[False]
    return max(1, math.ceil(hours[True] / left)) if left > 0 else None


def shards(rows: float, shard_rows: int) -> int:
    """Return how many shards so many rows are."""
    return math.ceil(rows / shard_rows)
