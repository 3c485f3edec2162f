"""Turn the lines of printed pages into Markdown: what stood where, and how large, says what it was.

Takes: pages of Lines in reading order.  Gives: Markdown.
Never: knows the library that found the lines, or loses one but running headers, footers, page numbers and the
dotted lines of a table of contents.

Larger than the body is a heading, and so is a short bold line that stands apart; one width for all letters is code.
A font that most of the text is set in says nothing.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from askback.readers import blocks
from askback.readers.blocks import Block

LARGER = 1.12
"""Times the size of the body: from here on a line is a heading."""
MAX_HEADING_CHARS = 200
MAX_BOLD_HEADING_CHARS = 80
WIDER = 1.18
"""Times the usual distance of lines: a wider one parts paragraphs."""
OFTEN = 0.3
"""The usual distance is the least that is seen so often against the commonest: a text may be all short paragraphs."""
RIM_LINES = 3
"""So many lines from the top and from the bottom may be running ones."""
RUNNING_PAGES = 3
"""A line that stands on so many pages in the same place is a running one."""
MONO_WIDTH = 0.6
"""Width of a letter of a fixed-width font, as a share of its size."""

_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxlcdm]{1,7}", re.IGNORECASE)
_LEADERS = re.compile(r"(?:\.\s?){4,}\s*(?:\d+|[ivxlcdm]+)?$")
_BULLET = re.compile(r"(?:[•◦▪■●○‣⁃∙·\uf0a7\uf0b7\uf0d8]|[-–](?=\s+\w))(?:\s+|$)")
_NUMBERED = re.compile(r"(\d{1,3})[.)]\s+(?=\S)")
_LABEL = re.compile(r"(?:[A-Za-z]|[ivx]{1,5}|\d{1,3})[.)]\s|\[\w{1,6}\]|\(\w{1,4}\)\s")
_HYPHENED = re.compile(r"(\w+)-$")
_FIRST_WORD = re.compile(r"\w+")
_WORD = re.compile(r"\w+(?:-\w+)*")
_SENTENCE_END = tuple(".!?:;\"'”’)]。！？：；")
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A printed line: `x` runs with the text and `y` upward, in points; size and font are those of most of it."""

    text: str
    x: float
    y: float
    size: float
    mono: bool = False
    bold: bool = False
    page: int = 0


Page = Sequence[Line]


def to_markdown(pages: Sequence[Page]) -> str:
    """Return the pages' text as Markdown, in the order of their lines."""
    read = [[_normalise(line, at) for line in page if line.text.strip()] for at, page in enumerate(pages)]
    sheet = _measure(line for page in read for line in page)
    lines = [line for page in _drop_running(read, sheet) for line in page if not _LEADERS.search(line.text)]
    groups = _group(_forget_common_fonts(lines), sheet)
    words = {word for line in lines for word in _WORD.findall(line.text.lower())}
    return blocks.assemble(_Writer(sheet, words).write(groups))


def _normalise(line: Line, page: int) -> Line:
    """Return a line as it was typed: ligatures taken apart, nothing in it that cannot be printed or encoded."""
    text = blocks.printable(line.text.translate(_LIGATURES)).replace("\xa0", " ")
    return replace(line, text=text if line.mono else " ".join(text.split()), page=page)


# --- what is usual


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What is usual in a document: the size of its letters, the distance of its lines, the sizes of its headings."""

    body: float
    pitch: float
    larger: tuple[float, ...] = ()

    def level(self, size: float) -> int:
        """Return the heading level of a size, 0 for none: the largest is 1."""
        return self.larger.index(_step(size)) + 1 if _step(size) in self.larger else 0


def _measure(lines: Iterable[Line]) -> _Sheet:
    listed = [*lines]
    sizes: Counter[float] = Counter()
    for line in listed:
        sizes[_step(line.size)] += len(line.text)
    body = max(sizes, key=lambda size: (sizes[size], -size), default=10.0)
    prose = [line for line in listed if _step(line.size) == body]
    gaps = Counter(_step(gap) for one, two in pairwise(prose) if 0.9 * body < (gap := _gap(one, two)) < 3 * body)
    usual = [gap for gap, count in gaps.items() if count >= OFTEN * max(gaps.values())]
    pitch = min(usual, default=1.2 * body)
    larger = {_step(line.size) for line in listed if line.size >= LARGER * body and _may_be_heading(line)}
    return _Sheet(body, pitch, tuple(sorted(larger, reverse=True)))


def _step(points: float) -> float:
    """Round to half a point: sizes that differ by less were meant to be one."""
    return round(points * 2) / 2


def _gap(one: Line, two: Line) -> float:
    """Return how far a line stands below the one before it; not a number above 0 on another page or column."""
    return one.y - two.y if one.page == two.page else -1.0


def _may_be_heading(line: Line) -> bool:
    return len(line.text) <= MAX_HEADING_CHARS and sum(map(str.isalpha, line.text)) >= 2


def _forget_common_fonts(lines: Sequence[Line]) -> list[Line]:
    """Take the marks of a font away where most of the text has them."""
    chars = sum(len(line.text) for line in lines)
    mono = 2 * sum(len(line.text) for line in lines if line.mono) < chars
    bold = 2 * sum(len(line.text) for line in lines if line.bold) < chars
    return [replace(line, mono=line.mono and mono, bold=line.bold and bold) for line in lines]


# --- running headers and footers


def _drop_running(pages: Sequence[Page], sheet: _Sheet) -> list[list[Line]]:
    """Leave out lines at the rim of a page that stand in the same place on others, or count its pages."""
    rims = [_rim(page) for page in pages]
    seen: Counter[tuple[object, ...]] = Counter(mark for rim in rims for line in rim for mark in _marks(line))
    many = max(RUNNING_PAGES, len(pages) // 2)

    def is_running(line: Line) -> bool:
        least = many if sheet.level(line.size) else min(RUNNING_PAGES, len(pages))
        return len(pages) > 1 and any(seen[mark] >= least for mark in _marks(line))

    running = [{line for line in rim if is_running(line)} for rim in rims]
    return [[line for line in page if line not in drop] for page, drop in zip(pages, running, strict=True)]


def _rim(page: Page) -> set[Line]:
    heights = sorted({round(line.y) for line in page})
    outer = {*heights[:RIM_LINES], *heights[-RIM_LINES:]}
    return {line for line in page if round(line.y) in outer}


def _marks(line: Line) -> set[tuple[object, ...]]:
    """Return what a running line has in common with its like on other pages.

    Its words in this place, whatever number stands among them; or a number that grows with the pages.
    """
    height = round(line.y)
    words = "#" if _ROMAN.fullmatch(line.text) else _NUMBER.sub("#", line.text)
    numbers = [match[0] for match in _NUMBER.finditer(line.text)]
    counted = {int(number) - line.page for number in (*numbers[:1], *numbers[-1:]) if len(number) <= 5}
    return {("words", height, words), *(("counts", height, offset) for offset in counted)}


# --- which lines belong together


@dataclass(slots=True)
class _Group:
    """Lines of one kind that make a block: `level` for a heading, `number` and `mark` (its text) for an item."""

    kind: str
    lines: list[Line] = field(default_factory=list)
    level: int = 0
    number: int | None = None
    mark: str = ""

    @property
    def last(self) -> Line:
        return self.lines[-1]


def _group(lines: Sequence[Line], sheet: _Sheet) -> Iterator[_Group]:
    """Yield the blocks in reading order."""
    group: _Group | None = None
    number = 0
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        apart = group is None or _stands_apart(group.last, line, sheet)
        begun = _begin(line, after, sheet, apart=apart, number=number)
        if group and not apart and begun.kind == "code" != group.kind:
            begun = _Group("text")  # a line of a paragraph that is all code words
        if group and _goes_on(group, begun, line, sheet):
            group.lines.append(line)
            continue
        if group:
            yield group
        number = begun.number or (0 if begun.kind == "heading" else number)
        group = begun
        group.lines.append(line)
    if group:
        yield group


def _begin(line: Line, after: Line | None, sheet: _Sheet, *, apart: bool, number: int) -> _Group:
    """Return the kind of block this line would begin; `number` is that of the last item."""
    level = sheet.level(line.size) if _may_be_heading(line) else 0
    if not level and apart and _is_bold_heading(line, after, sheet):
        level = len(sheet.larger) + 1
    if level:
        return _Group("heading", level=level)
    if line.mono:
        return _Group("code")
    if mark := _BULLET.match(line.text):
        return _Group("item", mark=mark[0])
    counted = _NUMBERED.match(line.text)
    if counted and int(counted[1]) in (1, number + 1):
        return _Group("item", number=int(counted[1]), mark=counted[0])
    return _Group("text")


def _is_bold_heading(line: Line, after: Line | None, sheet: _Sheet) -> bool:
    """Tell whether a line of body size is a heading: bold, short, alone, and something follows."""
    if not line.bold or line.mono or line.size < 0.95 * sheet.body or len(line.text) > MAX_BOLD_HEADING_CHARS:
        return False
    return _may_be_heading(line) and line.text[-1] not in ".,;:" and after is not None and not after.bold


def _stands_apart(before: Line, line: Line, sheet: _Sheet) -> bool:
    """Tell whether more than the usual distance lies above a line, or another page or column."""
    gap = _gap(before, line)
    return gap <= 0 or gap > WIDER * sheet.pitch * max(1.0, line.size / sheet.body)


def _goes_on(group: _Group, begun: _Group, line: Line, sheet: _Sheet) -> bool:
    """Tell whether a line belongs to the block before it."""
    if group.kind == "heading" or begun.kind == "heading":
        size = max(1.0, line.size / sheet.body)
        near = 0 < _gap(group.last, line) <= 1.4 * sheet.pitch * size
        return (group.kind, group.level) == (begun.kind, begun.level) and near
    if group.kind == "code" or begun.kind == "code":
        return group.kind == begun.kind
    if begun.kind == "item":
        return False
    if _gap(group.last, line) <= 0:
        return _breaks_off(group.last.text, line.text)
    return not _stands_apart(group.last, line, sheet) and not _is_indented(group, line, sheet)


def _breaks_off(text: str, following: str) -> bool:
    """Tell whether a sentence runs over the end of a page or column."""
    return not text.endswith(_SENTENCE_END) and following[:1].islower()


def _is_indented(group: _Group, line: Line, sheet: _Sheet) -> bool:
    """Tell whether a line begins a paragraph by its place alone: set in, or out of the list before it."""
    first, last = group.lines[0], group.last
    if group.kind == "item" or _LABEL.match(first.text):
        hangs = last is not first and last.x > first.x + 2
        return line.x < first.x - 2 or (hangs and line.x <= first.x + 2)
    return line.x > last.x + 0.6 * sheet.body


# --- as Markdown


class _Writer:
    """Writes blocks; knows the words of the document, and how deep the list is that it is in."""

    def __init__(self, sheet: _Sheet, words: set[str]) -> None:
        self._sheet = sheet
        self._words = words
        self._margins: list[float] = []

    def write(self, groups: Iterable[_Group]) -> Iterator[Block]:
        kinds: dict[str, Callable[[_Group], Block]] = {"heading": self._heading, "item": self._item, "text": self._text}
        for group in groups:
            if group.kind != "item":
                self._margins.clear()
            yield self._code(group) if group.kind == "code" else kinds[group.kind](group)

    def _heading(self, group: _Group) -> Block:
        return Block("text", blocks.heading(group.level, self._prose(group.lines)))

    def _text(self, group: _Group) -> Block:
        return Block("text", blocks.paragraph(self._prose(group.lines)))

    def _item(self, group: _Group) -> Block:
        x = group.lines[0].x
        while self._margins and x < self._margins[-1] - 2:
            self._margins.pop()
        if not self._margins or x > self._margins[-1] + 2:
            self._margins.append(x)
        words = self._prose(group.lines).removeprefix(group.mark.strip()).strip()
        return blocks.flat_item(words, len(self._margins) - 1, group.number)

    def _code(self, group: _Group) -> Block:
        """Set lines of code in as far as they stood, and keep the gaps between them."""
        left = min(line.x for line in group.lines)
        rows: list[str] = []
        for before, line in zip([group.lines[0], *group.lines], group.lines, strict=False):
            if _gap(before, line) > 1.5 * 1.2 * line.size:
                rows.append("")
            indent = round((line.x - left) / (MONO_WIDTH * line.size)) if line.size > 0 else 0
            rows.append(" " * min(indent, 80) + line.text.strip())
        return Block("code", "\n".join(rows))

    def _prose(self, lines: Sequence[Line]) -> str:
        """Join lines to running text; words that were parted at their ends are whole again."""
        pieces: list[str] = []
        for line in lines:
            text = line.text.strip()
            if pieces:
                pieces[-1] = self._end_of_line(pieces[-1], text)
            pieces.append(text)
        return "".join(pieces).replace("\xad", "").strip()

    def _end_of_line(self, text: str, following: str) -> str:
        """Return a line as it runs into the next one: with a space, or without its hyphen."""
        if text.endswith("\xad"):
            return text[:-1]
        parted, second = _HYPHENED.search(text), _FIRST_WORD.match(following)
        if not parted or not second:
            return f"{text} "
        return text if self._keeps_hyphen(parted[1], second[0]) else text[:-1]

    def _keeps_hyphen(self, first: str, second: str) -> bool:
        """Tell whether a hyphen at the end of a line belongs to the word: the rest of the document may show it."""
        whole, parted = f"{first}{second}".lower(), f"{first}-{second}".lower()
        if parted in self._words or whole in self._words:
            return parted in self._words and whole not in self._words
        return not second[0].islower() or not first[-1].isalpha()
