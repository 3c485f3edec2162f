"""Laws of looking first: every count adds up, the sample is the same each time, and it all goes on one screen."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from askback.errors import ConfigError
from askback.inspecting import KEPT, Inspection, Quartiles, Shown, inspect, render
from askback.options import Options
from askback.records import Document, Reject

PROSE = (
    "The tide rises because the moon pulls at the sea, and it falls again when the shore has turned away from it. "
    "Between the two there are a little more than six hours. "
)
OPTIONS = Options.model_validate({"passages": {"min_chars": 100, "max_chars": 400, "max_repetition": 1}})


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.md").write_text(f"# Tides\n\n{PROSE}\n\n# Short\n\nNot much.\n", encoding="utf-8")
    (folder / "b.md").write_text(f"# See also\n\n{PROSE} More of it.\n", encoding="utf-8")
    (folder / "c.txt").write_text(f"{PROSE * 3}\n", encoding="utf-8")
    (folder / "d.txt").write_text("", encoding="utf-8")
    (folder / "e.bin").write_bytes(b"\0\1")
    return str(folder)


def test_every_count_adds_up(corpus: str) -> None:
    found = inspect(corpus, OPTIONS)
    assert (found.documents, found.is_whole) == (3, True)
    for counts in (found.formats, found.encodings, found.languages, found.licences):
        assert sum(counts.values()) == 3
    assert (found.formats, found.languages) == ({"markdown": 2, "text": 1}, {"en": 3})
    assert sum(found.rejected.values()) == 2
    assert found.kept + sum(found.dropped.values()) == found.passages == 4
    assert found.dropped == {"too_long": 1, "too_short": 1, "navigation_heading": 1}
    assert Counter(cut.reason for cut in found.shown) == Counter([KEPT, *found.dropped])
    assert Shown(KEPT, len(PROSE.strip()), "Tides", "a.md") in found.shown


def test_a_sample_is_the_first_documents_and_the_same_each_time(corpus: str) -> None:
    first = inspect(corpus, OPTIONS, sample=1)
    assert (first.documents, first.is_whole) == (1, False)
    assert {cut.source for cut in first.shown} == {"a.md"}
    assert inspect(corpus, OPTIONS) == inspect(corpus, OPTIONS, sample=9)


def test_a_corpus_of_little_but_rejects_ends_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rejects = (Reject(str(number), "broken") for number in iter(int, 1))
    monkeypatch.setattr("askback.readers.documents.read_documents", lambda options: rejects)
    found = inspect("crawl", OPTIONS, sample=2)
    assert (found.documents, found.rejected, found.is_whole) == (0, {"broken": 20}, False)
    assert "0 documents read (there are more), 20 rejected" in render(found)


def test_a_sample_of_none_is_refused(corpus: str) -> None:
    with pytest.raises(ConfigError, match="--sample 0: want"):
        inspect(corpus, OPTIONS, sample=0)


def test_a_document_that_could_be_in_any_language_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("OK 42\n", encoding="utf-8")
    assert inspect(str(tmp_path), OPTIONS).languages == {"(unsure)": 1}


def test_ten_are_shown_half_of_them_kept_and_each_rule_among_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = "".join(f"# Page {number}\n\n{PROSE} {number}\n\n# Page\n\nshort\n\n" for number in range(30))
    document = Document(id="d", text=f"{pages}# Menu\n\n{PROSE}\n", source="d.md")
    monkeypatch.setattr("askback.readers.documents.read_documents", lambda options: iter([document]))
    shown = [cut.reason for cut in inspect("", OPTIONS).shown]
    assert shown == [*[KEPT] * 5, "navigation_heading", *["too_short"] * 4]


def test_tokens_are_counted_with_what_is_given(corpus: str) -> None:
    options = Options.model_validate({"passages": {"min_chars": 1, "max_tokens": 8}})
    with pytest.raises(ConfigError, match="count_tokens"):
        inspect(corpus, options)
    assert inspect(corpus, options, count_tokens=lambda text: len(text.split())).dropped["too_long"] == 3


def test_blocked_words_are_read_from_the_file_the_options_name(corpus: str, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("more of it\nmoon\n", encoding="utf-8")
    options = OPTIONS.model_copy(update={"passages": OPTIONS.passages.model_copy(update={"block_words": str(words)})})
    assert inspect(corpus, options).dropped["blocked_word"] == 1
    words.unlink()
    with pytest.raises(ConfigError, match=r"passages\.block_words = .*words\.txt"):
        inspect(corpus, options)


# --- one screen


CROWDED = Inspection(
    path="/a/" + "very/long/" * 30,
    documents=10**7,
    is_whole=False,
    formats={f"format-{number}" * 9: number for number in range(40)},
    encodings={"utf-8": 10**7},
    languages={f"{number}": number for number in range(200)},
    licences={"LICENCE " * 30: 5, "(not said)": 3},
    chars=Quartiles(1, 10**6, 10**7, 10**8, 10**9),
    rejected={f"reason_{number}": number for number in range(50)},
    passages=10**9,
    dropped={f"rule_{number}_that_has_a_name_of_some_length": 10**7 for number in range(40)},
    kept=6 * 10**8,
    kept_chars=Quartiles(1, 2, 3, 4, 5),
    shown=(Shown("reason" * 9, 10**9, "潮汐 \x1b[31m" * 40, "https://example.org/" * 9),) * 10,
)


def test_a_screen_has_forty_lines_of_a_hundred_columns_at_most() -> None:
    from rich.cells import cell_len

    lines = render(CROWDED).split("\n")
    assert len(lines) == 40
    assert max(map(cell_len, lines)) <= 100


def test_nothing_read_from_a_corpus_steers_the_terminal() -> None:
    assert all(line.isprintable() for line in render(CROWDED).split("\n"))


def test_the_rules_that_have_no_line_are_summed_up() -> None:
    assert "23 other rules" in render(CROWDED)
    assert f"{6 * 10**8:>10,} left" in render(CROWDED)


def test_what_is_not_there_has_no_line() -> None:
    bare = replace(CROWDED, documents=0, chars=None, kept_chars=None, rejected={}, dropped={}, shown=(), passages=0)
    assert "quartiles" not in render(bare)
    assert "rejected  " not in render(bare)


@pytest.mark.parametrize("corpus", ["markdown", "html"])
def test_a_real_corpus_is_shown_on_one_screen(corpus: str, shared: Path) -> None:
    found = inspect(str(shared / "corpus" / corpus), Options(), sample=20)
    lines = render(found).split("\n")
    assert (found.documents, len(found.shown)) == (20, 10)
    assert found.languages["en"] > 10
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
