"""The OpenAI dialect as endpoints differ in it: what a request may hold, and what an answer says.

Takes: parsed JSON.  Gives: masses, log-probabilities, what to leave out of the next request.
Never: asks, or takes a missing number for a small one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from askback.engines.endpoint import Refused
from askback.ports import Choice

SPACES = (" ", "▁", "Ġ")
"""How endpoints write a space in front of a token, or a token that is nothing else."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What an endpoint was seen to take."""

    chat: bool
    ids: bool = False
    """Plain completions take token ids: prompts are then joined as they are in training."""
    room_key: str = "max_tokens"
    seeded: bool = True

    @property
    def path(self) -> str:
        """Where it is asked."""
        return "/chat/completions" if self.chat else "/completions"

    @property
    def name(self) -> str:
        """How a prompt goes there, in a word."""
        return "chat" if self.chat else "ids" if self.ids else "text"


class Place(NamedTuple):
    """One token of an answer: what was written, and (text, log-probability) of the likeliest there."""

    written: str
    likeliest: Sequence[tuple[str, float]]


def without(dialect: Dialect, refused: Refused) -> Dialect | None:
    """Return the dialect less what was refused, or None where nothing is left to do without."""
    if refused.status not in (400, 422):
        return None
    if dialect.room_key == "max_tokens" and "max_completion_tokens" in refused.words:
        return replace(dialect, room_key="max_completion_tokens")
    if dialect.seeded and "seed" in refused.words:
        return replace(dialect, seeded=False)
    return replace(dialect, ids=False) if dialect.ids else None


def read_models(said: Any) -> dict[str, dict[str, Any]]:
    """Return what an endpoint says of each model it lists, by name."""
    return {str(one["id"]): dict(one) for one in said["data"] or []}


def read_slots(said: Any) -> list[Place] | None:
    """Return what an answer shows of each of its places; None where it shows nothing."""
    logprobs = said["choices"][0].get("logprobs")
    if not logprobs:
        return None
    if (content := logprobs.get("content")) is not None:  # chat, and llama.cpp's plain completions
        return [
            Place(at["token"], [(one["token"], float(one["logprob"])) for one in at["top_logprobs"]]) for at in content
        ]
    if (tops := logprobs.get("top_logprobs")) is None:
        return None
    return [Place(token, list(top.items())) for token, top in zip(logprobs["tokens"], tops, strict=True)]


def weigh(slots: Sequence[Place], choices: Sequence[str]) -> Choice:
    """Return how likely each choice is at the first place, or at the second after a token that is only a space."""
    if not slots:
        return Choice(tuple(0.0 for _ in choices), 1.0)
    each = [_mass(slots[0], {choice, *(space + choice for space in SPACES)}) for choice in choices]
    if len(slots) > 1 and slots[0].written in SPACES:
        spaced = _mass(slots[0], {slots[0].written})
        each = [mass + spaced * _mass(slots[1], {choice}) for mass, choice in zip(each, choices, strict=True)]
    return Choice(tuple(each), max(0.0, 1.0 - sum(each)))


def _mass(place: Place, texts: set[str]) -> float:
    return sum(math.exp(min(0.0, chance)) for text, chance in place.likeliest if text in texts)


def echo_body(name: str, ids: Sequence[int]) -> dict[str, Any]:
    """Return the request for the log-probabilities of a prompt's own tokens."""
    return {"model": name, "prompt": [*ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}


def read_echo(said: Any, begins: int, ends: int) -> list[float]:
    """Return the log-probabilities of the tokens from `begins` to `ends` of a prompt of `ends` tokens."""
    found = said["choices"][0]["logprobs"]["token_logprobs"]
    if len(found) not in (ends, ends + 1):
        raise ValueError(f"{len(found)} log-probabilities for a prompt of {ends} tokens")
    chances = [float(chance) for chance in found[begins:ends]]
    if not all(math.isfinite(chance) for chance in chances):
        raise ValueError("a log-probability that is no number")
    return chances
