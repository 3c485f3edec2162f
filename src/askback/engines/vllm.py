"""vLLM on this machine: one base, several adapters at once, beginnings that rows share kept.

Takes: Prompts and Examples.  Gives: replies, choices, log-likelihoods, in the order asked.
Never: has its base in memory while a training has it there; hands vLLM a text: prompts go in as the ids of training.
"""

import gc
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

from askback.engines import device
from askback.engines.bases import load_tokenizer, open_base
from askback.engines.tokens import Row, Slot, Tokens
from askback.errors import ConfigError, borrow
from askback.options import EngineOptions, TuneOptions
from askback.ports import (
    Ask,
    Choice,
    Choose,
    Example,
    Fit,
    Generate,
    Likelihood,
    LogLikelihood,
    Prompt,
    Reply,
    Sampling,
)

WINDOW = 4096
"""Requests handed over together; vLLM makes its own batches of them."""
NO_ROOM = Reply("", "no_room")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The highest ranks vLLM lets adapters have; it is told one of them when it starts."""
Place = tuple[int, tuple[int, ...]]
"""A row, and what of a choice is written already."""
Asked = tuple[list[int], dict[str, Any]]
"""Ids, and the SamplingParams that go with them."""


class Reach(NamedTuple):
    """What adapters may change. No more than they need: vLLM cannot score prompts where its head may have one."""

    rank: int
    modules: frozenset[str]

    def joined(self, other: "Reach") -> "Reach":
        """Return room for both."""
        return Reach(max(self.rank, other.rank), self.modules | other.modules)


class VllmEngine:
    """The four calls on one base. `model` is an adapter folder, a full model's folder, or None for the bare base."""

    tunes = True

    def __init__(self, options: EngineOptions) -> None:
        borrow("vllm", "vllm")
        self.options = options
        self.base = open_base(options)
        self.dtype = device.pick_dtype(options, device.pick_device(options))
        self.tokens = Tokens(load_tokenizer(self.base))
        self._loaded: tuple[str, Any] | None = None
        self._reach = Reach(RANKS[0], frozenset(TuneOptions().targets))
        self._numbers: dict[Path, int] = {}

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""
        return self.base.max_tokens

    def count_tokens(self, text: str) -> int:
        """Return how many tokens of the base a text has."""
        return len(self.tokens.encode(text))

    def describe(self) -> dict[str, Any]:
        """Return what goes into a run's fingerprint and its cards: the base, its hash, the precision."""
        return {"kind": "vllm", **self.base.describe(), "precision": str(self.dtype).removeprefix("torch.")}

    # --- the calls

    def generate(self, model: Path | None = None) -> Generate:
        """Return the call that writes texts with `model`."""

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            if sampling.no_repeat:
                raise ConfigError(
                    "no_repeat: engine.kind = vllm has no such rule; set it to 0 or take engine.kind = local"
                )
            for window in _windows(asks):
                yield from self._generate(model, window, sampling)

        return call

    def choose(self, model: Path | None = None) -> Choose:
        """Return the call that gives the probabilities of fixed answers."""

        def call(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
            for window in _windows(prompts):
                yield from self._choose(model, window, choices)

        return call

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return the call that scores targets."""

        def call(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
            for window in _windows(examples):
                yield from self._likelihood(model, window)

        return call

    def fit(self, options: TuneOptions, *, seed: int) -> Fit:
        """Return the call that tunes the base with transformers, in processes of its own, vLLM out of memory."""
        from askback.engines.lora import fit

        return fit(self, options, seed=seed, apart=True)

    # --- one window at a time

    def _generate(self, model: Path | None, asks: list[Ask], sampling: Sampling) -> Iterator[Reply]:
        made = [self.tokens.prompt(ask.prompt, self._room(ask.prompt) - sampling.max_new_tokens) for ask in asks]
        rows = [
            (found[0], draw(sampling, ask.seed, self.tokens.stop))
            for ask, found in zip(asks, made, strict=True)
            if found
        ]
        replies = iter(self._answer(model, rows))
        for found in made:
            yield NO_ROOM if found is None else read_reply(next(replies), self.tokens)

    def _choose(self, model: Path | None, prompts: list[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
        slots = [self.tokens.choice_slot(prompt.after, choices) for prompt in prompts]
        made = [self._lead(prompt, slot) for prompt, slot in zip(prompts, slots, strict=True)]
        places: list[Place] = []
        rows: list[Asked] = []
        for at, (lead, slot) in enumerate(zip(made, slots, strict=True)):
            for done, tokens in slot.steps.items() if lead is not None else ():
                places.append((at, done))
                rows.append(([*(lead or ()), *done], next_token(sorted(tokens))))
        chances: list[dict[tuple[int, ...], float]] = [{} for _ in prompts]
        for (at, done), output in zip(places, self._answer(model, rows), strict=True):
            chances[at] |= read_chances(output, done, slots[at].steps[done])
        for lead, slot, known in zip(made, slots, chances, strict=True):
            yield None if lead is None else slot.weigh(known)

    def _lead(self, prompt: Prompt, slot: Slot) -> list[int] | None:
        """Return the ids that lead to the answer; None where there is no room for them and one token more."""
        longest = len(slot.lead) + max(map(len, slot.steps)) + 1
        made = self.tokens.prompt(Prompt(prompt.before, prompt.body), self._room(prompt) - longest)
        return None if made is None else [*made[0], *slot.lead]

    def _likelihood(self, model: Path | None, examples: list[Example]) -> Iterator[LogLikelihood | None]:
        rows = [self.tokens.row(example, self._room(example.prompt)) for example in examples]
        asked = [(score_ids(row), score_target(row)) for row in rows if isinstance(row, Row)]
        outputs = iter(self._answer(model, asked))
        for row in rows:
            yield LogLikelihood(read_total(next(outputs), row), len(row.target)) if isinstance(row, Row) else None

    def _room(self, prompt: Prompt) -> int:
        return min(self.max_tokens, prompt.most or self.max_tokens)

    # --- vLLM

    def _answer(self, model: Path | None, rows: Sequence[Asked]) -> list[Any]:
        """Return what vLLM gives for rows of ids, each with its own parameters."""
        if not rows:
            return []
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        llm, adapter = self._open(model), None
        if model and _is_adapter(model):
            number = self._numbers.setdefault(model.resolve(), len(self._numbers) + 1)
            adapter = LoRARequest(f"adapter{number}", number, str(model.resolve()))
        prompts = [{"prompt_token_ids": ids or [self.tokens.stop]} for ids, _ in rows]
        parameters = [SamplingParams(detokenize=False, **given) for _, given in rows]
        return list(llm.generate(prompts, parameters, use_tqdm=False, lora_request=adapter))

    def _open(self, model: Path | None) -> Any:
        """Return vLLM with the base that answers for `model`: one at a time is in memory."""
        path, reach = self.base.path, self._reach
        if model and _is_adapter(model):
            reach = reach.joined(reach_of(model))
        elif model:
            path = str(model)
        if self._loaded is None or self._loaded[0] != path or reach != self._reach:
            self.forget()
            self._reach = reach
            self._loaded = (path, self._start(path))
        return self._loaded[1]

    def _start(self, path: str) -> Any:
        from vllm import LLM

        given = self.options.vllm
        return LLM(
            model=path,
            tokenizer=self.base.path,
            revision=self.base.revision if path == self.base.path else None,
            dtype=str(self.dtype).removeprefix("torch."),
            max_model_len=self.max_tokens,
            enable_lora=True,
            max_loras=given.adapters,
            max_lora_rank=self._reach.rank,
            lora_target_modules=sorted(self._reach.modules),
            enable_prefix_caching=True,
            gpu_memory_utilization=given.memory,
            tensor_parallel_size=given.gpus,
            generation_config="vllm",  # a base's own habits (penalties, sampling) are not ours
            disable_log_stats=True,
            seed=0,
        )

    def forget(self) -> None:
        """Take the base out of memory; the next call reads it again."""
        if self._loaded:
            self._loaded[1].llm_engine.engine_core.shutdown()
        self._loaded = None
        gc.collect()
        device.give_back()


def _is_adapter(model: Path) -> bool:
    return (model / "adapter_config.json").exists()


def reach_of(adapter: Path) -> Reach:
    """Return what vLLM must have room for: an adapter's rank, rounded up to one it takes, and its modules.

    Raises:
        ConfigError: it has a rank that vLLM does not take, or names its modules by a pattern.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    fits = [size for size in RANKS if size >= config["r"]]
    if not fits:
        raise ConfigError(
            f"{adapter}: rank {config['r']}, and vLLM takes at most {RANKS[-1]}; take engine.kind = local"
        )
    if isinstance(config["target_modules"], str):
        raise ConfigError(f"{adapter}: target_modules is a pattern, and vLLM wants names; take engine.kind = local")
    return Reach(fits[0], frozenset(config["target_modules"]))


# --- what is asked of vLLM, and what it gives, apart from it: dicts of its SamplingParams, RequestOutputs


def draw(sampling: Sampling, seed: int, stop: int) -> dict[str, Any]:
    """Return the parameters of a text: chance from the row's seed alone."""
    greedy = sampling.temperature == 0
    return {
        "temperature": sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "seed": None if greedy else seed,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": [stop],
    }


def next_token(tokens: Sequence[int]) -> dict[str, Any]:
    """Return the parameters of a question for the chances of some tokens to come next."""
    return {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": list(tokens)}


def score_ids(row: Row) -> list[int]:
    """Return what is read of a row: all but the last token, which is only predicted."""
    return [*row.prompt, *row.target[:-1]]


def score_target(row: Row) -> dict[str, Any]:
    """Return the parameters that give each token of a target its log-probability."""
    return {**next_token(row.target[-1:]), "prompt_logprobs": 0}


def read_reply(output: Any, tokens: Tokens) -> Reply:
    """Return the text of a RequestOutput."""
    ids = list(output.outputs[0].token_ids)
    stopped = tokens.stop in ids
    kept = ids[: ids.index(tokens.stop)] if stopped else ids
    return Reply(tokens.decode(kept).strip(), "stop" if stopped else "length", len(kept))


def read_chances(output: Any, done: tuple[int, ...], tokens: Iterable[int]) -> dict[tuple[int, ...], float]:
    """Return the probability of each way to go on from `done`."""
    found: Mapping[int, Any] = output.outputs[0].logprobs[0]
    return {(*done, token): exp(found[token].logprob) for token in tokens}


def read_total(output: Any, row: Row) -> float:
    """Return log p(target | prompt) of a row whose last token was asked for as the next one."""
    read = output.prompt_logprobs[len(row.prompt) :]
    total = sum(found[token].logprob for found, token in zip(read, row.target[:-1], strict=True))
    return float(total + output.outputs[0].logprobs[0][row.target[-1]].logprob)


def _windows(items: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(items)
    while window := list(islice(stream, WINDOW)):
        yield window
