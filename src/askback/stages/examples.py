"""Choose the pairs that a model is shown instead of being trained on them.

Takes: training Pairs, the number of tokens of a text.  Gives: a few of the pairs, short ones of different kinds.
Never: sees a held-out pair, or depends on the order of the pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, zip_longest

from askback.metrics import words
from askback.records import Pair

LEAST_CHARS = 200
"""A shorter output is like no passage, and is shown only where there is nothing longer."""
MOST_INSTRUCTION_CHARS = 300
MOST_SHARED = 0.5
"""Two examples share at most this part of the words of their instructions (Jaccard)."""
MOST_TRIED = 200
"""Pairs looked at: where so many do not fit, the rest is longer still."""


def pick_examples(
    pairs: Sequence[Pair], count: int, most_tokens: int, count_tokens: Callable[[str], int]
) -> list[Pair]:
    """Return at most `count` pairs that have at most `most_tokens` tokens together.

    The genres take turns, those with most pairs first; within one the shortest output comes first. Only instructions
    of one line are taken, since one line is what the model is asked for.
    """
    chosen: list[Pair] = []
    room = most_tokens
    for pair in islice(_in_turns(pairs), MOST_TRIED):
        if len(chosen) == count:
            break
        if any(_shared(pair.instruction, other.instruction) > MOST_SHARED for other in chosen):
            continue
        tokens = count_tokens(f"{pair.output}\n{pair.instruction}")
        if tokens <= room:
            chosen.append(pair)
            room -= tokens
    return chosen


def _in_turns(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield one pair of each genre, then a second one of each, and so on."""
    fit = [pair for pair in pairs if "\n" not in pair.instruction and len(pair.instruction) <= MOST_INSTRUCTION_CHARS]
    genres: dict[str, list[Pair]] = {}
    for pair in sorted(fit, key=lambda pair: (len(pair.output) < LEAST_CHARS, len(pair.output), pair.id)):
        genres.setdefault(pair.genre, []).append(pair)
    commonest = sorted(genres, key=lambda genre: (-len(genres[genre]), genre))
    turns = zip_longest(*(genres[genre] for genre in commonest))
    return (pair for pair in chain.from_iterable(turns) if pair is not None)


def _shared(one: str, other: str) -> float:
    mine, theirs = {*words(one)}, {*words(other)}
    return len(mine & theirs) / max(1, len(mine | theirs))
