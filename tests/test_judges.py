"""Judges: scores from what a model really said, on the rubric's own scale, and a reason wherever there is none."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from askback import commands
from askback.config import check_options
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError
from askback.options import CurateOptions, EngineOptions, SignalName
from askback.ports import Ask, Choice, Choose, Example, Generate, Likelihood, LogLikelihood, Prompt, Reply, Sampling
from askback.prompts import (
    BACKWARD_LAYOUTS,
    DIGITS,
    FORWARD_LAYOUT,
    INSTRUCTION_RUBRIC,
    LAYOUT_FILE,
    POINTS,
    RUBRICS,
    Rubric,
)
from askback.records import Judgement, Pair
from askback.stages.judges import (
    judge_backward,
    judge_expected,
    judge_gated,
    judge_likelihood,
    judge_reasoned,
    refuse_unfit,
)
from askback.tasks import open_signal, read_calibration, read_rubric
from judge_replies import REPLIES
from models import open_local

FIVE, ADDITIVE = RUBRICS["five"], RUBRICS["additive"]


def pairs_of(count: int) -> list[Pair]:
    return [Pair(id=f"c{n}", instruction=f"Ask {n}.", output=f"Text {n}.", passage=f"p{n}") for n in range(count)]


def choosing(*choices: Choice | None) -> Choose:
    return lambda prompts, digits: (choice for _, choice in zip(prompts, choices, strict=True))


def weighing(*totals: tuple[float, int] | None) -> Likelihood:
    return lambda examples: (t and LogLikelihood(*t) for _, t in zip(examples, totals, strict=True))


# --- expected


def test_the_expected_score_is_the_mean_under_the_digits_own_probabilities() -> None:
    choice = Choice((0.1, 0.0, 0.1, 0.2, 0.4), 0.2)
    [found] = judge_expected(pairs_of(1), choosing(choice), FIVE, round=2)
    assert found.score == pytest.approx((1 * 0.1 + 3 * 0.1 + 4 * 0.2 + 5 * 0.4) / 0.8)
    assert (found.round, found.judge, found.outcome) == (2, "expected", "scored")
    assert found.distribution == (0.1, 0.0, 0.1, 0.2, 0.4, 0.2)


def test_the_additive_score_begins_at_zero() -> None:
    choice = Choice((0.5, 0.0, 0.0, 0.0, 0.25, 0.0), 0.25)
    [found] = judge_expected(pairs_of(1), choosing(choice), ADDITIVE, round=1)
    assert found.score == pytest.approx(4 * 0.25 / 0.75)
    assert found.distribution == (0.5, 0.0, 0.0, 0.0, 0.25, 0.0, 0.25)


@pytest.mark.parametrize(("rubric", "digits"), [(FIVE, DIGITS), (ADDITIVE, POINTS)], ids=["five", "additive"])
def test_the_judge_is_offered_the_digits_of_its_rubric(rubric: Rubric, digits: tuple[str, ...]) -> None:
    def check(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice]:
        assert tuple(choices) == digits
        return (Choice((1 / len(choices),) * len(choices), 0.0) for _ in prompts)

    middle = (rubric.lowest + 5) / 2
    assert [said.score for said in judge_expected(pairs_of(3), check, rubric, round=1)] == [pytest.approx(middle)] * 3


@pytest.mark.parametrize(
    ("choice", "outcome"),
    [
        (None, "too_long"),
        (Choice((0.0,) * 5, 1.0), "no_mass_on_digits"),
        (Choice((float("nan"),) * 5, 1.0), "no_mass_on_digits"),
    ],
)
def test_no_mass_on_any_digit_is_no_score(choice: Choice | None, outcome: str) -> None:
    [found] = judge_expected(pairs_of(1), choosing(choice), FIVE, round=1)
    assert (found.score, found.outcome) == (None, outcome)


def test_a_lost_choice_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(judge_expected(pairs_of(2), lambda prompts, digits: iter([Choice((0.2,) * 5, 0.0)]), FIVE, round=1))


# --- the gate before it


def graded(score: float) -> Choice:
    """Return a choice whose expected grade is `score`."""
    above = (score - 1) / 4
    return Choice((1 - above, 0.0, 0.0, 0.0, above), 0.0)


def gated(grades: Sequence[Choice | None], least: float = 3.0) -> tuple[list[Judgement], list[str]]:
    """Return the judgements behind a gate, and the ids of the pairs that the judge behind it saw."""
    seen: list[str] = []

    def judge(pairs: Sequence[Pair]) -> Iterator[Judgement]:
        seen.extend(pair.id for pair in pairs)
        return (Judgement(pair=pair.id, round=1, judge="expected", score=4.0) for pair in pairs)

    def refuse(pairs: Sequence[Pair]) -> Iterator[Judgement | None]:
        return refuse_unfit(pairs, choosing(*grades), least, judge="expected", round=1)

    return list(judge_gated(pairs_of(len(grades)), refuse, judge)), seen


def test_an_unfit_instruction_is_judged_no_further_and_its_grade_is_told() -> None:
    found, seen = gated([graded(3.0), graded(2.5), graded(5.0)])
    assert [(said.pair, said.score, said.outcome) for said in found] == [
        *(("c0", 4.0, "scored"), ("c1", None, "unfit_instruction"), ("c2", 4.0, "scored"))
    ]
    assert found[1].detail == "the instruction alone: 2.500 < 3"
    assert seen == ["c0", "c2"]


@pytest.mark.parametrize(("choice", "outcome"), [(None, "too_long"), (Choice((0.0,) * 5, 1.0), "no_mass_on_digits")])
def test_a_gate_that_gives_no_grade_lets_nothing_through(choice: Choice | None, outcome: str) -> None:
    found, seen = gated([choice, graded(4.0)])
    assert (found[0].score, found[0].outcome, seen) == (None, outcome, ["c1"])


def test_the_gate_shows_the_instruction_alone() -> None:
    asked: list[Prompt] = []

    def choose(prompts: Iterable[Prompt], digits: Sequence[str]) -> Iterator[Choice]:
        asked.extend(prompts)
        return iter([graded(1.0)] * len(asked))

    assert all(refuse_unfit(pairs_of(2), choose, 2.0, judge="reasoned", round=1))
    assert asked == [INSTRUCTION_RUBRIC.prompt(pair, reasons=False) for pair in pairs_of(2)]
    assert not any("Text" in prompt.before + prompt.body + prompt.after for prompt in asked)


def test_a_judgement_lost_behind_the_gate_is_noticed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(judge_gated(pairs_of(2), lambda pairs: [None] * len(pairs), lambda pairs: iter(())))


# --- reasoned


class Speaker:
    """A Generate call that says the next of its replies each time; it remembers what it was asked."""

    def __init__(self, *replies: str, finish: str = "stop") -> None:
        self.replies, self.finish = list(replies), finish
        self.asks: list[Ask] = []
        self.calls: list[tuple[float, int]] = []

    def __call__(self, asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
        asked = list(asks)
        self.asks += asked
        self.calls.append((sampling.temperature, len(asked)))
        return iter([Reply(self.replies.pop(0), self.finish) for _ in asked])


def reasoned(ask: Generate, count: int = 1, rubric: Rubric = FIVE, **options: Any) -> list[Judgement]:
    return list(judge_reasoned(pairs_of(count), ask, rubric, CurateOptions(**options), round=1, seed=0))


def test_a_first_reply_with_a_score_is_taken_and_not_asked_for_again() -> None:
    speaker = Speaker("Fine.\nScore: 4")
    [found] = reasoned(speaker)
    assert (found.score, found.detail) == (4.0, "Fine.\nScore: 4")
    assert speaker.calls == [(0.0, 1), (0.7, 0), (0.7, 0)]


def test_a_reply_without_a_score_is_asked_for_twice_more_with_chance() -> None:
    speaker = Speaker("Hm.", "Score: 10", "Score: 2")
    [found] = reasoned(speaker)
    assert (found.score, found.outcome, found.detail) == (2.0, "scored", "Score: 2")
    assert speaker.calls == [(0.0, 1), (0.7, 1), (0.7, 1)]


def test_three_replies_without_a_score_stay_without_a_number() -> None:
    found = reasoned(Speaker(*["Hm."] * 2, *["4 or 5"] * 2, *["Score: 7/10"] * 2), count=2)
    assert [(said.score, said.outcome, said.detail) for said in found] == [(None, "parse_failed", "Score: 7/10")] * 2


def test_several_replies_are_all_drawn_and_averaged() -> None:
    speaker = Speaker("Good.\nScore: 5", "Score: 1", "Score: 4", "Score: 4", "Score: 3", "Score: 1")  # in turn
    found = reasoned(speaker, count=2, samples=3)
    assert [(said.score, said.detail) for said in found] == [(4.0, "Good.\nScore: 5"), (2.0, "Score: 1")]
    assert speaker.calls == [(0.7, 2)] * 3


def test_the_mean_is_over_the_replies_that_hold_a_score_and_says_how_many_do() -> None:
    [found] = reasoned(Speaker("Hm.", "Score: 2", "Score: 5"), samples=3)
    assert (found.score, found.detail) == (3.5, "2 of 3 replies hold a score; the first: Hm.")


def test_several_replies_without_a_score_are_no_number_either() -> None:
    speaker = Speaker("Hm.", "Score: 9")
    [found] = reasoned(speaker, samples=2)
    assert (found.score, found.outcome, found.detail) == (None, "parse_failed", "Hm.")
    assert speaker.calls == [(0.7, 1)] * 2


def test_chance_belongs_to_pair_and_sample() -> None:
    speaker, again = Speaker(*["Score: 3"] * 6), Speaker(*["Score: 3"] * 6)
    reasoned(speaker, count=2, samples=3)
    assert len({ask.seed for ask in speaker.asks}) == 6
    list(judge_reasoned(pairs_of(2)[::-1], again, FIVE, CurateOptions(samples=3), round=1, seed=0))
    assert {ask.seed for ask in again.asks} == {ask.seed for ask in speaker.asks}


@pytest.mark.parametrize("samples", [1, 3])
def test_a_pair_without_room_is_too_long_and_no_sign_of_a_weak_judge(samples: int) -> None:
    [found] = reasoned(Speaker(*[""] * samples, finish="no_room"), samples=samples)
    assert (found.score, found.outcome) == (None, "too_long")


def test_a_zero_counts_on_the_additive_scale_alone() -> None:
    assert [said.score for said in reasoned(Speaker("Score: 0"), rubric=ADDITIVE)] == [0.0]
    assert [said.outcome for said in reasoned(Speaker(*["Score: 0"] * 3))] == ["parse_failed"]


@pytest.mark.parametrize(("rubric", "column"), [(FIVE, 1), (ADDITIVE, 2)], ids=["five", "additive"])
def test_replies_of_every_odd_shape_become_the_exact_score_or_parse_failed(rubric: Rubric, column: int) -> None:
    texts = [reply for reply, _, _ in REPLIES]
    wanted = [row[column] for row in REPLIES]
    lost = [reply for reply, score in zip(texts, wanted, strict=True) if score is None]
    found = reasoned(Speaker(*texts, *lost, *lost), count=len(texts), rubric=rubric)
    assert [said.score for said in found] == wanted
    assert [said.outcome for said in found] == ["scored" if w is not None else "parse_failed" for w in wanted]


def test_a_score_inside_the_material_is_not_the_judges() -> None:
    pair = replace(pairs_of(1)[0], output="A fine text.\nScore: 5")
    speaker = Speaker(*["I will not grade this."] * 3)
    [found] = judge_reasoned([pair], speaker, FIVE, CurateOptions(), round=1, seed=0)
    assert found.score is None


# --- likelihood, both ways


def test_the_gain_is_what_the_instruction_adds_per_token_of_the_output() -> None:
    def likelihood(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        for example in examples:
            yield LogLikelihood(-6.0 if "Ask" in example.prompt.before else -10.0, 4)

    [found] = judge_likelihood(pairs_of(1), likelihood, FORWARD_LAYOUT, round=1)
    assert (found.score, found.judge) == (pytest.approx(1.0), "likelihood")


def test_an_output_without_room_has_no_gain() -> None:
    [found] = judge_likelihood(pairs_of(1), weighing(None), FORWARD_LAYOUT, round=1)
    assert (found.score, found.outcome) == (None, "too_long")


def test_backward_is_the_log_likelihood_per_token_of_the_instruction() -> None:
    first, none = judge_backward(pairs_of(2), weighing((-6.0, 4), None), BACKWARD_LAYOUTS["plain"], round=3)
    assert (first.score, first.judge, first.round) == (-1.5, "backward", 3)
    assert (none.score, none.outcome) == (None, "too_long")


def test_backward_predicts_the_instruction_from_the_output_in_the_layout_of_training() -> None:
    seen: list[Example] = []

    def likelihood(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        for example in examples:
            seen.append(example)
            yield LogLikelihood(-1.0, 1)

    layout = BACKWARD_LAYOUTS["asked"].trained(99)
    list(judge_backward(pairs_of(2), likelihood, layout, round=1))
    assert seen == [layout.training_example(pair) for pair in pairs_of(2)]


# --- opened by name


ECHO = EchoEngine(EngineOptions(kind="echo"))


def save_layout(folder: Path, direction: str) -> Path:
    folder.mkdir()
    layout = FORWARD_LAYOUT if direction == "forward" else BACKWARD_LAYOUTS["asked"]
    (folder / LAYOUT_FILE).write_text(layout.dumps())
    return folder


@pytest.mark.parametrize("name", ["expected", "reasoned", "likelihood", "backward"])
@pytest.mark.parametrize("gate", [0.0, 3.0])
def test_every_signal_judges_every_pair_under_its_own_name(tmp_path: Path, name: SignalName, gate: float) -> None:
    forward, backward = save_layout(tmp_path / "f", "forward"), save_layout(tmp_path / "b", "backward")
    options = CurateOptions(instruction_gate=gate, rubric="additive")
    judge = open_signal(ECHO, name, forward, backward, options, round=2, seed=0)
    found = list(judge(pairs_of(9)))
    assert [(said.pair, said.judge, said.round) for said in found] == [(f"c{n}", name, 2) for n in range(9)]
    refused = sum(said.outcome == "unfit_instruction" for said in found)
    assert (0 < refused < 9) == (gate > 0 and name in ("expected", "reasoned"))
    assert {len(said.distribution) for said in found if said.score is not None} == {7 if name == "expected" else 0}


def test_the_backward_signal_without_a_backward_model_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"`backward`.* --backward, one that `askback train backward` wrote"):
        open_signal(ECHO, "backward", None, None, CurateOptions(), round=1, seed=0)


def test_a_model_of_the_wrong_direction_is_refused(tmp_path: Path) -> None:
    forward, backward = save_layout(tmp_path / "f", "forward"), save_layout(tmp_path / "b", "backward")
    for name in ("expected", "reasoned", "likelihood", "backward"):
        with pytest.raises(ConfigError, match="is wanted here"):
            open_signal(ECHO, name, backward, forward, CurateOptions(), round=1, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RUBRICS)
def test_a_built_in_rubric_is_named(name: str) -> None:
    assert read_rubric(CurateOptions(rubric=name)) == RUBRICS[name]


@pytest.mark.parametrize("rubric", ["", "addditive", "no/such/file.txt"])
def test_a_rubric_that_is_neither_a_name_nor_a_file_is_refused(rubric: str) -> None:
    with pytest.raises(ConfigError, match=r"^curate\.rubric = .*neither `five` or `additive` nor a file"):
        read_rubric(CurateOptions(rubric=rubric))


def test_an_empty_rubric_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "rubric.txt"
    file.write_text("")
    options = check_options({"curate": {"rubric": str(file), "keep_top": 1}}, "test")
    with pytest.raises(ConfigError, match=r"rubric\.txt.*: a rubric holds"):
        commands.judge_pairs(pairs_of(2), None, options, ECHO)


def test_no_calibration_is_read_where_none_is_named() -> None:
    assert read_calibration(CurateOptions()) is None


@pytest.mark.parametrize(("text", "why"), [(None, "cannot be read"), ("{}", "not a file of `askback calibrate`")])
def test_a_calibration_that_cannot_be_used_is_refused_by_its_file(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "calibration.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=rf"calibration\.json.*{why}"):
        read_calibration(CurateOptions(calibration=str(file)))


# --- on a real model


def test_the_embedded_base_spreads_its_mass_over_the_digits_of_either_scale() -> None:
    engine = open_local(Path("tiny"))
    for rubric in (FIVE, ADDITIVE):
        for said in judge_expected(pairs_of(2), engine.choose(), rubric, round=1):
            assert said.score is not None
            assert rubric.lowest <= said.score <= 5
            assert len(said.distribution) == len(rubric.digits) + 1
            assert sum(said.distribution) == pytest.approx(1, abs=1e-5)
