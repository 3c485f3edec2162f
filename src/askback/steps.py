"""How a step of a run is done: once, and again only if something it depends on changed.

Takes: a run folder, whoever watches, and who works on shards.  Gives: finished Steps, in the order they were asked for.
Never: knows what a step means, or which model works.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any, Protocol

from askback.ports import Spread, Task
from askback.store import STARTED, Manifest, Run, Step, drop_folder, file_hash, map_step, write_step

WRITTEN_ROWS = 4096
"""Rows in a part of a step that is no map over shards."""


class Show(Protocol):
    """Whoever watches: told what begins, moves and ends; answers nothing."""

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins; `total` 0 is unknown."""

    def advance(self, count: int) -> None:
        """So many rows more are done."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done, now or in an earlier run."""

    def note(self, text: str) -> None:
        """Something to know."""


class Silent:
    """Watches and says nothing."""

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins."""

    def advance(self, count: int) -> None:
        """Rows are done."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done."""

    def note(self, text: str) -> None:
        """Something to know."""


class Steps:
    """The steps of one run, in order; a step's number is its place among them."""

    follows = False
    """Whether another process begins and ends the steps; see `ranks`."""

    def __init__(self, held: Run, show: Show, spread: Spread, *, shard_rows: int) -> None:
        self.held = held
        self.show = show
        self.spread = spread
        self.shard_rows = shard_rows
        self.taken: list[Step[Any]] = []

    def step(self, name: str, record: type[Any], *, options: Any, **depends: Any) -> Step[Any]:
        """Return the next step, with everything its result depends on."""
        plain = options if isinstance(options, dict) else options.model_dump(mode="json")
        step = self.held.step(f"{len(self.taken) + 1:02d}-{name}", record, {"options": plain, **depends})
        self.taken.append(step)
        return step

    def known(self, name: str) -> Step[Any] | None:
        """Return a step of this run that was taken before, such as one that serves several rounds."""
        return next((step for step in self.taken if step.folder.name[3:] == name), None)

    def do(self, step: Step[Any], work: Callable[[], Mapping[str, Any] | None], *, unit: str = "rows") -> Step[Any]:
        """Do a step unless it is done; say first what changed if it was done otherwise before."""
        done = step.manifest
        if done is not None and step.is_done:
            step.check_files()
            self.show.end(done, reused=True)
            return step
        if changed := step.changed():
            self.show.note(f"{step.folder.name} is done again, for these changed: {'; '.join(changed)}")
        began = time.monotonic()
        self.show.begin(step.folder.name, 0, unit)
        step.begin()
        more = work() or {}
        self.show.end(step.finish({"seconds": round(time.monotonic() - began, 2)}, **more), reused=False)
        return step

    def write(self, step: Step[Any], outcomes: Iterable[Any]) -> None:
        """Write the outcomes of a step that is being done."""

        def counted() -> Iterator[Any]:
            for outcome in outcomes:
                self.show.advance(1)
                yield outcome

        write_step(step, counted(), shard_rows=WRITTEN_ROWS)

    def map(self, step: Step[Any], rows: Step[Any], task: Task) -> Step[Any]:
        """Do a step that is a map over the shards of another one."""

        def work() -> None:
            total = rows.manifest.written if rows.manifest else 0
            self.show.begin(step.folder.name, total, "rows")
            spread = self.spread
            map_step(
                step,
                rows.read(),
                lambda blocks: spread(task, blocks),
                shard_rows=self.shard_rows,
                advance=self.show.advance,
            )

        return self.do(step, work)

    def drop_others(self) -> None:
        """Remove what an earlier run here did under other numbers, such as a round that is no longer asked for."""
        ours = {step.folder.name for step in self.taken}
        for started in sorted(self.held.folder.glob(f"[0-9][0-9]-*/{STARTED}")):
            if started.parent.name not in ours:
                self.show.note(f"{started.parent.name} is removed: with these options there is no such step")
                drop_folder(started.parent)


# --- what a step depends on


def input_hash(path: str) -> str:
    """Return the hash of what is read from the disk (for a glob, of every file it names), or else the name itself."""
    if path and Path(path).exists():
        return file_hash(Path(path))
    found = [Path(name) for name in sorted(glob(path, recursive=True))] if path else []  # noqa: PTH207
    parts = [f"{file} {file_hash(file)}" for file in found if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if parts else path


def code(*modules: str) -> str:
    """Return a hash of the source of modules and of packages whole: a step is done again when its code changed."""
    digest = hashlib.sha256()
    for module in (*modules, "records", "chance"):
        place = Path(__file__).parent / module.replace(".", "/")
        for file in sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            digest.update(file.read_bytes())
    digest.update(f"{sys.version_info[:2]}".encode())
    return digest.hexdigest()[:16]
