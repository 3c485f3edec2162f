"""Sampling whose chance belongs to the row: same row, same text, whatever stands beside it in the batch.

Takes: logits [rows, vocabulary] at each step.  Gives: logits whose largest entry is the token drawn.
Never: draws from a generator that rows share.

The Gumbel-max trick: the arg max of log p + Gumbel noise is a draw from p (Gumbel 1954; Maddison et al. 2014).
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class RowSampling(LogitsProcessor):  # type: ignore[misc]
    """Temperature and top-p (Holtzman et al. 2020) for greedy search, with one generator for each row."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores whose arg max is this step's draw."""
        logits = nucleus(scores.float() / self.temperature, self.top_p)
        noise = torch.stack([torch.rand(scores.shape[-1], generator=generator) for generator in self.generators])
        gumbel = -torch.log(-torch.log(noise.clamp(1e-20, 1 - 1e-7)))
        return logits + gumbel.to(scores.device)  # type: ignore[return-value]


class NoRepeat(LogitsProcessor):  # type: ignore[misc]
    """Forbid a token that would complete a run of `size` tokens which the reply holds already; the prompt is free.

    transformers' own rule of that name counts the prompt in, and so forbids what a backward model is for: to name what
    the text is about.
    """

    def __init__(self, size: int, prompt_width: int) -> None:
        self.size = size
        self.prompt_width = prompt_width

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores with minus infinity at the forbidden tokens of each row."""
        for row, ids in enumerate(input_ids[:, self.prompt_width :].tolist()):
            if forbidden := self._forbidden(ids):
                scores[row, forbidden] = float("-inf")
        return scores

    def _forbidden(self, ids: list[int]) -> list[int]:
        lead = self.size - 1
        last = ids[len(ids) - lead :] if lead else []
        ends = range(lead, len(ids)) if len(ids) >= self.size else ()
        return [ids[end] for end in ends if ids[end - lead : end] == last]


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return logits with everything outside the smallest set of mass `top_p` at minus infinity."""
    if top_p >= 1:
        return logits
    ordered, places = torch.sort(logits, descending=True, stable=True)
    shares = torch.softmax(ordered, dim=-1)
    outside = shares.cumsum(dim=-1) - shares >= top_p  # the token that crosses the line stays in
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), float("-inf"))
