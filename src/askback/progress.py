"""One line per step with its rate and the time left; where there is no terminal, a plain line now and then.

Takes: what the pipeline tells.  Gives: lines on standard error.  Never: touches standard output, which is for results.
"""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from askback.store import Manifest

PLAIN_LINE_EVERY_S = 15.0
"""Least seconds between two lines of a step where there is no terminal."""
CATCHING_UP_S = 1.0
"""What a step reports sooner may be the work of an earlier session; it is left out of the rate."""


class Watch:
    """Watches a run; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        self.task: Any = None
        self.step = ""
        self.total = 0
        self.count = 0
        self.began = 0.0
        self.told = 0.0
        self.caught_up = (0.0, 0)
        self.manifests: list[Manifest] = []

    def __enter__(self) -> "Watch":
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._drop()
        self.bars.stop()

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins; `total` 0 is unknown."""
        self._drop()
        self.step, self.total = step, total
        self.count, self.began = 0, time.monotonic()
        self.told, self.caught_up = self.began, (self.began, 0)
        self.task = self.bars.add_task(step, total=total or None, rate="")

    def advance(self, count: int) -> None:
        """So many rows more are done."""
        self.count += count
        seconds = max(1e-6, time.monotonic() - self.began)
        if self.task is not None:
            self.bars.update(self.task, advance=count, rate=f"{self.count / seconds:,.1f}/s")
            if self.bars.disable:
                self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        """Print how far the step is, unless that was said a moment ago."""
        if now - self.began < CATCHING_UP_S:
            self.caught_up = (now, self.count)
        if now - self.told < PLAIN_LINE_EVERY_S:
            return
        self.told = now
        since, before = self.caught_up
        rate = (self.count - before) / (now - since)
        parts = [f"{self.step:<15} {self.count:,}" + (f"/{self.total:,}" if self.total else ""), f"{rate:,.2f}/s"]
        if self.total and rate:
            parts.append(f"{timedelta(seconds=round((self.total - self.count) / rate))} left")
        self.console.print("  ".join(parts), markup=False)

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done, now or in an earlier run."""
        self._drop()
        self.manifests.append(manifest)
        lost = ", ".join(f"{name} {count}" for name, count in sorted(manifest.reasons.items(), key=lambda kv: -kv[1]))
        seconds = manifest.cost.get("seconds", 0.0)
        spent = "kept from before" if reused else f"{seconds:6.1f} s"
        self.console.print(
            f"{manifest.step:<15} read {manifest.read:>6}  written {manifest.written:>6}  "
            f"rejected {manifest.rejected:>6}  {spent}" + (f"  ({lost})" if lost else ""),
            markup=False,
        )

    def note(self, text: str) -> None:
        """Something to know, between two lines of steps."""
        self.console.print(text, markup=False)

    def summary(self, rows: list[tuple[str, str]]) -> None:
        """A small table at the end."""
        width = max(len(name) for name, _ in rows)
        for name, value in rows:  # no rich table: it cuts a long path short where the terminal is narrow
            self.console.print(f"{name:<{width}}  {value}", markup=False)

    def _drop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
