"""Logits only where somebody reads them: the head is applied to the positions asked for and to no other.

Takes: a causal network, ids, mask, the positions wanted.  Gives: their logits in float32.
Never: changes a value: a network whose head does more than one product is run whole.

With a vocabulary of 32,000 and a tenth of the tokens labelled, this is most of the memory of training.
"""

from typing import Any

import torch

SHAPED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")
"""Config entries of architectures whose logits are more than `head(hidden)`."""


def logits_at(network: Any, ids: torch.Tensor, mask: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return float32 logits [positions, vocabulary] at the True entries of `wanted` [rows, tokens], in row order."""
    causal = network.get_base_model() if hasattr(network, "get_base_model") else network
    if any(getattr(causal.config, name, None) for name in SHAPED_HEADS):
        whole = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return whole[wanted].float()  # type: ignore[no-any-return]
    hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return causal.get_output_embeddings()(hidden[wanted]).float()  # type: ignore[no-any-return]
