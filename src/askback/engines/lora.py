"""Tune a base on examples with peft and the Trainer, and write an adapter (or a whole model).

Takes: Examples laid out already.  Gives: a folder that plain peft and transformers load.
Never: knows which direction is trained, or goes on after a loss that is not finite.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from askback.engines import batches, device
from askback.engines.bases import Base, load_base
from askback.engines.checkpoints import checkpoint_folder, drop_checkpoints, last_checkpoint
from askback.engines.presets import Recipe, rate_factor, resolve
from askback.engines.tokens import Row, Tokens
from askback.errors import ConfigError, DataError, IntegrityError, borrow
from askback.options import EngineOptions, TuneOptions
from askback.ports import Example, Fit, FitReport, Watch, ignore

if TYPE_CHECKING:
    import torch


BEYOND_STEPS = "beyond_steps: the bound of steps was reached before it"


class Bench(Protocol):
    """What training needs of the engine that holds the base."""

    options: EngineOptions
    base: Base
    tokens: Tokens
    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def causal(self) -> Any:
        """The bare base."""

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""

    def release(self) -> None:
        """Take every adapter off."""


def fit(engine: Bench, options: TuneOptions, *, seed: int) -> Fit:
    """Return the call that tunes the engine's base on examples."""

    def call(examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
        recipe = resolve(options, rows=len(examples), model_tokens=engine.max_tokens)
        rows, rejected = tokenize(engine, examples, recipe)
        engine.release()
        device.seed_everything(seed)
        network = build_network(engine, recipe)
        order = batches.training_order([len(row) for row in rows], epochs=recipe.epochs, batch=recipe.batch, seed=seed)
        laid = [rows[i] for i in order]
        used, unused = [rows[i] for i in sorted({*order})], [rows[i] for i in sorted({*range(len(rows))} - {*order})]
        checkpoints = checkpoint_folder(out.parent, laid, [asdict(recipe), seed, engine.base.hash])
        try:
            losses = train(network, laid, recipe, _Places(engine, checkpoints, options, watch), seed=seed)
            trainable, parameters = _count_parameters(network)
            save(engine, network, recipe, out)
        finally:
            if recipe.lora:
                network.unload().eval()  # also after a failure: the engine's base is as it was before
        drop_checkpoints(checkpoints)
        return FitReport(
            examples=len(used),
            epochs=recipe.epochs,
            steps=math.ceil(len(order) / recipe.batch),
            tokens=sum(len(rows[i]) for i in order),
            label_tokens=sum(len(rows[i].target) for i in order),
            losses=tuple(losses),
            rejected=(
                *rejected,
                *((row.id, BEYOND_STEPS) for row in unused),
            ),
            cut=sum(row.cut > 0 for row in used),
            trainable_parameters=trainable,
            parameters=parameters,
            recipe=asdict(recipe),
        )

    return call


class _Places:
    """Where a training run computes, keeps its checkpoints, and tells of its steps."""

    def __init__(self, engine: Bench, checkpoints: Path, options: TuneOptions, watch: Watch) -> None:
        self.engine = engine
        self.watch = watch
        self.every_s = options.checkpoint_every_s
        self.checkpoints = checkpoints


def _count_parameters(network: Any) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def tokenize(engine: Bench, examples: Sequence[Example], recipe: Recipe) -> tuple[list[Row], list[tuple[str, str]]]:
    """Return the rows that can be trained on and (id, reason) of those that cannot.

    Raises:
        DataError: no row is left; the message says what happened to the first.
    """
    rows: list[Row] = []
    rejected: list[tuple[str, str]] = []
    for example in examples:
        made = engine.tokens.row(example, recipe.max_tokens)
        if isinstance(made, Row):
            rows.append(made)
        else:
            rejected.append((example.id, f"{made.reason}: {made.detail}"))
    if not rows:
        why = rejected[0] if rejected else ("", "there are no examples")
        raise DataError(f"no example can be trained on; the first: {why[0]} {why[1]}")
    return rows, rejected


def build_network(engine: Bench, recipe: Recipe) -> Any:
    """Return the base with a fresh adapter on it, or a copy of the base whose every weight is trained."""
    if not recipe.lora:
        return load_base(engine.base, device.full_training_dtype(engine.dtype)).to(engine.device)
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if recipe.four_bit:
        borrow("bitsandbytes", "qlora")
        base = prepare_model_for_kbit_training(load_base(engine.base, engine.dtype, four_bit=True))
    else:
        base = engine.causal
    check_targets(base, recipe.targets)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def check_targets(base: Any, targets: Sequence[str]) -> None:
    """Refuse targets the base does not have: peft passes over them in silence as long as one is found.

    Raises:
        ConfigError: naming the missing ones and the linear modules that are there.
    """
    import torch

    linear = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)]
    missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in linear)]
    if missing:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ConfigError(f"targets: {', '.join(missing)} not in this base; its linear modules are {there}")


def train(network: Any, rows: Sequence[Row], recipe: Recipe, places: _Places, *, seed: int) -> list[tuple[int, float]]:
    """Run the Trainer over the rows as they stand, going on from a checkpoint if one is there; return the losses."""
    from transformers import PrinterCallback, TrainingArguments

    from askback.engines.trainer import LabelTrainer, Tell, TimedCheckpoints

    engine = places.engine
    micro = _micro_batch(recipe, engine.options.batch_tokens)
    steps = math.ceil(len(rows) / recipe.batch)
    arguments = TrainingArguments(
        output_dir=str(places.checkpoints),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=recipe.batch // micro,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch",
        adam_beta2=0.95,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,  # while the newer one is being written, the older one is the one to go on from
        report_to="none",
        disable_tqdm=True,
        seed=seed % 2**32,
        data_seed=seed % 2**32,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=engine.device.type == "cpu",
        bf16=device.autocasts(engine.dtype, engine.device),
        log_level="error",
    )
    device.keep_to_one(arguments)
    trainer = LabelTrainer(
        model=network,
        args=arguments,
        train_dataset=list(rows),
        data_collator=engine.tokens,
        factor=lambda step: rate_factor(step, steps, recipe),
        callbacks=[TimedCheckpoints(places.every_s), Tell(places.watch)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(places.checkpoints)
    network.config.use_cache = False
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        network.config.use_cache = True
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def _micro_batch(recipe: Recipe, budget: int) -> int:
    """Return the largest divisor of the batch whose longest rows fit the token budget."""
    fits = [size for size in range(1, recipe.batch + 1) if recipe.batch % size == 0]
    return max([size for size in fits if size * recipe.max_tokens <= budget], default=1)


def save(engine: Bench, network: Any, recipe: Recipe, out: Path) -> None:
    """Write what was trained, with its tokenizer.

    Raises:
        IntegrityError: a weight is not finite, or an adapter learnt nothing at all.
    """
    check_weights(network, recipe)
    if recipe.lora:  # peft holds them as a set, whose order would differ from process to process
        network.peft_config["default"].target_modules = sorted(recipe.targets)
    network.save_pretrained(str(out), safe_serialization=True)
    engine.tokens.tokenizer.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)  # the stock card is full of placeholders; ours comes with the run
    if recipe.lora:
        note = {"base": engine.base.name, "path": engine.base.path, "hash": engine.base.hash}
        (out / "base.json").write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_weights(network: Any, recipe: Recipe) -> None:
    """Refuse weights that are not finite, and an adapter whose B matrices are still zero."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, weight in trained.items():
        if not bool(weight.isfinite().all()):
            raise IntegrityError(f"{name} is not finite after training; lower learning_rate and run again")
    if recipe.lora and not any(bool(weight.any()) for name, weight in trained.items() if "lora_B" in name):
        raise IntegrityError("the adapter learnt nothing: every lora_B is zero; are there labels in the rows?")
