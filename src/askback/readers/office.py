"""Open the formats of offices and publishers: PDF, DOCX, EPUB.

Takes: the bytes of one file.  Gives: Parsed with its text as Markdown, or Refused with the reason.
Never: raises for what the bytes are, asks a network, or unpacks more than `MAX_PART_BYTES` of a part.

Reasons: `encrypted`, `too_deep`, `zip_bomb`, `empty`; `broken_pdf` and `scanned_pdf`, `broken_docx`, `broken_epub`.
The zipped formats are read with the standard library and lxml alone: what one may unpack is then ours to say, and no
library writes lists, text boxes or changes out of DOCX any better.
"""

import logging
import math
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from askback.errors import borrow
from askback.readers import blocks, layout, wordprocessing, xhtml
from askback.readers.layout import Line
from askback.readers.parsed import Parsed, Refused
from askback.records import excerpt

MAX_PART_BYTES = 32_000_000
"""A part of a zipped file that unpacks to more is taken for a bomb."""
MAX_FILE_BYTES = 256_000_000
"""What is read of all parts together."""
MOST_OF_LINE = 0.9
"""So many of a PDF line's letters in a bold or fixed-width font make it a line of that font."""

Element = Any  # of lxml, which has no types

_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OLE = "EncryptedPackage".encode("utf-16-le")
_TITLE_OF_A_FILE = re.compile(
    r"\.(?:docx?|odt|rtf|tex|dvi|ps|pdf|indd|qxd|pptx?|xlsx?|html?|md|txt)$|^untitled|^microsoft \w+ - ", re.IGNORECASE
)
_MONO = re.compile(
    r"mono|courier|consol|typewriter|menlo|inconsolata|fixed|[a-z]tt\d|nimbusmon|pcr[rbo]8", re.IGNORECASE
)
_BOLD = re.compile(r"bold|black|heavy|cmbx|demi", re.IGNORECASE)


class _Refusal(Exception):
    """Unwinds to the door with what is to be said there."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.refused = Refused(reason, detail)


# --- PDF


def parse_pdf(data: bytes) -> Parsed | Refused:
    """Return the text of a PDF's pages, as `layout` reads them.

    A file that opens without a password is read, unless its author does not allow text to be copied out.
    Tables come as lines of words: a PDF holds no cells.
    """
    try:
        pages, title, images = _read_pdf(data)
    except _Refusal as refusal:
        return refusal.refused
    blank = sum(not any(line.text.strip() for line in page) for page in pages)
    if 2 * blank > len(pages) and images:
        return Refused("scanned_pdf", f"{blank} of {len(pages)} pages without text; OCR it first")
    if blank == len(pages):
        return Refused("empty", f"{len(pages)} pages, none with text")
    text = layout.to_markdown(pages)
    return Parsed(text=text, title=title or blocks.title_of(text))


def _read_pdf(data: bytes) -> tuple[list[list[Line]], str, bool]:
    """Return the lines of each page, the title it gives itself, and whether a page without lines has a picture."""
    pypdf = _borrow_pypdf()
    try:
        reader = pypdf.PdfReader(BytesIO(data))
        _check_open(reader, pypdf)
        pages = [_page_lines(page) for page in reader.pages]
        images = any(not lines and len(page.images) for lines, page in zip(pages, reader.pages, strict=True))
        return pages, _metadata_title(reader), images
    except _Refusal:
        raise
    except pypdf.errors.DependencyError as error:
        raise _Refusal("encrypted", f"opens without a password, but {excerpt(str(error))}") from error
    except Exception as error:  # of a damaged file the library raises whatever it stumbles over
        raise _Refusal("broken_pdf", f"{type(error).__name__}: {excerpt(str(error))}") from error


@cache
def _borrow_pypdf() -> ModuleType:
    """Import the library; what it has to say of a damaged file goes to the log of who keeps one, not to the screen."""
    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    return borrow("pypdf", "office")


def _check_open(reader: Any, pypdf: ModuleType) -> None:
    if not reader.is_encrypted:
        return
    if reader.decrypt("") == pypdf.PasswordType.NOT_DECRYPTED:
        raise _Refusal("encrypted", "needs a password")
    allowed = reader.user_access_permissions
    if allowed is not None and not allowed & pypdf.constants.UserAccessPermissions.EXTRACT:
        raise _Refusal("encrypted", "its author does not allow text to be copied out")


def _metadata_title(reader: Any) -> str:
    title = blocks.one_line(blocks.printable(str((reader.metadata and reader.metadata.title) or "")))
    return "" if _TITLE_OF_A_FILE.search(title) else title


def _page_lines(page: Any) -> list[Line]:
    """Return the lines the way most of the page is written; what runs across, such as a stamp, is left out."""
    runs: list[tuple[str, Line, int]] = []

    def visit(text: str, outer: list[float], inner: list[float], font: Any, size: float) -> None:
        if text:
            runs.append((text, *_place(text, _multiply(inner, outer), font, size)))

    page.extract_text(visitor_text=visit)
    lines = [*_lines_of(runs)]
    turns = {turn: sum(len(line.text) for line, other in lines if other == turn) for _, turn in lines}
    main = max(turns, key=lambda turn: turns[turn], default=0)
    return [line for line, turn in lines if turn == main]


def _lines_of(runs: list[tuple[str, Line, int]]) -> Iterator[tuple[Line, int]]:
    """Yield lines, each with its direction; the longest run says where a line stands and how it looks."""
    line: list[tuple[str, Line, int]] = []
    for text, place, turn in runs:
        head, *rest = text.split("\n")
        line.append((head, place, turn))
        for piece in rest:
            yield from _line_of(line)
            line = [(piece, place, turn)]
    yield from _line_of(line)


def _line_of(runs: list[tuple[str, Line, int]]) -> Iterator[tuple[Line, int]]:
    inked = [run for run in runs if run[0].strip()]
    if not inked:
        return
    sizes = [(len(text.strip()), place) for text, place, _ in inked]
    most = MOST_OF_LINE * sum(size for size, _ in sizes)
    _, main, turn = max(inked, key=lambda run: len(run[0].strip()))
    yield (
        Line(
            text="".join(text for text, *_ in runs).strip(),
            x=inked[0][1].x,
            y=main.y,
            size=main.size,
            mono=sum(size for size, place in sizes if place.mono) >= most,
            bold=sum(size for size, place in sizes if place.bold) >= most,
        ),
        turn,
    )


def _place(text: str, matrix: list[float], font: Any, size: float) -> tuple[Line, int]:
    """Return where a run of text stands on the page once its lines are turned upright, and by how many quarters."""
    a, b, c, d, x, y = (value if math.isfinite(value) else 0.0 for value in matrix)
    turn = round(math.degrees(math.atan2(b, a)) / 90) % 4
    upright = [(x, y), (y, -x), (-x, -y), (-y, x)][turn]
    name = str(font.get("/BaseFont", "")) if isinstance(font, dict) else ""
    height = size * math.hypot(c, d)
    points = min(height, 10_000.0) if math.isfinite(height) else 0.0
    mono, bold = bool(_MONO.search(name)), bool(_BOLD.search(name))
    return Line(text=text, x=upright[0], y=upright[1], size=abs(points), mono=mono, bold=bold), turn


def _multiply(inner: list[float], outer: list[float]) -> list[float]:
    """Return the product of two transformations, each as the six numbers PDF writes it with."""
    a, b, c, d, x, y = inner
    e, f, g, h, left, up = outer
    return [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h, x * e + y * g + left, x * f + y * h + up]


# --- DOCX


def parse_docx(data: bytes) -> Parsed | Refused:
    """Return the text of a Word document: what its styles call a heading, a list or code becomes one."""
    try:
        if data.startswith(_OLE_MAGIC):
            return _refuse_ole(data)
        return _read_docx(_Archive(data, "broken_docx"))
    except _Refusal as refusal:
        return refusal.refused
    except RecursionError:
        return Refused("too_deep", "tables or text boxes nested without end")


def _refuse_ole(data: bytes) -> Refused:
    if _ENCRYPTED_OLE in data:
        return Refused("encrypted", "needs a password")
    return Refused("broken_docx", "this is an older Word file (.doc); save it as .docx")


def _read_docx(archive: "_Archive") -> Parsed | Refused:
    main = _main_part(archive)
    folder = posixpath.dirname(main)
    styles, numbering = (
        archive.xml(name) if (name := posixpath.join(folder, part)) in archive.names else None
        for part in ("styles.xml", "numbering.xml")
    )
    text, title = wordprocessing.to_markdown(archive.xml(main), styles, numbering)
    if not text:
        return Refused("empty", "no paragraph with text")
    return Parsed(text=text, title=title or _core_title(archive) or blocks.title_of(text))


def _main_part(archive: "_Archive") -> str:
    """Return the name of the part the package says is the document."""
    for link in archive.xml("_rels/.rels"):
        if str(link.get("Type", "")).endswith("/officeDocument"):
            return posixpath.normpath(str(link.get("Target", "")).lstrip("/"))
    raise _Refusal("broken_docx", "no part is called the document")


def _core_title(archive: "_Archive") -> str:
    core = "docProps/core.xml"
    return _words_of(archive.xml(core), "title") if core in archive.names else ""


# --- EPUB


def parse_epub(data: bytes) -> Parsed | Refused:
    """Return the chapters of a book in the order of its spine; `licence` is what it says of its rights."""
    try:
        return _read_epub(_Archive(data, "broken_epub"))
    except _Refusal as refusal:
        return refusal.refused
    except RecursionError:
        return Refused("too_deep", "a chapter with elements nested without end")


def _read_epub(book: "_Archive") -> Parsed | Refused:
    package = _package_name(book)
    root = book.xml(package)
    spine, contents = _spine(root, package)
    if locked := _encrypted_names(book) & {*spine}:
        raise _Refusal("encrypted", f"{len(locked)} of {len(spine)} chapters are locked (DRM)")
    names = {name: title for part in contents if part in book.names for name, title in _chapter_names(book, part)}
    chapters = (_chapter(book, name, names.get(name, "")) for name in spine)
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    if not text:
        return Refused("empty", f"{len(spine)} chapters, none with text")
    title = _words_of(root, "title") or blocks.title_of(text)
    return Parsed(text=text, title=title, licence=excerpt(_words_of(root, "rights"), 200))


def _package_name(book: "_Archive") -> str:
    for element in book.xml("META-INF/container.xml").iter("{*}rootfile"):
        return str(element.get("full-path", ""))
    raise _Refusal("broken_epub", "META-INF/container.xml names no package")


def _spine(package: Element, name: str) -> tuple[list[str], list[str]]:
    """Return the names of the chapters in reading order, and of the tables of contents, which are no chapters."""
    folder = posixpath.dirname(name)
    items = {item.get("id"): item for item in package.iter("{*}item")}
    shown = [item for ref in package.iter("{*}itemref") if (item := items.get(ref.get("idref"))) is not None]
    contents = [item for item in items.values() if _is_contents(item)]
    chapters = [item for item in shown if "html" in str(item.get("media-type", "")) and not _is_contents(item)]
    return [_member(folder, item.get("href")) for item in chapters], [
        _member(folder, item.get("href")) for item in contents
    ]


def _is_contents(item: Element) -> bool:
    return "nav" in str(item.get("properties", "")).split() or item.get("media-type") == "application/x-dtbncx+xml"


def _member(folder: str, href: str | None) -> str:
    """Return the name inside the archive that a reference in one of its folders means."""
    return posixpath.normpath(posixpath.join(folder, unquote((href or "").partition("#")[0])))


def _encrypted_names(book: "_Archive") -> set[str]:
    """Return the members that are locked; fonts that are merely scrambled are among them, chapters must not be."""
    listing = "META-INF/encryption.xml"
    if listing not in book.names:
        return set()
    return {_member("", item.get("URI")) for item in book.xml(listing).iter("{*}CipherReference")}


def _chapter_names(book: "_Archive", contents: str) -> Iterator[tuple[str, str]]:
    """Yield each chapter with what the table of contents calls it; the first name of a chapter is its own."""
    folder = posixpath.dirname(contents)
    root = book.page(contents)
    links = [(link.get("href"), _text(link)) for link in root.iter("{*}a", "a")]
    for point in root.iter("{*}navPoint"):
        source = next(point.iter("{*}content"), None)
        links.append((source.get("src") if source is not None else None, _text(next(point.iter("{*}navLabel"), None))))
    yield from ((_member(folder, href), title) for href, title in reversed(links) if href and title)


def _chapter(book: "_Archive", name: str, title: str) -> str:
    """Return a chapter as Markdown, under its name in the table of contents where it has no heading of its own."""
    text = xhtml.to_markdown(book.page(name))
    if not text or not title or blocks.title_of(text):
        return text
    return f"{blocks.heading(1, title)}\n\n{text}"


# --- what both zipped formats need


class _Archive:
    """A zipped file of a stranger: whatever is wrong with it refuses the document by name."""

    def __init__(self, data: bytes, broken: str) -> None:
        self._broken = broken
        self._left = MAX_FILE_BYTES
        try:
            self._zip = zipfile.ZipFile(BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise _Refusal(broken, f"no zipped file: {excerpt(str(error))}") from error
        self.names = {*self._zip.namelist()}

    def read(self, name: str) -> bytes:
        """Return a member, but no more of it than a document can need."""
        most = min(MAX_PART_BYTES, self._left)
        try:
            member = self._zip.getinfo(name)
            self._check(member)
            with self._zip.open(member) as stream:
                data = stream.read(most + 1)
        except KeyError as error:
            raise _Refusal(self._broken, f"{name} is missing") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise _Refusal(self._broken, f"{name}: {excerpt(str(error))}") from error
        self._left -= len(data)
        if len(data) > most:
            raise _Refusal("zip_bomb", f"{name} unpacks to more than {most / 1e6:.0f} MB")
        return data

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & 1:
            raise _Refusal("encrypted", f"{member.filename} needs a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refusal(self._broken, f"{member.filename} is packed in a way the format does not allow")

    def xml(self, name: str) -> Element:
        """Return the root of a part; nothing outside the file is loaded, and no entity is expanded."""
        etree = borrow("lxml.etree")
        try:
            return etree.fromstring(self.read(name), _xml_parser())
        except etree.XMLSyntaxError as error:
            raise self._unreadable(name, error) from error

    def page(self, name: str) -> Element:
        """Return the root of an XHTML page; one that is no XML, or nests too deep for it, is read as browsers do."""
        etree, html = borrow("lxml.etree"), borrow("lxml.html")
        data = self.read(name)
        try:
            return etree.fromstring(data, _xml_parser())
        except etree.XMLSyntaxError:
            parser = html.HTMLParser(encoding=_encoding(data), huge_tree=True)
        try:
            return html.document_fromstring(data, parser=parser)
        except (etree.LxmlError, ValueError) as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: Exception) -> _Refusal:
        reason = "too_deep" if "Excessive depth" in str(error) else self._broken
        return _Refusal(reason, f"{name}: {excerpt(str(error))}")


def _xml_parser() -> Any:
    return borrow("lxml.etree").XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True
    )


def _encoding(page: bytes) -> str:
    """Return UTF-16 where its mark stands at the top, else UTF-8: a book may be in no other encoding."""
    return "utf-16" if page[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"


def _words_of(root: Element, name: str) -> str:
    """Return the words of the first element of a name, whatever its namespace."""
    return _text(next(root.iter("{*}" + name), None))


def _text(element: Element | None) -> str:
    return "" if element is None else blocks.one_line("".join(element.itertext()))
