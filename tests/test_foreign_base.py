"""A base nobody here made: stories260K trains, answers and judges, and its adapter serves people without askback."""

import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from askback import api, commands
from askback.engines.local import LocalEngine
from askback.options import BackwardOptions, ForwardOptions
from askback.ports import Ask, Example, Prompt, Sampling
from askback.prompts import BACKWARD_LAYOUTS, DIGITS, FORWARD_LAYOUT, build_rubric
from askback.records import Pair
from askback.stages.judges import judge_expected, judge_likelihood
from models import llama_tokenizer, open_local, read_pieces, write_mini_llama

GREEDY = Sampling(temperature=0.0, max_new_tokens=40)
TALES = [
    ("Tell a story about a girl and her red ball.", "Lily had a big red ball. She liked to play with it in the park."),
    ("Tell a story about a dog.", "Tom had a dog. The dog was happy and ran in the sun all day long."),
    ("Write about a cat that is sad.", "The cat was sad. It wanted to find its mom. Then it saw her and was happy."),
    ("Tell how a boy made a new friend.", "One day, Ben met a girl. They played together and were friends."),
]
PAIRS = [Pair(id=f"t{n}", instruction=i, output=o) for n, (i, o) in enumerate(TALES * 2)]
QUICK = {"preset": "tiny", "epochs": 1, "batch": 4, "max_tokens": 128}
SHORT_RUBRIC = "Grade from 1 to 5 how well the story fits.\n{instruction}\n{output}\n"
"""The built-in one alone is longer than the 512 tokens this base reads."""


@pytest.fixture(scope="module")
def engine(stories: Path) -> LocalEngine:
    return open_local(stories)


@pytest.fixture(scope="module")
def adapter(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain backward model that learnt four tales by heart: a bare story in, the wish for it out."""
    out = tmp_path_factory.mktemp("plain") / "backward"
    by_heart = BackwardOptions(layout="plain", **QUICK | {"epochs": 20})
    report = commands.train("backward", PAIRS, out, by_heart, engine, seed=1)
    assert report.losses[-1][1] < 0.2 < report.losses[0][1]
    return out


# --- the conversion


def test_the_converted_base_goes_on_in_english(engine: LocalEngine) -> None:
    assert engine.tokens.start == (1,)
    [reply] = engine.generate()([Ask(Prompt("", "Once upon a time"))], GREEDY)
    assert reply.text.startswith(", there was a")
    assert {"She", "He", "They"} & set(reply.text.replace(".", " ").split())


def test_the_converted_base_expects_english_and_not_its_reverse(engine: LocalEngine) -> None:
    """A wrong order of weights or a wrong rotation costs nats: of 512 pieces, chance alone would cost 6.2 each."""
    there, back = engine.likelihood()(
        [Example("a", Prompt("", ""), text) for text in (TALES[0][1], " ".join(TALES[0][1].split()[::-1]))]
    )
    assert there is not None
    assert back is not None
    assert there.per_token > -2.5
    assert back.per_token < there.per_token - 1


def test_the_converted_tokenizer_joins_pieces_as_its_own_scores_say(engine: LocalEngine, shared: Path) -> None:
    pieces = list(read_pieces(shared / "weights" / "stories260K" / "tokenizer.bin", 512))
    for text in ("Once upon a time", "The cat was sad.", *(text for tale in TALES for text in tale)):
        assert engine.tokens.encode(text) == joined_by_score(text, pieces)
        assert engine.tokens.decode(engine.tokens.encode(text)) == text


def joined_by_score(text: str, pieces: list[tuple[str, float]]) -> list[int]:
    """Join the two neighbours whose union scores best, until none has a score: what the format's readers do."""
    ids = {piece: number for number, (piece, _) in reversed(list(enumerate(pieces)))}
    parts = list(f" {text}")
    while joins := [(-pieces[ids[a + b]][1], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in ids]:
        at = min(joins)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ids[part] for part in parts]


@pytest.mark.parametrize("text", ["漢字 🙂", "naïve\n\ttabs", "</s><s>", "\u2028"])
def test_text_the_base_has_no_pieces_for_goes_through_bytes_and_back(engine: LocalEngine, text: str) -> None:
    ids = engine.tokens.encode(text)
    assert engine.tokens.decode(ids) == text
    assert not {0, 1, 2} & set(ids)


# --- at work


def test_it_learns_to_hear_what_a_text_answers(engine: LocalEngine, adapter: Path) -> None:
    examples = [BACKWARD_LAYOUTS["plain"].example(pair) for pair in PAIRS[:4]]
    before, after = (list(engine.likelihood(model)(examples)) for model in (None, adapter))
    assert all(a is not None and b is not None and b.total > a.total for a, b in zip(before, after, strict=True))


def test_what_it_learnt_by_heart_it_says_and_stops(adapter: Path) -> None:
    model = api.load(adapter, device="cpu", precision="float32", threads=1)
    found = model.instructions([output for _, output in TALES], sampling=GREEDY)
    assert found == [[instruction] for instruction, _ in TALES]


def test_it_judges_by_digits_and_by_likelihood(engine: LocalEngine, adapter: Path, tmp_path: Path) -> None:
    forward = tmp_path / "forward"
    commands.train("forward", PAIRS, forward, ForwardOptions(**QUICK), engine, seed=1)
    for model in (None, forward):
        by_digits = list(judge_expected(PAIRS, engine.choose(model), build_rubric(SHORT_RUBRIC), round=1))
        by_gain = list(judge_likelihood(PAIRS, engine.likelihood(model), FORWARD_LAYOUT, round=1))
        assert all(j.score is not None and 1 <= j.score <= 5 for j in by_digits)
        assert all(sum(j.distribution) == pytest.approx(1, abs=1e-5) for j in by_digits)
        assert all(j.score is not None and math.isfinite(j.score) for j in by_gain)


def test_the_slot_of_a_small_foreign_vocabulary_tells_the_digits_apart(engine: LocalEngine) -> None:
    lead, ways = engine.tokens.choice_slot("Score:", DIGITS)
    assert [engine.tokens.decode([*lead, *way]) for [way] in ways] == [f"Score: {digit}" for digit in DIGITS]


# --- for people without askback

QUICK_START = """
import json, sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(adapter)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
inputs = tokenizer(text, return_tensors="pt")
outputs = model.generate(**inputs, max_new_tokens=40, do_sample=False)
written = outputs[0][inputs["input_ids"].shape[1]:]
answer = tokenizer.decode(written, skip_special_tokens=True)
ids = inputs["input_ids"][0].tolist()
print(json.dumps({"ids": ids, "answer": answer, "ours": "askback" in sys.modules}))
"""


def quick_start(base: Path, adapter: Path, text: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", QUICK_START, str(base), str(adapter), text]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_plain_adapter_answers_to_peft_and_transformers_alone(
    engine: LocalEngine, stories: Path, adapter: Path
) -> None:
    found = quick_start(stories, adapter, PAIRS[2].output)
    prompt = engine.tokens.prompt(BACKWARD_LAYOUTS["plain"].prompt(PAIRS[2]), 512)
    assert not found["ours"]
    assert prompt == (found["ids"], 0)  # a bare text is the whole prompt, token for token
    assert found["answer"].strip() == PAIRS[2].instruction


# --- the real Llama tokenizer


@pytest.fixture(scope="module")
def wide(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """A mini Llama of random weights over the 32,000 pieces of the real tokenizer, without a padding token."""
    return open_local(write_mini_llama(tmp_path_factory.mktemp("wide"), llama_tokenizer(shared)))


def test_the_real_tokenizer_survives_its_folder(wide: LocalEngine, shared: Path) -> None:
    ours, original = wide.tokens, llama_tokenizer(shared)
    assert (ours.start, ours.stop, ours.pad) == ((1,), 2, 2)
    assert ours.encode("Explain tides.\n") == original("Explain tides.\n", add_special_tokens=False)["input_ids"]


def test_training_and_asking_run_on_the_real_tokenizer(wide: LocalEngine, tmp_path: Path) -> None:
    options = BackwardOptions(**QUICK)
    report = commands.train("backward", PAIRS, tmp_path / "backward", options, wide, seed=1)
    labels = sum(len(wide.tokens.encode(pair.instruction)) + 1 for pair in PAIRS)
    assert (report.examples, report.label_tokens, report.rejected) == (8, labels, ())
    assert report.losses[0][1] == pytest.approx(math.log(32000), rel=0.5)
    [reply] = wide.generate(tmp_path / "backward")([Ask(Prompt("", PAIRS[0].output))], Sampling(0.0, 1.0, 5))
    assert 0 < reply.tokens <= 5
    [choice] = wide.choose(tmp_path / "backward")([Prompt("", PAIRS[0].output, "\nScore:")], DIGITS)
    assert sum(choice.probabilities) + choice.outside == pytest.approx(1, abs=1e-5)


def test_what_carries_loss_can_be_looked_at(wide: LocalEngine) -> None:
    shown = commands.show_labels("backward", PAIRS[:1], BackwardOptions(**QUICK), wide)
    assert re.search(rf"{re.escape(PAIRS[0].instruction)}\s*</s>", shown)
    assert shown.index(PAIRS[0].output) < shown.index(PAIRS[0].instruction)
