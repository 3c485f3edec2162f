"""Drop passages, and any other text, that share a run of words with what models are evaluated on.

Takes: (place, text) of every string of the evaluation sets; Passages and Rejects.
Gives: both in order, each Passage that shares a run turned into a Reject that names set and row.
Never: opens a file (`readers/evalsets.py` does), changes a passage, or takes a guess: a hit is compared word by word.

Shared is a run of `ngram` words, 13 by default, whatever their case and punctuation (Brown et al. 2020, appendix C);
in scripts without spaces each character counts as a word. Prompts are often shorter than that, so:

    ngram words or more    each of its runs of ngram words counts, wherever it stands
    from 8 words up        it counts as a whole, wherever it stands: 8 is the shortest run Brown et al. allow
    fewer                  it counts only where a text is nothing else: `hello` drops the instruction `Hello!`,
                           not the passages that say hello
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from askback.grams import gram_hashes, word_hashes, words_of
from askback.records import OK, Passage, Reject, Verdict, excerpt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from askback.grams import Hashes

SHORTEST_RUN = 8


def decontaminate(outcomes: Iterable[Passage | Reject], sets: "EvaluationSets") -> Iterator[Passage | Reject]:
    """Yield what shares nothing with the sets; the rest as Rejects (`contaminated`), those that came in untouched."""
    for outcome in outcomes:
        verdict = OK if isinstance(outcome, Reject) else sets.check_text(outcome.text)
        yield outcome if verdict.keep else Reject(outcome.id, verdict.reason, verdict.detail, outcome.source)


class EvaluationSets:
    """What must not be trained on, found again by its runs of words; 24 bytes of memory for each word of the sets."""

    def __init__(self, rows: Iterable[tuple[str, str]], ngram: int) -> None:
        """Take every text of the sets with its place, such as ("mt_bench.jsonl:7", "Write a poem about tides.")."""
        self._ngram = ngram
        self._head = min(SHORTEST_RUN, ngram)
        self._short: dict[bytes, str] = {}
        self._places: list[str] = []
        self._runs = self._index([*self._long_texts(rows)])

    def check_text(self, text: str) -> Verdict:
        """Fail a text that shares a run with a set or is one of its short prompts; the detail names set and row."""
        words = words_of(text)
        if place := self._short.get(b" ".join(words)):
            return _contaminated(place, words)
        hashes = word_hashes([words])
        for start, run in self._begun(gram_hashes(hashes, self._head)):
            stop = start + int(self._runs.sizes[run])
            if self._stands_at(run, hashes[start:stop]):
                return _contaminated(self._places[self._runs.owners[run]], words[start:stop])
        return OK

    def _long_texts(self, rows: Iterable[tuple[str, str]]) -> "Iterator[Hashes]":
        """Yield the words of each text long enough to be found inside another; note the others as they are."""
        for place, text in rows:
            words = words_of(text)
            if len(words) >= self._head:
                self._places.append(place)
                yield word_hashes([words])
            elif words:
                self._short.setdefault(b" ".join(words), place)

    def _index(self, texts: "list[Hashes]") -> "_Runs":
        """Sort the runs of all texts by their heads; where those are equal, the order of the texts stays."""
        import numpy as np

        none = np.empty(0, dtype=np.uint64)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        counts = np.maximum(1, lengths - self._ngram + 1)
        heads = [gram_hashes(text, self._head)[:count] for text, count in zip(texts, counts.tolist(), strict=True)]
        sorted_heads = np.concatenate([none, *heads])
        order = np.argsort(sorted_heads, kind="stable")
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), counts)
        shifts = np.repeat(np.cumsum(lengths) - lengths - np.cumsum(counts) + counts, counts)
        return _Runs(
            words=np.concatenate([none, *texts]).astype(np.uint32),
            heads=sorted_heads[order],
            starts=(np.arange(len(owners)) + shifts)[order],
            sizes=np.minimum(lengths, self._ngram)[owners][order].astype(np.int32),
            owners=owners[order],
        )

    def _begun(self, heads: "Hashes") -> Iterator[tuple[int, int]]:
        """Yield (place in the text, number of the run) wherever the head of a run stands."""
        import numpy as np

        if not len(self._runs.heads):
            return
        first = np.searchsorted(self._runs.heads, heads)
        there = self._runs.heads[np.minimum(first, len(self._runs.heads) - 1)] == heads
        for place in np.flatnonzero(there).tolist():
            past = int(np.searchsorted(self._runs.heads, heads[place], side="right"))
            yield from ((place, run) for run in range(int(first[place]), past))

    def _stands_at(self, run: int, words: "Hashes") -> bool:
        import numpy as np

        start, size = int(self._runs.starts[run]), int(self._runs.sizes[run])
        return np.array_equal(self._runs.words[start : start + size], words)


class _Runs(NamedTuple):
    """Every run of words that counts, one place in each array but the first."""

    words: "NDArray[np.uint32]"
    """The hashed words of all texts, one text after the other."""
    heads: "Hashes"
    """The hash of its first words, in order."""
    starts: "NDArray[np.int64]"
    """Where it begins in `words`."""
    sizes: "NDArray[np.int32]"
    """How many words it has."""
    owners: "NDArray[np.int32]"
    """The number of its text."""


def _contaminated(place: str, words: list[bytes]) -> Verdict:
    return Verdict(False, "contaminated", f"{place}: {excerpt(b' '.join(words).decode())}")
