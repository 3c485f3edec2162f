"""`askback plan RUN.toml`: what a run will take, told from a look at a little of it on the engine at hand.

Takes: Options.  Gives: a Plan, and the one screen it is shown on.
Never: writes into a run folder, or does more of a run than takes a minute.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Any

from askback import api
from askback.budget import gpus_of, workers_of
from askback.engines.presets import resolve
from askback.errors import ConfigError
from askback.estimate import (
    ENDLESS,
    NONE,
    Cost,
    Line,
    Needs,
    Range,
    Terms,
    about,
    cost,
    exactly,
    rate,
    shards,
    total,
    workers_for,
)
from askback.looking import COUNTED, FIXED, PAPER_KEPT, Done, Seen, look, mean
from askback.meter import measured
from askback.options import EngineOptions, Options, PlanOptions
from askback.ports import Example
from askback.readers.survey import Survey, survey
from askback.records import Judgement, Pair
from askback.rehearsal import Kind, family_of, spread_over
from askback.steps import WRITTEN_ROWS
from askback.store import read_json

SAMPLE = 200
"""Documents a run is looked at with."""
SHARED = ("candidates", "judged")
"""Steps whose shards workers share."""
HOLDS = ("gated", "kept", "evaluation", "publish")
"""Steps that hold every candidate in memory."""
SCALES = (10**6, 10**8, 10**9)
COLUMNS = 100
BOUND = {"forward": "forward.steps or curate.keep_most bounds it"}
"""What a step that one machine does alone is bounded by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What so many passages take."""

    passages: int
    shards: int
    cost: Cost
    workers: int | None
    """That finish within the days wanted; None where what one machine does alone takes longer."""
    longest_alone: Cost
    """Of the steps that one machine does alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will take."""

    engine: Mapping[str, Any]
    documents: Range | None
    """In the corpus; None where plan.passages says how many passages there are."""
    passages: Range
    gpu_bytes: int
    """Memory of a GPU that the sample took at its most; 0 without one."""
    sampled: Mapping[str, int]
    """How many documents and passages were looked at, and how many requests were timed."""
    terms: Terms
    currency: str
    steps: tuple[Cost, ...]
    all: Cost
    days: float
    scales: tuple[Scale, ...]
    measured_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return what is written as JSON: hours, bytes, tokens, kWh and kg, each as low, middle and high."""
        return asdict(self)


def plan(options: Options, days: float = 7.0) -> Plan:
    """Return what a run with these options will take, and how many workers do it within so many days.

    Raises:
        ConfigError: no seed or corpus, one whose length nobody knows without plan.passages, or days that are none.
        DataError: the sample of the corpus, or the seed, gives nothing to work with.
    """
    if not (days > 0 and math.isfinite(days)):
        raise ConfigError(f"--days {days:g}: want a number of days above 0")
    api.check_paths(options)
    began = time.perf_counter()
    looked = survey(options.corpus, SAMPLE)
    if looked.bytes_in_all is None and not options.plan.passages:
        raise ConfigError(
            f"corpus.path {options.corpus.path}: nobody here knows how long it is; say for how many passages to plan "
            "with --set plan.passages=N"
        )
    documents = spread_over(looked.documents, SAMPLE)
    with TemporaryDirectory(prefix="askback-plan-") as scratch:
        with measured(Path(scratch) / "cost.json", country=options.engine.country):
            options, engine, opened_s = _open(options)
            seen = look(options, engine, documents, Path(scratch))
            gpu_bytes = _gpu_bytes(engine)
        terms = _terms(options, Path(scratch) / "cost.json")
    read_s = looked.seconds / max(1, len(looked.documents))
    needs = [*needs_of(options, seen, start_s=opened_s + seen.load_s, read_s=read_s)]
    passages, count = _sizes(looked, seen, options.plan)
    costs = [cost(one, passages, terms) for one in needs]
    return Plan(
        engine=engine.describe(),
        documents=count,
        passages=passages,
        gpu_bytes=gpu_bytes,
        sampled={
            "documents": len(documents),
            "passages": seen.done.passages,
            "requests": sum(one.requests for one in seen.timed.values()),
        },
        terms=terms,
        currency=options.plan.currency,
        steps=tuple(costs),
        all=total(costs),
        days=days,
        scales=tuple(_scale(size, needs, terms, options.engine, days) for size in SCALES),
        measured_s=round(time.perf_counter() - began, 1),
    )


def _open(options: Options) -> tuple[Options, Any, float]:
    from askback.engines.open import open_engine

    began = time.perf_counter()
    engine = open_engine(options.engine)
    return api.with_presets(options, engine), engine, time.perf_counter() - began


def _gpu_bytes(engine: Any) -> int:
    if not hasattr(engine, "device"):
        return 0
    from askback.engines.device import most_bytes

    return most_bytes(engine.device)


def _terms(options: Options, readings: Path) -> Terms:
    """Return prices, workers, and the watts and carbon that the meter read while the sample was taken."""
    prices, engine = options.plan, options.engine
    sessions = read_json(readings) if readings.exists() else []
    seconds, kwh, co2 = (sum(one[key] for one in sessions) for key in ("seconds", "energy_kwh", "co2_kg"))
    read = kwh * 3.6e6 / seconds if seconds else 0.0
    return Terms(
        workers=workers_of(engine),
        gpus=gpus_of(engine),
        watts=prices.watts or read,
        co2_kg_per_kwh=co2 / kwh if kwh else 0.0,
        **{name: getattr(prices, name) for name in PRICES},
    )


PRICES = ("price_per_hour", "price_per_gpu_hour", "price_per_million_read", "price_per_million_written")


def _sizes(looked: Survey, seen: Seen, options: PlanOptions) -> tuple[Range, Range | None]:
    """Return how many passages the run will ask about, and how many documents there are."""
    if options.passages:
        return exactly(options.passages), None
    if looked.is_whole and len(looked.documents) == len(seen.done.cut):
        return exactly(seen.done.passages), exactly(len(looked.documents))
    whole = looked.bytes_in_all or 0.0
    empty = [(0.0, size) for size in looked.bytes_read[len(looked.documents) :]]
    documents = rate([*((1.0, size) for size in looked.bytes_read[: len(looked.documents)]), *empty]) * whole
    return documents * rate([(count, 1) for count in seen.done.cut]), documents


def _scale(passages: int, needs: Sequence[Needs], terms: Terms, options: EngineOptions, days: float) -> Scale:
    costs = [cost(one, exactly(passages), replace(terms, workers=1)) for one in needs]
    asked = next(one.rows.middle for one in costs if family_of(one.step) == "candidates")
    return Scale(
        passages=passages,
        shards=shards(asked, options.shard_rows),
        cost=total(costs),
        workers=workers_for(days, costs),
        longest_alone=max((one for one in costs if not one.is_shared), key=lambda one: one.machine_hours.middle),
    )


# --- from what was seen to what is needed


def needs_of(options: Options, seen: Seen, *, start_s: float, read_s: float) -> Iterator[Needs]:
    """Yield what each step needs, in the order of the run; its start comes before them, what is published after.

    `read_s` is what reading a document of the corpus takes: the rehearsal read a copy.
    """
    growth = _Growth(options, seen)
    yield Needs(step="start", other_s=(Line(about(start_s)),), memory=(Line(exactly(seen.memory)),))
    for done in seen.done.steps:
        one = growth.step(done)
        if done.family == "corpus":
            reading = Line(slope=about(read_s * len(seen.done.cut) / seen.done.passages))
            one = replace(one, other_s=(*one.other_s, reading))
        yield one
    yield growth.publishing()


class _Growth:
    """What a step of the rehearsal did, as what it does for so many passages."""

    def __init__(self, options: Options, seen: Seen) -> None:
        self.options = options
        self.seen = seen
        self.passages = seen.done.passages
        self.trained = {one.step: one for one in seen.done.trained}
        self.first = next(one for one in seen.done.steps if one.family == "forward")
        self.kept = exactly(1) if options.curate.keep_top else PAPER_KEPT * (1 / PAPER_KEPT.middle)
        """Rows that are kept for each that the rehearsal kept."""

    def step(self, done: Done) -> Needs:
        """Return what a step needs."""
        family = done.family.split("-")[0]
        is_shared = family in SHARED
        calls, read, written = self._asked(done)
        trained, trained_s, once_s, model = self._trained(done)
        parts = self.line(done, done.manifest.written / (self.options.engine.shard_rows if is_shared else WRITTEN_ROWS))
        books = (Line(exactly(done.books)), self.line(done, done.ledger), parts * self.seen.frame)
        return Needs(
            step=done.manifest.step,
            is_shared=is_shared,
            rows=(self.line(done, done.manifest.read),),
            read=(*read, *trained),
            written=written,
            calls_s=(*calls, *trained_s),
            other_s=(self._own_s(done), Line(about(once_s))),
            disk=(self.line(done, done.parts), *books, Line(exactly(done.others + model))),
            books=books,
            files=(parts, Line(exactly(4 if done.parts else 3))),
            memory=self._memory(family),
        )

    def publishing(self) -> Needs:
        """Return what it takes to write data set, cards, models and report."""
        seen, models = self.seen, sum(fitted.bytes for fitted in self.seen.fitted.values())
        dataset = Line(slope=self.kept * (seen.published["dataset"] / self.passages))
        return Needs(
            step="publish",
            other_s=(Line(about(seen.publish_s)),),
            disk=(Line(exactly(seen.published["rest"] + models)), dataset),
            memory=self._memory("publish"),
        )

    def line(self, done: Done, amount: float) -> Line:
        """Return an amount of the rehearsal as it grows: not at all, with the passages, or with what is kept of them.

        Forward models are tuned on the seed pairs and, from the second on, on what was kept.
        """
        if done.family in FIXED or done is self.first:
            return Line(exactly(amount))
        if done.family == "rewritten":
            return self._of_kept(amount, done.manifest.read)
        if done.family != "forward":
            return Line(slope=exactly(amount / self.passages))
        rows, of_seed = done.manifest.read, self.first.manifest.read
        grown = self._of_kept(amount * (rows - of_seed) / rows, rows - of_seed)
        fixed = exactly(amount * of_seed / rows)
        return Line(fixed, grown.slope, grown.most if grown.most == ENDLESS else grown.most + fixed)

    def _of_kept(self, amount: float, rows: int) -> Line:
        """Return an amount that goes with the rows kept, of which there may be a most."""
        most, each = self.options.curate.keep_most, amount / max(1, rows)
        return Line(NONE, self.kept * (amount / self.passages), exactly(most * each) if most else ENDLESS)

    def _asked(self, done: Done) -> tuple[list[Line], list[Line], list[Line]]:
        """Return seconds, tokens read and tokens written, a line for each kind of request in a step."""
        counts: dict[Kind, int] = {}
        for one in self.seen.done.asked:
            if one.step == done.manifest.step and one.items:
                counts[one.kind] = counts.get(one.kind, 0) + len(one.items)
        lines = {kind: self.line(done, count) for kind, count in counts.items()}
        tokens, timed = self.seen.counts, self.seen.timed
        return (
            [line * tokens[kind].weight * timed[kind].seconds for kind, line in lines.items()],
            [line * tokens[kind].read for kind, line in lines.items()],
            [line * timed[kind].written for kind, line in lines.items()],
        )

    def _trained(self, done: Done) -> tuple[list[Line], list[Line], float, int]:
        """Return tokens trained on, seconds of it, seconds it takes anyway, and the bytes of the model."""
        one = self.trained.get(done.manifest.step)
        if one is None:
            return [], [], 0.0, 0
        fitted, table = self.seen.fitted[one.role], one.options
        recipe = resolve(table, rows=len(one.examples), model_tokens=self.seen.weights.engine.max_tokens)
        of_seed = len(self.trained[self.first.manifest.step].examples) if one.role == "forward" else len(one.examples)
        parts = one.examples[:of_seed], one.examples[of_seed:]
        seed, kept = (self._row_tokens(rows, recipe.max_tokens) * table.epochs for rows in parts)
        fixed, grown = seed * len(parts[0]), self._of_kept(len(parts[1]), len(parts[1]))
        most = grown.most if grown.most == ENDLESS else fixed + grown.most * kept
        if table.steps:
            most = most.at_most(self._row_tokens(one.examples, recipe.max_tokens) * (table.steps * recipe.batch))
        line = Line(fixed, grown.slope * kept, most)
        return [line], [line * fitted.seconds], fitted.once, fitted.bytes

    def _row_tokens(self, examples: Sequence[Example], most: int) -> Range:
        """Return the tokens of a row, on average; one that is rejected has none."""
        some = spread_over(examples, COUNTED)
        return mean([self.seen.weights.row(example, most) for example in some], len(examples))

    def _own_s(self, done: Done) -> Line:
        """Return the seconds of a step in which no model works."""
        whole, small = done.seconds, self.seen.small.get(done.manifest.step, 0.0)
        if done.family in FIXED or done.family == "forward":
            return Line(about(whole))
        if self.passages < 2 * self.seen.small_passages or not self.seen.small_passages:
            return Line(slope=about(whole / self.passages))
        each = max(0.0, whole - small) / (self.passages - self.seen.small_passages)
        return Line(about(small), about(each))

    def _memory(self, family: str) -> list[Line]:
        held = self.seen.done.held
        bytes_each = held[Pair] + held[Judgement] * len(self.options.curate.signals) * (family != "gated")
        grows = [Line(slope=exactly(bytes_each * self.options.augment.n))] if family in HOLDS else []
        return [Line(exactly(self.seen.memory)), *grows]


# --- one screen


def render(plan: Plan) -> str:
    """Return a plan as text: a line for each step, one for all of them, and one for each size a corpus may have."""
    known = _columns(plan)
    names = ["step", "rows", "tokens", *known]
    rows = [names]
    rows += [[one.step, _count(one.rows), _count(one.read + one.written), *_cells(one, known)] for one in plan.steps]
    rows.append(["all", "", _count(plan.all.read + plan.all.written), *_cells(plan.all, known)])
    tables = [*_lines(rows), "", *_in_words(plan), "", *_lines(_scale_rows(plan))]
    return "\n".join([_head(plan), "", *tables, *_why_none(plan)])


def _head(plan: Plan) -> str:
    documents = f"{_count(plan.documents, ranged=True)} documents, " if plan.documents else ""
    looked = plan.sampled
    said = (
        f"{documents}{_count(plan.passages, ranged=True)} passages; engine {plan.engine['kind']}, base "
        f"{plan.engine['base']}. Looked at {looked['documents']} documents with {looked['passages']} passages "
        f"and timed {looked['requests']} requests in {plan.measured_s:.0f} s; (low–high): what the sample leaves open."
    )
    return "\n".join(wrap(said, COLUMNS))


Shown = Callable[[Cost], str]


def _columns(plan: Plan) -> dict[str, Shown]:
    """Return the columns there is anything to say in."""
    terms, gpu, money = plan.terms, plan.all.gpu_hours.high, plan.all.money.high
    columns: dict[str, Shown] = {"time": lambda one: _time(one.hours)}
    if gpu:
        columns["GPU h"] = lambda one: _short(one.gpu_hours.middle)
    columns["memory"] = lambda one: _size(one.memory)
    columns["disk"] = lambda one: _size(one.disk)
    if money:
        columns[plan.currency] = lambda one: _short(one.money.middle)
    if terms.co2_kg_per_kwh:
        columns["g CO2"] = lambda one: _short(one.co2_kg.middle * 1000)
    return columns


def _cells(one: Cost, columns: Mapping[str, Shown]) -> list[str]:
    return [shown(one) for shown in columns.values()]


def _in_words(plan: Plan) -> Iterator[str]:
    """Yield what the run takes in all, with its ranges."""
    whole, terms = plan.all, plan.terms
    parts = [f"{_time(whole.hours)} by the clock", f"{_ranged(whole.disk, 'B')} on disk"]
    parts += [f"{_ranged(whole.gpu_hours, 'GPU hours')}"] if whole.gpu_hours.high else []
    parts += [f"{_with_unit(_short(plan.gpu_bytes), 'B')} of a GPU"] if plan.gpu_bytes else []
    parts += [f"{_ranged(whole.money, plan.currency)}"] if whole.money.high else []
    parts += [f"{_ranged(whole.kwh * 1000, 'Wh')} at {terms.watts:.0f} W"] if terms.watts else []
    parts += [f"{_ranged(whole.co2_kg * 1000, 'g CO2')}"] if terms.co2_kg_per_kwh else []
    yield from wrap("in all: " + ", ".join(parts), COLUMNS)
    if not whole.money.high:
        yield "no price is given: --set plan.price_per_hour=0.4, plan.price_per_gpu_hour, plan.price_per_million_read"


def _scale_rows(plan: Plan) -> list[list[str]]:
    """Return the table of what a corpus of other sizes would take."""
    wanted = f"workers for {plan.days:g} d"
    rows = [["passages", "shards", "files", "bookkeeping", "disk", "memory", "one worker", wanted]]
    for one in plan.scales:
        rows.append(
            [
                _short(one.passages),
                f"{one.shards:,}",
                _count(one.cost.files),
                _size(one.cost.books),
                _size(one.cost.disk),
                _size(one.cost.memory),
                _time(one.cost.machine_hours),
                f"{one.workers:,}" if one.workers else "none",
            ]
        )
    return rows


def _why_none(plan: Plan) -> Iterator[str]:
    """Yield why no number of workers is enough, where that is so."""
    for one in [one for one in plan.scales if one.workers is None][:1]:
        longest = one.longest_alone
        why = f"one machine does {longest.step} alone, which takes {_time(longest.machine_hours)}"
        said = f"none, for {_short(one.passages)}: {why}; {BOUND.get(family_of(longest.step), 'no option bounds it')}"
        yield from wrap(said, COLUMNS)


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines: the first column at its left, the others at their right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]


def _short(value: float) -> str:
    """Return a number of any size in few characters."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}" if value >= 0.001 else "0"


def _count(value: Range, *, ranged: bool = False) -> str:
    return _ranged(value, "") if ranged else _short(value.middle) if value.high else ""


def _size(value: Range) -> str:
    return _with_unit(_short(value.middle), "B")


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{unit}" if number[-1].isalpha() else f"{number} {unit}"


def _ranged(value: Range, unit: str) -> str:
    """Return a number with what it may be otherwise."""
    shown = _with_unit(_short(value.middle), unit) if unit else _short(value.middle)
    ends = _short(value.low), _short(value.high)
    return shown if ends[0] == ends[1] else f"{shown} ({ends[0]}–{ends[1]})"


def _time(hours: Range) -> str:
    """Return hours in the unit that fits their middle, with what they may be otherwise."""
    seconds = hours.middle * 3600
    per_hour, unit = next(found for bound, found in UNITS if seconds < bound)
    low, middle, high = (_short(value * per_hour) for value in (hours.low, hours.middle, hours.high))
    return f"{middle} {unit}" if low == high else f"{middle} {unit} ({low}–{high})"


UNITS = ((120, (3600.0, "s")), (7200, (60.0, "min")), (172800, (1.0, "h")), (math.inf, (1 / 24, "d")))
"""Below so many seconds a time is shown in this unit, of which an hour has so many."""
