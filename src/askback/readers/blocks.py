"""Write Markdown block by block, in the shape `segment` cuts by its headings.

Takes: words, lines of code, cells, items.  Gives: Markdown.
Never: decides what is a heading, or escapes more than what would turn prose into a heading or a fence.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

LINE_BREAK = "\u2028"
"""A break the author asked for, where every other white space is a mere space."""
MAX_HEADING_CHARS = 300
"""`segment` takes a longer line for a paragraph, and so does this."""
_MOST_SPAN = 20  # columns or rows of one cell; a page may claim any number
_MOST_FIELDS = 1_000_000  # of a table whose rows are filled up to the longest

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLOCK_MARK = re.compile(r"#{1,6}(?:\s|$)|`{3}|~{3}|={2,}$|-{2,}$|<(?:pre|table|script|style)\b", re.IGNORECASE)
_HEADING = re.compile(r"(#{1,6}) (.+)")
_LIST = re.compile(r"(?:-|\d+\.) ")
_FENCE = re.compile(r" *(`{3,})")
_BACKTICKS = re.compile(r"`+")
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")


class Block(NamedTuple):
    """A piece of Markdown; items and lines of code belong together with their neighbours of the same kind."""

    kind: Literal["text", "item", "code"]
    text: str


class Cell(NamedTuple):
    """The words of a table cell, and how many columns and rows it covers."""

    text: str
    columns: int = 1
    rows: int = 1


def assemble(blocks: Iterable[Block]) -> str:
    """Join blocks with blank lines; items that follow each other make a list, lines of code one fence."""
    return "\n\n".join(text for kind, run in groupby(blocks, _kind) if (text := _join_run(kind, [*run])))


def _kind(block: Block) -> str:
    return block.kind


def _join_run(kind: str, run: Sequence[Block]) -> str:
    if kind == "code":
        return fence("\n".join(block.text for block in run))
    return ("\n" if kind == "item" else "\n\n").join(block.text for block in run if block.text)


def printable(text: str) -> str:
    """Return a text without control characters and halves of surrogate pairs, which no file could hold."""
    return _UNPRINTABLE.sub("", text)


def one_line(text: str) -> str:
    return " ".join(text.split())


def heading(level: int, text: str) -> str:
    """Return an ATX heading, or a paragraph where the text is too long to be one; nothing for no words."""
    title = one_line(text)
    if len(title) > MAX_HEADING_CHARS:
        return paragraph(title)
    return f"{'#' * min(max(level, 1), 6)} {title}" if title else ""


def paragraph(text: str) -> str:
    """Return words as one line, broken only at LINE_BREAK; marks that would begin another block are escaped."""
    lines = (one_line(line) for line in text.split(LINE_BREAK))
    return "\n".join(f"\\{line}" if _BLOCK_MARK.match(line) else line for line in lines).strip()


def fence(code: str, language: str = "") -> str:
    """Return code between fences longer than any run of backticks in it; nothing for no code."""
    solid = code.strip("\n").rstrip()
    if not solid.strip():
        return ""
    longest = max(map(len, _BACKTICKS.findall(solid)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language if _LANGUAGE.fullmatch(language) else ''}\n{solid}\n{marks}"


def emphasis(text: str, mark: str) -> str:
    """Return words between marks, the white space at their rims left outside; code holds no backtick."""
    words = text.strip()
    if not words or not mark or LINE_BREAK in words or ("`" in mark and "`" in words):
        return text
    lead, tail = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{lead}{mark}{words}{mark}{tail}"


def quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n")) if text else ""


def flat_item(text: str, depth: int = 0, number: int | None = None) -> Block:
    """Return an item of one paragraph, four spaces in for each level above it."""
    mark = "-" if number is None else f"{number}."
    lines = paragraph(text).split("\n")
    indent = " " * (4 * depth)
    hanging = "\n" + indent + " " * (len(mark) + 1)
    return Block("item", f"{indent}{mark} {hanging.join(lines)}" if any(lines) else "")


def bullets(items: Iterable[str]) -> str:
    return _list_items(("-", item) for item in items)


def numbered(items: Iterable[str], start: int = 1) -> str:
    return _list_items((f"{number}.", item) for number, item in enumerate(items, start))


def _list_items(items: Iterable[tuple[str, str]]) -> str:
    """Join items of whole blocks; they stand apart as soon as one of them has more than one."""
    written = [f"{mark} {_indent(item, len(mark) + 1)}" for mark, item in items if item]
    return ("\n\n" if any("\n\n" in item for item in written) else "\n").join(written)


def _indent(text: str, width: int) -> str:
    """Indent every line but the first one."""
    return re.sub(r"\n(?=[^\n])", "\n" + " " * width, text)


def item_of(held: Iterable[str]) -> str:
    """Return the blocks of an item as one; a list among them stands right below its words."""
    text = ""
    for block in held:
        below = "\n" if _LIST.match(block) else "\n\n"
        text = f"{text}{below}{block}" if text else block
    return text


def definition(term: str, said: Sequence[str]) -> str:
    """Return a term and what is said of it as the text of an item: on one line where that is all."""
    if term and len(said) == 1 and "\n" not in said[0] and said[0][:1].isalnum():
        return f"{term}: {said[0]}"
    return "\n\n".join(filter(None, [term, *said]))


def table(rows: Iterable[Sequence[Cell]]) -> str:
    """Return a Markdown table whose first row is its head; nothing where no cell has words."""
    grid = [*_spread(rows)]
    if not any(any(row) for row in grid):
        return ""
    width = min(max(map(len, grid)), _MOST_FIELDS // len(grid))
    padded = [[*row, *[""] * (width - len(row))] for row in grid]
    head, *body = ["| " + " | ".join(row) + " |" for row in padded]
    return "\n".join([head, "|" + " --- |" * width, *body])


def _spread(rows: Iterable[Sequence[Cell]]) -> Iterator[list[str]]:
    """Yield rows of equal columns: words stand in the first field a cell covers, the others are empty."""
    covered: dict[int, int] = {}  # column -> rows it is still taken from above
    for row in rows:
        fields: list[str] = []
        below: dict[int, int] = {}
        for cell in row:
            _fill_covered(fields, covered, below)
            for at in range(min(max(cell.columns, 1), _MOST_SPAN)):
                if cell.rows > 1:
                    below[len(fields)] = min(cell.rows, _MOST_SPAN) - 1
                fields.append("" if at else one_line(cell.text).replace("|", "\\|"))
        _fill_covered(fields, covered, below)
        covered = below
        yield fields


def _fill_covered(fields: list[str], covered: dict[int, int], below: dict[int, int]) -> None:
    while len(fields) in covered:
        if left := covered[len(fields)] - 1:
            below[len(fields)] = left
        fields.append("")


def title_of(markdown: str) -> str:
    """Return the first of the highest headings that are there, or nothing; a comment in a fence is none."""
    found = [
        (len(mark[1]), at, mark[2]) for at, line in enumerate(_unfenced(markdown)) if (mark := _HEADING.match(line))
    ]
    return min(found)[2] if found else ""


def _unfenced(markdown: str) -> Iterator[str]:
    until = ""
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if mark and not until:
            until = mark[1]
        elif mark and line.strip() == until:
            until = ""
        elif not until:
            yield line
