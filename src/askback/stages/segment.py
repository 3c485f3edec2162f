"""Cut documents into passages: the text under one heading, its sub-headings included (Li et al. 2023, section 2.1).

Takes: Documents in Markdown, or plain text.  Gives: Passages that do not overlap, and a Reject for each stretch
that is none.  Never: changes a character of the text, opens a file or calls a model.

The rule: a section that fits the window whole, sub-sections included, is one passage and is not looked into; a
longer one is taken apart into its lead text and its sub-sections, each judged alone. What stands before the first
heading belongs to the document's title.

A section that is too long and has no sub-sections is rejected, as in the paper: its heading asks for the whole of
it, and half an answer is none. A text without headings promises nothing of the kind and is cut at its paragraphs.
So is a section under the only heading there is: that one names the text and divides nothing, and whether a page
repeats its title above itself should not decide whether it is used.

Where a text is cut at its paragraphs, the cut never falls into a fenced or raw block or a table; a list, or a run of
indented code, is cut between its items or stretches only where it is longer than the window.

Two kinds of heading are told apart. Markdown headings (`# one`, or a line underlined) win. A text without any may
still have plain ones, a short line alone between blank lines: numbered (`2.1 Tools`) or in capitals. Capitals are
the only mark such a heading has, so there they are written in sentence case; in a Markdown heading they stay, for
`clean` to judge.
"""

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from askback.errors import ConfigError
from askback.options import PassageOptions
from askback.records import Document, Passage, Reject, content_id, excerpt

MAX_HEADING_CHARS = 300
"""A longer line is a paragraph, whatever mark it begins with."""
MAX_PLAIN_HEADING_CHARS = 80
MIN_CAPITALS = 4
NO_HEADING = "(no heading)"

ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
UNDERLINE = re.compile(r" {0,3}(={2,}|-{2,})[ \t]*$")
NOT_A_TITLE = re.compile(r"[ \t]*(?:[-*+][ \t]|[>|<]|#{1,6}(?:[ \t]|$))")
NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,4})(\.?)[ \t]+(.+)$")
ROMAN = re.compile(r"\b[ivx]+\b")
INDENTED = ("    ", "\t")

FENCE = re.compile(r"[ \t]*(?:(`{3,})[^`]*|(~{3,}).*)$")
RAW_OPEN = re.compile(r"[ \t]*(?:<[^<>]*>[ \t]*)*?<(pre|table|script|style)\b", re.IGNORECASE)
RAW_CLOSE = re.compile(r"</(pre|table|script|style)\b", re.IGNORECASE)
ITEM = re.compile(r"[ \t]*(?:([-*+•‣◦▪·–])|\(?\d{1,3}[.)]|\(?[a-z]\))[ \t]+(?=\S)")
MARKDOWN_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]+(?=\S)")
EDGED_ROW = re.compile(r"[ \t]*(?:\||\+[-=])")
DELIMITER_ROW = re.compile(r"[ \t]*(?:\|[ \t]*)?:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+(?:\|[ \t]*)?$")

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


CountTokens = Callable[[str], int]


class _Span(NamedTuple):
    """Characters of a document's text."""

    start: int
    stop: int

    @property
    def chars(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    stop: int
    text: str
    literal: bool = False
    """Inside a fenced code block or a raw HTML block, where nothing is a heading and nothing is cut."""
    nested: bool = False
    """Indented as the inside of a list item: what looks like a heading there is no section of the document."""

    @property
    def blank(self) -> bool:
        return not self.text.strip()


EDGE = _Line(0, 0, "")
"""What stands before the first line and behind the last."""


@dataclass(frozen=True, slots=True)
class _Heading:
    level: int
    text: str
    start: int = 0
    stop: int = 0
    """Where its section begins."""
    bare: int = 0
    """The number of a plain `2 Method`, which is believed where a 1 or a 3 is there too; 0 for any other."""


class _Fit(NamedTuple):
    """Why a stretch is no passage, "" if it is one, and its tokens, 0 where nobody had to count them."""

    reason: str
    tokens: int = 0


class _Cut(NamedTuple):
    """A stretch of text and what was found about its length, or another reason why it is no passage."""

    heading: str
    span: _Span
    fit: _Fit


@dataclass(frozen=True, slots=True)
class _Window:
    """The length a passage must have in characters and, where they are asked for, in tokens."""

    options: PassageOptions
    count_tokens: CountTokens | None

    def judge(self, text: str, span: _Span) -> _Fit:
        """Tell whether a stretch fits. Tokens cost time: they are counted only where the characters hold."""
        options = self.options
        if span.chars < options.min_chars:
            return _Fit("too_short")
        if span.chars > options.max_chars:
            return _Fit("too_long")
        if self.count_tokens is None:
            return _Fit("")
        tokens = self.count_tokens(text[span.start : span.stop])
        too_long = options.max_tokens and tokens > options.max_tokens
        return _Fit("too_short" if tokens < options.min_tokens else "too_long" if too_long else "", tokens)

    def weigh(self, text: str, span: _Span) -> int:
        """Return the tokens of a stretch, one at least, where there is an upper bound to them, else 0."""
        if self.count_tokens is None or not self.options.max_tokens or span.chars > self.options.max_chars:
            return 0
        return max(1, self.count_tokens(text[span.start : span.stop]))

    def holds(self, chars: int, tokens: int) -> bool:
        """Tell whether so much is not too long."""
        return chars <= self.options.max_chars and (not self.options.max_tokens or tokens <= self.options.max_tokens)


def segment(
    documents: Iterable[Document], options: PassageOptions, count_tokens: CountTokens | None = None
) -> Iterator[Passage | Reject]:
    """Yield each document's passages and rejects in reading order, at least one of them per document.

    Reasons: `too_short`, `too_long` (a section without parts, or a paragraph), `empty_heading` (a heading mark with
    nothing behind it; a text that has no heading at all keeps an empty one), `no_heading`, `empty`.

    Raises:
        ConfigError: a bound in tokens is set, and nothing is given that counts them.
    """
    window = _open_window(options, count_tokens)
    return (_outcome(document, cut) for document in documents for cut in _cut_document(document, window))


def thin(outcomes: Iterable[Passage | Reject], options: PassageOptions) -> Iterator[Passage | Reject]:
    """Keep at most `most_of_document` passages of each document, for any stage whose passages come by document.

    Which ones is decided by the hash in their ids, so that it is not always the head of a document and never depends
    on the order of reading. To be used behind `clean`: what would be dropped anyway takes nobody's place.

    Reason: `beyond_most`.
    """
    waiting: list[Passage] = []
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        if waiting and waiting[0].document != outcome.document:
            yield from _choose(waiting, options.most_of_document)
            waiting = []
        waiting.append(outcome)
    yield from _choose(waiting, options.most_of_document)


def size_of(reject: Reject) -> tuple[str, int]:
    """Return the heading, shortened, and the number of characters that a Reject of `segment` was written with."""
    heading, _, sizes = reject.detail.rpartition(": ")
    return heading, int(sizes.split()[0])


def _open_window(options: PassageOptions, count_tokens: CountTokens | None) -> _Window:
    asked = [name for name in ("min_tokens", "max_tokens") if getattr(options, name)]
    if asked and count_tokens is None:
        raise ConfigError(
            f"passages.{asked[0]} is set, but nothing here counts tokens: give `count_tokens`, the length of a text in "
            "the base's tokenizer, or set min_tokens and max_tokens to 0 and bound the characters"
        )
    return _Window(options, count_tokens if asked else None)


def _choose(passages: Sequence[Passage], most: int) -> Iterator[Passage | Reject]:
    chosen = {passage.id for passage in sorted(passages, key=lambda passage: passage.id)[: most or None]}
    for passage in passages:
        if passage.id in chosen:
            yield passage
        else:
            detail = f"{excerpt(passage.heading, 80) or NO_HEADING}: one of {len(passages)} of its document"
            yield Reject(id=passage.id, reason="beyond_most", detail=detail, source=passage.source)


def _cut_document(document: Document, window: _Window) -> Iterator[_Cut]:
    text = document.text
    lines = list(_read_lines(text))
    markdown = list(_markdown_headings(lines))
    headings = markdown or _plain_structure(text, lines, window)
    title = document.title if markdown else _sentence_case(document.title)
    whole = _strip(text, 0, len(text))
    if not whole.chars:
        yield _Cut(title, whole, _Fit("empty"))
    elif len(headings) == 1 and window.options.whole_without_headings:
        [only] = headings
        if text[: only.start].strip():
            yield from _cut_side(text, lines, _Heading(0, title), only.start, window)
        yield from _cut_side(text, lines, only, len(text), window)
    elif headings:
        yield from _cut_lead(text, _Heading(0, title), headings[0].start, window)
        yield from _cut_sections(text, headings, len(text), window)
    elif window.options.whole_without_headings:
        yield from _cut_paragraphs(text, lines, title, window)
    else:
        yield _Cut(title, whole, _Fit("no_heading"))


def _outcome(document: Document, cut: _Cut) -> Passage | Reject:
    span, (reason, tokens) = cut.span, cut.fit
    if reason:
        sizes = f"{span.chars} characters" + (f", {tokens} tokens" if tokens else "")
        detail = f"{excerpt(cut.heading, 80) or NO_HEADING}: {sizes}"
        return Reject(id=f"{document.id}:{span.start}", reason=reason, detail=detail, source=document.source)
    text = document.text[span.start : span.stop]
    return Passage(
        id=content_id(document.id, str(span.start), text),
        document=document.id,
        heading=cut.heading,
        text=text,
        start=span.start,
        end=span.stop,
        source=document.source,
        licence=document.licence,
        genre=document.genre,
        label=document.label,
    )


# --- with headings: by section


def _cut_side(text: str, lines: Sequence[_Line], own: _Heading, end: int, window: _Window) -> Iterator[_Cut]:
    """Cut the text before or behind the only heading there is: at its paragraphs, where it is too long."""
    [cut] = _cut_section(text, [own], end, window)
    if cut.fit.reason == "too_long" and (own.text or not own.level):
        inside = [line for line in lines if own.stop <= line.start and line.stop <= end]
        yield from _cut_paragraphs(text, inside, own.text, window)
    else:
        yield cut


def _cut_sections(text: str, headings: Sequence[_Heading], end: int, window: _Window) -> Iterator[_Cut]:
    """Cut a run of headings; each owns the deeper ones that follow it."""
    first = 0
    while first < len(headings):
        after = first + 1
        while after < len(headings) and headings[after].level > headings[first].level:
            after += 1
        stop = headings[after].start if after < len(headings) else end
        yield from _cut_section(text, headings[first:after], stop, window)
        first = after


def _cut_section(text: str, headings: Sequence[_Heading], end: int, window: _Window) -> Iterator[_Cut]:
    """Cut the section of the first heading; the others are inside it."""
    own, *inner = headings
    span = _strip(text, own.stop, end)
    fit = window.judge(text, span)
    if inner and fit.reason == "too_long":
        yield from _cut_lead(text, own, inner[0].start, window)
        yield from _cut_sections(text, inner, end, window)
    elif own.level and not own.text and not fit.reason:
        yield _Cut(own.text, span, _Fit("empty_heading"))
    else:
        yield _Cut(own.text, span, fit)


def _cut_lead(text: str, own: _Heading, end: int, window: _Window) -> Iterator[_Cut]:
    """Cut the text between a heading and the next one inside it, if there is any."""
    if text[own.stop : end].strip():
        yield from _cut_section(text, [own], end, window)


# --- without headings: by paragraph


@dataclass(slots=True)
class _Block:
    """What stays whole where the window has room for it, and the parts it is cut into where there is none."""

    parts: list[tuple[int, int]] = field(default_factory=list)
    mark: str = ""
    """What the list's own items begin with, "1" for any number; "" where there is no list."""
    indent: int = 0
    """Of the list's own items, as against those inside an item."""
    is_code: bool = True
    """Every line so far is indented like code."""

    def takes(self, line: _Line) -> bool:
        """Tell whether a chunk that begins with this line goes on with the block: its list, or its indented code."""
        if self.mark:
            return _is_indented(line) or _item_mark(line) == self.mark
        return self.is_code and line.text.startswith(INDENTED) and not line.literal

    def add(self, chunk: Sequence[_Line]) -> None:
        """Take a chunk's lines into the parts, or into new ones."""
        for at, line in enumerate(chunk):
            if self._begins_part(line, chunk[at - 1] if at else None):
                self.parts.append((line.start, line.stop))
            else:
                self.parts[-1] = (self.parts[-1][0], line.stop)
            if not self.mark and (mark := _item_mark(line)):
                self.mark, self.indent = mark, _indent(line.text)
            self.is_code = self.is_code and line.text.startswith(INDENTED) and not line.literal

    def _begins_part(self, line: _Line, before: _Line | None) -> bool:
        if not self.parts:
            return True
        if self.mark and _item_mark(line):
            return _indent(line.text) <= self.indent
        if self.mark and _is_indented(line):
            return False
        return before is None or (before.literal and not line.literal)


class _Unit(NamedTuple):
    """What is put into pieces whole: a block, or a part of one that is too long."""

    span: _Span
    tokens: int


def _cut_paragraphs(text: str, lines: Sequence[_Line], title: str, window: _Window) -> Iterator[_Cut]:
    """Fill pieces with whole units until the next would not fit.

    The tokens of a piece are first taken for the sum of its units', so that each is counted once; what is too long by
    the real count gives back units in proportion.
    """
    units = list(_units(text, lines, window))
    first = 0
    while first < len(units):
        size = _count_fitting(units, first, window)
        piece, fit = _judge_units(text, units[first : first + size], window)
        while fit.reason == "too_long" and size > 1:
            size = max(1, min(size - 1, size * window.options.max_tokens // fit.tokens))
            piece, fit = _judge_units(text, units[first : first + size], window)
        yield _Cut(title, piece, fit)
        first += size


def _count_fitting(units: Sequence[_Unit], first: int, window: _Window) -> int:
    """Return how many units from the first on are not too long together, one at least."""
    after, tokens = first + 1, units[first].tokens
    while after < len(units):
        tokens += units[after].tokens
        if not window.holds(units[after].span.stop - units[first].span.start, tokens):
            break
        after += 1
    return after - first


def _judge_units(text: str, units: Sequence[_Unit], window: _Window) -> tuple[_Span, _Fit]:
    piece = _Span(units[0].span.start, units[-1].span.stop)
    return piece, window.judge(text, piece)


def _units(text: str, lines: Sequence[_Line], window: _Window) -> Iterator[_Unit]:
    for block in _blocks(lines):
        whole = _strip(text, block.parts[0][0], block.parts[-1][1])
        tokens = window.weigh(text, whole)
        if len(block.parts) == 1 or window.holds(whole.chars, tokens):
            yield _Unit(whole, tokens)
        else:
            parts = [_strip(text, *part) for part in block.parts]
            yield from (_Unit(part, window.weigh(text, part)) for part in parts)


def _blocks(lines: Sequence[_Line]) -> Iterator[_Block]:
    """Yield what stands between blank lines; lists and indented code go on behind a blank line."""
    marked = list(_mark_tables(lines))
    chunks = list(_chunks(marked))
    if len(chunks) == 1:
        chunks = list(_line_chunks(marked))  # without a single blank line, a line is a paragraph
    block = _Block()
    for chunk in chunks:
        if block.parts and not block.takes(chunk[0]):
            yield block
            block = _Block()
        block.add(chunk)
    if block.parts:
        yield block


def _chunks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Yield the lines between blank lines; a blank line inside a literal block parts nothing."""
    for is_gap, group in groupby(lines, key=lambda line: line.blank and not line.literal):
        if not is_gap:
            yield list(group)


def _line_chunks(lines: Iterable[_Line]) -> Iterator[list[_Line]]:
    """Yield each line by itself, but those of a literal block together."""
    solid = (line for line in lines if line.literal or not line.blank)
    for _, group in groupby(solid, key=lambda line: -1 if line.literal else line.start):
        yield list(group)


def _mark_tables(lines: Sequence[_Line]) -> Iterator[_Line]:
    """Yield the lines, those of tables literal: rows that begin with a bar, or stand around dashes between bars."""
    is_row = False
    for line, after in zip(lines, [*lines[1:], EDGE], strict=True):
        is_row = not line.literal and (
            EDGED_ROW.match(line.text) is not None
            or ("|" in line.text and (is_row or DELIMITER_ROW.match(after.text) is not None))
        )
        yield replace(line, literal=True) if is_row else line


def _item_mark(line: _Line) -> str:
    """Return the mark of the list item that a line begins, "1" for any number or letter; "" if it begins none."""
    item = None if line.literal else ITEM.match(line.text)
    return "" if item is None else item[1] or "1"


def _is_indented(line: _Line) -> bool:
    return line.text.startswith(("  ", "\t"))


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _strip(text: str, start: int, stop: int) -> _Span:
    """Return a span whose ends are moved inward past white space; an empty one stays where it starts.

    The indentation of code is part of it: a first line that has one is taken from its beginning.
    """
    piece = text[start:stop]
    solid = piece.strip()
    if not solid:
        return _Span(start, start)
    lead = len(piece) - len(piece.lstrip())
    line = piece.rfind("\n", 0, lead) + 1
    return _Span(start + (line if piece.startswith(INDENTED, line) else lead), start + lead + len(solid))


# --- lines and headings


def _read_lines(text: str) -> Iterator[_Line]:
    closed = {match[1].lower(): match.start() for match in RAW_CLOSE.finditer(text)}  # the last of each kind
    start, inside = 0, _Inside()
    for raw in text.split("\n"):
        stop = min(start + len(raw) + 1, len(text))
        line = raw.removesuffix("\r")
        yield _Line(start, stop, line, *inside.read(line, closed, start))
        start = stop


@dataclass(slots=True)
class _Inside:
    """What a line of Markdown stands in, known from the lines before it."""

    until: str = ""
    """What ends the literal block: a fence, or a raw HTML end tag; "" outside of any."""
    depth: int = 0
    """Raw HTML elements of that kind that are open: tables stand in tables."""
    offset: int = 0
    """Column at which the text of the open list's outermost items begins; 0 outside of a list."""
    after_blank: bool = True

    def read(self, line: str, closed: dict[str, int], start: int) -> tuple[bool, bool]:
        """Return whether the line is part of a literal block, and whether it is nested in a list item."""
        if self.until:
            self._leave(line, closed, start)
            return True, False
        nested = self._read_item(line)
        self._enter(line, closed, start)
        self.after_blank = not line.strip()
        return bool(self.until), nested

    def _enter(self, line: str, closed: dict[str, int], start: int) -> None:
        """Note the literal block that this line opens.

        A fence that is never closed runs to the end, as in CommonMark; a tag never closed is only mentioned.
        """
        if fence := FENCE.match(line):
            self.until = fence[1] or fence[2]
        elif (mark := RAW_OPEN.match(line)) and closed.get(mark[1].lower(), -1) >= start + len(line):
            tag = mark[1].lower()
            self.depth = _opened(line, tag)
            self.until = f"</{tag}" if self.depth > 0 else ""

    def _leave(self, line: str, closed: dict[str, int], start: int) -> None:
        """Note that this line closes the literal block, if it does; behind the last end tag nothing stays open."""
        if self.until.startswith("<"):
            tag = self.until.removeprefix("</")
            self.depth = self.depth + _opened(line, tag) if tag == "table" else int(self.until not in line.lower())
            is_closed = self.depth <= 0 or closed[tag] < start + len(line)
        else:
            bare = line.strip()
            is_closed = len(bare) >= len(self.until) and not bare.strip(self.until[0])
        self.until = "" if is_closed else self.until

    def _read_item(self, line: str) -> bool:
        if not line.strip():
            return False
        indent = _indent(line)
        if self.offset and indent >= self.offset:
            return True
        item = MARKDOWN_ITEM.match(line)
        if item or self.after_blank:
            self.offset = item.end() if item else 0
        return False


def _opened(line: str, tag: str) -> int:
    """Return how many elements of a kind a line opens and does not close."""
    lower = line.lower()
    return len(re.findall(rf"<{tag}\b", lower)) - lower.count(f"</{tag}")


def _markdown_headings(lines: Sequence[_Line]) -> Iterator[_Heading]:
    for at, line in enumerate(lines):
        if line.literal or line.nested or len(line.text) > MAX_HEADING_CHARS:
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
    if at < 0 or lines[at].literal or lines[at].nested or len(lines[at].text) > MAX_HEADING_CHARS:
        return False
    if lines[at].text.startswith(INDENTED):
        return False
    before = lines[at - 1] if at else EDGE
    begins = before.blank or before.literal or bool(ATX.match(before.text)) or before.text.startswith("==")
    return begins and any(map(str.isalnum, lines[at].text)) and not NOT_A_TITLE.match(lines[at].text)


def _plain_structure(text: str, lines: Sequence[_Line], window: _Window) -> list[_Heading]:
    """Return the plain headings; of a single one that leaves too long a text on either side, nothing is believed."""
    headings = list(_plain_headings(lines))
    if len(headings) == 1:
        [only] = headings
        sides = _strip(text, 0, only.start), _strip(text, only.stop, len(text))
        if sides[0].chars and any(window.judge(text, side).reason == "too_long" for side in sides):
            return []
    return headings


def _plain_headings(lines: Sequence[_Line]) -> Iterator[_Heading]:
    """Yield lines that stand alone and look like headings; numbered neighbours without text are a list."""
    found: list[_Heading | None] = []
    for before, line, after in zip([EDGE, *lines], lines, [*lines[1:], EDGE], strict=False):
        if not line.blank:
            alone = before.blank and after.blank and not line.literal
            found.append(_plain_heading(line) if alone else None)
    bare = {heading.bare for heading in found if heading and heading.bare}
    for prior, heading, later in zip([None, *found], found, [*found[1:], None], strict=False):
        if heading is None or (heading.bare and not bare.intersection((heading.bare - 1, heading.bare + 1))):
            continue
        if heading.level == 1 or heading.level not in {other.level for other in (prior, later) if other}:
            yield heading


def _plain_heading(line: _Line) -> _Heading | None:
    text = line.text.strip()
    if len(text) > MAX_PLAIN_HEADING_CHARS or line.text.startswith(INDENTED):
        return None
    heading = _Heading(1, _sentence_case(text), line.start, line.stop)
    number = NUMBERED.match(text)
    if not number:
        return heading if _is_capital(text) else None
    title = number[3]
    if title[0].islower() or not title[0].isalnum() or title.endswith(tuple(".!?:;,。！？：；，")):
        return None  # a sentence
    is_bare = not (number[2] or "." in number[1] or _is_capital(title))
    level, bare = 2 + number[1].count("."), int(number[1]) if is_bare else 0
    return replace(heading, level=level, text=_sentence_case(title), bare=bare)


def _is_capital(text: str) -> bool:
    return text.isupper() and sum(map(str.isalpha, text)) >= MIN_CAPITALS


def _sentence_case(text: str) -> str:
    return ROMAN.sub(lambda number: number[0].upper(), text.capitalize()) if _is_capital(text) else text


def _visible(heading: str) -> str:
    """Return a heading as it is read: without emphasis, code marks, anchors and link targets."""
    for pattern, shown in MARKUP:
        heading = pattern.sub(shown, heading)
    return " ".join(html.unescape(heading).split())
