"""Logits only where somebody reads them: the head is applied to the positions asked for and to no other.

Takes: a causal network, ids, mask, the positions wanted.  Gives: their logits in float32.
Never: changes a value: a network whose head does more than one product is run whole.

With a vocabulary of 32,000 and a tenth of the tokens labelled, this is most of the memory of training.
"""

from types import MethodType
from typing import Any

import torch

PROBE_TOKENS = 8


def logits_at(network: Any, ids: torch.Tensor, mask: torch.Tensor | None, wanted: torch.Tensor) -> torch.Tensor:
    """Return float32 logits [positions, vocabulary] at the True entries of `wanted` [rows, tokens], in row order.

    No mask: padding on the right, which no wanted position looks at.
    """
    causal = network.get_base_model() if hasattr(network, "get_base_model") else network
    if not has_plain_head(causal, ids[:1, :PROBE_TOKENS]):
        whole = causal(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return whole[wanted].float()  # type: ignore[no-any-return]
    hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return causal.get_output_embeddings()(hidden[wanted]).float()  # type: ignore[no-any-return]


def answer_at(network: Any) -> None:
    """Let a network's own `forward` give what `logits_at` gives where `wanted` comes with the call.

    What is wrapped around a network that several processes train works only for calls that go through it.
    """
    plain = network.forward

    def forward(self: Any, *args: Any, wanted: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if wanted is None:
            return plain(*args, **kwargs)
        return logits_at(self, kwargs["input_ids"], kwargs["attention_mask"], wanted)

    network.forward = MethodType(forward, network)


def has_plain_head(causal: Any, ids: torch.Tensor) -> bool:
    """Whether the network's logits are `head(hidden)` and no more; tried once for each network, on a few tokens."""
    known = getattr(causal, "_askback_plain_head", None)
    if known is None:
        trained = causal.training
        causal.eval()
        with torch.no_grad():
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            made = causal.get_output_embeddings()(hidden).float()
            known = torch.allclose(made, causal(input_ids=ids, use_cache=False).logits.float(), rtol=1e-3, atol=1e-3)
        causal.train(trained)
        causal._askback_plain_head = known
    return bool(known)
