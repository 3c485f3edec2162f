"""`askback compare RUN RUN`: from two run folders to their differences.

Takes: folders of finished runs.  Gives: what stages/compare.py finds.  Never: measures anything anew, or writes.
"""

from pathlib import Path
from typing import Any

from askback.errors import ConfigError
from askback.stages.compare import compare_runs, compare_table
from askback.store import read_json

__all__ = ["compare_folders", "compare_table"]

METRICS = "metrics.json"


def compare_folders(a: Path, b: Path) -> dict[str, Any]:
    """Return the differences of two finished runs, named by their folders.

    Raises:
        ConfigError: a folder holds no finished run.
        DataError: the runs share no held-out pair.
        IntegrityError: a metrics.json is damaged.
    """
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    return compare_runs(_metrics(a), _metrics(b), names)


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    if not path.is_file():
        raise ConfigError(f"{folder}: no {METRICS} is in it; want the folder of a finished run (see `askback run`)")
    found: dict[str, Any] = read_json(path)
    return found
