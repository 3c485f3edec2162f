"""A small Trainer: logits at labels only, rows in the order given, a loss that must be finite.

Takes: Rows in training order.  Gives: transformers' own training loop, in one process or in several that train one
network together.
Never: shuffles, since the order was made with the seed; or lets a NaN pass as a step.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Trainer, TrainerCallback

from askback.engines import device
from askback.engines.batches import pad_right, share_of
from askback.engines.checkpoints import COMPLETE
from askback.engines.heads import answer_at, logits_at
from askback.engines.tokens import Row, Tokens
from askback.errors import IntegrityError, Stopped


class Collate:
    """Rows -> padded ids, mask and labels."""

    def __init__(self, tokens: Tokens) -> None:
        self.pad = tokens.pad

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return tensors [rows, longest]; labels are -100 off target. No rows make one of padding, without a label."""
        ids, mask, labels = pad_right(rows or [Row("", (self.pad,) * 2, ())], self.pad)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class LabelTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with a masked head, its own rate schedule and a sequential sampler."""

    world = 1

    def __init__(
        self, *, factor: Callable[[int], float], data_collator: Tokens, rows_in_step: int = 0, **options: Any
    ) -> None:
        super().__init__(data_collator=Collate(data_collator), **options)
        self.factor = factor
        self.rows_in_step = rows_in_step
        self.world = self.args.world_size
        if self.world > 1:
            answer_at(self.model)
        self.model_accepts_loss_kwargs = True  # so that accumulated steps share one denominator

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_train_dataloader(self) -> Any:
        """Return this process's share of every batch; alone, the batches as they are."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        micro, times = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        share = share_of(
            len(self.train_dataset),
            batch=self.rows_in_step or micro * times,
            micro=micro,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        return DataLoader(self.train_dataset, batch_sampler=share, collate_fn=self.data_collator)

    def compute_loss_context_manager(self) -> ExitStack:
        """Run the products of a step in the precision asked for: the masked head goes past what would see to it."""
        stack = ExitStack()
        stack.enter_context(self.accelerator.autocast())
        return stack

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule of the recipe: its floor is an absolute rate."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of the label tokens' losses over the label tokens of the whole step, in all processes.

        Raises:
            IntegrityError: the loss is not finite, or no token carries a label.
        """
        labels = inputs["labels"]
        wanted = labels.roll(-1, dims=1) != -100
        mask = inputs["attention_mask"] if device.reads_padding_mask(labels.device) else None
        together = self.world > 1
        if together:  # through what is wrapped around the network, which brings the gradients together
            logits = model(input_ids=inputs["input_ids"], attention_mask=mask, wanted=wanted)
        else:
            logits = logits_at(_unwrapped(model), inputs["input_ids"], mask, wanted)
        targets = labels.roll(-1, dims=1)[wanted]
        count = num_items_in_batch if num_items_in_batch is not None else targets.numel()
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
        if not math.isfinite(loss.item()) or not (targets.numel() or together):
            raise IntegrityError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} "
                f"with {targets.numel()} label tokens; lower learning_rate or look at --show-labels"
            )
        loss = loss * self.world if together else loss  # gradients and losses of all processes are averaged
        return (loss, {"logits": logits}) if return_outputs else loss


def _unwrapped(model: Any) -> Any:
    return model.module if hasattr(model, "module") else model


class TimedCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Save every so many seconds, and mark a checkpoint as complete only after everything else is on the disk."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Ask for a checkpoint when it is time, by the clock of rank 0."""
        due = time.monotonic() - self.last >= self.every_s and state.global_step < state.max_steps
        if said_by_first(due, args.device):
            control.should_save = True
            self.last = time.monotonic()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written, when every process has written its part."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if not args.should_save:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / COMPLETE).write_text(json.dumps({"step": state.global_step}), encoding="utf-8")


def said_by_first(value: bool, where: torch.device) -> bool:
    """Return what rank 0 says, in every process; alone, the value."""
    if not torch.distributed.is_initialized():
        return value
    said = torch.tensor([value], dtype=torch.int32, device=where)
    torch.distributed.broadcast(said, src=0)
    return bool(said.item())


class Tell(TrainerCallback):  # type: ignore[misc]
    """Tell whoever watches how many steps are done, of how many; if they stop it, write a checkpoint and stop."""

    def __init__(self, watch: Callable[[int, int], None]) -> None:
        self.watch = watch
        self.stopped: Stopped | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """One step more."""
        try:
            self.watch(state.global_step, state.max_steps)
        except Stopped as stopped:
            self.stopped = stopped
        if said_by_first(self.stopped is not None, args.device):
            self.stopped = self.stopped or Stopped("stopped by rank 0; the same command goes on from here")
            control.should_save = control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave as whoever watches wanted, now that the checkpoint is there."""
        if self.stopped:
            raise self.stopped
