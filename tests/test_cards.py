"""Laws of the cards: metadata that reads back, a program that runs, no placeholder, no score from nowhere."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

import made_up_run as made_up
from askback import tables
from askback.cards import base_of, cell, dataset_card, fenced, licence_fields, model_card, quick_start, size_category
from askback.engines.bases import EMBEDDED
from askback.engines.tokens import Tokens
from askback.errors import ConfigError
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT, LAYOUT_FILE, Layout
from askback.records import Pair

ASKED, PLAIN = BACKWARD_LAYOUTS["asked"], BACKWARD_LAYOUTS["plain"]


def write_adapter(folder: Path, layout: Layout = ASKED, *, base: str = "tiny", path: str = "/models/tiny_base") -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": path}))
    (folder / "base.json").write_text(json.dumps({"base": base, "path": path, "hash": "abc123"}))
    (folder / LAYOUT_FILE).write_text(layout.dumps())
    return folder


def card_of(folder: Path, found: dict[str, Any] | None = None, direction: Any = "backward") -> str:
    found = made_up.found() if found is None else found
    return model_card(direction, folder, found, made_up.training("backward"), made_up.cost())


def program(card: str) -> str:
    return card.split("```python\n")[1].split("\n```")[0]


def prompt_ids(code: str, tokenizer: Any) -> list[int]:
    """Run the part of the printed program that makes the prompt's ids, and return them."""
    lines = code.split("\n\ntext = ")[-1].split("\n\ninstruction = ")[-1].split("\nprompt_ids")[0]
    first = "instruction = " if "instruction = " in code else "text = "
    names: dict[str, Any] = {"tokenizer": tokenizer}
    exec(first + lines, names)
    return list(names["ids"])


def said(code: str) -> str:
    """Return the text (or instruction) that the printed program is about."""
    assigned = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}
    return str(ast.literal_eval(values["instruction" if "instruction" in values else "text"]))


# --- model card


def test_the_metadata_reads_back_with_the_licence_of_the_base(tmp_path: Path) -> None:
    data = ModelCard(card_of(write_adapter(tmp_path))).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "peft", "text-generation")
    assert data.language == "en"
    assert {"askback", "backward", "lora"} <= set(data.tags)


def test_every_score_in_the_metadata_was_measured(tmp_path: Path) -> None:
    results = ModelCard(card_of(write_adapter(tmp_path))).data.eval_results
    assert {result.metric_name: result.metric_value for result in results} == {
        "BLEU": 14.0,
        "chrF2": 14.0,
        "ROUGE-1": 15.0,
        "ROUGE-2": 16.0,
        "ROUGE-L": 17.0,
        "log-loss per token, in nats": 3.2,
        "own output found among 10": 0.45,
    }


def test_a_model_that_was_not_measured_claims_no_score(tmp_path: Path) -> None:
    card = card_of(write_adapter(tmp_path), found={"base": {"base": "tiny", "licence": "mit"}})
    assert ModelCard(card).data.eval_results is None
    assert "not measured" in card


def test_only_a_base_of_the_hub_is_named_as_one(tmp_path: Path) -> None:
    found = made_up.found()
    assert ModelCard(card_of(write_adapter(tmp_path))).data.base_model is None
    found["base"]["base"] = "owner/model-7b"
    card = card_of(write_adapter(tmp_path, base="owner/model-7b", path="owner/model-7b"), found)
    assert ModelCard(card).data.base_model == "owner/model-7b"
    assert 'from_pretrained("owner/model-7b")\n' in program(card)


def test_the_embedded_base_can_be_got_elsewhere(tmp_path: Path) -> None:
    card = card_of(write_adapter(tmp_path))
    assert 'from_pretrained("/models/tiny_base")  # where the base was' in program(card)
    assert "pip install askback" in card
    assert "askback.engines.bases.EMBEDDED" in card


@pytest.mark.parametrize("layout", [ASKED, PLAIN, FORWARD_LAYOUT], ids=lambda layout: layout.name)
def test_the_program_of_a_card_compiles(tmp_path: Path, layout: Layout) -> None:
    code = program(card_of(write_adapter(tmp_path, layout), direction=layout.direction))
    called = {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    assert {"from_pretrained", "generate", "decode"} <= called


@pytest.mark.parametrize("layout", [ASKED, PLAIN, FORWARD_LAYOUT], ids=lambda layout: layout.name)
@pytest.mark.parametrize("which", ["embedded", "llama"])
def test_the_program_makes_the_ids_that_training_makes(
    tmp_path: Path, layout: Layout, which: str, shared: Path
) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    llama = {"tokenizer_file": str(shared / "tokenizers" / "llama_tokenizer.json"), "bos_token": "<s>"}
    tokenizer: Any = (
        AutoTokenizer.from_pretrained(EMBEDDED)
        if which == "embedded"
        else PreTrainedTokenizerFast(**llama, eos_token="</s>")
    )
    code = quick_start(write_adapter(tmp_path, layout), base_of(tmp_path, {}), layout)
    trained = Tokens(tokenizer).prompt(layout.prompt(Pair(id="", instruction=said(code), output=said(code))), 10_000)
    assert trained is not None
    assert prompt_ids(code, tokenizer) == trained[0]


def test_the_card_prints_the_words_around_a_text(tmp_path: Path) -> None:
    assert f"```text\n{ASKED.before}<text>{ASKED.after}\n```" in card_of(write_adapter(tmp_path))
    card = card_of(write_adapter(tmp_path, FORWARD_LAYOUT), direction="forward")
    assert "web.\n\nRequest: <instruction>\nAnswer:\n" in card


def test_a_card_of_the_wrong_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a backward model; a forward model is wanted"):
        card_of(write_adapter(tmp_path), direction="forward")


def test_a_whole_model_is_loaded_without_peft(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / LAYOUT_FILE).write_text(ASKED.dumps())
    card = card_of(tmp_path)
    assert "peft" not in program(card)
    assert ModelCard(card).data.library_name == "transformers"


def test_the_test_double_has_no_program(tmp_path: Path) -> None:
    (tmp_path / LAYOUT_FILE).write_text(ASKED.dumps())
    card = card_of(tmp_path)
    assert "```python" not in card
    assert "test double" in card


def test_words_of_a_layout_survive_quotes_and_line_breaks(tmp_path: Path) -> None:
    from dataclasses import replace

    odd = replace(ASKED, before='say "this"\\\n', after="\t'then' \u2028\n")
    names = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(quick_start(write_adapter(tmp_path, odd), base_of(tmp_path, {}), odd)).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    assert (names["before"], names["after"]) == (odd.before, odd.after)


def test_the_card_holds_the_whole_recipe_and_both_floors(tmp_path: Path) -> None:
    card = card_of(write_adapter(tmp_path))
    assert all(f"| {key} |" in card.replace("\\", "") for key in made_up.training("backward")["recipe"])
    assert "| ROUGE-L | 17.00 (15.00–19.00) | 6.00 (4.00–8.00) | 13.00 (11.00–15.00) | 9.00 (7.00–11.00) |" in card
    assert all(cell(note) in card for note in tables.score_notes(made_up.found()["evaluation"]["backward"]))
    assert "askback augment --model . file.txt" in card
    assert "2308.06259" in card


def test_a_forward_card_shows_every_forward_model_beside_the_others(tmp_path: Path) -> None:
    card = card_of(write_adapter(tmp_path, FORWARD_LAYOUT), direction="forward")
    assert all(f"| Forward {at} |" in card for at in range(3))
    assert "augment --model" not in card
    assert [result.metric_value for result in ModelCard(card).data.eval_results] == [3.0]


# --- data-set card


def test_the_data_set_card_points_at_its_rows() -> None:
    data = DatasetCard(dataset_card(made_up.found(), [made_up.row()])).data
    assert data.configs[0]["data_files"] == [{"split": "train", "path": "train.parquet"}]
    assert (data.license, data.size_categories, data.task_categories) == ("apache-2.0", "n<1K", ["text-generation"])


def test_one_licence_is_named_and_several_are_listed() -> None:
    assert licence_fields(["CC BY-SA 3.0"]) == {"license": "cc-by-sa-3.0"}
    assert licence_fields(["House rules"]) == {"license": "other", "license_name": "House rules"}
    found = made_up.found()
    found["dataset"]["licences"] = {"Apache-2.0": 70, "BSD-3-Clause": 10}
    card = dataset_card(found, [])
    assert DatasetCard(card).data.license == "other"
    assert "| BSD-3-Clause | 10 |" in card


def test_the_columns_explained_are_the_columns_written() -> None:
    from askback.cards import COLUMNS
    from askback.publish import dataset_row

    assert list(COLUMNS) == list(dataset_row(Pair(id="", instruction="", output="")))


def test_a_size_falls_into_its_category() -> None:
    sizes = {0: "n<1K", 999: "n<1K", 1_000: "1K<n<10K", 99_999: "10K<n<100K", 3_000_000: "1M<n<10M"}
    assert {rows: size_category(rows) for rows in sizes} == sizes


# --- both


def test_no_placeholder_is_left(tmp_path: Path) -> None:
    cards = [card_of(write_adapter(tmp_path)), dataset_card(made_up.found(), [made_up.row()])]
    cards.append(card_of(write_adapter(tmp_path, FORWARD_LAYOUT), direction="forward"))
    for card in cards:
        body = card.replace("{{The askback authors}}", "")  # BibTeX keeps a name whole by double braces
        assert not re.search(r"\{\{|\}\}|\{%|%\}|\bNone\b|Undefined|\[More Information", body)


def test_a_text_cannot_leave_its_fence_or_its_cell() -> None:
    card = dataset_card(made_up.found(), [made_up.row(output=made_up.HOSTILE)])
    assert f"````text\nHow is bread number 0 made?\n\n{made_up.HOSTILE}\n````" in card
    assert fenced("a ```` b").startswith("`````text\n")
    assert cell("a | <b> `c`\n[d](e)") == r"a \| &lt;b> \`c\` \[d\](e)"


def test_metadata_reads_back_whatever_a_licence_is_called() -> None:
    found = made_up.found()
    found["dataset"]["licences"] = {"odd: 'licence'\n---\n# no": 80}
    assert DatasetCard(dataset_card(found, [])).data.license_name == "odd: 'licence' --- # no"
