"""Which files lie at a path: those of a file, a folder or a glob, in the order of their names.

Takes: a path.  Gives: the files by their names relative to it, and a Reject for each entry that is not read.
Never: leaves the folder it was given, opens a file, or passes over one in silence but for a name with a leading dot.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from askback.errors import ConfigError, DataError
from askback.readers.rows import reject
from askback.records import Reject

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Listing:
    """What was found at a path: files by name, and the entries that were refused."""

    files: dict[str, Path]
    refused: list[Reject] = field(default_factory=list)


def list_path(path: str) -> Listing:
    """Return what lies at a path.

    Raises:
        ConfigError: nothing does, or a pipe or a device.
        DataError: a folder cannot be listed.
    """
    if not path:
        raise ConfigError("corpus.path is empty: name a file, a folder or a glob of documents")
    place = Path(path)
    if place.is_dir():
        return _admit(_walk(place), place)
    if place.is_file():
        return Listing({place.name: place})
    if place.exists():
        raise ConfigError(f"corpus.path {path}: a pipe or a device, want a file, a folder or a glob")
    if found := _match_glob(place):
        return _admit(found, _fixed_part(place))
    raise ConfigError(f"corpus.path {path}: no such file or folder, and no glob that matches a file")


def printable(name: str) -> str:
    """Return a file name that can be written down; on disk it may hold bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _match_glob(pattern: Path) -> list[Path]:
    """Return the entries a glob names, but for hidden ones; a folder among them is not entered."""
    root = _fixed_part(pattern)
    if root == pattern:
        return []
    try:
        found = list(root.glob(str(pattern.relative_to(root))))
    except ValueError as error:
        raise ConfigError(f"corpus.path {pattern}: {error}") from error
    shown = [entry for entry in found if not any(part.startswith(".") for part in entry.relative_to(root).parts)]
    return [entry for entry in shown if entry.is_symlink() or not entry.is_dir()]


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a glob before its first wildcard."""
    part = pattern
    while _MAGIC.search(str(part)):
        part = part.parent
    return part


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every entry that is not a folder of its own and not hidden; a link to a folder is an entry."""
    for place, folders, files in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in (*links, *files) if not name.startswith("."))


def _raise_unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: the folder cannot be listed: {error.strerror}") from error


def _admit(entries: Iterable[Path], root: Path) -> Listing:
    """Sort entries by their relative names into files to read and entries refused."""
    named = sorted((printable(entry.relative_to(root).as_posix()), entry) for entry in entries)
    refusals = [(name, entry, _refusal(entry, root)) for name, entry in named]
    files = {name: entry for name, entry, reason in refusals if not reason}
    return Listing(files, [reject(name, reason, f"-> {_target(entry)}") for name, entry, reason in refusals if reason])


def _target(entry: Path) -> str:
    return printable(os.path.realpath(entry))


def _refusal(entry: Path, root: Path) -> str:
    """Return why an entry is not read, or nothing."""
    if not Path(os.path.realpath(entry)).is_relative_to(os.path.realpath(root)):
        return "link_outside"
    if not entry.exists():
        return "broken_link"
    if entry.is_dir():
        return "link_to_folder"
    return "" if entry.is_file() else "not_a_file"
