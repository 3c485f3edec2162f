"""The main job on real weights, small: every file people came for is there, and the counts add up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import askback
from askback.config import load_options
from askback.embedded import DEMO, DOCUMENTS, SEED

QUICK = [
    "seed.limit=96",
    "seed.held_out=0.3",
    "backward.epochs=4",
    "backward.learning_rate=0.004",
    "forward.epochs=1",
    "backward.max_tokens=320",
    "curate.min_kept=2",
    "augment.max_new_tokens=24",
    "evaluate.max_new_tokens=16",
    "evaluate.retrieval_of=3",
    "evaluate.bootstrap=200",
    "engine.threads=1",
]
PICTURED = ("html", "md", "txt")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on twelve of the embedded documents."""
    folder = tmp_path_factory.mktemp("main")
    documents = folder / "documents"
    documents.mkdir()
    for kind in PICTURED:
        for file in sorted(DOCUMENTS.glob(f"*.{kind}"))[:6]:
            (documents / file.name).write_bytes(file.read_bytes())
    (documents / "index.jsonl").write_bytes((DOCUMENTS / "index.jsonl").read_bytes())
    settings = [*QUICK, f'corpus.path="{documents}"', "backward.layout=plain"]
    options = load_options(None, settings, DEMO)
    return askback.run(options, folder / "run")


def test_everything_people_came_for_is_there(done: Path) -> None:
    wanted = ["dataset/train.jsonl", "dataset/train.parquet", "dataset/README.md", "metrics.json", "cost.json"]
    wanted += [f"models/{way}/{name}" for way in ("backward", "forward") for name in ("README.md", "askback.json")]
    wanted += ["models/backward/adapter_model.safetensors", "models/forward/tokenizer.json", "report.html", "run.toml"]
    assert [name for name in wanted if not (done / name).exists()] == []


def test_every_step_wrote_or_rejected_what_it_read(done: Path) -> None:
    steps = [json.loads(file.read_text()) for file in sorted(done.glob("*/manifest.json"))]
    assert len(steps) == 17
    for step in steps:
        assert step["read"] == step["written"] + step["rejected"] == step["written"] + sum(step["reasons"].values())


def test_a_step_reads_what_the_step_before_it_wrote(done: Path) -> None:
    counts = {file.parent.name[3:]: json.loads(file.read_text()) for file in done.glob("*/manifest.json")}
    assert counts["distinct"]["read"] == counts["passages"]["written"]
    assert counts["candidates"]["read"] == counts["distinct"]["written"]
    assert counts["gated"]["read"] == counts["candidates"]["written"]
    assert counts["judged-1"]["read"] == counts["judged-2"]["read"] == counts["gated"]["written"]
    assert counts["kept-2"]["read"] == counts["judged-2"]["written"]
    assert counts["forward-2"]["read"] == counts["forward-0"]["read"] + counts["kept-2"]["written"]


def test_a_row_of_the_data_set_leads_back_to_its_place(done: Path) -> None:
    rows = [json.loads(line) for line in (done / "dataset/train.jsonl").read_text().splitlines()]
    assert rows == pq.read_table(done / "dataset/train.parquet").to_pylist()
    documents = {
        row["id"]: row for part in done.glob("02-corpus/part-*.parquet") for row in pq.read_table(part).to_pylist()
    }
    for row in rows:
        assert documents[row["document"]]["text"][row["start"] : row["end"]] == row["output"]
        assert row["messages"][0]["content"] == row["instruction"]
        assert row["licence"] == "Apache-2.0"


def test_no_held_out_pair_is_trained_on(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    held = len(metrics["evaluation"]["backward"]["rows"])
    training = next(step for step in metrics["funnel"] if step["step"] == "05-backward")["read"]
    seed = next(step for step in metrics["funnel"] if step["step"] == "01-seed")["written"]
    assert held + training == seed == 96


def test_the_cards_name_the_licences_of_base_and_data(done: Path) -> None:
    card = (done / "models/forward/README.md").read_text()
    assert "license: apache-2.0" in card
    assert "seed pairs of pairs.jsonl: Apache-2.0 (96)" in card
    assert "augmented pairs: Apache-2.0" in card


def test_the_report_needs_nothing_from_outside(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "<script" not in page
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))


def test_the_plain_adapter_answers_to_peft_and_transformers_alone(done: Path, tmp_path: Path) -> None:
    adapter = done / "models" / "backward"
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    texts = [json.loads(line)["output"] for line in SEED.read_text().splitlines()[:4]]
    script = tmp_path / "quick.py"
    script.write_text(
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
        f"model = PeftModel.from_pretrained(base, {str(adapter)!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(adapter)!r})\n"
        f"for text in {texts!r}:\n"
        "    inputs = tokenizer(text, return_tensors='pt')\n"
        "    out = model.generate(**inputs, max_new_tokens=24)\n"
        "    print(tokenizer.decode(out[0][inputs['input_ids'].shape[1]:], skip_special_tokens=True))\n"
        "import sys; assert 'askback' not in sys.modules\n"
    )
    said = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert any(character.isalpha() for character in said.stdout), said.stdout


def test_the_printed_quick_start_of_the_card_runs(done: Path, tmp_path: Path) -> None:
    folder = done / "models/backward"
    card = (folder / "README.md").read_text()
    code = card.split("```python\n", 1)[1].split("```", 1)[0]
    script = tmp_path / "card.py"
    script.write_text(code)
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=folder)
    assert said.stdout.endswith("\n")  # what a base this small says is another matter


def test_the_readme_quick_start_runs_as_printed(done: Path, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    code = readme.read_text().split("```python\n", 1)[1].split("```", 1)[0]
    monkeypatch.chdir(done)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    found = names["model"].instructions(names["texts"], n=2)  # type: ignore[attr-defined]
    assert len(found) == 1
    assert len(found[0]) <= 2


def test_the_same_texts_get_the_same_instructions_in_any_order(done: Path) -> None:
    model = askback.load(done / "models/backward", threads=1)
    texts = [pair["output"] for pair in map(json.loads, SEED.read_text().splitlines()[:3])]
    there = model.instructions(texts, n=1)
    back = model.instructions(texts[::-1], n=1)
    assert there == back[::-1]
