"""Laws of cleaning: each rule fires on its own case, says why, and leaves good prose and old rejects alone."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from askback.options import PassageOptions
from askback.records import Document, Passage, Reject
from askback.stages.clean import RULES, clean, judge, link_list, repeated_lines, sentence_overlap, without_code
from askback.stages.segment import segment

OPTIONS = PassageOptions()
PROSE = (
    "The tide rises twice a day. Its height depends on where the moon stands and how deep the bay is. "
    "Near a new moon the sun pulls along, and sailors then wait for spring tides to float a stranded boat."
)


def passage(text: str = PROSE, heading: str = "Tides", name: str = "p") -> Passage:
    return Passage(id=name, document="d", heading=heading, text=text, start=0, end=len(text), source="d.md")


def reason(text: str = PROSE, heading: str = "Tides") -> str:
    return judge(passage(text, heading), OPTIONS).reason


def test_good_prose_passes_whole_and_unchanged() -> None:
    assert list(clean([passage()], OPTIONS)) == [passage()]


def test_a_reject_passes_through_untouched() -> None:
    reject = Reject(id="d:1", reason="too_short", detail="x")
    assert list(clean([reject, passage(), reject], OPTIONS)) == [reject, passage(), reject]


def test_each_rule_is_named_for_its_reason() -> None:
    names = [rule.__name__ for rule in RULES]
    assert names == ["capital_heading", "navigation_heading", "little_prose", "link_list", "repetitive"]


@pytest.mark.parametrize(
    ("heading", "verdict"),
    [
        ("ALL THERE IS", "capital_heading"),
        ("ПРИЛИВЫ", "capital_heading"),
        ("SQL", "ok"),
        ("潮汐是什么意思", "ok"),
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


def test_code_and_signs_are_little_prose() -> None:
    assert reason("It runs:\n\n```\n" + "let x = y\n" * 9 + "```\nDone.") == "little_prose"
    assert reason("|---|---|" * 20) == "little_prose"
    assert reason("हिन्दी में ज्वार और भाटा का कारण चन्द्रमा है") == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "- [One](http://a.b/c)\n- [Two](http://a.b/d), [Three](http://a.b/e)\n",
        "* <a href='http://a.b/c'>One</a>\n* http://a.b/c/d",
        'See [a page of ours](http://a.b/c_(d) "with title") now.',
    ],
)
def test_a_page_of_links_is_a_link_list(text: str) -> None:
    assert link_list(passage(text), OPTIONS).reason == "link_list"


def test_prose_with_a_link_is_no_link_list() -> None:
    assert reason(f"{PROSE} See [the almanac](http://a.b/c).") == "ok"


def test_a_sentence_said_twice_is_repetitive() -> None:
    assert reason(f"{PROSE} Its height depends on where the moon stands, and how deep the bay is!") == "repetitive"
    assert judge(passage(f"{PROSE} {PROSE}"), OPTIONS).detail == "two sentences share 1.00 of their 3-grams"


def test_the_threshold_of_repetition_is_an_option() -> None:
    text = "We walk along the old harbour wall. We walk along the old city wall."
    overlap = sentence_overlap(text)
    assert overlap == pytest.approx(3 / 7)
    assert judge(passage(text), OPTIONS.model_copy(update={"max_repetition": 0.4})).reason == "repetitive"
    assert judge(passage(text), OPTIONS).keep


def test_lines_repeated_are_repetitive_even_when_short() -> None:
    text = f"{PROSE}\n\nBuy now\n\nIt is new.\n\nbuy  NOW\n\nBuy now\n"
    assert repeated_lines(text) == pytest.approx(2 / 5)
    assert reason(text) == "repetitive"


def test_code_and_addresses_may_repeat_themselves() -> None:
    code = "```\nprint(a, b, c, d, e)\nprint(a, b, c, d, e)\n```"
    links = "Take <a href='http://a.b/c/d/e/f' rel='x'>this</a> or <a href='http://a.b/c/d/e/f' rel='x'>that</a>."
    assert reason(f"{PROSE} {PROSE[::-1]}\n{code}\n{links}") == "ok"


def test_chinese_sentences_are_compared_too() -> None:
    assert sentence_overlap("潮汐每天上涨两次。潮汐每天上涨两次。") == 1
    assert sentence_overlap("潮汐每天上涨两次。月亮的位置决定高度。") == 0


def test_comparison_stops_at_eighty_sentences() -> None:
    distinct = [f"word{n} and{n} then{n} goes{n} on{n}." for n in range(80)]
    assert sentence_overlap(" ".join([*distinct, distinct[0]])) == 0
    assert sentence_overlap(" ".join([*distinct[:79], distinct[0]])) == 1


def test_code_is_fenced_or_indented_but_a_list_may_be_indented() -> None:
    assert without_code("a\n```py\nx\n\n# y\n```\nb") == "a\n\nb"
    assert without_code("a\n\n    x = 1\n\n    y = 2\nb").split() == ["a", "b"]
    assert without_code("a\n    goes on").split() == ["a", "goes", "on"]
    assert "inner" in without_code("- item\n\n    inner\n")
    assert without_code("a\n~~~\nnever closed") == "a"


def test_the_first_of_two_equal_texts_survives() -> None:
    again = passage(PROSE.upper().replace(" ", "  "), name="again")
    first, second = clean([passage(), again], OPTIONS)
    assert first == passage()
    assert second == Reject(id="again", reason="duplicate", detail="Tides: the text of p", source="d.md")


def test_the_same_row_twice_is_a_duplicate() -> None:
    assert [type(o) for o in clean([passage(), passage()], OPTIONS)] == [Passage, Reject]


def test_a_text_that_was_rejected_makes_no_duplicate() -> None:
    outcomes = list(clean([passage(heading="See also"), passage(name="q")], OPTIONS))
    assert outcomes[1] == passage(name="q")


def test_a_plain_heading_in_capitals_is_not_held_against_the_text() -> None:
    document = Document(id="d", text=f"SPRING TIDES\n\n{PROSE}", source="d.txt")
    options = PassageOptions(min_chars=20)
    [plain] = clean(segment([document], options), options)
    assert isinstance(plain, Passage)
    assert plain.heading == "Spring tides"


def test_an_empty_heading_fails_only_where_one_was_written() -> None:
    options = PassageOptions(min_chars=20)
    for text, kept in [(PROSE, True), (f"##\n\n{PROSE}", False)]:
        [outcome] = clean(segment([Document(id="d", text=text, source="")], options), options)
        assert isinstance(outcome, Passage) == kept
        assert getattr(outcome, "reason", "empty_heading") == "empty_heading"


def test_cleaning_is_lazy() -> None:
    endless = (passage(name=str(n)) for n in iter(int, 1))
    assert next(clean(endless, OPTIONS)).id == "0"


def test_real_pages_mostly_pass_and_every_rejection_is_counted(shared: Path) -> None:
    cut = list(segment(_pages(shared), OPTIONS))
    outcomes = list(clean(cut, OPTIONS))
    counts = Counter(getattr(outcome, "reason", "passed") for outcome in outcomes)
    assert len(outcomes) == len(cut)
    assert 400 < counts["passed"] < 500
    assert all(0 < counts[rule.__name__] < 80 for rule in RULES)


def _pages(shared: Path) -> Iterator[Document]:
    for file in sorted((shared / "corpus/markdown").glob("*.md")):
        text = re.sub(r"\A---\n.*?\n---\n", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        yield Document(id=file.stem, text=text, source=file.name)
