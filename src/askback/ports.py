"""What a stage may ask of a model: four calls, each over a stream, each answered in order.

Takes: records of this file.  Gives: protocols; engines implement them, tests fake them in one line.
Never: says how the answer is made: batching, devices and retries are the engine's business.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text in three parts, of which only the middle may be shortened to fit the model.

    The parts are tokenized apart and joined as ids, in training and in use alike, so that both see the same
    tokens; control tokens written inside a part stay plain text.
    """

    before: str
    body: str
    after: str = ""
    most: int = 0
    """Most tokens of prompt and target together, as the model was trained; 0 is as many as the base reads."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what must follow it; the engine adds exactly one stop token."""

    id: str
    prompt: Prompt
    target: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for a text. Chance comes from `seed` alone, so order and batch do not matter."""

    prompt: Prompt
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a text is drawn: temperature 0 takes the likeliest token each time.

    `no_repeat`: no run of so many tokens comes twice in one reply (0: as often as it likes); the prompt is free.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 128
    no_repeat: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A generated text and why it ended: "stop" (its own stop token), "length" (cut off), "no_room" (never begun)."""

    text: str
    finish: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """Probabilities of the offered answers at the answer slot, and the mass on everything else."""

    probabilities: tuple[float, ...]
    outside: float


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """Sum of the natural log-probabilities of a target's tokens (stop token included) and their number."""

    total: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Mean log-probability per token, in nats."""
        return self.total / self.tokens


class Generate(Protocol):
    def __call__(self, asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        """Yield one reply per request, in order."""
        ...


class Choose(Protocol):
    def __call__(self, prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
        """Yield, per prompt and in order, how likely each choice is to come next; None where no room is left."""
        ...


class Likelihood(Protocol):
    def __call__(self, examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
        """Yield log p(target | prompt) per example, in order; None where no room is left for the target."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What a training run did: how many rows and tokens, and the loss at each step."""

    examples: int
    epochs: float
    steps: int
    tokens: int
    label_tokens: int
    losses: tuple[tuple[int, float], ...]
    """(step, mean loss in nats per label token)."""
    rejected: tuple[tuple[str, str], ...] = ()
    """(id, reason) of examples that could not be trained on."""
    cut: int = 0
    """Rows trained on whose prompt's body did not fit and was cut at its end."""
    trainable_parameters: int = 0
    parameters: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    """Every number the run was made with, the preset's choices included."""

    def as_dict(self) -> dict[str, Any]:
        """Return what is written beside the adapter: plain lists and numbers."""
        return asdict(self)


Watch = Callable[[int, int], None]
"""Told (steps done, steps in all)."""


def ignore(done: int, total: int) -> None:
    """Watch nothing."""


class Fit(Protocol):
    def __call__(self, examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
        """Tune the base on the examples and write the adapter (or model) into `out`."""
        ...


class Engine(Protocol):
    """What answers the calls: one base, and the adapters (or whole models) that `fit` wrote.

    `model` is such a folder, or None for the base as it is.
    """

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""
        ...

    @property
    def tunes(self) -> bool:
        """Whether `fit` can be asked for; where not, every model of a run is the base as it is."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return how many tokens of the base a text has."""
        ...

    def generate(self, model: Path | None = None) -> Generate:
        """Return the call that writes texts."""
        ...

    def choose(self, model: Path | None = None) -> Choose:
        """Return the call that weighs fixed answers.

        Raises:
            ConfigError: at once, not when it is called: this engine gives no probabilities.
        """
        ...

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return the call that scores targets.

        Raises:
            ConfigError: at once, not when it is called: this engine gives no likelihoods.
        """
        ...

    def fit(self, options: Any, *, seed: int) -> Fit:
        """Return the call that tunes the base with the options of a training table."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a result depends on: base, hash, licence, precision."""
        ...


Work = Callable[[list[Any]], Iterable[Any]]
"""A shard of rows in; what became of them out, Rejects among it."""
Blocks = Iterable[tuple[int, list[Any]]]
"""Shards with their numbers."""


class Task(Protocol):
    """Work on a step's shards that any process can do which opens the same engine.

    A frozen dataclass of plain data, so that it can be sent; what it does depends on the rows and on itself alone.
    """

    def open(self, engine: Engine) -> Work:
        """Return the work, done by this engine."""
        ...

    def give_up(self, row: Any, reason: str, detail: str) -> Iterable[Any]:
        """Return what is said of a row that nobody could work on: as many outcomes as the work gives for a row."""
        ...


class Spread(Protocol):
    """Who works on shards: this process, or others."""

    def __call__(self, task: Task, blocks: Blocks) -> Iterator[tuple[int, Iterable[Any]]]:
        """Yield the number of each shard and what became of its rows, when it is done, in any order."""
        ...


def spread_here(engine: Engine) -> Spread:
    """Return what works on one shard after the other, in this process."""

    def spread(task: Task, blocks: Blocks) -> Iterator[tuple[int, Iterable[Any]]]:
        work = task.open(engine)
        for number, block in blocks:
            yield number, work(block)

    return spread
