"""How signals become a score once people have said which pairs are good: a small logistic model, as plain numbers.

Takes: signals by name.  Gives: a score from 1 to 5, which is 1 + 4 x the probability that the pair is good.
Never: fits itself (stages/calibrate.py does), or gives a score where a signal is missing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from askback.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Weights of a logistic regression on standardized signals, and the score to keep from."""

    signals: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    keep_from: float
    """Lowest score that reached the wanted precision on the labelled pairs."""
    wanted_precision: float
    n: int
    good: int

    def score(self, values: Mapping[str, float | None]) -> float | None:
        """Return 1 + 4 p(good | signals), or None where a signal has no value."""
        total = self.bias
        for name, mean, scale, weight in zip(self.signals, self.means, self.scales, self.weights, strict=True):
            value = values.get(name)
            if value is None:
                return None
            total += weight * (value - mean) / scale
        return 1 + 4 / (1 + math.exp(-max(-500.0, min(500.0, total))))

    def dumps(self) -> str:
        """Return the JSON that `curate.calibration` names."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def loads(cls, text: str, where: str) -> "Calibration":
        """Read it back.

        Raises:
            ConfigError: not a calibration, or one whose numbers cannot be used.
        """
        try:
            saved: dict[str, Any] = json.loads(text)
            made = cls(
                signals=tuple(saved["signals"]),
                means=tuple(saved["means"]),
                scales=tuple(saved["scales"]),
                weights=tuple(saved["weights"]),
                bias=float(saved["bias"]),
                keep_from=float(saved["keep_from"]),
                wanted_precision=float(saved["wanted_precision"]),
                n=int(saved["n"]),
                good=int(saved["good"]),
            )
            floats = [*made.means, *made.scales, *made.weights, made.bias, made.keep_from, made.wanted_precision]
            whole = len({len(made.signals), len(made.means), len(made.scales), len(made.weights)}) == 1
            usable = whole and bool(made.signals) and all(map(math.isfinite, floats)) and all(made.scales)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where}: not a file of `askback calibrate`: {error!r}") from error
        if not usable:
            raise ConfigError(f"{where}: not a usable calibration: want one finite mean, scale and weight per signal")
        return made
