"""How different texts are from each other, and which few of them stand for all.

Takes: texts, and scores beside them.  Gives: floats, row numbers, a dict ready for JSON.
Never: asks a model, or depends on chance: the same texts and scores give the same answer, of equals the first.

Texts are compared as TF-IDF vectors of their words: no model is needed, words meant alike but written otherwise are
strangers, and common words count little. Where the vectors of a sentence encoder are at hand, `vector_spread` and
`diversity_report` take them as they come.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import ceil, isfinite, log
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from askback.metrics import distinct_n, words
from askback.nearness import Overlapping
from askback.records import Pair
from askback.verbs import verb_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Method = Literal["facility", "farthest"]
Bound = tuple[float, float, int]
"""Gain and quality, both negative so that the best sorts first, and the row."""

MOST_TERMS, LEAST_SHARE = 64, 0.95
"""A text is compared by its weightiest terms, so many or so much of its squared length: common words cost the most
time and say the least."""
LEAST_QUALITY = 0.5
"""What the text of the lowest score is worth beside the best one, whose worth is 1."""
NEAR = 0.9
"""Jaccard overlap of word pairs from which two instructions are nearly the same."""
TOP_VERBS, TOP_OBJECTS = 20, 4
MOST_EXACT = 20_000
"""Texts among which every pick is the best one; of more, it is the best of a sample (Mirzasoleiman et al. 2015)."""
SLACK = 0.05
DIGITS = 9
"""Gains are compared to so many digits: sums in another order must not decide."""


# --- measuring


def diversity_report(
    pairs: Sequence[Pair],
    scores: Sequence[float],
    *,
    chosen: Sequence[int],
    method: Method = "facility",
    embeddings: "Sequence[Sequence[float]] | NDArray[np.floating[Any]] | None" = None,
) -> dict[str, Any]:
    """Return how diverse the instructions are, and the same of those `chosen` and of as many: the best, the diverse.

    The selections are of one size, so that their figures can be compared with each other; distinct-n falls as a set
    grows, so that they cannot be compared with those of `all`. `shared` is the share the best and the diverse have in
    common. `embeddings` are a sentence encoder's vectors of the instructions, where there is one.

    Raises:
        ValueError: another number of scores or embeddings than of pairs, or a score that is not finite.
    """
    texts, count = [pair.instruction for pair in pairs], len(chosen)
    _check(texts, scores, count)
    if embeddings is not None and len(embeddings) != len(pairs):
        raise ValueError(f"diversity_report: want one vector for each of {len(pairs)} pairs, got {len(embeddings)}")
    measured = _Measured(texts, scores, build_vectors(texts), embeddings)
    report: dict[str, Any] = {
        "all": measured.describe(range(len(texts))),
        "chosen": measured.describe(chosen),
        "count": count,
        "method": method,
    }
    if not 0 < count < len(texts):
        return report | {"why": f"want a selection of 1 to {len(texts) - 1} of {len(texts)} pairs, got {count}"}
    top, diverse = pick_top(scores, count), _pick(measured.vectors, scores, count, method)
    shared = len({*top} & {*diverse}) / count
    return report | {"top": measured.describe(top), "diverse": measured.describe(diverse), "shared": shared}


@dataclass(frozen=True, slots=True)
class _Measured:
    """Instructions with what is known of them; any part of them can be described."""

    texts: Sequence[str]
    scores: Sequence[float]
    vectors: "Vectors"
    embeddings: "Sequence[Sequence[float]] | NDArray[np.floating[Any]] | None"

    def describe(self, rows: Sequence[int]) -> dict[str, Any]:
        """Return the figures of some rows; all distances are under the vectors of the whole set."""
        texts = [self.texts[row] for row in rows]
        near = count_near_duplicates(texts)
        described = {
            "n": len(rows),
            "mean_score": fmean(self.scores[row] for row in rows) if rows else None,
            "distinct_1": distinct_n(texts, 1),
            "distinct_2": distinct_n(texts, 2),
            "spread": self.vectors.spread(rows),
            "near_duplicates": near / len(texts) if texts else None,
            "verb_object": count_verb_objects(texts),
        }
        if self.embeddings is not None:
            described["embedding_spread"] = vector_spread([self.embeddings[row] for row in rows])
        return described


def spread(texts: Sequence[str]) -> float | None:
    """Return the mean cosine distance of two different texts, 0 to 1, None for fewer than two; exact, in linear time.

    The vectors weigh words by how rare they are among these very texts: compare sets of like size and kind.
    """
    return build_vectors(texts).spread(range(len(texts)))


def vector_spread(vectors: Sequence[Sequence[float]]) -> float | None:
    """Return the mean cosine distance of two different vectors, 0 to 2, None for fewer than two."""
    import numpy as np

    if len(vectors) < 2:
        return None
    table_ND = np.asarray(vectors, dtype=np.float64)
    table_ND = table_ND / np.maximum(np.linalg.norm(table_ND, axis=1, keepdims=True), 1e-12)
    return _mean_distance(float((table_ND.sum(axis=0) ** 2).sum()), float((table_ND**2).sum()), len(vectors))


def _mean_distance(squared_sum: float, sum_of_squares: float, n: int) -> float:
    """Return 1 - mean of x_i x_j over i != j: the square of the vectors' sum holds every such product."""
    return max(0.0, 1 - (squared_sum - sum_of_squares) / (n * (n - 1)))


def count_near_duplicates(texts: Sequence[str]) -> int:
    """Count the texts whose word pairs overlap by NEAR or more (Jaccard) with an earlier text that is not counted."""
    seen: Overlapping[tuple[str, str]] = Overlapping(NEAR)
    count = 0
    for text in texts:
        grams = set(pairwise(["", *words(text)]))  # a single word is a pair too
        if next(seen.find(grams), None) is not None:
            count += 1
        else:
            seen.add(grams)
    return count


def count_verb_objects(instructions: Sequence[str]) -> dict[str, Any]:
    """Return the most common verbs with their most common objects, as `verb_object` hears them.

    `n` instructions, of which `found` have a pair and `different` counts the different pairs.
    """
    pairs = Counter(pair for text in instructions if (pair := verb_object(text)))
    by_verb: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (verb, noun), times in pairs.items():
        by_verb[verb][noun] = times
    verbs = sorted(by_verb, key=lambda verb: (-by_verb[verb].total(), verb))[:TOP_VERBS]
    return {
        "n": len(instructions),
        "found": pairs.total(),
        "different": len(pairs),
        "verbs": [
            {"verb": verb, "count": by_verb[verb].total(), "objects": _most_common(by_verb[verb])} for verb in verbs
        ],
    }


def _most_common(nouns: Counter[str]) -> list[list[str | int]]:
    ordered = sorted(nouns.items(), key=lambda item: (-item[1], item[0]))[:TOP_OBJECTS]
    return [[noun, times] for noun, times in ordered]


# --- choosing


def pick_diverse(
    texts: Sequence[str], scores: Sequence[float], count: int, *, method: Method = "facility"
) -> list[int]:
    """Return the numbers of `count` texts that are good and cover the rest, in the order they were picked.

    `facility` adds whatever text most raises sum_i max_j q_j cos(i, j), the facility location of Lin and Bilmes
    (2011) with each chosen text j worth its quality q_j. That is monotone and submodular, so that greedy picks reach
    1 - 1/e of the best (Nemhauser et al. 1978); gains of earlier rounds spare most of the work (Minoux 1978), and of
    more than MOST_EXACT texts each pick is the best of a sample.
    `farthest` adds the text with the largest q_j (1 - max_k cos(j, k)) to those chosen (Gonzalez 1985 without the
    quality): it goes after what is unlike everything, and so after oddities.

    Quality is the rank of the score, the lowest LEAST_QUALITY and the highest 1. Ties go to the better score, then to
    the earlier text.

    Raises:
        ValueError: another number of scores than of texts, a score that is not finite, or a negative count.
    """
    _check(texts, scores, count)
    return _pick(build_vectors(texts), scores, count, method) if count < len(texts) else pick_top(scores, count)


def pick_top(scores: Sequence[float], count: int) -> list[int]:
    """Return the numbers of the `count` best scores, best first; of equals the first."""
    return sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:count]


def _pick(vectors: "Vectors", scores: Sequence[float], count: int, method: Method) -> list[int]:
    pick = {"facility": _pick_facility, "farthest": _pick_farthest}[method]
    return pick(vectors, _qualities(scores), count)


def _check(texts: Sequence[str], scores: Sequence[float], count: int) -> None:
    if len(texts) != len(scores):
        raise ValueError(f"pick_diverse: want a score for each text, got {len(texts)} texts and {len(scores)} scores")
    if not all(map(isfinite, scores)):
        raise ValueError("pick_diverse: want finite scores; leave out what has none")
    if count < 0:
        raise ValueError(f"pick_diverse: want a count of 0 or more, got {count}")


def _qualities(scores: Sequence[float]) -> "NDArray[np.float64]":
    """Return the worth of each text: its place among the different scores, from LEAST_QUALITY to 1."""
    import numpy as np

    different, places = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    share = places / max(1, len(different) - 1) if len(different) > 1 else np.ones(len(scores))
    return LEAST_QUALITY + (1 - LEAST_QUALITY) * share


class _Coverage:
    """How well the texts picked so far stand for each text, and what one more would add."""

    def __init__(self, vectors: "Vectors", quality_N: "NDArray[np.float64]") -> None:
        import numpy as np

        self.vectors, self.quality_N = vectors, quality_N
        self.covered_N = np.zeros(len(vectors))
        first_gain_N = quality_N * vectors.dot(vectors.total())  # q_j sum_i cos(i, j), and no two texts compared
        self.bounds: list[Bound] = [
            (-round(gain, DIGITS), -quality, row)
            for row, (gain, quality) in enumerate(zip(first_gain_N.tolist(), quality_N.tolist(), strict=True))
        ]

    def measure(self, row: int) -> Bound:
        """Return what a text adds now; it can only fall as others are picked."""
        import numpy as np

        gain = float(np.maximum(self._benefit(row) - self.covered_N, 0).sum())
        return -round(gain, DIGITS), -float(self.quality_N[row]), row

    def add(self, row: int) -> None:
        """Let a text stand for those it is nearest to."""
        import numpy as np

        np.maximum(self.covered_N, self._benefit(row), out=self.covered_N)

    def _benefit(self, row: int) -> "NDArray[np.float64]":
        return self.vectors.similarities(row) * float(self.quality_N[row])


def _pick_facility(vectors: "Vectors", quality_N: "NDArray[np.float64]", count: int) -> list[int]:
    coverage = _Coverage(vectors, quality_N)
    picks = _picks_lazily(coverage) if len(vectors) <= MOST_EXACT else _picks_of_samples(coverage, count)
    return list(islice(picks, count))


def _picks_lazily(coverage: _Coverage) -> Iterator[int]:
    """Yield the best text each time; one is measured anew only while its old gain is above all others."""
    bounds = coverage.bounds
    heapq.heapify(bounds)
    while bounds:
        now = coverage.measure(bounds[0][-1])
        if now <= min(bounds[1:3], default=now):  # the heap's next best is one of its second and third
            heapq.heappop(bounds)
            coverage.add(now[-1])
            yield now[-1]
        else:
            heapq.heapreplace(bounds, now)


def _picks_of_samples(coverage: _Coverage, count: int) -> Iterator[int]:
    """Yield the best text of a sample of those left each time: 1 - 1/e - SLACK of the best in expectation."""
    bounds, left = coverage.bounds, list(range(len(coverage.bounds)))
    random, size = Random(f"diverse/{len(left)}/{count}"), ceil(len(left) / count * -log(SLACK))
    while left:
        best: Bound | None = None
        for bound in sorted(bounds[row] for row in random.sample(left, min(size, len(left)))):
            if best is not None and best <= bound:
                break
            bounds[bound[-1]] = now = coverage.measure(bound[-1])
            best = now if best is None else min(best, now)
        assert best is not None, "a sample is never empty"
        coverage.add(best[-1])
        left.remove(best[-1])
        yield best[-1]


def _pick_farthest(vectors: "Vectors", quality_N: "NDArray[np.float64]", count: int) -> list[int]:
    import numpy as np

    nearest_N = np.zeros(len(vectors))
    left_N = np.ones(len(vectors), dtype=bool)
    picked: list[int] = []
    for _ in range(count):
        worth_N = np.where(left_N, np.round(quality_N * np.maximum(1 - nearest_N, 0), DIGITS), -1.0)
        equals = np.flatnonzero(worth_N == worth_N.max())
        row = int(equals[np.argmax(quality_N[equals])])
        picked.append(row)
        left_N[row] = False
        np.maximum(nearest_N, vectors.similarities(row), out=nearest_N)
    return picked


# --- vectors


@dataclass(frozen=True, slots=True)
class Vectors:
    """TF-IDF vectors of length 1, kept sparse twice: the terms of each row, and the rows of each term."""

    rows: "list[tuple[NDArray[np.int64], NDArray[np.float64]]]"
    """Terms and weights of each text; none of a text without a word."""
    terms: "list[tuple[NDArray[np.int64], NDArray[np.float64]]]"
    """Texts and weights of each term."""

    def __len__(self) -> int:
        return len(self.rows)

    def similarities(self, row: int) -> "NDArray[np.float64]":
        """Return the cosine of one text with every text, 0 to 1."""
        import numpy as np

        cosine_N = np.zeros(len(self))
        for term, weight in zip(*self.rows[row], strict=True):
            others, weights = self.terms[term]
            cosine_N[others] += weight * weights
        return cosine_N

    def total(self, rows: Sequence[int] | None = None) -> "NDArray[np.float64]":
        """Return the sum of all vectors, or of some."""
        import numpy as np

        total_T = np.zeros(len(self.terms))
        for row in range(len(self)) if rows is None else rows:
            terms, weights = self.rows[row]
            total_T[terms] += weights
        return total_T

    def spread(self, rows: Sequence[int]) -> float | None:
        """Return the mean cosine distance of two of the rows, None for fewer than two.

        A text without a word is unlike every other.
        """
        if len(rows) < 2:
            return None
        squares = sum(float(self.rows[row][1] @ self.rows[row][1]) for row in rows)
        return _mean_distance(float((self.total(rows) ** 2).sum()), squares, len(rows))

    def dot(self, vector_T: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the inner product of every text with a vector."""
        import numpy as np

        product_N: NDArray[np.float64] = np.array([weights @ vector_T[terms] for terms, weights in self.rows])
        return product_N


def build_vectors(texts: Sequence[str]) -> Vectors:
    """Return the vectors of the texts: (1 + ln count) (1 + ln((1 + N) / (1 + texts with the word))), to length 1."""
    import numpy as np

    counts = [Counter(words(text)) for text in texts]
    held_by = Counter(word for count in counts for word in count)
    number = {word: place for place, word in enumerate(sorted(held_by))}
    rarity_T = 1 + np.log((1 + len(texts)) / (1 + np.array([held_by[word] for word in number], dtype=np.float64)))
    rows = [_vector(count, number, rarity_T) for count in counts]
    return Vectors(rows, _turned(rows, len(number)))


def _vector(
    count: Counter[str], number: dict[str, int], rarity_T: "NDArray[np.float64]"
) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
    import numpy as np

    terms = np.array(sorted(number[word] for word in count), dtype=np.int64)
    found = {number[word]: times for word, times in count.items()}
    weights = (1 + np.log([found[term] for term in terms.tolist()])) * rarity_T[terms]
    heaviest = np.argsort(-weights, kind="stable")[:MOST_TERMS]
    share = np.cumsum(weights[heaviest] ** 2) / max(1e-9, float((weights**2).sum()))
    kept = np.sort(heaviest[: int(np.searchsorted(share, LEAST_SHARE)) + 1])
    terms, weights = terms[kept], weights[kept]
    return terms, weights / np.sqrt((weights**2).sum()) if len(weights) else weights


def _turned(
    rows: "Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]]", terms: int
) -> "list[tuple[NDArray[np.int64], NDArray[np.float64]]]":
    """Return, for each term, the rows that hold it with its weight there."""
    import numpy as np

    if not rows or not terms:
        return []
    flat_Z = np.concatenate([row for row, _ in rows])
    weight_Z = np.concatenate([weights for _, weights in rows])
    holder_Z = np.repeat(np.arange(len(rows)), [len(row) for row, _ in rows])
    order = np.argsort(flat_Z, kind="stable")
    cuts = np.cumsum(np.bincount(flat_Z, minlength=terms))[:-1]
    return list(zip(np.split(holder_Z[order], cuts), np.split(weight_Z[order], cuts), strict=True))
