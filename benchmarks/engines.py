"""The engines side by side: the same bytes wherever the work is done, and nothing lost when a worker is killed.

Takes: nothing; rows are made up, the embedded pairs and documents are read.
Gives: each figure beside the asked one, in a few minutes.
Never: types a figure in, or ends a process that it did not start.

    OMP_NUM_THREADS=1 python -m benchmarks.engines --check
"""

import argparse
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from askback import api, pipeline
from askback.config import check_options
from askback.embedded import DEMO
from askback.engines.cluster import open_spread
from askback.engines.echo import EchoEngine
from askback.options import AugmentOptions, BackwardOptions, EngineOptions, Options
from askback.ports import Engine, Task, Work
from askback.ranks import hold
from askback.records import Pair, Passage, content_id
from askback.steps import Silent
from askback.store import Step, file_hash, map_step
from askback.tasks import Asking, fit_model, layout_for
from benchmarks.figures import Figure, add_flags, show
from benchmarks.plan import measure_plan

ROWS = 10_000
SHARD_ROWS = 64
KILLS = 20
CLUSTER = {"address": "local", "workers": 2, "cpus": 0.5}


def figures(only: Sequence[str]) -> Iterator[Figure]:
    """Yield the figures of each group asked for."""
    groups = {"ray": measure_same_bytes, "kills": measure_kills, "plan": measure_plan}
    return chain.from_iterable(groups[name]() for name in (only or groups))


# --- the same bytes


def measure_same_bytes() -> Iterator[Figure]:
    """Do the demo's steps with the echo engine here and over two Ray workers, and compare every Parquet part."""
    with tempfile.TemporaryDirectory(prefix="askback-") as name:
        here = do_steps(echo_demo(), Path(name) / "here")
        there = do_steps(echo_demo(cluster=CLUSTER), Path(name) / "there")
    yield Figure("parts of the demo's steps, with the echo engine", len(here))
    differing = {part for part, _ in here.items() ^ there.items()}
    yield Figure("local and Ray with two workers: parts that differ", len(differing), 0, at_most=True)


def echo_demo(**engine: Any) -> Options:
    """Return the options of the demo with the echo engine, in shards small enough for there to be some."""
    curate = {"keep_top": 0.5, "min_kept": 2}
    table = {"kind": "echo", "base": "echo", "shard_rows": 16, **engine}
    return check_options({**DEMO, "curate": curate, "engine": table}, "the benchmark")


def do_steps(options: Options, out: Path) -> dict[str, str]:
    """Do the steps of a run; return the hash of each part."""
    engine = EchoEngine(options.engine)
    with hold(out) as (held, make_steps), api.spread_of(options.engine, engine) as spread:
        pipeline.run(options, held, engine, Silent(), spread, make_steps)
    return {str(part.relative_to(out)): file_hash(part) for part in sorted(out.glob("*/part-*.parquet"))}


# --- workers killed


@dataclass(frozen=True)
class Marked:
    """A task whose workers leave a file with their process number, so that they can be found."""

    task: Task
    marks: Path

    def open(self, engine: Engine) -> Work:
        """Return the work."""
        work: Work = self.task.open(engine)

        def marked(rows: list[Any]) -> Iterable[Any]:
            (self.marks / str(os.getpid())).touch()
            return work(rows)

        return marked

    def give_up(self, row: Any, reason: str, detail: str) -> Iterable[Any]:
        """Return what the task itself says."""
        return self.task.give_up(row, reason, detail)


def measure_kills() -> Iterator[Figure]:
    """Augment made-up passages over two Ray workers, of which one is killed after every few shards."""
    options = check_options({"engine": {"kind": "echo", "base": "echo", "cluster": CLUSTER}}, "the benchmark").engine
    with tempfile.TemporaryDirectory(prefix="askback-") as name:
        folder = Path(name)
        task = Asking(model=write_model(folder / "model", options), options=AugmentOptions(), seed=0)
        alone = task.open(EchoEngine(options))(list(passages()))
        killer = Killer(folder / "marks")
        step = Step(folder / "06-candidates", Pair, {})
        step.begin()
        with open_spread(options) as spread:
            map_step(
                step,
                passages(),
                lambda blocks: spread(Marked(task, killer.marks), blocks),
                shard_rows=SHARD_ROWS,
                advance=killer.see,
            )
        manifest = step.finish({})
        found = Counter(row.id for row in step.read()) + Counter(row["id"] for row in step.rejects())
        wanted = Counter(outcome.id for outcome in alone)
    yield Figure("Ray workers killed", killer.killed, KILLS)
    wrong = sum(abs(found[id] - wanted[id]) for id in found | wanted)
    yield Figure(f"rows lost or doubled of {ROWS:,} augmented meanwhile", wrong, 0, at_most=True)
    yield Figure("rows given up", manifest.reasons.get("killed_worker", 0), 0, at_most=True)


class Killer:
    """Kills a worker whenever so many rows more are done, until enough were killed."""

    def __init__(self, marks: Path) -> None:
        self.marks = marks
        self.rows = 0
        self.killed = 0
        marks.mkdir()

    def see(self, rows: int) -> None:
        """Count rows, and kill one of the workers that left a mark if it is time."""
        self.rows += rows
        if self.killed >= KILLS or self.rows < (self.killed + 1) * ROWS / (KILLS + 1):
            return
        for mark in sorted(self.marks.iterdir(), key=lambda file: file.stat().st_mtime_ns, reverse=True):
            mark.unlink()
            with suppress(ProcessLookupError):
                os.kill(int(mark.name), signal.SIGKILL)
                self.killed += 1
                return


def write_model(folder: Path, options: EngineOptions) -> Path:
    """Write a backward model of the echo engine, which is a note; return its folder."""
    table = BackwardOptions()
    pairs = [Pair(id="pair", instruction="Why do tides rise?", output="The moon pulls.")]
    fit_model(EchoEngine(options), pairs, layout_for("backward", table), table, folder, seed=0)
    return folder


def passages() -> Iterator[Passage]:
    """Yield made-up passages, each of them different."""
    blank = Passage(id="", document="made-up", heading="", text="", start=0, end=0)
    for number in range(ROWS):
        id = content_id("engines", str(number))
        yield replace(blank, id=id, text=f"Harbour {id} keeps lantern, anchor, compass and timber number {number}.")


def main() -> None:
    """Measure and print; with --check, fail if a figure falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("ray", "kills", "plan"), default=(), help="groups (default: all)")
    add_flags(parser)
    given = parser.parse_args()
    show(figures(given.only), given, "engines")


if __name__ == "__main__":
    main()
