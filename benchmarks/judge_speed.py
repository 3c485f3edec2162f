"""One prefill judgement beside generate-and-parse: the same engine, the same rows, turn about.

Takes: how many rows.  Gives: rows per second of each way, and their ratios, each with its spread over the repeats.
Never: compares figures of different minutes: a ratio is taken within one repeat, in which every way had its turn.

On a CPU it is one thread, the precision the CPU is fast in, and the seconds this process computed: what else runs on
the machine counts for no way.

    python -m benchmarks.judge_speed --rows 24
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

from askback.embedded import SEED
from askback.engines.local import LocalEngine
from askback.engines.prefix import shared_length
from askback.options import EngineOptions, SeedOptions
from askback.ports import Ask, Choice, Prompt, Sampling
from askback.prompts import DIGITS, build_rubric, parse_score
from askback.readers.seed import read_seed
from askback.records import Pair

NEW_TOKENS = 128
REPEATS = 3
Way = Callable[[int], object]
"""Judges so many of the rows."""


def measure(rows: int, *, repeats: int = REPEATS) -> dict[str, Any]:
    """Return the speeds of four ways to judge, on the embedded base and its own pairs.

    prefix: one prefill judgement, the rubric read once; whole: the same, the rubric read for every row; written:
    reasons of 128 tokens are generated and parsed; stopped: the same, ended where the base ends them. So small a base
    ends them after a line; a judge that can weigh a text needs the tokens.

    `ratio` is prefix over written, `stopped_ratio` prefix over stopped, `prefix_ratio` prefix over whole: medians
    over the repeats, lowest and highest in `spread`.
    """
    engine = LocalEngine(EngineOptions(base="tiny", threads=1))
    outcomes = read_seed(SeedOptions(path=str(SEED), limit=rows)).outcomes
    pairs = [pair for pair in outcomes if isinstance(pair, Pair)]
    rubric = build_rubric()
    short = [rubric.prompt(pair, reasons=False) for pair in pairs]
    long = [Ask(rubric.prompt(pair, reasons=True)) for pair in pairs]
    ways: dict[str, Way] = {
        "prefix": lambda most: _choose(engine, short[:most], share=True),
        "whole": lambda most: _choose(engine, short[:most], share=False),
        "written": lambda most: _reason(engine, long[:most], stops=False),
        "stopped": lambda most: _reason(engine, long[:most], stops=True),
    }
    for way in ways.values():
        way(2)  # weights are read, the head is tried
    clock = time.process_time if engine.device.type == "cpu" else time.perf_counter
    seconds = _take_turns(ways, len(pairs), repeats, clock)
    return _summary(seconds, len(pairs)) | _describe(engine, short, _reason(engine, long, stops=True))


def _choose(engine: LocalEngine, prompts: Sequence[Prompt], *, share: bool) -> list[Choice | None]:
    engine.shares_prefixes = share
    return list(engine.choose()(prompts, DIGITS))


def _reason(engine: LocalEngine, asks: Sequence[Ask], *, stops: bool) -> list[tuple[int, float | None]]:
    """Return tokens and score of each reply; one that may not stop is written to the last of its tokens."""
    stop = engine.tokens.stop
    engine.tokens.stop = stop if stops else -1
    replies = list(engine.generate()(asks, Sampling(0.0, 1.0, NEW_TOKENS)))
    engine.tokens.stop = stop
    return [(reply.tokens, parse_score(reply.text)) for reply in replies]


def _take_turns(ways: dict[str, Way], rows: int, repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return seconds per way and repeat; each repeat begins with another way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            ways[name](rows)
            seconds[name].append(clock() - began)
    return seconds


def _summary(seconds: dict[str, list[float]], rows: int) -> dict[str, Any]:
    def over(slow: str, fast: str) -> list[float]:
        return [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]

    figures = {
        "ratio": over("written", "prefix"),
        "stopped_ratio": over("stopped", "prefix"),
        "prefix_ratio": over("whole", "prefix"),
        **{f"{name}_rows_per_s": [rows / spent for spent in found] for name, found in seconds.items()},
    }
    middle = {name: median(found) for name, found in figures.items()}
    return middle | {"spread": {name: (min(found), max(found)) for name, found in figures.items()}}


def _describe(
    engine: LocalEngine, prompts: Sequence[Prompt], replies: Sequence[tuple[int, float | None]]
) -> dict[str, Any]:
    """Return what the speeds depend on: how long the rows are, how much of them is shared, how much was written."""
    made = [engine.tokens.prompt(prompt, engine.max_tokens) for prompt in prompts]
    ids = [tuple(found[0]) for found in made if found is not None]
    return {
        "rows": len(prompts),
        "prompt_tokens": mean(map(len, ids)),
        "shared_tokens": shared_length(ids),
        "stopped_after_tokens": mean(tokens for tokens, _ in replies),
        "stopped_with_score": sum(score is not None for _, score in replies),
        "device": str(engine.device),
        "precision": engine.describe()["precision"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()
    print(json.dumps(measure(args.rows, repeats=args.repeats), indent=1))


if __name__ == "__main__":
    main()
