"""Curation: one score of the signals that decide, and the best candidates kept, with nothing lost on the way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest

from askback import commands
from askback.calibration import Calibration
from askback.config import check_options
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, DataError
from askback.options import CurateOptions, EngineOptions
from askback.prompts import BACKWARD_LAYOUTS, LAYOUT_FILE
from askback.records import Judgement, Pair, Reject
from askback.stages.curate import check_kept, check_parsed, combine, deciding, keep, keep_floor, to_ranks
from askback.tasks import read_calibration

Scores = Sequence[float | None]


def pairs_of(count: int, *, per_passage: int = 1) -> list[Pair]:
    return [
        Pair(
            id=f"c{n}",
            instruction=f"Ask {n}.",
            output=f"Text {n // per_passage}.",
            kind="augmented",
            passage=f"p{n // per_passage}",
            candidate=n % per_passage,
        )
        for n in range(count)
    ]


def judged(scores: Scores, judge: str = "expected", outcome: str = "parse_failed") -> list[Judgement]:
    return [
        Judgement(pair=f"c{n}", round=1, judge=judge, score=s, outcome="scored" if s is not None else outcome)
        for n, s in enumerate(scores)
    ]


def measured(**signals: Scores) -> dict[str, list[Judgement]]:
    return {name: judged(scores, name) for name, scores in signals.items()}


def sorted_out(signals: dict[str, list[Judgement]], per_passage: int = 1, **options: Any) -> dict[str, str]:
    """Return what became of each candidate: kept, or the reason why not."""
    count = len(next(iter(signals.values())))
    found = keep(pairs_of(count, per_passage=per_passage), signals, CurateOptions(**options))
    return {row.id: row.reason if isinstance(row, Reject) else "kept" for row in found}


def kept(scores: Scores, per_passage: int = 1, **options: Any) -> list[str]:
    found = sorted_out(measured(expected=scores), per_passage, **options)
    return [id for id, became in found.items() if became == "kept"]


def calibration(*names: str, keep_from: float = 3.0) -> Calibration:
    ones = (1.0,) * len(names)
    return Calibration(
        signals=names,
        means=(0.0,) * len(names),
        scales=ones,
        weights=ones,
        bias=0.0,
        keep_from=keep_from,
        wanted_precision=0.9,
        n=9,
        good=5,
    )


# --- one score of one or several signals


@pytest.mark.parametrize("name", ["expected", "reasoned"])
def test_a_grade_alone_is_the_score_as_it_is(name: str) -> None:
    assert combine({name: judged([4.25, None, 0.5])}, CurateOptions(judge=name)) == {"c0": 4.25, "c2": 0.5}


@pytest.mark.parametrize("name", ["likelihood", "backward"])
def test_a_likelihood_alone_becomes_ranks_from_one_to_five(name: str) -> None:
    scores = combine({name: judged([0.1, -3.0, 9.0, 0.2, 0.15])}, CurateOptions(judge=name))
    assert scores == {"c1": 1.0, "c0": 2.0, "c4": 3.0, "c3": 4.0, "c2": 5.0}


def test_equal_values_share_their_rank() -> None:
    assert to_ranks([0.5, 0.5, 0.1, 0.9, 0.5]) == [3.0, 3.0, 1.0, 5.0, 3.0]


def test_ranks_depend_on_order_alone() -> None:
    values = [Random(1).gauss(0, 1) for _ in range(9)]
    assert to_ranks(values) == to_ranks([3 * value + 7 for value in values])
    assert (to_ranks([]), to_ranks([0.2])) == ([], [1.0])


def test_of_several_signals_the_score_is_the_mean_of_their_ranks() -> None:
    signals = measured(expected=[4.0, 2.0, 3.0], likelihood=[0.1, 0.2, 0.3], backward=[-9.0, -8.0, -7.0])
    assert combine(signals, CurateOptions(judge=["expected", "likelihood"])) == {"c0": 3.0, "c1": 2.0, "c2": 4.0}
    assert combine(signals, CurateOptions(judge="cycle")) == {"c0": 1.0, "c1": 3.0, "c2": 5.0}


def test_a_pair_that_lacks_a_signal_of_the_score_has_none_and_leaves_no_gap() -> None:
    signals = measured(likelihood=[0.9, None, 0.1, 0.5], backward=[-1.0, -2.0, None, -3.0])
    assert combine(signals, CurateOptions(judge="cycle")) == {"c0": 5.0, "c3": 1.0}


def test_a_signal_beside_the_judge_changes_no_score() -> None:
    signals = measured(expected=[4.0, 2.0], likelihood=[None, 9.0])
    options = CurateOptions(beside="likelihood", rerank="likelihood", least={"likelihood": 0.0})
    assert combine(signals, options) == {"c0": 4.0, "c1": 2.0}


def test_a_calibration_makes_the_score_of_the_values_as_they_are() -> None:
    signals = measured(expected=[1.0, 2.0, None], likelihood=[-1.0, 5.0, 1.0])
    made = calibration("expected", "likelihood")
    scores = combine(signals, CurateOptions(judge="expected", beside="likelihood"), made)
    assert scores == {"c0": 3.0, "c1": made.score({"expected": 2.0, "likelihood": 5.0})}


def test_a_signal_that_was_not_measured_is_asked_for_by_name() -> None:
    with pytest.raises(DataError, match="signal `backward` was not measured, only likelihood"):
        combine(measured(likelihood=[1.0]), CurateOptions(judge="cycle"))


def test_what_decides_is_what_makes_the_score_what_reranks_and_what_has_a_bound() -> None:
    options = CurateOptions(
        judge=["reasoned"], rerank="likelihood", least={"expected": 2, "reasoned": 1}, beside="backward"
    )
    assert deciding(options) == ("reasoned", "likelihood", "expected")
    assert deciding(options, calibration("backward")) == ("backward", "likelihood", "expected", "reasoned")


# --- too many replies without a score


def test_one_in_twenty_without_a_score_is_allowed() -> None:
    assert check_parsed(measured(expected=[None] + [4.0] * 19), CurateOptions()) is None


def test_more_than_that_stop_the_run_and_three_replies_are_shown() -> None:
    said = [replace(j, detail=f"reply {n}\nof two lines") for n, j in enumerate(judged([None] * 5 + [4.0] * 20))]
    with pytest.raises(DataError, match="5 of 25 judgements of the signal `reasoned` hold no score") as caught:
        check_parsed({"reasoned": said}, CurateOptions(judge="reasoned"))
    assert [f"reply {n} of two lines" in str(caught.value) for n in range(5)] == [True] * 3 + [False] * 2
    for option in ("engine.base", "curate.judge=expected", "curate.judge=likelihood", "curate.max_unparsed"):
        assert option in str(caught.value)


def test_a_judge_that_fails_is_not_told_to_use_itself() -> None:
    with pytest.raises(DataError) as caught:
        check_parsed(measured(expected=[None] * 3), CurateOptions())
    assert "curate.judge=likelihood" in str(caught.value)
    assert "curate.judge=expected" not in str(caught.value)


@pytest.mark.parametrize("outcome", ["too_long", "unfit_instruction"])
def test_a_pair_not_worth_or_not_able_to_be_judged_is_no_sign_of_a_weak_judge(outcome: str) -> None:
    refused = judged([None] * 90 + [4.0] * 10, outcome=outcome)
    assert check_parsed({"expected": refused}, CurateOptions()) is None


def test_nor_does_it_hide_one() -> None:
    refused = judged([None] * 90, outcome="unfit_instruction")
    weak = [replace(row, pair=f"d{row.pair}") for row in judged([4.0] * 9 + [None])]
    with pytest.raises(DataError, match="1 of 10 judgements"):
        check_parsed({"expected": [*refused, *weak]}, CurateOptions())


def test_a_signal_that_decides_nothing_may_fail() -> None:
    signals = measured(expected=[4.0] * 9, reasoned=[None] * 9)
    assert check_parsed(signals, CurateOptions(beside="reasoned")) is None
    with pytest.raises(DataError, match="signal `reasoned`"):
        check_parsed(signals, CurateOptions(rerank="reasoned"))
    with pytest.raises(DataError, match="signal `reasoned`"):
        check_parsed(signals, CurateOptions(beside="reasoned"), calibration("reasoned"))


# --- keeping


def test_keep_from_is_a_threshold_that_is_itself_kept() -> None:
    assert kept([4.4, 4.5, 4.6, 1.0], keep_from=4.5) == ["c1", "c2"]


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_keep_top_keeps_that_share(share: float, count: int) -> None:
    scores = [1 + 0.4 * n for n in range(10)]
    assert kept(scores, keep_top=share) == [f"c{n}" for n in range(10 - count, 10)]


def test_keep_top_keeps_all_that_tie_with_the_last() -> None:
    assert kept([3.0, 3.0, 3.0, 1.0], keep_top=0.25) == ["c0", "c1", "c2"]


def test_keep_top_of_nothing_has_a_floor_all_the_same() -> None:
    assert keep_floor([], CurateOptions(keep_top=0.5)) == 4.5


def test_the_floor_of_a_calibration_is_its_own_unless_a_share_is_asked_for() -> None:
    made = calibration("expected", keep_from=2.5)
    assert keep_floor([1.0, 2.0, 3.0], CurateOptions(keep_from=4.0), made) == 2.5
    assert keep_floor([1.0, 2.0, 3.0], CurateOptions(keep_top=0.3), made) == 3.0


def test_of_one_passage_at_most_the_best_candidate_is_kept() -> None:
    assert kept([4.6, 4.9, 4.7, 4.8, 4.8, 1.0], per_passage=3, keep_from=4.5) == ["c1", "c3"]  # a tie: the first asked


def test_a_reranking_signal_picks_of_a_passage_and_the_score_decides_who_is_good_enough() -> None:
    signals = measured(expected=[4.9, 4.6, 4.9, 2.0], likelihood=[0.1, 0.3, 0.1, 0.3])
    found = sorted_out(signals, per_passage=2, rerank="likelihood")
    assert found == {"c0": "not_best_of_passage", "c1": "kept", "c2": "not_best_of_passage", "c3": "below_threshold"}


def test_several_reranking_signals_pick_by_the_mean_of_their_ranks() -> None:
    signals = measured(
        expected=[4.9, 4.8, 4.7, 4.6], likelihood=[0.9, 0.2, 0.1, 0.0], backward=[-9.0, -1.0, -4.0, -5.0]
    )
    both = CurateOptions().model_copy(update={"rerank": ("likelihood", "backward")})
    found = [row.id for row in keep(pairs_of(4, per_passage=2), signals, both) if isinstance(row, Pair)]
    assert found == ["c1", "c2"]  # c0 has the higher gain and by far the unlikeliest instruction
    assert deciding(both) == ("expected", "likelihood", "backward")


def test_a_candidate_below_a_signals_least_value_leaves_its_passage_to_the_next() -> None:
    signals = measured(expected=[4.9, 4.6, 4.8], likelihood=[-0.1, 0.0, 0.2])
    options = CurateOptions(least={"likelihood": 0.0})
    found = list(keep(pairs_of(3, per_passage=2), signals, options))
    assert found[0] == Reject("c0", "below_least", "likelihood -0.100 < 0", "")
    assert [row.id for row in found if isinstance(row, Pair)] == ["c1", "c2"]


def test_every_candidate_comes_out_kept_or_with_a_reason() -> None:
    scores = [4.9, 4.8, 2.0, None, None, 4.6]
    found = sorted_out(measured(expected=scores), per_passage=2)
    assert list(found.values()) == [
        *("kept", "not_best_of_passage", "below_threshold", "parse_failed", "parse_failed", "kept")
    ]
    assert list(found) == [f"c{n}" for n in range(6)]


@pytest.mark.parametrize("options", [{"rerank": "likelihood"}, {"least": {"likelihood": 0}}, {"judge": "cycle"}])
def test_a_pair_without_a_deciding_signal_is_rejected_by_that_signals_outcome(options: dict[str, Any]) -> None:
    signals = measured(expected=[4.9, 4.9], backward=[-1.0, -1.0])
    signals["likelihood"] = judged([None, 1.0], outcome="too_long")
    assert sorted_out(signals, keep_top=1, **options) == {"c0": "too_long", "c1": "kept"}


def test_an_unfit_instruction_is_rejected_with_its_grade() -> None:
    [said] = judged([None], outcome="unfit_instruction")
    [found] = keep(pairs_of(1), {"expected": [replace(said, detail="1.200 < 3")]}, CurateOptions())
    assert found == Reject("c0", "unfit_instruction", "1.200 < 3: Ask 0.", "")


def test_a_pair_that_a_signal_lost_is_noticed() -> None:
    with pytest.raises(DataError, match="c2: no judgement of the signal `expected`"):
        list(keep(pairs_of(3), measured(expected=[4.0, 4.0]), CurateOptions()))


def test_a_kept_pair_carries_its_score_and_is_otherwise_as_it_was() -> None:
    pairs = pairs_of(1)
    [found] = keep(pairs, measured(expected=[4.75]), CurateOptions())
    assert found == replace(pairs[0], score=4.75)


@pytest.mark.parametrize(
    "options", [{"keep_top": 0.5}, {"keep_from": 1, "keep_most": 2}, {"keep_from": 3, "rerank": "likelihood"}]
)
def test_order_of_the_candidates_does_not_change_who_is_kept(options: dict[str, Any]) -> None:
    draw = Random(4)
    signals = measured(
        expected=[float(draw.randint(3, 5)) for _ in range(12)], likelihood=[draw.gauss(0, 1) for _ in range(12)]
    )
    pairs, table = pairs_of(12, per_passage=3), CurateOptions(**options)
    there, back = (
        {row.id for row in keep(some, signals, table) if isinstance(row, Pair)} for some in (pairs, pairs[::-1])
    )
    assert there == back != set()


# --- at most so many


def test_of_more_than_keep_most_the_best_are_taken_and_the_rest_is_counted() -> None:
    found = sorted_out(measured(expected=[4.6, 4.9, 4.7, 1.0]), keep_most=2)
    assert found == {"c0": "not_selected", "c1": "kept", "c2": "kept", "c3": "below_threshold"}


def test_a_diverse_selection_is_the_pickers_and_is_asked_best_first() -> None:
    asked: list[Any] = []

    def pick(texts: Sequence[str], scores: Sequence[float], count: int) -> list[int]:
        asked.append((texts, scores, count))
        return [0, 2]

    options = CurateOptions(select="diverse", keep_most=2)
    found = list(keep(pairs_of(4), measured(expected=[4.6, 4.9, 4.7, 1.0]), options, pick=pick))
    assert asked == [(["Ask 1.", "Ask 2.", "Ask 0."], [4.9, 4.7, 4.6], 2)]
    assert [row.id for row in found if isinstance(row, Pair)] == ["c0", "c1"]


def test_without_a_bound_nothing_is_selected() -> None:
    def pick(texts: Sequence[str], scores: Sequence[float], count: int) -> list[int]:
        raise AssertionError

    for options in (CurateOptions(select="diverse"), CurateOptions(select="diverse", keep_most=3)):
        found = list(keep(pairs_of(3), measured(expected=[5.0, 4.8, 4.6]), options, pick=pick))
        assert all(isinstance(row, Pair) for row in found)


# --- too few kept


def complaint(scores: Scores, **options: Any) -> str:
    table, signals = CurateOptions(**options), measured(expected=scores)
    outcomes = list(keep(pairs_of(len(scores)), signals, table))
    with pytest.raises(DataError) as caught:
        check_kept(outcomes, combine(signals, table), table)
    return str(caught.value)


def test_too_few_kept_stop_the_run_with_losses_histogram_and_the_option_that_helps() -> None:
    said = complaint([1.2, 1.4, 2.6, 4.4, 5.0] * 8)
    assert "8 of 40 candidates are kept, fewer than curate.min_kept = 16 (below_threshold 32)" in said
    bars = [int(line.rsplit(": ", 1)[1]) for line in said.splitlines() if line.startswith("  ")]
    assert bars == [16, 0, 0, 8, 0, 0, 8, 8]
    assert said.endswith("lower curate.keep_from, or keep the best share: --set curate.keep_top=0.80")


def test_scores_below_one_have_their_bars_too() -> None:
    bars = [line for line in complaint([0.0, 0.7, 5.0]).splitlines() if line.startswith("  ")]
    assert [bar.rsplit(": ", 1)[1] for bar in bars] == list("1100000001")


def test_the_option_that_is_named_does_help() -> None:
    scores = [1 + n / 20 for n in range(60)]
    share = float(complaint(scores).rpartition("keep_top=")[2])
    assert len(kept(scores, keep_top=share)) >= 16


@pytest.mark.parametrize(
    ("scores", "options", "remedy"),
    [
        ([5.0] * 9, {}, "give more documents, or lower curate.min_kept"),
        ([5.0] * 40, {"keep_most": 9}, "curate.keep_most = 9 allows no more"),
        ([5.0] * 40, {"least": {"expected": 6}}, "lower the bounds of curate.least"),
    ],
)
def test_the_remedy_fits_the_loss(scores: Scores, options: dict[str, Any], remedy: str) -> None:
    assert remedy in complaint(scores, **options).splitlines()[-1]


def test_candidates_lost_to_the_gate_name_the_gate() -> None:
    signals = {"expected": judged([None] * 40, outcome="unfit_instruction")}
    outcomes = list(keep(pairs_of(40), signals, CurateOptions()))
    with pytest.raises(DataError, match=r"unfit_instruction 40[\s\S]*lower curate\.instruction_gate"):
        check_kept(outcomes, {}, CurateOptions())


def test_a_calibration_is_not_told_to_lower_an_option_it_does_not_use() -> None:
    table, made, signals = CurateOptions(), calibration("expected", keep_from=5.0), measured(expected=[0.0] * 40)
    with pytest.raises(DataError, match="calibrate for a lower precision, or keep the best share"):
        check_kept(list(keep(pairs_of(40), signals, table, made)), combine(signals, table, made), table, made)


def test_enough_kept_rows_go_on() -> None:
    pairs = [replace(pair, score=5.0) for pair in pairs_of(16)]
    assert check_kept(pairs, {}, CurateOptions()) is None


# --- a whole round by command


def options_of(**curate: Any) -> Any:
    return check_options({"curate": {"keep_top": 0.5, **curate}}, "test")


@pytest.fixture
def backward(tmp_path: Path) -> Path:
    (tmp_path / LAYOUT_FILE).write_text(BACKWARD_LAYOUTS["asked"].dumps())
    return tmp_path


@pytest.mark.parametrize(
    "judge", ["expected", "reasoned", "likelihood", "backward", "cycle", ["expected", "likelihood"]], ids=str
)
def test_what_people_said_of_a_document_never_moves_a_score(judge: str | list[str], backward: Path) -> None:
    options, engine = options_of(judge=judge), EchoEngine(EngineOptions(kind="echo"))
    labels = ["good", "bad", ""]
    pairs = pairs_of(12)
    told = [replace(pair, label=labels[n % 3], genre="recipe") for n, pair in enumerate(pairs)]
    plain, labelled = (list(commands.judge_pairs(some, None, options, engine, backward)) for some in (pairs, told))
    assert [replace(row, label="", genre="") if isinstance(row, Pair) else row for row in labelled] == plain
    assert fmean(isinstance(row, Pair) for row in plain) >= 0.5


def test_a_calibrated_round_keeps_by_the_calibrations_score(tmp_path: Path) -> None:
    made = calibration("expected", "likelihood", keep_from=1.0)
    file = tmp_path / "calibration.json"
    file.write_text(made.dumps())
    options = options_of(keep_top=0, beside="likelihood", calibration=str(file))
    found = list(commands.judge_pairs(pairs_of(6), None, options, EchoEngine(EngineOptions(kind="echo"))))
    assert all(isinstance(row, Pair) and row.score is not None and 1 < row.score <= 5 for row in found)
    assert read_calibration(options.curate) == made


def test_a_calibration_on_signals_that_are_not_measured_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text(calibration("expected", "backward").dumps())
    with pytest.raises(ConfigError, match=r"fitted on expected, backward, and backward would not be measured"):
        read_calibration(CurateOptions(calibration=str(file)))


def test_a_round_that_keeps_nothing_says_why() -> None:
    engine = EchoEngine(EngineOptions(kind="echo"))
    with pytest.raises(DataError, match="0 of 6 candidates are kept"):
        commands.judge_pairs(pairs_of(6), None, options_of(keep_top=0, keep_from=5), engine)
