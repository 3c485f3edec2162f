"""What people said of pairs: a grade of one, a preference between two.

Takes: Pairs and numbers.  Gives: frozen records, and what follows from several of them.
Never: knows a file, a judge, or from which grade on a pair is good: whoever reads the labels says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from askback.records import Pair

LOWEST, HIGHEST = 1.0, 5.0
"""The scale on which grades of different scales are compared: that of the judges."""


@dataclass(frozen=True, slots=True)
class Grade:
    """One person's (or a stronger model's) grade of one pair, on its own scale; the pair may be known by id alone."""

    pair: Pair
    grade: float
    scale: tuple[float, float]
    """Lowest and highest grade."""
    good: bool

    @property
    def five(self) -> float:
        """The grade on a scale from 1 to 5."""
        lowest, highest = self.scale
        return LOWEST + (HIGHEST - LOWEST) * (self.grade - lowest) / (highest - lowest)


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers to one instruction, the one that was found better, and the other."""

    better: Pair
    worse: Pair


def merge_grades(grades: Iterable[Grade]) -> list[Grade]:
    """Return one grade for each pair, ordered by id: the mean on five points; good where more than half said so."""
    found: dict[str, list[Grade]] = {}
    for grade in grades:
        found.setdefault(grade.pair.id, []).append(grade)
    return [_merged(found[id]) for id in sorted(found)]


def _merged(grades: Sequence[Grade]) -> Grade:
    if len(grades) == 1:
        return grades[0]
    good = sum(grade.good for grade in grades) * 2 > len(grades)
    pair = next((grade.pair for grade in grades if grade.pair.output), grades[0].pair)  # an id alone tells less
    return Grade(pair, fmean(grade.five for grade in grades), (LOWEST, HIGHEST), good)


def preferences_within(grades: Iterable[Grade]) -> list[Preference]:
    """Return the preferences that follow from the grades of several answers to one instruction; equal grades say none.

    Raises:
        ValueError: a pair is graded twice; `merge_grades` comes first.
    """
    groups: dict[str, list[Grade]] = {}
    seen: set[str] = set()
    for grade in grades:
        if grade.pair.id in seen:
            raise ValueError(f"preferences_within: want one grade for each pair, got two for {grade.pair.id}")
        seen.add(grade.pair.id)
        if asked := " ".join(grade.pair.instruction.lower().split()):  # as `chance.normal` has it, which is above us
            groups.setdefault(asked, []).append(grade)
    return [
        Preference(a.pair, b.pair) if a.five > b.five else Preference(b.pair, a.pair)
        for group in groups.values()
        for a, b in combinations(group, 2)
        if a.five != b.five
    ]
