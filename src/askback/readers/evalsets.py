"""Read what models are evaluated on: every string of every row, with its place.

Takes: files and folders of evaluation sets: rows (JSONL, JSON, CSV, Parquet) or texts (.txt, .md).
Gives: (place, text) pairs, the place being "file:row", or "file:line" in a text.
Never: chooses a column, or goes on past a row it cannot read: that row would be trained on.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from askback.errors import ConfigError, DataError
from askback.readers.rows import read_rows, readable_suffixes, row_format
from askback.records import Reject

TEXTS = (".txt", ".md")


def read_evalsets(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the strings of all sets; of a folder, those of every file below it that can be read, by name.

    In a row every string counts, those in lists and objects too. In a text both its paragraphs and its lines are
    yielded: a prompt may be either.

    Raises:
        ConfigError: a path is not there, or is no file of a kind that is read.
        DataError: a row cannot be read, or a set holds no text.
    """
    for path in paths:
        for file, name in _files(Path(path)):
            strings = [*(_text_strings(file, name) if _is_text(file) else _row_strings(file, name))]
            if not strings:
                raise DataError(f"{file}: holds no text; want an evaluation set")
            yield from strings


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of a set and its name."""
    if not path.exists():
        raise ConfigError(f"distinct.against: {path}: no such file or folder")
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in inside if file.is_file() and (row_format(file) or _is_text(file))]
    if not files:
        raise ConfigError(f"distinct.against: {path}: want {', '.join((*readable_suffixes(), *TEXTS))}")
    for file in files:
        yield file, str(file.relative_to(path.parent if path.is_dir() else file.parent))


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in TEXTS


def _row_strings(file: Path, name: str) -> Iterator[tuple[str, str]]:
    for row in read_rows(file, name):
        if isinstance(row, Reject):
            raise DataError(
                f"{row.source}: {row.reason}: {row.detail}; mend the evaluation set: all of it must be read"
            )
        yield from ((row.where, text) for text in strings_in(row.row))


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


def _text_strings(file: Path, name: str) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeError as error:
        raise DataError(f"{file}: want UTF-8: {error}") from error
    paragraph: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            paragraph.append(line)
            yield f"{name}:{number}", line
        elif paragraph:
            yield f"{name}:{number - len(paragraph)}", "\n".join(paragraph)
            paragraph = []
