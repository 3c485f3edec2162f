"""What comes after each of many rows; a beginning that rows share is read once, for all of them.

Takes: a causal network, rows of ids.  Gives: float32 logits after each row's last token, as if each were read alone.
Never: changes the keys and values of a beginning, or shares it on an architecture that was not tested.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch

from askback.engines import batches
from askback.engines.heads import PROBE_TOKENS, has_plain_head, logits_at
from askback.engines.shared import shares_prompts
from askback.engines.tokens import Row

Ids = tuple[int, ...]

SHORTEST = 16
"""Tokens that rows must share at least: fewer are not worth a pass of their own."""
STEADY_ROPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary angles that depend on a token's place alone; others depend on how long the row is that holds it."""


def next_logits(
    network: Any, rows: Sequence[Ids], *, pad: int, batch_tokens: int, share: bool = True
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield batches: positions of rows, and float32 logits [rows, vocabulary] after the last token of each.

    A batch holds at most `batch_tokens` padded tokens (or a single row), those of a shared beginning counted for
    every row: its keys and values lie in memory once for each.
    """
    for group, prefix in _groups(network, rows, share=share):
        for batch in batches.by_token_budget([len(rows[position]) for position in group], batch_tokens):
            positions = [group[k] for k in batch]
            chosen = [rows[position] for position in positions]
            yield positions, prefix.logits_after(chosen, pad) if prefix else _logits_after(network, chosen, pad)


def _groups(network: Any, rows: Sequence[Ids], *, share: bool) -> "Iterator[tuple[list[int], Prefix | None]]":
    if not rows or not share or not reads_prefixes(network):
        yield list(range(len(rows))), None
        return
    alone, groups = by_beginning(rows)
    yield alone, None
    for group in groups:
        yield group, Prefix(network, rows[group[0]][: shared_length([rows[position] for position in group])])


def reads_prefixes(network: Any) -> bool:
    """Whether beginnings may be shared here: every token sees all before it, at angles that stay."""
    if not shares_prompts(network):
        return False
    causal = _bare(network)
    rope = getattr(causal.config, "rope_parameters", None) or {}
    slides = getattr(causal.config, "sliding_window", None) is not None
    if slides or rope.get("rope_type", "default") not in STEADY_ROPES:
        return False
    return has_plain_head(causal, torch.arange(PROBE_TOKENS, device=causal.device)[None])


def by_beginning(rows: Sequence[Ids]) -> tuple[list[int], list[list[int]]]:
    """Return positions of rows that begin like no other, and groups of two or more that begin alike."""
    groups: dict[Ids, list[int]] = {}
    short = [position for position, row in enumerate(rows) if len(row) <= SHORTEST]
    for position, row in enumerate(rows):
        if len(row) > SHORTEST:
            groups.setdefault(row[:SHORTEST], []).append(position)
    single = [group[0] for group in groups.values() if len(group) == 1]
    return sorted([*short, *single]), [group for group in groups.values() if len(group) > 1]


def shared_length(rows: Sequence[Ids]) -> int:
    """Return how many tokens all rows begin with, each keeping at least its last for itself."""
    first, last = min(rows), max(rows)  # whatever these two share in front, every row between them shares
    most = min(map(len, rows)) - 1
    return next((place for place in range(most) if first[place] != last[place]), most)


class Prefix:
    """A beginning that a network has read."""

    @torch.inference_mode()
    def __init__(self, network: Any, ids: Ids) -> None:
        self.ids = ids
        self._causal = _bare(network)
        read = torch.tensor([ids], device=self._causal.device)
        self._cache = self._causal.base_model(input_ids=read, use_cache=True).past_key_values

    @torch.inference_mode()
    def logits_after(self, rows: Sequence[Ids], pad: int) -> torch.Tensor:
        """Return float32 logits [rows, vocabulary] after rows that all begin with this and go on."""
        lead, device = len(self.ids), self._causal.device
        ids, mask = _pad([row[lead:] for row in rows], pad)
        cache = deepcopy(self._cache)  # reading on appends to a cache in place
        cache.batch_repeat_interleave(len(rows))
        hidden = self._causal.base_model(
            input_ids=ids.to(device),
            attention_mask=torch.nn.functional.pad(mask, (lead, 0), value=1).to(device),
            position_ids=torch.arange(lead, lead + ids.shape[1]).expand_as(ids).to(device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self._causal.get_output_embeddings()(hidden[_last(mask).to(device)]).float()  # type: ignore[no-any-return]


@torch.inference_mode()
def _logits_after(network: Any, rows: Sequence[Ids], pad: int) -> torch.Tensor:
    """Return what `Prefix.logits_after` does, every row read whole."""
    ids, mask = _pad(rows, pad)
    device = _bare(network).device
    return logits_at(network, ids.to(device), mask.to(device), _last(mask).to(device))


def _pad(rows: Sequence[Ids], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask, _ = batches.pad_right([Row("", row, ()) for row in rows], pad)
    return ids, mask


def _last(mask: torch.Tensor) -> torch.Tensor:
    """Return True at the last token of each row of a mask that is padded on the right."""
    return mask.cumsum(-1).eq(mask.sum(-1, keepdim=True)) & mask.bool()


def _bare(network: Any) -> Any:
    return network.get_base_model() if hasattr(network, "get_base_model") else network
