"""Train the tiny base from scratch: tokenizer, token rows, model, one checkpoint folder.

Takes: --data (folder of public text), --work (scratch, resumable).  Gives: a Hugging Face folder in --out.
Never: touches held-out text (mix.py sees to that), nor starts again what --work already holds.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mix import examples
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LABEL_WEIGHT = 4  # a label is a tenth of its example's tokens and what the base is for


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of public text, laid out as README.md says")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder: token rows, checkpoints, loss curve")
    parser.add_argument("--out", type=Path, help="where the finished model goes (default: WORK/model)")
    parser.add_argument("--tokens", type=float, default=4.5e6, help="training tokens in all")
    parser.add_argument(
        "--decay", type=float, default=0.5, help="last share of the tokens over which the rate falls to 0"
    )
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--context", type=int, default=512, help="tokens in a training row")
    parser.add_argument("--batch", type=int, default=4, help="rows in a step")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def build_tokenizer(args: argparse.Namespace) -> PreTrainedTokenizerFast:
    """Train (once) a byte-level BPE with bos, eos and pad of their own."""
    folder = args.work / f"tokenizer-{args.vocabulary}"
    if not folder.exists():
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=args.vocabulary,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = (example.text for example in islice(examples(args.data, seed=args.seed + 1), 20_000))
        core.train_from_iterator(texts, trainer)
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=1024
        )
        tokenizer.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def build_rows(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, name: str, tokens: int):
    """Return ids and loss weights, both [rows, context + 1]."""
    file = args.work / f"{name}-{args.vocabulary}-{args.context}-{tokens}.npz"
    if not file.exists():
        rows = list(islice(pack(args, tokenizer, held=name == "held"), tokens // args.context))
        ids, weights = zip(*rows, strict=True)
        np.savez(file, ids=np.array(ids, np.uint16), weights=np.array(weights, np.uint8))
    loaded = np.load(file)
    return torch.from_numpy(loaded["ids"].astype(np.int64)), torch.from_numpy(loaded["weights"].astype(np.float32))


def pack(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, *, held: bool) -> Iterator[tuple[list, list]]:
    """Yield rows of ids and weights; an example with a label always stands whole in its row, with its text.

    A label whose text was left behind in the row before teaches guessing. Plain text fills what is left over.
    """
    waiting: list[tuple[list[int], list[int]]] = []
    row: list[int] = []
    weight: list[int] = []
    for example in examples(args.data, seed=args.seed, held=held):
        head = [0, *tokenizer.encode(example.text.removesuffix(example.label), add_special_tokens=False)]
        tail = [*tokenizer.encode(example.label, add_special_tokens=False), 1] if example.label else [1]
        made = head + tail, [1] * len(head) + [LABEL_WEIGHT if example.label else 1] * len(tail)
        if example.label and len(made[0]) <= args.context + 1:
            waiting.append(made)
        left = args.context + 1 - len(row)
        fits = [made] if not example.label else [item for item in waiting if len(item[0]) <= left]
        for ids, weights in fits[:1]:
            row, weight = row + ids[:left], weight + weights[:left]
            if example.label:
                waiting.remove((ids, weights))
        if len(row) > args.context:
            yield row, weight
            row, weight = [], []


def build_model(args: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        intermediate_size=int(args.width * 8 / 3) // 64 * 64,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64,
        num_key_value_heads=args.width // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config).to(args.device)


def build_optimizers(args: argparse.Namespace, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the layers, AdamW for embedding and norms; AdamW alone at rate 0."""
    if not args.muon_rate:
        return [torch.optim.AdamW(model.parameters(), lr=args.adam_rate, betas=(0.9, 0.95), weight_decay=0.01)]
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=args.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=args.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_share(step: int, steps: int, decay: float) -> float:
    """Share of the full rate at a step: 40 steps up, flat, then linearly to zero."""
    return min(1.0, (step + 1) / 40, max(0.0, (steps - step) / (steps * decay)))


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    each = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (each * weight).sum() / weight.sum()


@torch.no_grad()
def held_out(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> tuple[float, float]:
    """Return the mean loss in nats per token on all tokens and on label tokens."""
    model.eval()
    plain = torch.stack([loss_of(model, i[None], torch.ones_like(w)[None]) for i, w in zip(ids, weights, strict=True)])
    labelled = [(i, (w > 1).float()) for i, w in zip(ids, weights, strict=True) if (w[1:] > 1).any()]
    label = torch.stack([loss_of(model, i[None], w[None]) for i, w in labelled])
    model.train()
    return plain.mean().item(), label.mean().item()


def save_state(file: Path, step: int, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> None:
    part = file.with_suffix(".part")
    torch.save({"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}, part)
    part.replace(file)


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(args)
    ids, weights = build_rows(args, tokenizer, "train", int(args.tokens))
    held_ids, held_weights = build_rows(args, tokenizer, "held", 60_000)
    bytes_per_token = len(tokenizer.decode(held_ids.flatten(), skip_special_tokens=True).encode()) / held_ids.numel()
    model, steps = build_model(args), len(ids) // args.batch
    optimizers = build_optimizers(args, model)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{size:.2f} M parameters, {ids.numel() / 1e6:.2f} M tokens, {steps} steps", flush=True)
    state, curve, start = args.work / "state.pt", args.work / "curve.jsonl", 0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        start = kept["step"]
        model.load_state_dict(kept["model"])
        for optimizer, saved in zip(optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in build_optimizers(args, model)]
    began = time.monotonic()
    for step in range(start, steps):
        share = rate_share(step, steps, args.decay)
        for optimizer, rates in zip(optimizers, base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
        rows = slice(step * args.batch, (step + 1) * args.batch)
        loss = loss_of(model, ids[rows].to(args.device), weights[rows].to(args.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(loss.item()):
            raise SystemExit(f"loss is {loss.item()} at step {step}; lower the rates and start again")
        if (step + 1) % 20 == 0 or step + 1 == steps:
            speed = (step + 1 - start) * args.batch * args.context / (time.monotonic() - began)
            line = {
                "step": step + 1,
                "tokens": (step + 1) * args.batch * args.context,
                "loss": round(loss.item(), 4),
                "tokens_per_s": round(speed),
            }
            if (step + 1) % 200 == 0 or step + 1 == steps:
                every, label = held_out(model, held_ids.to(args.device), held_weights.to(args.device))
                line |= {
                    "bits_per_byte": every / math.log(2) / bytes_per_token,
                    "label_bits_per_byte": label / math.log(2) / bytes_per_token,
                }
                save_state(state, step + 1, model, optimizers)
            with curve.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            print(line, flush=True)
    out = args.out or args.work / "model"
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
