"""Laws of duplicates: the first in reading order survives, whatever stands around it, and every loss has a name."""

import errno
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.errors import ConfigError, Stopped
from askback.grams import words_of
from askback.nearness import FOUND, Text, choose_banding, open_seen
from askback.options import DistinctOptions
from askback.records import Passage, Reject
from askback.stages import distinct as stage
from askback.stages.distinct import distinct

WORDS = [f"word{number}" for number in range(5000)]
Outcome = Passage | Reject


def passage(id: str, text: str) -> Passage:
    return Passage(id=id, document="d", heading="", text=text, start=0, end=len(text), source=f"{id}.md")


def prose(seed: int, length: int = 80) -> str:
    return " ".join(Random(seed).choices(WORDS, k=length))


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "changed"
    return " ".join(words)


def sift(texts: Sequence[str], known: Iterable[str] = (), **options: float) -> list[Outcome]:
    passages = [passage(str(number), text) for number, text in enumerate(texts)]
    earlier = [passage(f"k{number}", text) for number, text in enumerate(known)]
    return list(distinct(passages, DistinctOptions.model_validate(options), known=earlier))


def reasons(outcomes: Iterable[Outcome]) -> list[str]:
    return [outcome.reason if isinstance(outcome, Reject) else "" for outcome in outcomes]


def overlap(one: str, other: str) -> float:
    mine, others = (grams(words_of(text)) for text in (one, other))
    return len(mine & others) / len(mine | others) if mine | others else 0.0


def grams(words: list[bytes]) -> set[tuple[bytes, ...]]:
    return {tuple(words[place : place + 5]) for place in range(max(1, len(words) - 4))} if words else set()


# --- who survives


def test_the_first_in_reading_order_survives() -> None:
    text = prose(1)
    assert reasons(sift([text, changed(text, 40)])) == ["", "near_duplicate"]
    assert reasons(sift([changed(text, 40), text])) == ["", "near_duplicate"]


def test_a_reject_names_the_survivor_its_overlap_and_its_own_source() -> None:
    text = prose(1)
    assert sift([text, changed(text, 40), text.upper()])[1:] == [
        Reject("1", "near_duplicate", "0.88 of the word 5-grams of 0", "1.md"),
        Reject("2", "duplicate", "the text of 0", "2.md"),
    ]


def test_case_and_white_space_make_no_other_text() -> None:
    assert reasons(sift(["Tea is  hot.", "tea is\nHOT."])) == ["", "duplicate"]


def test_punctuation_makes_a_near_one() -> None:
    assert reasons(sift(["Tea is hot!", "(tea) is: hot"])) == ["", "near_duplicate"]


def test_a_passage_that_was_dropped_drops_no_other() -> None:
    first = prose(1)
    second = changed(first, 20)
    third = changed(second, 60)
    assert overlap(first, third) < 0.8 <= overlap(second, third)
    assert reasons(sift([first, second, third])) == ["", "near_duplicate", ""]


def test_an_overlap_just_below_near_survives_and_one_just_above_does_not() -> None:
    text = prose(1, 100)
    for places in ([50], [20, 50], [20, 50, 80]):
        other = changed(text, *places)
        exactly = overlap(text, other)
        assert reasons(sift([text, other], near=exactly)) == ["", "near_duplicate"]
        assert reasons(sift([text, other], near=exactly + 1e-6)) == ["", ""]


def test_near_0_drops_exact_copies_alone() -> None:
    text = prose(1)
    assert reasons(sift([text, changed(text, 40), text], near=0)) == ["", "", "duplicate"]


def test_what_stands_around_a_pair_does_not_matter() -> None:
    pair = [prose(1), changed(prose(1), 40)]
    others = [prose(seed) for seed in range(10, 60)]
    for seed in range(5):
        texts = [*others]
        Random(seed).shuffle(texts)
        places = sorted(Random(seed).sample(range(len(texts)), 2))
        for place, text in zip(places, pair, strict=True):
            texts.insert(place, text)
        dropped = [texts[int(outcome.id)] for outcome in sift(texts) if isinstance(outcome, Reject)]
        assert dropped == [pair[1]]


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_where_a_batch_ends_does_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [changed(prose(seed % 20), *Random(seed).sample(range(80), seed % 3)) for seed in range(90)]
    expected = sift(texts)
    monkeypatch.setattr(stage, "BATCH_ROWS", rows)
    assert sift(texts) == expected
    assert {"", "duplicate", "near_duplicate"} == {*reasons(expected)}


def test_nearly_all_near_duplicates_are_found_among_many_passages() -> None:
    originals = [prose(seed, 100) for seed in range(400)]
    copies = [changed(text, *Random(seed).sample(range(5, 95), 2)) for seed, text in enumerate(originals)]
    near = [overlap(*pair) >= 0.8 for pair in zip(originals, copies, strict=True)]
    found = [reason == "near_duplicate" for reason in reasons(sift([*originals, *copies]))]
    assert not any(found[:400])
    assert sum(found[400:]) >= 0.98 * sum(near) > 300
    assert not any(hit and not is_near for hit, is_near in zip(found[400:], near, strict=True))


# --- earlier runs


def test_passages_of_an_earlier_run_only_reject() -> None:
    text = prose(1)
    outcomes = sift([text, changed(prose(2), 30), prose(3)], known=[text, prose(2)])
    assert outcomes[:2] == [
        Reject("0", "duplicate", "the text of k0 of an earlier run", "0.md"),
        Reject("1", "near_duplicate", "0.88 of the word 5-grams of k1 of an earlier run", "1.md"),
    ]
    assert [outcome.id for outcome in outcomes] == ["0", "1", "2"]


def test_earlier_passages_that_are_near_to_each_other_all_count() -> None:
    first = prose(1)
    second = changed(first, 20)
    third = changed(second, 60)
    assert reasons(sift([third], known=[first, second])) == ["near_duplicate"]


# --- odd texts


def test_texts_without_spaces_are_compared_by_their_characters() -> None:
    text, other = ("".join(Random(seed).choices("".join(map(chr, range(0x4E00, 0x5E00))), k=60)) for seed in (1, 2))
    assert reasons(sift([text, text[:30] + "月" + text[31:], other])) == ["", "near_duplicate", ""]


@pytest.mark.parametrize("text", ["", " \n", "...", "—", "x", "two words", "\ud800"])
def test_a_tiny_text_repeats_itself_and_no_other_one(text: str) -> None:
    assert reasons(sift([text, text, prose(1), "one other", "?!"]))[:5] == ["", "duplicate", "", "", ""]


def test_texts_without_a_word_are_near_to_none() -> None:
    assert reasons(sift(["...", "---", "!!!"])) == ["", "", ""]


def test_words_are_the_same_in_both_ways_of_reading_them() -> None:
    assert words_of("Don't panic_2day") == [b"don", b"t", b"panic", b"2day"]
    assert words_of("Straße, ﬁne हिन्दी 日本") == [
        b"strasse",
        b"fine",
        "हिन्दी".encode(),
        "日".encode(),
        "本".encode(),
    ]


@given(st.text(st.characters(max_codepoint=127)))
def test_a_plain_text_has_the_words_it_has_among_others(text: str) -> None:
    assert words_of(f"{text} é")[:-1] == words_of(text)


# --- nothing is lost, nothing is guessed

VERSES = st.lists(st.lists(st.sampled_from(["tea", "Tea", "cup", "hot", "!", "日", ""]), max_size=9), max_size=12)


@settings(max_examples=60, deadline=None)
@given(VERSES, VERSES, st.sampled_from([0, 0.5, 0.8, 1]))
def test_every_passage_comes_out_and_every_reject_is_near_to_a_survivor(
    verses: list[list[str]], earlier: list[list[str]], near: float
) -> None:
    texts, known = ([" ".join(words) for words in part] for part in (verses, earlier))
    outcomes = sift(texts, known, near=near)
    assert [outcome.id for outcome in outcomes] == [str(number) for number in range(len(texts))]
    survivors = {outcome.id: outcome.text for outcome in outcomes if isinstance(outcome, Passage)}
    named = survivors | {f"k{number}": text for number, text in enumerate(known)}
    for reject in (outcome for outcome in outcomes if isinstance(outcome, Reject)):
        of = reject.detail.removesuffix(" of an earlier run").split()[-1]
        text = texts[int(reject.id)]
        same = text.casefold().split() == named[of].casefold().split()
        assert same if reject.reason == "duplicate" else overlap(text, named[of]) >= near > 0
        assert of.startswith("k") or int(of) < int(reject.id)
    whole = [" ".join(text.casefold().split()) for text in survivors.values()]
    assert len(whole) == len({*whole})


def test_rejects_pass_through_in_their_places() -> None:
    early = Reject("r", "too_short", "3 characters", "r.md")
    rows: list[Outcome] = [early, passage("a", prose(1)), early, passage("b", prose(1)), early]
    outcomes = list(distinct(rows, DistinctOptions()))
    assert reasons(outcomes) == ["too_short", "", "too_short", "duplicate", "too_short"]
    assert [outcome for outcome in outcomes if outcome.id == "r"] == [early] * 3


def test_nothing_in_gives_nothing_out() -> None:
    assert sift([]) == []
    assert sift([], known=[prose(1)]) == []


# --- bands, and the scratch folder


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_are_as_long_as_they_can_be_without_losing_near_texts(near: float) -> None:
    bands, rows = choose_banding(near, 128)
    assert 1 - (1 - near**rows) ** bands >= FOUND
    assert rows == 128 or 1 - (1 - near ** (rows + 1)) ** (128 // (rows + 1)) < FOUND


def test_too_few_permutations_for_near_are_an_error_not_a_loss() -> None:
    with pytest.raises(ConfigError, match=r"distinct\.near = 0\.02 is too low for 64 permutations"):
        sift(["a"], near=0.02, permutations=64)


def test_the_scratch_folder_is_left_as_it_was(tmp_path: Path) -> None:
    scratch = tmp_path / "not" / "there"
    outcomes = distinct([passage("a", "b")] * 3, DistinctOptions(), scratch=scratch)
    next(outcomes)
    assert [*scratch.iterdir()]
    outcomes.close()  # type: ignore[attr-defined]
    assert not [*scratch.iterdir()]


def test_a_scratch_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: could not be written"):
        list(distinct([passage("a", "b")], DistinctOptions(), scratch=tmp_path / "file"))


def test_a_full_disk_stops_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_seen(0.8, 128, tmp_path) as seen:
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(Stopped, match="No space left on device; free some room"):
            seen.admit([Text("a", "b")])


def test_exact_copies_are_found_without_the_minhash_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    assert reasons(sift(["a", "a"], near=0)) == ["", "duplicate"]
