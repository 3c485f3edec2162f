"""Rows of many lengths -> batches with little padding, in an order that depends on the rows alone.

Takes: lengths, tokenized rows.  Gives: lists of positions, padded tensors.  Never: drops or repeats a row.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from askback.engines.tokens import Row

if TYPE_CHECKING:
    import torch


def by_token_budget(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield batches of positions, longest rows first, of at most `budget` padded tokens (or a single row)."""
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batch: list[int] = []
    for position in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def by_total(items: Sequence[int], sizes: Sequence[int], most: int) -> list[list[int]]:
    """Cut items into runs whose sizes add up to at most `most` (or a single item)."""
    runs: list[list[int]] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if not runs or total + size > most:
            runs.append([])
            total = 0
        runs[-1].append(item)
        total += size
    return runs


def training_order(lengths: Sequence[int], *, epochs: float, batch: int, seed: int) -> list[int]:
    """Return positions for all epochs, so that every `batch` of them have similar lengths.

    Each row comes `epochs` times (the last fraction of an epoch takes the first rows of its shuffle). Windows of
    sixteen batches are sorted by length, cut into batches, and the batches shuffled: chance stays in the order,
    padding goes out of it.
    """
    order: list[int] = []
    total = round(epochs * len(lengths))
    epoch = 0
    while len(order) < total:
        rows = list(range(len(lengths)))
        Random(f"{seed}/{epoch}").shuffle(rows)
        order += rows[: total - len(order)]
        epoch += 1
    random = Random(f"{seed}/windows")
    laid: list[int] = []
    for start in range(0, total, 16 * batch):
        window = sorted(order[start : start + 16 * batch], key=lambda position: lengths[position])
        batches = [window[cut : cut + batch] for cut in range(0, len(window), batch)]
        full, rest = [b for b in batches if len(b) == batch], [b for b in batches if len(b) < batch]
        random.shuffle(full)
        laid += [position for b in [*full, *rest] for position in b]
    return laid


def share_of(total: int, *, batch: int, micro: int, rank: int, world: int) -> list[list[int]]:
    """Return the positions that one of `world` processes reads, in micro-batches of at most `micro`.

    Every batch of the whole is dealt out row by row, so that all have rows of similar lengths, and all have as many
    micro-batches for it; one may be empty where the last batch is short.
    """
    share: list[list[int]] = []
    for start in range(0, total, batch):
        rows = range(start, min(start + batch, total))
        mine, most = rows[rank::world], len(rows[::world])
        share += [list(mine[cut : cut + micro]) for cut in range(0, most, micro)]
    return share


def pad_right(rows: Sequence[Row], pad: int) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    """Return ids, attention mask and labels (-100 off target), each [rows, longest]."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.tensor([*row.prompt, *row.target])
        mask[k, : len(row)] = 1
        labels[k, len(row.prompt) : len(row)] = torch.tensor(row.target)
    return ids, mask, labels
