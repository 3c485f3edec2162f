"""Training, writing and judging on one GPU with a Llama of random weights, beside the plain Trainer.

Takes: nothing: the base is built from its shape, the rows are the embedded pairs.
Gives: each figure beside the asked one; without a GPU, or with --small, a small shape, of which nothing is asked.
Never: downloads a weight, or compares figures of rows that are not the same.

    python -m benchmarks.gpu --check --write

A training's work is counted for tokens that are rows, not padding: 4 operations per weight and token (the weights are
frozen: one product forward, one backward), 6 * width * length per token and layer for causal attention, and the head
at labels alone. Its share is that work per second over what a large bf16 product does per second. Without a GPU seconds
are those this process computed: what else runs on the machine does not count. A base of random weights learns little
in so few steps: equal losses say that both ways train on the same labels.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from askback.embedded import SEED
from askback.engines import batches, device
from askback.engines.bases import EMBEDDED
from askback.engines.local import LocalEngine
from askback.engines.open import quieten
from askback.engines.presets import resolve
from askback.engines.tokens import Row
from askback.options import EngineOptions, SeedOptions, TuneOptions
from askback.ports import Ask, Example, FitReport, Prompt, Sampling
from askback.prompts import DIGITS, build_rubric
from askback.readers.seed import read_seed
from askback.records import Pair
from benchmarks.figures import Figure, add_flags, show


@dataclass(frozen=True)
class Shape:
    """A Llama, and how much is done with it."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    rows: int
    asked: int
    new_tokens: int
    product: int
    max_tokens: int


LLAMA_2_7B = Shape("Llama-2-7B", 4096, 11008, 32, 32, 32000, 640, 256, 128, 8192, 1024)
SMALL = Shape("a small Llama", 128, 344, 2, 4, 8000, 32, 4, 8, 1024, 256)
SHARE_ASKED, RATIO_ASKED, LOSS_ASKED = 0.45, 2.0, 0.05


@dataclass(frozen=True)
class Trained:
    """One way to train on the rows: what its steady steps took, its memory at the highest, its mean loss."""

    tokens_per_s: float
    peak_bytes: int
    loss: float


def measure(shape: Shape, folder: Path) -> Iterator[Figure]:
    """Yield the figures of one shape."""
    bench = Bench(shape, folder)
    whole = shape is LLAMA_2_7B
    rate = bench.product_rate()
    yield Figure(f"{shape.name} on {bench.engine.device.type}: a large product, tera-operations/s", rate / 1e12)
    ours = bench.train_ours()
    yield Figure("LoRA, preset card: tokens/s of the rows", ours.tokens_per_s)
    share = ours.tokens_per_s * bench.work_per_token() / rate
    yield Figure("share of the measured product rate", share, SHARE_ASKED if whole else None)
    if device.knows_memory(bench.engine.device):
        yield Figure("highest memory of the training beside the base, GB", ours.peak_bytes / 1e9)
    plain = bench.train_plain()
    yield Figure("the Trainer's defaults on the same rows: tokens/s", plain.tokens_per_s)
    if device.knows_memory(bench.engine.device):
        yield Figure("their highest memory beside the base, GB", plain.peak_bytes / 1e9)
    ratio = ours.tokens_per_s / plain.tokens_per_s
    yield Figure("ours over the defaults", ratio, RATIO_ASKED if whole else None)
    yield Figure("mean loss of ours", ours.loss)
    apart = abs(ours.loss - plain.loss) / plain.loss
    yield Figure("how far the mean losses are apart, as a share", apart, LOSS_ASKED, at_most=True)
    yield Figure(f"generation of {shape.new_tokens} tokens: rows/s", bench.generate())
    yield Figure("judging (expected score): rows/s", bench.judge())


class Bench:
    """A base of random weights, opened by the local engine, and the rows."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        from transformers import AutoTokenizer, LlamaConfig

        self.shape = shape
        self.folder = folder
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=4096,
        )
        config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(EMBEDDED).save_pretrained(folder)
        self.engine = LocalEngine(EngineOptions(base=str(folder), devices=1))
        self.engine._model = self._build(config)
        found = read_seed(SeedOptions(path=str(SEED))).outcomes
        self.pairs = list(islice(cycle([pair for pair in found if isinstance(pair, Pair)]), shape.rows))
        self.examples = [
            Example(str(n), Prompt("", pair.output, "\n\nAsk:"), pair.instruction) for n, pair in enumerate(self.pairs)
        ]
        self.options = TuneOptions(preset="card", epochs=1, max_tokens=shape.max_tokens)
        self.recipe = resolve(self.options, rows=len(self.examples), model_tokens=self.engine.max_tokens)
        made = [self.engine.tokens.row(one, self.recipe.max_tokens) for one in self.examples]
        self.rows = [row for row in made if isinstance(row, Row)]

    def _build(self, config: Any) -> Any:
        from transformers import LlamaForCausalLM

        before = torch.get_default_dtype()
        torch.set_default_dtype(self.engine.dtype)
        try:
            with self.engine.device:
                torch.manual_seed(0)
                return LlamaForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(before)

    # --- rates

    def product_rate(self) -> float:
        """Return the operations per second of a large product in the precision of training, the best of ten."""
        size = self.shape.product
        one, other = (torch.randn(size, size, device=self.engine.device, dtype=self.engine.dtype) for _ in range(2))
        seconds = [self._seconds(lambda: torch.matmul(one, other)) for _ in range(11)][1:]
        return float(2 * size**3 / min(seconds))

    def work_per_token(self) -> float:
        """Return the operations that training takes per token of these rows; see the head of this file."""
        shape, lengths = self.shape, [len(row) for row in self.rows]
        block = 4 * shape.hidden**2 + 3 * shape.hidden * shape.inner
        tokens = sum(lengths)
        attention = 6 * shape.layers * shape.hidden * sum(length**2 for length in lengths) / tokens
        head = 4 * shape.hidden * shape.vocabulary * sum(len(row.target) for row in self.rows) / tokens
        return 4 * shape.layers * block + attention + head

    def _seconds(self, call: Callable[[], object]) -> float:
        began = self.now()
        call()
        return self.now() - began

    def now(self) -> float:
        """Return the seconds of the clock, when everything that was asked for is done."""
        if self.engine.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()

    # --- trainings

    def train_ours(self) -> Trained:
        """Train with the preset, as `askback train` does; keep the adapter for what follows."""
        out, clock, found = self.folder / "adapter", Clock(self.now), list[FitReport]()
        out.mkdir()
        fit = self.engine.fit(self.options, seed=0)
        peak = device.peak_bytes(self.engine.device, lambda: found.append(fit(self.examples, out, clock)))
        batch = self.recipe.batch
        order = batches.training_order([len(row) for row in self.rows], epochs=1, batch=batch, seed=0)
        tokens = [len(self.rows[place]) for place in order]
        return Trained(
            clock.rate([sum(tokens[cut : cut + batch]) for cut in range(0, len(tokens), batch)]),
            peak,
            _of_rows([loss for _, loss in found[0].losses], batch, len(tokens)),
        )

    def train_plain(self) -> Trained:
        """Train on the same rows with peft and the Trainer as they come: rows padded in the order of their shuffle.

        Rank, targets, rate and rows in a step are ours, so that the losses can be compared.
        """
        from peft import LoraConfig, get_peft_model
        from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        recipe, clock = self.recipe, Clock(self.now)
        counted: list[int] = []
        self.engine.release()
        config = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=list(recipe.targets)
        )
        network = get_peft_model(self.engine.causal, config)
        tokenizer = self.engine.tokens.tokenizer
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        collate = DataCollatorForSeq2Seq(tokenizer)

        def count(rows: Sequence[Any]) -> Any:
            counted.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        class Told(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                clock(state.global_step, state.max_steps)

        trainer = Trainer(
            model=network,
            args=TrainingArguments(
                output_dir=str(self.folder / "plain"),
                gradient_accumulation_steps=recipe.batch // 8,  # of eight rows each, as it has them by itself
                num_train_epochs=1,
                learning_rate=recipe.learning_rate,
                bf16=device.autocasts(self.engine.dtype, self.engine.device),
                use_cpu=self.engine.device.type == "cpu",
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                remove_unused_columns=False,
                disable_tqdm=True,
            ),
            train_dataset=[_as_plain(row) for row in self.rows],
            data_collator=count,
            callbacks=[Told()],
        )
        trainer.remove_callback(PrinterCallback)
        peak = device.peak_bytes(self.engine.device, trainer.train)
        network.unload().eval()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        micro = recipe.batch // 8
        steps = [sum(counted[cut : cut + micro]) for cut in range(0, len(counted), micro)]
        return Trained(clock.rate(steps), peak, _of_rows(losses, recipe.batch, len(self.rows)))

    # --- answers

    def generate(self) -> float:
        """Return rows per second of drawn instructions, every one written to its last token."""
        asks = [Ask(one.prompt, seed) for seed, one in enumerate(self.examples[: self.shape.asked])]
        drawn, stop = Sampling(max_new_tokens=self.shape.new_tokens), self.engine.tokens.stop
        call = self.engine.generate(self.folder / "adapter")
        list(call(asks[:2], Sampling(max_new_tokens=2)))
        self.engine.tokens.stop = -1
        try:
            return len(asks) / self._seconds(lambda: list(call(asks, drawn)))
        finally:
            self.engine.tokens.stop = stop

    def judge(self) -> float:
        """Return rows per second of the expected score, read from the digits' probabilities."""
        rubric = build_rubric()
        prompts = [rubric.prompt(pair, reasons=False) for pair in self.pairs[: self.shape.asked]]
        call = self.engine.choose(self.folder / "adapter")
        list(call(prompts[:2], DIGITS))
        return len(prompts) / self._seconds(lambda: list(call(prompts, DIGITS)))


class Clock:
    """Watches a training: the time at the end of each step, with all its work done."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.ends: list[float] = []

    def __call__(self, done: int, total: int) -> None:
        """One step more."""
        self.ends.append(self.now())

    def rate(self, tokens: Sequence[int]) -> float:
        """Return tokens per second of the steps after the first, which also sets everything up."""
        return sum(tokens[1 : len(self.ends)]) / (self.ends[-1] - self.ends[0])


def _as_plain(row: Row) -> dict[str, list[int]]:
    ids = [*row.prompt, *row.target]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * len(row.prompt) + list(row.target)}


def _of_rows(losses: Sequence[float], batch: int, rows: int) -> float:
    """Return the mean of the steps' losses, each by its rows."""
    sizes = [min(batch, rows - start) for start in range(0, rows, batch)]
    return mean(loss for loss, size in zip(losses, sizes, strict=True) for _ in range(size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small shape; without a GPU it is taken anyway")
    add_flags(parser)
    args = parser.parse_args()
    quieten()
    on_gpu = device.knows_memory(device.pick_device(EngineOptions()))
    shape = LLAMA_2_7B if on_gpu and not args.small else SMALL
    with tempfile.TemporaryDirectory(prefix="askback-") as name:
        show(measure(shape, Path(name)), args, "gpu")


if __name__ == "__main__":
    main()
