"""Laws of ranks: three processes over one folder are as good as one, and a lost one is lost work at most."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from askback.errors import ConfigError, Stopped
from askback.ports import Engine, Work, spread_here
from askback.ranks import SHARED, Rank, hold
from askback.records import Pair, Reject
from askback.steps import Silent, Steps
from small_run import do_run, settings, small_options, snapshot

QUICK = {"patience_s": 1.0}
CALM = {"patience_s": 6.0}


@dataclass(frozen=True)
class Shouting:
    """Writes instructions in capitals and rejects every third; `before` is called before each shard."""

    before: Callable[[], None] = lambda: None

    def open(self, engine: Engine) -> Work:
        return self.work

    def work(self, rows: list[Pair]) -> Iterator[Any]:
        self.before()
        for row in rows:
            if int(row.id) % 3:
                yield Pair(id=row.id, instruction=row.instruction.upper(), output=row.output)
            else:
                yield Reject(row.id, "third")

    def give_up(self, row: Pair, reason: str, detail: str) -> Iterable[Any]:
        return [Reject(row.id, reason, detail)]


def do(folder: Path, rank: Rank, task: Shouting, *, change: str = "") -> None:
    """Do two steps: some pairs are written, then shouted in shards of two."""
    with hold(folder, rank) as (held, make_steps):
        shout(make_steps(held, Silent(), spread_here(None), shard_rows=2), task, change)  # type: ignore[arg-type]


def shout(steps: Steps, task: Shouting, change: str = "") -> None:
    """Take and do both steps."""
    pairs = steps.step("pairs", Pair, options={})
    rows = [Pair(id=str(n), instruction="why", output="so") for n in range(15)]
    steps.do(pairs, lambda: steps.write(pairs, rows))
    steps.map(steps.step("shouted", Pair, options={"change": change}), pairs, task)


@contextmanager
def beside(*calls: Callable[[], Any]) -> Iterator[list[BaseException]]:
    """Do calls in threads of their own while the body runs; what they raise is in the list afterwards."""
    raised: list[BaseException] = []

    def kept(call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001
            raised.append(error)

    threads = [threading.Thread(target=kept, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    yield raised
    for thread in threads:
        thread.join()


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """What one process makes."""
    do(tmp_path / "alone", Rank(), Shouting())
    return rows_of(tmp_path / "alone")


def rows_of(folder: Path) -> dict[str, str]:
    """Return every file that does not hold seconds."""
    return {name: digest for name, digest in snapshot(folder).items() if not name.endswith("manifest.json")}


# --- shards go round


def test_followers_do_their_share_and_the_files_are_those_of_one_process(tmp_path: Path, alone: dict[str, str]) -> None:
    counts = [0, 0, 0]

    def counting(number: int) -> Shouting:
        def before() -> None:
            time.sleep(0.05)
            counts[number] += 1

        return Shouting(before)

    out = tmp_path / "run"
    ranks = [Rank(number=n, world=3, **CALM) for n in range(3)]
    with beside(*(partial(do, out, ranks[n], counting(n)) for n in (1, 2))) as raised:
        do(out, ranks[0], counting(0))
    assert raised == []
    assert counts == [3, 3, 2]
    assert rows_of(out) == alone


def test_a_rank_that_never_comes_is_not_waited_for(tmp_path: Path, alone: dict[str, str]) -> None:
    do(tmp_path / "run", Rank(world=3, **QUICK), Shouting())
    assert rows_of(tmp_path / "run") == alone


def test_a_shard_done_twice_is_taken_once_and_one_handed_in_too_late_is_thrown_away(
    tmp_path: Path, alone: dict[str, str]
) -> None:
    out = tmp_path / "run"
    is_over = threading.Event()
    late = Shouting(lambda: is_over.wait(10) and None)
    follow = partial(do, out, Rank(number=1, world=2, **CALM), late)
    with beside(follow) as raised, hold(out, Rank(world=2, **QUICK)) as (held, make_steps):
        shout(make_steps(held, Silent(), spread_here(None), shard_rows=2), Shouting())  # type: ignore[arg-type]
        is_over.set()
        time.sleep(0.5)
    assert raised == []
    assert rows_of(out) == alone


def test_a_leader_that_goes_on_takes_what_was_handed_in_before(tmp_path: Path, alone: dict[str, str]) -> None:
    out = tmp_path / "run"

    def die() -> None:
        while not list((out / SHARED).glob("*/shard-*")):
            time.sleep(0.01)
        raise KeyboardInterrupt

    follow = partial(do, out, Rank(number=1, world=2, **CALM), Shouting())
    with beside(follow) as raised, pytest.raises(KeyboardInterrupt):
        do(out, Rank(world=2, **QUICK), Shouting(die))
    assert [str(error) for error in raised] == [
        f"rank 0 (process {os.getpid()} on {os.uname().nodename}) ended before the run did; "
        "start all ranks again, and they go on from here"
    ]
    assert len(list((out / SHARED).glob("*/shard-*"))) == 4
    worked: list[int] = []
    do(out, Rank(world=2, **QUICK), Shouting(lambda: worked.append(1)))
    assert len(worked) == 4
    assert rows_of(out) == alone


# --- what a follower is told


def test_a_follower_without_a_leader_ends_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"rank 0 \(nobody in .*\) gave no sign of life for 0\.4 s"):
        do(tmp_path, Rank(number=1, world=2, patience_s=0.4), Shouting())
    assert list(tmp_path.iterdir()) == []


def test_a_follower_of_a_finished_run_finds_everything_done(tmp_path: Path) -> None:
    do(tmp_path, Rank(), Shouting())
    before = snapshot(tmp_path)
    do(tmp_path, Rank(number=1, world=2), Shouting(pytest.fail))
    assert snapshot(tmp_path) == before


def test_a_follower_with_other_options_is_told_which(tmp_path: Path) -> None:
    slow = Shouting(lambda: time.sleep(0.3))
    with beside(lambda: do(tmp_path, Rank(number=1, world=2, **CALM), Shouting(), change="yes")) as raised:
        do(tmp_path, Rank(world=2, **QUICK), slow)
    (error,) = raised
    assert isinstance(error, ConfigError)
    assert 'rank 1 would do 02-shouted otherwise than rank 0: options.change: "" -> "yes"' in str(error)


@pytest.mark.parametrize(("rank", "says"), [((2, 2, 1), "below the world"), ((-1, 2, 1), "from 0"), ((0, 1, 0), "sec")])
def test_an_impossible_rank_is_refused(rank: tuple[int, int, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Rank(number=rank[0], world=rank[1], patience_s=rank[2])


# --- whole runs in processes of their own

RUN = """
    import sys, time
    from unittest import mock
    from askback import cli
    from askback.engines.echo import EchoEngine
    from small_run import still
    quick = EchoEngine.generate
    def slow(engine, model=None):
        def call(asks, sampling):
            time.sleep({pause})
            yield from quick(engine, model)(asks, sampling)
        return call
    with still(), mock.patch.object(EchoEngine, "generate", slow):
        cli.main(sys.argv[1:])
"""


def start(out: Path, inputs: Path, rank: int, world: int, *, patience: float, pause: float = 0.0) -> Any:
    """Start `askback run` as one of several ranks."""
    given = [part for setting in settings(inputs) for part in ("--set", setting)]
    which = [f"--rank={rank}", f"--world={world}", f"--patience={patience}"]
    code = textwrap.dedent(RUN.format(pause=pause))
    words = [sys.executable, "-c", code, "run", f"--out={out}", *which, *given]
    found = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(words, env=found, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: Any) -> tuple[int, str]:
    """Wait for a process; return its status and the last line of what it said."""
    said = process.communicate(timeout=120)[1]
    return process.returncode, said.strip().splitlines()[-1]


@pytest.mark.slow
def test_three_processes_make_the_bytes_that_one_makes(few_inputs: Path, tmp_path: Path) -> None:
    do_run(small_options(few_inputs), tmp_path / "one")
    ranks = [start(tmp_path / "three", few_inputs, n, 3, patience=60) for n in range(3)]
    said = [ended(process) for process in ranks]
    assert [status for status, _ in said] == [0, 0, 0]
    assert said[2][1] == "rank 2 of 3 is done; rank 0 evaluates and writes the report"
    assert snapshot(tmp_path / "three") == snapshot(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_follower_holds_up_nothing(few_inputs: Path, tmp_path: Path) -> None:
    do_run(small_options(few_inputs), tmp_path / "one")
    leader, follower = (start(tmp_path / "two", few_inputs, n, 2, patience=4, pause=0.5) for n in range(2))
    until(lambda: any((tmp_path / "two" / SHARED).glob("*/shard-*")), leader)
    os.kill(follower.pid, signal.SIGKILL)
    assert ended(leader)[0] == 0
    follower.wait()
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_leader_ends_its_followers(few_inputs: Path, tmp_path: Path) -> None:
    leader, follower = (start(tmp_path / "two", few_inputs, n, 2, patience=4, pause=1.0) for n in range(2))
    until(lambda: any((tmp_path / "two" / SHARED).glob("*/shard-*")), leader)
    os.kill(leader.pid, signal.SIGKILL)
    leader.wait()
    status, said = ended(follower)
    assert status == Stopped.exit_code
    assert f"rank 0 (process {leader.pid} on " in said
    assert "gave no sign of life for 4 s; start all ranks again" in said


def until(what: Callable[[], bool], process: Any) -> None:
    """Wait for something while a process lives."""
    while not what():
        assert process.poll() is None, ended(process)
        time.sleep(0.02)
