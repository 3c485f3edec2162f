"""A whole run in seconds: written inputs, the echo engine, a clock that stands still. Also a script that gets killed.

Takes: a folder.  Gives: inputs, options and finished run folders that are the same bytes every time.
Never: loads a model, or measures anything.

As a script it imports everything once and forks a process for each run, which may die on purpose:

    python small_run.py points INPUTS OUT STRIDE    die at every STRIDE-th rename or removal in turn, and go on
    python small_run.py change INPUTS OUT STRIDE    the same while a finished run is redone with other options
    python small_run.py back INPUTS OUT STRIDE      the same, but go back to the options of the finished run
    python small_run.py publish INPUTS OUT STRIDE   the same while a finished run is published once more
    python small_run.py kills INPUTS OUT COUNT      SIGKILL the process group at random moments, and go on
    python small_run.py slow INPUTS OUT 0           run the command slowly, waiting for a signal
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from askback.config import load_options
from askback.options import Options

WORDS = """
anchor bramble cobalt compass dolphin ember falcon glacier granite harbour hollow island juniper kettle lantern lattice
marble meadow nectar obsidian orchard pebble quarry ribbon saddle thunder timber umbrella valley velvet willow yonder
"""
Work = Callable[[Path], Any]
"""Something done in a run folder."""
SETTINGS = (
    *("engine.kind=echo", "engine.shard_rows=4", "random_seed=3", "seed.held_out=0.25"),
    *("curate.keep_top=0.7", "curate.min_kept=2", "evaluate.bootstrap=100", "evaluate.retrieval_of=3"),
)


def write_inputs(folder: Path, *, documents: int = 30, pairs: int = 40) -> Path:
    """Write documents of one passage each and seed pairs; return the folder."""
    random = Random(5)

    def sentence(words: int) -> str:
        return f"{' '.join(random.choices(WORDS.split(), k=words))}.".capitalize()

    def text(sentences: int) -> str:
        return " ".join(sentence(12) for _ in range(sentences))

    (folder / "docs").mkdir(parents=True)
    for number in range(documents):
        page = f"# About {sentence(3)}\n\n{text(9)}\n"
        (folder / "docs" / f"{number:02}.md").write_text(page, encoding="utf-8")
    rows = [{"instruction": f"Explain {sentence(4)}", "output": text(3)} for _ in range(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def settings(inputs: Path, *more: str) -> list[str]:
    """Return the settings of a small run, as `--set` takes them."""
    return [f"seed.path={inputs / 'pairs.jsonl'}", f"corpus.path={inputs / 'docs'}", *SETTINGS, *more]


def small_options(inputs: Path, *more: str) -> Options:
    """Return the options of a small run; `more` are settings laid over them."""
    return load_options(None, settings(inputs, *more))


@contextmanager
def still() -> Iterator[None]:
    """Stop the clock, the meter and edits of the source: two runs are then the same bytes, without any exception."""

    @contextmanager
    def unmeasured(file: Path, *, country: str) -> Iterator[None]:
        yield

    clock = SimpleNamespace(monotonic=lambda: 0.0)
    with ExitStack() as stack:
        stack.enter_context(mock.patch("askback.meter.measured", unmeasured))
        stack.enter_context(mock.patch("askback.steps.time", clock))
        stack.enter_context(mock.patch("askback.pipeline.code", lambda *modules: ",".join(modules)))
        yield


def do_run(options: Options, out: Path, show: Any = None) -> Path:
    """Do a whole run, published."""
    from askback import api

    with still():
        return api.run(options, out, show=show)


def do_steps(options: Options, out: Path, show: Any = None) -> None:
    """Do the steps of a run without publishing them."""
    from askback import pipeline, steps
    from askback.engines.echo import EchoEngine
    from askback.store import open_run

    with still(), open_run(out) as held:
        pipeline.run(options, held, EchoEngine(options.engine), show or steps.Silent())


def snapshot(folder: Path) -> dict[str, str]:
    """Return every file of a run with the hash of its bytes; only the lock, which names a process, is left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def differences(folder: Path, undisturbed: dict[str, str]) -> list[str]:
    """Return the files that differ from those of an undisturbed run, or that only one of the two has."""
    return sorted({name for name, _ in snapshot(folder).items() ^ undisturbed.items()})


# --- the script: processes that die


def forked(work: Callable[[], Any]) -> int:
    """Start a process, in a group of its own, that does the work and nothing after it; return its id."""
    if child := os.fork():
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        work()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def ended(process: int) -> bool:
    """Wait for a process; return whether it came to its end, and not to a killer's.

    Raises:
        RuntimeError: it failed.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run failed with status {status}")
    return status == 0


def die_at(point: int) -> None:
    """Make this process kill itself just before its `point`-th rename or removal of a file."""
    points = count(1)

    def dying(call: Callable[..., None]) -> Callable[..., None]:
        def called(*args: Any, **kwargs: Any) -> None:
            if next(points) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args, **kwargs)

        return called

    os.replace, os.unlink = dying(os.replace), dying(os.unlink)


def runs_until(point: int, work: Work, out: Path) -> bool:
    """Do the work in a process that dies at a point; return whether it came to its end before."""

    def until() -> None:
        die_at(point)
        work(out)

    return ended(forked(until))


def sweep(out: Path, dying: Work, going_on: Work, *, start: Work | None = None, stride: int) -> dict[str, Any]:
    """Die at every `stride`-th point in turn and go on; return the last point and the files that came out otherwise.

    `start` is what was finished before in the same folder.
    """
    ended(forked(lambda: going_on(out / "undisturbed")))
    undisturbed, wrong = snapshot(out / "undisturbed"), {}
    if start:
        ended(forked(lambda: start(out / "start")))
    for point in count(1, stride):
        folder = out / "killed"
        if start:
            shutil.copytree(out / "start", folder)
        over = runs_until(point, dying, folder)
        ended(forked(lambda folder=folder: going_on(folder)))
        if found := differences(folder, undisturbed):
            wrong[point] = found
        shutil.rmtree(folder)
        if over:
            return {"points": point, "wrong": wrong}
    raise AssertionError("a count has no end")


def sweep_points(inputs: Path, out: Path, stride: int) -> dict[str, Any]:
    """Die at the points of a run that starts from nothing."""
    steps = partial(do_steps, small_options(inputs, "curate.rounds=1"))
    return sweep(out, steps, steps, stride=stride)


def sweep_publish(inputs: Path, out: Path, stride: int) -> dict[str, Any]:
    """Die at the points of publishing a finished run once more."""
    publish = partial(do_run, small_options(inputs, "curate.rounds=1"))
    return sweep(out, publish, publish, start=publish, stride=stride)


def sweep_change(inputs: Path, out: Path, stride: int) -> dict[str, Any]:
    """Die at the points of a run that redoes a finished one with other options, and go on with those."""
    first, other = changed_steps(inputs)
    return sweep(out, other, other, start=first, stride=stride)


def sweep_back(inputs: Path, out: Path, stride: int) -> dict[str, Any]:
    """Die as `sweep_change` does, but go back to the options of the finished run."""
    first, other = changed_steps(inputs)
    return sweep(out, other, first, start=first, stride=stride)


def changed_steps(inputs: Path) -> tuple[Work, Work]:
    """Return the steps of two run files that part ways at kept-1, and of which the second has a round more."""
    first, other = small_options(inputs, "curate.rounds=1"), small_options(inputs, "curate.keep_top=0.5")
    return partial(do_steps, first), partial(do_steps, other)


def kill_at_random(inputs: Path, out: Path, times: int) -> dict[str, Any]:
    """Kill published runs, each at a moment of its own, and go on; return how many were killed in time."""
    options = small_options(inputs)
    began = time.monotonic()
    ended(forked(lambda: do_run(options, out / "undisturbed")))
    duration_s = time.monotonic() - began
    undisturbed, wrong, killed = snapshot(out / "undisturbed"), {}, 0
    for seed in range(times):
        folder = out / f"killed-{seed}"
        process = forked(lambda folder=folder: do_run(options, folder))
        time.sleep(duration_s * Random(seed).random())
        os.killpg(process, signal.SIGKILL)
        killed += not ended(process)
        ended(forked(lambda folder=folder: do_run(options, folder)))
        if found := differences(folder, undisturbed):
            wrong[seed] = found
    return {"killed": killed, "wrong": wrong}


def run_slowly(inputs: Path, out: Path) -> None:
    """Run the command with an engine that takes half a second for each reply."""
    from askback import cli
    from askback.engines.echo import EchoEngine
    from askback.ports import Generate

    quick = EchoEngine.generate

    def slow(engine: EchoEngine, model: Path | None = None) -> Generate:
        def call(asks: Any, sampling: Any) -> Iterator[Any]:
            for reply in quick(engine, model)(asks, sampling):
                time.sleep(0.5)
                yield reply

        return call

    given = [part for setting in settings(inputs) for part in ("--set", setting)]
    with still(), mock.patch.object(EchoEngine, "generate", slow):
        cli.main(["run", "--out", str(out), *given])


def import_everything() -> None:
    """Load what a run needs before forking, so that no process pays for it again."""
    for name in ("api", "cards", "engines.echo", "publish", "readers.documents", "readers.seed", "stages.report"):
        import_module(f"askback.{name}")
    for name in ("matplotlib.backends.backend_svg", "pyarrow.parquet", "rouge_score.rouge_scorer", "sacrebleu.metrics"):
        import_module(name)


if __name__ == "__main__":
    what, inputs, out, number = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if what == "slow":
        run_slowly(inputs, out)
    import_everything()
    sweeps = {"points": sweep_points, "change": sweep_change, "back": sweep_back, "publish": sweep_publish}
    disturb = {**sweeps, "kills": kill_at_random}[what]
    sys.stdout.write(json.dumps(disturb(inputs, out, number)))
