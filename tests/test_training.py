"""Training: the loss is the model's own, chance and interruption change no byte, and nothing is learnt in silence."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from askback.engines import lora
from askback.engines.batches import training_order
from askback.engines.checkpoints import COMPLETE, last_checkpoint
from askback.engines.local import LocalEngine
from askback.engines.lora import build_network
from askback.engines.presets import rate_factor, resolve
from askback.engines.tokens import Row
from askback.errors import ConfigError, DataError, IntegrityError
from askback.options import TuneOptions
from askback.ports import Ask, Example, FitReport, Sampling
from models import example, open_local

WORDS = "the sea is salt and deep so ships may sail where fishes sleep a letter lamp under stone".split()
QUICK = TuneOptions(preset="tiny", learning_rate=1e-2, epochs=1, batch=4, max_tokens=64, checkpoint_every_s=3600)
FEW = Sampling(temperature=0.0, max_new_tokens=4)
EVERY_STEP = QUICK.model_copy(update={"checkpoint_every_s": 1e-9})


def examples_of(count: int, seed: int = 0) -> list[Example]:
    random = Random(seed)

    def text(most: int) -> str:
        return " ".join(random.choices(WORDS, k=random.randint(1, most)))

    return [example(text(6), text(20), id=f"e{n}", before="Text: ", after="\nAsk:") for n in range(count)]


EXAMPLES = examples_of(24)  # six steps


@pytest.fixture
def engine(mini_base: Path) -> LocalEngine:
    return open_local(mini_base)


def fit(
    engine: LocalEngine, out: Path, options: TuneOptions = QUICK, *, seed: int = 5, rows: Sequence[Example] = EXAMPLES
) -> FitReport:
    out.mkdir(parents=True, exist_ok=True)
    return engine.fit(options, seed=seed)(rows, out)


def bytes_of(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def undisturbed(mini_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitReport]:
    """One training run that nothing happened to: the folder of its adapter, and its report."""
    out = tmp_path_factory.mktemp("undisturbed") / "adapter"
    return out, fit(open_local(mini_base), out)


# --- loss and gradients


def rows_of(engine: LocalEngine, examples: Sequence[Example]) -> list[Row]:
    rows = [engine.tokens.row(one, 64) for one in examples]
    return [row for row in rows if isinstance(row, Row)]


@contextmanager
def one_step(engine: LocalEngine, folder: Path, micro: int, times: int) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Train one step of micro * times rows; give the gradients it took and the loss it told."""
    from transformers import TrainerCallback, TrainingArguments

    from askback.engines.trainer import LabelTrainer

    gradients: dict[str, Any] = {}

    class Note(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **rest: Any) -> None:
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    engine.release()
    lora.device.seed_everything(0)
    recipe = resolve(QUICK.model_copy(update={"dropout": 0.0}), rows=8, model_tokens=64)
    network = build_network(engine, recipe)
    trainer = LabelTrainer(
        model=network,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=times,
            num_train_epochs=1,
            max_grad_norm=0.0,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows_of(engine, EXAMPLES)[: micro * times],
        data_collator=engine.tokens,
        factor=lambda step: 1.0,
        callbacks=[Note()],
    )
    trainer.train()
    yield gradients, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    network.unload()


def test_the_loss_is_the_models_own_under_the_same_labels(engine: LocalEngine) -> None:
    import torch

    from askback.engines.trainer import Collate, LabelTrainer

    batch = Collate(engine.tokens)(rows_of(engine, EXAMPLES)[:6])
    trainer = LabelTrainer.__new__(LabelTrainer)
    with torch.no_grad():
        ours = LabelTrainer.compute_loss(trainer, engine.causal, batch)
        theirs = engine.causal(**batch).loss
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    assert float(ours) > 1  # of random weights: a loss that is nearly nothing would be a mask gone wrong


@pytest.mark.parametrize(("micro", "times"), [(4, 2), (1, 8)])
def test_rows_taken_a_few_at_a_time_give_the_gradients_of_the_whole_batch(
    engine: LocalEngine, tmp_path: Path, micro: int, times: int
) -> None:
    with one_step(engine, tmp_path, 8, 1) as (whole, loss):
        pass
    with one_step(engine, tmp_path, micro, times) as (parts, other_loss):
        pass
    assert whole.keys() == parts.keys()
    assert all("lora_" in name for name in whole)
    assert max(float((whole[name] - parts[name]).abs().max()) for name in whole) < 1e-5
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    assert loss == pytest.approx(other_loss, abs=1e-5)


def test_the_reported_loss_is_the_mean_over_label_tokens(engine: LocalEngine, tmp_path: Path) -> None:
    import torch

    rows = rows_of(engine, EXAMPLES)[:8]
    with torch.no_grad():
        scored = engine._score(None, rows)
    with one_step(engine, tmp_path, 4, 2) as (_, losses):
        pass
    assert losses == [pytest.approx(-sum(scored) / sum(len(row.target) for row in rows), abs=1e-4)]


# --- the same run, twice


def test_two_runs_with_one_seed_are_equal_to_the_byte(
    mini_base: Path, undisturbed: tuple[Path, FitReport], tmp_path: Path
) -> None:
    folder, report = undisturbed
    again = fit(open_local(mini_base), tmp_path / "adapter")
    assert again.losses == report.losses
    assert bytes_of(tmp_path / "adapter") == bytes_of(folder)
    assert bytes_of(folder).keys() >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}


def test_another_seed_is_another_run(engine: LocalEngine, undisturbed: tuple[Path, FitReport], tmp_path: Path) -> None:
    assert fit(engine, tmp_path / "adapter", seed=6).losses != undisturbed[1].losses


def test_the_loss_is_told_at_every_step_and_falls(undisturbed: tuple[Path, FitReport]) -> None:
    report = undisturbed[1]
    assert [step for step, _ in report.losses] == list(range(1, report.steps + 1)) == list(range(1, 7))
    assert all(math.isfinite(loss) for _, loss in report.losses)
    assert report.losses[-1][1] < report.losses[0][1]


def test_the_report_counts_what_was_trained_on(engine: LocalEngine, undisturbed: tuple[Path, FitReport]) -> None:
    report, rows = undisturbed[1], rows_of(engine, EXAMPLES)
    assert (report.examples, report.rejected) == (24, ())
    assert report.label_tokens == sum(len(row.target) for row in rows)
    assert report.tokens == sum(len(row) for row in rows)
    assert 0 < report.trainable_parameters < report.parameters
    assert report.recipe["learning_rate"] == 1e-2
    json.dumps(report.as_dict())


def test_every_step_is_told_to_who_watches_and_nothing_is_printed(
    engine: LocalEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    engine.fit(QUICK, seed=5)(EXAMPLES, tmp_path, lambda done, total: told.append((done, total)))
    assert told == [(step, 6) for step in range(1, 7)]
    assert capsys.readouterr().out == ""


def test_a_training_leaves_the_base_as_it_was(engine: LocalEngine, tmp_path: Path) -> None:
    before = list(engine.likelihood()(EXAMPLES))
    fit(engine, tmp_path / "adapter")
    assert list(engine.likelihood()(EXAMPLES)) == before
    assert list(engine.likelihood(tmp_path / "adapter")(EXAMPLES)) != before
    engine.release()
    assert not engine.causal.training
    assert engine.causal.config.use_cache
    assert not any("lora" in name for name, _ in engine.causal.named_parameters())


def test_a_training_that_fails_leaves_the_base_as_it_was(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(engine.likelihood()(EXAMPLES))
    with stopped_at_step(3, monkeypatch), pytest.raises(KeyboardInterrupt):
        fit(engine, tmp_path / "adapter")
    assert not any("lora" in name for name, _ in engine.causal.named_parameters())
    assert list(engine.likelihood()(EXAMPLES)) == before


def test_a_second_training_starts_from_the_base_and_not_from_the_first(
    engine: LocalEngine, undisturbed: tuple[Path, FitReport], tmp_path: Path
) -> None:
    fit(engine, tmp_path / "first" / "adapter", rows=examples_of(8, seed=9))
    list(engine.likelihood(tmp_path / "first" / "adapter")(EXAMPLES[:2]))
    fit(engine, tmp_path / "second" / "adapter")
    assert bytes_of(tmp_path / "second" / "adapter") == bytes_of(undisturbed[0])


# --- reloaded elsewhere

RELOAD = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
base, adapter, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
with torch.no_grad():
    logits = network(input_ids=torch.tensor([ids])).logits[0, -1].tolist()
print(json.dumps({"logits": logits, "target_modules": sorted(network.peft_config["default"].target_modules)}))
"""


def run_python(script: str, *arguments: str, hash_seed: str = "0") -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_fresh_process_with_peft_alone_finds_the_model_that_was_trained(
    engine: LocalEngine, mini_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    ids, in_memory = engine.tokens.encode("the sea is deep"), []

    def save_and_note(engine: LocalEngine, network: Any, *rest: Any) -> None:
        with torch.no_grad():
            in_memory.extend(network.eval()(input_ids=torch.tensor([ids])).logits[0, -1].tolist())
        original(engine, network, *rest)

    original = lora.save
    monkeypatch.setattr(lora, "save", save_and_note)
    fit(engine, tmp_path / "adapter")
    found = json.loads(run_python(RELOAD, str(mini_base), str(tmp_path / "adapter"), json.dumps(ids)))
    assert found["logits"] == pytest.approx(in_memory, abs=1e-5)
    assert found["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


def test_every_module_that_was_asked_for_learnt_something(undisturbed: tuple[Path, FitReport]) -> None:
    from safetensors.torch import load_file

    weights = load_file(undisturbed[0] / "adapter_model.safetensors")
    learnt = {name: bool(weight.any()) for name, weight in weights.items() if "lora_B" in name}
    assert len(learnt) == 2 * 4  # layers, targets
    assert all(learnt.values())


def test_the_config_of_an_adapter_is_written_in_one_order(undisturbed: tuple[Path, FitReport]) -> None:
    """Sets have no order of their own: from one process to the next the same bytes would not come out."""
    config = json.loads((undisturbed[0] / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (8, 32, 0.05)
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")


# --- stopped and gone on with


@contextmanager
def stopped_at_step(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt whatever trains in here when it begins that step."""
    from askback.engines.trainer import LabelTrainer

    original = LabelTrainer.compute_loss

    def compute_loss(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step + 1 == step:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LabelTrainer, "compute_loss", compute_loss)
        yield


def checkpoints(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob(f"checkpoint-*/{COMPLETE}"))


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that every optimizer step from now on is written into."""
    from askback.engines.trainer import TimedCheckpoints

    taken: list[int] = []
    original = TimedCheckpoints.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        taken.append(state.global_step)
        return original(self, args, state, control, **rest)

    monkeypatch.setattr(TimedCheckpoints, "on_step_end", on_step_end)
    return taken


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    mini_base: Path, undisturbed: tuple[Path, FitReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with stopped_at_step(step, monkeypatch), pytest.raises(KeyboardInterrupt):
        fit(open_local(mini_base), tmp_path / "adapter", EVERY_STEP)
    taken = steps_taken(monkeypatch)
    report = fit(open_local(mini_base), tmp_path / "adapter", EVERY_STEP)
    assert taken == list(range(step, 7))  # what was done before is not done again
    assert bytes_of(tmp_path / "adapter") == bytes_of(undisturbed[0])
    assert report.losses == undisturbed[1].losses


def test_a_checkpoint_cut_off_while_it_was_written_is_not_used(
    mini_base: Path, undisturbed: tuple[Path, FitReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_at_step(5, monkeypatch), pytest.raises(KeyboardInterrupt):
        fit(open_local(mini_base), tmp_path / "adapter", EVERY_STEP)
    newest = checkpoints(tmp_path)[-1]
    (newest / COMPLETE).unlink()
    (newest / "adapter_model.safetensors").write_bytes(b"half")
    taken = steps_taken(monkeypatch)
    fit(open_local(mini_base), tmp_path / "adapter", EVERY_STEP)
    assert taken == [4, 5, 6]
    assert bytes_of(tmp_path / "adapter") == bytes_of(undisturbed[0])


def test_the_newest_whole_checkpoint_is_found_by_its_number(tmp_path: Path) -> None:
    for step, whole in ((9, True), (10, True), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "change",
    [{"rows": examples_of(24, seed=1)}, {"seed": 6}, {"options": EVERY_STEP.model_copy(update={"rank": 4})}],
    ids=["rows", "seed", "rank"],
)
def test_a_checkpoint_of_another_training_is_never_gone_on_with(
    mini_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    with stopped_at_step(4, monkeypatch), pytest.raises(KeyboardInterrupt):
        fit(open_local(mini_base), tmp_path / "one", EVERY_STEP)
    taken = steps_taken(monkeypatch)
    fit(open_local(mini_base), tmp_path / "other", **{"options": EVERY_STEP, **change})
    assert taken == list(range(1, 7))


def test_a_finished_training_leaves_no_checkpoint_behind(engine: LocalEngine, tmp_path: Path) -> None:
    fit(engine, tmp_path / "adapter", EVERY_STEP)
    assert checkpoints(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


KILLED = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from models import open_local
from test_training import EVERY_STEP, fit
import askback.engines.trainer as trainer, time
whole = trainer.TimedCheckpoints.on_step_end
def slowly(*a, **k):
    time.sleep(0.3)
    return whole(*a, **k)
trainer.TimedCheckpoints.on_step_end = slowly
fit(open_local(Path(sys.argv[1])), Path(sys.argv[2]), EVERY_STEP)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_but_time(
    mini_base: Path, undisturbed: tuple[Path, FitReport], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(mini_base), str(tmp_path / "adapter"), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while len(checkpoints(tmp_path)) < 2 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert checkpoints(tmp_path)
    fit(open_local(mini_base), tmp_path / "adapter", EVERY_STEP)
    assert bytes_of(tmp_path / "adapter") == bytes_of(undisturbed[0])


# --- presets and rates


def recipe_of(**options: Any) -> Any:
    rows = options.pop("rows", 3200)
    return resolve(TuneOptions(**options), rows=rows, model_tokens=2048)


def test_the_card_preset_is_the_reference_cards() -> None:
    card = recipe_of()
    assert (card.preset, card.lora, card.four_bit) == ("card", True, False)
    assert (card.rank, card.alpha, card.dropout) == (8, 32, 0.05)
    assert card.targets == ("q_proj", "k_proj", "v_proj", "o_proj")


def test_the_paper_preset_is_the_papers() -> None:
    paper = recipe_of(preset="paper")
    assert (paper.learning_rate, paper.learning_rate_floor, paper.weight_decay) == (1e-5, 9e-6, 0.1)
    assert (paper.batch, paper.batch * 500) == (32, 3200 * paper.epochs)
    assert recipe_of(preset="paper", rows=2999).batch == 8
    assert not paper.lora


@pytest.mark.parametrize("steps", [1, 2, 20, 500])
def test_the_papers_rate_never_falls_under_its_absolute_floor(steps: int) -> None:
    paper = recipe_of(preset="paper")
    rates = [paper.learning_rate * rate_factor(step, steps, paper) for step in range(steps)]
    top = rates.index(max(rates))
    assert min(rates[top:]) >= 9e-6
    assert max(rates) == pytest.approx(1e-5)
    assert paper.learning_rate * rate_factor(steps, steps, paper) == pytest.approx(9e-6)


def test_a_rate_rises_evenly_and_then_falls_evenly() -> None:
    recipe = recipe_of(learning_rate=1.0, learning_rate_floor=0.2, warmup=0.2)
    rates = [rate_factor(step, 10, recipe) for step in range(11)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])


def test_a_floor_above_the_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate_floor = 0\.1 is above learning_rate = 0\.01"):
        recipe_of(learning_rate=0.01, learning_rate_floor=0.1)
    with pytest.raises(ConfigError, match=r"learning_rate_floor = 9e-06 is above"):
        recipe_of(preset="paper", learning_rate=1e-6)


def test_rows_longer_than_the_base_reads_are_refused_and_a_presets_length_is_bounded() -> None:
    with pytest.raises(ConfigError, match="max_tokens = 4096, but the base reads at most 2048"):
        recipe_of(max_tokens=4096)
    assert resolve(TuneOptions(), rows=9, model_tokens=300).max_tokens == 300


def test_what_the_user_says_lies_over_the_preset() -> None:
    own = recipe_of(preset="tiny", learning_rate=0.5, epochs=7, batch=3, max_tokens=99, rank=2, weight_decay=0.4)
    assert (own.learning_rate, own.epochs, own.batch, own.max_tokens) == (0.5, 7, 3, 99)
    assert (own.rank, own.weight_decay) == (2, 0.4)


def test_a_bound_on_steps_shortens_the_epochs_and_a_preset_bounds_only_its_own() -> None:
    assert recipe_of(preset="card", batch=4, steps=8, rows=64).epochs == 0.5
    assert recipe_of(preset="card", steps=10**6).epochs == 3
    assert recipe_of(preset="tiny", rows=3200).epochs < 4
    assert recipe_of(preset="tiny", rows=3200, epochs=7).epochs == 7


def test_the_paper_preset_trains_every_weight_and_saves_a_plain_model(engine: LocalEngine, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, options = tmp_path / "model", TuneOptions(preset="paper", epochs=1, batch=4, max_tokens=64)
    report = fit(engine, out, options)
    assert report.trainable_parameters == report.parameters
    before, after = (load_file(folder / "model.safetensors") for folder in (Path(engine.base.path), out))
    assert before.keys() == after.keys()
    assert all(bool((before[name] != after[name]).any()) for name in before)
    assert not (out / "adapter_config.json").exists()
    network, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    text = tokenizer("the sea", return_tensors="pt")
    assert network.config.use_cache
    assert network.generate(**text, max_new_tokens=3, do_sample=False).shape[1] == text["input_ids"].shape[1] + 3


def test_a_whole_model_answers_through_the_engine(engine: LocalEngine, tmp_path: Path) -> None:
    options = TuneOptions(preset="paper", learning_rate=1e-2, epochs=1, batch=4, max_tokens=64)
    model, before = tmp_path / "model", list(engine.likelihood()(EXAMPLES))
    fit(engine, model, options)
    itself = open_local(model)
    assert list(engine.likelihood(model)(EXAMPLES)) == list(itself.likelihood()(EXAMPLES)) != before
    asks = [Ask(one.prompt) for one in EXAMPLES[:4]]
    assert list(engine.generate(model)(asks, FEW)) == list(itself.generate()(asks, FEW))
    assert list(engine.likelihood()(EXAMPLES)) == before


# --- what cannot be trained


def test_a_data_set_in_which_nothing_fits_is_an_error_that_shows_a_row(engine: LocalEngine, tmp_path: Path) -> None:
    long = [example(" ".join(WORDS * 9), "text", id=f"long{n}") for n in range(3)]
    with pytest.raises(DataError, match="no example can be trained on; the first: long0 too_long"):
        fit(engine, tmp_path / "adapter", rows=long)
    with pytest.raises(DataError, match="no examples"):
        fit(engine, tmp_path / "adapter", rows=[])


def test_rows_that_do_not_fit_are_told_and_the_others_trained_on(engine: LocalEngine, tmp_path: Path) -> None:
    odd = [example(" ".join(WORDS * 9), "text", id="long"), example("", "text", id="empty")]
    report = fit(engine, tmp_path / "adapter", rows=[*odd, *EXAMPLES[:4]])
    assert report.examples == 4
    assert [(id, why.split(":")[0]) for id, why in report.rejected] == [("long", "too_long"), ("empty", "no_label")]


def poisoned(engine: LocalEngine) -> None:
    import torch

    with torch.no_grad():
        engine.causal.get_input_embeddings().weight[engine.tokens.encode("the")[0]] = float("nan")


def far_too_fast(engine: LocalEngine) -> None:
    import torch

    with torch.no_grad():
        engine.causal.model.norm.weight.fill_(1e38)  # logits beyond what float32 holds


@pytest.mark.parametrize("spoil", [poisoned, far_too_fast])
def test_a_loss_that_is_not_finite_stops_the_training(
    engine: LocalEngine, tmp_path: Path, spoil: Callable[[LocalEngine], None]
) -> None:
    spoil(engine)
    with pytest.raises(IntegrityError, match=r"the loss is (nan|inf) at step 1.*lower learning_rate"):
        fit(engine, tmp_path / "adapter")
    assert not list((tmp_path / "adapter").iterdir())


def test_weights_that_are_not_finite_are_never_saved(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        fit(engine, tmp_path / "adapter", QUICK.model_copy(update={"learning_rate": 1e30}))
    assert not list((tmp_path / "adapter").iterdir())


def test_an_adapter_that_learnt_nothing_is_never_saved(engine: LocalEngine, tmp_path: Path) -> None:
    still = QUICK.model_copy(update={"learning_rate": 1e-45})
    with pytest.raises(IntegrityError, match="learnt nothing: every lora_B is zero"):
        fit(engine, tmp_path / "adapter", still)
    assert not list((tmp_path / "adapter").iterdir())


@pytest.mark.parametrize("targets", [("nonsense",), ("q_proj", "nonsense")])
def test_targets_the_base_does_not_have_are_refused_with_those_it_has(
    engine: LocalEngine, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"nonsense.*q_proj"):
        fit(engine, tmp_path / "adapter", QUICK.model_copy(update={"targets": targets}))
    assert not any("lora" in name for name, _ in engine.causal.named_parameters())


# --- order


@pytest.mark.parametrize("rows", [1, 7, 33, 400])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("batch", [1, 4, 8])
def test_every_row_comes_exactly_once_an_epoch(rows: int, epochs: int, batch: int) -> None:
    lengths = [Random(n).randint(5, 500) for n in range(rows)]
    order = training_order(lengths, epochs=epochs, batch=batch, seed=3)
    assert Counter(order) == dict.fromkeys(range(rows), epochs)
    assert order == training_order(lengths, epochs=epochs, batch=batch, seed=3)


def test_a_fraction_of_an_epoch_takes_that_many_rows_once_more() -> None:
    order = training_order([9] * 40, epochs=1.25, batch=4, seed=0)
    assert Counter(Counter(order).values()) == {1: 30, 2: 10}


def test_the_seed_decides_the_order_and_rows_of_a_batch_are_of_similar_length() -> None:
    lengths = [Random(n).randint(5, 500) for n in range(256)]
    one, other = (training_order(lengths, epochs=1, batch=8, seed=seed) for seed in (0, 1))
    assert one != other
    padded = sum(8 * max(lengths[i] for i in one[cut : cut + 8]) for cut in range(0, 256, 8))
    assert padded < 1.15 * sum(lengths)
    firsts = [lengths[one[cut]] for cut in range(0, 128, 8)]
    assert firsts != sorted(firsts)


def test_a_recipe_is_frozen(undisturbed: tuple[Path, FitReport]) -> None:
    recipe = recipe_of()
    assert replace(recipe, rank=4) != recipe
    with pytest.raises(AttributeError):
        recipe.rank = 4
