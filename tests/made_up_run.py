"""The numbers of a small run that never was: every part that publish.py promises, with values of its own."""

from copy import deepcopy
from typing import Any

HOSTILE = "<script>alert('x')</script> & {{ 7 * 7 }} </details> ``` | \"quoted\""
OPTIONS = {
    "random_seed": 1,
    "seed": {"path": "seed/pairs.jsonl", "language": "en", "held_out": 0.25},
    "curate": {"judge": "likelihood", "keep_top": 0.5, "keep_from": 4.5},
    "engine": {"base": "tiny", "country": "USA"},
}


def score(value: float, width: float = 2.0, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - width, "high": value + width, "n": 40} | more


def report(value: float) -> dict[str, Any]:
    scores = {name: score(value + at) for at, name in enumerate(("chrf", "rouge1", "rouge2", "rougeL"))}
    rows = [
        {"id": f"p{n}", "instruction": f"True {n}?", "generated": f"Heard {n}", "rougeL": 50.0 - n} for n in range(25)
    ]
    return {
        "n": 40,
        "bleu": score(value, signature="nrefs:1|case:mixed"),
        **scores,
        "chrf": score(value, signature="nrefs:1|nc:6"),
        "length_ratio": score(0.9, 0.1),
        "rows": rows,
    }


def model_report(value: float) -> dict[str, Any]:
    return report(value) | {
        "nll_per_token": score(3.2, 0.1),
        "retrieval": score(0.45, 0.1, of=10, unscored=0),
        "copy_share": {"generated": score(0.52, 0.04), "true": score(0.61, 0.03)},
        "cut_off": score(0.05, 0.04),
        "slices": {"genre": {"how-to": slice_of(12), "other": slice_of(28)}},
        "unscored": 0,
    }


def slice_of(n: int) -> dict[str, Any]:
    return {"n": n, "rougeL": score(13.0), "nll": score(3.1, 0.2), "retrieval": score(0.4, 0.1)}


def planted() -> dict[str, Any]:
    shift = {"difference": 0.01, "low": -0.02, "high": 0.04, "p_value": 0.4, "n": 40}
    one = {"n": 40, "unscored": 3, "moved_up": 2, "moved_down": 1, "shift": shift}
    return {"expected": one | {"kinds": {"line_end": one}}}


def answered() -> dict[str, Any]:
    return {
        "n": 40,
        "unanswered": {"a": 1, "b": 2},
        "unjudged": 1,
        "win_rate": score(0.55, 0.1),
        "wins": 23,
        "ties": 2,
        "losses": 15,
        "won": score(0.6, 0.1),
        "length_controlled": score(0.52, 0.1),
        "position": score(0.62, 0.05),
        "contradicted": 11,
        "outside": score(0.3, 0.1),
        "chars": {"a": score(900, 50), "b": score(700, 50)},
        "rows": [],
    }


def variety() -> dict[str, Any]:
    said = {
        "n": 80,
        "found": 60,
        "different": 30,
        "verbs": [{"verb": "write", "count": 60, "objects": [["story", 20]]}],
    }
    one = {"n": 80, "mean_score": 4.0, "distinct_1": 0.31, "distinct_2": 0.72, "spread": 0.9, "near_duplicates": 0.0}
    return {
        "sets": {"candidates": one, "kept": one | {"verb_object": said}, "best by score": one, "diverse": one},
        "shared": 0.5,
        "sample": None,
    }


def step(name: str, read: int, written: int, notes: dict[str, Any] | None = None, **reasons: int) -> dict[str, Any]:
    counts = {"read": read, "written": written, "rejected": read - written}
    return {"step": name, **counts, "reasons": reasons, "notes": notes or {}}


def training(label: str) -> dict[str, Any]:
    recipe = {
        "preset": "tiny",
        "lora": True,
        "rank": 8,
        "alpha": 32,
        "targets": ["q_proj", "v_proj"],
        "max_tokens": 512,
    }
    losses = [[at, 4.0 / (1 + at / 90) + (at % 5) / 20] for at in range(1, 301)]
    sizes = {"examples": 150, "steps": 300, "tokens": 60_000, "label_tokens": 6_000}
    return {**sizes, "losses": losses, "recipe": recipe, "trainable_parameters": 81_920, "parameters": 5_000_000}


def curation(at: int) -> dict[str, Any]:
    edges = [1 + n / 4 for n in range(17)]
    return {
        "judge": ["likelihood"],
        "judged": 160,
        "without_score": 0,
        "kept": 80,
        "floor": 3.0,
        "signals": {
            "likelihood": {
                "n": 160,
                "outcomes": {"scored": 160},
                "raw": {
                    "edges": [n / 20 for n in range(-6, 15)],
                    "counts": [at, 2, 3, 5, 8, 10, 14, 18, 20, 18, 14, 12, *[4] * 8],
                },
                "mass_outside": None,
                "auc": score(0.71, 0.08),
            },
        },
        "scores": {"edges": edges, "counts": [10] * 16},
        "labels": {
            "n": 120,
            "good": 90,
            "auc": score(0.71, 0.08),
            "precision": score(0.88, 0.05),
            "recall": score(0.55 + at / 10, 0.05),
        },
    }


def told(verdict: str, score: float) -> dict[str, Any]:
    text = "Cover the dough and leave it in a warm place until it has doubled. " * 9
    asked = {"base": "the dough the dough once upon a time", "trained": "How does yeast make bread rise?"}
    return {
        "heading": "How bread rises",
        "source": "bread.md",
        "text": text,
        **asked,
        "score": score,
        "verdict": verdict,
    }


def found() -> dict[str, Any]:
    sizes = {"edges": [0.0, 50.0, 100.0, 150.0], "counts": [20, 45, 15]}
    return {
        "run": {
            "options": deepcopy(OPTIONS),
            "askback": "0.1.0",
            "python": "3.11.9",
            "torch": "2.10.0",
            "peft": "0.19.0",
        },
        "base": {"kind": "local", "base": "tiny", "hash": "abc123", "licence": "apache-2.0", "type": "llama"},
        "funnel": [
            step("01-seed", 210, 200, {"format": "pairs"}, duplicate=10),
            step("02-corpus", 130, 128, too_large=2),
            step("03-passages", 400, 170, {"documents_used": 119}, too_short=200, repetitive=30),
            step("05-candidates", 170, 160, cut_off=6, empty=4),
            step("08-kept-1", 160, 80, below_threshold=80),
            step("11-kept-2", 160, 80, below_threshold=80),
        ],
        "training": {
            "backward": training("backward"),
            "forward-0": training("forward"),
            "forward-2": training("forward"),
        },
        "rounds": {"1": curation(1), "2": curation(2)},
        "evaluation": {
            "backward": model_report(14.0),
            "base": model_report(3.0),
            "floors": {"first_sentence": report(10.0), "shuffled": report(6.0)},
            "tests": {
                name: {
                    "of": "rougeL",
                    "difference": gain,
                    "low": gain - 2,
                    "high": gain + 2,
                    "p_value": 0.0004,
                    "n": 40,
                }
                for name, gain in (("first_sentence", 4.0), ("shuffled", 8.0))
            },
            "forward": {str(at): {"n": 40, "nll_per_token": score(3.1 - at / 20, 0.08)} for at in range(3)},
            "attacks": planted(),
            "duel": answered(),
            "story": [told("kept", 4.2), told("below_threshold", 1.4), told("not_best_of_passage", 3.9)],
        },
        "diversity": variety(),
        "dataset": {
            "rows": 80,
            "instruction_chars": {"mean": 62.4, "sd": 20.1, **sizes},
            "output_chars": {"mean": 1012.0, "sd": 310.0, **sizes},
            "licences": {"Apache-2.0": 80},
            "sources": 70,
        },
    }


def cost() -> dict[str, Any]:
    how = "codecarbon 3.3, machine mode, estimated where no power meter can be read"
    session = {
        "seconds": 300.0,
        "energy_kwh": 0.0021,
        "co2_kg": 0.0008,
        "country": "USA",
        "processor": "CPU",
        "how": how,
    }
    return {
        "seconds": {"01-seed": 0.2, "04-backward": 91.0},
        "energy_kwh": 0.0021,
        "co2_kg": 0.0008,
        "sessions": [session],
    }


def row(number: int = 0, **other: Any) -> dict[str, Any]:
    texts = {
        "instruction": f"How is bread number {number} made?",
        "output": "Knead it well.\n\nThen wait.",
        "score": 4.5,
    }
    trace = {"source": "bread.md", "heading": "Bread", "licence": "Apache-2.0", "genre": "how-to"}
    return {"id": f"row{number}", **texts, **trace} | other
