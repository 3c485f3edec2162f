"""Drop passages that were read before: copies, and texts that share most of their runs of words.

Takes: Passages and Rejects in reading order, Passages of earlier runs, a scratch folder.
Gives: both in order, each Passage that repeats an earlier one turned into a Reject that names it.
Never: changes a passage, keeps one longer than a batch, or lets a passage that was dropped drop another.

The first in reading order survives. Passages of earlier runs come before the first and only ever drop others.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from askback.nearness import Match, Seen, Text, open_seen
from askback.options import DistinctOptions
from askback.records import Passage, Reject

BATCH_ROWS = 8192
BATCH_CHARS = 4_000_000

P = TypeVar("P", Passage, Passage | Reject)


def distinct(
    outcomes: Iterable[Passage | Reject],
    options: DistinctOptions,
    *,
    known: Iterable[Passage] = (),
    scratch: Path | None = None,
) -> Iterator[Passage | Reject]:
    """Yield what repeats nothing; the rest as Rejects, those that came in untouched.

    Reasons: `duplicate` (the same text, but for case and white space), `near_duplicate` (a Jaccard overlap of word
    5-grams of `options.near` or more). About 1 KB of disk is used for a passage of a hundred words while this runs;
    what is written there is removed in the end.

    Raises:
        ConfigError: `options.near` is too low for `options.permutations`, or `scratch` cannot be written.
        Stopped: there is no room left in `scratch`.
    """
    with open_seen(options.near, options.permutations, scratch) as seen:
        for earlier in _batches(known):
            seen.learn([Text(passage.id, passage.text) for passage in earlier])
        for batch in _batches(outcomes):
            yield from _sift(batch, seen)


def _sift(batch: list[Passage | Reject], seen: Seen) -> Iterator[Passage | Reject]:
    passages = [outcome for outcome in batch if isinstance(outcome, Passage)]
    matches = iter(seen.admit([Text(passage.id, passage.text) for passage in passages]))
    for outcome in batch:
        match = next(matches) if isinstance(outcome, Passage) else None
        yield _reject(outcome, match) if isinstance(outcome, Passage) and match else outcome


def _reject(passage: Passage, match: Match) -> Reject:
    of = f"{match.id} of an earlier run" if match.known else match.id
    if match.exact:
        return Reject(id=passage.id, reason="duplicate", detail=f"the text of {of}", source=passage.source)
    detail = f"{match.overlap:.2f} of the word 5-grams of {of}"
    return Reject(id=passage.id, reason="near_duplicate", detail=detail, source=passage.source)


def _batches(items: Iterable[P]) -> Iterator[list[P]]:
    """Yield the items in lists, as many together as make the work cheap and the memory small."""
    batch: list[P] = []
    chars = 0
    for item in items:
        batch.append(item)
        chars += len(item.text) if isinstance(item, Passage) else 0
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
