"""Tune a base on examples with peft and the Trainer, and write an adapter (or a whole model).

Takes: Examples laid out already.  Gives: a folder that plain peft and transformers load.
Never: knows which direction is trained, or goes on after a loss that is not finite.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askback.engines import batches, device
from askback.engines.bases import load_base
from askback.engines.presets import Recipe, rate_factor, resolve
from askback.engines.tokens import Row
from askback.errors import ConfigError, DataError, IntegrityError, borrow
from askback.options import TuneOptions
from askback.ports import Example, Fit, FitReport

if TYPE_CHECKING:
    from askback.engines.local import LocalEngine

COMPLETE = "complete.json"
"""Written into a checkpoint after everything else: one without it was cut off and is not used."""


def fit(engine: "LocalEngine", options: TuneOptions, *, seed: int) -> Fit:
    """Return the call that tunes the engine's base on examples."""

    def call(examples: Sequence[Example], out: Path) -> FitReport:
        recipe = resolve(options, rows=len(examples), model_tokens=engine.max_tokens)
        rows, rejected = tokenize(engine, examples, recipe)
        engine.release()
        device.seed_everything(seed)
        network = build_network(engine, recipe)
        order = batches.training_order([len(row) for row in rows], epochs=recipe.epochs, batch=recipe.batch, seed=seed)
        losses = train(network, [rows[i] for i in order], recipe, _Places(engine, options, out), seed=seed)
        trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
        parameters = sum(p.numel() for p in network.parameters())
        save(engine, network, recipe, out)
        return FitReport(
            examples=len(rows),
            epochs=recipe.epochs,
            steps=math.ceil(len(order) / recipe.batch),
            tokens=sum(len(rows[i]) for i in order),
            label_tokens=sum(len(rows[i].target) for i in order),
            losses=tuple(losses),
            rejected=tuple(rejected),
            trainable_parameters=trainable,
            parameters=parameters,
            recipe=asdict(recipe),
        )

    return call


class _Places:
    """Where a training run computes and keeps its checkpoints."""

    def __init__(self, engine: "LocalEngine", options: TuneOptions, out: Path) -> None:
        self.engine = engine
        self.every_s = options.checkpoint_every_s
        self.checkpoints = out.parent / "checkpoints"


def tokenize(
    engine: "LocalEngine", examples: Sequence[Example], recipe: Recipe
) -> tuple[list[Row], list[tuple[str, str]]]:
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


def build_network(engine: "LocalEngine", recipe: Recipe) -> Any:
    """Return the base with a fresh adapter on it, or a copy of the base whose every weight is trained."""
    if not recipe.lora:
        return load_base(engine.base, device.full_training_dtype(engine.dtype)).to(engine.device)
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if recipe.four_bit:
        borrow("bitsandbytes", "qlora")
        base = prepare_model_for_kbit_training(load_base(engine.base, engine.dtype, four_bit=True))
    else:
        base = engine.causal
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.targets),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        names = ", ".join(sorted({name.rsplit(".", 1)[-1] for name, _ in base.named_modules() if "." in name})[:20])
        raise ConfigError(f"targets = {list(recipe.targets)} are not in this base ({names} are): {error}") from error


def train(network: Any, rows: Sequence[Row], recipe: Recipe, places: _Places, *, seed: int) -> list[tuple[int, float]]:
    """Run the Trainer over the rows as they stand, going on from a checkpoint if one is there; return the losses."""
    from transformers import TrainingArguments

    from askback.engines.trainer import LabelTrainer, TimedCheckpoints

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
    trainer = LabelTrainer(
        model=network,
        args=arguments,
        train_dataset=list(rows),
        data_collator=engine.tokens,
        factor=lambda step: rate_factor(step, steps, recipe),
        callbacks=[TimedCheckpoints(places.every_s)],
    )
    checkpoint = last_checkpoint(places.checkpoints)
    network.config.use_cache = False
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    network.config.use_cache = True
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def _micro_batch(recipe: Recipe, budget: int) -> int:
    """Return the largest divisor of the batch whose longest rows fit the token budget."""
    fits = [size for size in range(1, recipe.batch + 1) if recipe.batch % size == 0]
    return max([size for size in fits if size * recipe.max_tokens <= budget], default=1)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end."""
    done = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(done, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def save(engine: "LocalEngine", network: Any, recipe: Recipe, out: Path) -> None:
    """Write what was trained, with its tokenizer, and leave the engine's base as it was before.

    Raises:
        IntegrityError: a weight is not finite, or an adapter learnt nothing at all.
    """
    check_weights(network, recipe)
    network.save_pretrained(str(out), safe_serialization=True)
    engine.tokens.tokenizer.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)  # the stock card is full of placeholders; ours comes with the run
    if recipe.lora:
        network.unload()
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
