"""Which parser reads which bytes: the table of formats, by file name and by media type.

Takes: a name or a media type, and the bytes of one document.
Gives: Found (what was parsed, and where it stood), or a Reject with the parser's reason.
Never: opens a file, or tells a format by its content.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple

from askback.readers.office import parse_docx, parse_epub, parse_pdf
from askback.readers.parsed import Parsed, Refused
from askback.readers.restructured import parse_rst
from askback.readers.rows import COMPRESSED, reject
from askback.readers.text import decode, parse_markdown, parse_text
from askback.readers.web import parse_html
from askback.records import Reject


class Format(NamedTuple):
    """A kind of document: its name, its parser, which is told the charset a server named, and its media types."""

    name: str
    parse: Callable[[bytes, str], Parsed | Refused]
    media: tuple[str, ...] = ()


class Found(NamedTuple):
    """A document as it was parsed, the format it was in, and where it stands."""

    where: str
    format: str
    parsed: Parsed


def format_of(name: str) -> Format | None:
    """Return the format a file's name announces."""
    return FORMATS.get(suffix_of(name))


def format_of_media(media: str) -> Format | None:
    """Return the format of a media type, such as "text/html"."""
    return next((format for format in FORMATS.values() if media.strip().lower() in format.media), None)


def suffix_of(name: str) -> str:
    """Return the lower-case extension, with the one before it where the file is packed."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes[-2:]]
    return "".join(suffixes) if suffixes and suffixes[-1] in PACKED else "".join(suffixes[-1:])


def parse(data: bytes, format: Format, where: str, charset: str = "") -> Found | Reject:
    """Parse the bytes of a document that stands at `where`; a text without a word is none."""
    parsed = format.parse(data, charset)
    if isinstance(parsed, Refused):
        return reject(where, parsed.reason, parsed.detail)
    return Found(where, format.name, parsed) if parsed.text.strip() else reject(where, "empty")


def _parse_rst(data: bytes, charset: str) -> Parsed | Refused:
    decoded = decode(data, charset)
    if isinstance(decoded, Refused):
        return decoded
    parsed = parse_rst(decoded.text)
    return parsed if isinstance(parsed, Refused) else replace(parsed, encoding=decoded.encoding)


PACKED = (*COMPRESSED, ".bz2", ".xz")
FORMATS: dict[str, Format] = {
    ".txt": Format("text", parse_text, ("text/plain",)),
    ".md": Format("markdown", parse_markdown, ("text/markdown", "text/x-markdown")),
    ".markdown": Format("markdown", parse_markdown),
    ".rst": Format("rst", _parse_rst, ("text/x-rst", "text/prs.fallenstein.rst")),
    ".html": Format("html", parse_html, ("text/html", "application/xhtml+xml")),
    ".htm": Format("html", parse_html),
    ".xhtml": Format("html", parse_html),
    ".pdf": Format("pdf", lambda data, _: parse_pdf(data), ("application/pdf",)),
    ".docx": Format(
        "docx",
        lambda data, _: parse_docx(data),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document",),
    ),
    ".epub": Format("epub", lambda data, _: parse_epub(data), ("application/epub+zip",)),
}
"""By the extension of a file; the parsers of office formats are told nothing of a charset, their files say it."""
