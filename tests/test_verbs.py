"""What an instruction asks for: heard by word lists, and held against what a person reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askback.embedded import SEED
from askback.verbs import verb_object

READ = """
build canal | Why was the Suez Canal built, and how did it change trade?
live water | How do people live with water in the Mekong Delta of Vietnam?
make starter | How do I make a sourdough starter from flour and water?
explain encryption | Explain public-key encryption using padlocks as a comparison.
explain weather | Explain how weather and climate differ, with an example anyone can picture.
show total | Show an SQL running total of daily sales using a window function.
trace smallpox | Trace how smallpox was eradicated, from Jenner to the last case.
write note | Write a short science note on how fireflies produce their light.
show one-liner | Can you show an awk one-liner that counts log errors per hour?
give life | Give me a brief life of the composer Johann Sebastian Bach.
suggest question | Suggest icebreaker questions for the first meeting of a new team.
give checklist | Give me a checklist for applying for a passport for a child.
contrast frog | Contrast frogs and toads so that a child can tell them apart.
write letter | Can you write a reference letter for a reliable babysitter?
resist rust | Why does stainless steel resist rust while ordinary steel does not?
prepare tea | How do you prepare Moroccan mint tea the traditional way?
write block | Write a question-and-answer block about adopting an adult dog from a shelter.
make stitch | How does a sewing machine make a stitch with two separate threads?
be pro | What are the pros and cons of an e-reader compared with printed books?
tell fable | Tell a short fable about a tortoise and a river that explains the value of patience.
write e-mail | Write an e-mail to a hotel asking about wheelchair access before booking.
describe effect | Describe the Doppler effect and where astronomers and doctors use it.
make hummus | How do I make hummus from dried chickpeas?
need chilli | I need a vegan chilli with beans and dark chocolate.
explain bat | Explain how bats hunt moths in darkness with echolocation.
need script | I need a shell script for a dated tar backup that keeps only the last seven copies.
be list | What should be on a packing list for a weekend bicycle tour?
write recipe | Write down a recipe for hearty beef goulash in the Hungarian style.
be lovelace | Who was Ada Lovelace, and why is she linked with early computer programming?
give overview | Give an overview of the East African Rift Valley and its future.
consider lichen | Why are lichens considered a partnership rather than a single organism?
tell story | Tell a story about a beekeeper whose hives fall silent one summer morning.
create faq | Create an FAQ for new members of an amateur choir who cannot read music.
belong checklist | What belongs on a monthly checklist for smoke alarms and fire safety at home?
visit feeder | Which birds visit garden feeders most often in a British winter?
pass country | Which countries and capitals does the Danube pass through?
compare tool | Compare renting tools with buying them for a home renovation.
have tread | Why do car tyres have tread when racing slicks have none?
back folder | Explain how to back up a folder to an external drive using rsync.
list essential | List the essentials for a first aid kit kept in the car.
descale kettle | Can you explain how to descale an electric kettle with citric acid?
share recipe | Share a recipe for homemade lemon curd.
be league | What was the Hanseatic League and how did its merchants operate?
buy telescope | How should a beginner go about buying a second-hand telescope?
write section | Write an FAQ section for a small shop that repairs bicycles while customers wait.
patch puncture | How do I patch a puncture in a bicycle inner tube?
write story | Write a detective story about missing garden gnomes, solved in under 150 words.
write form | Write an accessible HTML form for signing up to a newsletter.
cause lightning | What causes lightning inside a thundercloud?
keep tea | How does a vacuum flask keep tea hot in winter and water cold in summer?
speed reaction | How does a catalyst speed up a reaction in a car's exhaust?
store tuber | How do I store dahlia tubers over winter?
check car | What should I check when buying a used car? Give me a checklist.
name fallacy | Name common logical fallacies with a short everyday example of each.
list thing | Can you list what to check before flying a drone outdoors?
be difference | What is the difference between a modem and a router at home?
write letter | Write a short letter to my future self to be opened in ten years.
be difference | What is the difference between a virus and a bacterium when you fall ill?
compare arctic | Compare the Arctic and the Antarctic: land, ice, climate and wildlife.
roast chicken | How can I roast a whole chicken so that the skin is crisp?
"""
"""Sixty embedded seed pairs, drawn blindly, with the verb and object a person reads in each."""

ALIKE = [
    "How do I patch a puncture?",
    "How can I patch a puncture in an old bicycle inner tube",
    "how to patch a puncture",
    "Explain how to patch a puncture.",
    "Can you please tell me step by step how to patch punctures?",
    "I need steps for patching a puncture.",
    "I want to know how to quickly patch a puncture.",
    "What is the best way to patch a puncture?",
    "How is a puncture patched?",
    "Help me patch a puncture",
    "My bike broke down yesterday. How should a beginner go about patching a puncture?",
]
FORMS = [
    ("Write a letter to a landlord about damp.", "write letter"),
    ("Please draft an apology e-mail asking for patience.", "draft e-mail"),
    ("Give me ten cheap indoor activities for children.", "give activity"),
    ("Tell me about the mathematician Ramanujan and his work.", "tell ramanujan"),
    ("What is the difference between a modem and a router?", "be difference"),
    ("Who was Ada Lovelace, and why is she known?", "be lovelace"),
    ("What causes lightning inside a thundercloud?", "cause lightning"),
    ("Which tasks should be done in spring?", "do task"),
    ("How many strings does a cello have?", "have string"),
    ("Why does bread dough need to be kneaded?", "knead dough"),
    ("Why do babies cry?", "cry baby"),
    ("Should a small café keep its accounts?", "keep account"),
    ("Compare electric and acoustic guitars.", "compare guitar"),
    ("Translate this paragraph into French:\n\nWrite a letter.", "translate paragraph"),
    ("Based on the following text, what is the capital of France?", "be capital"),
    ("Imagine you are a pirate. Write a song about the sea.", "write song"),
    ("I'm afraid of heights. What advice helps on a ladder?", "help advice"),
    ("Proofread the following movies.", "proofread movie"),
]


def heard(instruction: str) -> str:
    return " ".join(verb_object(instruction) or ())


def test_of_sixty_instructions_at_least_fifty_five_are_heard_as_a_person_reads_them() -> None:
    read = [line.partition(" | ")[::2] for line in READ.strip().splitlines()]
    assert len(read) == 60
    assert sum(heard(instruction) == pair for pair, instruction in read) >= 55


def test_nearly_every_embedded_instruction_has_a_pair() -> None:
    rows = [json.loads(line)["instruction"] for line in SEED.read_text(encoding="utf-8").splitlines()]
    assert sum(verb_object(row) is not None for row in rows) >= 0.97 * len(rows)


@pytest.mark.parametrize("instruction", ALIKE)
def test_one_deed_is_heard_however_it_is_asked_for(instruction: str) -> None:
    assert heard(instruction) == "patch puncture"


@pytest.mark.parametrize(("instruction", "pair"), FORMS)
def test_verb_and_object_are_heard(instruction: str, pair: str) -> None:
    assert heard(instruction) == pair


@pytest.mark.parametrize("text", ["", " ", "?", "how", "Bioinformatics", "你好吗", "Schreibe einen Brief", "to to to"])
def test_where_nothing_is_heard_nothing_is_made_up(text: str) -> None:
    assert verb_object(text) is None


@given(
    st.text()
    | st.lists(st.sampled_from("how what can you to be is write the a , . and help me cats".split())).map(" ".join)
)
def test_no_text_is_too_odd(text: str) -> None:
    pair = verb_object(text)
    assert pair is None or all(part and part == part.lower() for part in pair)


@pytest.mark.parametrize("text", ["can you " * 5000, ", ".join(["cat"] * 5000), "how to " * 5000, "and so " * 5000])
def test_a_long_monotonous_text_is_answered_with_nothing_and_not_with_an_error(text: str) -> None:
    assert verb_object(text) is None
