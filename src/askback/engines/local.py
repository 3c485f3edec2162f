"""Transformers on this machine: one base in memory, adapters put on and taken off.

Takes: Prompts and Examples.  Gives: replies, choices, log-likelihoods, in the order asked.
Never: loads a base twice, or lets batch and order change what is drawn.
"""

import gc
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askback.engines import batches, device
from askback.engines.bases import load_base, load_tokenizer, open_base
from askback.engines.tokens import Row, Slot, Tokens
from askback.errors import ConfigError
from askback.options import EngineOptions, TuneOptions
from askback.ports import Ask, Choice, Example, Fit, Generate, Likelihood, LogLikelihood, Prompt, Reply, Sampling

if TYPE_CHECKING:
    import torch

WINDOW = 1024
"""Requests looked at together so that similar lengths share a batch."""
NO_ROOM = Reply("", "no_room")
"""The answer to a prompt whose fixed parts and new tokens together are longer than the base reads."""
SHARED_TOKENS = 1024
"""Target tokens that are scored together after a prompt they share."""


class LocalEngine:
    """The four calls on one base. `model` is an adapter folder, a full model's folder, or None for the bare base."""

    tunes = True

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.base = open_base(options)
        self.device = device.pick_device(options)
        self.dtype = device.pick_dtype(options, self.device)
        device.set_threads(options)
        self.tokens = Tokens(load_tokenizer(self.base))
        self.shares_prefixes = True
        """Whether `choose` reads once what prompts begin with alike; off only to measure what that is worth."""
        self._model: Any = None
        self._names: dict[Path, str] = {}
        self._full: tuple[Path, Any] | None = None

    # --- the four calls

    def count_tokens(self, text: str) -> int:
        """Return how many tokens of the base a text has."""
        return len(self.tokens.encode(text))

    def generate(self, model: Path | None = None) -> Generate:
        """Return the call that writes texts with `model`."""

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            for window in _windows(asks):
                yield from self._generate(model, window, sampling)

        return call

    def choose(self, model: Path | None = None) -> "ChooseCall":
        """Return the call that gives the probabilities of fixed answers."""
        return ChooseCall(self, model)

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return the call that scores targets."""

        def call(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
            for window in _windows(examples):
                yield from self._likelihood(model, window)

        return call

    def fit(self, options: TuneOptions, *, seed: int) -> Fit:
        """Return the call that tunes the base; see `engines.lora`."""
        from askback.engines.lora import fit

        return fit(self, options, seed=seed)

    def describe(self) -> dict[str, Any]:
        """Return what goes into a run's fingerprint and its cards: the base, its hash, the precision."""
        return {"kind": "local", **self.base.describe(), "precision": str(self.dtype).removeprefix("torch.")}

    # --- models in memory

    @property
    def causal(self) -> Any:
        """The bare base, loaded on first use."""
        if self._model is None:
            self._model = load_base(self.base, self.dtype).to(self.device).eval()
        base = self._model
        return base.base_model.model if self._names else base

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""
        return self.base.max_tokens

    def release(self) -> None:
        """Take every adapter off and forget it: the next caller finds the bare base."""
        if self._names:
            self._model = self._model.unload()
            self._names = {}
        self._full = None
        gc.collect()

    def forget(self) -> None:
        """Take the base out of memory; the next call reads it again."""
        self.release()
        self._model = None
        gc.collect()
        device.give_back()

    def _active(self, model: Path | None) -> Any:
        """Return the network that answers for `model`, with just that adapter on."""
        base = self.causal
        if model is None:
            if not self._names:
                return base
            self._model.base_model.disable_adapter_layers()
            return self._model
        if not (model / "adapter_config.json").exists():
            return self._full_model(model)
        if model not in self._names:
            self._attach(model)
        self._model.base_model.enable_adapter_layers()
        self._model.set_adapter(self._names[model])
        self._model.requires_grad_(False)
        return self._model

    def _attach(self, model: Path) -> None:
        from peft import PeftModel

        name = f"adapter{len(self._names)}"
        if self._names:
            self._model.load_adapter(str(model), adapter_name=name)
        else:
            self._model = PeftModel.from_pretrained(self._model, str(model), adapter_name=name)
        self._model.eval()
        self._names[model] = name

    def _full_model(self, model: Path) -> Any:
        if not (model / "config.json").exists():
            raise ConfigError(f"{model}: neither an adapter (adapter_config.json) nor a model (config.json)")
        if self._full is None or self._full[0] != model:
            from transformers import AutoModelForCausalLM

            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=self.dtype, trust_remote_code=False)
            self._full = (model, loaded.to(self.device).eval())
        return self._full[1]

    # --- one window at a time

    def _generate(self, model: Path | None, asks: list[Ask], sampling: Sampling) -> Iterator[Reply]:
        made = [self.tokens.prompt(ask.prompt, self._room(ask.prompt) - sampling.max_new_tokens) for ask in asks]
        prompts = {position: ids for position, found in enumerate(made) if found is not None for ids in found[:1]}
        replies: dict[int, Reply] = {}
        order = list(prompts)
        lengths = [len(prompts[i]) + sampling.max_new_tokens for i in order]
        for batch in batches.by_token_budget(lengths, self.options.batch_tokens):
            asked = [order[k] for k in batch]
            seeds = [asks[i].seed for i in asked]
            texts = self._generate_batch(model, [prompts[i] for i in asked], seeds, sampling)
            replies.update(zip(asked, texts, strict=True))
        yield from (replies.get(position, NO_ROOM) for position in range(len(asks)))

    def _room(self, prompt: Prompt) -> int:
        return min(self.max_tokens, prompt.most or self.max_tokens)

    def _generate_batch(
        self, model: Path | None, prompts: list[list[int]], seeds: list[int], sampling: Sampling
    ) -> Iterator[Reply]:
        import torch
        from transformers import GenerationConfig

        from askback.engines.sampling import NoRepeat, RowSampling

        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.tokens.pad)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=self.tokens.pad,
            eos_token_id=self.tokens.stop,
        )
        rules: list[Any] = [NoRepeat(sampling.no_repeat, width)] if sampling.no_repeat else []
        if sampling.temperature > 0:
            rules.append(RowSampling(seeds, sampling.temperature, sampling.top_p))
        network = self._active(model)
        with torch.inference_mode():
            out = network.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                generation_config=config,
                logits_processor=rules,
            )
        for row in out[:, width:].tolist():
            stopped = self.tokens.stop in row
            kept = row[: row.index(self.tokens.stop)] if stopped else row
            yield Reply(self.tokens.decode(kept).strip(), "stop" if stopped else "length", len(kept))

    def _likelihood(self, model: Path | None, examples: list[Example]) -> Iterator[LogLikelihood | None]:
        rows = [self.tokens.row(example, self._room(example.prompt)) for example in examples]
        ready = [row for row in rows if isinstance(row, Row)]
        totals = iter(self._score(model, ready))
        for row in rows:
            yield LogLikelihood(next(totals), len(row.target)) if isinstance(row, Row) else None

    def _score(self, model: Path | None, rows: Sequence[Row]) -> list[float]:
        """Return log p(target | prompt) of each row; a prompt that several rows share is read once."""
        totals = [0.0] * len(rows)
        alone, groups = self._grouped(model, rows)
        for group in groups:
            for position, total in zip(group, self._score_group(model, [rows[i] for i in group]), strict=True):
                totals[position] = total
        for batch in batches.by_token_budget([len(rows[i]) for i in alone], self.options.batch_tokens):
            made = self._score_batch(model, [rows[alone[k]] for k in batch])
            for k, total in zip(batch, made, strict=True):
                totals[alone[k]] = total
        return totals

    def _grouped(self, model: Path | None, rows: Sequence[Row]) -> tuple[list[int], list[list[int]]]:
        """Return positions of rows whose prompt is theirs alone, and groups that share one."""
        from askback.engines.shared import shares_prompts

        if not rows or not shares_prompts(self._active(model)):
            return list(range(len(rows))), []
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for position, row in enumerate(rows):
            by_prompt.setdefault(row.prompt, []).append(position)
        groups: list[list[int]] = []
        for same in by_prompt.values():
            groups += batches.by_total(same, [len(rows[i].target) for i in same], SHARED_TOKENS)
        return [group[0] for group in groups if len(group) == 1], [group for group in groups if len(group) > 1]

    def _score_group(self, model: Path | None, rows: Sequence[Row]) -> list[float]:
        import torch

        from askback.engines.shared import score_targets

        network = self._active(model)
        with torch.inference_mode():
            return score_targets(network, rows[0].prompt, [row.target for row in rows], self.device)

    def _score_batch(self, model: Path | None, rows: Sequence[Row]) -> list[float]:
        import torch

        from askback.engines.heads import logits_at

        ids, mask, labels = batches.pad_right(rows, self.tokens.pad)
        wanted = labels.roll(-1, dims=1) != -100  # the position before a target token predicts it
        network = self._active(model)
        with torch.inference_mode():
            logits = logits_at(network, ids.to(self.device), mask.to(self.device), wanted)
            targets = torch.cat([torch.tensor(row.target) for row in rows]).to(self.device)
            losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().double()
        return [-float(part.sum()) for part in torch.split(losses, [len(row.target) for row in rows])]

    def choose_batch(
        self, model: Path | None, prompts: list[Prompt], choices: Sequence[str]
    ) -> Iterator[Choice | None]:
        """Yield the probabilities at the answer slot of one window of prompts."""
        slots: dict[int, Slot] = {}
        rows: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        for place, prompt in enumerate(prompts):
            slot = self.tokens.choice_slot(prompt.after, choices)
            longest = len(slot.lead) + max(map(len, slot.steps))
            made = self.tokens.prompt(Prompt(prompt.before, prompt.body), self._room(prompt) - longest)
            if made is not None:
                slots[place] = slot
                rows += [(place, done, (*made[0], *slot.lead, *done)) for done in slot.steps]
        chances: dict[int, dict[tuple[int, ...], float]] = {place: {} for place in slots}
        for row, shares in self._next_shares(model, [ids for *_, ids in rows]):
            place, done, _ = rows[row]
            chances[place] |= {(*done, token): float(shares[token]) for token in slots[place].steps[done]}
        yield from (slots[at].weigh(chances[at]) if at in slots else None for at in range(len(prompts)))

    def _next_shares(self, model: Path | None, rows: Sequence[tuple[int, ...]]) -> "Iterator[tuple[int, torch.Tensor]]":
        """Yield (position, probabilities of the token that follows) of each row, batch by batch."""
        from askback.engines.prefix import next_logits

        asked = [row or (self.tokens.stop,) for row in rows]  # something must come before what is asked for
        made = next_logits(
            self._active(model),
            asked,
            pad=self.tokens.pad,
            batch_tokens=self.options.batch_tokens,
            share=self.shares_prefixes,
        )
        for positions, logits in made:
            yield from zip(positions, logits.softmax(-1).cpu(), strict=True)


class ChooseCall:
    """The `Choose` call of one model."""

    def __init__(self, engine: LocalEngine, model: Path | None) -> None:
        self.engine = engine
        self.model = model

    def __call__(self, prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
        """Yield one Choice per prompt, in order."""
        for window in _windows(prompts):
            yield from self.engine.choose_batch(self.model, window, choices)


def _windows(items: Iterable[Any]) -> Iterator[list[Any]]:
    stream = iter(items)
    while window := list(islice(stream, WINDOW)):
        yield window
