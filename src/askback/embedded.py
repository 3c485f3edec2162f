"""The embedded default: what lies in the package, and the options that fit so small a base.

Takes: what a user chose.  Gives: paths, and that laid over what so small a base wants.
Never: overrides what a user chose.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SEED = DATA / "seed" / "pairs.jsonl"
DOCUMENTS = DATA / "documents"

TINY: dict[str, Any] = {
    "backward": {"preset": "tiny"},
    "forward": {"preset": "tiny"},
    "augment": {"max_new_tokens": 48, "no_repeat": 3},
    # A base of a few million parameters cannot follow a rubric: candidates are ranked by a likelihood instead, how
    # much likelier the tuned model finds the output. What a rubric would have said is measured and shown beside it.
    "curate": {"judge": ("likeness",), "beside": ("expected",), "keep_top": 0.5},
    "evaluate": {"max_new_tokens": 48, "no_repeat": 3, "retrieval_rows": 60, "attacks": 40},
    "engine": {"base": "tiny", "precision": "float32"},
}
"""What `--base tiny` means where the user says nothing else."""

DEMO: dict[str, Any] = {
    "seed": {"path": str(SEED), "licence": "Apache-2.0", "held_out": 0.25},
    "corpus": {"path": str(DOCUMENTS), "licence": "Apache-2.0"},
    # In minutes on two cores: texts cut to what fits 256 tokens one way, under one pass the other way.
    "backward": {"epochs": 3, "max_tokens": 256},
    "forward": {"epochs": 0.6},
    "engine": {"base": "tiny"},
}
"""What `askback demo` is run with."""


def fill_in(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what a user chose over what the embedded base wants, if that is the base chosen; else return it as it is.

    A threshold of the user's own (`curate.keep_from` or `curate.calibration`) stands for the share kept by default.
    """
    chosen = {name: dict(table) if isinstance(table, Mapping) else table for name, table in raw.items()}
    if not isinstance(chosen.get("engine"), dict) or chosen["engine"].get("base") != "tiny":
        return chosen
    filled: dict[str, Any] = {**TINY, **chosen}
    for name, table in TINY.items():
        if isinstance(chosen.get(name, {}), dict):
            filled[name] = {**table, **chosen.get(name, {})}
    curate = chosen.get("curate")
    if isinstance(curate, dict) and ("keep_from" in curate or curate.get("calibration")) and "keep_top" not in curate:
        filled["curate"]["keep_top"] = 0
    return filled
