"""Laws of the public suites: without the extra the remedy is said; with it, a task of one's own runs offline."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from askback.engines import suites
from askback.engines.suites import run_suites
from askback.errors import ConfigError
from askback.options import EngineOptions

TINY = EngineOptions(base="tiny", device="cpu", precision="float32", threads=1)
HARNESS_RESULT = {
    "results": {
        "quiz": {"alias": "quiz", "sample_len": 6, "acc,none": 0.5, "acc_stderr,none": 0.1, "word,strict": 2}
        | {"word_stderr,strict": "N/A", "all,none": 1.0, "all_stderr,none": 0.0}
    },
    "n-samples": {"quiz": {"original": 9, "effective": 6}},
    "n-shot": {"quiz": 2},
    "versions": {"quiz": 1.0},
    "higher_is_better": {"quiz": {"acc": True, "word": False}},
}
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")


def test_without_the_extra_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"pip install 'askback\[suites\]'"):
        run_suites(TINY, None, ["quiz"])


def test_figures_carry_interval_and_n_and_certainty_is_not_made_up() -> None:
    found = suites._task("quiz", HARNESS_RESULT)
    assert (found["n"], found["shots"]) == (6, 2)
    acc = found["figures"]["acc"]
    assert (acc["value"], acc["stderr"], acc["n"], acc["higher_is_better"]) == (0.5, 0.1, 6, True)
    assert (acc["low"], acc["high"]) == (pytest.approx(0.304, abs=1e-3), pytest.approx(0.696, abs=1e-3))
    for unsure in ("word (strict)", "all"):
        assert [found["figures"][unsure][name] for name in ("stderr", "low", "high")] == [None] * 3
    assert found["figures"]["word (strict)"]["higher_is_better"] is False


@pytest.mark.parametrize(("tasks", "message"), [((), "at least one"), (("arc_easi",), "near are arc_easy")])
def test_an_unknown_task_is_answered_with_the_nearest(tasks: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suites._check_tasks(tasks, ["arc_easy", "mmlu"])


@pytest.mark.slow
@needs_harness
def test_a_task_of_ones_own_runs_on_base_and_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from askback.engines.bases import EMBEDDED
    from models import write_adapter

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    rows = [{"question": f"Once upon a time there was a {n}", "choices": [" cat.", " zq"], "answer": 0} for n in "abcd"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK.format(name="own_quiz", rows=tmp_path / "rows.jsonl"))
    adapter = write_adapter(tmp_path / "adapter", EMBEDDED, seed=0)
    for model in (None, adapter):
        found = run_suites(TINY, model, ["own_quiz"], limit=3, include_path=tmp_path / "tasks")
        assert found["own_quiz"]["n"] == 3
        assert 0 <= found["own_quiz"]["figures"]["acc"]["value"] <= 1
