"""Laws of the document reader."""

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from askback.errors import ConfigError, DataError
from askback.options import CorpusOptions
from askback.readers.documents import read_documents
from askback.readers.text import first_heading, split_front_matter
from askback.records import Document, Reject, content_id

PAGE = """<!doctype html><html><head><title>Loops &amp; more | Site</title></head><body>
<nav><ul><li><a href="/">Home page</a></li><li><a href="/b">About us</a></li></ul></nav>
{article}
<footer><p>Copyright 2020 Somebody. All rights reserved.</p></footer></body></html>"""
ARTICLE = """<h1>Loops</h1><p>A loop repeats.</p><h2>For</h2><p>It counts.</p>
<pre><code>for x in y:
    # go on
    go(x)</code></pre><ul><li>near</li><li>far</li></ul><ol><li>one</li><li>two</li></ol>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<h3>Three</h3><p>c</p><h4>Four</h4><p>d</p><h5>Five</h5><p>e</p><h6>Six</h6><p>f</p>"""


def outcomes(path: Path | str, **options: Any) -> list[Document | Reject]:
    return list(read_documents(CorpusOptions(path=str(path), **options)))


def by_source(found: list[Document | Reject]) -> dict[str, str]:
    """Return what became of each file or row; a source that occurs twice would show as a lost one."""
    return {item.source: item.reason if isinstance(item, Reject) else "document" for item in found}


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read_one(folder: Path, name: str, content: str | bytes, **options: Any) -> Document:
    (document,) = outcomes(write(folder, {name: content}) / name, **options)
    assert isinstance(document, Document), document
    return document


# --- real documents


def test_every_markdown_file_has_one_outcome_and_its_front_matter_is_its_title(shared: Path) -> None:
    found = outcomes(shared / "corpus" / "markdown", licence="BSD-3-Clause")
    documents = [item for item in found if isinstance(item, Document)]
    assert len(by_source(found)) == len(found) == 400
    assert len(documents) > 390
    assert sum(bool(document.title) for document in documents) >= len(documents) - 2
    assert not [document.source for document in documents if document.text.startswith("---")]
    assert {document.licence for document in documents} == {"BSD-3-Clause"}


def test_every_html_file_has_one_outcome(shared: Path) -> None:
    found = outcomes(shared / "corpus" / "html" / "*" / "source.html")
    assert len(by_source(found)) == len(found) == 40
    assert Counter(by_source(found).values()) == {"document": 38, "duplicate_document": 2}


@pytest.mark.parametrize("name", ["aclu", "blogger", "dev418", "lazy-image-2", "mozilla-1", "toc-missing", "videos-2"])
def test_the_headings_a_person_kept_survive(shared: Path, name: str) -> None:
    (document,) = outcomes(shared / "corpus" / "html" / name / "source.html")
    assert isinstance(document, Document)
    expected = (shared / "corpus" / "html" / name / "expected.html").read_text("utf-8")
    kept = re.findall(r"^#{1,6} ", document.text, re.MULTILINE)
    assert 0 < len(re.findall(r"<h[1-6]", expected)) <= len(kept) + 1


# --- which files


def test_a_folder_is_read_in_order_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"b.txt": "b", "a/z.md": "z", "a.txt": "a", ".x.txt": "x", ".git/y.txt": "y", "c.png": "%PNG"})
    found = outcomes(tmp_path)
    assert [item.source for item in found] == ["a.txt", "a/z.md", "b.txt", "c.png"]
    assert by_source(found)["c.png"] == "unknown_format"
    assert ".png" in next(item.detail for item in found if isinstance(item, Reject))


def test_a_glob_reads_what_it_names_relative_to_its_fixed_part(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.md": "1", "a/b/y.md": "2", "a/.h.md": "3", "a/z.txt": "4"})
    assert [item.source for item in outcomes(tmp_path / "**" / "*.md")] == ["a/b/y.md", "a/x.md"]
    assert [item.source for item in outcomes(tmp_path / "a" / "?.md")] == ["x.md"]


def test_nothing_outside_the_folder_or_that_is_no_file_is_opened(tmp_path: Path) -> None:
    write(tmp_path, {"out/secret.txt": "secret", "in/a.txt": "a", "in/sub/b.txt": "b"})
    inside = tmp_path / "in"
    for link, target in {
        "l.txt": "../out/secret.txt",
        "up": "..",
        "self": "sub",
        "gone.txt": "none",
        "alias.txt": "a.txt",
    }.items():
        (inside / link).symlink_to(target)
    os.mkfifo(inside / "pipe.txt")
    assert by_source(outcomes(inside)) == {
        "a.txt": "document",
        "alias.txt": "duplicate_document",
        "gone.txt": "broken_link",
        "l.txt": "link_outside",
        "pipe.txt": "not_a_file",
        "self": "link_to_folder",
        "sub/b.txt": "document",
        "up": "link_outside",
    }


def test_a_place_with_nothing_to_read_says_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": "x", "b.png": "y", "LICENSE": "z"})
    with pytest.raises(DataError, match=r"found: 2 \.png, 1 without extension; read are \.txt, \.md"):
        outcomes(tmp_path)
    with pytest.raises(DataError, match="found: no file"):
        outcomes(write(tmp_path, {"empty/.hidden": ""}) / "empty")
    with pytest.raises(ConfigError, match="no such file or folder, and no glob"):
        outcomes(tmp_path / "none*.md")
    with pytest.raises(ConfigError, match=r"corpus\.path is empty"):
        outcomes("")


def test_an_index_speaks_of_the_files_beside_it_and_is_no_document(tmp_path: Path) -> None:
    rows = [{"file": "a.md", "genre": "howto", "quality": 4, "licence": "CC0"}, {"file": "../b.md", "genre": "myth"}]
    index = "\n".join(map(json.dumps, rows))
    write(tmp_path, {"sub/index-1.jsonl": index, "sub/a.md": "---\ngenre: guide\n---\na", "b.md": "b", "c.md": "c"})
    said = {
        item.source: (item.genre, item.label, item.licence)
        for item in outcomes(tmp_path, licence="MIT")
        if isinstance(item, Document)
    }
    assert said == {"b.md": ("myth", "", "MIT"), "c.md": ("", "", "MIT"), "sub/a.md": ("guide", "4", "CC0")}


def test_a_broken_index_is_an_error_for_its_labels_would_be_lost(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.jsonl:2: a row of an index"):
        outcomes(write(tmp_path, {"index.jsonl": '{"file": "a.md"}\n{', "a.md": "a"}))


@pytest.mark.parametrize("first", [{"file": "a.md", "text": "s"}, {"file": "a.md"}])
def test_rows_called_index_that_hold_a_text_are_read(tmp_path: Path, first: dict[str, str]) -> None:
    rows = [first, {"file": "b.md", "text": "t"}]
    found = by_source(outcomes(write(tmp_path, {"index.jsonl": "\n".join(map(json.dumps, rows))})))
    assert found == {
        "index.jsonl:1": "document" if "text" in first else "no_text_column",
        "index.jsonl:2": "document",
    }


def test_rows_called_index_without_files_are_documents(tmp_path: Path) -> None:
    assert by_source(outcomes(write(tmp_path, {"index.jsonl": '{"text": "t"}'}))) == {"index.jsonl:1": "document"}


# --- one file


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"\xef\xbb\xbf \r\n", "empty"),
        ("a.md", b"---\ntitle: only\n---\n\n", "empty"),
        ("a.jsonl", b"", "empty"),
        ("a.csv", b"text\n", "empty"),
        ("a.txt", b"x" * 2000, "file_too_large"),
        ("a.txt", bytes(range(256)) * 4, "bad_encoding"),
        ("a.html", b"<html><body><nav>Home</nav></body></html>", "no_article"),
        ("a.odt", b"PK", "unknown_format"),
        ("a.txt.gz", gzip.compress(b"x", mtime=0), "unknown_format"),
    ],
)
def test_a_file_that_is_no_document_is_a_reject_with_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    found = outcomes(write(tmp_path, {name: content, "ok.txt": "fine"}), max_file_mb=0.0015)
    assert by_source(found) == {name: reason, "ok.txt": "document"}


def test_a_document_is_named_by_its_place_and_its_text(tmp_path: Path) -> None:
    document = read_one(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert (document.text, document.source, document.format) == ("one\ntwo\nthree", "a.txt", "text")
    assert document.id == content_id("a.txt", "one\ntwo\nthree")


def test_the_second_document_with_a_text_is_a_reject_that_names_the_first(tmp_path: Path) -> None:
    _, second = outcomes(write(tmp_path, {"a.txt": "same", "b.md": "same\r\n"}))
    assert isinstance(second, Reject)
    assert (second.reason, second.detail) == ("duplicate_document", "the same text stands in a.txt")


GERMAN = "Die Übung wäre für große Schüler möglich; „schön“, sagte Jörg über den Fluß. " * 4
RUSSIAN = "Приливы и отливы зависят от луны и солнца. " * 4


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "utf-8"), (RUSSIAN, "utf-8-sig"), (RUSSIAN, "utf-16"), (RUSSIAN, "cp1251"), (GERMAN, "cp1252")],
)
def test_a_text_is_decoded_whatever_its_encoding(tmp_path: Path, text: str, encoding: str) -> None:
    assert read_one(tmp_path, "a.txt", text.encode(encoding)).text == text


def test_a_page_is_decoded_as_it_declares_and_latin_1_as_browsers_do(tmp_path: Path) -> None:
    for charset, encoding, text in [("iso-8859-1", "cp1252", "It’s 5 €"), ("koi8-r", "koi8-r", "Приливы и луна")]:
        page = f'<html><head><meta charset="{charset}"></head><body><article><p>{text}</p></article></body></html>'
        assert read_one(tmp_path, f"{charset}.html", page.encode(encoding)).text == text


# --- Markdown


def test_front_matter_is_taken_off_and_read(tmp_path: Path) -> None:
    head = "---\nTitle: 'Loops: a guide'\nlicense: MIT\ngenre: howto\ntags:\n  - x\n---\n"
    document = read_one(tmp_path, "a.md", head + "\n# Other\n\nText.", licence="default")
    assert document.text == "# Other\n\nText."
    assert (document.title, document.licence, document.genre) == ("Loops: a guide", "MIT", "howto")


@pytest.mark.parametrize(
    "text", ["---\nA paragraph\n---\nMore", "---\ntitle: x\nno end", "text\n---\na: b\n---\n", "---\n---\n"]
)
def test_a_rule_is_no_front_matter(text: str) -> None:
    assert split_front_matter(text) == ({}, text)


def test_a_title_is_the_first_heading_outside_code() -> None:
    assert first_heading("```sh\n# a comment\n```\n## Lower\n# The *title* #\n") == "The *title*"
    assert first_heading("~~~\n```\n# code\n~~~\n# T") == "T"
    assert first_heading("#hashtag\n## Only lower") == ""


# --- HTML


@pytest.mark.parametrize("around", ["<main><article>{}</article></main>", "<main>{}</main>", "<div>{}</div>", "{}"])
def test_a_small_page_keeps_headings_lists_tables_and_code_but_no_navigation(tmp_path: Path, around: str) -> None:
    document = read_one(tmp_path, "a.html", PAGE.format(article=around.format(ARTICLE)))
    headings = re.findall(r"^#+ \w+$", document.text, re.MULTILINE)
    assert headings == ["# Loops", "## For", "### Three", "#### Four", "##### Five", "###### Six"]
    assert "for x in y:\n    # go on\n    go(x)" in document.text
    assert all(line in document.text.splitlines() for line in ("- near", "- far", "1. one", "2. two"))
    assert re.search(r"\| a \| b \|\n\| --- \| --- \|\n\| 1 \| 2 \|", document.text)
    assert not re.search("Home|About|Copyright", document.text)
    assert (document.title, document.format) == ("Loops", "html")


def test_a_page_without_a_first_heading_is_titled_by_its_head(tmp_path: Path) -> None:
    article = "<article><p>Loops repeat until they are told to stop.</p></article>"
    assert read_one(tmp_path, "a.htm", PAGE.format(article=article)).title == "Loops & more | Site"


def test_a_fragment_of_a_page_is_read(tmp_path: Path) -> None:
    fragment = "<div><h2>Tides</h2>" + "<p>The moon pulls at the sea, and the sea follows it.</p>" * 20 + "</div>"
    assert read_one(tmp_path, "a.html", fragment).text.startswith("## Tides")


def test_markup_nested_beyond_measure_does_not_crash(tmp_path: Path) -> None:
    found = outcomes(write(tmp_path, {"a.html": "<div>" * 50_000 + "deep", "b.html": "<", "c.html": "<!--"}))
    assert len(found) == 3


# --- rows


def test_rows_are_documents_with_what_their_columns_say(tmp_path: Path) -> None:
    row = {"body": "Te\r\nxt", "title": "T", "licence": "CC0", "genre": "myth"}
    document = read_one(tmp_path, "a.jsonl.gz", gzip.compress(json.dumps(row).encode()), text_column="body")
    assert (document.text, document.source, document.title) == ("Te\nxt", "a.jsonl.gz:1", "T")
    assert (document.licence, document.genre, document.format) == ("CC0", "myth", "rows")


def test_every_row_has_one_outcome(tmp_path: Path) -> None:
    rows = ['{"text": "a"}', '{"txt": "b"}', '{"text": 1}', '{"text": " "}', "{", '{"text": "a"}', ""]
    found = outcomes(write(tmp_path, {"a.jsonl": "\n".join(rows), "b.csv": "text,n\nx,1\ny\n"}))
    why = ["document", "no_text_column", "wrong_type", "empty", "bad_json", "duplicate_document"]
    assert list(by_source(found).values()) == [*why, "document", "bad_csv"]
    assert "columns found: txt" in next(
        item.detail for item in found if getattr(item, "reason", "") == "no_text_column"
    )


def test_a_cut_off_row_file_stops_the_reading_by_name(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a"}\n' * 1000)
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: damaged or cut off"):
        outcomes(write(tmp_path, {"a.jsonl.gz": packed[:-9]}))
