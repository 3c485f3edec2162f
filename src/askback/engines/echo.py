"""A test double that answers at once from the text itself, and says so in its name. It is no model.

Takes: Prompts and Examples.  Gives: answers that depend on content and seed alone.
Never: learns: its `fit` writes a note of what it was shown.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from askback.options import EngineOptions
from askback.ports import (
    Ask,
    Choice,
    Choose,
    Example,
    Fit,
    FitReport,
    Generate,
    Likelihood,
    LogLikelihood,
    Prompt,
    Reply,
    Sampling,
    Watch,
    ignore,
)

WORD = re.compile(r"\w{5,}")


class EchoEngine:
    """Answers with the longer words of the prompt's body; probabilities come from a hash."""

    max_tokens = 1 << 20
    tunes = True

    def __init__(self, options: EngineOptions) -> None:
        self.options = options

    def count_tokens(self, text: str) -> int:
        """Return the number of words."""
        return len(text.split())

    def generate(self, model: Path | None = None) -> Generate:
        """Return a call that asks about three words of the body, chosen by the seed."""

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            for ask in asks:
                words = WORD.findall(ask.prompt.body) or ["nothing"]
                picked = [words[(ask.seed + 7 * n) % len(words)].lower() for n in range(3)]
                score = 1 + _number(ask.prompt.before, ask.prompt.body) % 5
                yield Reply(f"Write about {', '.join(picked)}.\nScore: {score}", "stop", 8)

        return call

    def choose(self, model: Path | None = None) -> Choose:
        """Return a call whose probabilities come from a hash of the prompt."""

        def call(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice]:
            for prompt in prompts:
                weights = [1 + _number(prompt.before, prompt.body, choice) % 97 for choice in choices]
                yield Choice(tuple(0.9 * weight / sum(weights) for weight in weights), 0.1)

        return call

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return a call that likes targets whose words stand in the prompt."""

        def call(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
            for example in examples:
                known = set(WORD.findall(f"{example.prompt.before} {example.prompt.body}".lower()))
                words = WORD.findall(example.target.lower()) or [""]
                tokens = len(words) + 1
                yield LogLikelihood(-4.0 * tokens + 2.0 * sum(word in known for word in words), tokens)

        return call

    def fit(self, options: Any, *, seed: int) -> Fit:
        """Return a call that writes down how many examples it was shown."""

        def call(examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
            note = {"kind": "echo", "base": "echo", "hash": "echo", "examples": len(examples), "seed": seed}
            (out / "base.json").write_text(json.dumps(note), encoding="utf-8")
            words = sum(len(example.target.split()) for example in examples)
            return FitReport(
                examples=len(examples), epochs=1, steps=1, tokens=words, label_tokens=words, losses=((1, 1.0),)
            )

        return call

    def describe(self) -> dict[str, Any]:
        """Return the name of the double."""
        return {
            "kind": "echo",
            "base": "echo",
            "hash": "echo",
            "licence": "Apache-2.0",
            "type": "echo",
            "precision": "",
        }


def _number(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:6], "big")
