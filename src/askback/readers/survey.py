"""Some documents from all over a corpus, and how much of it they are.

Takes: CorpusOptions.  Gives: a Survey.  Never: reads the whole of a large corpus, or writes.

Files are drawn from the whole listing, and of a large file the beginning is read; a byte is taken to hold as many
documents everywhere as it does there.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from askback.errors import DataError, borrow
from askback.options import CorpusOptions
from askback.readers.documents import read_documents
from askback.readers.hub import names_data_set
from askback.readers.index import split_off_indexes
from askback.readers.listing import list_path
from askback.records import Document, Reject

FILES = 200
"""Files that are looked into, in an order that is drawn: there may not be time for all."""
SMALL_BYTES = 1_000_000
"""A file that is no larger is read to its end, whatever it holds."""
MOST_S = 15.0
REJECTS = 10
"""So many rejects for each document wanted of a file end the reading of it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was read, and what there is; `bytes_read` has one figure for each document and each file without any."""

    documents: tuple[Document, ...]
    bytes_read: tuple[float, ...]
    bytes_in_all: float | None
    """None where nobody knows, such as on the hub."""
    is_whole: bool
    """Whether the documents are all there are."""
    seconds: float


def survey(options: CorpusOptions, most: int) -> Survey:
    """Read up to about so many documents of a corpus: all of them where it has no more.

    Raises:
        ConfigError: there is nothing at the path.
        DataError: there is, but nothing that can be read.
    """
    began = time.perf_counter()
    first, is_whole = _take(read_documents(options), most)
    seconds = time.perf_counter() - began
    if not is_whole and not names_data_set(options.path):
        return _survey_files(options, most)
    sizes = tuple(float(len(document.text)) for document in first)
    return Survey(
        documents=tuple(first),
        bytes_read=sizes,
        bytes_in_all=sum(sizes) if is_whole else None,
        is_whole=is_whole,
        seconds=seconds,
    )


def _survey_files(options: CorpusOptions, most: int) -> Survey:
    files, _ = split_off_indexes(list_path(options.path).files, options.text_column)
    paths = list(files.values())
    chosen = Random(0).sample(paths, min(FILES, len(paths)))
    began = time.perf_counter()
    documents: list[Document] = []
    sizes: list[float] = []
    for path in chosen:
        found, read = _read_some(path, options, max(1, most // len(chosen)))
        documents += found
        chars = sum(len(document.text) for document in found)
        sizes += [read * len(document.text) / chars for document in found] if chars else [read]
        if time.perf_counter() - began > MOST_S:
            break
    seconds = time.perf_counter() - began
    whole = float(sum(path.stat().st_size for path in paths))
    if options.limit and sizes:
        whole = min(whole, options.limit * sum(sizes) / max(1, len(documents)))
    return Survey(
        documents=tuple(documents), bytes_read=tuple(sizes), bytes_in_all=whole, is_whole=False, seconds=seconds
    )


def _read_some(path: Path, options: CorpusOptions, most: int) -> tuple[list[Document], float]:
    """Return the first documents of a file, and how many of its bytes they were read from."""
    size = float(path.stat().st_size)
    try:
        stream = Counted(read_documents(options.model_copy(update={"path": str(path), "limit": 0})))
        found, ended = _take(stream, sys.maxsize if size <= SMALL_BYTES else most)
    except DataError:  # a run names it
        return [], size
    return found, size if ended else min(size, _bytes_behind(path, found, stream.count))


class Counted:
    """Outcomes, counted as they are taken."""

    def __init__(self, outcomes: Iterable[Document | Reject]) -> None:
        self.outcomes = iter(outcomes)
        self.count = 0

    def __iter__(self) -> Iterator[Document | Reject]:
        for outcome in self.outcomes:
            self.count += 1
            yield outcome


def _take(outcomes: Iterable[Document | Reject], most: int) -> tuple[list[Document], bool]:
    """Return so many documents, and whether nothing is left; the reading is not closed, so that it can be looked at."""
    found: list[Document] = []
    rejected = 0
    for outcome in outcomes:
        if len(found) == most or rejected >= most * REJECTS:
            return found, False
        if isinstance(outcome, Document):
            found.append(outcome)
        else:
            rejected += 1
    return found, True


def _bytes_behind(path: Path, found: list[Document], rows: int) -> float:
    """Return how many bytes of an open file were read; where the system does not tell, those of the texts."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return float(path.stat().st_size * rows / max(1, pq.read_metadata(path).num_rows))
    opened = borrow("psutil").Process().open_files()
    places = [getattr(file, "position", 0) for file in opened if file.path == str(path.resolve())]
    return float(max(places, default=0) or sum(len(document.text.encode()) for document in found))
