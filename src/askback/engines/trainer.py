"""A small Trainer: logits at labels only, rows in the order given, a loss that must be finite.

Takes: Rows in training order.  Gives: transformers' own training loop.
Never: shuffles, since the order was made with the seed; or lets a NaN pass as a step.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback

from askback.engines.batches import pad_right
from askback.engines.checkpoints import COMPLETE
from askback.engines.heads import logits_at
from askback.engines.tokens import Row, Tokens
from askback.errors import IntegrityError


class Collate:
    """Rows -> padded ids, mask and labels."""

    def __init__(self, tokens: Tokens) -> None:
        self.pad = tokens.pad

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return tensors [rows, longest]; labels are -100 off target."""
        ids, mask, labels = pad_right(rows, self.pad)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class LabelTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with a masked head, its own rate schedule and a sequential sampler."""

    def __init__(self, *, factor: Callable[[int], float], data_collator: Tokens, **options: Any) -> None:
        super().__init__(data_collator=Collate(data_collator), **options)
        self.factor = factor
        self.model_accepts_loss_kwargs = True  # so that accumulated steps share one denominator

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule of the recipe: its floor is an absolute rate."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of the label tokens' losses over the label tokens of the whole step.

        Raises:
            IntegrityError: the loss is not finite, or no token carries a label.
        """
        labels = inputs["labels"]
        wanted = labels.roll(-1, dims=1) != -100
        logits = logits_at(_unwrapped(model), inputs["input_ids"], inputs["attention_mask"], wanted)
        targets = labels.roll(-1, dims=1)[wanted]
        count = num_items_in_batch if num_items_in_batch is not None else targets.numel()
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
        if not math.isfinite(loss.item()) or not targets.numel():
            raise IntegrityError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} "
                f"with {targets.numel()} label tokens; lower learning_rate or look at --show-labels"
            )
        return (loss, {"logits": logits}) if return_outputs else loss


def _unwrapped(model: Any) -> Any:
    return model.module if hasattr(model, "module") else model


class TimedCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Save every so many seconds, and mark a checkpoint as complete only after everything else is on the disk."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Ask for a checkpoint when it is time."""
        if time.monotonic() - self.last >= self.every_s and state.global_step < state.max_steps:
            control.should_save = True
            self.last = time.monotonic()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / COMPLETE).write_text(json.dumps({"step": state.global_step}), encoding="utf-8")


class Tell(TrainerCallback):  # type: ignore[misc]
    """Tell whoever watches how many steps are done, of how many."""

    def __init__(self, watch: Callable[[int, int], None]) -> None:
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step more."""
        self.watch(state.global_step, state.max_steps)
