"""The article of a page -> Markdown.

Takes: a tidied tree.  Gives: the Markdown of what a person came to the page for; empty where there is none.
Never: writes Markdown itself: which elements are the article is trafilatura's to say, how they are written `xhtml`'s.
"""

import re
from typing import Any
from unicodedata import normalize

from askback.errors import borrow
from askback.readers import xhtml

_SIMPLE_READING_ELEMENTS = 5_000  # beyond, the extractor does not compare itself with others, which takes most of it
_SHORT_PAGE_CHARS = 250  # below this the extractor itself distrusts what it found
_STRUCTURE = re.compile(r"^(?:#{1,6} | *- | *\d+\. |\|| *```)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_BLANK = re.compile(r"^[\u200b-\u200d\u2060\ufeff]+\s*\n", re.MULTILINE)  # joiners that join nothing
_HAS_STRUCTURE = "boolean(.//h1 | .//h2 | .//h3 | .//ul | .//ol | .//pre | .//table)"
_NAMES = {"list": "ul", "item": "li", "quote": "blockquote", "lb": "br", "row": "tr", "cell": "td", "hi": "span"}
_MARKS = {"#b": "b", "#i": "i", "#t": "code"}
_SMALL = {"#sub": "sub", "#sup": "sup"}


def read_article(tree: Any) -> str:
    """Return the article; of a page that marks none, the reading that keeps more of its structure.

    Of such a page the extractor may keep the paragraphs alone, where its headings, lists and code are lost.
    """
    text = _extract(tree)
    if not _mark_article(tree):
        return text
    whole = _extract(tree)
    gains_headings = _HEADING.search(whole) and not _HEADING.search(text)
    most = (2 if gains_headings else 1.25) * max(len(text), _SHORT_PAGE_CHARS)
    has_more = len(_STRUCTURE.findall(whole)) > len(_STRUCTURE.findall(text))
    return whole if has_more and len(whole) <= most else text


def _extract(tree: Any) -> str:
    found = borrow("trafilatura").bare_extraction(
        tree,
        fast=sum(1 for _ in tree.iter()) > _SIMPLE_READING_ELEMENTS,
        output_format="markdown",  # or it writes a text of its own, that nobody reads
        include_comments=False,
        include_formatting=True,
        include_tables=True,
    )
    return _write(found.body) if found else ""


def _mark_article(tree: Any) -> bool:
    """Mark the whole body of a page as an article, if it marks none and has something to lose."""
    body = tree.find("body")
    if body is None or body.xpath("boolean(.//article | .//main)") or not body.xpath(_HAS_STRUCTURE):
        return False
    body.tag = "article"
    body.addprevious(borrow("lxml.html").Element("body"))
    body.getprevious().append(body)
    return True


# --- the extractor's tree


def _write(article: Any) -> str:
    """Give the elements of the extractor their names in HTML again, and write them."""
    for element in list(article.iter()):
        _rename(element)
    return normalize("NFC", _BLANK.sub("", xhtml.to_markdown(article)).strip())


def _rename(element: Any) -> None:
    rend = element.get("rend") or ""
    match element.tag:
        case "head":
            element.tag = rend if re.fullmatch("h[1-6]", rend) else "h2"
        case "list":
            element.tag = rend if rend in ("ol", "dl") else "ul"
        case "item" if rend.startswith(("dt", "dd")):
            element.tag = rend[:2]
        case "code":
            _rename_code(element)
        case "hi" if rend in _SMALL and len(element) == 0 and element.text:
            element.tag, element.text = "span", f"<{_SMALL[rend]}>{element.text}</{_SMALL[rend]}>"
        case "hi" if rend in _MARKS and not any(outer.tag == _MARKS[rend] for outer in element.iterancestors()):
            element.tag = _MARKS[rend]
        case tag if tag in _NAMES:
            element.tag = _NAMES[tag]


def _rename_code(element: Any) -> None:
    """Make code of several lines a block of its own, of bare text and the language it is said to be in."""
    for line_break in element.iter("lb"):
        line_break.tail = "\n" + (line_break.tail or "")
    text = "".join(element.itertext())
    if "\n" not in text:
        element.tag = "code"
        return
    language = next(filter(None, (inner.get("lang") for inner in element.iter("code"))), "")
    for child in list(element):
        element.remove(child)
    element.tag, element.text = "pre", text
    element.set("class", f"language-{language}" if language else "")
