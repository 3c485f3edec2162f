"""What a finished run holds: its steps by name, their manifests and their rows.

Takes: a run folder.  Gives: manifests, records.
Never: writes, or begins a step.
"""

from pathlib import Path
from typing import Any

from askback.errors import DataError
from askback.options import CurateOptions, SignalName
from askback.store import MANIFEST, Manifest, by_number, read_json, read_part


def steps_of(folder: Path) -> list[Manifest]:
    """Return the manifests of a run in the order of its steps.

    Raises:
        DataError: the folder is not a run, or has no finished step.
    """
    found = [Manifest(**read_json(path)) for path in sorted(folder.glob(f"[0-9][0-9]-*/{MANIFEST}"))]
    if not found:
        raise DataError(f"{folder}: not a run folder: no step with a {MANIFEST} is in it")
    return found


def step_folder(folder: Path, name: str) -> Path:
    """Return the folder of a step by its name without the number, such as `judged-1`.

    Raises:
        DataError: the run has no such step, or it is not finished.
    """
    for path in sorted(folder.glob(f"[0-9][0-9]-{name}")):
        if (path / MANIFEST).exists():
            return path
    raise DataError(f"{folder}: the step `{name}` is not finished; run `askback run --out {folder}` to go on")


def has_step(folder: Path, name: str) -> bool:
    """Whether a run has finished a step of that name."""
    return any((path / MANIFEST).exists() for path in folder.glob(f"[0-9][0-9]-{name}"))


def rounds_of(folder: Path) -> list[int]:
    """Return the numbers of the finished rounds."""
    return sorted(int(path.parent.name.rpartition("-")[2]) for path in folder.glob(f"[0-9][0-9]-kept-*/{MANIFEST}"))


def rows_of(folder: Path, name: str, record: type[Any]) -> list[Any]:
    """Return all records of a finished step."""
    return [
        row
        for path in sorted(step_folder(folder, name).glob("part-*.parquet"), key=by_number)
        for row in read_part(path, record)
    ]


def judged_names(options: CurateOptions, number: int) -> dict[SignalName, str]:
    """Return signal -> name of the step that holds it in a round: `judged-1` is the first that makes the score.

    What the backward model says does not change from round to round: one step holds it for all.
    """
    names: dict[SignalName, str] = {}
    first = True
    for name in options.signals:
        if name == "backward":
            names[name] = "judged-backward"
        else:
            names[name] = f"judged-{number}" if first else f"judged-{number}-{name}"
            first = False
    return names


def kept_name(folder: Path, number: int) -> str:
    """Return the name of the step whose pairs a round ended with: rewritten ones where that was asked for."""
    rewritten = f"rewritten-{number}"
    return rewritten if has_step(folder, rewritten) else f"kept-{number}"
