"""Model card and data-set card, in the form the hub knows, from the numbers of a run.

Takes: the `metrics` dict, one training report and the costs, as publish.py defines them; an adapter's folder.
Gives: Markdown with metadata in front.
Never: leaves a placeholder, goes to a network, or claims a score that was not measured.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askback import tables
from askback.prompts import LAYOUT_FILE, SYSTEM_LINES, Layout
from askback.records import Pair

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATES = Path(__file__).parent / "templates"
EMBEDDED_BASE = "tiny"

HUB_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "gpl-3.0",
        "lgpl-3.0",
        "mpl-2.0",
        "openrail",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "gemma",
        "odc-by",
        "pddl",
        "unlicense",
        "unknown",
    ]
)
"""Licences that the hub knows by these names; another one is `other`, with its own name beside it."""

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"

ANSWER_TOKENS = 128
_ENCODE = (
    "",
    "def encode(part):",
    '    return tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]',
    "",
)

COLUMNS = {
    "messages": "the pair as a chat of two turns, which any trainer reads",
    "id": "16 hex digits that depend on the content",
    "instruction": "what the backward model asked; generated",
    "output": "the passage, word for word; written by people or whoever wrote the documents",
    "original": "the passage as it stood, where the output was rewritten (then by a model); empty where it was not",
    "score": "what the judge of the last round gave, 1 to 5",
    "source": "file (and row) the document was read from",
    "heading": "heading the passage stood under; not a part of the output",
    "licence": "licence of the document",
    "genre": "genre of the document, where somebody noted it",
    "document": "id of the document",
    "passage": "id of the passage",
    "candidate": "number of the instruction among those asked of the passage",
    "start": "first character of the passage in the document's text",
    "end": "character after the last one of the passage",
}


def data_licences(direction: str, found: Mapping[str, Any]) -> list[str]:
    """Return a line for each data set a model was trained on: its name and the licences of its rows."""
    lines = []
    augmented = found.get("dataset") if direction == "forward" else None
    for name, part in (("seed pairs", found.get("seed")), ("augmented pairs", augmented)):
        if part and part.get("licences"):
            licences = ", ".join(f"{licence} ({count})" for licence, count in part["licences"].items())
            lines.append(f"{name}{' of ' + part['name'] if part.get('name') else ''}: {licences}")
    return lines


def model_card(
    direction: str,
    adapter: Path,
    found: Mapping[str, Any],
    training: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> str:
    """Return the card of the model in `adapter`, which may be an adapter's folder or a whole model's.

    Raises:
        ConfigError: the model was trained in the other direction than `direction`, "backward" or "forward".
    """
    from huggingface_hub import ModelCard, ModelCardData

    base = base_of(adapter, found)
    layout = read_layout(adapter, direction)
    metadata = ModelCardData(
        **licence_fields([str((found.get("base") or {}).get("licence") or "unknown")]),
        base_model=base.hub_id or None,
        library_name="peft" if is_adapter(adapter) else "transformers" if layout.tuned else None,
        pipeline_tag="text-generation",
        language=language(found),
        tags=["askback", "instruction-backtranslation", direction, *(["lora"] if is_adapter(adapter) else [])],
        model_name=f"askback {direction} model on {base.hub_id or Path(base.name).name}",
        eval_results=eval_results(direction, found) or None,
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATES / ("model_card.md.j2" if layout.tuned else "untuned_card.md.j2")),
        direction=direction,
        base=base,
        adapter=is_adapter(adapter),
        quick_start=quick_start(adapter, base, layout),
        sources=data_licences(direction, found),
        layout=layout,
        frame=fenced(frame(layout)),
        training=training,
        held_out=held_out(direction, found),
        seed=tables.step(found, "seed"),
        seed_format=cell((tables.step(found, "seed").get("notes") or {}).get("format") or "unknown"),
        augmented=direction == "forward" and bool(tables.rounds(found)),
        scores=markdown(scores_table(direction, found)),
        notes=cell(" ".join(tables.score_notes(_report(direction, found) or {}))),
        why=(_report(direction, found) or {}).get("nll_why", ""),
        tests=markdown(tables.paired_tests(found)) if direction == "backward" else "",
        recipe=markdown(tables.recipe(training)),
        energy=cell(tables.energy(cost)),
        cell=cell,
        count=tables.count,
        version=(found.get("run") or {}).get("askback", ""),
    )
    return str(card.content)


def dataset_card(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the card of the data set; `rows` are shown as examples."""
    from huggingface_hub import DatasetCard, DatasetCardData

    dataset = found["dataset"]
    metadata = DatasetCardData(
        **licence_fields(list(dataset["licences"])),
        language=[spoken] if (spoken := language(found)) else None,
        task_categories=["text-generation"],
        size_categories=size_category(dataset["rows"]),
        annotations_creators="machine-generated",
        pretty_name="Instruction backtranslation pairs",
        tags=["askback", "instruction-backtranslation", "instruction-tuning"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    )
    card = DatasetCard.from_template(
        metadata,
        template_path=str(TEMPLATES / "dataset_card.md.j2"),
        dataset=dataset,
        tuned={direction: tables.is_tuned(found, direction) for direction in ("backward", "forward")},
        shown=((found.get("training") or {}).get("backward") or {}).get("examples"),
        base=cell((found.get("base") or {}).get("base") or "an unnamed base"),
        licences=[(cell(name), tables.count(n)) for name, n in dataset["licences"].items()],
        funnel=markdown(tables.funnel(found)),
        rounds=markdown(tables.round_counts(found)),
        again=len(tables.rounds(found)) > 1,
        labels=markdown(tables.label_agreement(found)) if tables.label_agreement(found).rows else "",
        lengths=markdown(tables.lengths(found)),
        columns=COLUMNS,
        judge=tables.judging(found) or tables.NOT_MEASURED,
        examples=[fenced(f"{row['instruction']}\n\n{row['output']}") for row in rows[:3]],
        count=tables.count,
        version=(found.get("run") or {}).get("askback", ""),
    )
    return str(card.content)


# --- metadata


def licence_fields(names: Sequence[str]) -> dict[str, Any]:
    """Return the hub's fields for one licence; several are `other`, and the card's text lists them."""
    known = sorted({" ".join(name.split()) for name in names})
    if len(known) != 1:
        return {"license": "other", "license_name": "several" if known else "unknown"}
    slug = known[0].lower().replace(" ", "-")
    return {"license": slug} if slug in HUB_LICENCES else {"license": "other", "license_name": known[0]}


def size_category(rows: int) -> str:
    """Return the hub's name for a number of rows."""
    return next((name for limit, name in SIZES if rows < limit), LARGEST)


def language(found: Mapping[str, Any]) -> str | None:
    """Return the language the seed pairs were filtered by, or None where they were not."""
    return ((found.get("run") or {}).get("options") or {}).get("seed", {}).get("language") or None


def held_out(direction: str, found: Mapping[str, Any]) -> int | None:
    """Return on how many held-out pairs the model was measured; None where it was not."""
    report = _report(direction, found)
    return report.get("n") if report else None


def _report(direction: str, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    evaluation = found.get("evaluation") or {}
    if direction == "backward":
        return evaluation.get("backward")
    forward = evaluation.get("forward") or {}
    return forward[max(forward, key=int)] if forward else None


def eval_results(direction: str, found: Mapping[str, Any]) -> list["EvalResult"]:
    """Return what was measured, in the form that leaderboards read."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out-seed-pairs",
            dataset_name=f"{tables.count(held_out(direction, found))} held-out seed pairs",
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(score["value"]), 4),
        )
        for kind, name, score in _measured(_report(direction, found) or {})
    ]


def _measured(report: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    named = [("bleu", "bleu"), ("chrf", "chrf"), ("rouge1", "rouge"), ("rouge2", "rouge"), ("rougeL", "rouge")]
    for key, kind in named:
        if report.get(key):
            yield kind, tables.TEXT_SCORES[key], report[key]
    if nll := report.get("nll_per_token"):
        yield "nll", "log-loss per token, in nats", nll
    if retrieval := report.get("retrieval"):
        yield "accuracy", f"own output found among {retrieval['of']}", retrieval


def scores_table(direction: str, found: Mapping[str, Any]) -> tables.Table:
    """Return the table of the model's scores beside what they must be compared with."""
    return tables.comparison(found) if direction == "backward" else tables.forward_losses(found)


# --- the base and how to load it


@dataclass(frozen=True, slots=True)
class BaseNote:
    """The base a model was trained on: what it was called, where it was, and its id if the hub has it."""

    name: str
    path: str
    hub_id: str
    hash: str
    licence: str

    @property
    def embedded(self) -> bool:
        """Whether it is the one that comes with askback."""
        return self.name == EMBEDDED_BASE


def base_of(adapter: Path, found: Mapping[str, Any]) -> BaseNote:
    """Return the base of a model, from the note beside the adapter or the adapter's own config."""
    told = found.get("base") or {}
    note = _read_json(adapter / "base.json")
    config = _read_json(adapter / "adapter_config.json")
    path = str(note.get("path") or config.get("base_model_name_or_path") or told.get("base") or "unknown")
    name = str(note.get("base") or told.get("base") or path)
    return BaseNote(
        name=name,
        path=path,
        hub_id=path if is_hub_id(path) and told.get("kind", "local") == "local" else "",
        hash=str(note.get("hash") or told.get("hash") or "unknown"),
        licence=str(told.get("licence") or "unknown"),
    )


def is_hub_id(name: str) -> bool:
    """Whether a name can be an `owner/name` on the hub, and is no folder here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)) and not Path(name).exists()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, not a whole model."""
    return (folder / "adapter_config.json").exists()


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


# --- the quick start: a program that runs as it is printed


def read_layout(adapter: Path, direction: str) -> Layout:
    """Return the layout that is saved beside the weights."""
    file = adapter / LAYOUT_FILE
    return Layout.loads(file.read_text(encoding="utf-8"), direction=direction, where=str(file))


def frame(layout: Layout) -> str:
    """Return the prompt of use with a name in angle brackets where the text or the instruction goes."""
    hole = Pair(id="", instruction="<instruction>", output="<text>")
    prompt = layout.prompt(hole)
    return f"{prompt.before}{prompt.body}{prompt.after}"


def quick_start(adapter: Path, base: BaseNote, layout: Layout) -> str:
    """Return a program for plain transformers (and peft), or "" where the folder holds no model at all.

    It makes the very token ids that training made: the parts are tokenized apart and joined.
    """
    if not is_adapter(adapter) and not (adapter / "config.json").exists():
        return ""
    return "\n".join([*_loading(adapter, base), "", *_prompting(layout), "", *_answering()])


def _loading(adapter: Path, base: BaseNote) -> list[str]:
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained(".")  # run this in the folder of this card'
    transformers = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if not is_adapter(adapter):
        return ["import torch", transformers, "", tokenizer, 'model = AutoModelForCausalLM.from_pretrained(".").eval()']
    where = "" if base.hub_id else "  # where the base was when this model was made"
    return [
        "import torch",
        "from peft import PeftModel",
        transformers,
        "",
        f"base = AutoModelForCausalLM.from_pretrained({_literal(base.path)}){where}",
        'model = PeftModel.from_pretrained(base, ".").eval()',
        tokenizer,
    ]


SAMPLE_TEXT = (
    "Tides rise and fall because the Moon pulls on the water that is nearer to it a little more strongly than on the "
    "rest of the Earth. The sea bulges towards the Moon, and a second bulge forms on the far side. As the Earth turns "
    "beneath these bulges, most coasts meet two high tides and two low tides each day. The Sun pulls as well: when it "
    "stands in line with the Moon, at full and new moon, the tides are largest and are called spring tides. When the "
    "two pull at right angles, the tides are small and are called neap tides."
)
"""A text as long as an answer: what a backward model was trained to hear a request in."""


def _prompting(layout: Layout) -> list[str]:
    if layout.direction == "forward":
        return _prompting_forward(layout)
    text = f"text = {_literal(SAMPLE_TEXT)}"
    if not layout.before and not layout.after:
        return [text, 'ids = tokenizer(text, split_special_tokens=True)["input_ids"]']
    return [
        text,
        f"before = {_literal(layout.before)}",
        f"after = {_literal(layout.after)}",
        *_ENCODE,
        'ids = tokenizer("")["input_ids"] + encode(before) + encode(text) + encode(after)  # the first: start token',
    ]


def _prompting_forward(layout: Layout) -> list[str]:
    system = SYSTEM_LINES[layout.system]
    before = f"{system}\n\n{layout.before}" if system else layout.before
    return [
        'instruction = "Explain in three sentences why there are tides."',
        f"prompt = {_literal(before)} + instruction + {_literal(layout.after)}",
        *_ENCODE,
        'ids = tokenizer("")["input_ids"] + encode(prompt)  # the first: start token',
    ]


def _answering() -> list[str]:
    return [
        "prompt_ids = torch.tensor([ids])",
        "with torch.inference_mode():",
        "    out = model.generate(",
        "        input_ids=prompt_ids,",
        "        attention_mask=torch.ones_like(prompt_ids),",
        f"        max_new_tokens={ANSWER_TOKENS},",
        "        do_sample=False,",
        "    )",
        "print(tokenizer.decode(out[0, len(ids):], skip_special_tokens=True).strip())",
    ]


def _literal(text: str) -> str:
    """Return a Python literal of a text: JSON's strings are Python's too."""
    return json.dumps(text, ensure_ascii=False)


# --- Markdown


def cell(text: str) -> str:
    """Return a text as it can stand in a line or a table's cell: shown as it is, never read as markup."""
    line = " ".join(str(text).split())
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line)
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", line)


def fenced(text: str) -> str:
    """Return a text in a code fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def markdown(table: tables.Table) -> str:
    """Return a table in Markdown."""
    if not table.rows:
        return f"{table.caption}: {tables.NOT_MEASURED}."
    lines = [table.columns, tuple("---" for _ in table.columns), *(tuple(map(cell, row)) for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
