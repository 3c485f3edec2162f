"""Laws of the office readers: what a page shows becomes Markdown, and no bytes of a stranger bring them down."""

import gzip
import io
import json
import logging
import random
import re
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

import office_files as made
from askback.options import PassageOptions
from askback.readers import blocks
from askback.readers.blocks import Cell
from askback.readers.office import parse_docx, parse_epub, parse_pdf
from askback.readers.parsed import Parsed, Refused
from askback.readers.restructured import parse_rst
from askback.records import Document, Passage
from askback.stages.segment import segment

FUZZED = 300


def read(parsed: Parsed | Refused) -> str:
    assert isinstance(parsed, Parsed), parsed
    return parsed.text


def reason(parsed: Parsed | Refused) -> str:
    assert isinstance(parsed, Refused), parsed
    return parsed.reason


# --- PDF


@pytest.fixture(scope="module")
def printed() -> bytes:
    return made.print_pdf()


@pytest.fixture(scope="module")
def pages(printed: bytes) -> str:
    return read(parse_pdf(printed))


def test_larger_letters_are_headings(pages: str) -> None:
    headings = re.findall(r"^#.*", pages, re.MULTILINE)
    assert headings == [
        "# The Tides of a Harbour",
        "## Why the water rises",
        "## What to bring",
        "## Reckoning the height",
    ]


def test_running_headers_and_page_numbers_are_dropped(pages: str) -> None:
    assert "COAST" not in pages
    assert not re.search(r"^\d+$", pages, re.MULTILINE)


def test_a_hyphen_at_the_end_of_a_line_goes_unless_the_word_has_one(pages: str) -> None:
    assert "careful observation of the mark" in pages
    assert "That rule is well-known to every pilot" in pages


def test_ligatures_are_letters(pages: str) -> None:
    assert "soon find that the hour moves on by fifty minutes" in pages


def test_a_sentence_runs_over_the_end_of_a_page(pages: str) -> None:
    assert "where the sentence ends without a break." in pages


def test_a_wider_gap_parts_paragraphs(pages: str) -> None:
    assert "as the moon does.\n\nA second paragraph" in pages


def test_printed_bullets_are_a_list(pages: str) -> None:
    assert (
        "- a lamp that burns for two hours\n- a staff marked in hands, long enough to reach the lowest water\n- chalk"
        in pages
    )


def test_printed_code_keeps_its_lines_and_its_shape(pages: str) -> None:
    code = "def height(hour):\n    if hour < 6:\n        return rise(hour)\n\n    # after that it falls\n    return"
    assert f"```\n{code} fall(hour - 6)\n```\n\nNothing else" in pages


def test_the_largest_heading_is_the_title(printed: bytes) -> None:
    assert getattr(parse_pdf(printed), "title", "") == "The Tides of a Harbour"


def test_a_short_bold_line_that_stands_apart_is_a_heading() -> None:
    text = [made.Mark("Bold words", 30, bold=True), *[made.Mark("and words below them that are not.")] * 6]
    assert read(parse_pdf(made.print_pdf([text], running=False))).startswith("# Bold words\n\nand words")


def test_text_that_runs_up_the_page_is_read_as_it_stands_when_turned() -> None:
    lines = b"BT /F1 12 Tf 0 1 -1 0 100 72 Tm (First of two) Tj 0 -14 Td (lines.) Tj ET"
    stamp = b" BT /F1 12 Tf 300 700 Td (a stamp) Tj ET"
    assert read(parse_pdf(made.raw_pdf(made.stream(lines + stamp)))) == "First of two lines."


def test_what_cannot_be_printed_is_not_read() -> None:
    assert read(parse_pdf(made.raw_pdf(made.stream(b"BT /F1 12 Tf (a\x01b) Tj ET")))) == "ab"


def test_pages_of_pictures_are_called_scanned() -> None:
    assert parse_pdf(made.scan_pdf(2)) == Refused("scanned_pdf", "2 of 2 pages without text; OCR it first")


def lock_pdf(data: bytes, password: str, *, copying: bool = True) -> bytes:
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter(io.BytesIO(data))
    allowed = pypdf.constants.UserAccessPermissions.all()
    flag = allowed if copying else allowed & ~pypdf.constants.UserAccessPermissions.EXTRACT
    writer.encrypt(password, "owner", permissions_flag=flag, algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_a_locked_pdf_is_refused_and_one_everybody_can_open_is_read(printed: bytes) -> None:
    assert reason(parse_pdf(lock_pdf(printed, "secret"))) == "encrypted"
    assert "The Tides" in read(parse_pdf(lock_pdf(printed, "")))
    assert reason(parse_pdf(lock_pdf(printed, "", copying=False))) == "encrypted"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"PK\x03\x04", b"%PDF-1.4\ntrailer<</Root 1 0 R>>"])
def test_what_is_no_pdf_is_refused(data: bytes) -> None:
    assert reason(parse_pdf(data)) == "broken_pdf"


def test_a_damaged_pdf_says_nothing_on_the_screen(capsys: pytest.CaptureFixture[str], printed: bytes) -> None:
    logging.getLogger().handlers, before = [], logging.getLogger().handlers
    parse_pdf(printed[:-300])
    logging.getLogger().handlers = before
    assert capsys.readouterr().err == ""


def test_a_pdf_that_unpacks_without_end_is_refused_in_little_memory() -> None:
    packed = zlib.compress(b" " * 90_000_000, 1)
    bomb = made.raw_pdf(made.stream(packed, b"/Filter/FlateDecode"))
    tracemalloc.start()
    assert reason(parse_pdf(bomb)) == "broken_pdf"
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


# --- DOCX


@pytest.fixture(scope="module")
def word() -> bytes:
    return made.write_docx()


@pytest.fixture(scope="module")
def letter(word: bytes) -> str:
    return read(parse_docx(word))


def test_styles_are_headings(letter: str) -> None:
    headings = re.findall(r"^#.*", letter, re.MULTILINE)
    assert headings == ["# The Keeper of Clocks", "# Winding", "## Tools", "# Oiling"]


def test_runs_that_a_program_cut_up_are_marked_once_and_hidden_words_never_show(letter: str) -> None:
    assert "\nA clock is wound **slowly** and never against its will; type `wind(3)` to begin.\n" in letter


def test_lists_keep_their_kind_and_depth(letter: str) -> None:
    assert "- a key\n    - for the left side\n- an oil can\n1. open the case\n2. turn three times" in letter


def test_a_table_of_a_letter_is_a_table_and_a_bar_in_a_cell_is_none(letter: str) -> None:
    assert "| Part | Turns |\n| --- | --- |\n| Spring | 12 |\n| Bell | 3\\|4 |" in letter


def test_paragraphs_in_a_typewriter_font_are_one_block_of_code(letter: str) -> None:
    assert "```\ndef wind(turns):\n    return turns * 2\n```" in letter


def test_a_quotation_of_a_letter_is_one(letter: str) -> None:
    assert "\n> Time is what the clock leaves over.\n" in letter


def test_the_title_on_the_page_comes_before_that_in_the_properties(word: bytes) -> None:
    assert getattr(parse_docx(word), "title", "") == "The Keeper of Clocks"
    core = made.unpack(word)["docProps/core.xml"]
    plain = made.unpack(made.bare_docx("<w:p><w:r><w:t>Words.</w:t></w:r></w:p>"))
    assert (
        getattr(parse_docx(made.pack({**plain, "docProps/core.xml": core})), "title", "") == "A title in the properties"
    )


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_what_is_deleted_is_gone_and_what_is_inserted_is_there() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>".format
    change = f"<w:ins>{run('new ')}</w:ins><w:del><w:r><w:delText>old </w:delText></w:r></w:del>{run('word')}"
    assert read(parse_docx(made.bare_docx(f"<w:p>{change}</w:p>"))) == "new word"


def test_a_text_box_is_read_once() -> None:
    box = f"<w:txbxContent>{paragraph('In the box.')}</w:txbxContent>"
    held = f"<mc:Choice><w:drawing>{box}</w:drawing></mc:Choice><mc:Fallback><w:pict>{box}</w:pict></mc:Fallback>"
    run = f'<w:r><mc:AlternateContent xmlns:mc="urn:mc">{held}</mc:AlternateContent><w:t>Beside it.</w:t></w:r>'
    assert read(parse_docx(made.bare_docx(f"<w:p>{run}</w:p>"))) == "Beside it.\n\nIn the box."


def test_a_cell_that_goes_on_from_the_row_above_is_empty() -> None:
    def cell(merge: str, text: str) -> str:
        return f"<w:tc><w:tcPr>{merge}</w:tcPr>{paragraph(text)}</w:tc>"

    first = cell('<w:vMerge w:val="restart"/>', "a") + cell("", "b")
    rows = f"<w:tr>{first}</w:tr><w:tr>{cell('<w:vMerge/>', 'a')}{cell('', 'c')}</w:tr>"
    assert read(parse_docx(made.bare_docx(f"<w:tbl>{rows}</w:tbl>"))).endswith("| a | b |\n| --- | --- |\n|  | c |")


def test_both_dialects_of_word_are_read() -> None:
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    level = '<w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Deep</w:t></w:r></w:p>'
    assert read(parse_docx(made.bare_docx(level, namespace=strict))) == "## Deep"


def test_a_document_in_one_font_of_fixed_width_is_no_code() -> None:
    run = '<w:p><w:r><w:rPr><w:rFonts w:ascii="Courier New"/></w:rPr><w:t>{}</w:t></w:r></w:p>'.format
    assert read(parse_docx(made.bare_docx(run("EXT. HARBOUR") + run("Waves.")))) == "EXT. HARBOUR\n\nWaves."


OLD_WORD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "broken_docx"),
        (b"PK\x03\x04 and nothing more", "broken_docx"),
        (made.pack({"word/document.xml": "<a/>"}), "broken_docx"),
        (made.bare_docx("<w:p>"), "broken_docx"),
        (made.bare_docx("<w:p/>"), "empty"),
        (OLD_WORD, "broken_docx"),
        (OLD_WORD + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
        (made.bare_docx("<w:sdt><w:sdtContent>" * 500 + "</w:sdtContent></w:sdt>" * 500), "too_deep"),
        (made.bare_docx(" " * 33_000_000), "zip_bomb"),
    ],
    ids=["nothing", "no_zip", "no_links", "no_xml", "no_words", "doc", "password", "deep", "bomb"],
)
def test_what_is_no_letter_is_refused_by_name(data: bytes, expected: str) -> None:
    assert reason(parse_docx(data)) == expected


LAUGHS = '<!DOCTYPE d [<!ENTITY a "ha ha ha ha ha ">{}]>'.format(
    "".join(f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdef", "bcdefg", strict=True))
)


def test_entities_are_neither_multiplied_nor_fetched(tmp_path: Path) -> None:
    assert reason(parse_docx(made.bare_docx(paragraph("x&g;"), LAUGHS))) == "broken_docx"
    secret = tmp_path / "secret.txt"
    secret.write_text("not for you")
    fetch = f'<!DOCTYPE d [<!ENTITY f SYSTEM "{secret.as_uri()}">]>'
    assert "not for you" not in read(parse_docx(made.bare_docx(paragraph("x&f;"), fetch)))


# --- EPUB


def book(**changed: str) -> bytes:
    """Return the book with some of its files changed, named by their stems."""
    members = made.book_members()
    names = {Path(name).stem.replace(" ", "_"): name for name in members}
    return made.pack({**members, **{names.get(stem, f"META-INF/{stem}.xml"): text for stem, text in changed.items()}})


def test_chapters_come_in_the_order_of_the_spine_with_title_and_rights() -> None:
    parsed = parse_epub(book())
    assert isinstance(parsed, Parsed)
    assert (parsed.title, parsed.licence) == ("Bread & Time", "CC BY-SA 4.0")
    assert re.findall(r"^#.*", parsed.text, re.MULTILINE) == [
        "# The Bakery",
        "## What is kneaded",
        "# warm",
        "# The Oven",
    ]  # the third is a comment in a fence; the last stands in the table of contents alone


def test_every_block_of_a_chapter_is_its_like_in_markdown() -> None:
    text = read(parse_epub(book()))
    for block in [
        "Bread rises **slowly**.",
        "loose words",
        "- flour\n- water\n  3. cold",
        "```python\n# warm\ndef knead():\n    return 1\n```",
        "| Loaf | Minutes |\n| --- | --- |\n| rye | 50 |\n|  | 55 |",
        "> An oven is a promise.",
        "- **crumb**: the inside",
        "No heading here,\nbut a line break & a loose sign.",
    ]:
        assert f"\n\n{block}" in text


def test_a_heading_inside_an_item_or_a_quotation_cuts_nothing() -> None:
    page = "<html><body><ul><li><h3>Salt</h3><p>white</p></li></ul><blockquote><h2>Said</h2></blockquote></body></html>"
    text = read(parse_epub(book(one=page)))
    assert "- **Salt**\n\n  white" in text
    assert "> **Said**" in text


def test_words_deep_in_a_page_are_kept_or_the_book_is_refused_by_name() -> None:
    for depth in (200, 300, 2000):
        parsed = parse_epub(book(one=f"<html><body>{'<div>' * depth}marker{'</div>' * depth}</body></html>"))
        assert "marker" in parsed.text if isinstance(parsed, Parsed) else parsed.reason == "too_deep"


def test_locked_chapters_refuse_a_book_and_scrambled_fonts_do_not() -> None:
    assert reason(parse_epub(book(encryption=made.lock("OEBPS/text/one.xhtml")))) == "encrypted"
    assert read(parse_epub(book(encryption=made.lock("OEBPS/fonts/serif.otf"))))


def test_a_missing_chapter_is_never_passed_over() -> None:
    members = made.book_members()
    del members["OEBPS/text/one.xhtml"]
    assert parse_epub(made.pack(members)) == Refused("broken_epub", "OEBPS/text/one.xhtml is missing")


def test_a_page_may_not_multiply_its_entities() -> None:
    page = f"{LAUGHS.replace('DOCTYPE d', 'DOCTYPE html')}<html><body><p title='&g;'>x &g; y</p></body></html>"
    assert len(read(parse_epub(book(one=page)))) < 1000


# --- reStructuredText

SPHINX = """\
:mod:`!tides` --- How tides work
================================

.. toctree::
   :maxdepth: 2

   one

Ask :func:`~tides.high.reckon` or :class:`lists <list>`, see :ref:`below <low>`. As *said* [1]_, **twice**.

.. function:: reckon(place, day)

   Return the *height*.

.. versionchanged:: 3.15
   Takes ``hours``.

.. code-block:: python
   :emphasize-lines: 1

   # one
   x = 1

.. note:: Water.

.. include:: /etc/hostname

.. raw:: html

   <b>bold</b>

Low
---

====== =====
Sea    Tides
====== =====
North  2
====== =====

1. first

   - inner
2. second

term
   what is said

.. [1] Somebody.
"""


def test_what_only_sphinx_knows_keeps_its_words() -> None:
    text = read(parse_rst(SPHINX))
    for block in [
        "# tides --- How tides work\n\nAsk `reckon` or lists, see below. As *said*, **twice**.\n",
        "`reckon(place, day)`: Return the *height*.",
        "**Changed in version 3.15**: Takes `hours`.",
        "```python\n# one\nx = 1\n```",
        "**Note**: Water.",
        "## Low\n\n| Sea | Tides |\n| --- | --- |\n| North | 2 |",
        "1. first\n   - inner\n2. second",
        "- **term**: what is said",
        "[1] Somebody.",
    ]:
        assert block in text


def test_a_text_takes_no_file_no_raw_html_and_no_date() -> None:
    hostname = Path("/etc/hostname")
    text = read(parse_rst(f"{SPHINX}\n.. |today| date::\n\nIt is |today|.\n"))
    assert not hostname.is_file() or hostname.read_text().strip() not in text
    assert "bold</b>" not in text
    assert "It is |today|." in text


def test_a_text_holds_nothing_that_no_file_could_hold() -> None:
    assert read(parse_rst(".. |half| unicode:: U+D800\n\nA |half| word.")).encode() == b"A  word."


def test_a_role_defined_in_one_text_is_unknown_in_the_next() -> None:
    uses = "Press :key:`Enter`."
    before = read(parse_rst(uses))
    assert read(parse_rst(f".. role:: key\n\n{uses}")) != before
    assert read(parse_rst(uses)) == before


def test_field_lists_at_the_top_are_facts_of_the_text() -> None:
    parsed = parse_rst("Head\n====\n\n:Author: A. Body\n:License: MIT\n\nWords.\n")
    assert parsed == Parsed(text="# Head\n\nWords.", title="Head", licence="MIT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (".. a comment", "empty"),
        ("x" * 200_000, "line_too_long"),
        ("".join("   " * depth + "* a\n\n" for depth in range(200)), "too_deep"),
    ],
    ids=["nothing", "comment", "line", "deep"],
)
def test_a_text_without_words_or_beyond_reading_is_refused_by_name(text: str, expected: str) -> None:
    assert reason(parse_rst(text)) == expected


def test_sixty_enhancement_proposals_keep_their_sections_and_words(shared: Path) -> None:
    with gzip.open(shared / "pretrain" / "text.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [row["text"] for row in map(json.loads, file) if row["source"].startswith("peps")][::10][:60]
    assert len(texts) == 60
    adorned = re.compile(r"^(\S.*)\n(={4,}|-{4,}|~{4,})$", re.MULTILINE)
    words = re.compile(r"[A-Za-z]{3,}")
    sections = found = said = kept = 0
    for text in texts:
        markdown = read(parse_rst(text))
        sections += len(adorned.findall(text))
        found += len(re.findall(r"^#{1,6} ", markdown, re.MULTILINE))
        _, _, body = text.partition("\n\n")
        before, after = Counter(words.findall(body)), Counter(words.findall(markdown))
        said, kept = said + before.total(), kept + (before & after).total()
    assert sections > 500
    assert 0.95 * sections < found < 1.3 * sections  # other signs adorn titles too; comments in fences look like some
    assert kept / said > 0.94  # what is missing are the targets of links


# --- what comes of it


def test_segment_cuts_every_format_at_its_headings(printed: bytes, word: bytes) -> None:
    options = PassageOptions(min_chars=20, max_chars=300)
    for parsed, heading in [
        (parse_pdf(printed), "What to bring"),
        (parse_docx(word), "Winding"),
        (parse_epub(book()), "The Bakery"),
        (parse_rst(SPHINX), "Low"),
    ]:
        cuts = segment([Document(id="d", text=read(parsed), source="s")], options)
        assert heading in [cut.heading for cut in cuts if isinstance(cut, Passage)]


def test_prose_that_looks_like_a_mark_is_escaped() -> None:
    assert blocks.paragraph("# not a heading") == "\\# not a heading"
    assert blocks.paragraph("```") == "\\```"
    assert blocks.fence("a ``` b").startswith("````\n")


def test_no_table_grows_beyond_what_was_written() -> None:
    wide = [Cell("a")] * 3000
    text = blocks.table([wide, *[[Cell("b", columns=10**6, rows=10**6)]] * 3000])
    assert len(text) < 6e6


# --- strangers


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return data with some bytes changed, cut out, repeated, or replaced by a number nobody expects."""
    piece = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at, other = chance.randrange(len(piece)), chance.randrange(len(piece))
        match chance.randrange(4):
            case 0:
                piece[at] = chance.randrange(256)
            case 1 if len(piece) > 100:
                del piece[at : at + chance.randint(1, 40)]
            case 2:
                piece[at:at] = piece[other : other + 40]
            case _:
                piece[at : at + 2] = b"%d" % chance.choice([0, -1, 65_536, 10**9])
    return bytes(piece)


def rearrange(data: bytes, chance: random.Random) -> bytes:
    """Return XML that is still well formed, with elements renamed, moved, repeated or emptied and values changed."""
    root = etree.fromstring(data)
    for _ in range(chance.randint(1, 6)):
        nodes = [node for node in root.iter() if isinstance(node.tag, str)]
        node, other = chance.choice(nodes), chance.choice(nodes)
        match chance.randrange(4):
            case 0:
                node.tag = other.tag
            case 1 if node is not root:
                node.getparent().remove(node)
            case 2 if root not in (node, other) and node not in other.iterancestors() and node is not other:
                other.append(node)
            case _:
                for key in node.attrib:
                    node.set(key, chance.choice(["", "-1", "99999999999", "NaN", "a b", "\u0663"]))
    return bytes(etree.tostring(root))


def member_damaged(members: dict[str, bytes], names: list[str], chance: random.Random) -> bytes:
    name = chance.choice(names)
    try:
        harm = rearrange(members[name], chance) if chance.random() < 0.7 else damage(members[name], chance)
    except etree.XMLSyntaxError:
        harm = damage(members[name], chance)
    return made.pack({**members, name: harm})


def survives(
    parse: Callable[[bytes], Parsed | Refused], make: Callable[[random.Random], bytes], times: int = FUZZED
) -> Counter[str]:
    """Count what becomes of damaged files; an exception fails the test."""
    chance = random.Random(20)
    outcomes = (parse(make(chance)) for _ in range(times))
    return Counter("parsed" if isinstance(outcome, Parsed) else outcome.reason for outcome in outcomes)


def test_no_damaged_pdf_raises() -> None:
    small = made.print_pdf(made.CHAPTERS[2:], **{"pdf.use14corefonts": True, "pdf.compression": 0})
    seen = survives(parse_pdf, lambda chance: damage(small, chance))
    assert seen.total() == FUZZED
    assert set(seen) <= {"parsed", "broken_pdf", "empty", "encrypted", "scanned_pdf"}
    assert seen["parsed"] > 20


def test_no_damaged_letter_raises(word: bytes) -> None:
    names = ["word/document.xml", "word/styles.xml", "word/numbering.xml", "_rels/.rels"]
    members = {name: data for name, data in made.unpack(word).items() if name in names}
    seen = survives(parse_docx, lambda chance: member_damaged(members, names, chance), FUZZED // 2)
    packed = made.pack(members)
    whole = survives(parse_docx, lambda chance: damage(packed, chance), FUZZED // 2)
    assert set(seen) | set(whole) <= {"parsed", "broken_docx", "empty", "encrypted"}
    assert seen["parsed"] > 20


def test_no_damaged_book_raises() -> None:
    members = {name: data.encode() if isinstance(data, str) else data for name, data in made.book_members().items()}
    names = [name for name in members if name != "mimetype"]
    seen = survives(parse_epub, lambda chance: member_damaged(members, names, chance), FUZZED // 2)
    whole = survives(parse_epub, lambda chance: damage(made.pack(members), chance), FUZZED // 2)
    assert set(seen) | set(whole) <= {"parsed", "broken_epub", "empty", "encrypted"}
    assert seen["parsed"] > 20


def test_no_damaged_text_raises() -> None:
    seen = survives(
        lambda data: parse_rst(data.decode("utf-8", errors="replace")), lambda chance: damage(SPHINX.encode(), chance)
    )
    assert set(seen) <= {"parsed", "empty", "broken_rst"}
    assert seen["parsed"] > 0.9 * FUZZED
