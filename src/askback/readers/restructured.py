"""Read reStructuredText, that of Sphinx and of Python's enhancement proposals included, as Markdown.

Takes: a text.  Gives: Parsed with its Markdown, or Refused: `empty`, `too_deep`, `line_too_long`, `broken_rst`.
Never: opens the file a text names, takes raw HTML from it, prints what is wrong with it, or depends on the texts read
before or on the day.

Words that docutils would drop since it does not know the directive around them are read in their turn.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

from askback.errors import borrow
from askback.readers import blocks
from askback.readers.blocks import Cell
from askback.readers.parsed import Parsed, Refused
from askback.records import excerpt

MAX_LINE_CHARS = 100_000
"""docutils matches patterns against whole lines: a longer one is no prose."""

Node = Any  # of docutils, which has no types

SETTINGS = {
    "_disable_config": True,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "warning_stream": False,
    "traceback": True,  # an error is raised, instead of printed before the process ends
    "line_length_limit": MAX_LINE_CHARS,
    "syntax_highlight": "none",
    "smart_quotes": False,
    "strip_comments": True,
}
"""What a text may do to this machine: nothing. Messages stay in the tree, since words may hang on them."""

_MAIL_HEADER = re.compile(r"\s*PEP: ")
_TODAY = re.compile(r"^\.\.[ \t]+\|[^|\n]+\|[ \t]+date::.*$", re.MULTILINE)
_LANGUAGE = re.compile(r"^[ \t]*\.\.[ \t]+(?:code|code-block|sourcecode)::[ \t]*(\S+)", re.MULTILINE)
_DIRECTIVE = re.compile(r"[ \t]*\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:.+-]+?)[ \t]?::(?:[ \t]+(.*)|$)", re.MULTILINE)
_OPTIONS = re.compile(r"(?:[ \t]*:[\w-]+:.*\n?)*")
_ROLE = re.compile(r":([\w:.+-]+):`([^`]+)`")
_TARGET = re.compile(r"(.+?)\s*<[^<>]+>$", re.DOTALL)
_ERROR = 3  # level of a message from which on docutils may have left words out
_ADORNMENT = re.compile(r"([^\w\s])\1*\s*")

_MARKS = {"emphasis": "*", "strong": "**", "literal": "`", "math": "`"}
_ADMONITIONS = frozenset("attention caution danger error hint important note tip warning".split())
_DROPPED = frozenset(
    "comment docinfo decoration footnote_reference image label meta pending raw substitution_definition target title "
    "subtitle transition".split()
)
"""Says nothing in words, or is written by its parent."""

_TEXT_ROLES = frozenset("abbr dfn doc guilabel menuselection numref ref sub sup term".split())
_CODE_DIRECTIVES = frozenset(
    "code-cell doctest ipython jupyter-execute math parsed-literal productionlist prompt testcode testoutput".split()
)
_MUTE_DIRECTIVES = frozenset(
    "codeauthor contents currentmodule date default-role graphviz highlight image include index inheritance-diagram "
    "literalinclude mermaid meta module moduleauthor plot raw replace role sectionauthor sectnum tabularcolumns "
    "testcleanup testsetup toctree uml unicode".split()
)
_SETTING_DIRECTIVES = frozenset("container figure grid grid-item ifconfig list-table only tab-set tabs".split())
"""Their argument is no text, what they hold is."""
_VERSIONS = {
    "versionadded": "Added in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "versionremoved": "Removed in version",
}
_OBJECTS = frozenset("attribute class data decorator exception function macro member method property type var".split())


def parse_rst(text: str) -> Parsed | Refused:
    """Return a text as Markdown; the first section of a text that has one alone is its title."""
    longest = max(map(len, text.split("\n")))
    if longest > MAX_LINE_CHARS:
        return Refused("line_too_long", f"{longest} characters, at most {MAX_LINE_CHARS}")
    docutils = borrow("docutils", "office")
    try:
        with _own_roles():
            tree = _parse(text)
            markdown = blocks.printable("\n\n".join(_document(tree))).strip()
    except RecursionError:
        return Refused("too_deep", "lists or quotations nested without end")
    except (docutils.ApplicationError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return Refused("broken_rst", f"{type(error).__name__}: {excerpt(str(error))}")
    if not markdown:
        return Refused("empty", "no block with text")
    facts = dict(_facts(tree))
    title = facts.get("title", "") or blocks.title_of(markdown)
    return Parsed(text=markdown, title=title, licence=facts.get("licence", "") or facts.get("license", ""))


@contextmanager
def _own_roles() -> Iterator[None]:
    """Forget the roles a text defined: docutils would read every later text of the process with them."""
    roles = borrow("docutils.parsers.rst.roles", "office")
    known = dict(roles._roles)
    try:
        yield
    finally:
        roles._roles.clear()
        roles._roles.update(known)


def _parse(text: str, *, whole: bool = True) -> Node:
    """Return the tree of a text, or of a part of one, at whose top no title and no field list stands for all of it."""
    rst = borrow("docutils.parsers.rst", "office")
    parser = rst.Parser(rfc2822=whole and bool(_MAIL_HEADER.match(text)))
    settings = {**SETTINGS, "doctitle_xform": whole, "docinfo_xform": whole}
    core = borrow("docutils.core", "office")
    tree = core.publish_doctree(_TODAY.sub("", text), parser=parser, settings_overrides=settings)
    languages = {*_LANGUAGE.findall(text)}
    for block in tree.findall(lambda each: each.tagname == "literal_block"):
        named = block["classes"][1:2] if "code" in block["classes"] else []  # or it is some other class it has
        block["language"] = named[0] if named and named[0] in languages else ""
    return tree


def _facts(tree: Node) -> Iterator[tuple[str, str]]:
    """Yield what the field list at the top says of the text."""
    for info in tree:
        if info.tagname == "docinfo":
            yield from (
                (field[0].astext().lower(), blocks.one_line(field[1].astext())) for field in _named(info, "field")
            )


def _named(parent: Node, *names: str) -> Iterator[Node]:
    return (child for child in parent.children if child.tagname in names)


# --- blocks


def _document(tree: Node) -> Iterator[str]:
    """Yield the text; a section that holds all the rest has become the title, one in it that does so the subtitle."""
    titles = [*_named(tree, "title", "subtitle")]
    yield from (blocks.heading(level, _words(title, marks=False)) for level, title in enumerate(titles, 1))
    yield from _flow(tree, level=len(titles))


def _flow(parent: Node, level: int) -> Iterator[str]:
    """Yield the blocks of a node; `level` is that of the section it stands in."""
    for child in parent.children:
        yield from (block for block in _block(child, level) if block)


def _block(node: Node, level: int) -> Iterator[str]:
    name = node.tagname
    if name in _WRITERS:
        yield from _WRITERS[name](node, level)
    elif name in _ADMONITIONS:
        yield blocks.definition(f"**{name.capitalize()}**", [*_flow(node, level)])
    elif name not in _DROPPED:
        texts = borrow("docutils.nodes", "office").TextElement
        yield from [blocks.paragraph(_words(node))] if isinstance(node, texts) else _flow(node, level)


def _section(node: Node, level: int) -> Iterator[str]:
    yield from (blocks.heading(level + 1, _words(title, marks=False)) for title in _named(node, "title"))
    yield from _flow(node, level + 1)


def _topic(node: Node, level: int) -> Iterator[str]:
    """Yield a box with a title; a table of contents is none."""
    if "contents" not in node["classes"]:
        yield from (
            blocks.paragraph(blocks.emphasis(_words(title, marks=False), "**")) for title in _named(node, "title")
        )
        yield from _flow(node, level)


def _rubric(node: Node, level: int) -> Iterator[str]:
    yield blocks.paragraph(blocks.emphasis(_words(node, marks=False), "**"))


def _code(node: Node, level: int) -> Iterator[str]:
    language = {"doctest_block": "pycon", "math_block": "math"}.get(node.tagname, "")
    yield blocks.fence(node.astext(), node.get("language", "") or language)


def _bullets(node: Node, level: int) -> Iterator[str]:
    yield blocks.bullets(_item(child, level) for child in node.children)


def _numbered(node: Node, level: int) -> Iterator[str]:
    yield blocks.numbered((_item(child, level) for child in node.children), node.get("start", 1))


def _item(node: Node, level: int) -> str:
    return blocks.item_of(_flow(node, level))


def _definitions(node: Node, level: int) -> Iterator[str]:
    """Yield a list of what each term, field or option means."""
    yield blocks.bullets(_defined(child, level) for child in node.children)


def _defined(node: Node, level: int) -> str:
    *heads, said = node.children or [node]
    is_option = node.tagname == "option_list_item"
    terms = (blocks.one_line(head.astext() if is_option else _words(head, marks=False)) for head in heads)
    mark = "`" if is_option else "**"
    return blocks.definition(", ".join(blocks.emphasis(term, mark) for term in terms if term), [*_flow(said, level)])


def _quote(node: Node, level: int) -> Iterator[str]:
    yield blocks.quote("\n\n".join(_flow(node, level)))


def _lines(node: Node, level: int) -> Iterator[str]:
    """Yield lines that are to stay lines, such as a poem's."""
    lines = node.findall(lambda each: each.tagname == "line")
    yield blocks.paragraph(blocks.LINE_BREAK.join(_words(line) for line in lines))


def _note(node: Node, level: int) -> Iterator[str]:
    labels = "".join(f"[{label.astext()}] " for label in _named(node, "label"))
    said = "\n\n".join(_flow(node, level))
    yield f"{labels}{said}" if said else ""


def _table(node: Node, level: int) -> Iterator[str]:
    yield from (blocks.paragraph(_words(title)) for title in _named(node, "title"))
    rows = node.findall(lambda each: each.tagname == "row" and each.parent.parent.parent is node)
    yield blocks.table([_cell(entry) for entry in row.children] for row in rows)


def _cell(entry: Node) -> Cell:
    nodes = borrow("docutils.nodes", "office")
    prose = entry.findall(lambda each: isinstance(each, nodes.TextElement) and not isinstance(each, nodes.Inline))
    return Cell(" ".join(map(_words, prose)), 1 + entry.get("morecols", 0), 1 + entry.get("morerows", 0))


# --- what docutils could not read


def _message(node: Node, level: int) -> Iterator[str]:
    """Yield the words that hang on an error: those inside a directive that was not understood, or of a broken block."""
    said = " ".join(child.astext() for child in _named(node, "paragraph"))
    sources = [child.astext() for child in _named(node, "literal_block")] if node["level"] >= _ERROR else []
    for source in sources:
        if directive := _DIRECTIVE.match(source):
            yield from _directive(directive, source.partition("\n")[2], level)
        elif "section title" in said:  # where no section can begin
            lines = (line for line in source.split("\n") if not _ADORNMENT.fullmatch(line))
            yield blocks.paragraph(blocks.emphasis(blocks.one_line(" ".join(lines)), "**"))
        else:
            yield blocks.fence(source)


def _directive(first: re.Match[str], rest: str, level: int) -> Iterator[str]:
    """Yield what a directive holds that only Sphinx or another tool knows, or that has an option of theirs."""
    name, argument, rest = first[1].rpartition(":")[2], (first[2] or "").strip(), dedent(rest)
    body = rest[_OPTIONS.match(rest).end() :].strip("\n")  # type: ignore[union-attr]  # it matches nothing, too
    if name in _MUTE_DIRECTIVES or name.startswith("auto"):
        return
    if name in ("code", "code-block", "sourcecode"):
        yield blocks.fence(body, argument)
    elif name in _CODE_DIRECTIVES:
        yield blocks.fence(body or argument)
    elif name in _VERSIONS:
        version, _, more = argument.partition(" ")
        yield blocks.definition(f"**{_VERSIONS[name]} {version}**", [*_read_again(f"{more}\n{body}", level)])
    elif name in _OBJECTS:
        yield blocks.definition(blocks.emphasis(argument, "`"), [*_read_again(body, level)])
    else:
        kept = "" if name in _SETTING_DIRECTIVES else argument
        yield from _read_again(f"{kept}\n\n{body}" if kept else body, level)


def _read_again(text: str, level: int) -> Iterator[str]:
    return _flow(_parse(text, whole=False), level)


# --- words


def _words(node: Node, *, marks: bool = True) -> str:
    """Return the words of a node, with or without marks for what is bold, slanted or code."""
    pieces = [""]
    for child in node.children:
        if child.tagname == "footnote_reference":
            pieces[-1] = pieces[-1].rstrip()  # the space before it is there for the syntax alone
        else:
            pieces.append(_inline(child, marks=marks))
    return "".join(pieces)


def _inline(node: Node, *, marks: bool = True) -> str:
    name = node.tagname
    if name == "#text":
        return str(node.astext())
    if name == "problematic":
        return _ROLE.sub(lambda found: _role_words(found, marks=marks), node.astext())
    if name == "image":
        return str(node.get("alt", ""))
    if name in ("raw", "system_message"):
        return ""
    text = _words(node, marks=marks)
    return blocks.emphasis(text, _MARKS[name]) if marks and name in _MARKS else text


def _role_words(found: re.Match[str], *, marks: bool) -> str:
    """Return what a role that docutils does not know shows: names of code as code, titles without their target."""
    role, text = found[1].rpartition(":")[2], found[2]
    titled = _TARGET.match(text)
    shown = titled[1] if titled else text.lstrip("!")
    if shown.startswith("~"):
        shown = shown[1:].rpartition(".")[2]
    return shown if titled or role in _TEXT_ROLES or not marks else f"`{shown}`"


_WRITERS: dict[str, Callable[[Node, int], Iterable[str]]] = {
    "section": _section,
    "topic": _topic,
    "sidebar": _topic,
    "admonition": _topic,
    "rubric": _rubric,
    "literal_block": _code,
    "doctest_block": _code,
    "math_block": _code,
    "bullet_list": _bullets,
    "enumerated_list": _numbered,
    "definition_list": _definitions,
    "field_list": _definitions,
    "option_list": _definitions,
    "block_quote": _quote,
    "line_block": _lines,
    "footnote": _note,
    "citation": _note,
    "table": _table,
    "system_message": _message,
}
