"""Shards worked on by Ray actors that each hold an engine: the only file that names Ray.

Takes: EngineOptions with `cluster.address`, a Task and numbered shards.
Gives: a Spread: whole shards go out, what became of their rows comes back to this process, which alone writes.
Never: loses or doubles a row when a worker dies, or stops a cluster that it joined.

Ray's own retries are off: who works on what is decided here. A worker lives as long as one step, so that between steps
its memory is free for training. A shard whose worker ended is done again by another one; after `cluster.attempts` such
ends it is halved, again and again, until a single row has ended as many, and that row is given up by name.
"""

import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from askback import __version__
from askback.engines.device import cpus_at_hand
from askback.engines.open import open_engine
from askback.errors import ConfigError, DataError, borrow
from askback.options import EngineOptions
from askback.ports import Blocks, Spread, Task, Work
from askback.records import excerpt

GIVEN_UP = "killed_worker"
"""The reason of a row that nothing could work on."""
MOST_GIVEN_UP = 16
"""So many rows of one step may be given up, or one in a thousand: more is no fault of the rows."""
SLOWER = 4
"""A worker is not stuck before it has taken so many times as long as the slowest shard that was finished."""
OPEN_S = 600
"""Longest that opening an engine may take, and waiting for room in the cluster before that; or `stuck_s`, if longer."""
TICK_S = 1.0
STORE_BYTES = 256 << 20
"""Shared memory of a cluster that is started here: a few shards are on their way at any time."""


@contextmanager
def open_spread(options: EngineOptions, described: dict[str, Any] | None = None) -> Iterator[Spread]:
    """Join or start the cluster that `engine.cluster.address` names; inside, shards are worked on there.

    `described` is what the engine of this process says of itself: a worker whose engine would say otherwise is refused.

    Raises:
        ConfigError: no such cluster, no token for it, or no worker fits into it.
    """
    with _connected(options) as ray:
        wanted = count_workers(ray.cluster_resources(), options)

        def spread(task: Task, blocks: Blocks) -> Iterator[tuple[int, Iterable[Any]]]:
            crew = Crew(ray, options, task, wanted, described)
            try:
                yield from crew.do(blocks)
            finally:
                crew.dismiss()

        yield spread


def count_workers(resources: dict[str, float], options: EngineOptions) -> int:
    """Return how many workers are wanted of a cluster: as asked for, or as many as fit.

    Raises:
        ConfigError: not even one fits.
    """
    cluster = options.cluster
    needs = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    fits = min(int(resources.get(name, 0) / need) for name, need in needs.items() if need)
    if not fits:
        there = ", ".join(f"{resources.get(name, 0):g} {name}s" for name in needs)
        raise ConfigError(
            f"engine.cluster: a worker wants {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs, and the cluster has "
            f"{there}; change engine.cluster.cpus and engine.cluster.gpus"
        )
    return cluster.workers or fits


# --- the cluster


@contextmanager
def _connected(options: EngineOptions) -> Iterator[ModuleType]:
    """Yield Ray, connected; what this process started or joined it leaves again, and nothing else."""
    address = options.cluster.address
    starts = address == "local"
    with _token_of_our_own(starts):
        ray = borrow("ray", "cluster")
        if ray.is_initialized():  # the caller's own connection, which stays
            yield ray
            return
        ray._raylet.Config.initialize("")  # imported before, it has read the settings before; it does this itself too
        folder = tempfile.mkdtemp(prefix="askback-") if starts else None
        try:
            with _signals_kept():
                _init(ray, address, options, folder)
            _quieten(ray)
            yield ray
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def _init(ray: ModuleType, address: str, options: EngineOptions, folder: str | None) -> None:
    cluster = options.cluster
    ours: dict[str, Any] = {
        "include_dashboard": False,
        "num_cpus": max(cpus_at_hand(), math.ceil(cluster.workers * cluster.cpus)),
        "object_store_memory": STORE_BYTES,
        "_temp_dir": folder,
    }
    try:
        ray.init(address, log_to_driver=False, logging_level="critical", **(ours if folder else {}))
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(
            f"engine.cluster.address = {address!r}: {error}; `local` starts a cluster here, `auto` and HOST:PORT join "
            "one that `ray start --head` started with RAY_AUTH_MODE=token and a token that is known here too "
            "(`ray get-auth-token`), or else with RAY_AUTH_MODE=disabled in both places"
        ) from error


@contextmanager
def _token_of_our_own(starts: bool) -> Iterator[None]:
    """Have Ray ask for a token; a cluster that is started here gets one that no file holds."""
    given = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    if starts and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        given["RAY_AUTH_TOKEN"] = _token()
    added = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def _token() -> str:
    """Return the token of this process: Ray reads it once and keeps it."""
    return secrets.token_hex(32)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray puts a handler of its own in its place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _quieten(ray: ModuleType) -> None:
    """Keep Ray's own messages off standard output, which is for results: its debugger uses the same switch."""
    ray._private.worker._worker_logs_enabled = False


# --- a worker


class Worker:
    """The actor: opens an engine once, then works on shards."""

    def open(self, options: EngineOptions, task: Task, folder: str) -> dict[str, Any]:
        """Open engine and task as in the folder of the process that asks; return what the engine is."""
        if Path(folder).is_dir():
            os.chdir(folder)
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        engine = open_engine(options)
        self.work: Work = task.open(engine)
        return {"askback": __version__, **engine.describe()}

    def do(self, rows: list[Any]) -> list[Any]:
        """Return what became of the rows."""
        return list(self.work(rows))


@dataclass(slots=True)
class Piece:
    """A shard, or a part of one that ended too many workers."""

    number: int
    start: int
    rows: list[Any]
    most: int
    """Workers it may end before it is halved or given up."""
    ended: int = 0


@dataclass(slots=True, eq=False)
class Desk:
    """A worker, and what it is at; no piece while it opens its engine."""

    actor: Any
    answer: Any
    since: float
    piece: Piece | None = None


@dataclass(slots=True)
class Shard:
    """What is known of a shard that is being worked on."""

    left: int
    found: dict[int, list[Any]] = field(default_factory=dict)


class Crew:
    """The workers of one step. At most as many shards as there are workers are out at any time."""

    def __init__(
        self, ray: ModuleType, options: EngineOptions, task: Task, wanted: int, described: dict[str, Any] | None
    ) -> None:
        self.ray = ray
        self.cluster = options.cluster
        self.options = options.model_copy(update={"threads": options.threads or max(1, int(options.cluster.cpus))})
        self.task = task
        self.wanted = wanted
        self.described = described
        self.desks: list[Desk] = []
        self.waiting: deque[Piece] = deque()
        self.shards: dict[int, Shard] = {}
        self.done: list[int] = []
        self.unopened = 0
        self.last_words = ""
        self.slowest_s = 0.0
        self.rows_done = 0
        self.rows_given_up = 0

    def do(self, blocks: Blocks) -> Iterator[tuple[int, Iterable[Any]]]:
        """Yield every shard when all its rows have come back.

        Raises:
            AskbackError: the task raised it, on any worker.
            DataError: no worker can open the engine, or too many rows end their workers.
        """
        source = iter(blocks)
        while self._fill(source):
            self._hire()
            self._hand_out()
            self._listen()
            for number in self.done:
                found = self.shards.pop(number).found
                yield number, list(chain.from_iterable(found[start] for start in sorted(found)))
            self.done.clear()

    def dismiss(self) -> None:
        """End every worker."""
        for desk in self.desks:
            self.ray.kill(desk.actor)
        self.desks.clear()

    # --- shards out

    def _fill(self, source: Iterator[tuple[int, list[Any]]]) -> bool:
        """Read as many shards as workers are free for; return whether there is anything to do or to wait for."""
        busy = sum(desk.piece is not None for desk in self.desks)
        while len(self.waiting) + busy < self.wanted and (block := next(source, None)):
            number, rows = block
            self.shards[number] = Shard(len(rows))
            self.waiting.append(Piece(number, 0, rows, self.cluster.attempts))
        return bool(self.waiting or busy)

    def _hire(self) -> None:
        free = sum(desk.piece is None for desk in self.desks)
        actor_class = self.ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        for _ in range(min(self.wanted - len(self.desks), len(self.waiting) - free)):
            actor = actor_class.options(num_cpus=self.cluster.cpus, num_gpus=self.cluster.gpus).remote()
            opened = actor.open.remote(self.options, self.task, str(Path.cwd()))
            self.desks.append(Desk(actor, opened, time.monotonic()))

    def _hand_out(self) -> None:
        for desk in self.desks:
            if desk.answer is None and self.waiting:
                desk.piece = self.waiting.popleft()
                desk.answer = desk.actor.do.remote(desk.piece.rows)
                desk.since = time.monotonic()

    # --- outcomes back

    def _listen(self) -> None:
        """Hear from whoever has something to say, and end whoever has been silent for too long."""
        asked = {desk.answer: desk for desk in self.desks if desk.answer is not None}
        ready, _ = self.ray.wait(list(asked), num_returns=1, timeout=min(TICK_S, self.cluster.stuck_s / 4))
        for answer in ready:
            self._hear(asked[answer])
        stuck_s = max(self.cluster.stuck_s, SLOWER * self.slowest_s)
        for desk in [desk for desk in self.desks if desk.answer is not None]:
            patience_s = stuck_s if desk.piece else max(stuck_s, OPEN_S)
            if time.monotonic() - desk.since > patience_s:
                self._bury(desk, f"silent for {patience_s:.0f} s")

    def _hear(self, desk: Desk) -> None:
        """Take what a worker answers: an engine opened, outcomes, an error of the task, or that it is no more."""
        errors = self.ray.exceptions
        try:
            found = self.ray.get(desk.answer)
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RaySystemError):
                raise ConfigError(
                    f"engine.cluster: a worker cannot read what it was sent: {str(error.cause).splitlines()[0]}; "
                    f"want askback {__version__} and all it is used with there too"
                ) from error
            if not _is_out_of_memory(error.cause):
                raise error.cause from error
            self._bury(desk, "out of memory")
        except errors.OutOfMemoryError:
            self._bury(desk, "out of memory")
        except errors.RayError as error:
            self.last_words = str(error)
            self._bury(desk, "it died")
        else:
            desk.answer = None
            if desk.piece is None:
                self._check(found)
                self.unopened = 0
            else:
                self.slowest_s = max(self.slowest_s, time.monotonic() - desk.since)
                self._take(desk.piece, found)
                desk.piece = None

    def _check(self, described: dict[str, Any]) -> None:
        here = {"askback": __version__, **self.described} if self.described else described
        if other := [name for name in sorted({*here, *described}) if here.get(name) != described.get(name)]:
            said = "; ".join(f"{name}: here {here.get(name)!r}, there {described.get(name)!r}" for name in other)
            raise ConfigError(
                f"engine.cluster: a worker would do this otherwise than this process says it is done ({said}); "
                "set engine.precision and engine.revision, and let both have the same base"
            )

    def _take(self, piece: Piece, outcomes: list[Any]) -> None:
        shard = self.shards[piece.number]
        shard.found[piece.start] = outcomes
        shard.left -= len(piece.rows)
        self.rows_done += len(piece.rows)
        if not shard.left:
            self.done.append(piece.number)

    def _bury(self, desk: Desk, why: str) -> None:
        """Let a worker go for good, and have its piece done by another one."""
        self.ray.kill(desk.actor)
        self.desks.remove(desk)
        if desk.piece is None:
            self.unopened += 1
            if self.unopened >= self.cluster.attempts * self.wanted:
                raise DataError(
                    f"engine.cluster: {self.unopened} workers ended before they had opened the engine; "
                    f"the last: {why}. {excerpt(self.last_words, 1000)}"
                )
            return
        piece = desk.piece
        piece.ended += 1
        if piece.ended < piece.most:
            self.waiting.appendleft(piece)
        elif len(piece.rows) > 1:
            self.waiting.extendleft(reversed(self._halves(piece)))
        else:
            self._give_up(piece, why)

    def _halves(self, piece: Piece) -> list[Piece]:
        """Return both halves, which are suspects: one more end, and they are halved again."""
        middle = len(piece.rows) // 2
        cut = ((piece.start, piece.rows[:middle]), (piece.start + middle, piece.rows[middle:]))
        return [
            Piece(piece.number, start, rows, most=1 if len(rows) > 1 else self.cluster.attempts) for start, rows in cut
        ]

    def _give_up(self, piece: Piece, why: str) -> None:
        self.rows_given_up += 1
        if self.rows_given_up > max(MOST_GIVEN_UP, self.rows_done // 1000):
            raise DataError(
                f"{self.rows_given_up} rows ended {piece.ended} workers each (the last: {why}) and {self.rows_done} "
                "did not: this is no fault of single rows; look at the workers' memory, engine.shard_rows, "
                "engine.batch_tokens and engine.cluster.stuck_s"
            )
        said = f"ended {piece.ended} workers; the last: {why}"
        self._take(piece, list(self.task.give_up(piece.rows[0], GIVEN_UP, said)))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory gave out, of the machine or of a device (whose library has an error of that name)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
