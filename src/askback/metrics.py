"""How near two texts are, how sure a mean is, how well a score sorts: numbers for the report.

Takes: strings and floats.  Gives: floats, and intervals that carry the number of rows behind them.
Never: reads a file, knows a record or draws chance from anywhere but the caller's `seed`.

Every interval is a percentile bootstrap over rows at 95 % (Efron 1979). Where a figure is undefined (a correlation
with a constant, a curve over one class) the answer is None, never a number that looks like one.
"""

import re
import statistics
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CELLS_AT_ONCE = 4_000_000
"""Resamples times rows held in memory together."""

UNSPACED = (
    *(("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff")),  # Thai and Lao, Burmese, Khmer
    *(("\u3040", "\u30ff"), ("\u31f0", "\u31ff"), ("\uff66", "\uff9f")),  # kana
    *(("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff")),  # Han
)
"""Scripts written without spaces between words: there each character is a word."""

SMALL_TALK = (
    "about after also because been before being between both could does doing down each else ever every from have "
    "having here hers herself himself into itself just made make many more most much must myself once only other "
    "ours over please same shall should some such than that their theirs them then there these they this those "
    "through under until upon very want well were what when where which while whom whose will with within without "
    "would your yours yourself"
)
STOP_WORDS = frozenset(SMALL_TALK.split())

SENTENCE_END = re.compile(
    r"""
      (?<![.!?…]) [.!?…]++ ["'”’)\]]*+ (?= \s[^\sa-z] | $ )  # lower case goes on after "e.g."
    | [。！？]++ [」』”’）]*+
    """,
    re.VERBOSE,
)
LINE_MARK = re.compile(r"\s*(?:(?:#{1,6}|[-*+>]|\d{1,3}[.)])\s+)+")


@dataclass(frozen=True, slots=True)
class Score:
    """A figure over `n` rows and its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class CorpusScore(Score):
    """A score of a whole corpus; `signature` says how it was computed, in sacrebleu's words."""

    signature: str


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Mean of a - b over the same `n` rows, its 95 % interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


# --- text against text


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, resamples: int, seed: int) -> CorpusScore:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002; as standardised by Post 2018).

    Case is kept, tokens are those of `13a`, effective order is off: hypotheses without any 4-gram score 0.
    """
    from sacrebleu.metrics import BLEU

    return _corpus_score(BLEU(force=True), hypotheses, references, resamples, seed)


def chrf(hypotheses: Sequence[str], references: Sequence[str], *, resamples: int, seed: int) -> CorpusScore:
    """Corpus chrF2 over character 1- to 6-grams, 0 to 100 (Popović 2015); needs no word boundaries."""
    from sacrebleu.metrics import CHRF

    return _corpus_score(CHRF(), hypotheses, references, resamples, seed)


def rouge(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """F1 of rouge1, rouge2 and rougeL for each row, 0 to 100 (Lin 2004).

    Words are those of `words`, unstemmed: the tokenizer of `rouge_score` keeps a-z and 0-9 only, and so scores
    0 on every other script.
    """
    from rouge_score.rouge_scorer import RougeScorer

    _check_rows(hypotheses, references)
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, tokenizer=_Words())
    scores = [scorer.score(reference, text) for text, reference in zip(hypotheses, references, strict=True)]
    return {kind: [100.0 * float(score[kind].fmeasure) for score in scores] for kind in kinds}


def words(text: str) -> list[str]:
    """Return the words in lower case: runs of letters, marks and digits, or one character of an unspaced script."""
    text = unicodedata.normalize("NFKC", text).lower()
    return "".join(f" {char} " if _stands_alone(char) else char if _in_word(char) else " " for char in text).split()


def content_words(text: str) -> set[str]:
    """Return the words of more than three letters that are no stop words, plurals folded into singulars."""
    return {_singular(word) for word in words(text) if len(word) > 3 and word[0].isalpha() and word not in STOP_WORDS}


def copy_share(instruction: str, output: str) -> float:
    """Share of the instruction's content words that the output has too, 0 to 1; 0 where it has no content word.

    A high share is the mark of a request copied together from its own answer.
    """
    asked = content_words(instruction)
    return len(asked & content_words(output)) / len(asked) if asked else 0.0


def distinct_n(texts: Collection[str], n: int) -> float:
    """Distinct word n-grams over all n-grams of the texts, 0 to 1 (Li et al. 2016); 0 where there is none."""
    grams = [gram for text in texts for gram in _ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


# --- the two floors a backward model must clear


def first_sentence(text: str) -> str:
    """Return the first sentence without list or heading mark: the floor of copying the output's opening."""
    lines = text.strip().splitlines()
    if not lines:
        return ""
    opening = [LINE_MARK.sub("", lines[0], count=1)]
    for line in lines[1:]:
        if not line.strip() or LINE_MARK.match(line):
            break
        opening.append(line)
    sentence = " ".join(" ".join(opening).split())
    match = SENTENCE_END.search(sentence)
    return sentence[: match.end()] if match else sentence


def derangement(n: int, *, seed: int) -> list[int]:
    """Return a permutation of 0..n-1 in which nothing stays in place: the floor of a shuffled instruction.

    Drawn evenly from the permutations that are one single cycle (Sattolo 1986).

    Raises:
        ValueError: n is 1, where no such permutation exists.
    """
    if n == 1:
        raise ValueError("derangement: want no row or at least 2, got 1: a single row can only keep its own")
    order, random = list(range(n)), Random(seed)
    for last in range(n - 1, 0, -1):
        other = random.randrange(last)
        order[last], order[other] = order[other], order[last]
    return order


# --- how sure


def bootstrap_mean(values: Sequence[float], *, resamples: int, seed: int) -> Score:
    """Mean of the values with its bootstrap interval, in the values' own range."""
    _check_some(values, "bootstrap_mean")
    value = statistics.fmean(values)
    low, high = _interval(_resampled_sums([[v] for v in values], resamples, seed)[:, 0] / len(values), value)
    return Score(value, low, high, len(values))


def bootstrap_ratio(above: Sequence[float], below: Sequence[float], *, resamples: int, seed: int) -> Score | None:
    """Sum of `above` over sum of `below` (0 or more) of the same rows, with its interval; None where the latter is 0.

    Resamples in which `below` sums to 0 are left out.
    """
    _check_rows(above, below)
    value = sum(above) / sum(below) if sum(below) else None
    if value is None:
        return None
    sums_B2 = _resampled_sums(list(zip(above, below, strict=True)), resamples, seed)
    some = sums_B2[:, 1] > 0
    low, high = _interval(sums_B2[some, 0] / sums_B2[some, 1], value)
    return Score(value, low, high, len(above))


def paired_difference(a: Sequence[float], b: Sequence[float], *, resamples: int, seed: int) -> PairedTest:
    """Test whether two systems differ on the same rows: mean of a - b, and how often chance does as much.

    The p-value counts resampled means as far from the observed one as that is from zero (the shift method of
    Noreen 1989). Resampling few rows is too sure of itself, so p is never below 2^(1-n), the chance that n fair
    coins agree.
    """
    import numpy as np

    differences = [x - y for x, y in zip(a, b, strict=True)]
    score = bootstrap_mean(differences, resamples=resamples, seed=seed)
    means = _resampled_sums([[d] for d in differences], resamples, seed)[:, 0] / score.n
    as_far = int(np.count_nonzero(np.abs(means - score.value) >= abs(score.value)))
    p_value = max((as_far + 1) / (resamples + 1), 2.0 ** (1 - score.n))
    return PairedTest(score.value, score.low, score.high, p_value, score.n)


# --- how well a score sorts


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Chance that a true row outscores a false one, ties counting half, 0 to 1 (Mann and Whitney 1947).

    None where the labels are all alike.
    """
    _check_rows(scores, labels)
    true = sum(map(bool, labels))
    false = len(labels) - true
    if not true or not false:
        return None
    rank_sum = sum(rank for rank, label in zip(_ranks(scores), labels, strict=True) if label)
    return (rank_sum - true * (true + 1) / 2) / (true * false)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Correlation of the ranks, ties sharing theirs, -1 to 1 (Spearman 1904); None where one side is constant."""
    _check_rows(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return statistics.correlation(_ranks(a), _ranks(b))


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Count the values from each edge up to, not including, the next.

    The last edge belongs to the last bin, and what lies outside falls into the bin at that end: the counts always
    add up to the number of values.
    """
    if len(edges) < 2 or any(x >= y for x, y in pairwise(edges)):
        raise ValueError(f"histogram: want two or more rising edges, got {list(edges)}")
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return counts


# --- inner workings


class _Words:
    """The tokenizer object `rouge_score` asks for."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _stands_alone(char: str) -> bool:
    return char >= "\u0e00" and any(first <= char <= last for first, last in UNSPACED) and _in_word(char)


def _in_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")  # vowel signs are marks, not letters


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share the middle of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for at in order[start:stop]:
            ranks[at] = (start + 1 + stop) / 2
        start = stop
    return ranks


def _corpus_score(
    metric: Any, hypotheses: Sequence[str], references: Sequence[str], resamples: int, seed: int
) -> CorpusScore:
    """Score the corpus, and again for each resample of its rows.

    Both metrics are functions of sums over rows. sacrebleu keeps the rows' counts behind underscored names; to
    count again for every resample through the public ones would take minutes. A test holds both ways together.
    """
    _check_rows(hypotheses, references)
    value = float(metric.corpus_score(hypotheses, [references]).score)
    signature = str(metric.get_signature())
    counts = metric._extract_corpus_statistics(hypotheses, [references])
    sums = _resampled_sums(counts, resamples, seed).round().astype(int).tolist()
    low, high = _interval([float(metric._compute_score_from_stats(row).score) for row in sums], value)
    return CorpusScore(value, low, high, len(hypotheses), signature)


def _resampled_sums(rows: Sequence[Sequence[float]], resamples: int, seed: int) -> "NDArray[np.float64]":
    """Return each column's sum over every resample of the rows: N x K in, resamples x K out.

    How often each row is drawn is multinomial, which makes a resample one matrix product.
    """
    import numpy as np

    table_NK = np.asarray(rows, dtype=np.float64)
    n = len(table_NK)
    random = np.random.default_rng(seed)
    block = max(1, CELLS_AT_ONCE // n)
    sizes = [min(block, resamples - done) for done in range(0, resamples, block)]
    draws = (random.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64) for size in sizes)
    return np.concatenate([draw_BN @ table_NK for draw_BN in draws])


def _interval(resampled: "Sequence[float] | NDArray[np.float64]", value: float) -> tuple[float, float]:
    """Return the middle 95 %, stretched to hold the value itself where rounding or a bias left it just outside."""
    import numpy as np

    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [0.025, 0.975])
    return min(float(low), value), max(float(high), value)


def _check_rows(a: Sequence[Any], b: Sequence[Any]) -> None:
    if len(a) != len(b):
        raise ValueError(f"metrics: want two columns of one length, got {len(a)} and {len(b)} rows")
    _check_some(a, "metrics")


def _check_some(values: Sequence[Any], where: str) -> None:
    if not len(values):
        raise ValueError(f"{where}: want at least one row, got none")
