"""Laws of cutting: spans are exact and apart, sizes are in the window, and nothing vanishes."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import askback
from askback.errors import ConfigError
from askback.options import CorpusOptions, PassageOptions
from askback.readers.documents import read_documents
from askback.records import Document, Passage, Reject
from askback.stages.segment import segment, size_of, thin

DATA = Path(askback.__file__).parent / "data"
SMALL = PassageOptions(min_chars=20, max_chars=60)
ALL = PassageOptions(min_chars=1, max_chars=10**9)
BODY = "Some words on the thing at hand."  # 32 characters


def document(text: str, **fields: str) -> Document:
    return Document(id="d", text=text, source="d.md", **fields)


def cut(text: str, options: PassageOptions = SMALL, title: str = "") -> list[tuple[str, str]]:
    """Cut one text into (heading, text) or (heading, reason)."""
    outcomes = segment([document(text, title=title)], options)
    return [(o.heading, o.text) if isinstance(o, Passage) else (o.detail.split(":")[0], o.reason) for o in outcomes]


def headings(text: str) -> list[str]:
    return [heading for heading, _ in cut(text, ALL)]


BLOCKS = st.sampled_from(
    [
        *("# One", "## Two", "### Three", "#", "## Two ##", "Title\n=====", "Sub\n---", "    # code", "> # quoted"),
        *("```\n# in code\n\nmore\n```", "~~~\n## open", "| a | b |\n|---|---|\n| 1 | 2 |", "<pre>\n# raw\n\n</pre>"),
        *("1. Soil", "1.1 Tools", "SOME CAPITALS", "short", BODY, BODY * 3, "\t", " \r", "é中\u2028x", "<table>"),
    ]
)
TEXTS = st.lists(BLOCKS, max_size=14).map("\n\n".join) | st.lists(BLOCKS, max_size=14).map("\n".join) | st.text()
WINDOWS = st.sampled_from([SMALL, ALL, PassageOptions(min_chars=1, max_chars=40, whole_without_headings=False)])


@settings(deadline=None)
@given(TEXTS, WINDOWS)
def test_a_passage_is_its_span_without_space_around_and_fits_the_window(text: str, options: PassageOptions) -> None:
    for outcome in segment([document(text)], options):
        if isinstance(outcome, Passage):
            assert outcome.text == text[outcome.start : outcome.end] == outcome.text.rstrip()
            assert outcome.text.startswith(("    ", "\t")) or outcome.text == outcome.text.strip()
            assert options.min_chars <= len(outcome.text) <= options.max_chars


@settings(deadline=None)
@given(TEXTS, WINDOWS)
def test_passages_come_in_order_and_never_overlap(text: str, options: PassageOptions) -> None:
    passages = [o for o in segment([document(text)], options) if isinstance(o, Passage)]
    assert all(one.end <= other.start for one, other in pairwise(passages))


@settings(deadline=None)
@given(TEXTS, WINDOWS)
def test_every_document_has_an_outcome_and_every_outcome_its_own_id(text: str, options: PassageOptions) -> None:
    ids = [outcome.id for outcome in segment([document(text)], options)]
    assert ids
    assert len(set(ids)) == len(ids)


@settings(deadline=None)
@given(TEXTS, WINDOWS)
def test_only_headings_and_space_lie_outside_the_outcomes(text: str, options: PassageOptions) -> None:
    spans = sorted(_spans(segment([document(text)], options)))
    outside = [text[a:b] for (_, a), (b, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True)]
    lines = [line.strip() for gap in outside for line in gap.split("\n") if line.strip()]
    assert all(re.match(r"#|Title$|Sub$|=+$|-+$|1\. Soil|1\.1 Tools|SOME CAPITALS|[^a-z]+$", line) for line in lines)


def _spans(outcomes: Iterator[Passage | Reject]) -> Iterator[tuple[int, int]]:
    for outcome in outcomes:
        if isinstance(outcome, Passage):
            yield outcome.start, outcome.end
        else:
            start = int(outcome.id.partition(":")[2])
            yield start, start + int(outcome.detail.rpartition(": ")[2].split()[0])


def test_a_section_that_fits_keeps_its_sub_headings() -> None:
    assert cut(f"# A\n{BODY}\n## B\nmore") == [("A", f"{BODY}\n## B\nmore")]


def test_a_section_too_long_is_taken_apart_into_lead_and_parts() -> None:
    text = f"# A\n{BODY}\n## B\n{BODY}\n## C\nshort\n# D\n{BODY}"
    assert cut(text) == [("A", BODY), ("B", BODY), ("C", "too_short"), ("D", BODY)]


def test_a_leaf_too_long_is_rejected_with_heading_and_length() -> None:
    [reject] = segment([document(f"\n# A\n{BODY * 2}")], SMALL)
    assert reject == Reject(id="d:5", reason="too_long", detail="A: 64 characters", source="d.md")


def test_text_before_the_first_heading_belongs_to_the_title() -> None:
    assert cut(f"{BODY}\n\n# A\n{BODY}", title="The page") == [("The page", BODY), ("A", BODY)]


def test_a_deeper_heading_before_a_higher_one_keeps_its_own_section() -> None:
    assert cut(f"### A\n{BODY}\n# B\n{BODY}") == [("A", BODY), ("B", BODY)]


@pytest.mark.parametrize(
    "code",
    [
        "```sh\n# no\n```",
        "~~~\n# no\n```\n# no\n~~~~",
        "  1. step\n\n     ```\n# no\n     ```",
        "    # no",
        "\t# no",
        "<pre>\n# no\n</pre>",
        "> # no",
        "#no",
        "####### no",
        "    no\n===",
    ],
)
def test_what_looks_like_a_heading_in_code_is_none(code: str) -> None:
    assert headings(f"# Yes\n\n{code}\n\n# Also\n{BODY}") == ["Yes", "Also"]


def test_a_fence_never_closed_runs_to_the_end_and_a_tag_only_mentioned_does_not() -> None:
    assert headings("# A\n```\n# no") == ["A"]
    assert headings(f"# A\n<table> is a tag.\n# B\n{BODY}") == ["A", "B"]


@pytest.mark.parametrize(
    ("title", "is_heading"),
    [
        ("A\n===", True),
        ("A\n---", True),
        ("1. A\n---", True),
        ("A\nB\n---", False),
        ("- A\n---", False),
        ("\n---", False),
    ],
)
def test_an_underline_makes_a_heading_of_one_line_of_words(title: str, is_heading: bool) -> None:
    assert len({heading for heading, _ in cut(f"# Z\n{BODY}\n\n{title}\n{BODY}")}) == 1 + is_heading


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("**Bold** and *it* and __under__", "Bold and it and under"),
        ("`code` ##", "code"),
        ("The `__init__` of snake_case_names", "The __init__ of snake_case_names"),
        ("[A link](http://a.b/c_(d)) here", "A link here"),
        ("[![badge](b.png)](http://a.b)", "badge"),
        ("See [this][ref] {#anchor}", "See this"),
        ("C# and F#", "C# and F#"),
        ("<a name='x'></a>Plain &amp; simple", "Plain & simple"),
        ("List<T> \\*stars\\*", "List<T> *stars*"),
        ("SHOUTED", "SHOUTED"),
    ],
)
def test_a_heading_is_given_as_it_is_read(markup: str, shown: str) -> None:
    assert headings(f"## {markup}\n{BODY}") == [shown]


def test_a_mark_with_nothing_behind_it_is_an_empty_heading() -> None:
    assert cut(f"##\n{BODY}\n# A\n{BODY}") == [("(no heading)", "empty_heading"), ("A", BODY)]


def test_plain_text_has_numbered_headings_that_nest() -> None:
    text = f"1. Preparing the soil\n\n{BODY}\n\n1.1 Tools\n\n{BODY}\n\n2. Sowing\n\n{BODY}"
    assert cut(text) == [("Preparing the soil", BODY), ("Tools", BODY), ("Sowing", BODY)]


def test_a_number_without_a_point_is_believed_beside_its_neighbour() -> None:
    text = f"1 Soil\n\n{BODY}\n\n1.1 Tools\n\n{BODY}\n\n2 Sowing\n\n{BODY}\n\n9 Rooms\n\n{BODY}\n\n3 GROWTH\n\n{BODY}"
    assert [heading for heading, _ in cut(text)] == ["Soil", "Tools", "Sowing", "Growth"]


def test_plain_capitals_are_headings_in_sentence_case() -> None:
    text = f"PREPARING THE SOIL\n\n{BODY}\n\nCHAPTER IV. SOWING\n\n{BODY}"
    assert cut(text) == [("Preparing the soil", BODY), ("Chapter IV. sowing", BODY)]


@pytest.mark.parametrize(
    "lines",
    [
        "1. Mix the flour\n\n2. Add water\n\n3. Bake",
        "1. First we go there.",
        "2 cups of flour",
        "1. then lower case",
        "1. Not alone\nas it goes on",
        "OK",
        "A" * 90,
    ],
)
def test_a_list_or_a_sentence_is_no_plain_heading(lines: str) -> None:
    assert cut(f"{lines}\n\n{BODY}", ALL, title="t") == [("t", f"{lines}\n\n{BODY}")]


def test_markdown_headings_silence_plain_ones() -> None:
    assert headings(f"# A\n\nSOWING\n\n{BODY}") == ["A"]


def test_text_without_headings_is_cut_at_paragraphs_under_the_title() -> None:
    assert cut(f"{BODY}\n\nIt goes on.\n\n{BODY}\n\n{BODY * 2}\n\nend", title="t") == [
        ("t", f"{BODY}\n\nIt goes on."),
        ("t", BODY),
        ("t", "too_long"),
        ("t", "too_short"),
    ]


WHOLE = st.sampled_from(
    [
        "```\n{n} = 1\n\nb = 2\n\nc = 3\n```",
        "~~~\n{n} text\n\n```\n\n~~~",
        "| {n} | b |\n|---|---|\n| 1. | 2 |\n| - | 3 |",
        "{n} | b\n--|--\n1. x | 2\n2. y | 3",
        "+---+---+\n| {n} | b |\n+===+===+\n| 1 | 2 |\n+---+---+",
        "<table><tr><td>{n}\n\n<table><tr>\n\n</tr></table>\n\n</td></tr></table>",
        "<div><table>\n<tr>{n}\n\n</tr>\n</table></div>",
        "- {n}\n- two\n\n  more of it\n\n- three",
        "1. {n}\n\n   ```\n   a\n\n   b\n   ```\n\n2. two\n   - in\n\n   - it",
        "• {n}\n\n• two\n\n• three",
        "    {n}\n    code\n\n    goes on",
        "A paragraph, number {n},\nof two lines.",
    ]
)


@settings(deadline=None)
@given(st.lists(WHOLE, min_size=2, max_size=8))
def test_no_cut_falls_into_code_a_table_or_a_list_that_fits(shapes: list[str]) -> None:
    blocks = [shape.replace("{n}", f"n{number}") for number, shape in enumerate(shapes)]
    text = "\n\nWords between.\n\n".join(blocks)
    options = PassageOptions(min_chars=1, max_chars=90)
    pieces = [o.text for o in segment([document(text)], options) if isinstance(o, Passage)]
    assert [block for block in blocks if not any(block in piece for piece in pieces)] == []


def test_a_list_longer_than_the_window_is_cut_between_its_own_items() -> None:
    items = [f"- {BODY[:20]}\n\n  - inner\n\n  more" for _ in range(4)]
    assert [text for _, text in cut("\n".join(["The things:", *items]))] == [
        f"The things:\n{items[0]}",
        *items[1:],
    ]
    assert cut("\n".join(f"- {BODY[:20]}" for _ in range(4))) == [("", f"- {BODY[:20]}\n- {BODY[:20]}")] * 2


def test_a_list_ends_where_its_mark_changes() -> None:
    bullets, numbers = f"- {BODY[:20]}\n\n- {BODY[:20]}", f"1. {BODY[:17]}\n\n2. {BODY[:17]}"
    assert [text for _, text in cut(f"{bullets}\n\n{numbers}")] == [bullets, numbers]


def test_a_table_longer_than_the_window_is_never_cut() -> None:
    table = "\n".join(["| a | b |", "|---|---|", *["| 1 | 2 |"] * 9])
    assert [text for _, text in cut(f"{BODY}\n\n{table}\n\n{BODY}")] == [BODY, "too_long", BODY]


def test_a_heading_inside_a_list_item_divides_nothing() -> None:
    assert headings(f"# A\n\n- item\n\n  # no\n\n  no\n  ==\n\n# B\n{BODY}") == ["A", "B"]
    assert headings(f"# A\n\n1. item\n\n # B\n{BODY}") == ["A", "B"]


def test_code_that_begins_a_passage_keeps_its_margin() -> None:
    assert cut("# A\n\n    for x in y:\n        print(x)\n") == [("A", "    for x in y:\n        print(x)")]


def test_under_the_only_heading_a_text_too_long_is_cut_at_its_paragraphs() -> None:
    assert cut(f"# A\n\n{BODY}\n\n{BODY}") == [("A", BODY), ("A", BODY)]
    assert cut(f"{BODY}\n\n{BODY}\n\n# A\n{BODY}", title="t") == [("t", BODY), ("t", BODY), ("A", BODY)]
    assert cut(f"# A\n\n{BODY}\n\n{BODY}\n\n# B\n{BODY}") == [("A", "too_long"), ("B", BODY)]
    options = SMALL.model_copy(update={"whole_without_headings": False})
    assert cut(f"# A\n\n{BODY}\n\n{BODY}", options) == [("A", "too_long")]


def test_a_single_plain_heading_is_believed_only_where_both_sides_fit() -> None:
    assert cut(f"{BODY}\n\nAND THEN\n\n{BODY}", title="t") == [("t", BODY), ("And then", BODY)]
    assert {heading for heading, _ in cut(f"{BODY}\n\n{BODY}\n\nAND THEN\n\n{BODY}", title="t")} == {"t"}


def test_without_a_blank_line_each_line_is_a_paragraph() -> None:
    table = "| a | b |\n|---|---|"
    assert cut(f"{BODY}\n{BODY}\n{table}\n{BODY}") == [("", BODY), ("", f"{BODY}\n{table}"), ("", BODY)]
    assert cut(f"{BODY}\n{BODY}\n\n{BODY}") == [("(no heading)", "too_long"), ("", BODY)]


def test_without_that_option_a_text_without_headings_is_rejected() -> None:
    options = SMALL.model_copy(update={"whole_without_headings": False})
    assert cut(BODY, options, title="t") == [("t", "no_heading")]


def test_an_empty_document_is_named() -> None:
    assert cut(" \n\t") == [("(no heading)", "empty")]


def test_what_a_person_said_of_the_document_goes_along() -> None:
    [passage] = segment([document(f"# A\n{BODY}", licence="CC0", genre="guide", label="good")], SMALL)
    assert isinstance(passage, Passage)
    assert (passage.licence, passage.genre, passage.label) == ("CC0", "guide", "good")
    assert (passage.source, passage.document) == ("d.md", "d")


def test_segmenting_is_lazy() -> None:
    endless = (document(f"# {n}\n{BODY}") for n in iter(int, 1))
    assert isinstance(next(segment(endless, SMALL)), Passage)


# --- length in tokens


def words(text: str) -> int:
    return len(text.split())


TOKENS = PassageOptions(min_chars=10, max_chars=200, min_tokens=4, max_tokens=9)


@settings(deadline=None)
@given(TEXTS)
def test_where_both_windows_are_set_both_hold(text: str) -> None:
    for outcome in segment([document(text)], TOKENS, words):
        if isinstance(outcome, Passage):
            assert 10 <= len(outcome.text) <= 200
            assert 4 <= words(outcome.text) <= 9


@settings(deadline=None)
@given(TEXTS)
def test_tokens_are_counted_only_of_what_is_not_too_long_in_characters(text: str) -> None:
    counted: list[str] = []
    list(segment([document(text)], TOKENS, lambda piece: counted.append(piece) or words(piece)))  # type: ignore[func-returns-value]
    assert all(len(piece) <= TOKENS.max_chars for piece in counted)


def test_paragraphs_are_filled_up_to_the_tokens_with_few_counts() -> None:
    counted: list[int] = []
    options = PassageOptions(min_chars=1, max_chars=10**6, max_tokens=100)
    text = "\n\n".join([BODY] * 1000)  # seven words each
    pieces = list(segment([document(text)], options, lambda piece: counted.append(len(piece)) or words(piece)))  # type: ignore[func-returns-value]
    assert [words(piece.text) for piece in pieces if isinstance(piece, Passage)] == [98] * 71 + [42]
    assert sum(counted) < 2.1 * len(text)


def test_a_sum_of_tokens_that_is_too_small_gives_back_a_paragraph() -> None:
    options = PassageOptions(min_chars=1, max_chars=500, max_tokens=20)
    pieces = list(
        segment([document("\n\n".join([BODY] * 4))], options, lambda piece: words(piece) + piece.count("\n") * 4)
    )
    assert [piece.text.count("\n\n") for piece in pieces if isinstance(piece, Passage)] == [0, 0, 0, 0]


def test_a_section_too_long_in_tokens_is_taken_apart_and_says_how_long() -> None:
    outcomes = list(segment([document(f"# A\n{BODY}\n## B\n{BODY * 2}")], TOKENS, words))
    assert [o.text if isinstance(o, Passage) else o.detail for o in outcomes] == [
        BODY,
        "B: 64 characters, 13 tokens",
    ]


def test_a_bound_in_tokens_without_a_counter_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"passages\.max_tokens is set.*count_tokens"):
        segment([], PassageOptions(max_tokens=5))


# --- several passages of one document


def test_of_a_document_only_so_many_passages_are_kept_and_not_always_its_head() -> None:
    text = "".join(f"# {number}\n{BODY} {number}\n" for number in range(9))
    documents = [Document(id=str(number), text=text, source="") for number in range(20)]
    options = SMALL.model_copy(update={"most_of_document": 2})
    outcomes = list(thin(segment(documents, options), options))
    passages = [outcome for outcome in outcomes if isinstance(outcome, Passage)]
    assert Counter(passage.document for passage in passages) == {document.id: 2 for document in documents}
    assert len({passage.heading for passage in passages}) == 9
    assert Counter(o.reason for o in outcomes if isinstance(o, Reject)) == {"beyond_most": 7 * 20}
    assert passages == sorted(passages, key=lambda passage: (documents.index(by_id(documents, passage)), passage.start))


def by_id(documents: list[Document], passage: Passage) -> Document:
    return next(document for document in documents if document.id == passage.document)


def test_without_that_bound_all_pass() -> None:
    outcomes = list(segment([document(f"# A\n{BODY}\n# B\n{BODY}\n# C\nx")], SMALL))
    assert sorted(thin(outcomes, SMALL), key=lambda o: o.id) == sorted(outcomes, key=lambda o: o.id)


def test_what_a_reject_was_written_with_can_be_read_back() -> None:
    [reject] = segment([document(f"# A: b\n{BODY * 3}")], SMALL)
    assert isinstance(reject, Reject)
    assert size_of(reject) == ("A: b", 96)


# --- real documents


def test_real_pages_give_passages_under_their_headings(shared: Path) -> None:
    outcomes = list(segment(_pages(shared), PassageOptions()))
    passages = [outcome for outcome in outcomes if isinstance(outcome, Passage)]
    assert 500 < len(passages) < 700
    assert len({passage.document for passage in passages}) > 340
    assert [p.document for p in passages if not p.heading] == ["cplusplus__C- STL sets__index"]  # nor has it a title
    assert {o.reason for o in outcomes if isinstance(o, Reject)} <= {"too_short", "too_long", "empty_heading"}


@pytest.mark.parametrize("corpus", ["markdown", "html", "embedded"])
def test_every_passage_of_real_documents_is_its_span_and_none_overlaps(corpus: str, shared: Path) -> None:
    path = DATA / "documents" if corpus == "embedded" else shared / "corpus" / corpus
    documents = [d for d in read_documents(CorpusOptions(path=str(path))) if isinstance(d, Document)]
    assert len(documents) > 50
    for found in documents:
        passages = [o for o in segment([found], PassageOptions()) if isinstance(o, Passage)]
        assert [found.text[p.start : p.end] for p in passages] == [p.text for p in passages]
        assert all(one.end <= other.start for one, other in pairwise(passages))


def _pages(shared: Path) -> Iterator[Document]:
    for file in sorted((shared / "corpus/markdown").glob("*.md")):
        matter, text = re.fullmatch(r"(?:---\n(.*?)\n---\n)?(.*)", file.read_text(encoding="utf-8"), re.DOTALL).groups()
        title = re.search(r"^title: *(.*)$", matter or "", re.MULTILINE)
        yield Document(id=file.stem, text=text, source=file.name, title=title[1] if title else "")
