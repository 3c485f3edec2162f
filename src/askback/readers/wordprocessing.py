"""Write the body of a Word document as Markdown: what a style or an outline level says becomes a block.

Takes: the roots of the parts `document`, `styles` and `numbering`.  Gives: Markdown, and the title a style names.
Never: opens a part, or shows what is not the text itself: deleted or hidden words, codes of fields, the table of
contents, notes and comments.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from typing import Any, NamedTuple

from askback.readers import blocks
from askback.readers.blocks import Block, Cell

Element = Any  # of lxml, which has no types

TRANSITIONAL = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
_BODY_LEVEL = 9  # the outline level that is none

_HEADING = re.compile(r"heading (\d)$")
_LIST = re.compile(r"list (bullet|number)(?: (\d))?$")
_CODE = re.compile(r"\b(source|code|listing|verbatim|(html )?preformatted|plain text|macro)\b")
_QUOTE = re.compile(r"\b(quote|block text|quotations?)\b")
_CONTENTS = re.compile(r"toc (\d|heading)|table of figures|index \d")
_MONO = re.compile(r"mono|courier|consol|typewriter|menlo|lucida console|fixed", re.IGNORECASE)
_THROUGH = frozenset(
    "hyperlink ins moveTo smartTag sdt sdtContent fldSimple customXml dir bdo AlternateContent Choice".split()
)
"""What is there for the sake of what it holds."""


@dataclass(frozen=True, slots=True)
class _Style:
    """What a style makes of a paragraph, what it inherits included."""

    kind: str = "text"
    """text, heading, title, item, code, quote, or contents."""
    level: int = 0
    numbering: tuple[str, int] | None = None
    mono: bool = False


class _Run(NamedTuple):
    text: str
    mark: str = ""


def to_markdown(document: Element, styles: Element | None, numbering: Element | None) -> tuple[str, str]:
    """Return the text of the body, and that of the first paragraph in the style Title."""
    return _Body(_Styles(styles), _Numbers(numbering)).write(document)


def _tag(node: Element) -> str:
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _child(node: Element | None, *path: str) -> Element | None:
    """Return the first element down a path of names, if there is one."""
    for name in path:
        node = next((child for child in node if _tag(child) == name), None) if node is not None else None
    return node


def _value(node: Element | None, name: str = "val") -> str | None:
    """Return an attribute of the main namespace; None where element or attribute is absent."""
    if node is None:
        return None
    found = node.get(f"{{{TRANSITIONAL}}}{name}", node.get(f"{{{STRICT}}}{name}"))
    return None if found is None else str(found)


def _number(node: Element | None, name: str = "val") -> int | None:
    given = _value(node, name)
    return int(given) if given and re.fullmatch(r"[0-9]{1,6}", given) else None


def _is_on(node: Element | None) -> bool:
    """Tell whether a switch stands there and is not turned off."""
    return node is not None and _value(node) not in ("0", "false", "off", "none")


# --- styles and numbers


class _Styles:
    """The document's styles by id; each is looked into when it is first used, for most never are."""

    def __init__(self, root: Element | None) -> None:
        nodes = [] if root is None else [node for node in root if _tag(node) == "style"]
        self._nodes = {_value(node, "styleId") or "": node for node in nodes}
        self._default = next((node for node in nodes if _is_default(node)), None)
        self._known: dict[str, _Style] = {}

    def of(self, properties: Element | None, name: str = "pStyle") -> _Style:
        """Return the style that properties name, or plain text."""
        wanted = _value(_child(properties, name))
        if wanted is None:
            return _Style()
        if wanted not in self._known:
            self._known[wanted] = self._resolve(wanted)
        return self._known[wanted]

    def _resolve(self, name: str) -> _Style:
        """Return a style with what it inherits; the default style is what everything inherits, and says nothing."""
        chain: list[Element] = []
        node = self._nodes.get(name)
        while node is not None and node is not self._default and node not in chain:
            chain.append(node)
            node = self._nodes.get(_value(_child(node, "basedOn")) or "")
        return reduce(_inherit, reversed(chain), _Style())


def _is_default(style: Element) -> bool:
    return _value(style, "type") == "paragraph" and _value(style, "default") in ("1", "true", "on")


def _inherit(style: _Style, node: Element) -> _Style:
    name = (_value(_child(node, "name")) or "").lower()
    properties = _child(node, "pPr")
    style = replace(
        style,
        numbering=_list_place(properties) or style.numbering,
        mono=style.mono or _is_mono(_child(node, "rPr")),
    )
    outline = _number(_child(properties, "outlineLvl"))
    if outline is not None:
        style = replace(style, kind="heading" if outline < _BODY_LEVEL else "text", level=outline + 1)
    if found := _HEADING.match(name):
        return replace(style, kind="heading", level=int(found[1]))
    if found := _LIST.match(name):
        return replace(style, kind="item", level=int(found[2] or 1) - 1)
    kinds = {"title": name == "title", "contents": _CONTENTS.match(name), "code": _CODE.search(name)}
    kinds["quote"] = _QUOTE.search(name)
    return replace(style, kind=next((kind for kind, holds in kinds.items() if holds), style.kind))


def _is_mono(properties: Element | None) -> bool:
    fonts = _child(properties, "rFonts")
    return bool(_MONO.search(_value(fonts, "ascii") or ""))


def _list_place(properties: Element | None) -> tuple[str, int] | None:
    """Return the list and the depth in it that paragraph properties name."""
    place = _child(properties, "numPr")
    number = _value(_child(place, "numId"))
    return None if number is None else (number, min(_number(_child(place, "ilvl")) or 0, 8))


class _Numbers:
    """The document's lists: which have numbers, and how far each has counted."""

    def __init__(self, root: Element | None) -> None:
        nodes = [] if root is None else [*root]
        plans = {_value(node, "abstractNumId"): node for node in nodes if _tag(node) == "abstractNum"}
        used = {_value(node, "numId"): _value(_child(node, "abstractNumId")) for node in nodes if _tag(node) == "num"}
        self._levels = {
            (number, _number(level, "ilvl") or 0): level
            for number, plan in used.items()
            for level in plans.get(plan, ())
            if _tag(level) == "lvl"
        }
        self._counts: dict[tuple[str, int], int] = {}

    def count(self, number: str, depth: int) -> int | None:
        """Return the number of the next item, or None in a list of bullets; deeper lists begin anew."""
        level = self._levels.get((number, depth))
        if level is None or _value(_child(level, "numFmt")) in ("bullet", "none", None):
            return None
        first = _number(_child(level, "start"))
        self._counts[number, depth] = self._counts.get((number, depth), (1 if first is None else first) - 1) + 1
        for below in range(depth + 1, 9):
            self._counts.pop((number, below), None)
        return self._counts[number, depth]


# --- the body


class _Body:
    """Writes blocks; knows the styles, and how far the lists have counted."""

    def __init__(self, styles: _Styles, numbers: _Numbers) -> None:
        self._styles = styles
        self._numbers = numbers
        self._title = ""

    def write(self, document: Element) -> tuple[str, str]:
        body = _child(document, "body")
        found = [] if body is None else [*self._flow(body)]
        return blocks.assemble(_forget_common_code(found)), self._title

    def _flow(self, parent: Element) -> Iterator[Block]:
        for child in parent:
            tag = _tag(child)
            if tag == "p":
                yield from self._paragraph(child)
                yield from self._boxes(child)
            elif tag == "tbl":
                yield from self._table(child)
            elif tag in _THROUGH and not _is_contents(child):
                yield from self._flow(child)

    def _paragraph(self, node: Element) -> Iterator[Block]:
        properties = _child(node, "pPr")
        style = self._styles.of(properties)
        outline = _number(_child(properties, "outlineLvl"))
        if outline is not None and style.kind in ("text", "heading"):
            style = replace(style, kind="heading" if outline < _BODY_LEVEL else "text", level=outline + 1)
        place = _list_place(properties) or style.numbering
        if place and place[0] != "0" and style.kind in ("text", "item", "quote"):
            style = replace(style, kind="item", numbering=place)
        runs = [*self._runs(node)]
        if any(run.text.strip() for run in runs):
            yield self._block(style, runs)
        elif style.kind == "code":
            yield Block("code", "")

    def _block(self, style: _Style, runs: list[_Run]) -> Block:
        plain = "".join(run.text for run in runs)
        if style.kind in ("heading", "title"):
            self._title = self._title or (blocks.one_line(plain) if style.kind == "title" else "")
            return Block("text", blocks.heading(max(style.level, 1), plain))
        if style.kind == "contents":
            return Block("text", "")
        is_mono = style.mono or all("`" in run.mark for run in runs if run.text.strip())
        if style.kind == "code" or (is_mono and style.kind == "text"):
            return Block("code", plain.replace(blocks.LINE_BREAK, "\n"))
        text = _mark(runs)
        if style.kind == "item":
            number, depth = style.numbering or ("", style.level)
            return blocks.flat_item(text, max(depth, style.level), self._numbers.count(number, depth))
        return Block("text", blocks.quote(blocks.paragraph(text)) if style.kind == "quote" else blocks.paragraph(text))

    def _runs(self, parent: Element) -> Iterator[_Run]:
        """Yield the words of a paragraph with their marks; what is deleted, and boxes beside it, are not among them."""
        for child in parent:
            tag = _tag(child)
            if tag == "r":
                yield self._run(child)
            elif tag in _THROUGH:
                yield from self._runs(child)
            elif tag in ("oMath", "oMathPara"):
                yield _Run("".join(node.text or "" for node in child.iter() if _tag(node) == "t"))

    def _run(self, node: Element) -> _Run:
        properties = _child(node, "rPr")
        if _is_on(_child(properties, "vanish")):
            return _Run("")
        text = "".join(_character(child) for child in node)
        style = self._styles.of(properties, "rStyle")
        if _is_mono(properties) or style.mono or style.kind == "code":
            return _Run(text, "`")
        bold, slanted = (_is_on(_child(properties, name)) for name in ("b", "i"))
        return _Run(text, "**" * bold + "*" * slanted)

    def _boxes(self, paragraph: Element) -> Iterator[Block]:
        """Yield what stands in text boxes that hang on a paragraph, once: older programs' copies are left out."""
        for box in paragraph.iter("{*}txbxContent"):
            above = [*box.iterancestors()]
            holder = next(node for node in above if _tag(node) == "p")
            if holder is paragraph and all(_tag(node) != "Fallback" for node in above):
                yield from self._flow(box)

    def _table(self, node: Element) -> Iterator[Block]:
        """Yield a table; one of a single column is a box around blocks."""
        rows = [[*_parts(row, "tc")] for row in _parts(node, "tr")]
        if all(len(row) <= 1 for row in rows):
            for cell in (cell for row in rows for cell in row):
                yield from self._flow(cell)
        else:
            yield Block("text", blocks.table([self._cell(cell) for cell in row] for row in rows))

    def _cell(self, node: Element) -> Cell:
        """Return the words of a cell; one that goes on from the row above is empty."""
        properties = _child(node, "tcPr")
        merged = _child(properties, "vMerge")
        goes_on = merged is not None and _value(merged) != "restart"
        words = [] if goes_on else [_mark([*self._runs(each)]) for each in node.iter("{*}p")]
        return Cell(" ".join(filter(None, words)), _number(_child(properties, "gridSpan")) or 1)


def _parts(parent: Element, name: str) -> Iterator[Element]:
    """Yield the rows of a table or the cells of a row, those inside content controls too."""
    for child in parent:
        if _tag(child) == name:
            yield child
        elif _tag(child) in _THROUGH:
            yield from _parts(child, name)


def _is_contents(node: Element) -> bool:
    """Tell whether a content control holds the table of contents."""
    gallery = _value(_child(node, "sdtPr", "docPartObj", "docPartGallery"))
    return gallery == "Table of Contents"


def _character(node: Element) -> str:
    """Return what a part of a run shows."""
    tag = _tag(node)
    if tag == "t":
        return str(node.text or "")
    if tag == "br":
        return "" if _value(node, "type") in ("page", "column") else blocks.LINE_BREAK
    return {"tab": "\t", "cr": blocks.LINE_BREAK, "noBreakHyphen": "-"}.get(tag, "")


def _mark(runs: Iterable[_Run]) -> str:
    """Join runs; neighbours of one mark are marked together, however a program has cut them up."""
    alike = groupby((run for run in runs if run.text), key=lambda run: run.mark)
    return "".join(blocks.emphasis("".join(run.text for run in group), mark) for mark, group in alike)


def _forget_common_code(found: list[Block]) -> list[Block]:
    """Take code for text where most of the document would be code: then the font is a habit."""
    chars = sum(len(block.text) for block in found)
    if 2 * sum(len(block.text) for block in found if block.kind == "code") <= chars:
        return found
    return [Block("text", blocks.paragraph(block.text)) if block.kind == "code" else block for block in found]
