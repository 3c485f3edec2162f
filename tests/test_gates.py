"""Gates: each rule fails what it is named for and nothing a person would ask; every pair has one outcome, in order."""

import json
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback import embedded, languages
from askback.options import GateOptions, SeedOptions
from askback.prompts import BACKWARD_LAYOUTS
from askback.readers.seed import read_seed
from askback.records import Pair, Reject
from askback.stages import gates
from askback.stages.gates import RULES, check_pair, echoes, gate, tell_languages, words_of

LAYOUT = BACKWARD_LAYOUTS["asked"]
ON = GateOptions()
OFF = GateOptions(
    echo=False,
    copy_words=0,
    dangling=False,
    first_line=0,
    refusal=False,
    language=False,
    min_words=0,
    max_chars=0,
    near_duplicate=0,
)
OUTPUT = """\
Bleeding a radiator

A radiator that stays cold at the top has air in it. Turn the heating off, hold a cloth under the valve and turn the
key until the hissing stops. Then look at the pressure of the boiler, and fill it up where it is too low.
"""
GERMAN = (
    "Ein Heizkörper, der oben kalt bleibt, enthält Luft. Drehen Sie die Heizung ab, halten Sie ein Tuch unter das "
    "Ventil und öffnen Sie es, bis das Zischen aufhört. Prüfen Sie danach den Druck des Kessels."
)


def make(instruction: str, *, id: str = "c", output: str = OUTPUT, passage: str = "", heading: str = "") -> Pair:
    return Pair(id=id, instruction=instruction, output=output, passage=passage, heading=heading, kind="augmented")


def reason(instruction: str, options: GateOptions = ON, **fields: str) -> str:
    return check_pair(make(instruction, **fields), LAYOUT, options).reason


def outcomes(instructions: Iterable[str], options: GateOptions = ON) -> list[Pair | Reject]:
    pairs = [make(one, id=f"c{n}", passage=f"p{n}") for n, one in enumerate(instructions)]
    return list(gate(pairs, LAYOUT, options))


def reasons(found: Iterable[Pair | Reject]) -> Counter[str]:
    return Counter(one.reason if isinstance(one, Reject) else "ok" for one in found)


# --- the whole gate

FAILING = {
    "prompt_echo": "The following text answers a request.",
    "copied": "hold a cloth under the valve and turn the key until the hissing stops",
    "dangling_reference": "Explain the text above in two sentences.",
    "first_line_copy": "Bleeding a radiator.",
    "refusal": "I'm sorry, but I cannot help with radiators.",
    "wrong_language": "Wie entlüfte ich einen Heizkörper, der oben nicht richtig warm wird?",
    "too_few_words": "Radiators?",
    "too_long": "Explain how heating works. " * 50,
}
GOOD = "How do I get my radiator warm again at its top?"


def test_every_rule_is_tested_here_and_gives_its_own_name_as_reason() -> None:
    assert [rule.__name__ for rule in RULES] == list(FAILING)
    for name, instruction in FAILING.items():
        assert reason(instruction) == name


@pytest.mark.parametrize("name", FAILING)
def test_a_rule_fails_nothing_when_its_option_turns_it_off(name: str) -> None:
    option = {
        "prompt_echo": {"echo": False},
        "copied": {"copy_words": 0},
        "dangling_reference": {"dangling": False},
        "first_line_copy": {"first_line": 0},
        "refusal": {"refusal": False},
        "wrong_language": {"language": False},
        "too_few_words": {"min_words": 0},
        "too_long": {"max_chars": 0},
    }[name]
    assert reason(FAILING[name], GateOptions(**option)) != name  # type: ignore[arg-type]
    assert reason(FAILING[name], OFF) == "ok"


def test_every_pair_has_one_outcome_in_order_and_the_counts_add_up() -> None:
    asked = [*FAILING.values(), GOOD, GOOD]
    found = outcomes(asked)
    assert [one.id for one in found] == [f"c{n}" for n in range(len(asked))]
    assert reasons(found) == {**dict.fromkeys(FAILING, 1), "ok": 1, "near_duplicate": 1}


def test_what_passes_is_the_pair_itself_and_a_reject_shows_what_was_asked_and_where_from() -> None:
    pair = Pair(id="c", instruction=FAILING["dangling_reference"], output=OUTPUT, source="d.md")
    [found] = gate([pair], LAYOUT, GateOptions())
    detail = "`the text above`: Explain the text above in two sentences."
    assert found == Reject("c", "dangling_reference", detail, "d.md")
    assert next(gate([pair], LAYOUT, OFF)) is pair


def test_the_first_rule_that_fails_gives_the_reason() -> None:
    assert reason("I'm sorry, but I cannot see the text above.") == "dangling_reference"
    assert reason("I'm sorry, but I cannot see the text above.", GateOptions(dangling=False)) == "refusal"


def test_one_pair_is_enough_for_one_outcome() -> None:
    endless = (make(f"Explain number {n} to me.", id=str(n)) for n in iter(int, 1))
    assert isinstance(next(gate(endless, LAYOUT, GateOptions())), Pair)


@pytest.mark.parametrize("seed", range(5))
def test_apart_from_near_duplicates_an_outcome_does_not_depend_on_the_others(seed: int) -> None:
    pairs = [make(one, id=f"c{n}") for n, one in enumerate([*FAILING.values(), GOOD, "Write a poem."] * 3)]
    mixed = random.Random(seed).sample(pairs, len(pairs))
    options = GateOptions(near_duplicate=0)
    alone = {pair.id: check_pair(pair, LAYOUT, options).reason for pair in pairs}
    found = list(gate(mixed, LAYOUT, options))
    assert {one.id: one.reason if isinstance(one, Reject) else "ok" for one in found} == alone
    assert reasons(gate(mixed, LAYOUT, GateOptions())) == reasons(gate(pairs, LAYOUT, GateOptions()))


ANYTHING = st.text(st.characters(codec=None), max_size=300) | st.text(
    alphabet=" \n:.\"'`-aAthe1?漢ि\ud800\x00", max_size=300
)


@settings(max_examples=300, deadline=None)
@given(instruction=ANYTHING, output=ANYTHING, heading=ANYTHING)
def test_no_text_whatever_makes_a_rule_raise(instruction: str, output: str, heading: str) -> None:
    pair = make(instruction, output=output, heading=heading)
    for rule in RULES:
        assert rule(pair, LAYOUT, GateOptions()).reason in ("ok", rule.__name__)
    assert len(list(gate([pair, make(instruction, id="d", output=output)], LAYOUT, GateOptions()))) == 2


HOSTILE = ["the " * 25000, "this text" + ":" * 100000, 'this text "' + "! " * 50000, "`" * 100000, "\u0301" * 100000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_of_100_000_characters_is_no_trouble(text: str) -> None:
    start = time.process_time()
    for rule in RULES:
        rule(make(text, output=text, heading=text), LAYOUT, GateOptions())
    assert time.process_time() - start < 3


# --- prompt_echo


@pytest.mark.parametrize(
    "text",
    [
        "The following text answers a request.",
        "Sure! the FOLLOWING text answers   a request: explain tides",
        "The request it answers, in one or two sentences: explain tides",
    ],
)
def test_an_instruction_that_repeats_the_words_around_the_text_is_an_echo(text: str) -> None:
    assert reason(text) == "prompt_echo"


def test_an_instruction_that_shares_some_words_with_the_prompt_is_no_echo() -> None:
    assert reason("Which text answers a request for help best?") == "ok"


def test_the_plain_layout_has_no_words_to_echo() -> None:
    assert not echoes("The following text answers a request.", BACKWARD_LAYOUTS["plain"])


# --- copied


@pytest.mark.parametrize(
    "text",
    [
        "Turn the heating off, hold a cloth under the valve.",
        "A RADIATOR that stays cold -- at the top -- has air in it",
        "look at the pressure of the boiler, and fill it up",
    ],
)
def test_enough_words_in_a_row_that_stand_in_the_output_are_copied(text: str) -> None:
    assert reason(text) == "copied"


@pytest.mark.parametrize(
    "text", ["Turn the heating off", "How do I hold a cloth under the valve and turn the key?", GOOD]
)
def test_fewer_words_or_words_of_ones_own_are_not_copied(text: str) -> None:
    assert reason(text) == "ok"


def test_a_copy_begins_and_ends_where_words_do() -> None:
    options = GateOptions(copy_words=2)
    assert reason("art is", options, output="What part is it?") == "ok"
    assert reason("part is", options, output="What part is it?") == "copied"


def test_chinese_is_counted_by_characters_and_not_by_spaces() -> None:
    output = "暖气片上面不热，是因为里面有空气。\n请先关掉暖气，然后用钥匙打开阀门。"
    assert words_of("暖气 is热") == ["暖", "气", "is", "热"]
    assert reason("里面有空气。请先关掉暖气", output=output) == "copied"
    assert reason("为什么我的暖气不热？", output=output) == "ok"


# --- dangling_reference

DANGLING = [
    "Summarize the text above.",
    "What is the main idea of this passage?",
    "Write a summary of the following article.",
    "As mentioned earlier, explain why the valve must be closed.",
    "According to the author, what causes the noise?",
    "List the steps described in the given document.",
    "Based on the passage, why does the radiator stay cold?",
    "What does the author say about boilers?",
    "Translate the following paragraph into French.",
    "What are the two problems mentioned in the text?",
    "Explain the above.",
    "Using the information provided, say how often a boiler needs water.",
    "What does the code below print?",
    "What will I learn in this tutorial?",
    "What is the author's opinion of modern heating?",
    "Read the passage and answer the question.",
    "Given the following text, tell me what the hissing means.",
    "Which of the tools listed above do I need first?",
    "Given a reference text about heating, tell me who invented the radiator.",
    "Rewrite this sentence.",
    "How does the passage describe the valve?",
    "In this article, which key is used?",
    "What’s the purpose of the excerpt?",
    "Please summarize the article in three sentences.",
]
STANDING = [
    "Write the following function in Python",
    "What does the author of a will do?",
    "What does the author mean by the green light in The Great Gatsby?",
    "What is the author's purpose in Animal Farm?",
    "Summarize the article in Nature that showed how bats hear.",
    "According to the author of Dune, who rules the desert?",
    "How do I put the text above the image in CSS?",
    "What happens to water in temperatures above 100 degrees?",
    "How do I write a good article about gardening?",
    "Write a story about a dog. In this story, the dog must find its way home.",
    "Write a short passage about the sea.",
    "Translate the following sentence into German: The cat sleeps.",
    "Translate this sentence into German.\n\nThe cat sleeps on the roof.",
    'What is wrong with this sentence: "She go to school"?',
    "Write a Python function that counts the words in the given text.",
    "Explain the passage of time in dreams.",
    "Which of these is a fruit: a carrot, an apple, or all of the above?",
    "What were the following years like for the people of Rome?",
    "How do I follow an author on this platform?",
    "Explain how to read a scientific article.",
    "What is the text of the second amendment?",
    "Who was the author of the first dictionary?",
    "Is it better to rent or to buy, given the current prices?",
    "What is a document management system?",
    "Describe the plot of the novel Emma.",
    "What does the following mean in French: chou?",
    "My cat has not eaten since Monday, sleeps all day, hides below the sofa and growls when anybody comes near it. "
    "Given the above, should I see a vet?",
]


@pytest.mark.parametrize("text", DANGLING)
def test_an_instruction_that_points_at_a_text_nobody_sees_dangles(text: str) -> None:
    assert reason(text) == "dangling_reference"


@pytest.mark.parametrize("text", STANDING)
def test_an_instruction_that_names_or_brings_its_text_stands(text: str) -> None:
    assert reason(text) == "ok"


def test_what_points_is_shown_word_for_word() -> None:
    [found] = outcomes(["Please   summarize the\tfollowing\u00a0article."])
    assert isinstance(found, Reject)
    assert found.detail.startswith("`the following article`: ")


# --- first_line_copy


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Bleeding a radiator", "# Bleeding a radiator"),
        ("bleeding a radiator!", "\n\n**Bleeding a Radiator**"),
        ("3. Bleeding a radiator", "## 2.1 Bleeding a radiator"),
        ("How do I bleed a radiator?", "How do I bleed a radiator?"),
        ("The ten best tools for old and cold radiators", "Ten best tools for old and cold radiators"),
    ],
)
def test_an_instruction_that_says_the_first_line_again_is_a_copy(text: str, line: str) -> None:
    assert reason(text, output=f"{line}\nIt takes ten minutes.") == "first_line_copy"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("What is photosynthesis?", "# Photosynthesis"),
        ("Explain how to bleed a radiator that is cold at the top.", "How to bleed a radiator that is cold at the top"),
        ("What are the ten best tools for cold radiators?", "Here are the ten best tools for cold radiators:"),
        ("Was ist die Photosynthese?", "Die Photosynthese"),
        (GOOD, "# Bleeding a radiator"),
    ],
)
def test_an_instruction_that_asks_for_what_the_first_line_says_is_none(text: str, line: str) -> None:
    assert reason(text, output=f"{line}\nIt takes ten minutes.") == "ok"


def test_the_heading_of_the_passage_counts_as_a_line_unless_it_asks() -> None:
    assert reason("Old boilers and their keys", heading="Old Boilers and Their Keys") == "first_line_copy"
    assert reason("How do I bleed a boiler?", heading="How do I bleed a boiler") == "ok"
    assert reason("Does the boiler leak?", heading="Does the boiler leak?") == "ok"


def test_how_near_a_copy_must_be_is_an_option() -> None:
    near = "The cold radiators and boilers of England"
    assert reason(near, GateOptions(first_line=0.9), heading="Old radiators and boilers of England") == "ok"
    assert reason(near, GateOptions(first_line=0.7), heading="Old radiators and boilers of England") != "ok"


# --- refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot find an instruction here.",
        "I am very sorry, but there is no request.",
        "Sorry, but as a model I do not know.",
        "I apologize, but this is not possible for me.",
        "I apologize for the confusion, here is the request.",
        "As an AI language model, I do not have preferences.",
        "As an AI, I cannot do it.",
        "I am a language model and cannot read files.",
        "I cannot fulfill this request.",
        "I can't help you with this one.",
        "I'm unable to assist you.",
        "Unfortunately, I cannot say what was asked.",
        '"I cannot provide an answer."',
    ],
)
def test_a_refusal_is_no_instruction(text: str) -> None:
    assert reason(text) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "I can't sleep at night. What should I do?",
        "I cannot open my front door, the key is stuck.",
        "Write an apology to a customer whose parcel was lost.",
        "How do I say I'm sorry, but in a formal letter?",
        "As an AI researcher, which conferences should I visit?",
        "As an AI, do you have feelings?",
        "Sorry to bother you, how do I boil an egg?",
        "I am an artist and need a name for my studio.",
        "Why can't I tickle myself?",
        "I'm sorry for your loss: what can I write instead of it?",
    ],
)
def test_a_person_who_cannot_do_something_or_is_sorry_does_not_refuse(text: str) -> None:
    assert reason(text) == "ok"


# --- wrong_language


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("What should I do when the upper part of my radiator stays cold?", GERMAN),
        (FAILING["wrong_language"], OUTPUT),
        ("如何给上面不热的暖气片放气，需要什么工具，要多长时间？", OUTPUT),
        ("Comment purger un radiateur qui reste froid en haut et combien de temps faut-il ?", GERMAN),
    ],
)
def test_an_instruction_in_another_language_than_its_output_is_wrong(text: str, output: str) -> None:
    assert reason(text, output=output) == "wrong_language"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        (GOOD, OUTPUT),
        (FAILING["wrong_language"], GERMAN),
        ("Write a short note in German about a radiator that stays cold at its top.", GERMAN),
        ("Translate it for my neighbours: what to do when a radiator stays cold at the top", GERMAN),
        ("Schreibe mir auf Englisch, wie man einen Heizkörper entlüftet, der kalt bleibt.", OUTPUT),
        ("Bleed radiator?", GERMAN),
        ("What should I do when the upper part of my radiator stays cold?", "Luft ablassen."),
        ("What should I do when the upper part of my radiator stays cold?", "\U0001f600 " * 60),
    ],
)
def test_the_same_language_or_one_asked_for_or_not_known_is_not_wrong(text: str, output: str) -> None:
    assert reason(text, output=output) == "ok"


CODE = """\
def bleed(radiator: Radiator, *, key: Key = Key()) -> None:
    while radiator.top.degrees < radiator.low.degrees - 3:
        key.turn(radiator.valve, -0.25); sleep(1)
        if radiator.valve.drips(): break
    assert radiator.valve.closed, f"{radiator!r}: {key}"
"""


@pytest.mark.parametrize(
    "output", [CODE, f"```python\n{CODE * 4}\n```", "| 1 | 2.5 |\n|---|---|\n" * 40, "", "https://a.b/c " * 30]
)
def test_code_and_tables_have_no_language(output: str) -> None:
    assert tell_languages(output, least=1) == ()
    assert reason("Schreibe eine Funktion, die einen Heizkörper entlüftet, bis er warm ist.", output=output) == "ok"


def test_a_code_block_does_not_hide_the_language_of_the_prose_around_it() -> None:
    told = tell_languages(f"```python\n{CODE}\n```\n{GERMAN}", least=100)
    assert told[0] == "de"


def test_telling_a_language_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was asked for")

    languages._detector.cache_clear()
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert tell_languages(GERMAN, least=100)[0] == "de"


# --- too_few_words, too_long


@pytest.mark.parametrize("text", ["", "Radiators?", "...", "Radiators."])
def test_fewer_words_than_asked_for_are_too_few(text: str) -> None:
    assert reason(text) == "too_few_words"


@pytest.mark.parametrize("text", ["Explain tides", "解释量子", "อธิบาย", "क्वांटम समझाइए"])
def test_two_words_are_enough_in_every_script(text: str) -> None:
    assert reason(text) == "ok"


def test_length_is_counted_in_characters() -> None:
    assert reason("Say it. " + "x" * 12, GateOptions(max_chars=20)) == "ok"
    assert reason("Say it. " + "x" * 13, GateOptions(max_chars=20)) == "too_long"


# --- near_duplicate

LONG = "Please tell me in simple words how the old water pipes of a very big house work in a cold winter night"


def test_of_two_alike_the_first_survives_and_the_other_names_it() -> None:
    first, second = outcomes([LONG, f"{LONG.upper()}!"])
    assert isinstance(first, Pair)
    assert isinstance(second, Reject)
    assert (second.reason, second.id) == ("near_duplicate", "c1")
    assert second.detail.startswith("1.00 of the word pairs of c0: ")


def test_what_did_not_pass_is_no_survivor() -> None:
    again = "I'm sorry, but I cannot see it."
    assert reasons(outcomes([again, again])) == {"refusal": 2}
    found = outcomes([LONG, f"{LONG} now", f"{LONG} now or never"])
    assert [one.detail[:31] for one in found if isinstance(one, Reject)] == ["0.95 of the word pairs of c0: P"]


def test_one_changed_word_in_a_short_instruction_makes_another_one() -> None:
    assert reasons(outcomes(["Explain how tides work.", "Explain how clocks work."])) == {"ok": 2}


def test_candidates_of_one_passage_are_alternatives() -> None:
    pairs = [make(LONG, id=f"c{n}", passage=f"p{n // 2}") for n in range(4)]
    assert [one.id for one in gate(pairs, LAYOUT, GateOptions()) if isinstance(one, Pair)] == ["c0", "c1"]


def test_pairs_without_a_passage_are_not_taken_for_alternatives() -> None:
    assert reasons(gate([make(LONG, id="a"), make(LONG, id="b")], LAYOUT, GateOptions()))["near_duplicate"] == 1


def test_how_many_of_equal_instructions_survive_does_not_depend_on_order() -> None:
    asked = [f"Explain to me what the number {n % 7} is good for." for n in range(40)]
    counts = {tuple(reasons(outcomes(random.Random(seed).sample(asked, 40))).items()) for seed in range(5)}
    assert {dict(count)["ok"] for count in counts} == {7}


def bigrams(text: str) -> set[tuple[str, str]]:
    words = words_of(text)
    return set(zip(words, words[1:] or [""], strict=False))


def near_duplicates_by_comparing_all(instructions: Sequence[str], least: float) -> list[int]:
    kept: list[set[tuple[str, str]]] = []
    found = []
    for place, here in enumerate(map(bigrams, instructions)):
        if any(here and len(here & there) / len(here | there) >= least for there in kept):
            found.append(place)
        else:
            kept.append(here)
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join), max_size=25),
    st.sampled_from([0.1, 0.3, 0.5, 0.55, 2 / 3, 0.7, 0.8, 0.9, 1.0]),
)
def test_the_index_finds_what_comparing_all_with_all_finds(instructions: list[str], least: float) -> None:
    found = outcomes(instructions, OFF.model_copy(update={"near_duplicate": least}))
    rejected = [place for place, one in enumerate(found) if isinstance(one, Reject)]
    assert rejected == near_duplicates_by_comparing_all(instructions, least)


def many(count: int) -> list[Pair]:
    """Instructions of one mould, for which all pairs of words but two are common."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefgh", k=7)) for _ in range(5000)]
    asked = (
        f"Please explain to a beginner how {draw.choice(words)} {draw.choice(words)} is made" for _ in range(count)
    )
    return [make(one, id=str(n), passage=str(n)) for n, one in enumerate(asked)]


def test_twenty_thousand_instructions_take_seconds() -> None:
    pairs = many(20_000)
    start = time.process_time()
    found = list(gate(pairs, LAYOUT, GateOptions()))
    assert time.process_time() - start < 20  # three on an idle machine; comparing all with all takes minutes
    assert len(found) == len(pairs)


# --- what people asked


def share(pairs: Sequence[Pair]) -> float:
    """Share of the pairs that some rule fails on its own."""
    return sum(not check_pair(pair, LAYOUT, GateOptions()).keep for pair in pairs) / len(pairs)


def test_no_rule_fails_a_seed_pair_of_the_package() -> None:
    lines = (Path(embedded.__file__).parent / "data/seed/pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = [reason(row["instruction"], output=row["output"]) for row in rows]
    assert Counter(found) == {"ok": len(rows)}


def test_few_of_what_people_ask_an_assistant_fail(shared: Path) -> None:
    reading = read_seed(SeedOptions(path=str(shared / "oasst" / "guanaco_train_en.jsonl.gz")))
    pairs = [pair for pair in reading.outcomes if isinstance(pair, Pair)]
    assert len(pairs) > 3000
    assert share(pairs) < 0.03
    assert not [pair for pair in pairs if gates.wrong_language(pair, LAYOUT, GateOptions()).reason != "ok"]


def test_most_questions_about_a_text_that_is_gone_fail_and_no_other_does(shared: Path) -> None:
    import gzip

    with gzip.open(shared / "dolly" / "dolly_part.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    said = re.compile(r"\b(?:this|the (?:above|given|following)) (?:passage|paragraph|text|article)\b", re.IGNORECASE)
    gone = [row["instruction"] for row in rows if row["context"] and said.search(row["instruction"])]
    whole = [row["instruction"] for row in rows if not row["context"]]
    caught = [text for text in gone if gates.find_reference(text)]
    assert len(caught) > 0.95 * len(gone) > 100
    assert [text for text in whole if gates.find_reference(text)] == []
