"""Plant the circuit that copies into a model that has learnt nothing yet.

Takes: a fresh Llama with tied embeddings.  Gives: the same, whose first two layers repeat what followed a token before.
Never: adds a part that a plain Llama does not have: these are initial weights, trained like all others.

Copying what a text names takes two heads that work together (Olsson et al. 2022): one that writes at each position
which token came before, and one that looks for the position whose predecessor was the present token. In a few
million tokens they do not form of themselves (docs/log.md). Weights can start near what training would find (mimetic
initialization, Trockman and Kolter 2023): here both heads are set by hand, and every other write into the residual
stream starts at zero, so that their signal is not drowned before it pays.
"""

import math

import torch
from transformers import LlamaForCausalLM

CONSTANT = 0.5  # one dimension of each embedding: what a head reads that looks at places and not at tokens
SHARPNESS = 6.0  # how much more the position before is worth to the first head, in nats, than its neighbours
PREVIOUS_GAIN = 0.04  # how strongly the token before is written down
MATCH = 10.0  # how much a matching predecessor is worth to the second head
COPY_GAIN = 0.1  # how strongly the found token is put forward
LONGEST = 300  # distance in tokens over which a match shall hold


@torch.no_grad()
def plant_copying(model: LlamaForCausalLM, seed: int) -> None:
    """Set head 0 of layer 0 to note the token before, head 0 of layer 1 to look behind earlier copies of this one."""
    config = model.config
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    half = size // 2
    turns = [config.rope_parameters["rope_theta"] ** (-pair / half) for pair in range(half)]  # radians a token
    fast = [pair for pair in range(half) if turns[pair] > 0.05]
    slow = [pair for pair in range(half) if turns[pair] * LONGEST < 1.2]
    still = [*slow, *(pair + half for pair in slow)]  # dimensions of a head that distance hardly turns
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    embedding = model.get_input_embeddings().weight
    embedding[:, 0] = CONSTANT
    read = CONSTANT / embedding.pow(2).mean(1).sqrt().mean().item()  # the constant as a layer reads it, after its norm

    random = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(width - 1, width - 1, generator=random))[0]
    code, store, copied = directions[:size], directions[size : 2 * size], directions[2 * size : 3 * size]

    previous = model.model.layers[0].self_attn
    rise = sum(1 - math.cos(turns[pair]) for pair in fast)
    strength = math.sqrt(SHARPNESS * math.sqrt(size) / rise) / read
    _clear(previous, size)
    for pair in fast:
        previous.q_proj.weight[pair, 0] = strength
        previous.k_proj.weight[pair, 0] = strength * math.cos(turns[pair])
        previous.k_proj.weight[pair + half, 0] = strength * math.sin(turns[pair])
    previous.v_proj.weight[:size, 1:] = code
    previous.o_proj.weight[1:, :size] = PREVIOUS_GAIN * store.T

    finder = model.model.layers[1].self_attn
    _clear(finder, size)
    finder.q_proj.weight[still, 1:] = math.sqrt(MATCH) * code[: len(still)]
    finder.k_proj.weight[still, 1:] = math.sqrt(MATCH) * store[: len(still)]
    finder.v_proj.weight[:size, 1:] = copied
    finder.o_proj.weight[1:, :size] = COPY_GAIN * copied.T


def _clear(attention: torch.nn.Module, size: int) -> None:
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[:size].zero_()
