"""Chance that belongs to a row: a number from the run's seed, the row and the attempt, and from no order.

Takes: strings and integers.  Gives: seeds, and the split between training and evaluation.
Never: reads a clock, a counter or a generator.
"""

import hashlib
from collections.abc import Iterable, Sequence

from askback.records import Pair, content_id


def row_seed(run_seed: int, row: str, attempt: int) -> int:
    """Return 63 bits for one attempt at one row."""
    digest = hashlib.sha256(f"{run_seed}/{row}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split(pairs: Iterable[Pair], *, held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Return (training, held-out) pairs, each ordered by id, so that the order of reading does not matter.

    Pairs that share an output, an instruction (case and white space aside) or a conversation go to the same side;
    the hash of the first of them by id decides.
    """
    ordered = sorted(pairs, key=lambda pair: pair.id)
    training: list[Pair] = []
    held: list[Pair] = []
    for pair, share in zip(ordered, _shares(ordered), strict=True):
        (held if share < held_out else training).append(pair)
    return training, held


def _shares(pairs: Sequence[Pair]) -> list[float]:
    """Return a number from 0 to 1 for each pair, the same for all pairs that hang together."""
    parent = list(range(len(pairs)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, pair in enumerate(pairs):
        for tie in _ties(pair):
            parent[root(place)] = root(first.setdefault(tie, place))
    leader: dict[int, str] = {}
    for place, pair in enumerate(pairs):
        leader.setdefault(root(place), pair.id)
    return [int(content_id("split", leader[root(place)]), 16) / 16**16 for place in range(len(pairs))]


def _ties(pair: Pair) -> list[tuple[str, str]]:
    """Return what ties a pair to others; the turns of a conversation carry its place and `#` with their number."""
    ties = [("output", normal(pair.output)), ("instruction", normal(pair.instruction))]
    conversation = pair.source.partition("#")[0]
    return [*ties, ("conversation", conversation)] if conversation else ties


def normal(text: str) -> str:
    """Return a text without its case and the width of its white space."""
    return " ".join(text.lower().split())
