"""Read the rows of a JSON, CSV or Parquet file one at a time, each with its place.

Takes: one file, or the stream of one: .jsonl .ndjson .json .csv .tsv (each also .gz or .zst) or .parquet.
Gives: a Located row, or a Reject for each row that cannot be read.
Never: holds a whole file (a JSON list and a batch of Parquet excepted), or stops at a bad row; a damaged file
is a DataError.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from askback.errors import ConfigError, DataError, borrow
from askback.records import Reject, content_id, excerpt

MAX_ROW_BYTES = 10_000_000
COMPRESSED = (".gz", ".zst")
_CHUNK_BYTES = 64 * 1024
_ZSTD_CHUNK_BYTES = 1024  # one compressed byte may stand for 40 KB: small bites bound the memory
_PARQUET_BATCH_ROWS = 256

Row = dict[str, Any]


class Located(NamedTuple):
    """A row and where it stands: "file:line", counted from 1 (from the first row, where rows are no lines)."""

    where: str
    row: Row


def row_format(file: Path) -> str:
    """Return the suffix that says how rows are written, such as ".jsonl"; empty if it is no row file."""
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        return next((suffix for suffix in suffixes[:-1] if suffix in _TEXT_READERS), "")
    return next((suffix for suffix in suffixes[-1:] if suffix in (*_TEXT_READERS, ".parquet")), "")


def reject(where: str, reason: str, detail: str = "") -> Reject:
    """Return the Reject of something that has no content to be named after: its place is its identity."""
    return Reject(id=content_id(where), reason=reason, detail=excerpt(detail), source=where)


def read_rows(file: Path, name: str = "") -> Iterator[Located | Reject]:
    """Yield every row of a file that must hold at least one; `name` stands for the file in each place.

    Raises:
        ConfigError: there is no such file.
        DataError: the file is empty, damaged, or has no usable row.
    """
    usable = False
    worst = ""
    for item in stream_rows(file, name):
        if isinstance(item, Reject):
            worst = worst or f"; the first is {item.reason} at {item.source} ({item.detail})"
        else:
            usable = True
        yield item
    if not usable:
        raise DataError(f"{file}: holds no usable row{worst}")


def stream_rows(file: Path, name: str = "") -> Iterator[Located | Reject]:
    """Yield every row of a file, of which none need be usable; for errors see `read_rows`."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    kind = row_format(file)
    if not kind:
        raise ConfigError(f"{file}: not a row file; read are {', '.join(readable_suffixes())}")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    name = name or file.name
    return _parquet_rows(file, name) if kind == ".parquet" else _TEXT_READERS[kind](_chunks(file), name)


def stream_packed_rows(stream: BinaryIO, name: str) -> Iterator[Located | Reject]:
    """Yield every row of a file that is no file of its own, as in an archive; Parquet must be a stream that seeks.

    Raises:
        DataError: the rows are damaged.
        Exception: whatever reading the stream raises.
    """
    kind = row_format(Path(name))
    if kind == ".parquet":
        yield from _parquet_rows(stream, name)
        return
    try:
        yield from _TEXT_READERS[kind](_unpacked(stream, Path(name).suffix.lower()), name)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name}: damaged or cut off: {error}") from error


def readable_suffixes() -> list[str]:
    """Return the suffixes of row files, the compressed forms summed up."""
    return [*_TEXT_READERS, ".parquet", "and .gz or .zst of the text ones"]


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield lines split at b"\n" alone; an overlong one is cut to a byte over MAX_ROW_BYTES, so it shows as such."""
    line = bytearray()
    for chunk in chunks:
        end, *others = chunk.split(b"\n")
        line += end[: MAX_ROW_BYTES + 1 - len(line)]
        for start in others:
            yield bytes(line)
            line[:] = start[: MAX_ROW_BYTES + 1]
    yield bytes(line)


# --- bytes


def _chunks(file: Path) -> Iterator[bytes]:
    """Yield the file's bytes, unpacked, without the byte-order mark."""
    try:
        with file.open("rb") as stream:
            yield from _unpacked(stream, file.suffix.lower())
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: damaged or cut off, get the file again: {error}") from error


def _unpacked(stream: BinaryIO, suffix: str) -> Iterator[bytes]:
    if suffix == ".zst":
        chunks = _unpack_zstd(stream)
    else:
        chunks = _read_chunks(gzip.GzipFile(fileobj=stream) if suffix == ".gz" else stream, _CHUNK_BYTES)
    yield next(chunks, b"").removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _read_chunks(stream: Any, size: int) -> Iterator[bytes]:
    while chunk := stream.read(size):
        yield chunk


def _unpack_zstd(stream: Any) -> Iterator[bytes]:
    """Yield the content of every frame; unlike the library's own reader, notice one that breaks off."""
    zstandard = borrow("zstandard")
    frame = None
    try:
        for packed in _read_chunks(stream, _ZSTD_CHUNK_BYTES):
            while packed:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
                if unpacked := frame.decompress(packed):
                    yield unpacked
                packed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    if frame is not None:
        raise EOFError("the last zstd frame has no end")


# --- JSON


def _jsonl_rows(chunks: Iterable[bytes], name: str) -> Iterator[Located | Reject]:
    for number, line in enumerate(split_lines(chunks), start=1):
        if line.strip():
            yield _json_row(line, f"{name}:{number}")


def _json_rows(chunks: Iterator[bytes], name: str) -> Iterator[Located | Reject]:
    """Read one list of objects, or one object per line, whichever the first character announces."""
    head = next((chunk for chunk in chunks if chunk.strip()), b"")
    if not head.lstrip().startswith(b"["):
        yield from _jsonl_rows(chain([head], chunks), name)
        return
    values = _parse_json(b"".join([head, *chunks]), f"{name}:1")
    if isinstance(values, Reject):
        yield values
    else:
        yield from (_as_row(value, f"{name}:{number}") for number, value in enumerate(values, start=1))


def _json_row(line: bytes, where: str) -> Located | Reject:
    if len(line) > MAX_ROW_BYTES:
        return reject(where, "row_too_large", f"the line is longer than {MAX_ROW_BYTES} bytes")
    value = _parse_json(line, where)
    return value if isinstance(value, Reject) else _as_row(value, where)


def _parse_json(text: bytes, where: str) -> Any | Reject:
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # "\ud800" alone parses, but can never be written
    except UnicodeError as error:
        return reject(where, "bad_utf8", str(error))
    except RecursionError:
        return reject(where, "bad_json", "nested too deeply")
    except ValueError as error:
        return reject(where, "bad_json", str(error))
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _as_row(value: object, where: str) -> Located | Reject:
    if isinstance(value, dict):
        return Located(where, value)
    return reject(where, "not_an_object", f"want an object with named columns, found {type(value).__name__}")


# --- CSV


def _csv_rows(chunks: Iterable[bytes], name: str) -> Iterator[Located | Reject]:
    return _separated_rows(chunks, name, ",")


def _tsv_rows(chunks: Iterable[bytes], name: str) -> Iterator[Located | Reject]:
    return _separated_rows(chunks, name, "\t")


def _separated_rows(chunks: Iterable[bytes], name: str, delimiter: str) -> Iterator[Located | Reject]:
    """Read a header and rows of as many fields; blank lines are no rows."""
    csv.field_size_limit(MAX_ROW_BYTES)  # the library's own 128 KiB would refuse a long document
    header: list[str] = []
    for number, record in _csv_records(split_lines(chunks)):
        where = f"{name}:{number}"
        fields = _csv_fields(record, where, delimiter) if record.strip(b"\r\n") else []
        if not header:
            header = _check_header(fields, where)
        elif isinstance(fields, Reject):
            yield fields
        elif len(fields) == len(header):
            yield Located(where, dict(zip(header, fields, strict=True)))
        elif fields:
            yield reject(where, "bad_csv", f"{len(fields)} fields, the header has {len(header)}")


def _csv_records(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each record and its first line; lines are joined until quotes close, for a field may hold line ends."""
    record = bytearray()
    first, quoted = 1, False
    for number, line in enumerate(lines, start=1):
        first = first if record else number
        record += line + b"\n"
        quoted ^= line.count(b'"') % 2 == 1
        if not quoted or len(record) > MAX_ROW_BYTES:
            yield first, bytes(record)
            record.clear()
            quoted = False
    if record:
        yield first, bytes(record)


def _csv_fields(record: bytes, where: str, delimiter: str) -> list[str] | Reject:
    if len(record) > MAX_ROW_BYTES:
        return reject(where, "row_too_large", f"a quote is open or the row is longer than {MAX_ROW_BYTES} bytes")
    try:
        text = io.StringIO(record.decode("utf-8"), newline="")
        rows = list(csv.reader(text, delimiter=delimiter, strict=True))
    except UnicodeError as error:
        return reject(where, "bad_utf8", str(error))
    except csv.Error as error:
        return reject(where, "bad_csv", str(error))
    return rows[0] if len(rows) == 1 else reject(where, "bad_csv", "a bare carriage return outside quotes")


def _check_header(fields: list[str] | Reject, where: str) -> list[str]:
    if isinstance(fields, Reject):
        raise DataError(f"{where}: the header cannot be read: {fields.detail}")
    if len(set(fields)) < len(fields):
        raise DataError(f"{where}: the header names a column twice: {', '.join(fields)}")
    return fields


# --- Parquet


def _parquet_rows(file: Path | BinaryIO, name: str) -> Iterator[Located | Reject]:
    parquet = borrow("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                for single in _batch_rows(batch):
                    number += 1
                    where = f"{name}:{number}"
                    yield reject(where, "bad_utf8", single) if isinstance(single, str) else Located(where, single)
    except (OSError, ValueError) as error:  # what Arrow raises for a broken file is one or the other
        raise DataError(f"{file if isinstance(file, Path) else name}: not a sound Parquet file: {error}") from error


def _batch_rows(batch: Any) -> Iterator[Row | str]:
    """Yield the rows of a batch; where a text is not UTF-8, go row by row and yield the complaint instead."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield str(error)
            return
        for index in range(batch.num_rows):
            yield from _batch_rows(batch.slice(index, 1))
        return
    yield from rows


_TEXT_READERS: dict[str, Callable[[Iterator[bytes], str], Iterator[Located | Reject]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _tsv_rows,
}


def read_words(path: str) -> list[str]:
    """Return the lines of the file that `passages.block_words` names, if it names one.

    Raises:
        ConfigError: it cannot be read as text.
    """
    try:
        return Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"passages.block_words = {path}: cannot be read as text: {error}") from error
