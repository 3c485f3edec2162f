"""Files of office formats, made here: what a writer, a printer and a publisher would leave."""

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

BODY, TITLE, SECTION, LEADING = 10.0, 22.0, 14.0, 13.0
LEFT, TOP = 72.0, 740.0


class Mark(NamedTuple):
    """A line of print: how far below the one before it, how large, in which font, how far in."""

    text: str
    below: float = LEADING
    size: float = BODY
    mono: bool = False
    bold: bool = False
    indent: float = 0.0


CHAPTERS: Sequence[Sequence[Mark]] = (
    (
        Mark("The Tides of a Harbour", 40, TITLE),
        Mark("Why the water rises", 30, SECTION),
        Mark("Twice a day the sea climbs the harbour wall and leaves it again. Who keeps a careful obser-", 20),
        Mark("vation of the mark on the wall will soon ﬁnd that the hour moves on by ﬁfty minutes from"),
        Mark("one day to the next, as the moon does."),
        Mark("A second paragraph stands apart from the ﬁrst, and it speaks of the well-known rule that the", 20),
        Mark("highest water follows the full moon. That rule is well-"),
        Mark("known to every pilot along this coast, and it runs on to the next page where the sentence"),
    ),
    (
        Mark("ends without a break.", 60),
        Mark("What to bring", 30, SECTION),
        Mark("For a morning at the wall three things are needed:", 20),
        Mark("• a lamp that burns for two hours", 20, indent=10),
        Mark("• a staff marked in hands, long enough to reach", 16, indent=10),
        Mark("the lowest water", indent=18),
        Mark("• chalk", 16, indent=10),
        Mark("The rest is patience, and a book in which the heights are kept in their order.", 20),
    ),
    (
        Mark("Reckoning the height", 60, SECTION),
        Mark("The height is reckoned with a few lines, which any machine can follow:", 20),
        Mark("def height(hour):", 20, mono=True),
        Mark("if hour < 6:", 12, mono=True, indent=24),
        Mark("return rise(hour)", 12, mono=True, indent=48),
        Mark("# after that it falls", 24, mono=True, indent=24),
        Mark("return fall(hour - 6)", 12, mono=True, indent=24),
        Mark("Nothing else is needed, for the wind is left out of account.", 20),
    ),
)
"""Three pages: a sentence over the end of a page, hyphens that belong to a word and that do not, a list, and code."""


def print_pdf(chapters: Iterable[Sequence[Mark]] = CHAPTERS, *, running: bool = True, **settings: object) -> bytes:
    """Return a PDF of a page for each chapter, with a header and page numbers where `running`."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages

    file = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42, **settings}), PdfPages(file, metadata={"CreationDate": None}) as pdf:
        for number, chapter in enumerate(chapters, 1):
            pdf.savefig(_print_page(chapter, number if running else 0))
    return file.getvalue()


def _print_page(chapter: Sequence[Mark], number: int) -> Any:
    from matplotlib.figure import Figure

    page = Figure(figsize=(612 / 72, 792 / 72))
    if number:
        page.text(LEFT / 612, 765 / 792, "A BOOK OF THE COAST", fontsize=8)
        page.text(0.5, 30 / 792, str(number), fontsize=8)
    y = TOP
    for mark in chapter:
        y -= mark.below
        family, weight = "monospace" if mark.mono else "sans-serif", "bold" if mark.bold else "normal"
        at = (LEFT + mark.indent) / 612, y / 792
        page.text(*at, mark.text, family=family, fontweight=weight, fontsize=mark.size)
    return page


def scan_pdf(pages: int) -> bytes:
    """Return a PDF whose pages are pictures."""
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with PdfPages(file) as pdf:
        for page in range(pages):
            figure = Figure(figsize=(3, 4))
            figure.figimage([[0.1 * page, 0.9], [0.5, 0.2]], resize=False)
            pdf.savefig(figure)
    return file.getvalue()


def write_docx() -> bytes:
    """Return a Word document with headings, two kinds of list, a table, a quotation, code and a hidden word."""
    import docx
    from docx.shared import Pt

    document = docx.Document()
    document.core_properties.title = "A title in the properties"
    document.add_heading("The Keeper of Clocks", 0)
    document.add_heading("Winding", 1)
    paragraph = document.add_paragraph("A clock is wound ")
    paragraph.add_run("slow").bold = True
    paragraph.add_run("ly").bold = True
    paragraph.add_run(" and never against its will; type ")
    paragraph.add_run("wind(3)").font.name = "Courier New"
    paragraph.add_run(" to begin.")
    paragraph.add_run(" Not for readers.").font.hidden = True
    document.add_heading("Tools", 2)
    for style, text in [
        ("List Bullet", "a key"),
        ("List Bullet 2", "for the left side"),
        ("List Bullet", "an oil can"),
        ("List Number", "open the case"),
        ("List Number", "turn three times"),
    ]:
        document.add_paragraph(text, style=style)
    document.add_paragraph("Time is what the clock leaves over.", style="Quote")
    for line in ["def wind(turns):", "    return turns * 2"]:
        run = document.add_paragraph().add_run(line)
        run.font.name, run.font.size = "Consolas", Pt(9)
    table = document.add_table(rows=3, cols=2)
    for cell, text in zip([*table.columns[0].cells, *table.columns[1].cells], "Part Spring Bell Turns 12 3|4".split()):
        cell.text = text
    document.add_heading("Oiling", 1)
    document.add_paragraph("One drop a year is enough.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def pack(members: Mapping[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, compresslevel=1)
    return file.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def bare_docx(body: str, prolog: str = "", namespace: str = WORD) -> bytes:
    """Return the least a Word document can be, around paragraphs as XML."""
    links = f'<Relationships><Relationship Id="a" Type="{RELATION}" Target="word/document.xml"/></Relationships>'
    text = f'{prolog}<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
    return pack({"_rels/.rels": links, "word/document.xml": text})


CHAPTER_ONE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">
<head><title>ignored</title><style>p {color: red}</style></head>
<body><section><h1 id="a">The <em>Bakery</em></h1>
<p>Bread&nbsp;rises <strong>slowly</strong><sup><a epub:type="noteref" href="#n1">1</a></sup>.</p>
<div><h2>What is kneaded</h2>loose words<ul><li>flour</li><li>water<ol start="3"><li>cold</li></ol></li></ul>
<pre class="language-python"><code># warm
def knead():
    return 1</code></pre>
<table><tr><th>Loaf</th><th>Minutes</th></tr><tr><td rowspan="2">rye</td><td>50</td></tr><tr><td>55</td></tr></table>
<blockquote><p>An oven is a promise.</p></blockquote>
<dl><dt>crumb</dt><dd>the inside</dd></dl></div></section></body></html>"""

CHAPTER_TWO = "<html><body><p class=chapter>No heading here,<br/>but a line break & a loose sign.</p></body></html>"

PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>Bread &amp; Time</dc:title><dc:rights>CC BY-SA 4.0</dc:rights></metadata>
<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="two" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="art" href="cover.jpg" media-type="image/jpeg"/></manifest>
<spine><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/></spine></package>"""

CONTENTS = """<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol>
<li><a href="text/one.xhtml#a">The Bakery</a></li><li><a href="text/two%20b.xhtml">The Oven</a></li>
</ol></nav></body></html>"""


def book_members() -> dict[str, str | bytes]:
    """Return what an EPUB of two chapters holds, the second of them named in the table of contents alone."""
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    return {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "OEBPS/book.opf": PACKAGE,
        "OEBPS/nav.xhtml": CONTENTS,
        "OEBPS/text/one.xhtml": CHAPTER_ONE,
        "OEBPS/text/two b.xhtml": CHAPTER_TWO,
    }


def lock(member: str) -> str:
    """Return the list of locked members as an EPUB holds it."""
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData><CipherData>'
        f'<CipherReference URI="{member}"/></CipherData></EncryptedData></encryption>'
    )


def stream(data: bytes, more: bytes = b"") -> bytes:
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(data), more, data)


def raw_pdf(contents: bytes) -> bytes:
    """Return a PDF of one page around a content stream as it is to stand in the file."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, contents, font]
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 6\n0000000000 65535 f \n" + table + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n"
    return data + head + b"%d\n%%%%EOF" % len(data)
