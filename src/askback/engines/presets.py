"""What a training preset decides, and how a user's own options lie over it.

Takes: TuneOptions.  Gives: Recipe, with nothing left open.  Never: knows a model.
"""

from dataclasses import dataclass
from typing import Any

from askback.errors import ConfigError
from askback.options import TuneOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Every number a training run needs; written to the run file and the card."""

    preset: str
    lora: bool
    four_bit: bool
    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]
    learning_rate: float
    learning_rate_floor: float
    epochs: float
    batch: int
    max_tokens: int
    warmup: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class _Preset:
    learning_rate: float
    epochs: float
    batch: int
    max_tokens: int
    steps: int = 0
    floor: float = 0.0
    weight_decay: float = 0.0
    lora: bool = True
    four_bit: bool = False


PRESETS = {
    # The reference card names r, alpha, dropout and targets; rate, epochs, batch and length are our choice.
    "card": _Preset(learning_rate=2e-4, epochs=3, batch=16, max_tokens=1024),
    "qlora": _Preset(learning_rate=2e-4, epochs=3, batch=16, max_tokens=1024, four_bit=True),
    # A base of a few million parameters wants a rate twenty times higher; the bound keeps a CPU run in minutes.
    "tiny": _Preset(learning_rate=4e-3, epochs=4, batch=8, max_tokens=512, steps=150),
    # Li et al. 2023, section 3.1: 500 steps of 32 for 3,200 rows; the floor of the rate is absolute.
    "paper": _Preset(learning_rate=1e-5, epochs=5, batch=32, max_tokens=2048, floor=9e-6, weight_decay=0.1, lora=False),
}
PAPER_SMALL_ROWS, PAPER_SMALL_BATCH = 3000, 8
"""Below this many rows the paper takes batches of 8."""


def resolve(options: TuneOptions, *, rows: int, model_tokens: int) -> Recipe:
    """Fill what the user left open from the preset, and bound the length by what the base can read.

    Raises:
        ConfigError: the length asked for is longer than the base can read, or the rate's floor above the rate.
    """
    preset = PRESETS[options.preset]
    batch = PAPER_SMALL_BATCH if options.preset == "paper" and rows < PAPER_SMALL_ROWS else preset.batch
    if options.max_tokens > model_tokens:
        raise ConfigError(f"max_tokens = {options.max_tokens}, but the base reads at most {model_tokens} tokens")
    size = options.batch or batch
    epochs, most = options.epochs or preset.epochs, options.steps or (0 if options.epochs else preset.steps)
    recipe = Recipe(
        preset=options.preset,
        lora=preset.lora,
        four_bit=preset.four_bit,
        rank=options.rank if preset.lora else 0,
        alpha=options.alpha if preset.lora else 0,
        dropout=options.dropout if preset.lora else 0.0,
        targets=options.targets if preset.lora else (),
        learning_rate=options.learning_rate or preset.learning_rate,
        learning_rate_floor=options.learning_rate_floor or preset.floor,
        epochs=min(epochs, most * size / rows) if most and rows else epochs,
        batch=size,
        max_tokens=options.max_tokens or min(preset.max_tokens, model_tokens),
        warmup=options.warmup,
        weight_decay=options.weight_decay or preset.weight_decay,
    )
    if recipe.learning_rate_floor > recipe.learning_rate:
        raise ConfigError(
            f"learning_rate_floor = {recipe.learning_rate_floor} is above learning_rate = {recipe.learning_rate}; "
            "the floor is a rate of its own, not a factor"
        )
    return recipe


def filled(options: Any, *, model_tokens: int) -> Any:
    """Return the table with the preset's choices in place of what was left open, as a run file shows it.

    The paper's batch depends on the number of rows and stays open.
    """
    preset = PRESETS[options.preset]
    choices = {
        "learning_rate": preset.learning_rate,
        "learning_rate_floor": preset.floor,
        "epochs": preset.epochs,
        "steps": preset.steps if not options.epochs else 0,
        "batch": 0 if options.preset == "paper" else preset.batch,
        "max_tokens": min(preset.max_tokens, model_tokens),
        "weight_decay": preset.weight_decay,
    }
    return options.model_copy(update={name: value for name, value in choices.items() if not getattr(options, name)})


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Return the share of the highest rate at a step: warm-up, then linear down to the absolute floor."""
    floor = recipe.learning_rate_floor / recipe.learning_rate
    rise = max(1, round(recipe.warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return floor + (1 - floor) * max(0.0, (steps - step) / max(1, steps - rise))
