"""Which checkpoint a stopped training run goes on from.

Takes: a training run's rows and numbers, a folder.  Gives: where its checkpoints stand, and the newest whole one.
Never: uses one that was cut off, or one of another training run.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from askback.engines.tokens import Row

COMPLETE = "complete.json"
"""Written into a checkpoint after everything else: one without it was cut off and is not used."""


def checkpoint_folder(beside: Path, rows: Iterable[Row], settings: Any) -> Path:
    """Return the folder whose name depends on all that decides a training run: rows in order, and JSON settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps([row.prompt, row.target]).encode())
    return beside / "checkpoints" / digest.hexdigest()[:16]


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    done = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(done, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run, and the folder around them if no other run uses it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
