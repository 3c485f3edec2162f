"""Many targets after one prompt, scored in one forward pass: the prompt is read once.

Takes: a causal network, one prompt, its targets.  Gives: the log-likelihood of each target, as if scored alone.
Never: lets a target see another (the mask is a block for each), or is used on an architecture it was not tested on.
"""

from collections.abc import Sequence
from typing import Any

import torch

TESTED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose attention takes a 4-D mask and explicit positions with unchanged results."""


def shares_prompts(network: Any) -> bool:
    """Whether this network may be used here."""
    config = network.config
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return config.model_type in TESTED and not windowed


def score_targets(
    network: Any, prompt: Sequence[int], targets: Sequence[Sequence[int]], device: torch.device
) -> list[float]:
    """Return log p(target | prompt) in nats for each target; a target's last token is only predicted, never read."""
    causal = network.get_base_model() if hasattr(network, "get_base_model") else network
    lead, fed = len(prompt), [len(target) - 1 for target in targets]
    ids = torch.tensor([[*prompt, *(token for target in targets for token in target[:-1])]], device=device)
    positions = torch.tensor([[*range(lead), *(lead + k for size in fed for k in range(size))]], device=device)
    mask = _block_mask(lead, fed, dtype=causal.dtype).to(device)
    hidden = causal.base_model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state[0]
    starts = [lead + sum(fed[:k]) for k in range(len(fed))]
    places = [[lead - 1, *range(start, start + size)] for start, size in zip(starts, fed, strict=True)]
    logits = causal.get_output_embeddings()(hidden[[place for row in places for place in row]]).float()
    wanted = torch.tensor([token for target in targets for token in target], device=device)
    losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu().double()
    return [-float(part.sum()) for part in torch.split(losses, [len(target) for target in targets])]


def _block_mask(lead: int, fed: Sequence[int], *, dtype: torch.dtype) -> torch.Tensor:
    """Return an additive mask [1, 1, tokens, tokens]: all see the prompt, a target sees itself, causally."""
    total = lead + sum(fed)
    owner = torch.tensor([-1] * lead + [k for k, size in enumerate(fed) for _ in range(size)])
    sees = (owner[None, :] == -1) | (owner[:, None] == owner[None, :])
    sees &= torch.ones(total, total, dtype=torch.bool).tril()
    return torch.zeros(total, total, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[None, None]
