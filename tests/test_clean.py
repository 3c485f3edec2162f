"""Laws of cleaning: what passes is left alone, what fails says why, and the presets keep what people call good."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from askback.errors import ConfigError
from askback.options import CorpusOptions, PassageOptions
from askback.readers.documents import read_documents
from askback.records import Document, Passage, Reject
from askback.stages.clean import REASONS, RULES, choose_rules, clean, judge
from askback.stages.segment import segment

OPTIONS = PassageOptions()
PROSE = (
    "The tide rises twice a day. Its height depends on where the moon stands and how deep the bay is. "
    "Near a new moon the sun pulls along, and sailors then wait for spring tides to float a stranded boat."
)


def passage(text: str = PROSE, heading: str = "Tides", name: str = "p") -> Passage:
    return Passage(id=name, document="d", heading=heading, text=text, start=0, end=len(text), source="d.md")


# --- the stream


def test_good_prose_passes_whole_and_unchanged() -> None:
    assert list(clean([passage()], OPTIONS)) == [passage()]


def test_a_reject_passes_through_untouched() -> None:
    reject = Reject(id="d:1", reason="too_short", detail="x")
    assert list(clean([reject, passage(), reject], OPTIONS)) == [reject, passage(), reject]


def test_a_passage_that_fails_is_a_reject_with_its_heading_and_what_was_measured() -> None:
    [found] = clean([passage(f"{PROSE} {PROSE}")], OPTIONS)
    detail = "Tides: 1.00 of their 3-grams are shared by two sentences"
    assert found == Reject(id="p", reason="repetitive", detail=detail, source="d.md")


def test_a_passage_is_judged_by_itself_whatever_came_before() -> None:
    assert list(clean([passage(), passage(), passage(name="q")], OPTIONS)) == [passage(), passage(), passage(name="q")]


def test_cleaning_is_lazy() -> None:
    endless = (passage(name=str(n)) for n in iter(int, 1))
    assert next(clean(endless, OPTIONS)).id == "0"


def test_every_reason_has_words_for_a_reader() -> None:
    names = [rule.__name__ for rule in choose_rules(OPTIONS, ["x"])]
    assert names == [*(rule.__name__ for rule in RULES), "blocked_word"]
    assert names == list(REASONS)


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


# --- personal data and blocked words

ADDRESSED = f"{PROSE} Ask jane.doe@lighthouse.net or call 415-867-5309."


def test_personal_data_is_kept_masked_or_the_passage_dropped() -> None:
    kept, masked, dropped = (
        next(clean([passage(ADDRESSED, "Write to jo@tides.net")], PassageOptions(personal=choice)))
        for choice in ("keep", "mask", "drop")
    )
    assert isinstance(kept, Passage)
    assert kept.text == ADDRESSED
    assert isinstance(masked, Passage)
    assert masked.text == f"{PROSE} Ask [email] or call [phone]."
    assert masked.heading == "Write to [email]"
    assert isinstance(dropped, Reject)
    assert (dropped.reason, dropped.detail.split(": ")[1]) == ("personal_data", "email, phone")


def test_a_masked_passage_keeps_its_id_and_its_place_in_the_source() -> None:
    [masked] = clean([passage(ADDRESSED)], PassageOptions(personal="mask"))
    assert isinstance(masked, Passage)
    assert (masked.id, masked.start, masked.end) == ("p", 0, len(ADDRESSED))


@pytest.mark.parametrize("line", ["moon", " MOON\n", "Spring  tides", "stranded boat.", "tides"])
def test_a_blocked_word_or_phrase_drops_a_passage_whatever_its_case(line: str) -> None:
    [found] = clean([passage()], OPTIONS, [line, ""])
    assert isinstance(found, Reject)
    assert found.reason == "blocked_word"


@pytest.mark.parametrize("line", ["tid", "moons", "tides spring", "boat stranded"])
def test_a_part_of_a_word_or_other_words_block_nothing(line: str) -> None:
    assert list(clean([passage()], OPTIONS, [line])) == [passage()]


def test_words_are_blocked_in_scripts_without_spaces_and_with_accents_written_either_way() -> None:
    assert [type(one) for one in clean([passage("每天上涨的潮汐")], PassageOptions(min_prose=0), ["潮汐"])] == [Reject]
    assert [type(one) for one in clean([passage("Ein Cafe\u0301 am Hafen")], OPTIONS, ["CAFÉ"])] == [Reject]


def test_a_file_of_words_that_holds_none_is_an_error_and_no_rule_is_lost() -> None:
    with pytest.raises(ConfigError, match=r"block_words = words\.txt: no word is in it"):
        clean([], PassageOptions(block_words="words.txt"), ["", " "])
    with pytest.raises(ConfigError, match=r"`\*\*\*` has no letter"):
        clean([], OPTIONS, ["***"])


# --- real and embedded texts


@pytest.mark.parametrize(
    ("preset", "least_good", "most_bad"), [("paper", 125, 34), ("prose", 120, 22), ("procedural", 20, 12)]
)
def test_presets_keep_good_embedded_texts_and_drop_bad_ones(preset: str, least_good: int, most_bad: int) -> None:
    options = PassageOptions(preset=preset)  # type: ignore[arg-type]
    root = Path(str(files("askback") / "data" / "documents"))
    qualities = {row["file"]: row["quality"] for row in map(json.loads, (root / "index.jsonl").open(encoding="utf-8"))}
    read = [one for one in read_documents(CorpusOptions(path=str(root))) if isinstance(one, Document)]
    kept = {one.source for one in clean(segment(read, options), options) if isinstance(one, Passage)}
    counts = Counter(qualities[source] for source in kept)
    assert counts["good"] >= least_good
    assert counts["bad"] <= most_bad


def test_real_pages_mostly_pass_and_every_rejection_is_counted(shared: Path) -> None:
    options = PassageOptions(min_prose=0.2)
    cut = list(segment(_pages(shared), options))
    outcomes = list(clean(cut, options))
    counts = Counter(getattr(outcome, "reason", "passed") for outcome in outcomes)
    tried = sum(isinstance(one, Passage) for one in cut)
    assert len(outcomes) == len(cut)
    assert 0.8 * tried < counts["passed"] < 0.97 * tried
    named = ("navigation_heading", "link_list", "little_prose", "repeated_line", "repetitive")
    assert all(0 < counts[name] < 0.12 * tried for name in named)
    assert counts["capital_heading"] == 0  # `HTML`, `SCSS` and `DSDM` are the only ones there


def test_a_language_that_is_not_asked_for_is_found_among_real_pages(shared: Path) -> None:
    options = PassageOptions(languages=("en",))
    cut = [one for one in segment(_pages(shared), options) if isinstance(one, Passage)]
    dropped = [one for one in cut if judge(one, options).reason == "other_language"]
    assert 0 < len(dropped) < 10
    assert all(re.search(r"\b(?:que|los|les|para|dans)\b", one.text) for one in dropped)


def _pages(shared: Path) -> Iterator[Document]:
    for file in sorted((shared / "corpus/markdown").glob("*.md")):
        text = re.sub(r"\A---\n.*?\n---\n", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        yield Document(id=file.stem, text=text, source=file.name)
