"""Read documents from a file, a folder, a glob, an archive, a crawl or a data set of the hub, as Markdown.

Takes: CorpusOptions.
Gives: one Document or Reject per file, per row of a row file, per member of an archive, per record of a crawl, in the
order of their names and then in that of the file; at most `limit` documents.
Never: holds more than one document and the hashes of those before it, writes, leaves the folder it was given, or
passes over a file in silence; only names with a leading dot are, and `index*.jsonl` files without a text column, whose
rows say of a `file` which genre, quality and licence it has.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from askback.errors import DataError
from askback.options import CorpusOptions
from askback.readers import archives, crawl
from askback.readers.archives import BrokenArchive, Member, is_archive, list_members, needs_seeking
from askback.readers.crawl import read_crawl
from askback.readers.formats import FORMATS, Found, format_of, parse, suffix_of
from askback.readers.hub import names_data_set, stream_data_set
from askback.readers.index import Labels, licence_of, split_off_indexes, text_of
from askback.readers.listing import Listing, list_path
from askback.readers.parsed import Parsed
from askback.readers.rows import Located, readable_suffixes, reject, row_format, stream_packed_rows, stream_rows
from askback.readers.seen import Seen
from askback.readers.text import plain_newlines
from askback.records import Document, Reject, content_id

_PIECE_BYTES = 1024 * 1024
_SPACING = re.compile(r"[\s_-]+")


class _Source(NamedTuple):
    """A file of the corpus, its name in it, and what an index says of it."""

    file: Path
    name: str
    labels: Labels = Labels()


class _Read(NamedTuple):
    """What is read from a file of the corpus."""

    name: str
    outcomes: Iterator[Document | Reject]


def read_documents(options: CorpusOptions) -> Iterator[Document | Reject]:
    """Yield every document once; the listing is made at the call, the files are read one by one.

    Raises:
        ConfigError: there is nothing at `path`.
        DataError: there is, but no file of a readable kind; or a packed row file or an index is damaged.
    """
    if names_data_set(options.path) and not _is_readable(options.path):
        rows = _row_outcomes(stream_data_set(options.path, options.split), options)
        return _take(_drop_duplicates([_Read(options.path, _documents(rows, Labels(), options))]), options.limit)
    listing = list_path(options.path)
    files, labels = split_off_indexes(listing.files, options.text_column)
    _check_readable(files, listing, options.path)
    sources = (_Source(file, name, labels.get(name, Labels())) for name, file in files.items())
    read = (_Read(source.name, _documents(_read_file(source, options), source.labels, options)) for source in sources)
    return chain(listing.refused, _take(_drop_duplicates(read), options.limit))


def _check_readable(files: dict[str, Path], listing: Listing, path: str) -> None:
    if any(_is_readable(name) for name in files):
        return
    kinds = Counter(suffix_of(name) or "without extension" for name in files)
    found = [f"{count} {kind}" for kind, count in kinds.most_common()]
    found += [f"{len(listing.refused)} refused ({listing.refused[0].reason})"] if listing.refused else []
    readable = ", ".join([*FORMATS, *readable_suffixes(), *crawl.SUFFIXES, *archives.SUFFIXES])
    raise DataError(f"corpus.path {path}: nothing to read; found: {', '.join(found) or 'no file'}; read are {readable}")


def _is_readable(name: str) -> bool:
    return bool(row_format(Path(name)) or format_of(name) or is_archive(name) or _is_crawl(name))


def _is_crawl(name: str) -> bool:
    return name.lower().endswith(crawl.SUFFIXES)


# --- one file, and what lies in it


def _read_file(source: _Source, options: CorpusOptions) -> Iterator[Found | Reject]:
    try:
        size = source.file.stat().st_size
        if row_format(source.file):
            rows = stream_rows(source.file, source.name) if size else iter(())
            yield from _row_outcomes(rows, options, name=source.name)
            return
        with source.file.open("rb") as stream:
            yield from _read_member(Member(source.name, size, stream), options)
    except OSError as error:
        yield reject(source.name, "unreadable", str(error.strerror or error))


def _read_member(member: Member, options: CorpusOptions, *, around: int = 0) -> Iterator[Found | Reject]:
    """Yield what is in a file, which lies in so many archives `around` it."""
    if is_archive(member.name):
        yield from _read_archive(member, options, around=around)
    elif _is_crawl(member.name):
        yield from read_crawl(member.stream, member.name, _most_bytes(options))
    elif row_format(Path(member.name)):
        yield from _read_packed_rows(member, options)
    elif format := format_of(member.name):
        data = _read_whole(member, options)
        yield data if isinstance(data, Reject) else parse(data, format, member.name)
    else:
        yield reject(member.name, "unknown_format", f"extension {suffix_of(member.name) or '(none)'}")


def _read_archive(member: Member, options: CorpusOptions, *, around: int) -> Iterator[Found | Reject]:
    """Yield what is in an archive, and in the archives it holds, but not in those that they hold."""
    if around > 1:
        yield reject(member.name, "nested_archive", "an archive in an archive in an archive")
        return
    held = _hold(member, options) if around and needs_seeking(member.name) else member
    is_empty = True
    for inner in [held] if isinstance(held, Reject) else list_members(held.stream, member.name):
        is_empty = False
        if isinstance(inner, Reject):
            yield inner
            continue
        try:
            yield from _read_member(inner, options, around=around + 1)
        except BrokenArchive as broken:
            yield reject(inner.name, broken.reason, str(broken))
        except DataError as error:
            yield reject(inner.name, "broken_rows", str(error))
    if is_empty:
        yield reject(member.name, "empty", "no file in the archive")


def _read_whole(member: Member, options: CorpusOptions) -> bytes | Reject:
    """Return the bytes of a file that is no larger than is allowed, and does not claim to be smaller than it is."""
    most, data = _most_bytes(options), BytesIO()
    while max(member.size, data.tell()) <= most and (piece := member.stream.read(_PIECE_BYTES)):
        data.write(piece)
    if (size := max(member.size, data.tell())) > most:
        return reject(member.name, "file_too_large", f"{size / 1e6:.1f} MB, at most {options.max_file_mb:g}")
    return data.getvalue()


def _hold(member: Member, options: CorpusOptions) -> Member | Reject:
    """Return a file in memory, for what is read from its end."""
    data = _read_whole(member, options)
    return data if isinstance(data, Reject) else Member(member.name, len(data), BytesIO(data))


def _most_bytes(options: CorpusOptions) -> int:
    return int(options.max_file_mb * 1e6)


# --- rows


def _read_packed_rows(member: Member, options: CorpusOptions) -> Iterator[Found | Reject]:
    held = _hold(member, options) if row_format(Path(member.name)) == ".parquet" else member
    if isinstance(held, Reject):
        yield held
    else:
        yield from _row_outcomes(stream_packed_rows(held.stream, member.name), options, name=member.name)


def _row_outcomes(
    items: Iterable[Located | Reject], options: CorpusOptions, *, name: str = ""
) -> Iterator[Found | Reject]:
    """Yield a document for each row; `name` is that of the file the rows stand in, if they stand in one."""
    encoding = "utf-8" if row_format(Path(name)) not in ("", ".parquet") else ""
    has_rows = False
    for item in items:
        has_rows = True
        yield item if isinstance(item, Reject) else _read_row(item, options.text_column, encoding)
    if not has_rows:
        yield reject(name, "empty", "no row in the file")


def _read_row(item: Located, column: str, encoding: str) -> Found | Reject:
    if column not in item.row:
        found = ", ".join(map(str, item.row)) or "none"
        return reject(item.where, "no_text_column", f"no {column}; columns found: {found}")
    text = item.row[column]
    if not isinstance(text, str):
        return reject(item.where, "wrong_type", f"{column} is {type(text).__name__}, want text")
    if not text.strip():
        return reject(item.where, "empty")
    parsed = Parsed(
        text=plain_newlines(text),
        title=text_of(item.row, "title"),
        genre=text_of(item.row, "genre"),
        licence=licence_of(item.row),
        encoding=encoding,
    )
    return Found(item.where, "rows", parsed)


# --- which become documents


def _documents(
    outcomes: Iterable[Found | Reject], labels: Labels, options: CorpusOptions
) -> Iterator[Document | Reject]:
    for outcome in outcomes:
        document = outcome if isinstance(outcome, Reject) else _to_document(outcome, labels, options.licence)
        yield document if isinstance(document, Reject) else _check_licence(document, options.allow_licence)


def _to_document(found: Found, labels: Labels, licence: str) -> Document:
    """Join what a document says of itself, what an index says of it, and the default, in that order."""
    parsed, text = found.parsed, found.parsed.text.strip("\n")
    return Document(
        id=content_id(found.where, text),
        text=text,
        source=found.where,
        title=parsed.title,
        format=found.format,
        encoding=parsed.encoding,
        licence=parsed.licence or labels.licence or licence,
        genre=parsed.genre or labels.genre,
        label=labels.label,
    )


def _check_licence(document: Document, allowed: tuple[str, ...]) -> Document | Reject:
    licence = _fold(document.licence)
    if not allowed or any(fnmatchcase(licence, _fold(pattern)) for pattern in allowed):
        return document
    return Reject(document.id, "licence_not_allowed", document.licence or "none is named", document.source)


def _fold(licence: str) -> str:
    """Return a licence as it is compared: "CC BY 4.0" is "cc-by-4.0"."""
    return _SPACING.sub("-", licence.strip().lower())


def _drop_duplicates(read: Iterable[_Read]) -> Iterator[Document | Reject]:
    names: list[str] = []
    seen = Seen()
    for name, outcomes in read:
        names.append(name)
        for outcome in outcomes:
            first = seen.first_place(outcome.text, len(names) - 1) if isinstance(outcome, Document) else None
            if first is None:
                yield outcome
            else:
                same = f"the same text stands in {names[first]}"
                yield Reject(outcome.id, "duplicate_document", same, outcome.source)


def _take(outcomes: Iterable[Document | Reject], limit: int) -> Iterator[Document | Reject]:
    """Yield what comes before so many documents were found, and the last of them; what follows is not read."""
    left = limit
    for outcome in outcomes:
        yield outcome
        if limit and isinstance(outcome, Document):
            left -= 1
            if not left:
                return
