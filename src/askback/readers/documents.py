"""Read documents from a file, a folder or a glob, as Markdown.

Takes: CorpusOptions: text, Markdown, HTML, and row files with a text column.
Gives: one Document or Reject per file, or per row of a row file, in the order of their names.
Never: leaves the folder it was given, or passes over a file in silence; only names with a leading dot are, and
`index*.jsonl` files without a text column, whose rows say of a `file` which genre, quality and licence it has.
"""

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import unescape
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from askback.errors import ConfigError, DataError, borrow
from askback.options import CorpusOptions
from askback.readers.rows import COMPRESSED, Located, Row, readable_suffixes, reject, row_format, stream_rows
from askback.records import Document, Reject, content_id

_MAGIC = re.compile(r"[*?\[]")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r"# +(.+?)[ #]*$")
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)^[ \t]*---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_KEY_LINE = re.compile(r"\s*([A-Za-z][\w-]*)\s*:(.*)$")
_NESTED_LINE = re.compile(r"\s|- |#|$")  # belongs to the key above it, or is a comment
_HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)
_HTML_ROOT = re.compile(r"<(html|body)[\s>]", re.IGNORECASE)
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BOILERPLATE = [
    "//nav",
    "//footer[not(ancestor::article)]",
    "//header[not(ancestor::article or ancestor::main)]",
    "//*[@role='navigation' or @role='banner' or @role='contentinfo']",
]
_SHORT_PAGE_CHARS = 250  # below this the extractor itself distrusts what it found


class _Labels(NamedTuple):
    """What an index says of a file."""

    genre: str = ""
    label: str = ""
    licence: str = ""


class _Source(NamedTuple):
    """A file, its name relative to the corpus, and what an index says of it."""

    file: Path
    name: str
    labels: _Labels = _Labels()


@dataclass(frozen=True, slots=True)
class _Listing:
    """What was found at a path: files by name, and the entries that were refused."""

    files: dict[str, Path]
    refused: list[Reject] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    """A document's text as Markdown, and what it says of itself."""

    text: str
    title: str = ""
    genre: str = ""
    licence: str = ""


def read_documents(options: CorpusOptions) -> Iterator[Document | Reject]:
    """Yield every document once; the listing is made at the call, the files are read one by one.

    Raises:
        ConfigError: there is nothing at `path`.
        DataError: there is, but no file of a readable kind; or a packed file or an index is damaged.
    """
    listing = _list_path(options.path)
    files, labels = _split_off_indexes(listing.files, options.text_column)
    _check_readable(files, listing, options.path)
    sources = (_Source(file, name, labels.get(name, _Labels())) for name, file in files.items())
    outcomes = chain.from_iterable(_read_source(source, options) for source in sources)
    return _drop_duplicates(chain(listing.refused, outcomes))


def _drop_duplicates(outcomes: Iterable[Document | Reject]) -> Iterator[Document | Reject]:
    first: dict[str, str] = {}
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        text = content_id(outcome.text)
        if text in first:
            same = f"the same text stands in {first[text]}"
            yield Reject(id=outcome.id, reason="duplicate_document", detail=same, source=outcome.source)
        else:
            first[text] = outcome.source
            yield outcome


# --- which files


def _list_path(path: str) -> _Listing:
    if not path:
        raise ConfigError("corpus.path is empty: name a file, a folder or a glob of documents")
    place = Path(path)
    if place.is_dir():
        return _admit(_walk(place), place)
    if place.is_file():
        return _Listing({place.name: place})
    if place.exists():
        raise ConfigError(f"corpus.path {path}: a pipe or a device, want a file, a folder or a glob")
    if found := _match_glob(place):
        return _admit(found, _fixed_part(place))
    raise ConfigError(f"corpus.path {path}: no such file or folder, and no glob that matches a file")


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


def _admit(entries: Iterable[Path], root: Path) -> _Listing:
    """Sort entries by their relative names into files to read and entries refused."""
    named = sorted((_printable(entry.relative_to(root).as_posix()), entry) for entry in entries)
    refusals = [(name, entry, _refusal(entry, root)) for name, entry in named]
    files = {name: entry for name, entry, reason in refusals if not reason}
    return _Listing(files, [reject(name, reason, f"-> {_target(entry)}") for name, entry, reason in refusals if reason])


def _printable(name: str) -> str:
    """Return a file name that can be written down; on disk it may hold bytes that are no UTF-8."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _target(entry: Path) -> str:
    return _printable(os.path.realpath(entry))


def _refusal(entry: Path, root: Path) -> str:
    """Return why an entry is not read, or nothing."""
    if not Path(os.path.realpath(entry)).is_relative_to(os.path.realpath(root)):
        return "link_outside"
    if not entry.exists():
        return "broken_link"
    if entry.is_dir():
        return "link_to_folder"
    return "" if entry.is_file() else "not_a_file"


def _check_readable(files: dict[str, Path], listing: _Listing, path: str) -> None:
    if any(row_format(file) or _suffix(file) in _PARSERS for file in files.values()):
        return
    kinds = Counter(_suffix(file) or "without extension" for file in files.values())
    found = [f"{count} {kind}" for kind, count in kinds.most_common()]
    found += [f"{len(listing.refused)} refused ({listing.refused[0].reason})"] if listing.refused else []
    readable = ", ".join([*_PARSERS, *readable_suffixes()])
    raise DataError(f"corpus.path {path}: nothing to read; found: {', '.join(found) or 'no file'}; read are {readable}")


def _suffix(file: Path) -> str:
    """Return the lower-case extension, with the one before it where the file is packed."""
    packed = file.suffix.lower() in COMPRESSED
    return "".join(file.suffixes[-2:]).lower() if packed else file.suffix.lower()


# --- what an index says of them


def _split_off_indexes(files: dict[str, Path], text_column: str) -> tuple[dict[str, Path], dict[str, _Labels]]:
    indexes = {name: file for name, file in files.items() if _is_index(file, text_column)}
    labels = {about: label for name, file in indexes.items() for about, label in _read_index(file, name)}
    return {name: file for name, file in files.items() if name not in indexes}, labels


def _is_index(file: Path, text_column: str) -> bool:
    """Whether the first row names a file and no row holds a text, which would be lost in an index."""
    if not file.match("index*.jsonl") or file.stat().st_size == 0:
        return False
    items = stream_rows(file)
    names_a_file = any(isinstance(item, Located) and "file" in item.row for item in islice(items, 1))
    items = stream_rows(file)
    return names_a_file and not any(isinstance(item, Located) and text_column in item.row for item in items)


def _read_index(file: Path, name: str) -> Iterator[tuple[str, _Labels]]:
    """Yield each named file, relative to the corpus, with what is said of it."""
    for item in stream_rows(file, name):
        if isinstance(item, Reject) or not isinstance(item.row.get("file"), str):
            place = item.source if isinstance(item, Reject) else item.where
            raise DataError(f"{place}: a row of an index must be an object whose `file` names a file")
        about = posixpath.normpath(posixpath.join(posixpath.dirname(name), item.row["file"]))
        quality = item.row.get("quality")
        label = "" if quality is None else str(quality)
        yield about, _Labels(genre=_text_of(item.row, "genre"), label=label, licence=_licence_of(item.row))


# --- one file


def _read_source(source: _Source, options: CorpusOptions) -> Iterator[Document | Reject]:
    if row_format(source.file):
        yield from _read_rows(source, options)
    else:
        yield _read_file(source, options)


def _read_file(source: _Source, options: CorpusOptions) -> Document | Reject:
    suffix = _suffix(source.file)
    if suffix not in _PARSERS:
        return reject(source.name, "unknown_format", f"extension {suffix or '(none)'}")
    try:
        if (size := source.file.stat().st_size) > options.max_file_mb * 1e6:
            return reject(source.name, "file_too_large", f"{size / 1e6:.1f} MB, at most {options.max_file_mb:g}")
        data = source.file.read_bytes()
    except OSError as error:
        return reject(source.name, "unreadable", str(error.strerror))
    kind, parse = _PARSERS[suffix]
    text = _decode(data, is_html=kind == "html")
    if text is None:
        return reject(source.name, "bad_encoding", "neither UTF-8 nor any encoding that could be told")
    if not text.strip():
        return reject(source.name, "empty")
    parsed = parse(text)
    if parsed is None:
        return reject(source.name, "no_article", "no main text was found in the page")
    return _to_document(parsed, source, options, kind=kind)


def _to_document(parsed: _Parsed, source: _Source, options: CorpusOptions, *, kind: str) -> Document | Reject:
    """Join what a document says of itself, what an index says of it, and the default, in that order."""
    text = parsed.text.strip("\n")
    if not text.strip():
        return reject(source.name, "empty")
    return Document(
        id=content_id(source.name, text),
        text=text,
        source=source.name,
        title=parsed.title,
        format=kind,
        licence=parsed.licence or source.labels.licence or options.licence,
        genre=parsed.genre or source.labels.genre,
        label=source.labels.label,
    )


def _decode(data: bytes, *, is_html: bool) -> str | None:
    """Return the text with plain line ends: UTF-8, else what the page declares, else what its bytes look like.

    The last is a guess, good for another alphabet, less so for telling one western code page from the next.
    """
    text = _decode_as(data, "utf-8-sig")
    if text is None and is_html and (declared := _HTML_CHARSET.search(data[:4096])):
        text = _decode_as(data, declared[1].decode("ascii", errors="replace"))
    if text is None:
        best = borrow("charset_normalizer").from_bytes(data).best()
        text = _decode_as(data, best.encoding) if best else None
    return None if text is None else _plain_newlines(text.removeprefix("\ufeff"))


def _decode_as(data: bytes, encoding: str) -> str | None:
    """Return the text, or None if the bytes are not of that encoding; a NUL betrays UTF-16 or no text at all."""
    try:
        name = codecs.lookup(encoding).name
        text = data.decode("cp1252" if name in ("iso8859-1", "ascii") else name)  # what browsers take these two for
        text.encode("utf-8")  # some codecs a page may name can yield halves of surrogate pairs
    except (LookupError, ValueError):
        return None
    return None if "\0" in text else text


def _plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- rows


def _read_rows(source: _Source, options: CorpusOptions) -> Iterator[Document | Reject]:
    if source.file.stat().st_size == 0:
        yield reject(source.name, "empty")
        return
    has_rows = False
    for item in stream_rows(source.file, source.name):
        has_rows = True
        yield item if isinstance(item, Reject) else _row_document(item, source, options)
    if not has_rows:
        yield reject(source.name, "empty", "no row in the file")


def _row_document(item: Located, source: _Source, options: CorpusOptions) -> Document | Reject:
    if options.text_column not in item.row:
        found = ", ".join(map(str, item.row)) or "none"
        return reject(item.where, "no_text_column", f"no {options.text_column}; columns found: {found}")
    text = item.row[options.text_column]
    if not isinstance(text, str):
        return reject(item.where, "wrong_type", f"{options.text_column} is {type(text).__name__}, want text")
    parsed = _Parsed(
        text=_plain_newlines(text),
        title=_text_of(item.row, "title"),
        genre=_text_of(item.row, "genre"),
        licence=_licence_of(item.row),
    )
    return _to_document(parsed, source._replace(name=item.where), options, kind="rows")


def _licence_of(row: Row) -> str:
    return _text_of(row, "licence") or _text_of(row, "license")


def _text_of(row: Row, column: str) -> str:
    value = row.get(column)
    return value.strip() if isinstance(value, str) else ""


# --- text and Markdown


def _parse_text(text: str) -> _Parsed:
    return _Parsed(text=text)


def _parse_markdown(text: str) -> _Parsed:
    facts, body = split_front_matter(text)
    return _Parsed(
        text=body,
        title=facts.get("title", "") or first_heading(body),
        genre=facts.get("genre", ""),
        licence=facts.get("licence", "") or facts.get("license", ""),
    )


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the `key: value` lines between two `---` lines at the top, keys in lower case, and the rest.

    A text that opens with a mere rule has none.
    """
    block = _FRONT_MATTER.match(text)
    lines = block[1].split("\n") if block else []
    keys = [key for line in lines if (key := _KEY_LINE.match(line))]
    if not block or not keys or any(not _KEY_LINE.match(line) and not _NESTED_LINE.match(line) for line in lines):
        return {}, text
    facts = {key[1].lower(): key[2].strip().strip("\"'") for key in reversed(keys)}  # the first of a name holds
    return facts, text[block.end() :]


def first_heading(text: str) -> str:
    """Return the first `# ` heading; a comment in a fenced block of code is none."""
    fenced = ""
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            fenced = "" if fenced == mark[1] else fenced or mark[1]
        elif not fenced and (heading := _HEADING.match(line)):
            return heading[1]
    return ""


# --- HTML


def _parse_html(page: str) -> _Parsed | None:
    """Cut the article out of a page, as Markdown; None if it has none."""
    if not _HTML_ROOT.search(page):
        page = f"<html><body>{page}</body></html>"  # the extractor finds nothing in a bare fragment
    text = _extract(page)
    if not _has_heading(text) and (bare := _as_article(page)) is not None:
        whole = _extract(bare)
        is_mostly_article = len(whole) <= 2 * max(len(text), _SHORT_PAGE_CHARS)
        text = whole if _has_heading(whole) and is_mostly_article else text
    if not text:
        return None
    title = _HTML_TITLE.search(page)
    return _Parsed(text=text, title=first_heading(text) or (" ".join(unescape(title[1]).split()) if title else ""))


def _extract(page: Any) -> str:
    article = borrow("trafilatura").extract(
        page,
        output_format="markdown",
        include_comments=False,
        include_formatting=True,
        include_tables=True,
        prune_xpath=_BOILERPLATE,
    )
    return str(article or "")


def _has_heading(text: str) -> bool:
    return re.search(r"^#{1,6} ", text, re.MULTILINE) is not None


def _as_article(page: str) -> Any | None:
    """Return a page that has headings but marks no article, its whole body marked as one.

    Of a plain page without that mark the extractor may keep the words alone: headings, lists and code are lost.
    """
    html = borrow("lxml.html")
    try:
        tree = html.document_fromstring(page.encode("utf-8"), parser=html.HTMLParser(encoding="utf-8"))
    except borrow("lxml.etree").LxmlError:
        return None  # nothing an article could be made of: the first reading stands
    body = tree.find("body")
    if body is None or body.xpath("boolean(.//article | .//main)") or not body.xpath("boolean(.//h1|.//h2|.//h3)"):
        return None
    body.tag = "article"
    body.addprevious(html.Element("body"))
    body.getprevious().append(body)
    return tree


_PARSERS: dict[str, tuple[str, Callable[[str], _Parsed | None]]] = {
    ".txt": ("text", _parse_text),
    ".md": ("markdown", _parse_markdown),
    ".markdown": ("markdown", _parse_markdown),
    ".html": ("html", _parse_html),
    ".htm": ("html", _parse_html),
}
