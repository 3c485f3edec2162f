"""Turn a training run of train.py into the folder that the package ships: weights, tokenizer, curve, card.

Takes: the --work folder of train.py, finished or with some stages left.  Gives: a Hugging Face folder with a card of
measured figures.
Never: writes a figure that the run did not measure.
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

import torch
from codecarbon import OfflineEmissionsTracker
from mix import STAGES, Stage, rows
from train import stage_folder
from transformers import AutoTokenizer, LlamaForCausalLM

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [askback, tiny]
---
# The tiny base of askback

A Llama-architecture causal model of {parameters:.1f} million parameters ({layers} layers of width {width}, tied
embeddings, byte-level BPE of {vocabulary} pieces), trained from scratch so that askback's main job can be tried in
minutes, without a network or a GPU. It is the base of the demo and of the tests.

## What it is not for

It knows next to nothing, cannot follow a rubric or a conversation, and writes things that are wrong. Do not use it for
anything but trying out a pipeline. Nothing was filtered out of its texts.

## Data and licences

{tokens:.2f} million training tokens, some texts seen several times, laid out as `recipes/tiny_base/mix.py` says, in
stages with a rate schedule each (share of the examples):

{stages}

| texts | licence |
|---|---|
| OpenAssistant conversations, English train part | Apache-2.0 |
| Dolly, a part of the train set | CC BY-SA 3.0 |
| a programming guide | BSD-3-Clause |
| the Rust book | MIT / Apache-2.0 |
| Python Enhancement Proposals | public domain / CC0 |
| tldr pages | CC BY 4.0 |
| C4 and Wikipedia, small samples | ODC-BY, CC BY-SA 4.0 |
| {own} pairs written for this base, on other subjects than the embedded seed | Apache-2.0 |

Texts of the OASST validation trees and of the Guanaco evaluation part were left out by content. **The train parts of
OASST, Guanaco and Dolly were seen in pretraining**: pairs held out of *those* measure too well on this base. Nothing of
the embedded seed pairs and documents was seen; the {own} pairs are in their manner and by the same hands.

Two attention heads were set by hand before training, so that the model copies (`recipes/tiny_base/plant.py`); they were
trained like everything else.

## Measured

| | |
|---|---|
| bits per byte of English text that was kept out ({clean_rows} messages of the OASST validation trees) | {clean:.3f} |
| rows in training | 512 tokens; it reads up to 1,024, with a somewhat higher loss beyond 512 |
| training time | {hours:.2f} h on {threads} thread(s) of {processor} |
| energy, estimated from a power reading of {watts:.0f} W by codecarbon | {kwh:.3f} kWh |
| carbon at the average grid of {country} | {carbon:.3f} kg CO2 |

The loss curve lies beside this card in `curve.jsonl`; its held-out figures are on texts that were kept out before any
view was made of them. Made by `recipes/tiny_base`: fixed seed, one command.
"""


def power() -> tuple[float, float, str]:
    """Return watts, kg CO2 per kWh and the processor's name, from a short reading."""
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    tracker = OfflineEmissionsTracker(country_iso_code="USA", save_to_file=False, log_level="critical")
    tracker.start()
    time.sleep(20)
    tracker.stop()
    found = tracker.final_emissions_data
    hours = found.duration / 3600
    return (
        1000 * found.energy_consumed / hours,
        found.emissions / found.energy_consumed,
        found.gpu_model or found.cpu_model,
    )


@torch.no_grad()
def clean_bits_per_byte(model: torch.nn.Module, tokenizer: object, data: Path) -> tuple[float, int]:
    """Return bits per byte on the validation trees' English messages, each cut to 512 tokens, and their number."""
    nats, size, count = 0.0, 0, 0
    for row in rows(data / "oasst/trees_validation_en.jsonl"):
        if row["lang"] != "en":
            continue
        ids = [0, *tokenizer.encode(row["text"], add_special_tokens=False)[:511]]
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        nats += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
        size += len(tokenizer.decode(ids[1:]).encode())
        count += 1
    return nats / math.log(2) / size, count


def seconds(curve: list[dict]) -> float:
    """Return the training time from the speeds of the curve: each stretch of tokens at its own session's mean."""
    total, before = 0.0, 0
    for line in curve:
        if line["tokens"] > before:
            total += (line["tokens"] - before) / line["tokens_per_s"]
            before = line["tokens"]
    return total


def stage_words(stage: Stage) -> str:
    shares = ", ".join(
        f"{name.replace('_', ' ')} {share / sum(stage.shares.values()):.0%}" for name, share in stage.shares.items()
    )
    return f"{stage.tokens / 1e6:.1f} million tokens: {shares}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder train.py was given")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    done = [number for number in range(1, len(STAGES) + 1) if stage_folder(args, number).exists()]
    if not done:
        raise SystemExit(f"{args.work} holds no finished stage: run train.py to the end of its first")
    last = stage_folder(args, done[-1])
    model, tokenizer = LlamaForCausalLM.from_pretrained(last), AutoTokenizer.from_pretrained(last)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    curve = [json.loads(line) for line in (args.work / "curve.jsonl").read_text().splitlines()]
    curve = [line for line in curve if line.get("stage", 1) in done]
    measured = [line for line in curve if "bits_per_byte" in line]
    (args.out / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in measured))
    clean, clean_rows = clean_bits_per_byte(model.float(), tokenizer, args.data)
    watts, per_kwh, processor = power()
    hours = seconds(curve) / 3600
    card = CARD.format(
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_hidden_layers,
        width=model.config.hidden_size,
        vocabulary=model.config.vocab_size,
        tokens=curve[-1]["tokens"] / 1e6,
        stages="\n".join(f"{number}. {stage_words(STAGES[number - 1])}" for number in done),
        own=sum(1 for name in ("pairs.jsonl", "manner.jsonl") for _ in rows(Path(__file__).parent / name)),
        clean=clean,
        clean_rows=clean_rows,
        hours=hours,
        threads=args.threads,
        processor=processor,
        watts=watts,
        kwh=watts * hours / 1000,
        country="the United States",
        carbon=watts * hours / 1000 * per_kwh,
    )
    if not math.isfinite(hours):
        raise SystemExit("the curve holds a speed of zero: it is damaged")
    (args.out / "README.md").write_text(card)
    for file in args.out.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
