"""Laws of the quality rules: each fires on its own case alone, its bound is an option, and no text breaks one."""

import socket
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback import languages, prose
from askback.options import PassageOptions
from askback.records import Passage
from askback.stages import clean as stage
from askback.stages.clean import RULES, choose_rules, judge

PROSE = (
    "The tide rises twice a day. Its height depends on where the moon stands and how deep the bay is. "
    "Near a new moon the sun pulls along, and sailors then wait for spring tides to float a stranded boat."
)
GERMAN = (
    "Das Wasser steigt zweimal am Tag. Wie hoch es steigt, liegt daran, wo der Mond steht und wie tief die Bucht ist: "
    "Bei Neumond zieht die Sonne mit, und die Fischer warten dann auf die Springflut."
)
OPEN = PassageOptions(max_repetition=1, max_repeated_lines=1, max_links=1, min_prose=0)
"""Every bound open: only the two rules of headings judge."""


def passage(text: str = PROSE, heading: str = "Tides") -> Passage:
    return Passage(id="p", document="d", heading=heading, text=text, start=0, end=len(text))


def reason(text: str = PROSE, heading: str = "Tides", **bounds: object) -> str:
    return judge(passage(text, heading), OPEN.model_copy(update=bounds)).reason


CASES: dict[str, tuple[str, dict[str, object]]] = {
    "few_steps": (PROSE, {"min_steps": 3}),
    "link_list": ("- [One](http://a.b/c)\n- [Two](http://a.b/d), [Three](http://a.b/e)\n", {"max_links": 0.5}),
    "little_prose": ("It runs:\n\n```\n" + "let x = y\n" * 9 + "```\nDone.", {"min_prose": 0.3}),
    "many_symbols": ("### ~~~ *** $$$ the tide *** ~~~ ###", {"max_symbols": 0.1}),
    "many_capitals": ("BUY NOW AND SAVE: the best boat", {"max_capitals": 0.5}),
    "repeated_line": ("Buy now\n\nIt is new.\n\nbuy  NOW\n\nBuy now\n", {"max_repeated_lines": 0.3}),
    "repeated_paragraph": (f"{PROSE}\n\nOne.\n\nTwo.\n\nThree.\n\n{PROSE}", {"max_repeated_lines": 0.3}),
    "repetitive": (
        f"{PROSE} Its height depends on where the moon stands, and how deep the bay is!",
        {"max_repetition": 0.6},
    ),
    "repeated_ngram": (f"{PROSE} {PROSE}", {"max_repeated_ngrams": 0.2}),
    "other_language": (GERMAN, {"languages": ("en", "fr")}),
    "few_stop_words": ("tide moon boat bay harbour sail anchor rope mast hull keel deck " * 3, {"min_stop_words": 2}),
    "personal_data": (f"{PROSE} Ask jane.doe@lighthouse.net.", {"personal": "drop"}),
}


def test_every_rule_with_a_bound_has_a_case() -> None:
    assert [rule.__name__ for rule in RULES] == ["capital_heading", "navigation_heading", *CASES]


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_on_its_case_alone_and_not_where_its_bound_is_open(name: str) -> None:
    text, bounds = CASES[name]
    assert reason(text, **bounds) == name
    assert reason(text) == "ok"
    if name != "few_steps":
        assert reason(PROSE, **bounds) == "ok"


# --- headings


@pytest.mark.parametrize(
    ("heading", "verdict"),
    [
        ("ALL THERE IS", "capital_heading"),
        ("ПРИЛИВЫ", "capital_heading"),
        ("NOTES ON HTML", "capital_heading"),
        ("HTML", "ok"),
        ("SQL", "ok"),
        ("C-API", "ok"),
        ("潮汐是什么意思", "ok"),
        ("المد والجزر", "ok"),
        ("", "ok"),
        ("See also:", "navigation_heading"),
        ("7. References", "navigation_heading"),
        ("More  Information", "navigation_heading"),
        ("References in C++", "ok"),
        ("How menus work", "ok"),
    ],
)
def test_headings_are_judged_by_what_they_announce(heading: str, verdict: str) -> None:
    assert reason(heading=heading) == verdict


def test_a_heading_in_capitals_is_no_banner_where_the_text_writes_so_too() -> None:
    text = "A SELECT without a WHERE reads the whole table, which SQL allows: SELECT name FROM boats."
    assert reason(text, "SELECT WHERE") == "ok"
    assert reason(text, "SELECTS") == "ok"
    assert reason(text, "READING THE TABLE") == "capital_heading"
    assert reason(text.upper(), "READING THE TABLE") == "capital_heading"


# --- links


def test_prose_with_a_long_address_is_no_link_list() -> None:
    address = "https://almanac.example.org/tides/" + "very-long-path/" * 30
    for link in (address, f"<{address}>", f"[the almanac]({address})", f'<a href="{address}">the almanac</a>'):
        assert prose.link_share(f"{PROSE} See {link}.") < 0.2
        assert prose.prose_share(f"{PROSE} See {link}.") > 0.9


@pytest.mark.parametrize(
    "text",
    [
        "* <a href='http://a.b/c'>One</a>\n* http://a.b/c/d",
        'See [a page of ours](http://a.b/c_(d) "with title") now.',
        "[Home](/) | [About us](/about) | [Contact](/contact)",
        "1. [One][1]\n2. [Two][2]",
        "- [![A boat](boat.png)](http://a.b/c)\n",
    ],
)
def test_a_page_of_links_is_a_link_list(text: str) -> None:
    assert reason(text, max_links=0.5) == "link_list"


@pytest.mark.parametrize("text", ["", "a [1] b", "x = [a](b", "no <a> link", "!" * 50])
def test_brackets_are_no_links(text: str) -> None:
    assert prose.link_share(text) == 0


# --- what characters are


def test_letters_of_every_script_are_prose() -> None:
    for text in (
        "潮汐每天上涨两次",
        "हिन्दी में ज्वार और भाटा का कारण चन्द्रमा है",
        "المد والجزر مرتين في اليوم",
        "นํ้าขึ้นวันละสองครั้ง",
        "cafe\u0301",
    ):
        assert prose.prose_share(text) == 1
        assert prose.symbol_share(text) == 0
        assert reason(text, min_prose=0.9, max_symbols=0.01, max_capitals=0.01, min_stop_words=2) in (
            "ok",
            "few_stop_words",
        )


@pytest.mark.parametrize(
    "text", ["“Quoted” — it’s (so): yes; no? ¡Sí! 5 % & 3/4…", "「潮汐」、月亮。（两次）！", "مد، جزر؛ قمر؟", "हाँ।"]
)
def test_common_punctuation_is_no_symbol(text: str) -> None:
    assert prose.symbol_share(text) == 0


@pytest.mark.parametrize("symbol", [*"#*@\\_[]{}+=<>|~^$€©→", "😀", "\x00", "\ufffd"])
def test_a_symbol_is_counted(symbol: str) -> None:
    assert prose.symbol_share(f"abc {symbol}") == pytest.approx(1 / 5)


def test_symbols_in_code_tables_lists_and_addresses_are_not_counted() -> None:
    text = (
        "* a\n* b\n\n```\n{}[]\n```\n\n| a | b |\n|---|---|\n| c | d |\n\na | b\n---|---\nc | d\n\n[x](http://a.b/#_@)"
    )
    assert prose.symbol_share(text) == 0


def test_tags_and_comments_are_not_read_but_a_tag_that_is_spoken_of_is() -> None:
    assert prose.shown('<p class="x">The tide</p><!-- hidden -->').strip() == "The tide"
    assert prose.shown("The `<ol>` tag") == "The `<ol>` tag"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("NASA sent it", 1 / 3),
        ("I am A man", 0.0),
        ("潮汐 每天", 0.0),
        ("ПРИЛИВ и отлив", 0.5),
        ("Run `SELECT X` now", 0.0),
    ],
)
def test_capitals_are_counted_among_words_that_have_a_case(text: str, share: float) -> None:
    assert prose.capital_share(text) == pytest.approx(share)


def test_code_is_fenced_or_indented_but_a_list_may_be_indented() -> None:
    assert prose.without_code("a\n```py\nx\n\n# y\n```\nb") == "a\n\nb"
    assert prose.without_code("a\n\n    x = 1\n\n    y = 2\nb").split() == ["a", "b"]
    assert prose.without_code("a\n    goes on").split() == ["a", "goes", "on"]
    assert "inner" in prose.without_code("- item\n\n    inner\n")
    assert prose.without_code("a\n~~~\nnever closed") == "a"


# --- repetition


def test_the_threshold_of_repetition_is_an_option() -> None:
    text = "We walk along the old harbour wall. We walk along the old city wall."
    assert prose.sentence_overlap(text) == pytest.approx(3 / 7)
    assert reason(text, max_repetition=0.4) == "repetitive"
    assert reason(text, max_repetition=0.6) == "ok"


def test_code_tables_tags_and_addresses_may_repeat_themselves() -> None:
    code = "```\nprint(a, b, c, d, e)\nprint(a, b, c, d, e)\n```"
    links = "Take <a href='http://a.b/c/d/e/f' rel='x'>this</a> or <a href='http://a.b/c/d/e/f' rel='x'>that</a>."
    table = "| op | is the same as x |\n|---|---|\n| >> | is the same as x |\n| >>> | is the same as x |"
    tags = '<span class="filename">Filename: a.rs</span>\n\n<span class="filename">Filename: b.rs</span>'
    text = "\n\n".join([PROSE, code, links, table, tags])
    assert reason(text, max_repetition=0.6, max_repeated_ngrams=0.1) == "ok"


def test_a_wrapped_line_is_no_sentence_but_an_item_is() -> None:
    wrapped = "The boat waits until the water\nof the bay comes back. The crew waits until the water\nof the bay goes."
    assert prose.sentence_overlap(wrapped) < 0.6
    assert prose.sentence_overlap("- wait until the tide comes\n- wait until the tide comes") == 1


def test_sentences_are_compared_in_every_script() -> None:
    assert prose.sentence_overlap("潮汐每天上涨两次。潮汐每天上涨两次。") == 1
    assert prose.sentence_overlap("潮汐每天上涨两次。月亮的位置决定高度。") == 0
    hindi = "ज्वार दिन में दो बार आता है।"
    assert prose.sentence_overlap(f"{hindi}\n{hindi}") == 1


def test_comparison_stops_at_eighty_sentences() -> None:
    distinct = [f"Word{n} and{n} then{n} goes{n} on{n}." for n in range(80)]
    assert prose.sentence_overlap(" ".join([*distinct, distinct[0]])) == 0
    assert prose.sentence_overlap(" ".join([*distinct[:79], distinct[0]])) == 1


def test_repeated_ngrams_are_the_words_said_again() -> None:
    assert prose.repeated_ngrams("a b c d e f a b c d e") == pytest.approx(5 / 11)
    assert prose.repeated_ngrams("a b c d e f a b c d x") == 0
    assert prose.repeated_ngrams("A, b c d E! a b c d e f. A b c d e f") == pytest.approx(11 / 17)


def test_in_scripts_without_spaces_a_name_said_twice_is_no_repetition() -> None:
    assert prose.repeated_ngrams("中华人民共和国在亚洲。中华人民共和国很大。") == 0
    assert prose.repeated_ngrams("潮汐每天上涨两次，潮水高。潮汐每天上涨两次，潮水高。") == pytest.approx(0.5)


def test_lines_and_paragraphs_are_compared_whatever_their_case_and_spacing() -> None:
    assert prose.repeated_lines(f"{PROSE}\n\nBuy now\n\nIt is new.\n\nbuy  NOW\n\nBuy now\n") == pytest.approx(2 / 5)
    assert prose.repeated_lines("1\n1\n---\n---\n") == 0
    assert prose.repeated_paragraphs("One\ntwo.\n\nThree.\n\none two.") == pytest.approx(8 / 22)


# --- steps and common words


@pytest.mark.parametrize(
    "text",
    [
        "- a\n* b\n+ c",
        "1. a\n2) b\n(3) c",
        "• a\n◦ b\n– c",
        "Step 1: a\nstep 2 b\nSTEP 3\n",
        "一、准备\n二、开始\n第三步 等待",
        "  - a\n    - b\n\n- c",
    ],
)
def test_items_and_numbered_steps_are_counted_in_their_many_forms(text: str) -> None:
    assert prose.count_steps(text) == 3


@pytest.mark.parametrize(
    "text", ["1.5 litres", "2019 was wet", "* * *", "- - -", "a - b", "-5 degrees", "```\n- a\n```", "steps 1"]
)
def test_numbers_rules_and_code_are_no_steps(text: str) -> None:
    assert prose.count_steps(text) == 0


def test_common_words_are_counted_once_each() -> None:
    assert prose.count_stop_words("The boat and the bay and THE moon") == 2


def test_a_tag_cloud_lacks_common_words_and_other_languages_are_not_judged_by_english_ones() -> None:
    cloud = "python learn python tutorial python course free python beginner easy fast online " * 4
    assert reason(cloud, min_stop_words=2) == "few_stop_words"
    assert reason(GERMAN, min_stop_words=2) == "ok"
    assert reason("潮汐每天上涨两次，月亮的位置决定高度。" * 5, min_stop_words=2) == "ok"
    assert reason("12:30 A1 – B2\n" * 20, min_stop_words=2) == "few_stop_words"
    assert reason(cloud, min_stop_words=2, languages=("de",)) != "few_stop_words"


# --- language


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "Kurz.",
        f"```\n{GERMAN}\n```\n{PROSE}",
        f"{PROSE} `{GERMAN}`",
        "| Wasser | Bucht |\n|---|---|\n" * 20,
        "x = 5 * y\n" * 30,
    ],
)
def test_a_text_in_the_language_asked_for_passes_and_so_does_one_too_short_to_tell(text: str) -> None:
    assert reason(text, languages=("en",)) == "ok"


def test_any_language_asked_for_will_do_and_its_region_does_not_matter() -> None:
    assert reason(GERMAN, languages=("en",)) == "other_language"
    assert reason(GERMAN, languages=("en", "de")) == "ok"
    assert reason(GERMAN, languages=("DE-at",)) == "ok"


def test_without_languages_nothing_is_told_and_telling_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("asked for")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    languages._detector.cache_clear()
    assert languages.tell_languages(GERMAN, least=100)[0] == "de"
    monkeypatch.setattr(stage, "_tell", refuse)
    assert reason(GERMAN) == "ok"
    assert reason(PROSE, min_stop_words=2) == "ok"  # enough of them: its language does not matter


# --- any text

STRICT = PassageOptions(
    max_repetition=0.9,
    max_repeated_lines=0.9,
    max_repeated_ngrams=0.9,
    max_links=0.9,
    max_symbols=0.9,
    max_capitals=0.9,
    min_prose=0.01,
    min_stop_words=1,
    min_steps=1,
    languages=("en",),
    personal="drop",
)
PIECES = st.sampled_from(
    [*"`~[]()<>!|-*#@:/.+ \n\t", "```", "](", "<a ", "</a>", "<!--", "-->", "http://", "| --- |", "潮", "\ud800"]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(st.characters()), st.lists(PIECES, max_size=60).map("".join)), st.text(max_size=20))
def test_no_text_breaks_a_rule_and_every_share_lies_between_0_and_1(text: str, heading: str) -> None:
    for rule in choose_rules(STRICT, ["moon"]):
        assert rule(passage(text, heading), STRICT).reason in ("ok", rule.__name__)
    shares: list[Callable[[str], float]] = [
        *(prose.prose_share, prose.link_share, prose.symbol_share, prose.capital_share, prose.repeated_lines),
        *(prose.repeated_paragraphs, prose.repeated_ngrams, prose.sentence_overlap),
    ]
    assert all(0 <= share(text) <= 1 for share in shares)


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "![",
        "[a](",
        "`",
        "``",
        "<a ",
        "<a>",
        "<!--",
        "<x ",
        "\n ",
        "* ",
        "1.",
        "(",
        "!",
        "~~~\n",
        "|",
        "a.",
        "@",
        "a@",
        "4 ",
        "+1",
        ":",
    ],
)
def test_time_does_not_grow_faster_than_a_long_hostile_text(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    started = time.process_time()
    for rule in RULES:
        rule(passage(text), STRICT)
    assert time.process_time() - started < 10
