"""Write a whole XHTML page as Markdown: every block in its order.

Takes: the root element of a parsed page.  Gives: Markdown.
Never: judges what of the page is the article; a chapter of a book is one, so only navigation, scripts and the marks of
notes and pages are left out.
"""

import html
import re
from collections.abc import Iterator
from typing import Any

from askback.readers import blocks
from askback.readers.blocks import Cell

Element = Any  # of lxml, which has no types

_SKIPPED = frozenset(
    "script style head template nav svg object iframe audio video canvas map button select rt rp annotation "
    "annotation-xml".split()
)
_BLOCKS = frozenset(
    "html body p div section article main header footer aside figure figcaption address details summary center form "
    "fieldset ul ol dl dt dd li pre table caption thead tbody tfoot tr td th blockquote hr h1 h2 h3 h4 h5 h6".split()
)
_MARKS = {"b": "**", "strong": "**", "i": "*", "em": "*", "cite": "*"} | dict.fromkeys(
    ["code", "kbd", "samp", "tt"], "`"
)
_LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight|sourceCode)[-\s]([\w+#.-]+)")
_NO_WORDS = frozenset({"noteref", "pagebreak", "doc-noteref", "doc-pagebreak"})


def to_markdown(root: Element) -> str:
    """Return the text of a page as Markdown; without words, nothing."""
    body = next((node for node in root.iter() if _tag(node) == "body"), root)
    return "\n\n".join(_flow(body))


def _tag(node: Element) -> str:
    """Return the name of an element without its namespace; an entity that was left as it is has none."""
    return node.tag.rpartition("}")[2].lower() if isinstance(node.tag, str) else ""


# --- blocks


def _flow(parent: Element, *, inside: bool = False) -> Iterator[str]:
    """Yield the blocks of an element; loose words between them are paragraphs.

    `inside` a list, a quotation or a cell no heading begins a section: it is bold there.
    """
    words = [parent.text or ""]
    for child in parent:
        if _is_block(child):
            if text := blocks.paragraph("".join(words)):
                yield text
            words = []
            yield from (block for block in _block(child, inside=inside) if block)
        else:
            words.append(_inline(child))
        words.append(child.tail or "")
    if text := blocks.paragraph("".join(words)):
        yield text


def _is_block(node: Element) -> bool:
    """Tell whether an element ends the paragraph before it; a link or span around paragraphs does so too."""
    tag = _tag(node)
    return tag in _BLOCKS or (tag not in _SKIPPED and any(_tag(child) in _BLOCKS for child in node))


def _block(node: Element, *, inside: bool) -> Iterator[str]:
    tag = _tag(node)
    if _says_nothing(node):
        return
    if re.fullmatch("h[1-6]", tag):
        yield _heading(node, inside=inside)
    elif tag == "pre":
        yield _code(node)
    elif tag in ("ul", "ol"):
        yield _list(node)
    elif tag == "dl":
        yield blocks.bullets(_definitions(node))
    elif tag == "table":
        yield from _table(node)
    elif tag == "blockquote":
        yield blocks.quote("\n\n".join(_flow(node, inside=True)))
    else:
        yield from _flow(node, inside=inside)


def _heading(node: Element, *, inside: bool) -> str:
    text = blocks.one_line(_words(node, marks=False))
    return blocks.paragraph(blocks.emphasis(text, "**")) if inside else blocks.heading(int(_tag(node)[1]), text)


def _code(node: Element) -> str:
    holders = [node, *(child for child in node if _tag(child) == "code")]
    classes = (_LANGUAGE.search(holder.get("class", "")) for holder in holders)
    said = [holder.get("data-code-language") or holder.get("data-lang") or "" for holder in holders]
    language = next(filter(None, [*(found[1] for found in classes if found), *said]), "")
    return blocks.fence(_words(node, marks=False).replace(blocks.LINE_BREAK, "\n"), language)


def _list(node: Element) -> str:
    items: list[str] = []
    for child in node:
        nested = _tag(child) in ("ul", "ol")  # a list straight in a list belongs to the item before it
        text = "\n".join(_block(child, inside=True)) if nested else blocks.item_of(_flow(child, inside=True))
        if nested and items:
            items[-1] += f"\n{text}"
        else:
            items.append(text)
    if _tag(node) == "ul":
        return blocks.bullets(items)
    return blocks.numbered(items, _count(node.get("start"), least=0))


def _definitions(node: Element) -> Iterator[str]:
    """Yield each term with what is said of it."""
    term = ""
    for child in node:
        tag = _tag(child)
        if tag == "div":
            yield from _definitions(child)
        elif tag == "dt":
            term = blocks.emphasis(blocks.one_line(_words(child, marks=False)), "**")
        elif tag == "dd":
            yield blocks.definition(term, [*_flow(child, inside=True)])
            term = ""


def _table(node: Element) -> Iterator[str]:
    """Yield the caption and the rows; a table of one column is a box around blocks."""
    rows = [*_rows(node)]
    yield from (blocks.paragraph(_words(child)) for child in node if _tag(child) == "caption")
    if all(len(row) <= 1 for row in rows):
        for cell in (cell for row in rows for cell in row):
            yield from _flow(cell, inside=True)
        return
    yield blocks.table(
        [Cell(_words(cell), _count(cell.get("colspan")), _count(cell.get("rowspan"))) for cell in row] for row in rows
    )


def _rows(node: Element) -> Iterator[list[Element]]:
    """Yield the cells of each row, those of a table inside a cell not among them."""
    for child in node:
        if _tag(child) in ("thead", "tbody", "tfoot"):
            yield from _rows(child)
        elif _tag(child) == "tr":
            yield [cell for cell in child if _tag(cell) in ("td", "th")]


def _count(given: str | None, least: int = 1) -> int:
    """Return a number some page claims, 1 where it is none."""
    return max(int(given), least) if given and re.fullmatch(r"[0-9]{1,6}", given.strip()) else 1


# --- words


def _words(node: Element, *, marks: bool = True) -> str:
    """Return the words of an element, with or without marks for what is bold, slanted or code."""
    pieces = [node.text or ""]
    for child in node:
        pieces += [_inline(child, marks=marks), child.tail or ""]
    return "".join(pieces)


def _inline(node: Element, *, marks: bool = True) -> str:
    tag = _tag(node)
    if not tag:
        return html.unescape(node.text or "")  # an entity: a name every browser knows, or left as it stands
    if tag == "br":
        return blocks.LINE_BREAK
    if tag in _SKIPPED or _says_nothing(node):
        return ""
    text = _words(node, marks=marks and _MARKS.get(tag) != "`")
    if tag in _BLOCKS:
        return f" {text} "
    return blocks.emphasis(text, _MARKS[tag]) if marks and tag in _MARKS else text


def _says_nothing(node: Element) -> bool:
    """Tell whether an element only marks the place of a note or a printed page."""
    kinds = {*node.get("{http://www.idpf.org/2007/ops}type", node.get("epub:type", "")).split(), node.get("role", "")}
    raised_link = _tag(node) == "sup" and any(_tag(child) == "a" for child in node)
    return bool(kinds & _NO_WORDS) or raised_link
