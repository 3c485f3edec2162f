"""Candidates: asked with chance of their own, kept only where the answer can be an instruction."""

from collections.abc import Callable, Iterable, Iterator

import pytest

from askback.options import AugmentOptions
from askback.ports import Ask, Generate, Reply, Sampling
from askback.prompts import BACKWARD_LAYOUTS
from askback.records import Pair, Passage, Reject
from askback.stages.augment import augment, check_reply, is_loop

LAYOUT = BACKWARD_LAYOUTS["asked"]
PASSAGES = [
    Passage(id=f"p{n}", document="d", heading="H", text=f"Text {n}.", start=n, end=n + 7, source="d.md", label="good")
    for n in range(4)
]


def engine(reply: Callable[[Ask], Reply]) -> Generate:
    return lambda asks, sampling: (reply(ask) for ask in asks)


def say(text: str, finish: str = "stop") -> Generate:
    return engine(lambda ask: Reply(text, finish))


say_seed = engine(lambda ask: Reply(f"Write about number {ask.seed}.", "stop"))


def outcomes(ask: Generate, *, n: int = 1, passages: Iterable[Passage] = PASSAGES) -> list[Pair | Reject]:
    return list(augment(passages, ask, LAYOUT, AugmentOptions(n=n), seed=3))


def reason(text: str, finish: str = "stop") -> str:
    return check_reply(Reply(text, finish), min_chars=8).reason


def test_every_passage_has_one_outcome_per_candidate_in_order() -> None:
    found = outcomes(say_seed, n=3)
    assert [(pair.passage, pair.candidate) for pair in found] == [(p.id, n) for p in PASSAGES for n in range(3)]


def test_a_candidate_keeps_its_passage_word_for_word_and_the_way_back_to_it() -> None:
    for pair, passage in zip(outcomes(say_seed), PASSAGES, strict=True):
        assert isinstance(pair, Pair)
        assert (pair.output, pair.kind, pair.score) == (passage.text, "augmented", None)
        for name in ("document", "heading", "start", "end", "source", "licence", "genre", "label"):
            assert getattr(pair, name) == getattr(passage, name)


def test_a_lost_reply_is_noticed() -> None:
    def lose_one(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        return (Reply("Write a letter.", "stop") for _ in list(asks)[1:])

    with pytest.raises(ValueError, match="shorter"):
        outcomes(lose_one)


def test_a_reply_too_many_is_noticed() -> None:
    with pytest.raises(ValueError, match="longer"):
        outcomes(lambda asks, sampling: (Reply("Write a letter.", "stop") for _ in range(1 + len(list(asks)))))


def test_the_model_is_asked_with_the_text_alone_and_never_with_its_heading_or_label() -> None:
    def check(ask: Ask) -> Reply:
        assert ask.prompt.body.startswith("Text ")
        assert "good" not in str(ask)
        assert "H" not in ask.prompt.before + ask.prompt.after
        return Reply("Write a letter.", "stop")

    assert len(outcomes(engine(check))) == len(PASSAGES)


def test_chance_belongs_to_passage_and_candidate_and_not_to_order() -> None:
    def by_id(found: list[Pair | Reject]) -> dict[str, str]:
        return {row.id: row.instruction for row in found if isinstance(row, Pair)}

    there = by_id(outcomes(say_seed, n=2))
    assert by_id(outcomes(say_seed, n=2, passages=PASSAGES[::-1])) == there
    assert len(set(there.values())) == 2 * len(PASSAGES)
    assert by_id(outcomes(say_seed, passages=PASSAGES[2:3])).items() <= there.items()


def test_another_run_seed_draws_another_text() -> None:
    one, other = (list(augment(PASSAGES, say_seed, LAYOUT, AugmentOptions(), seed=seed)) for seed in (1, 2))
    assert not {row.instruction for row in one} & {row.instruction for row in other}


def test_the_options_reach_the_engine() -> None:
    seen: list[Sampling] = []

    def note(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        seen.append(sampling)
        return (Reply("Write a letter.", "stop") for _ in asks)

    list(augment(PASSAGES, note, LAYOUT, AugmentOptions(temperature=0.3, top_p=0.5, max_new_tokens=9), seed=0))
    assert seen == [Sampling(0.3, 0.5, 9)]


# --- what cannot be an instruction


def test_a_rejected_reply_says_whose_it_was_and_why() -> None:
    [found] = outcomes(say("Write about the sea and then", "length"), passages=PASSAGES[:1])
    assert found == Reject("p0#0", "cut_off", "Write about the sea and then", "d.md")


def test_a_reply_that_met_its_limit_is_cut_off_however_good_it_looks() -> None:
    assert reason("Write a letter.", "length") == "cut_off"


@pytest.mark.parametrize("text", ["", " ", "a", "Write.", "12345678", "?!?!?!?!?!", "1. 2. 3. 4."])
def test_a_reply_too_short_or_without_a_letter_is_empty(text: str) -> None:
    assert reason(text) == "empty"


@pytest.mark.parametrize(
    "text",
    ["go on go on go on", "the the the the the the", "Write a list. Write a list. Write a list.", "A b c d " * 3],
)
def test_a_reply_that_goes_round_in_circles_is_a_loop(text: str) -> None:
    assert is_loop(text)
    assert reason(text) == "repeated_loop"


@pytest.mark.parametrize("text", ["", "Write", "Knock, knock: who is there?", "a b a b", "no no no, that is wrong"])
def test_a_word_said_twice_or_thrice_is_no_loop(text: str) -> None:
    assert not is_loop(text)


def test_what_a_whole_reply_says_is_weighed_later() -> None:
    assert reason("The following text answers a request.") == "ok"


def test_a_prompt_that_has_no_room_for_a_reply_is_no_empty_reply() -> None:
    assert reason("", "no_room") == "no_room"


def test_a_second_equal_answer_to_one_passage_is_rejected_and_to_another_is_not() -> None:
    found = outcomes(say("Write a letter."), n=2)
    assert [type(row) for row in found] == [Pair, Reject] * len(PASSAGES)
    assert {row.reason for row in found if isinstance(row, Reject)} == {"same_candidate"}


def test_two_answers_that_differ_in_case_alone_are_the_same() -> None:
    replies = iter(["Write a letter.", "write a LETTER."])
    found = outcomes(engine(lambda ask: Reply(next(replies), "stop")), n=2, passages=PASSAGES[:1])
    assert isinstance(found[1], Reject)
    assert found[1].reason == "same_candidate"
