"""vLLM: what goes in are the ids of training, and what comes out is read as the local engine reads its own.

vLLM cannot be installed beside the transformers of the tests. The outputs here are stand-ins in the shape that vLLM
0.32 gave; the last test asks a real one, of the interpreter that ASKBACK_VLLM_PYTHON names.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from askback.engines import vllm
from askback.engines.bases import EMBEDDED
from askback.engines.local import LocalEngine
from askback.engines.tokens import Row
from askback.engines.vllm import VllmEngine
from askback.errors import ConfigError, MissingExtra
from askback.options import EngineOptions
from askback.ports import Ask, Prompt, Sampling
from models import example, open_local, write_adapter
from test_training import EXAMPLES as TRAINED_ON
from test_training import QUICK, bytes_of

DIGITS = tuple("12345")
PROMPTS = [Prompt("Text: ", "the sea is deep " * n, "\nScore:") for n in (1, 3, 40)]
EXAMPLES = [example(f" ships sail {n}", "the sea " * n, before="Text: ", after="\nAsk:") for n in (1, 2, 90)]


class LikeVllm:
    """Answers rows as vLLM does, with the probabilities of a local engine: same shapes, same ids, one row at a time."""

    def __init__(self, local: LocalEngine) -> None:
        self.local = local
        self.asked: list[tuple[list[int], dict[str, Any]]] = []

    def answer(self, model: Path | None, rows: Sequence[tuple[list[int], dict[str, Any]]]) -> list[Any]:
        self.asked += rows
        return [self._one(model, ids, given) for ids, given in rows]

    def _one(self, model: Path | None, ids: list[int], given: dict[str, Any]) -> Any:
        assert len(ids) + given["max_tokens"] <= self.local.max_tokens, "vLLM refuses a row that leaves no room"
        written: list[int] = []
        logprobs = []
        while len(written) < given["max_tokens"] and (
            not written or written[-1] not in given.get("stop_token_ids", [])
        ):
            shares = self._next(model, [*ids, *written])
            written.append(max(range(len(shares)), key=shares.__getitem__))
            wanted = {written[-1], *given.get("logprob_token_ids", [])}
            logprobs.append({token: SimpleNamespace(logprob=shares[token]) for token in wanted})
        prompt = None
        if "prompt_logprobs" in given:
            each = [self._next(model, ids[:at])[ids[at]] for at in range(1, len(ids))]
            prompt = [None, *({token: SimpleNamespace(logprob=p)} for token, p in zip(ids[1:], each, strict=True))]
        out = SimpleNamespace(token_ids=written, logprobs=logprobs)
        return SimpleNamespace(outputs=[out], prompt_logprobs=prompt)

    def _next(self, model: Path | None, ids: list[int]) -> list[float]:
        found = dict(self.local._next_shares(model, [tuple(ids)]))[0]
        return [math.log(max(share, 1e-45)) for share in found.tolist()]


@pytest.fixture
def pair(mini_base: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VllmEngine, LocalEngine, LikeVllm]:
    monkeypatch.setattr(vllm, "borrow", lambda *names: None)
    local = open_local(mini_base)
    engine = VllmEngine(local.options.model_copy(update={"kind": "vllm"}))
    stand_in = LikeVllm(local)
    monkeypatch.setattr(engine, "_answer", stand_in.answer)
    return engine, local, stand_in


def test_without_vllm_the_refusal_names_the_extra(mini_base: Path) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'askback\[vllm\]'"):
        VllmEngine(EngineOptions(kind="vllm", base=str(mini_base), device="cpu"))


def test_texts_choices_and_likelihoods_are_those_of_the_local_engine(
    pair: tuple[VllmEngine, LocalEngine, LikeVllm],
) -> None:
    engine, local, _ = pair
    asks, greedy = [Ask(prompt) for prompt in PROMPTS[:2]], Sampling(temperature=0.0, max_new_tokens=5)
    assert list(engine.generate()(asks, greedy)) == list(local.generate()(asks, greedy))
    for ours, theirs in zip(engine.choose()(PROMPTS[:2], DIGITS), local.choose()(PROMPTS[:2], DIGITS), strict=True):
        assert ours
        assert theirs
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
        assert ours.outside == pytest.approx(theirs.outside, abs=1e-6)
    for mine, other in zip(engine.likelihood()(EXAMPLES[:2]), local.likelihood()(EXAMPLES[:2]), strict=True):
        assert mine
        assert other
        assert (mine.total, mine.tokens) == (pytest.approx(other.total, abs=1e-4), other.tokens)


def test_the_ids_that_go_in_are_those_of_training(pair: tuple[VllmEngine, LocalEngine, LikeVllm]) -> None:
    engine, local, stand_in = pair
    list(engine.likelihood()(EXAMPLES[:1]))
    row = local.tokens.row(EXAMPLES[0], local.max_tokens)
    assert isinstance(row, Row)
    [(ids, given)] = stand_in.asked
    assert [*ids, *given["logprob_token_ids"]] == [*row.prompt, *row.target]


def test_a_choice_is_read_with_and_without_its_space_in_one_token(
    pair: tuple[VllmEngine, LocalEngine, LikeVllm],
) -> None:
    engine, local, stand_in = pair
    list(engine.choose()(PROMPTS[:1], DIGITS))
    slot = local.tokens.choice_slot("\nScore:", DIGITS)
    assert [given["logprob_token_ids"] for _, given in stand_in.asked] == [sorted(t) for t in slot.steps.values()]
    assert all(given["max_tokens"] == 1 for _, given in stand_in.asked)


def test_a_long_row_leaves_the_room_vllm_wants_and_one_without_room_has_no_answer(
    pair: tuple[VllmEngine, LocalEngine, LikeVllm],
) -> None:
    engine, _, stand_in = pair
    long = [Prompt("Text: ", "the sea is deep " * 200, "\nScore:"), Prompt("sea " * 400, "x", "\nScore:")]
    cut, none = engine.choose()(long, DIGITS)
    assert cut
    assert none is None
    assert engine.max_tokens == len(stand_in.asked[-1][0]) + 1
    too_long = example(" sea" * 400, "x")
    assert [found is None for found in engine.likelihood()([EXAMPLES[2], too_long])] == [False, True]
    first, last = engine.generate()([Ask(long[1]), Ask(PROMPTS[0])], Sampling(temperature=0.0, max_new_tokens=2))
    assert (first.finish, last.tokens) == ("no_room", 2)


def test_chance_is_the_rows_own_and_greedy_has_none() -> None:
    assert vllm.draw(Sampling(0.7, 0.9, 8), 11, 2) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 11,
        "max_tokens": 8,
        "stop_token_ids": [2],
    }
    assert vllm.draw(Sampling(0.0, 0.9, 8), 11, 2)["seed"] is None


def test_a_rule_vllm_does_not_have_is_refused(pair: tuple[VllmEngine, LocalEngine, LikeVllm]) -> None:
    with pytest.raises(ConfigError, match=r"no_repeat: engine\.kind = vllm has no such rule"):
        list(pair[0].generate()([Ask(PROMPTS[0])], Sampling(no_repeat=3)))


def write_config(folder: Path, rank: int, modules: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "target_modules": modules}))
    return folder


@pytest.mark.parametrize(("rank", "told"), [(4, 8), (8, 8), (9, 16), (512, 512)])
def test_vllm_is_told_the_lowest_rank_that_has_room_and_the_modules(tmp_path: Path, rank: int, told: int) -> None:
    assert vllm.reach_of(write_config(tmp_path, rank, ["v_proj"])) == (told, {"v_proj"})


def test_an_adapter_vllm_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank 513, and vLLM takes at most 512"):
        vllm.reach_of(write_config(tmp_path, 513, ["v_proj"]))
    with pytest.raises(ConfigError, match="target_modules is a pattern"):
        vllm.reach_of(write_config(tmp_path, 8, ".*_proj"))


def test_one_base_is_in_memory_at_a_time_and_adapters_share_it(
    pair: tuple[VllmEngine, LocalEngine, LikeVllm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, events = pair[0], list[str]()

    def start(path: str) -> Any:
        events.append(f"{Path(path).name} {engine._reach.rank} {len(engine._reach.modules)}")
        core = SimpleNamespace(shutdown=lambda: events.append("shut down"))
        return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))

    monkeypatch.setattr(engine, "_start", start)
    low = write_config(tmp_path / "low", 4, ["q_proj", "v_proj"])
    high = write_config(tmp_path / "high", 32, ["o_proj", "up_proj"])
    (tmp_path / "whole").mkdir()
    for model in (None, low, high, low, None, tmp_path / "whole"):
        engine._open(model)
    base = Path(engine.base.path).name
    assert events == [f"{base} 8 4", "shut down", f"{base} 32 5", "shut down", "whole 32 5"]
    engine.forget()
    assert events[-1] == "shut down"


@pytest.mark.slow
def test_a_training_is_the_local_engines_own_while_vllm_is_out_of_memory(
    pair: tuple[VllmEngine, LocalEngine, LikeVllm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, local, _ = pair
    forgotten: list[bool] = []
    monkeypatch.setattr(engine, "forget", lambda: forgotten.append(True))
    reports = []
    for name, one in (("vllm", engine), ("local", local)):
        (tmp_path / name / "adapter").mkdir(parents=True)
        reports.append(one.fit(QUICK, seed=5)(TRAINED_ON[:8], tmp_path / name / "adapter"))
    assert forgotten == [True]
    assert reports[0] == reports[1]
    assert bytes_of(tmp_path / "vllm" / "adapter") == bytes_of(tmp_path / "local" / "adapter")


# --- a real one

ANSWERS = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from askback.engines.open import open_engine
from askback.options import EngineOptions
from askback.ports import Ask, Example, Prompt, Sampling
def main():
    given = json.loads(sys.argv[1])
    engine = open_engine(EngineOptions(**given["engine"]))
    prompts = [Prompt(*parts) for parts in given["prompts"]]
    rows = [Example("e", Prompt(*parts), target) for parts, target in given["examples"]]
    found = []
    for name in given["models"]:
        model = Path(name) if name else None
        texts = engine.generate(model)([Ask(one) for one in prompts], Sampling(0.0, 1.0, 8))
        found.append([
            [reply.text for reply in texts],
            [asdict(choice) for choice in engine.choose(model)(prompts, list("12345"))],
            [asdict(one) for one in engine.likelihood(model)(rows)],
        ])
    Path(given["out"]).write_text(json.dumps(found))
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif("ASKBACK_VLLM_PYTHON" not in os.environ, reason="ASKBACK_VLLM_PYTHON names no interpreter")
def test_a_real_vllm_says_what_the_local_engine_says(tmp_path: Path) -> None:
    adapters = [write_adapter(tmp_path / f"adapter{seed}", EMBEDDED, seed=seed) for seed in (1, 2)]
    (tmp_path / "answers.py").write_text(ANSWERS)
    given = {
        "models": [*map(str, adapters), "", str(adapters[0])],
        "prompts": [[one.before, one.body, one.after] for one in PROMPTS],
        "examples": [[[e.prompt.before, e.prompt.body, e.prompt.after], e.target] for e in EXAMPLES],
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(vllm.__file__).parents[2]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    answers = []
    for kind, python in (("local", sys.executable), ("vllm", os.environ["ASKBACK_VLLM_PYTHON"])):
        engine = {"kind": kind, "base": "tiny", "device": "cpu", "precision": "float32", "threads": 1}
        told = json.dumps({**given, "engine": engine, "out": str(tmp_path / kind)})
        done = subprocess.run(
            [python, str(tmp_path / "answers.py"), told], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        answers.append(json.loads((tmp_path / kind).read_text()))
    for ours, theirs in zip(*answers, strict=True):
        assert ours[0] == theirs[0]
        for one, other in zip(ours[1], theirs[1], strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
        for one, other in zip(ours[2], theirs[2], strict=True):
            assert one["tokens"] == other["tokens"]
            assert one["total"] == pytest.approx(other["total"], abs=1e-2)
