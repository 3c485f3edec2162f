"""Tiny bases, tokenizers and adapters for tests, made on the spot; no test here knows whether a model is any good.

Takes: a folder to write into, and for the foreign base the files nobody here wrote.  Gives: paths that transformers
loads, engines on one thread.  Never: goes to the network.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from askback.engines.bases import EMBEDDED
from askback.engines.local import LocalEngine
from askback.options import EngineOptions
from askback.ports import Example, Prompt


def open_local(base: Path, **settings: Any) -> LocalEngine:
    """Open an engine on a base in float32 on one thread."""
    plain = {"base": str(base), "device": "cpu", "precision": "float32", "threads": 1}
    return LocalEngine(EngineOptions(**plain | settings))


def embedded_tokenizer() -> Any:
    """Return the tokenizer of the embedded base: byte-level, 4,096 pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED)


def llama_tokenizer(shared: Path) -> Any:
    """Return the real Llama tokenizer, with the special tokens of Llama-2: no padding token."""
    from transformers import PreTrainedTokenizerFast

    file = shared / "tokenizers" / "llama_tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def write_mini_llama(folder: Path, tokenizer: Any, *, max_tokens: int = 256, seed: int = 0) -> Path:
    """Write a Llama of random weights (2 layers, hidden 64), spread so widely that no two logits nearly tie."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, *, seed: int) -> Path:
    """Write an adapter of random weights, strong enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    network.save_pretrained(folder)
    return folder


def example(target: str, body: str = "", *, id: str = "e", before: str = "", after: str = "") -> Example:
    """Return an example in one line."""
    return Example(id, Prompt(before, body, after), target)


# --- a base from elsewhere: stories260K, in the layout of llama2.c


def write_stories260k(source: Path, folder: Path) -> Path:
    """Convert the legacy checkpoint and its tokenizer to a folder that transformers loads."""
    from transformers import LlamaForCausalLM

    config, weights = read_checkpoint(source / "checkpoint_legacy.bin")
    network = LlamaForCausalLM(config)
    left_out = network.load_state_dict(weights, strict=False)
    assert left_out.missing_keys == ["lm_head.weight"], left_out  # tied to the embedding
    assert not left_out.unexpected_keys, left_out
    network.tie_weights()
    network.save_pretrained(folder)
    build_tokenizer(list(read_pieces(source / "tokenizer.bin", config.vocab_size))).save_pretrained(folder)
    return folder


def read_checkpoint(file: Path) -> tuple[Any, dict[str, Any]]:
    """Return config and weights; the rotary tables at the end are not needed."""
    import numpy as np
    import torch
    from transformers import LlamaConfig

    raw = file.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("7i", raw[:28])
    assert vocabulary > 0, "a negative vocabulary would mean an untied head"
    values, kv_dim = torch.from_numpy(np.frombuffer(raw, dtype="<f4", offset=28).copy()), dim // heads * kv_heads
    shapes = {
        "embed_tokens": (vocabulary, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, kv_dim, dim),
        "self_attn.v_proj": (layers, kv_dim, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, hidden, dim),
        "mlp.down_proj": (layers, dim, hidden),
        "mlp.up_proj": (layers, hidden, dim),
        "norm": (dim,),
    }
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    parts = torch.split(values, [*sizes, len(values) - sum(sizes)])
    stacked = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts[:-1], strict=True)}
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,
    )
    return config, dict(_named(stacked, {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}))


def _named(stacked: Mapping[str, Any], rotary: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    for name, weight in stacked.items():
        if name in ("embed_tokens", "norm"):
            yield f"model.{name}.weight", weight
            continue
        for layer, part in enumerate(weight):
            laid = _halves(part, rotary[name]) if name in rotary else part
            yield f"model.layers.{layer}.{name}.weight", laid.contiguous()


def _halves(weight: Any, heads: int) -> Any:
    """Lay rows that rotate as neighbouring pairs out as first and second halves of each head."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def read_pieces(file: Path, count: int) -> Iterator[tuple[str, float]]:
    """Yield (piece, score): int32 longest length, then for each piece float32 score, int32 length, bytes."""
    raw, at = file.read_bytes(), 4
    for _ in range(count):
        score, length = struct.unpack_from("<fi", raw, at)
        yield raw[at + 8 : at + 8 + length].decode("utf-8"), score
        at += 8 + length


def build_tokenizer(pieces: Sequence[tuple[str, float]]) -> Any:
    """Return a fast tokenizer that joins, as sentencepiece does, the neighbours whose union scores best."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    named = ["<unk>", "<s>", "</s>", *(text.replace(" ", "▁") for text, _ in pieces[3:])]
    ids = {text: number for number, text in enumerate(named)}
    scores = dict(zip(named, (score for _, score in pieces), strict=True))
    splits = [(text[:cut], text[cut:]) for text in named[259:] for cut in range(1, len(text))]
    merges = sorted((s for s in splits if s[0] in ids and s[1] in ids), key=lambda s: -scores[s[0] + s[1]])
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_too = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(bytes_too)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in named[:3]])
    # Texts of this base were parted by `<s>` alone: it never saw `</s>`, and could not learn to stop with it.
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>", unk_token="<unk>")
