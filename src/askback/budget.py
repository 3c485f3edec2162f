"""A bound on what a run may spend in time, money or energy; it is stopped before it gets there.

Takes: `--budget` as it is typed, prices, the run folder with what earlier sittings spent.
Gives: a Show that passes everything on, and raises Stopped when the next shard or training step could cross the bound.
Never: stops inside a shard or a training step, or counts anything of a run but its time and its energy.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from askback.errors import ConfigError, Stopped
from askback.options import EngineOptions, Options
from askback.steps import Show
from askback.store import MANIFEST, Manifest, read_json

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
KWH = {"Wh": 0.001, "kWh": 1.0}
AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)\s*")
JOULES = 3.6e6
"""Of a kilowatt hour."""


@dataclass(frozen=True, slots=True)
class Budget:
    """So many seconds, kWh, or units of the currency of `plan.currency`."""

    amount: float
    kind: Literal["seconds", "kwh", "money"]
    said: str

    @classmethod
    def read(cls, text: str, currency: str) -> "Budget":
        """Return a budget such as `2h`, `90min`, `0.5kWh` or `5EUR`.

        Raises:
            ConfigError: it is none of these, is nothing, or is in another currency than the prices.
        """
        found = AMOUNT.fullmatch(text)
        amount, unit = (float(found[1]), found[2]) if found else (0.0, "")
        if unit in SECONDS:
            budget = cls(amount * SECONDS[unit], "seconds", text.strip())
        elif unit in KWH:
            budget = cls(amount * KWH[unit], "kwh", text.strip())
        elif unit == currency:
            budget = cls(amount, "money", text.strip())
        else:
            raise ConfigError(
                f"--budget {text}: want a time, energy or money, such as 90min, 2h, 0.5kWh or 5{currency}"
            )
        if not amount:
            raise ConfigError(f"--budget {text}: want more than nothing")
        return budget


Meter = Callable[[], float]
"""What was spent so far, in the unit of a budget."""


def open_meter(budget: Budget, options: Options, folder: Path, read_kwh: Meter | None) -> Meter:
    """Return what tells how much was spent, in this sitting and in those before it.

    `read_kwh` is the energy of this sitting, where there is a meter; `plan.watts` goes before it.

    Raises:
        ConfigError: money is asked for and no price per hour is known, or energy and there is nothing to tell it.
    """
    prices = options.plan
    began, (before_s, before_kwh) = time.monotonic(), spent_before(folder)

    def seconds() -> float:
        return before_s + time.monotonic() - began

    if budget.kind == "seconds":
        return seconds
    if budget.kind == "kwh":
        if prices.watts:
            watts = prices.watts * workers_of(options.engine)
            return lambda: seconds() * watts / JOULES
        if read_kwh is None:
            raise ConfigError(f"--budget {budget.said}: no power meter is at hand; set plan.watts")
        return lambda: before_kwh + read_kwh()
    engine = options.engine
    per_hour = workers_of(engine) * (prices.price_per_hour + prices.price_per_gpu_hour * gpus_of(engine))
    if not per_hour:
        raise ConfigError(
            f"--budget {budget.said}: what does an hour cost? set plan.price_per_hour, or plan.price_per_gpu_hour on a "
            "GPU; tokens of an endpoint are not counted while it runs"
        )
    return lambda: seconds() / 3600 * per_hour


def workers_of(options: EngineOptions) -> int:
    """Return how many machines work on shards at once."""
    return max(1, options.cluster.workers) if options.cluster.address else 1


def gpus_of(options: EngineOptions) -> float:
    """Return the GPUs that one of them works with."""
    if options.kind in ("echo", "server"):
        return 0.0
    if options.cluster.address:
        return options.cluster.gpus
    from askback.engines import device

    there = device.pick_device(options).type != "cpu"
    return float(options.vllm.gpus if options.kind == "vllm" else max(1, options.devices)) if there else 0.0


def spent_before(folder: Path) -> tuple[float, float]:
    """Return the seconds and kWh of earlier sittings: those that ended, and what killed ones finished."""
    sessions = read_json(folder / "cost.json") if (folder / "cost.json").exists() else []
    manifests = [read_json(path) for path in folder.glob(f"[0-9][0-9]-*/{MANIFEST}")]
    finished_s = sum(manifest["cost"].get("seconds", 0.0) for manifest in manifests)
    ended_s = sum(session["seconds"] for session in sessions)
    return max(ended_s, finished_s), sum(session["energy_kwh"] for session in sessions)


class Bounded:
    """Watches a run for somebody else, and stops it between two pieces of work when the next could cross the bound.

    A piece is a shard, a training step, or a row where a step is no map: the next one is taken to spend as much as the
    costliest of its step so far. A step that is not cut up is not begun when the bound is reached, and not cut short.
    """

    def __init__(self, show: Show, budget: Budget, meter: Meter) -> None:
        self.show = show
        self.budget = budget
        self.meter = meter
        self.finished = 0
        self._open("", 0, "rows")

    def _open(self, step: str, total: int, unit: str) -> None:
        self.step, self.total, self.unit, self.count = step, total, unit, 0
        self.last, self.costliest = self.meter(), 0.0

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins, or its number of rows is known now."""
        if step != self.step or total != self.total:
            self._open(step, total, unit)
        if self.last >= self.budget.amount:
            raise self._stopped()
        self.show.begin(step, total, unit)

    def advance(self, count: int) -> None:
        """So many rows more are done; the last ones of a step are followed by its end, not by more of them.

        Raises:
            Stopped: the next ones could cross the bound.
        """
        self.show.advance(count)
        now = self.meter()
        self.costliest = max(self.costliest, now - self.last)
        self.last = now
        self.count += count
        more = not self.total or self.count < self.total
        if more and now + self.costliest > self.budget.amount:
            raise self._stopped()

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done."""
        self.finished += 1
        self.show.end(manifest, reused=reused)

    def note(self, text: str) -> None:
        """Something to know."""
        self.show.note(text)

    def _stopped(self) -> Stopped:
        of = f" of {self.total:,}" if self.total else ""
        share = f"{self.last / self.budget.amount:.0%}"
        return Stopped(
            f"stopped within the budget of {self.budget.said}, of which {share} is spent: {self.finished} steps "
            f"are done and {self.count:,}{of} {self.unit} of {self.step}; the same command goes on from here with more"
        )
