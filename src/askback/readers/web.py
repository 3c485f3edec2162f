"""HTML -> Markdown: the article of a page, without what stands around it.

Takes: the bytes of a page, and the character encoding its server named for it, if any.
Gives: Parsed, or Refused: no article in it, too large or too deep to be read in seconds.
Never: runs a script or shows one, follows a link, or reads a part of a page as if it were the whole.
"""

import re
from html import unescape
from typing import Any

from askback.errors import borrow
from askback.readers.article import read_article
from askback.readers.parsed import Parsed, Refused
from askback.readers.text import decode, first_heading
from askback.readers.tidy import flatten, tidy

MAX_PAGE_BYTES = 5_000_000
MAX_TAGS = 100_000
MAX_ATTRIBUTES = 2_000
MAX_ELEMENTS = 20_000
MAX_DEPTH = 250
"""What is read in a few seconds. Time grows with the square of a tag's attributes, and of the elements that are left
of all tags once scripts, spans and the like are gone; Python's stack grows with their depth."""

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{10000,}")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([\d.]+)")


def parse_html(data: bytes, charset: str = "") -> Parsed | Refused:
    """Cut the article out of a page, as Markdown."""
    if len(data) > MAX_PAGE_BYTES:
        return Refused("page_too_large", f"{len(data) / 1e6:.1f} MB, at most {MAX_PAGE_BYTES / 1e6:g}")
    named = _CHARSET.search(data[:4096])
    decoded = decode(data, charset, named[1].decode("ascii", errors="replace") if named else "")
    if isinstance(decoded, Refused):
        return decoded
    if not decoded.text.strip():
        return Refused("empty")
    tree = _parse_tree(decoded.text)
    if isinstance(tree, Refused):
        return tree
    text = read_article(tree)
    if not text:
        return Refused("no_article", "no main text was found in the page")
    return Parsed(
        text=text,
        title=first_heading(text) or _title_of(decoded.text),
        licence=_licence_of(tree),
        encoding=decoded.encoding,
    )


# --- the tree of a page


def _parse_tree(page: str) -> Any | Refused:
    """Return the tidied tree of a page that can be read in a few seconds."""
    if any(len(tag.split()) > MAX_ATTRIBUTES for tag in _LONG_TAG.findall(page)):
        return Refused("page_too_large", f"more than {MAX_ATTRIBUTES} attributes on one tag")
    html = borrow("lxml.html")
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        tree = html.document_fromstring(page.encode("utf-8"), parser=parser)
    except borrow("lxml.etree").LxmlError:
        return Refused("no_article", "nothing in it is markup or text")
    _join_roots(tree)
    if any("depth" in entry.message for entry in parser.error_log):
        return Refused("too_deep", "elements nested more than 2048 deep")
    if (count := _count(tree)) > MAX_TAGS:
        return Refused("page_too_large", f"{count} tags, at most {MAX_TAGS}")
    tidy(tree)
    if (count := _count(tree)) > MAX_ELEMENTS:
        return Refused("page_too_large", f"{count} elements, at most {MAX_ELEMENTS}")
    if _depth(tree) > MAX_DEPTH:
        flatten(tree)
    if (depth := _depth(tree)) > MAX_DEPTH:
        return Refused("too_deep", f"elements nested {depth} deep, at most {MAX_DEPTH}")
    return tree


def _join_roots(tree: Any) -> None:
    """Bring back into the page what follows an early </html>, which the parser holds beside it."""
    for other in list(tree.itersiblings()):
        body = tree.find("body")
        for part in other.iter("html", "body"):
            part.tag = "div"
        (tree if body is None else body).append(other)


def _count(tree: Any) -> int:
    return sum(1 for _ in tree.iter())


def _depth(tree: Any) -> int:
    deepest = depth = 0
    for event, _ in borrow("lxml.etree").iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


# --- what it says of itself


def _title_of(page: str) -> str:
    title = _TITLE.search(page)
    return " ".join(unescape(title[1]).split()) if title else ""


def _licence_of(tree: Any) -> str:
    """Return the Creative Commons licence a page links to as its own, if it is one: "CC-BY-SA-4.0"."""
    links = tree.xpath("//*[self::a or self::link][contains(concat(' ', @rel, ' '), ' license ')]/@href")
    named = {"-".join(["CC", *match.groups("")]).upper() for link in links if (match := _CREATIVE_COMMONS.search(link))}
    dedicated = {"CC0-1.0" for link in links if "creativecommons.org/publicdomain/zero" in link}
    licences = {name.strip("-") for name in named} | dedicated
    return licences.pop() if len(licences) == 1 else ""
