"""Train the tiny base from scratch: tokenizer, token rows, model, one checkpoint folder.

Takes: --data (folder of public text), --work (scratch, resumable).  Gives: a Hugging Face folder per stage in --work.
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
from mix import STAGES, Example, Stage, examples
from plant import plant_copying
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LABEL_WEIGHT = 4  # a label is a tenth of its example's tokens and what the base is for


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of public text, laid out as README.md says")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder: token rows, checkpoints, loss curve")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each stage's tokens to spend")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--context", type=int, default=512, help="tokens in a training row")
    parser.add_argument("--batch", type=int, default=4, help="rows in a step")
    # At four times these rates the planted heads are gone within fifty steps (docs/log.md).
    parser.add_argument("--muon-rate", type=float, default=0.005)
    parser.add_argument("--adam-rate", type=float, default=0.001)
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


def build_rows(
    args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, name: str, tokens: int, made: Iterator[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and loss weights, both [rows, context + 1]."""
    file = args.work / f"{name}-{args.vocabulary}-{args.context}-{tokens}.npz"
    if not file.exists():
        rows = list(islice(pack(args, tokenizer, made), tokens // args.context))
        ids, weights = zip(*rows, strict=True)
        np.savez(file, ids=np.array(ids, np.uint16), weights=np.array(weights, np.uint8))
    loaded = np.load(file)
    return torch.from_numpy(loaded["ids"].astype(np.int64)), torch.from_numpy(loaded["weights"].astype(np.float32))


def pack(
    args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, examples: Iterator[Example]
) -> Iterator[tuple[list, list]]:
    """Yield rows of ids and weights; an example with a label always stands whole in its row, with its text.

    A label whose text was left behind in the row before teaches guessing. Plain text fills what is left over.
    """
    waiting: list[tuple[list[int], list[int]]] = []
    row: list[int] = []
    weight: list[int] = []
    for example in examples:
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
    model = LlamaForCausalLM(config)
    plant_copying(model, args.seed)
    return model.to(args.device)


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
    held = build_rows(args, tokenizer, "held", 60_000, examples(args.data, seed=args.seed, held=True))
    spent = 0
    for number, stage in enumerate(STAGES, start=1):
        if not stage_folder(args, number).exists():
            train_stage(args, tokenizer, stage, number, spent, held)
        spent += stage_steps(args, stage) * args.batch * args.context


def stage_folder(args: argparse.Namespace, number: int) -> Path:
    return args.work / f"stage-{number}"


def stage_steps(args: argparse.Namespace, stage: Stage) -> int:
    return int(stage.tokens * args.scale) // args.context // args.batch


def train_stage(
    args: argparse.Namespace,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    number: int,
    spent: int,
    held: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Train one stage from the weights of the one before it (the first from new ones) and keep its model folder."""
    made = examples(args.data, seed=args.seed + 100 * (number - 1), shares=stage.shares)
    ids, weights = build_rows(args, tokenizer, f"train-{number}", int(stage.tokens * args.scale), made)
    bytes_per_token = len(tokenizer.decode(held[0].flatten(), skip_special_tokens=True).encode()) / held[0].numel()
    model, steps = build_model(args), stage_steps(args, stage)
    if number > 1:
        model = LlamaForCausalLM.from_pretrained(stage_folder(args, number - 1), dtype=torch.float32).to(args.device)
    model.train()
    optimizers = build_optimizers(args, model)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"stage {number}: {size:.2f} M parameters, {ids.numel() / 1e6:.2f} M tokens, {steps} steps", flush=True)
    state, curve, start = args.work / f"state-{number}.pt", args.work / "curve.jsonl", 0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        start = kept["step"]
        model.load_state_dict(kept["model"])
        for optimizer, saved in zip(optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    began = time.monotonic()
    for step in range(start, steps):
        share = rate_share(step, steps, stage.decay)
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
                "stage": number,
                "step": step + 1,
                "tokens": spent + (step + 1) * args.batch * args.context,
                "loss": round(loss.item(), 4),
                "tokens_per_s": round(speed),
            }
            if (step + 1) % 200 == 0 or step + 1 == steps:
                every, label = held_out(model, *(tensor.to(args.device) for tensor in held))
                line |= {
                    "bits_per_byte": every / math.log(2) / bytes_per_token,
                    "label_bits_per_byte": label / math.log(2) / bytes_per_token,
                }
                save_state(state, step + 1, model, optimizers)
            with curve.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            print(line, flush=True)
    part = args.work / f"stage-{number}.part"
    model.to(torch.bfloat16).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(stage_folder(args, number))


if __name__ == "__main__":
    main()
