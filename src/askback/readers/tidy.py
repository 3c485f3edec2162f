"""A page as it was written -> a tree an extractor reads rightly.

Takes: the parsed tree of a page.
Gives: the same tree, changed in place: nothing unseen, no banners, plain code, tables that hold data alone.
Never: takes away a word that a reader of the article sees, line numbers and signs of permanent links excepted.

Each step answers something that was seen lost or garbled without it: code in a <figure> or without <code>, code in
a table of line numbers, rows without a header, pages laid out in tables, words in a <time> or <label>.
"""

import re
from typing import Any

from askback.errors import borrow

_UNSEEN = "//script | //style | //noscript | //template | //svg"
_HIDDEN = "//*[@hidden or @style][not(self::html or self::body or self::main or self::article)]"
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_MOST_HIDDEN = 0.8  # of which more is hidden shows it by a script
_NAVIGATION = "//nav | //*[@role='navigation']"
_BANNERS = (
    "//footer[not(ancestor::article)] | //header[not(ancestor::article or ancestor::main)]"
    " | //*[@role='banner' or @role='contentinfo']"
)
_MOST_OF_BANNER = 0.5  # what holds more of a page is none, whatever it is called
_MEANINGLESS = ("span", "font", "big", "nobr", "wbr", "bdi", "bdo")
_MARKUP = (
    *_MEANINGLESS,
    *"a abbr b cite code del em i ins kbd mark q s samp small strike strong sub sup tt u var".split(),
)
_NAME = re.compile(r"[a-z][a-z0-9_-]*")  # of an element one may make; pages have others, such as <o:p>
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]"
)  # what lxml reads, but does not write
_LINE_NUMBERS = (
    "//*[self::td or self::span or self::pre or self::div][ancestor-or-self::pre or ancestor::table]"
    "[re:test(@class, '(^|[\\s_-])(gutter|lineno|linenos|linenodiv|line-numbers?|blob-num)($|[\\s_-])')]"
)
_INLINE = frozenset([*_MARKUP, "br", "img", "picture", "source", "time", "label", "button", "input", "math", "ruby"])
_MOST_CELLS = 10_000  # of a table whose cells say that they span others: a short page can ask for millions
_LANGUAGE = re.compile(r"(?:^|\s)(?:(?:language|lang|highlight-source|highlight|sourceCode)-|brush:\s*)([\w+#]+)")
_NO_LANGUAGES = frozenset("default none text plain plaintext nohighlight notranslate".split())
_CONTAINERS = ("article", "body", "center", "div", "main", "section")
_SENTENCES = ("p", "li", "td", "dd", "blockquote")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_PERMALINKS = ("¶", "#", "§", "🔗")
_NOTE = "//aside[re:test(@class, '(^|[\\s_-])(note|tip|warning|caution|important|admonition|callout)($|[\\s_-])')]"
_LAID_OUT = (
    "count(.//tr) < 2 or not(.//tr[count(td | th) > 1])"
    " or .//table or .//h1 or .//h2 or .//h3 or .//h4 or .//form or .//pre or .//blockquote"
    " or .//td[count(.//p) > 1 or string-length(.) > 1000]"
)


def tidy(tree: Any) -> None:
    """Take off what is not seen or not the article, and write code, tables and sentences so that they survive."""
    _make_writable(tree)
    _drop_unseen(tree)
    _unwrap(tree, *_MEANINGLESS)
    _drop_around(tree)
    _plain_code(tree)
    _plain_tables(tree)
    _whole_sentences(tree)
    _whole_paragraphs(tree)


def _make_writable(tree: Any) -> None:
    """Take out what is read from a page, but could not be written again: odd names and characters."""
    for element in tree.iter():
        if not _NAME.fullmatch(element.tag):
            element.tag = "span"
        if element.text and _CONTROL.search(element.text):
            element.text = _CONTROL.sub("", element.text)
        if element.tail and _CONTROL.search(element.tail):
            element.tail = _CONTROL.sub("", element.tail)


def flatten(tree: Any) -> None:
    """Take off inline markup, as where somebody left hundreds of <b> open; its words remain."""
    _unwrap(tree, *_MARKUP)


def _unwrap(tree: Any, *tags: str) -> None:
    borrow("lxml.etree").strip_tags(tree, *tags)
    for element in tree.iter():
        element.text, element.tail = element.text, element.tail  # one node of text where there are many now


def _find(tree: Any, xpath: str) -> list[Any]:
    return list(tree.xpath(xpath, namespaces={"re": "http://exslt.org/regular-expressions"}))


def _drop(elements: list[Any]) -> None:
    for element in elements:
        if element.getparent() is not None:
            element.drop_tree()


def _drop_unseen(tree: Any) -> None:
    _drop(tree.xpath(_UNSEEN))
    hidden = [
        element
        for element in tree.xpath(_HIDDEN)
        if "hidden" in element.attrib or _HIDING.search(element.get("style", ""))
    ]
    if sum(len(element.text_content()) for element in hidden) < _MOST_HIDDEN * len(tree.text_content()):
        _drop(hidden)


def _drop_around(tree: Any) -> None:
    """Take off what stands around the article by its name: navigation, banners, footers."""
    _drop(tree.xpath(_NAVIGATION))
    whole = len(tree.text_content())
    for element in tree.xpath(_BANNERS):
        if len(element.text_content()) > _MOST_OF_BANNER * whole:
            element.tag = "div"
        else:
            _drop([element])


def _plain_code(tree: Any) -> None:
    """Make every block of code `<pre><code>text</code></pre>`, in no figure, table or line numbers."""
    _drop(_find(tree, _LINE_NUMBERS))
    for outer in tree.xpath("//pre[.//pre]"):
        outer.tag = "div"
    for outer in tree.xpath("//code[.//pre]"):
        outer.drop_tag()
    for table in tree.xpath("//table[count(.//pre) = 1 and count(.//tr) = 1]"):
        if (code := table.find(".//pre")) is not None:  # a table around this one may have lost it by now
            table.getparent().replace(table, _with_tail(code, table.tail))
    for figure in tree.xpath("//figure[.//pre or .//table]"):
        figure.tag = "div"
    for block in tree.iter("pre"):
        _set_code(block)


def _with_tail(element: Any, tail: str | None) -> Any:
    element.tail = tail
    return element


def _set_code(block: Any) -> None:
    for line_break in block.iter("br"):
        line_break.tail = "\n" + (line_break.tail or "")
    text, tail, language = block.text_content(), block.tail, _language(block)
    for child in list(block):
        block.remove(child)
    block.text, block.tail = None, tail
    code = borrow("lxml.etree").SubElement(block, "code", {"lang": language} if language else {})
    code.text = text.strip("\n") + "\n"


def _language(block: Any) -> str:
    """Return the language a class names: of the code, of its block or of the two elements around that."""
    around = [*block.iter("code"), block, *list(block.iterancestors())[:2]]
    named = (match[1].lower() for element in around for match in _LANGUAGE.finditer(element.get("class", "")))
    return next((language for language in named if language not in _NO_LANGUAGES), "")


def _plain_tables(tree: Any) -> None:
    """Make tables of layout blocks, and give a table of data the header Markdown wants."""
    for quote in tree.xpath("//blockquote[.//table]"):
        quote.tag = "div"
    for table in reversed(tree.xpath("//table")):
        if table.get("role") in ("presentation", "none") or table.xpath(_LAID_OUT):
            _take_apart(table)
            continue
        for part in list(table.iter("ul", "ol", "li")):
            part.text, part.tail = f" {part.text or ''}", f" {part.tail or ''}"
            part.drop_tag()
        for caption in table.findall("caption"):
            caption.tag = "p"
            table.addprevious(_with_tail(caption, None))
        if sum(_span(cell, "colspan") * _span(cell, "rowspan") for cell in table.iter("td", "th")) > _MOST_CELLS:
            borrow("lxml.etree").strip_attributes(table, "colspan", "rowspan")
        if table.find(".//th") is None:
            for cell in table.xpath("(.//tr)[1]/td"):
                cell.tag = "th"


def _span(cell: Any, name: str) -> int:
    said = cell.get(name, "1").strip()
    return int(said[:4]) if said.isdecimal() else 1


def _take_apart(table: Any) -> None:
    cells = ("table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th")
    inner = {part for nested in table.iterdescendants("table") for part in nested.iter(*cells)}
    for part in list(table.iter(*cells)):
        if part not in inner:
            part.tag = "div"


def _whole_sentences(tree: Any) -> None:
    for element in list(tree.iter("time", "label", "button")):
        if next(element.iterancestors(*_SENTENCES), None) is not None:
            element.drop_tag()
    for heading in tree.iter(*_HEADINGS):
        _drop([link for link in heading.iter("a") if link.text_content().strip() in _PERMALINKS])
    for note in _find(tree, _NOTE):
        note.tag = "div"


def _whole_paragraphs(tree: Any) -> None:
    """Give loose words between blocks, and those between two line breaks, a paragraph of their own."""
    for paragraph in list(tree.iter("p")):
        if any(map(_is_second_break, paragraph.iter("br"))):
            paragraph.tag = "div"
    for container in list(tree.iter(*_CONTAINERS)):
        if container.text_content().strip():
            _wrap_words(container)


def _is_second_break(element: Any) -> bool:
    before = element.getprevious()
    return element.tag == "br" and before is not None and before.tag == "br" and not (before.tail or "").strip()


def _wrap_words(container: Any) -> None:
    children = [(child, child.tail, _is_second_break(child)) for child in container]
    words, container.text = container.text, None
    for child, _, _ in children:
        container.remove(child)
        child.tail = None
    paragraph = _add_words(container, None, words)
    for child, tail, is_second_break in children:
        if is_second_break or _is_block(child):
            paragraph = None
        if _is_block(child):
            container.append(child)
        elif child.tag != "br" or paragraph is not None:
            paragraph = _open_paragraph(container) if paragraph is None else paragraph
            paragraph.append(child)
        paragraph = _add_words(container, paragraph, tail)


def _add_words(container: Any, paragraph: Any, words: str | None) -> Any:
    """Return the paragraph the words were added to; white space alone opens none."""
    if not words or (paragraph is None and not words.strip()):
        return paragraph
    paragraph = _open_paragraph(container) if paragraph is None else paragraph
    last = next(paragraph.iterchildren(reversed=True), None)  # len() would count them all each time
    if last is None:
        paragraph.text = (paragraph.text or "") + words
    else:
        last.tail = (last.tail or "") + words
    return paragraph


def _open_paragraph(container: Any) -> Any:
    return borrow("lxml.etree").SubElement(container, "p")


def _is_block(element: Any) -> bool:
    return any(inner.tag not in _INLINE for inner in element.iter())
