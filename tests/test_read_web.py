"""Laws of reading a page: its article comes out whole and as Markdown, and nothing else does.

The steps of `tidy` each answer something that was seen lost or garbled; each has its test here.
"""

from pathlib import Path

import pytest
from benchmarks.corpus_html import measure, read_deep, read_large
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.readers.parsed import Parsed, Refused
from askback.readers.web import MAX_DEPTH, MAX_PAGE_BYTES, MAX_TAGS, parse_html

OPENING = "The tide is drawn by the moon and, less strongly, by the sun, and it turns four times a day on most coasts."
MIDDLE = "A harbour master reads it from a table; a child on the beach reads it from the line of weed on the sand."
CLOSING = "Where both pull in one line the water climbs highest, and a week later it climbs least of all the month."


def read(article: str, *, head: str = "", around: str = "{}") -> str:
    """Return the Markdown of a page that holds an opening, the given part, and a closing."""
    body = around.format(f"<h1>Tides</h1><p>{OPENING}</p>{article}<p>{MIDDLE}</p><p>{CLOSING}</p>")
    parsed = parse_html(f"<html><head><title>Tides</title>{head}</head><body>{body}</body></html>".encode())
    assert isinstance(parsed, Parsed), parsed
    for sentence in (OPENING, MIDDLE, CLOSING):
        assert sentence in parsed.text
    return parsed.text


# --- whole articles


def test_articles_are_cut_as_a_person_cut_them(shared: Path) -> None:
    found = measure(shared)
    assert found["n"] == 40
    assert found["mean"] >= 0.95


# --- what stands around


@pytest.mark.parametrize(
    "around",
    [
        "<nav><ul><li><a href='/'>Elsewhere</a></li></ul></nav><main>{}</main>",
        "<header><h2>Elsewhere</h2></header><article>{}</article>",
        "<div>{}</div><footer><p>Elsewhere, all rights reserved.</p></footer>",
        "<div role='banner'>Elsewhere</div><div>{}</div>",
        "<div>{}<div style='display: none'><p>Elsewhere is hidden.</p></div></div>",
        "<div>{}<div hidden><p>Elsewhere is hidden.</p></div></div>",
        "<div>{}<script>document.write('Elsewhere')</script><noscript>Elsewhere</noscript></div>",
        "<div>{}<template><p>Elsewhere</p></template><svg><text>Elsewhere</text></svg></div>",
        "<div>{}<!-- Elsewhere --></div>",
    ],
)
def test_what_stands_around_an_article_is_left_out(around: str) -> None:
    assert "Elsewhere" not in read("", around=around)


def test_a_page_that_hides_all_of_itself_until_a_script_runs_is_read() -> None:
    assert OPENING in read("", around="<div style='visibility: hidden'>{}</div>")


def test_a_footer_that_holds_the_page_is_no_footer() -> None:
    assert OPENING in read("", around="<footer>{}</footer>")


# --- code


@pytest.mark.parametrize(
    "code",
    [
        "<pre><code class='language-python'>for tide in tides:\n    print(tide)\n</code></pre>",
        "<pre class='brush: python'>for tide in tides:<br>    print(tide)</pre>",
        "<figure><pre><code class='lang-python'>for tide in tides:\n    print(tide)</code></pre></figure>",
        "<div class='highlight-source-python'><pre><span>for</span> tide in tides:\n    <b>print</b>(tide)</pre></div>",
        "<table><tr><td class='gutter'><pre>1\n2</pre></td><td><pre><code class='language-python'>for tide in tides:\n"
        "    print(tide)</code></pre></td></tr></table>",
    ],
)
def test_a_block_of_code_keeps_its_lines_its_indent_and_its_language(code: str) -> None:
    assert "```python\nfor tide in tides:\n    print(tide)\n```" in read(code)


# --- tables and lists


def test_a_table_of_data_is_a_table() -> None:
    rows = "<tr><td>Port</td><td>High</td></tr><tr><td>Brest</td><td>6.1</td></tr><tr><td>Cork</td><td>4.2</td></tr>"
    lines = [line.replace(" ", "") for line in read(f"<table>{rows}</table>").splitlines()]
    assert [line for line in lines if line.startswith("|")] == ["|Port|High|", "|---|---|", "|Brest|6.1|", "|Cork|4.2|"]


def test_a_page_laid_out_in_a_table_is_read_as_text() -> None:
    assert "|" not in read("", around="<table><tr><td>{}</td><td><a href='/'>Home</a></td></tr></table>")


def test_a_table_that_asks_for_a_million_cells_costs_nothing() -> None:
    cell = "<td colspan='1000' rowspan='1000'>6.1</td>"
    assert len(read(f"<table><tr><th>Port</th><th>High</th></tr><tr><td>Brest</td>{cell}</tr></table>")) < 2000


def test_lists_stay_lists_with_what_they_hold() -> None:
    text = read(
        "<ol><li>Look up the port.</li><li>Add an hour:<ul><li>in summer</li><li>not in winter</li></ul></li></ol>"
    )
    assert "1. Look up the port." in text
    assert "2. Add an hour:" in text
    assert [line.strip() for line in text.splitlines() if "winter" in line] == ["- not in winter"]


# --- sentences


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>It turned at <time>six</time> that day.</p>", "It turned at six that day."),
        ("<p>Press <button>Show</button> to see it.</p>", "Press Show to see it."),
        ("<p>Half of <font>what</font> <span>is</span> <o:p>said</o:p>.</p>", "Half of what is said."),
        ("Loose words between blocks.", "Loose words between blocks."),
        ("<div>One paragraph.<br><br>Another paragraph.</div>", "One paragraph.\n\nAnother paragraph."),
        ("<h2>Neaps <a href='#neaps'>¶</a></h2><p>They are low.</p>", "## Neaps\n\nThey are low."),
        ("<p>H<sub>2</sub>O is water.</p>", "H<sub>2</sub>O is water."),
        ("<p>A bell\x07 rang.</p>", "A bell rang."),
    ],
)
def test_words_of_a_sentence_stay_in_it(html: str, text: str) -> None:
    assert text in read(html)


# --- what a page says of itself


@pytest.mark.parametrize(
    ("links", "licence"),
    [
        ("<a rel='license' href='https://creativecommons.org/licenses/by-sa/4.0/'>x</a>", "CC-BY-SA-4.0"),
        ("<link rel='license' href='http://creativecommons.org/publicdomain/zero/1.0/'>", "CC0-1.0"),
        ("<a href='https://creativecommons.org/licenses/by/4.0/'>a picture's</a>", ""),
        (
            "<link rel='license' href='https://creativecommons.org/licenses/by/4.0/'>"
            "<link rel='license' href='https://creativecommons.org/licenses/by-nc/4.0/'>",
            "",
        ),
    ],
)
def test_a_licence_counts_where_the_page_calls_one_its_own(links: str, licence: str) -> None:
    parsed = parse_html(f"<html><head>{links}</head><body><article><p>{OPENING}</p></article></body></html>".encode())
    assert isinstance(parsed, Parsed)
    assert parsed.licence == licence


# --- pages that cannot be read in seconds


def refusal(page: bytes) -> str:
    parsed = parse_html(page)
    assert isinstance(parsed, Refused), parsed
    return parsed.reason


def test_a_marker_300_deep_is_kept_or_refused_by_name() -> None:
    found = read_deep()
    assert found["is_right"]
    assert found["outcome"] in ("read", "too_deep")


def test_a_page_of_50_megabytes_is_refused_at_once() -> None:
    assert read_large()["outcome"] == "page_too_large"


def test_limits_name_what_was_too_much() -> None:
    assert refusal(b"x" * (MAX_PAGE_BYTES + 1)) == "page_too_large"
    assert refusal(b"<p>a</p>" * (MAX_TAGS + 1)) == "page_too_large"
    assert refusal(b"<p " + b"a=1 b=2 c=3 " * 4000 + b">words</p>") == "page_too_large"
    assert refusal(f"<body>{'<div>' * (MAX_DEPTH + 10)}<p>{OPENING}</p>".encode()) == "too_deep"


def test_inline_markup_left_open_hundreds_of_times_is_no_depth() -> None:
    assert OPENING in read("<b>" * 600 + "x")


@pytest.mark.parametrize("page", [b"", b"  \n ", b"<!-- nothing -->", b"<html><body></body></html>"])
def test_a_page_without_words_is_refused(page: bytes) -> None:
    assert refusal(page) in ("empty", "no_article")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<table>",
                "<tr>",
                "<td>",
                "</table>",
                "<pre>",
                "<code>",
                "</pre>",
                "<li>",
                "<ul>",
                "</ul>",
                "<br>",
                "<html>",
                "</html>",
                "<b>",
                "\x00",
                "&#55296;",
                "&amp;",
                "word ",
                "<h2>",
                "<figure>",
                "<blockquote>",
                "<a href='#'>",
                "<time>",
                "\n",
                "é",
            ]
        ),
        max_size=60,
    )
)
def test_whatever_a_page_is_made_of_it_is_read_or_refused(parts: list[str]) -> None:
    assert isinstance(parse_html("".join(parts).encode()), Parsed | Refused)
