"""Chance that belongs to a row: a number from the run's seed, the row and the attempt, and from no order.

Takes: strings and integers.  Gives: seeds, and the split between training and evaluation.
Never: reads a clock, a counter or a generator.
"""

import hashlib
from collections.abc import Iterable

from askback.records import Pair, content_id


def row_seed(run_seed: int, row: str, attempt: int) -> int:
    """Return 63 bits for one attempt at one row."""
    digest = hashlib.sha256(f"{run_seed}/{row}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def split(pairs: Iterable[Pair], *, held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Return (training, held-out) pairs; a pair's own output decides, so that one output never stands on both sides.

    Both sides are ordered by id, so that the order of reading does not matter.
    """
    training: list[Pair] = []
    held: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: pair.id):
        share = int(content_id("split", pair.output), 16) / 16**16
        (held if share < held_out else training).append(pair)
    return training, held
