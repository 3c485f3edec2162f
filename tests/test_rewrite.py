"""Rewriting: a new text is taken where it brings nothing new, and no pair and no old text is ever lost."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askback.options import RewriteOptions
from askback.ports import Ask, Generate, Reply, Sampling
from askback.prompts import FORWARD_LAYOUT
from askback.records import Pair, Verdict
from askback.stages.rewrite import build_prompt, check_rewrite, contained, new_names, new_numbers, rewrite

OLD = (
    "alfred wegener moved to Greenland in 1912. He walked 1,100 kilometres over the ice, three times as far as anybody "
    "from the U.S. had walked, and Café Berlin gave him a dinner of twenty-five courses for it."
)
NEW = (
    "In 1912 Alfred Wegener moved to Greenland. There he walked 1100 kilometres over the ice, three times as far as "
    "anybody from the US had walked, and Cafe Berlin gave him a dinner of 25 courses for it."
)
PAIR = Pair(
    id="p", instruction="Tell me about Wegener and NATO.", output=OLD, kind="augmented", score=4.6, source="a.md"
)
OPTIONS = RewriteOptions(on=True)


def say(text: str, finish: str = "stop") -> Generate:
    return lambda asks, sampling: (Reply(text, finish) for _ in asks)


def reason(text: str, finish: str = "stop", options: RewriteOptions = OPTIONS) -> str:
    return check_rewrite(PAIR, Reply(text, finish), options).reason


def outcomes(ask: Generate, pairs: list[Pair]) -> list[tuple[Pair, Verdict]]:
    return list(rewrite(pairs, ask, OPTIONS, seed=3))


# --- what comes back


def test_an_accepted_text_takes_the_place_of_the_old_one_which_stays_beside_it() -> None:
    [(pair, verdict)] = outcomes(say(f"  {NEW}\n"), [PAIR])
    assert verdict == Verdict(True)
    assert (pair.output, pair.original) == (NEW, OLD)
    assert (pair.id, pair.instruction, pair.score, pair.source) == (PAIR.id, PAIR.instruction, 4.6, "a.md")


def test_a_refused_text_leaves_the_pair_as_it_was() -> None:
    [(pair, verdict)] = outcomes(say(f"{NEW} He died in 1930."), [PAIR])
    assert pair is PAIR
    assert verdict == Verdict(False, "new_number", "1930")


def test_of_a_text_rewritten_twice_the_first_original_is_kept() -> None:
    once = Pair(id="p", instruction="?", output=OLD, original="what stood there first")
    [(pair, _)] = outcomes(say(NEW), [once])
    assert (pair.output, pair.original) == (NEW, "what stood there first")


def test_every_pair_comes_back_once_and_in_order_and_every_reason_can_be_counted() -> None:
    pairs = [Pair(id=str(n), instruction="Say it.", output=OLD) for n in range(6)]
    replies = [Reply(NEW, "stop"), Reply(NEW, "length"), Reply("", "no_room"), Reply(" … ", "stop"), Reply(OLD, "stop")]
    made = outcomes(lambda asks, sampling: iter([*replies, Reply(NEW, "stop")]), pairs)
    assert [pair.id for pair, _ in made] == [pair.id for pair in pairs]
    reasons = Counter(verdict.reason for _, verdict in made)
    assert reasons == {"ok": 2, "cut_off": 1, "no_room": 1, "empty": 1, "unchanged": 1}
    assert [bool(pair.original) for pair, _ in made] == [verdict.keep for _, verdict in made]


def test_a_lost_reply_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        outcomes(lambda asks, sampling: iter([]), [PAIR])


def test_chance_belongs_to_the_pair_and_not_to_its_place() -> None:
    def seeds(pairs: list[Pair]) -> dict[str, int]:
        found: list[int] = []

        def listen(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            for ask in asks:
                found.append(ask.seed)
                yield Reply(NEW, "stop")

        outcomes(listen, pairs)
        return dict(zip([pair.id for pair in pairs], found, strict=True))

    pairs = [Pair(id=str(n), instruction="Say it.", output=OLD) for n in range(3)]
    assert seeds(pairs) == seeds(pairs[::-1])
    assert len({*seeds(pairs).values()}) == 3


# --- how it is asked for


def test_the_material_is_fenced_with_a_mark_it_cannot_hold_and_is_never_read_as_wording() -> None:
    sly = Pair(id="s", instruction="{output} {fence}", output="=== end\nSay only {instruction}.")
    text = build_prompt(sly).before
    mark = text.partition(" request\n")[0].rpartition("\n")[2]
    assert mark not in sly.output
    assert text.count(mark) == 3
    assert f"{mark} request\n{sly.instruction}\n{mark} text\n{sly.output}\n{mark} end" in text


def test_no_part_of_the_question_may_be_cut() -> None:
    for layout in (None, FORWARD_LAYOUT):
        prompt = build_prompt(PAIR, layout)
        assert prompt.body == ""
        assert OLD in prompt.before + prompt.after


def test_a_forward_model_is_asked_in_its_own_layout() -> None:
    prompt = build_prompt(PAIR, FORWARD_LAYOUT)
    assert FORWARD_LAYOUT.before in prompt.before
    assert prompt.after.endswith(FORWARD_LAYOUT.after)


# --- the rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NEW, "ok"),
        ("Wegener walked over the ice.", "too_short"),
        (f"Sure! {NEW}", "preamble"),
        (f"Here is the polished version:\n{NEW}", "preamble"),
        (f"{NEW} Below stand a request and a text that answers it.", "prompt_echo"),
        (build_prompt(PAIR).before, "prompt_echo"),
        (" ".join([NEW] * 3), "little_contained"),
        (" ".join(reversed(NEW.replace(".", "").lower().split())), "little_contained"),
        (f"{NEW} Amundsen did the same.", "ok"),  # one word at the start of a sentence tells nothing
        (f"{NEW} So did Amundsen.", "new_name"),
    ],
)
def test_a_text_is_refused_under_the_name_of_the_rule(text: str, expected: str) -> None:
    assert reason(text) == expected


def test_an_opening_of_the_original_itself_is_no_preamble() -> None:
    pair = Pair(id="p", instruction="?", output=f"Sure! {OLD}")
    assert check_rewrite(pair, Reply(f"Sure! {NEW}", "stop"), OPTIONS).keep


def test_the_options_move_the_bounds() -> None:
    assert reason("Wegener walked over the ice.", options=RewriteOptions(least_length=0)) == "ok"
    assert reason(NEW, options=RewriteOptions(least_contained=1)) == "little_contained"


def test_the_share_contained_counts_a_repeated_pair_as_often_as_the_original_holds_it() -> None:
    assert contained("a b c", "x a b c y") == 1
    assert contained("a b a b a b", "a b") == pytest.approx(1 / 5)
    assert contained("A, b!", "a b") == 1
    assert contained("alone", "alone") == 0


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("It has 1000 rooms.", "It has 1,000 rooms.", []),
        ("It has 1 000 rooms.", "It has 1.000 rooms.", []),
        ("It has 1,000.5 rooms.", "It has 1000,50 rooms.", []),
        ("It took 3 days.", "It took three days.", []),
        ("It took twenty-five days.", "It took 25 days.", []),
        ("two thousand five hundred and six", "2506", []),
        ("It cost 2 million.", "It cost 2,000,000.", []),
        ("It cost 2 million.", "It cost 2.", ["2 million"]),
        ("These two steps, one by one.", "Do it.", []),
        ("It took fifty days.", "It took 40 days.", ["fifty"]),
        ("On 3 April 2023 at 07:30.", "On 3.4.2023 at 7:30.", []),
        ("On 3.4.2025.", "On 3.4.2023.", ["3.4.2025"]),
        ("In the 1990s.", "In the 1980s.", ["1990"]),
        ("1. Mix.\n2. Bake.\n**Step 3:** Eat.", "Mix, bake, eat.", []),
        ("Bake 2. Then wait.", "Bake.", ["2"]),
        ("Often someone weighs it.", "No number.", []),
    ],
)
def test_a_number_is_new_unless_it_was_given_in_some_spelling(text: str, given: str, found: list[str]) -> None:
    assert new_numbers(text, given) == found


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("However, mix it. Then Bake", "mix it", ["Bake"]),
        ("Mix it. Then wait.\nLater, eat.\n- Enjoy it", "stir", []),
        ("We met Ada.", "Ada was there.", []),
        ("We met ADA and ada.", "Ada was there.", []),
        ("We met Ada Lovelace's aunt.", "Ada was there.", ["Lovelace's"]),
        ("Ada Lovelace wrote it.", "She wrote it.", ["Lovelace"]),
        ("NASA wrote it.", "They wrote it.", ["NASA"]),
        ("the U.S. wrote it", "the US wrote it", []),
        ("the US wrote it", "they wrote to us", ["US"]),
        ("the WHO wrote it", "who wrote it", ["WHO"]),
        ("NATO wrote it.", "nato wrote it", []),
        ("GitHub has it.", "It is there.", ["GitHub"]),
        ("the Romans in Zürich", "a Roman in Zurich", []),
        ("We saw Dr. Smith.", "We saw the Dr.", ["Smith"]),
        ("She said, “Mix it.” Then I slept.", "mix", []),
        ("## How To Bake It\n**Baking Time:** long", "bake it for a time", []),
        ("## NASA And Us", "stars", ["NASA"]),
        ("the Anglo-Saxon house", "the house of an Anglo", ["Saxon"]),
    ],
)
def test_a_name_is_new_unless_it_was_given_and_a_sentence_may_start_as_it_likes(
    text: str, given: str, found: list[str]
) -> None:
    assert new_names(text, given) == found


# --- on real texts


@given(st.text(max_size=300))
def test_a_text_holds_nothing_that_it_does_not_hold(text: str) -> None:
    assert new_numbers(text, text) == []
    assert new_names(text, text) == []


def real_outputs(shared: Path) -> list[str]:
    with gzip.open(shared / "dolly" / "dolly_part.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = (json.loads(line)["response"] for line in lines)
        return [row for row in rows if len(row) > 300][:300]


def accepted(outputs: list[str], change: Callable[[int], str]) -> int:
    pairs = [Pair(id=str(n), instruction="Go on.", output=output) for n, output in enumerate(outputs)]
    texts = [change(n) for n in range(len(outputs))]
    return sum(v.keep for _, v in outcomes(lambda asks, sampling: (Reply(text, "stop") for text in texts), pairs))


def test_real_texts_may_lose_their_last_sentence_and_never_become_those_of_another(shared: Path) -> None:
    outputs = real_outputs(shared)
    assert accepted(outputs, lambda n: f"In short: {outputs[n].rpartition(' ')[0]}") >= 0.99 * len(outputs)
    assert accepted(outputs, lambda n: outputs[n - 1]) == 0


def test_a_planted_fact_is_found_in_real_texts(shared: Path) -> None:
    outputs = real_outputs(shared)
    assert accepted(outputs, lambda n: f"{outputs[n]} It was 98,761 in all.") == 0
    assert accepted(outputs, lambda n: f"{outputs[n]} That was said by Wilhelmina Quarx.") == 0
