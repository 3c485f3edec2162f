"""Near-duplicates planted in a made-up corpus, and how many of them are found, at what cost.

Takes: how many passages.  Gives: recall, precision, peak memory, passages per second, and how time grows.
Never: trusts what it measures: the overlap of every rejected passage is computed anew, on the words themselves.

    OMP_NUM_THREADS=1 python -m benchmarks.corpus_distinct --check

A passage is 60 to 120 words drawn from 30,000 by Zipf's law. One in five repeats an earlier one with 1 to 8 % of its
words changed, so that the two still overlap by `near`; one in twenty is changed so far that they do not. Any passage
can be made again from its number, so the corpus is held nowhere. The work is done in a process of its own, on one
thread, and its time is without the making of the passages.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from askback.options import DistinctOptions
from askback.records import Passage, Reject
from askback.stages.distinct import distinct
from benchmarks.figures import Figure, add_flags, show

COUNTS = (100_000, 1_000_000)
NEAR = DistinctOptions().near
VOCABULARY = 30_000
PLANTED, ALMOST = 0.20, 0.05
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
Words = list[str]


def measure(count: int) -> dict[str, Any]:
    """Return what came of `count` passages: shares from 0 to 1, seconds of wall and CPU, memory in MB."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rejects.jsonl"
        words = [sys.executable, "-m", "benchmarks.corpus_distinct", "--work", str(count), str(out)]
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | one_thread)
        cost: dict[str, Any] = json.loads(done.stdout)
        with out.open(encoding="utf-8") as lines:
            found = dict(json.loads(line) for line in lines)
    planted = {row for row in range(count) if is_planted(row)}
    apart = {row for row, of in found.items() if overlap(make(row).words, make(of).words) < NEAR}
    return cost | {
        "count": count,
        "planted": len(planted),
        "rejected": len(found),
        "recall": len(planted & found.keys()) / max(1, len(planted)),
        "precision": 1 - len(apart - planted) / max(1, len(found)),
        "named_wrongly": len(apart & planted),
        "passages_per_s": count / cost["wall_s"],
    }


def growth(small: dict[str, Any], large: dict[str, Any]) -> float:
    """Return how the CPU time grew over how n log n grows: 1 or less is no worse."""
    steps = [figures["count"] * math.log(figures["count"]) for figures in (small, large)]
    return float(large["cpu_s"] / small["cpu_s"] / (steps[1] / steps[0]))


def figures(counts: Sequence[int] = COUNTS) -> Iterator[Figure]:
    """Yield what is asked of near-duplicates, measured."""
    measured = [measure(count) for count in counts]
    for one in measured:
        name = f"{one['count']:,} passages"
        yield Figure(f"{name}: recall of planted near-duplicates", one["recall"], 0.95)
        yield Figure(f"{name}: precision of rejects", one["precision"], 0.99)
        yield Figure(f"{name}: peak memory, MB", one["peak_mb"], 1500, at_most=True)
        yield Figure(f"{name}: passages per second, one thread", one["passages_per_s"])
        yield Figure(f"{name}: CPU seconds", one["cpu_s"])
    if len(measured) > 1:
        yield Figure("growth of CPU time over growth of n log n", growth(measured[0], measured[-1]), 1, at_most=True)


# --- the corpus


class Made(NamedTuple):
    """A passage's words, and whether it was planted as a near-duplicate of an earlier one."""

    words: Words
    planted: bool


def make(row: int) -> Made:
    """Return the passage of a number; the same every time."""
    random = Random(row)
    kind = _kind(random, row)
    if kind == "new":
        return Made(_draw(random, random.randint(60, 120)), planted=False)
    original = random.randrange(row)
    while _kind(earlier := Random(original), original) != "new":
        original = random.randrange(row)
    source = _draw(earlier, earlier.randint(60, 120))
    if kind == "planted":
        return Made(_change_little(random, source), planted=True)
    changed = _change(random, source, round(len(source) * random.uniform(0.06, 0.2)) + 2, scattered=True)
    return Made(changed, planted=overlap(changed, source) >= NEAR)


def is_planted(row: int) -> bool:
    """Whether the passage of a number is near to an earlier one by design."""
    kind = _kind(Random(row), row)
    return kind == "planted" or (kind == "almost" and make(row).planted)


def overlap(one: Words, other: Words) -> float:
    """Return the Jaccard overlap of the word 5-grams of two passages."""
    mine, others = ({*zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)} for words in (one, other))
    return len(mine & others) / len(mine | others)


def _kind(random: Random, row: int) -> str:
    chance = random.random()
    if not row or chance >= PLANTED + ALMOST:
        return "new"
    return "planted" if chance < PLANTED else "almost"


def _draw(random: Random, length: int) -> Words:
    words, weights = _vocabulary()
    return random.choices(words, cum_weights=weights, k=length)


@cache
def _vocabulary() -> tuple[list[str], list[float]]:
    """Return the words and the sums of their weights."""
    n = len(SYLLABLES)
    words = ["".join(SYLLABLES[place // n**power % n] for power in range(3)) for place in range(VOCABULARY)]
    return words, list(accumulate(1 / (rank + 2.7) for rank in range(VOCABULARY)))


def _change_little(random: Random, source: Words) -> Words:
    """Change 1 to 8 % of the words, fewer where the overlap would fall below NEAR."""
    edits = max(1, round(len(source) * random.uniform(0.01, 0.08)))
    scattered = random.random() < 0.5
    while True:
        changed = _change(random, source, edits, scattered=scattered)
        if overlap(changed, source) >= NEAR:
            return changed
        edits = max(1, edits - 1)


def _change(random: Random, source: Words, edits: int, *, scattered: bool) -> Words:
    """Replace, insert or leave out so many words, here and there or all in one place."""
    words = [*source]
    first = random.randrange(len(words))
    for number in range(edits):
        place = random.randrange(len(words)) if scattered else min(first + number, len(words) - 1)
        kind = random.randrange(3)
        words[place : place + (kind != 1)] = _draw(random, 1) if kind != 2 else []
    return words


# --- the work, in a process of its own


def work(count: int, out: Path) -> dict[str, float]:
    """Sift the corpus; write (row, row of the survivor) of every reject, return the cost."""
    source = _Source(count)
    wall, cpu = time.perf_counter(), time.process_time()
    with out.open("w", encoding="utf-8") as file:
        for outcome in distinct(source.passages(), DistinctOptions(near=NEAR)):
            if isinstance(outcome, Reject):
                file.write(json.dumps([int(outcome.id), int(outcome.detail.split()[-1])]) + "\n")
    return {
        "wall_s": time.perf_counter() - wall - source.wall_s,
        "cpu_s": time.process_time() - cpu - source.cpu_s,
        "peak_mb": _peak_mb(),
    }


class _Source:
    """Makes the passages, and knows how long that took."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.wall_s = self.cpu_s = 0.0

    def passages(self) -> Iterator[Passage]:
        for row in range(self.count):
            wall, cpu = time.perf_counter(), time.process_time()
            text = " ".join(make(row).words)
            passage = Passage(id=str(row), document="d", heading="", text=text, start=0, end=len(text))
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu
            yield passage


def _peak_mb() -> float:
    """Return the most memory this process held, mapped files counted (`getrusage` would count the parent's too)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Show the figures; with --check, fail if one falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    add_flags(parser, writes=False)
    parser.add_argument("--work", nargs=2, metavar=("COUNT", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(int(given.work[0]), Path(given.work[1]))))
    else:
        show(figures(given.counts), given)


if __name__ == "__main__":
    main()
