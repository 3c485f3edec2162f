"""What an index says of the files beside it: genre, quality and licence, which no file needs to say itself.

Takes: files by name.  Gives: the files that are no index, and the labels of the files an index names.
Never: takes a file for an index that holds a text of its own, which would be lost.
"""

import posixpath
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from askback.errors import DataError
from askback.readers.rows import Located, Row, stream_rows
from askback.records import Reject


class Labels(NamedTuple):
    """What an index says of a file."""

    genre: str = ""
    label: str = ""
    licence: str = ""


def split_off_indexes(files: dict[str, Path], text_column: str) -> tuple[dict[str, Path], dict[str, Labels]]:
    """Return the files without the indexes among them, and what those say, by the name of the file.

    Raises:
        DataError: a row of an index names no file.
    """
    indexes = {name: file for name, file in files.items() if _is_index(file, text_column)}
    labels = {about: label for name, file in indexes.items() for about, label in _read_index(file, name)}
    return {name: file for name, file in files.items() if name not in indexes}, labels


def _is_index(file: Path, text_column: str) -> bool:
    """Whether the first row names a file and no row holds a text."""
    if not file.match("index*.jsonl") or file.stat().st_size == 0:
        return False
    items = stream_rows(file)
    names_a_file = any(isinstance(item, Located) and "file" in item.row for item in islice(items, 1))
    items = stream_rows(file)
    return names_a_file and not any(isinstance(item, Located) and text_column in item.row for item in items)


def _read_index(file: Path, name: str) -> Iterator[tuple[str, Labels]]:
    """Yield each named file, relative to the corpus, with what is said of it."""
    for item in stream_rows(file, name):
        if isinstance(item, Reject) or not isinstance(item.row.get("file"), str):
            place = item.source if isinstance(item, Reject) else item.where
            raise DataError(f"{place}: a row of an index must be an object whose `file` names a file")
        about = posixpath.normpath(posixpath.join(posixpath.dirname(name), item.row["file"]))
        quality = item.row.get("quality")
        label = "" if quality is None else str(quality)
        yield about, Labels(genre=text_of(item.row, "genre"), label=label, licence=licence_of(item.row))


def licence_of(row: Row) -> str:
    """Return the licence a row names, in either spelling of the column."""
    return text_of(row, "licence") or text_of(row, "license")


def text_of(row: Row, column: str) -> str:
    """Return a column's text without the space around it; nothing where it holds none."""
    value = row.get(column)
    return value.strip() if isinstance(value, str) else ""
