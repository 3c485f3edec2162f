"""Prompts and examples as token ids: parts tokenized apart, joined as ids, cut only where they may be.

Takes: a Hugging Face tokenizer, Prompts, Examples.  Gives: lists of ids.
Never: lets a control token written inside a text become one, cuts an instruction, or adds a second stop token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from askback.ports import Example, Prompt
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

    def choice_slot(self, after: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the ids that lead to the answer slot, and per choice the ids that fill it.

        The slot is found from the tokenizer itself: `Score: 4` is encoded for every choice, and what all have in
        common leads to the slot. A choice without the space counts too where it starts at the same slot.

        Raises:
            ValueError: two choices share their first token, or one begins the other: one token cannot tell them apart.
        """
        spaced = [self.encode(f"{after} {choice}") for choice in choices]
        lead = _common_prefix(spaced)
        fills = [ids[len(lead) : len(lead) + 1] for ids in spaced]
        for fill, choice in zip(fills, choices, strict=True):
            bare = self.encode(after + choice)
            if bare[: len(lead)] == lead and len(bare) == len(lead) + 1 and bare[-1] not in fill:
                fill.append(bare[-1])
        if not all(fills) or len({token for fill in fills for token in fill}) != sum(map(len, fills)):
            raise ValueError(f"the tokenizer does not tell {choices} apart by their first token")
        return lead, fills


def _place(part: Sequence[int], whole: Sequence[int]) -> int:
    """Return where a part begins in the whole, which may add a stop token after it; 0 where it is not found."""
    starts = range(len(whole) - len(part) + 1)
    return next((start for start in starts if whole[start : start + len(part)] == part), 0)


def _common_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    prefix: list[int] = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        prefix.append(column[0])
    return prefix
