"""Cut documents into passages: the text under one heading, its sub-headings included (Li et al. 2023, section 2.1).

Takes: Documents in Markdown, or plain text.  Gives: Passages that do not overlap, and a Reject for each stretch
that is none.  Never: changes a character of the text, opens a file or calls a model.

The rule: a section that fits the window whole, sub-sections included, is one passage and is not looked into; a
longer one is taken apart into its lead text and its sub-sections, each judged alone. What stands before the first
heading belongs to the document's title.

Two kinds of heading are told apart. Markdown headings (`# one`, or a line underlined) win. A text without any may
still have plain ones, a short line alone between blank lines: numbered (`2.1 Tools`) or in capitals. Capitals are
the only mark such a heading has, so there they are written in sentence case; in a Markdown heading they stay, for
`clean` to judge.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from askback.options import PassageOptions
from askback.records import Document, Passage, Reject, content_id, excerpt

MAX_HEADING_CHARS = 300
"""A longer line is a paragraph, whatever mark it begins with."""
MAX_PLAIN_HEADING_CHARS = 80
MIN_CAPITALS = 4

ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
UNDERLINE = re.compile(r" {0,3}(={2,}|-{2,})[ \t]*$")
NOT_A_TITLE = re.compile(r"[ \t]*(?:[-*+][ \t]|[>|<]|#{1,6}(?:[ \t]|$))")
NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,4})(\.?)[ \t]+(.+)$")
INDENTED = ("    ", "\t")

FENCE = re.compile(r"[ \t]*(?:(`{3,})[^`]*|(~{3,}).*)$")
RAW_OPEN = re.compile(r" {0,3}<(pre|table|script|style)\b", re.IGNORECASE)
RAW_CLOSE = re.compile(r"</(pre|table|script|style)\b", re.IGNORECASE)

MARKUP = [
    (re.compile(r"(?:^|[ \t])#+[ \t]*$"), ""),
    (re.compile(r"\{#[^{}]*\}[ \t]*$"), ""),
    (re.compile(r"<!--.*?-->|</?(?:a|abbr|b|br|code|em|font|i|img|kbd|small|span|strong|sub|sup|u)\b[^<>]*>"), ""),
    *[(re.compile(r"!?\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])"), r"\1")] * 2,  # an image in a link
    (re.compile(r"<((?:https?|mailto):[^<>\s]*)>"), r"\1"),
    (re.compile(r"(?<![\\`])(\*{1,3})(?=\S)(.+?)(?<=[^\s\\])\1(?!`)"), r"\2"),  # marks at the rim of code are code
    (re.compile(r"(?<![\w`])(_{1,3})(?=\S)(.+?)(?<=\S)\1(?![\w`])"), r"\2"),
    (re.compile(r"(`+)(.+?)\1"), r"\2"),
    (re.compile(r"\\([!-/:-@\[-`{-~])"), r"\1"),
]
"""What a reader does not see of a heading, in the order in which it is taken away."""


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    stop: int
    text: str
    literal: bool = False
    """Inside a fenced code block or a raw HTML block, where nothing is a heading and nothing is cut."""

    @property
    def blank(self) -> bool:
        return not self.text.strip()


@dataclass(frozen=True, slots=True)
class _Heading:
    level: int
    text: str
    start: int = 0
    stop: int = 0
    """Where its section begins."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stretch of text and the reason, if any, why it is no passage."""

    heading: str
    start: int
    stop: int
    reason: str = ""


def segment(documents: Iterable[Document], options: PassageOptions) -> Iterator[Passage | Reject]:
    """Yield each document's passages and rejects in reading order, at least one of them per document.

    Reasons: `too_short`, `too_long` (a section without parts, or a paragraph), `empty_heading` (a heading mark with
    nothing behind it; a text that has no heading at all keeps an empty one), `no_heading`, `empty`.
    """
    for document in documents:
        for cut in _cut_document(document, options):
            yield _outcome(document, cut)


def _cut_document(document: Document, options: PassageOptions) -> Iterator[_Cut]:
    text = document.text
    lines = list(_read_lines(text))
    markdown = list(_markdown_headings(lines))
    headings = markdown or list(_plain_headings(lines))
    title = document.title if markdown else _sentence_case(document.title)
    start, stop = _strip(text, 0, len(text))
    if start == stop:
        yield _Cut(title, start, stop, "empty")
    elif headings:
        yield from _cut_lead(text, _Heading(0, title), headings[0].start, options)
        yield from _cut_sections(text, headings, len(text), options)
    elif options.whole_without_headings:
        yield from _cut_paragraphs(text, lines, title, options)
    else:
        yield _Cut(title, start, stop, "no_heading")


def _outcome(document: Document, cut: _Cut) -> Passage | Reject:
    if cut.reason:
        detail = f"{excerpt(cut.heading, 80) or '(no heading)'}: {cut.stop - cut.start} characters"
        return Reject(id=f"{document.id}:{cut.start}", reason=cut.reason, detail=detail, source=document.source)
    text = document.text[cut.start : cut.stop]
    return Passage(
        id=content_id(document.id, str(cut.start), text),
        document=document.id,
        heading=cut.heading,
        text=text,
        start=cut.start,
        end=cut.stop,
        source=document.source,
        licence=document.licence,
        genre=document.genre,
        label=document.label,
    )


# --- with headings: by section


def _cut_sections(text: str, headings: Sequence[_Heading], end: int, options: PassageOptions) -> Iterator[_Cut]:
    """Cut a run of headings; each owns the deeper ones that follow it."""
    first = 0
    while first < len(headings):
        after = first + 1
        while after < len(headings) and headings[after].level > headings[first].level:
            after += 1
        stop = headings[after].start if after < len(headings) else end
        yield from _cut_section(text, headings[first:after], stop, options)
        first = after


def _cut_section(text: str, headings: Sequence[_Heading], end: int, options: PassageOptions) -> Iterator[_Cut]:
    """Cut the section of the first heading; the others are inside it."""
    own, *inner = headings
    start, stop = _strip(text, own.stop, end)
    if inner and stop - start > options.max_chars:
        yield from _cut_lead(text, own, inner[0].start, options)
        yield from _cut_sections(text, inner, end, options)
    else:
        nameless = "empty_heading" if own.level and not own.text else ""
        yield _Cut(own.text, start, stop, _misfit(stop - start, options) or nameless)


def _cut_lead(text: str, own: _Heading, end: int, options: PassageOptions) -> Iterator[_Cut]:
    """Cut the text between a heading and the next one inside it, if there is any."""
    if text[own.stop : end].strip():
        yield from _cut_section(text, [own], end, options)


# --- without headings: by paragraph


def _cut_paragraphs(text: str, lines: Sequence[_Line], title: str, options: PassageOptions) -> Iterator[_Cut]:
    """Fill pieces with whole paragraphs until the next would not fit."""
    blocks = list(_blocks(text, lines))
    if len(blocks) == 1:
        blocks = list(_line_blocks(text, lines))  # without a single blank line, a line is a paragraph
    piece: tuple[int, int] | None = None
    for start, stop in blocks:
        if piece and stop - piece[0] > options.max_chars:
            yield _piece(piece, title, options)
            piece = None
        piece = (piece[0] if piece else start, stop)
    if piece:
        yield _piece(piece, title, options)


def _piece(span: tuple[int, int], title: str, options: PassageOptions) -> _Cut:
    return _Cut(title, *span, _misfit(span[1] - span[0], options))


def _blocks(text: str, lines: Iterable[_Line]) -> Iterator[tuple[int, int]]:
    """Yield the spans between blank lines; a blank line inside a literal block parts nothing."""
    start = stop = -1
    for line in lines:
        if not line.blank or line.literal:
            start, stop = (line.start if start < 0 else start), line.stop
        elif start >= 0:
            yield _strip(text, start, stop)
            start = -1
    if start >= 0:
        yield _strip(text, start, stop)


def _line_blocks(text: str, lines: Iterable[_Line]) -> Iterator[tuple[int, int]]:
    """Yield the spans of the lines; those of a literal block or a table stay together."""

    def whole(line: _Line) -> str | int:
        if line.literal:
            return "literal"
        return "table" if line.text.lstrip().startswith("|") else line.start

    for _, group in groupby(lines, key=whole):
        together = list(group)
        start, stop = _strip(text, together[0].start, together[-1].stop)
        if start < stop:
            yield start, stop


def _misfit(length: int, options: PassageOptions) -> str:
    if length < options.min_chars:
        return "too_short"
    return "too_long" if length > options.max_chars else ""


def _strip(text: str, start: int, stop: int) -> tuple[int, int]:
    """Move both ends of a span inward past white space; an empty one stays where it starts."""
    piece = text[start:stop]
    solid = piece.strip()
    if not solid:
        return start, start
    start += len(piece) - len(piece.lstrip())
    return start, start + len(solid)


# --- lines and headings


def _read_lines(text: str) -> Iterator[_Line]:
    closed = {match[1].lower(): match.start() for match in RAW_CLOSE.finditer(text)}  # the last of each kind
    start, until = 0, ""
    for raw in text.split("\n"):
        stop = min(start + len(raw) + 1, len(text))
        line = raw.removesuffix("\r")
        if until:
            yield _Line(start, stop, line, literal=True)
            until = "" if _closes(line, until) else until
        else:
            until = _opens(line, start, closed)
            yield _Line(start, stop, line, literal=bool(until))
        start = stop


def _opens(line: str, start: int, closed: dict[str, int]) -> str:
    """Return what will end the literal block that this line opens: a fence, an HTML end tag, or "" for none.

    A fence that is never closed runs to the end, as in CommonMark; a tag that is never closed is only mentioned.
    """
    if fence := FENCE.match(line):
        return fence[1] or fence[2]
    tag = RAW_OPEN.match(line)
    if tag and closed.get(tag[1].lower(), -1) >= start + len(line):
        until = f"</{tag[1].lower()}"
        return "" if until in line.lower() else until
    return ""


def _closes(line: str, until: str) -> bool:
    if until.startswith("<"):
        return until in line.lower()
    bare = line.strip()
    return len(bare) >= len(until) and not bare.strip(until[0])


def _markdown_headings(lines: Sequence[_Line]) -> Iterator[_Heading]:
    for at, line in enumerate(lines):
        if line.literal or len(line.text) > MAX_HEADING_CHARS:
            continue
        if mark := ATX.match(line.text):
            yield _Heading(len(mark[1]), _visible(mark[2] or ""), line.start, line.stop)
        elif (mark := UNDERLINE.match(line.text)) and _is_title(lines, at - 1):
            title = lines[at - 1]
            yield _Heading(1 if mark[1][0] == "=" else 2, _visible(title.text), title.start, line.stop)


def _is_title(lines: Sequence[_Line], at: int) -> bool:
    """Tell whether a line can be the title above an underline: one line of words that begins its paragraph.

    CommonMark takes a whole paragraph; but a rule drawn under a paragraph is nobody's heading.
    """
    if at < 0 or lines[at].literal or lines[at].text.startswith(INDENTED) or len(lines[at].text) > MAX_HEADING_CHARS:
        return False
    before = lines[at - 1] if at else _Line(0, 0, "")
    begins = before.blank or before.literal or bool(ATX.match(before.text)) or before.text.startswith("==")
    return begins and any(map(str.isalnum, lines[at].text)) and not NOT_A_TITLE.match(lines[at].text)


def _plain_headings(lines: Sequence[_Line]) -> Iterator[_Heading]:
    """Yield lines that stand alone and look like headings; numbered neighbours without text are a list."""
    edge = _Line(0, 0, "")
    found: list[_Heading | None] = []
    for before, line, after in zip([edge, *lines], lines, [*lines[1:], edge], strict=False):
        if not line.blank:
            alone = before.blank and after.blank and not line.literal
            found.append(_plain_heading(line) if alone else None)
    for prior, heading, later in zip([None, *found], found, [*found[1:], None], strict=False):
        if heading and not (heading.level > 1 and heading.level in {other.level for other in (prior, later) if other}):
            yield heading


def _plain_heading(line: _Line) -> _Heading | None:
    text = line.text.strip()
    if len(text) > MAX_PLAIN_HEADING_CHARS or line.text.startswith(INDENTED):
        return None
    heading = _Heading(1, _sentence_case(text), line.start, line.stop)
    number = NUMBERED.match(text)
    if number and (number[2] or "." in number[1]):
        title = number[3]
        is_sentence = title[0].islower() or not title[0].isalnum() or title.endswith(tuple(".!?:;,。！？：；，"))
        return None if is_sentence else replace(heading, level=2 + number[1].count("."), text=_sentence_case(title))
    return heading if _is_capital(text) else None


def _is_capital(text: str) -> bool:
    return text.isupper() and sum(map(str.isalpha, text)) >= MIN_CAPITALS


def _sentence_case(text: str) -> str:
    return text.capitalize() if _is_capital(text) else text


def _visible(heading: str) -> str:
    """Return a heading as it is read: without emphasis, code marks, anchors and link targets."""
    for pattern, shown in MARKUP:
        heading = pattern.sub(shown, heading)
    return " ".join(html.unescape(heading).split())
