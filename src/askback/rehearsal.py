"""A run rehearsed: everything is done but the work of models, and what would be asked of them is noted.

Takes: an engine, and a run to be done with it.
Gives: what each step asks, and how long the engine takes for some of it.
Never: asks the engine anything while a run is rehearsed: the test double answers in its place.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from askback.engines.echo import EchoEngine
from askback.engines.presets import resolve
from askback.estimate import Range, rate
from askback.options import EngineOptions, TuneOptions
from askback.ports import (
    Ask,
    Choice,
    Choose,
    Engine,
    Example,
    Fit,
    FitReport,
    Generate,
    Likelihood,
    LogLikelihood,
    Prompt,
    Reply,
    Sampling,
    Watch,
    ignore,
)
from askback.steps import Silent

BLOCKS = 2
"""Blocks of requests that are timed, once they are large enough."""
BLOCK_S, LONG_S = 0.7, 4.0
"""Seconds from which a block is large enough, if it fills a batch; and from which it is even if it does not."""
GROWTH = 4
MOST_REQUESTS = 256
FIT_ROWS, FIT_STEPS, FIT_S = 96, 6, 15.0
"""Rows and steps of a training that is timed; the steps are of whole batches where three fit into so many seconds."""

Role = Literal["bare", "backward", "forward"]
Call = Literal["generate", "choose", "likelihood"]


class Kind(NamedTuple):
    """Requests that take alike: of one call, to one model, in steps of one name."""

    family: str
    """The step's name without numbers: `judged` of `09-judged-1`."""
    call: Call
    role: Role


@dataclass(frozen=True)
class Asked:
    """The requests of one kind in one step; `how` is what went with them, such as the sampling."""

    step: str
    kind: Kind
    how: Any
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """One training of a rehearsed run."""

    step: str
    role: Role
    examples: list[Example]
    options: TuneOptions


def family_of(step: str) -> str:
    """Return the name of a step's folder without any number: `judged-likeness` of `10-judged-1-likeness`."""
    return re.sub(r"-\d+(?=-|$)", "", re.sub(r"^\d+-", "", step))


def _role_of(model: Path | None) -> Role:
    if model is None:
        return "bare"
    return "backward" if family_of(model.parent.name) == "backward" else "forward"


class Rehearsal(Silent):
    """An engine that notes what it is asked, and whoever watches the run, so that it knows in which step it is asked.

    What an engine says of itself (length, tokens, whether it tunes, which calls it refuses) is that of the real one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.echo = EchoEngine(EngineOptions(kind="echo"))
        self.step = ""
        self.asked: list[Asked] = []
        self.trained: list[Trained] = []

    def begin(self, step: str, total: int, unit: str) -> None:
        """Remember the step."""
        self.step = step

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""
        return self.engine.max_tokens

    @property
    def tunes(self) -> bool:
        """Whether the engine tunes."""
        return self.engine.tunes

    def count_tokens(self, text: str) -> int:
        """Return how many tokens of the base a text has."""
        return self.engine.count_tokens(text)

    def describe(self) -> dict[str, Any]:
        """Return what the engine says of itself."""
        return self.engine.describe()

    def generate(self, model: Path | None = None) -> Generate:
        """Return a call that notes requests and answers at once."""
        answer = self.echo.generate(model)

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            return answer(self._noted("generate", model, sampling, asks), sampling)

        return call

    def choose(self, model: Path | None = None) -> Choose:
        """Return a call that notes prompts and answers at once; refused where the engine refuses it."""
        self.engine.choose(None)
        answer = self.echo.choose(model)

        def call(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
            return answer(self._noted("choose", model, choices, prompts), choices)

        return call

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return a call that notes examples and answers at once; refused where the engine refuses it."""
        self.engine.likelihood(None)
        answer = self.echo.likelihood(model)

        def call(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
            return answer(self._noted("likelihood", model, None, examples))

        return call

    def fit(self, options: TuneOptions, *, seed: int) -> Fit:
        """Return a call that notes what it would train on, and how long its rows would be at most."""
        note = self.echo.fit(options, seed=seed)

        def call(examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
            role: Role = "backward" if family_of(self.step) == "backward" else "forward"
            self.trained.append(Trained(self.step, role, list(examples), options))
            recipe = resolve(options, rows=len(examples), model_tokens=self.max_tokens)
            return replace(note(examples, out, watch), recipe={"max_tokens": recipe.max_tokens})

        return call

    def _noted(self, call: Call, model: Path | None, how: Any, items: Iterable[Any]) -> Iterator[Any]:
        asked = Asked(self.step, Kind(family_of(self.step), call, _role_of(model)), how)
        self.asked.append(asked)
        for item in items:
            asked.items.append(item)
            yield item


# --- how much is asked


class Weights:
    """The tokens of requests and rows, as the engine at hand counts them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def prompt(self, prompt: Prompt, room: int) -> int:
        """Return the tokens of a prompt where so many are left for it."""
        parts = sum(self.engine.count_tokens(part) for part in (prompt.before, prompt.body, prompt.after))
        return min(parts, max(0, min(self.engine.max_tokens, prompt.most or self.engine.max_tokens) - room))

    def read(self, item: Any, how: Any) -> int:
        """Return the tokens the engine reads for a request."""
        if isinstance(item, Example):
            target = self.engine.count_tokens(item.target) + 1
            return self.prompt(item.prompt, target) + target
        if isinstance(item, Ask):
            return self.prompt(item.prompt, how.max_new_tokens)
        return self.prompt(item, 1)

    def weight(self, item: Any, how: Any) -> int:
        """Return what the time of a request goes by: its tokens, and those it may be answered with."""
        return self.read(item, how) + (how.max_new_tokens if isinstance(item, Ask) else 0)

    def row(self, example: Example, most: int) -> int:
        """Return the tokens of a training row, 0 for one that does not fit and is rejected."""
        count, prompt = self.engine.count_tokens, example.prompt
        fixed, target = count(prompt.before) + count(prompt.after), count(example.target) + 1
        body = count(prompt.body)
        left = most - fixed - target
        return fixed + target + min(body, left) if left >= min(1, body) and target > 1 else 0


def spread_over(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def sampled(asked: Sequence[Asked], count: int, turn: int = 0) -> list[Any]:
    """Return about so many requests, those with one prompt together as often as they are among all.

    Engines read a prompt that several requests share once: a sample that tore them apart would take longer.
    """
    groups: dict[Any, list[Any]] = defaultdict(list)
    for one in asked:
        for item in one.items:
            groups[item.prompt if isinstance(item, Example) else id(item)].append(item)
    step = max(1, sum(map(len, groups.values())) // count)
    found: list[Any] = []
    for place, group in enumerate(groups.values()):
        found += group[turn % step :: step] if len(group) > step else group if place % step == turn % step else []
    return found or next(iter(groups.values()))[:1]


# --- how long the engine takes


class Timed(NamedTuple):
    """What a sample of requests took."""

    seconds: Range
    """Per token of `Weights.weight`."""
    written: Range
    """Tokens written per request."""
    requests: int


def time_requests(
    engine: Engine, model: Path | None, asked: Sequence[Asked], weights: Weights, batch_tokens: int
) -> Timed:
    """Ask the engine some requests of one kind: more at once, until they fill a batch and take long enough to be timed.

    Less than a batch would take longer for each: what requests share is read once for all of them.
    """
    how, there = asked[0].how, sum(len(one.items) for one in asked)
    blocks: list[tuple[float, float]] = []
    replies: list[tuple[float, float]] = []
    count, in_all = min(2, there), 0
    while True:
        items = sampled(asked, count, len(blocks))
        weight = sum(weights.weight(item, how) for item in items)
        began = time.perf_counter()
        found = list(ask(engine, model, asked[0], items))
        seconds = time.perf_counter() - began
        in_all += len(items)
        is_large = weight >= batch_tokens and seconds >= BLOCK_S
        if not is_large and seconds < LONG_S and count < min(there, MOST_REQUESTS):
            count = min(GROWTH * count, there, MOST_REQUESTS)
            continue
        blocks.append((seconds, weight))
        replies.append((sum(reply.tokens for reply in found if isinstance(reply, Reply)), len(items)))
        if len(blocks) == BLOCKS or seconds > 2 * LONG_S:
            return Timed(rate(blocks), rate(replies), in_all)


def ask(engine: Engine, model: Path | None, asked: Asked, items: list[Any]) -> Iterator[Any]:
    """Ask the engine some requests as they were asked in the rehearsal."""
    if asked.kind.call == "generate":
        return engine.generate(model)(items, asked.how)
    if asked.kind.call == "choose":
        return engine.choose(model)(items, asked.how)
    return engine.likelihood(model)(items)


class Fitted(NamedTuple):
    """What the sample of a training took."""

    seconds: Range
    """Per token trained on."""
    once: float
    """Seconds beside the steps: the adapter made and saved."""
    bytes: int
    """Of the model's folder."""


def time_training(engine: Engine, trained: Trained, out: Path, weights: Weights, seed: int) -> Fitted:
    """Train on some rows for a few steps, leaving the model in `out`; the first step is not timed."""
    most = resolve(trained.options, rows=len(trained.examples), model_tokens=engine.max_tokens)
    fits = [example for example in trained.examples if weights.row(example, most.max_tokens)]
    examples = spread_over(fits or trained.examples, FIT_ROWS)
    tried = _fit(engine, trained.options, examples, 1, 3, out / "tried", seed)
    steps = min(FIT_STEPS, int(FIT_S / max(1e-9, most.batch * tried.steps[-1][0])))
    if most.batch > 1 and steps >= 3:
        tried = _fit(engine, trained.options, examples, most.batch, steps, out / "model", seed)
    else:
        (out / "tried").rename(out / "model")
    size = sum(file.stat().st_size for file in (out / "model").rglob("*") if file.is_file())
    return Fitted(rate(tried.steps), tried.once, size)


class _Fit(NamedTuple):
    steps: list[tuple[float, float]]
    once: float


def _fit(
    engine: Engine, options: TuneOptions, examples: list[Example], batch: int, steps: int, out: Path, seed: int
) -> _Fit:
    """Return (seconds, tokens) of each step but the first, and the seconds of everything else."""
    out.mkdir(parents=True)
    told: list[float] = []
    table = options.model_copy(update={"batch": batch, "steps": steps, "epochs": 0.0})
    began = time.perf_counter()
    report = engine.fit(table, seed=seed)(examples, out, lambda done, total: told.append(time.perf_counter()))
    whole = time.perf_counter() - began
    if len(told) < 2:  # one step, or an engine that tells nothing of its steps
        return _Fit([(whole, max(1, report.tokens))], 0.0)
    lasted = [(after - before, report.tokens / report.steps) for before, after in pairwise(told)]
    steps_s = sum(seconds for seconds, _ in lasted) * len(told) / len(lasted)
    return _Fit(lasted, max(0.0, whole - steps_s))
