"""One run done by several processes over one folder, such as the tasks of a Slurm array.

Takes: a Rank, and the run folder that all ranks see.  Gives: the Steps of rank 0, which leads, or of one that follows.
Never: lets a follower write into a step, begin it or end it: it hands shards in, and the leader takes them.

    .shared/leader.json             who leads, a count that moves while it lives, the fingerprints of its steps
    .shared/STEP-FINGERPRINT/       there while the leader has shards of that very step done
        shard-00003/                one shard handed in whole: its part and its rejects

Shard n belongs to rank n % world. When the leader is done with its own and nothing new is handed in for a while, it
does what is missing, so a lost rank delays a run and never stops it. A shard done twice is taken once.
"""

import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from askback.errors import AskbackError, ConfigError, IntegrityError, Stopped
from askback.ports import Task
from askback.steps import Steps
from askback.store import Run, Step, drop_folder, map_step, open_run, read_json, sync_folder, write_json

SHARED = ".shared"
LEADER = "leader.json"
MOST_POLL_S = 1.0
MakeSteps = Callable[..., Steps]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Which of so many processes this one is."""

    number: int = 0
    world: int = 1
    patience_s: float = 120
    """Seconds without a sign of life after which others are given up."""

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.world:
            raise ConfigError(f"--rank {self.number} --world {self.world}: ranks count from 0 and end below the world")
        if not self.patience_s > 0:
            raise ConfigError(f"--patience {self.patience_s:g}: want seconds, more than 0")

    @property
    def leads(self) -> bool:
        """Whether this one holds the run."""
        return self.number == 0

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at the folder, and between two signs of life."""
        return min(MOST_POLL_S, self.patience_s / 20)


ALONE = Rank()


@contextmanager
def hold(folder: Path, rank: Rank = ALONE) -> Iterator[tuple[Run, MakeSteps]]:
    """Yield the run and what makes its Steps: a leader holds the folder's lock, a follower does not ask for it."""
    if not rank.leads:
        yield Run(folder), partial(Follower, rank=rank)
        return
    with open_run(folder) as held:
        if rank.world == 1:
            drop_folder(folder / SHARED)
            yield held, Steps
            return
        with _heartbeat(folder / SHARED, rank) as told:
            yield held, partial(Leader, rank=rank, told=told)
        drop_folder(folder / SHARED)


def _side(step: Step[Any]) -> Path:
    """Return where shards of just this step are handed in."""
    return step.folder.parent / SHARED / f"{step.folder.name}-{step.fingerprint}"


def handed_in(step: Step[Any], index: int) -> Path:
    """Return the folder of one shard that was handed in."""
    return _side(step) / f"shard-{index:05d}"


def _me() -> str:
    return f"process {os.getpid()} on {os.uname().nodename}"


# --- rank 0


@contextmanager
def _heartbeat(folder: Path, rank: Rank) -> Iterator[dict[str, str]]:
    """Write signs of life until the end; what is put into the yielded mapping (step -> fingerprint) is told with them.

    The file goes when this ends, however it ends: followers then know at once.
    """
    told: dict[str, str] = {}
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(rank.poll_s if count else 0):
            count += 1
            try:
                write_json(folder / LEADER, {"who": _me(), "count": count, "steps": dict(told)})
            except AskbackError:
                continue  # a full disk: the run itself will say so

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()
        (folder / LEADER).unlink(missing_ok=True)


class Leader(Steps):
    """The steps of rank 0: everything, but for the shards that others hand in."""

    def __init__(self, *given: Any, rank: Rank, told: dict[str, str], **named: Any) -> None:
        super().__init__(*given, **named)
        self.rank = rank
        self.told = told

    def step(self, name: str, record: type[Any], *, options: Any, **depends: Any) -> Step[Any]:
        """Return the next step, and let the followers know its fingerprint."""
        step = super().step(name, record, options=options, **depends)
        self.told[step.folder.name] = step.fingerprint
        return step

    def map(self, step: Step[Any], rows: Step[Any], task: Task) -> Step[Any]:
        """Do a step that is a map over shards, together with the followers."""

        def work() -> None:
            total = rows.manifest.written if rows.manifest else 0
            self.show.begin(step.folder.name, total, "rows")
            _side(step).mkdir(parents=True, exist_ok=True)
            arrived = Arrivals(step, total, self.shard_rows, self.show.advance)
            self._do_shards(arrived, rows, task, lambda index: index % self.rank.world == 0)
            while arrived.missing():
                if not self._is_helped(arrived):
                    self._do_shards(arrived, rows, task, lambda _: True)
            drop_folder(_side(step))

        return self.do(step, work)

    def _do_shards(self, arrived: "Arrivals", rows: Step[Any], task: Task, is_ours: Callable[[int], bool]) -> None:
        spread = self.spread
        map_step(
            arrived.step,
            rows.read(),
            lambda blocks: spread(task, blocks),
            shard_rows=self.shard_rows,
            advance=lambda _: None,
            wanted=lambda index: is_ours(index) and arrived.is_missing(index),
            put=arrived.put,
        )

    def _is_helped(self, arrived: "Arrivals") -> bool:
        """Whether somebody hands in a shard before patience ends: that of the run, or twice our own slowest shard."""
        patience_s = max(self.rank.patience_s, 2 * arrived.slowest_s)
        began, before = time.monotonic(), len(arrived.missing())
        while len(arrived.missing()) == before:
            if time.monotonic() - began > patience_s:
                return False
            time.sleep(self.rank.poll_s)
        return True


class Arrivals:
    """Which shards of a step are there, and how those that were handed in come into its folder."""

    def __init__(self, step: Step[Any], rows: int, shard_rows: int, advance: Callable[[int], None]) -> None:
        self.step = step
        self.sizes = {n: min(shard_rows, rows - n * shard_rows) for n in range(math.ceil(rows / shard_rows))}
        self.advance = advance
        self.slowest_s = 0.0
        self.since = time.monotonic()

    def missing(self) -> dict[int, int]:
        """Take in what was handed in; return the shards that are not there yet, with their rows."""
        for handed in sorted(_side(self.step).glob("shard-*")):
            self._take(handed, int(handed.name.removeprefix("shard-")))
        there = {int(path.stem.removeprefix("part-")) for path in self.step.parts()}
        self.advance(sum(self.sizes.pop(index) for index in there & self.sizes.keys()))
        return self.sizes

    def is_missing(self, index: int) -> bool:
        """Whether one shard is neither there nor handed in."""
        return index in self.sizes and not self.step.part(index).exists() and not handed_in(self.step, index).exists()

    def put(self, index: int, outcomes: Iterable[Any]) -> None:
        """Write a shard that was done here."""
        self.step.write_part(index, outcomes)
        self.slowest_s = max(self.slowest_s, time.monotonic() - self.since)
        self.since = time.monotonic()
        self.missing()

    def _take(self, handed: Path, index: int) -> None:
        """Move the rejects in, then the part, whose name commits both."""
        part = self.step.part(index)
        if not part.exists():
            for file in (handed / self.step.rejects_of(index).name, handed / part.name):
                if file.exists():  # moved already, by a leader that was killed here
                    file.replace(self.step.folder / file.name)
            sync_folder(self.step.folder)
        shutil.rmtree(handed)


# --- the others


class Follower(Steps):
    """The steps of a rank above 0: it reads what the leader finished, and hands in its share of the shards."""

    follows = True

    def __init__(self, *given: Any, rank: Rank, **named: Any) -> None:
        super().__init__(*given, **named)
        self.rank = rank
        self.leader = Ear(self.held.folder / SHARED / LEADER, rank)

    def do(self, step: Step[Any], work: Callable[[], Any], *, unit: str = "rows") -> Step[Any]:
        """Wait until the leader has done the step."""
        self._wait(step, lambda: step.is_done)
        if done := step.manifest:
            self.show.end(done, reused=True)
        return step

    def map(self, step: Step[Any], rows: Step[Any], task: Task) -> Step[Any]:
        """Do our share of the shards once the leader has begun this very step, then wait for its end."""
        self._wait(step, lambda: step.is_done or _side(step).is_dir())
        if not step.is_done:
            self.show.begin(step.folder.name, 0, "rows")
            spread = self.spread
            map_step(
                step,
                rows.read(),
                lambda blocks: spread(task, blocks),
                shard_rows=self.shard_rows,
                advance=self.show.advance,
                wanted=lambda index: index % self.rank.world == self.rank.number and self._is_missing(step, index),
                put=lambda index, outcomes: self._hand_in(step, index, outcomes),
            )
        return self.do(step, lambda: None)

    def drop_others(self) -> None:
        """Remove nothing: that is the leader's."""

    def _is_missing(self, step: Step[Any], index: int) -> bool:
        return _side(step).is_dir() and not step.part(index).exists() and not handed_in(step, index).exists()

    def _hand_in(self, step: Step[Any], index: int, outcomes: Iterable[Any]) -> None:
        """Write a shard aside and rename it to where the leader looks; too late, it is thrown away."""
        aside = self.held.folder / SHARED / f".rank-{self.rank.number}-{_me().replace(' ', '-')}.part"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            step.write_part(index, outcomes, into=aside)
            aside.rename(handed_in(step, index))
        except (OSError, AskbackError):
            if self._is_missing(step, index):
                raise
            shutil.rmtree(aside, ignore_errors=True)  # the step is over, or the shard is there

    def _wait(self, step: Step[Any], until: Callable[[], bool]) -> None:
        while True:
            is_there = until()
            try:
                self.leader.listen()
            except Stopped:
                if is_there or until():  # it may all have been done in the meantime
                    return
                raise
            if is_there:
                return
            other = self.leader.steps.get(step.folder.name, step.fingerprint)
            if other != step.fingerprint:
                changed = "; ".join(step.changed()) or "see the run files and the versions of both"
                name = step.folder.name
                raise ConfigError(f"rank {self.rank.number} would do {name} otherwise than rank 0: {changed}")
            time.sleep(self.rank.poll_s)


class Ear:
    """What is heard of the leader."""

    def __init__(self, file: Path, rank: Rank) -> None:
        self.file = file
        self.rank = rank
        self.steps: dict[str, str] = {}
        """Step -> fingerprint, as told by a leader that is alive."""
        self._said: dict[str, Any] = {}
        self._since = time.monotonic()
        self._is_alive = False

    def listen(self) -> None:
        """Hear whether the leader lives.

        Raises:
            Stopped: nothing new was heard for too long, or it is gone.
        """
        try:
            said = read_json(self.file)
        except (OSError, IntegrityError):
            said = {}
        if said and said != self._said:
            self._is_alive = bool(self._said)  # the first word may be a dead one's last
            self._said, self._since = said, time.monotonic()
        self.steps = said.get("steps", {}) if self._is_alive else {}
        is_gone = bool(self._said) and not said
        if is_gone or time.monotonic() - self._since > self.rank.patience_s:
            who = self._said.get("who", f"nobody in {self.file.parent.parent}")
            why = "ended before the run did" if is_gone else f"gave no sign of life for {self.rank.patience_s:g} s"
            raise Stopped(f"rank 0 ({who}) {why}; start all ranks again, and they go on from here")
