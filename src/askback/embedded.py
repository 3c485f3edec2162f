"""The embedded default: what lies in the package, and the options that fit so small a base.

Takes: nothing.  Gives: paths and a nested mapping for `load_options`.  Never: overrides what a user chose.
"""

from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SEED = DATA / "seed" / "pairs.jsonl"
DOCUMENTS = DATA / "documents"

TINY: dict[str, Any] = {
    "random_seed": 1,
    "backward": {"preset": "tiny"},
    "forward": {"preset": "tiny"},
    "augment": {"max_new_tokens": 48},
    # A base of a few million parameters cannot follow a rubric: candidates are ranked by likelihood gain instead.
    "curate": {"judge": "likelihood", "keep_top": 0.5},
    "evaluate": {"max_new_tokens": 48, "retrieval_rows": 60},
    "engine": {"base": "tiny", "precision": "float32"},
}
"""What `--base tiny` means where the user says nothing else."""

DEMO: dict[str, Any] = {
    "seed": {"path": str(SEED), "held_out": 0.25},
    "corpus": {"path": str(DOCUMENTS), "licence": "Apache-2.0"},
}
"""What `askback demo` adds to it."""


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping of two levels over another."""
    merged = {name: dict(table) if isinstance(table, dict) else table for name, table in below.items()}
    for name, table in above.items():
        merged[name] = {**merged.get(name, {}), **table} if isinstance(table, dict) else table
    return merged
