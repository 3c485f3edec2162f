"""Prompts and examples as token ids: parts tokenized apart, joined as ids, cut only where they may be.

Takes: a Hugging Face tokenizer, Prompts, Examples.  Gives: lists of ids.
Never: lets a control token written inside a text become one, cuts an instruction, or adds a second stop token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import prod
from typing import Any, NamedTuple

from askback.errors import ConfigError
from askback.ports import Choice, Example, Prompt
from askback.records import Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenized example: loss falls on `target` alone, which ends in exactly one stop token."""

    id: str
    prompt: tuple[int, ...]
    target: tuple[int, ...]
    cut: int = 0
    """Tokens of the prompt's body that did not fit."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


class Slot(NamedTuple):
    """Where an answer is read: the ids that lead there, and the ids that write each choice from there on."""

    lead: tuple[int, ...]
    ways: tuple[tuple[tuple[int, ...], ...], ...]
    """Per choice each way to write it: for a digit mostly one id, with its space, and another without."""

    @property
    def steps(self) -> dict[tuple[int, ...], set[int]]:
        """What of a choice may be written already -> the ids that go on; `()` alone where each choice is one id."""
        steps: dict[tuple[int, ...], set[int]] = {}
        for way in chain.from_iterable(self.ways):
            for done, token in enumerate(way):
                steps.setdefault(way[:done], set()).add(token)
        return steps

    def weigh(self, chances: Mapping[tuple[int, ...], float]) -> Choice:
        """Return how likely each choice is, from the chance of the last of some ids after those before it."""
        each = tuple(
            sum(prod(chances[way[: done + 1]] for done in range(len(way))) for way in own) for own in self.ways
        )
        return Choice(each, max(0.0, 1.0 - sum(each)))


class Tokens:
    """A tokenizer, seen as askback needs it.

    A tokenizer without a start token gets none; one that adds it gets exactly one. One without a padding token, or
    whose padding token is its stop token, is fine: padding is told by position, never by id.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        probe = tokenizer("a")["input_ids"]
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        self.start: tuple[int, ...] = tuple(probe[: _place(plain, probe)])
        self.stop: int = tokenizer.eos_token_id
        self.pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stop

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; whatever looks like a control token in it stays text."""
        if not text:
            return []
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def prompt(self, prompt: Prompt, room: int) -> tuple[list[int], int] | None:
        """Return the ids of a prompt in at most `room` tokens and how many of its body were cut; None if none fits."""
        before, body, after = self.encode(prompt.before), self.encode(prompt.body), self.encode(prompt.after)
        left = room - len(self.start) - len(before) - len(after)
        if left < min(1, len(body)):
            return None
        kept = body[:left]
        return [*self.start, *before, *kept, *after], len(body) - len(kept)

    def row(self, example: Example, max_tokens: int) -> Row | Verdict:
        """Return the example as ids, or the reason why it cannot be trained on or scored."""
        text = self.encode(example.target)
        if not text:
            return Verdict(False, "no_label", "the target holds no token")
        target = [*text, self.stop]
        made = self.prompt(example.prompt, max_tokens - len(target))
        if made is None:
            return Verdict(False, "too_long", f"target of {len(text)} tokens; {max_tokens} are allowed in all")
        ids, cut = made
        if not ids:
            ids = [self.stop]  # no start token and an empty prompt: something must come before the first target
        return Row(example.id, tuple(ids), tuple(target), cut)

    def paint(self, example: Example, max_tokens: int) -> str:
        """Return the example as a terminal shows it: prompt dim, labels green, control tokens by their names."""
        row = self.row(example, max_tokens)
        if isinstance(row, Verdict):
            return f"{example.id}: rejected, {row.reason}: {row.detail}"
        prompt, target = (
            self.tokenizer.decode(list(ids), skip_special_tokens=False) for ids in (row.prompt, row.target)
        )
        cut = f"  [{row.cut} tokens of the text cut]" if row.cut else ""
        return f"\033[2m{prompt}\033[0m\033[1;32m{target}\033[0m{cut}"

    def choice_slot(self, after: str, choices: Sequence[str]) -> Slot:
        """Return where one of the choices stands after a text, and the ids that write each of them there.

        The slot is found from the tokenizer itself: `Score: 4` is encoded for every choice, and what all have in
        common leads to the slot. A choice without the space counts too where one id writes it at the same slot.

        Raises:
            ConfigError: a choice has no ids of its own, or what writes one begins what writes another.
        """
        spaced = self._encode_all([f"{after} {choice}" for choice in choices])
        bare = self._encode_all([f"{after}{choice}" for choice in choices])
        lead = _common_prefix([ids[:-1] for ids in spaced])
        found = [
            {one[len(lead) :], *([other[-1:]] if other[:-1] == lead else [])}
            for one, other in zip(spaced, bare, strict=True)
        ]
        unknown = self.tokenizer.unk_token_id
        ways = tuple(tuple(sorted(way for way in one if way and unknown not in way)) for one in found)
        _check_apart(choices, ways)
        return Slot(lead, ways)

    def _encode_all(self, texts: list[str]) -> list[tuple[int, ...]]:
        made = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [tuple(ids) for ids in made]


def _check_apart(choices: Sequence[str], ways: Sequence[Sequence[tuple[int, ...]]]) -> None:
    for choice, own in zip(choices, ways, strict=True):
        if not own:
            raise ConfigError(f"the base's tokenizer has no ids for {choice!r}; name other choices or another base")
    written = sorted((way, choice) for choice, own in zip(choices, ways, strict=True) for way in own)
    for (way, choice), (longer, other) in pairwise(written):  # in this order what a way begins comes right after it
        if longer[: len(way)] == way:
            raise ConfigError(
                f"the base's tokenizer does not tell {choice!r} and {other!r} apart: what writes one begins what "
                "writes the other; name other choices"
            )


def _place(part: Sequence[int], whole: Sequence[int]) -> int:
    """Return where a part begins in the whole, which may add a stop token after it; 0 where it is not found."""
    starts = range(len(whole) - len(part) + 1)
    return next((start for start in starts if whole[start : start + len(part)] == part), 0)


def _common_prefix(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    prefix: list[int] = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        prefix.append(column[0])
    return tuple(prefix)
