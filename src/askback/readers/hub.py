"""Rows of a data set on the hub, streamed: no file is downloaded as a whole.

Takes: "owner/name", or "owner/name:configuration", and a split.  Gives: Located rows.
Never: runs code that a data set brings, or takes a path that lies on this machine for a name on the hub.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askback.errors import ConfigError, DataError, borrow
from askback.readers.rows import Located
from askback.records import excerpt

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


def names_data_set(path: str) -> bool:
    """Whether a path has the form of a data set's name, and not even the folder it would lie in is here.

    A mistyped path must not be asked of the network.
    """
    return bool(_NAME.fullmatch(path)) and not Path(path).parent.exists()


def stream_data_set(path: str, split: str) -> Iterator[Located]:
    """Yield the rows of a split; it is opened at the call.

    Raises:
        ConfigError: there is no such data set, configuration or split, or no network.
        DataError: the stream broke off.
    """
    name, _, configuration = path.partition(":")
    datasets = borrow("datasets", "hub")
    complaints = (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError)
    try:
        rows = datasets.load_dataset(name, configuration or None, split=split, streaming=True)
        rows = rows.decode(False) if rows.features else rows  # sound and pictures stay what they are
    except complaints as error:
        raise ConfigError(
            f"corpus.path {path}: no such file or folder, and no data set of that name with a split {split!r} could be "
            f"opened on the hub: {_explain(error)}"
        ) from error
    return _locate(rows, path, complaints)


def _locate(rows: Any, path: str, complaints: tuple[type[Exception], ...]) -> Iterator[Located]:
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            yield Located(f"{path}:{number}", row)
    except complaints as error:
        raise DataError(f"{path}: the stream broke off after row {number}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    return f"{type(error).__name__}: {excerpt(str(error), 300)}"
