"""Tune a base on examples with peft and the Trainer, and write an adapter (or a whole model).

Takes: Examples laid out already.  Gives: a folder that plain peft and transformers load.
Never: knows which direction is trained, or goes on after a loss that is not finite.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from askback.engines import batches, device, launch
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

    def release(self) -> None:
        """Take every adapter off."""


class Desk(Protocol):
    """What laying out a training needs of an engine; it may hold its base in another process."""

    options: EngineOptions
    base: Base
    tokens: Tokens

    @property
    def max_tokens(self) -> int:
        """The longest row the base can read."""

    def forget(self) -> None:
        """Take the base out of memory; the next call reads it again."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training run with nothing left open: what decides it, and where it keeps its checkpoints."""

    options: EngineOptions
    recipe: Recipe
    rows: tuple[Row, ...]
    """As often and in the order they are trained on."""
    seed: int
    checkpoints: Path
    every_s: float


@dataclass(frozen=True, slots=True)
class Made:
    """What is told of a training run beside what it wrote."""

    losses: tuple[tuple[int, float], ...]
    trainable: int
    parameters: int


def fit(engine: Any, options: TuneOptions, *, seed: int, apart: bool = False) -> Fit:
    """Return the call that tunes the engine's base on examples.

    Several devices, or `apart`: in processes of their own, and the engine's base is out of memory meanwhile, so that it
    is never there twice.
    """
    desk: Desk = engine

    def call(examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
        count = device.count_devices(desk.options)
        if desk.options.shard:
            device.check_sharding(device.pick_device(desk.options), max(count, launch.world()))
        recipe = resolve(options, rows=len(examples), model_tokens=desk.max_tokens)
        rows, rejected = tokenize(desk, examples, recipe)
        order = batches.training_order([len(row) for row in rows], epochs=recipe.epochs, batch=recipe.batch, seed=seed)
        laid = tuple(rows[i] for i in order)
        used, unused = [rows[i] for i in sorted({*order})], [rows[i] for i in sorted({*range(len(rows))} - {*order})]
        checkpoints = checkpoint_folder(out.parent, laid, [asdict(recipe), seed, desk.base.hash]).resolve()
        job = Job(desk.options, recipe, laid, seed, checkpoints, options.checkpoint_every_s)
        if not launch.is_launched() and (apart or count > 1):
            desk.forget()
            made = launch.train_apart(job, out, count, watch)
        else:
            launch.call(job)
            made = carry_out(engine, job, out, watch)
        drop_checkpoints(checkpoints)
        return FitReport(
            examples=len(used),
            epochs=recipe.epochs,
            steps=math.ceil(len(order) / recipe.batch),
            tokens=sum(len(rows[i]) for i in order),
            label_tokens=sum(len(rows[i].target) for i in order),
            losses=made.losses,
            rejected=(
                *rejected,
                *((row.id, BEYOND_STEPS) for row in unused),
            ),
            cut=sum(row.cut > 0 for row in used),
            trainable_parameters=made.trainable,
            parameters=made.parameters,
            recipe=asdict(recipe),
        )

    return call


def carry_out(engine: Bench, job: Job, out: Path, watch: Watch) -> Made:
    """Train as the job says, and write what was trained; of several processes only rank 0 writes."""
    engine.release()
    device.seed_everything(job.seed)
    network = build_network(engine, job.recipe)
    try:
        losses, weights = train(network, engine, job, watch)
        trainable, parameters = _count_parameters(network)
        if not launch.rank():
            save(engine, network, job.recipe, out, weights)
    finally:
        if device.knows_memory(engine.device):
            network.gradient_checkpointing_disable()
        if job.recipe.lora:
            network.unload().eval()  # also after a failure: the engine's base is as it was before
    return Made(tuple(losses), trainable, parameters)


def _count_parameters(network: Any) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def tokenize(engine: Desk, examples: Sequence[Example], recipe: Recipe) -> tuple[list[Row], list[tuple[str, str]]]:
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
    spread = _is_spread(engine.options)
    if not recipe.lora:
        whole = load_base(engine.base, device.full_training_dtype(engine.dtype))
        return whole if spread else whole.to(engine.device)
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if recipe.four_bit:
        borrow("bitsandbytes", "qlora")
        base = prepare_model_for_kbit_training(load_base(engine.base, engine.dtype, four_bit=True))
    else:
        base = load_base(engine.base, engine.dtype) if spread else engine.causal  # what is spread never lies on one
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


def train(network: Any, engine: Bench, job: Job, watch: Watch) -> tuple[list[tuple[int, float]], dict[str, Any] | None]:
    """Run the Trainer over the rows as they stand, going on from a checkpoint if one is there.

    Return the losses, and what was trained where it lies spread over several devices.
    """
    from transformers import PrinterCallback, TrainingArguments

    from askback.engines.trainer import LabelTrainer, Tell, TimedCheckpoints

    recipe, world = job.recipe, launch.world()
    mine = math.ceil(recipe.batch / world)
    micro = _micro_batch(network, engine, job, mine)
    steps = math.ceil(len(job.rows) / recipe.batch)
    seed = (job.seed + launch.rank()) % 2**32  # what is dropped out must not be the same in every process
    arguments = TrainingArguments(
        output_dir=str(job.checkpoints),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=mine // micro,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=1.0,
        optim=device.optimizer(engine.device),
        adam_beta2=0.95,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,  # while the newer one is being written, the older one is the one to go on from
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=engine.device.type == "cpu",
        bf16=device.autocasts(engine.dtype, engine.device),
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        log_level="error",
        log_level_replica="error",
        **({"fsdp": True} if _is_spread(engine.options) else {}),
    )
    device.keep_to_one(arguments)
    trainer = LabelTrainer(
        model=network,
        args=arguments,
        train_dataset=list(job.rows),
        data_collator=engine.tokens,
        rows_in_step=recipe.batch,
        factor=lambda step: rate_factor(step, steps, recipe),
        callbacks=[TimedCheckpoints(job.every_s), Tell(watch)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(job.checkpoints)
    network.config.use_cache = False
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        network.config.use_cache = True
    weights = trainer.accelerator.get_state_dict(trainer.model) if _is_spread(engine.options) else None
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry], weights


def _is_spread(options: EngineOptions) -> bool:
    return options.shard and launch.world() > 1


def _micro_batch(network: Any, engine: Bench, job: Job, mine: int) -> int:
    """Return how many of a process's rows in a step are read at once.

    On a device that knows its memory and without a budget of the user's it is found by trying. Where not even one row
    fits, hidden states are computed twice instead of kept.
    """
    sizes = [size for size in range(1, mine + 1) if mine % size == 0]
    options = engine.options
    if not device.knows_memory(engine.device) or "batch_tokens" in options.model_fields_set or _is_spread(options):
        return max([size for size in sizes if size * job.recipe.max_tokens <= options.batch_tokens], default=1)
    reserve = 8 * _count_parameters(network)[0]  # both moments of AdamW, in float32

    def fits() -> int:
        found = device.largest_that_fits(_trial(network, engine, job), sizes, engine.device, reserve=reserve)
        return launch.least(found, engine.device)

    if found := fits():
        return found
    network.gradient_checkpointing_enable({"use_reentrant": False})
    return fits() or 1


def _trial(network: Any, engine: Bench, job: Job) -> Callable[[int], None]:
    """Return what reads so many of the longest rows forward and backward, and leaves no trace."""
    import torch

    from askback.engines.heads import logits_at

    longest = sorted(job.rows, key=len, reverse=True)

    def attempt(rows: int) -> None:
        ids, mask, labels = (part.to(engine.device) for part in batches.pad_right(longest[:rows], engine.tokens.pad))
        wanted = labels.roll(-1, dims=1) != -100
        network.train()
        with torch.autocast(engine.device.type, torch.bfloat16, enabled=device.autocasts(engine.dtype, engine.device)):
            logits = logits_at(network, ids, mask if device.reads_padding_mask(engine.device) else None, wanted)
            loss: Any = torch.nn.functional.cross_entropy(logits, labels.roll(-1, dims=1)[wanted])
        loss.backward()
        network.zero_grad(set_to_none=True)

    return attempt


def save(engine: Bench, network: Any, recipe: Recipe, out: Path, weights: dict[str, Any] | None = None) -> None:
    """Write what was trained, with its tokenizer; `weights` where the network does not hold them all.

    Raises:
        IntegrityError: a weight is not finite, or an adapter learnt nothing at all.
    """
    check_weights(_trained(network, weights), recipe)
    if recipe.lora:  # peft holds them as a set, whose order would differ from process to process
        network.peft_config["default"].target_modules = sorted(recipe.targets)
    network.save_pretrained(str(out), safe_serialization=True, **({"state_dict": weights} if weights else {}))
    engine.tokens.tokenizer.save_pretrained(str(out))
    (out / "README.md").unlink(missing_ok=True)  # the stock card is full of placeholders; ours comes with the run
    if recipe.lora:
        note = {"base": engine.base.name, "path": engine.base.path, "hash": engine.base.hash}
        (out / "base.json").write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _trained(network: Any, weights: dict[str, Any] | None) -> dict[str, Any]:
    names = {name: p for name, p in network.named_parameters() if p.requires_grad}
    return {name: weights[name] for name in names} if weights else names


def check_weights(trained: dict[str, Any], recipe: Recipe) -> None:
    """Refuse weights that are not finite, and an adapter whose B matrices are still zero."""
    for name, weight in trained.items():
        if not bool(weight.isfinite().all()):
            raise IntegrityError(f"{name} is not finite after training; lower learning_rate and run again")
    if recipe.lora and not any(bool(weight.any()) for name, weight in trained.items() if "lora_B" in name):
        raise IntegrityError("the adapter learnt nothing: every lora_B is zero; are there labels in the rows?")
