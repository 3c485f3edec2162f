"""Laws of `askback plan`: it names the steps of the run, counts what they will do, and touches nothing."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from askback import looking, pipeline, planning, rehearsal, steps
from askback.engines import open as opening
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, DataError
from askback.estimate import exactly
from askback.options import EngineOptions
from askback.planning import Plan, plan, render
from askback.ports import Example, Generate, Likelihood, Prompt
from askback.readers import survey
from askback.rehearsal import Asked, Kind, family_of, sampled
from askback.store import open_run, read_json, write_json
from command_line import askback, given, help_of, refused
from small_run import small_options, snapshot

ASK_S, SCORE_S = 1 / 64, 1 / 256
WATTS = 120.0
PRICES = ("plan.price_per_hour=0.5", "plan.price_per_million_read=2")
QUICK = ("curate.rounds=1", "curate.judge=likelihood", *PRICES)


class Clock:
    """A clock that only an engine moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(EchoEngine):
    """A double whose answers take a known time each, by a clock that stands still otherwise."""

    def __init__(self, options: EngineOptions, clock: Clock) -> None:
        super().__init__(options)
        self.clock = clock

    def generate(self, model: Path | None = None) -> Generate:
        answer = super().generate(model)
        return lambda asks, sampling: self._slowly(answer(asks, sampling), ASK_S)

    def likelihood(self, model: Path | None = None) -> Likelihood:
        answer = super().likelihood(model)
        return lambda examples: self._slowly(answer(examples), SCORE_S)

    def _slowly(self, answers: Iterator[Any], each_s: float) -> Iterator[Any]:
        for answer in answers:
            self.clock.now += each_s
            yield answer


@contextmanager
def metered(file: Path, *, country: str) -> Iterator[None]:
    """Stand in for the meter: a machine that draws so many watts, on a grid of 0.4 kg a kWh."""
    yield
    kwh = WATTS * 10 / 3.6e6
    write_json(file, [{"seconds": 10.0, "energy_kwh": kwh, "co2_kg": 0.4 * kwh}])


def slowed(patch: pytest.MonkeyPatch) -> Clock:
    """Plan with an engine of known speed on a machine of known power, by a clock of their own."""
    clock = Clock()
    patch.setattr(opening, "open_engine", lambda options: Slow(options, clock))
    patch.setattr(planning, "measured", metered)
    for module in (looking, planning, rehearsal, steps, survey):
        patch.setattr(module, "time", SimpleNamespace(perf_counter=clock, monotonic=clock))
    return clock


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return slowed(monkeypatch)


@pytest.fixture(scope="module")
def planned(few_inputs: Path) -> Plan:
    """One plan of a small run; every test below looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        slowed(patch)
        return plan(small_options(few_inputs, *QUICK), days=3)


@pytest.fixture(scope="module")
def done(few_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifests of that run, done by the same engine."""
    out = tmp_path_factory.mktemp("planned") / "run"
    options = small_options(few_inputs, *QUICK)
    with pytest.MonkeyPatch.context() as patch, open_run(out) as held:
        pipeline.run(options, held, Slow(options.engine, slowed(patch)), steps.Silent())
    return {file.parent.name: read_json(file) for file in sorted(out.glob("*/manifest.json"))}


# --- what is planned is what is done


def test_the_steps_are_those_of_the_run_in_its_order(planned: Plan, done: dict[str, Any]) -> None:
    assert [one.step for one in planned.steps] == ["start", *done, "publish"]


def test_every_step_reads_the_rows_it_will_read(planned: Plan, done: dict[str, Any]) -> None:
    rows = {one.step: one.rows.middle for one in planned.steps if one.step in done}
    assert rows == pytest.approx({step: manifest["read"] for step, manifest in done.items()}, abs=1)
    assert (planned.passages, planned.documents) == (exactly(10), exactly(10))


def test_every_step_takes_as_long_as_it_will_take(planned: Plan, done: dict[str, Any]) -> None:
    seconds = {one.step: one.hours.middle * 3600 for one in planned.steps if one.step in done}
    assert seconds["06-candidates"] == 10 * ASK_S
    assert seconds == pytest.approx({step: found["cost"]["seconds"] for step, found in done.items()}, rel=0.1)


def test_only_steps_that_ask_a_model_have_tokens(planned: Plan) -> None:
    asks = {"backward", "candidates", "judged", "forward", "evaluation"}
    assert {family_of(one.step) for one in planned.steps if one.read.middle} == asks


def test_money_energy_and_carbon_follow_from_prices_and_the_meter(planned: Plan) -> None:
    whole = planned.all
    assert planned.terms.watts == pytest.approx(WATTS, rel=0.02)
    assert whole.money.middle == pytest.approx(0.5 * whole.machine_hours.middle + 2e-6 * whole.read.middle)
    assert whole.kwh.middle == pytest.approx(whole.hours.middle * planned.terms.watts / 1000)
    assert whole.co2_kg.middle == pytest.approx(0.4 * whole.kwh.middle)
    assert whole.gpu_hours == exactly(0)


def test_a_larger_corpus_takes_more_of_what_goes_with_it(planned: Plan) -> None:
    small, _, large = planned.scales
    assert [one.passages for one in planned.scales] == [10**6, 10**8, 10**9]
    assert (small.shards, large.shards) == (250_000, 250_000_000)
    for name in ("disk", "books", "files", "machine_hours"):
        grown = getattr(large.cost, name).middle / getattr(small.cost, name).middle
        assert grown == pytest.approx(1000, rel=0.02)
    assert small.cost.books.middle < small.cost.disk.middle


# --- how it is shown


def test_the_plan_is_one_screen_and_names_every_step(planned: Plan) -> None:
    lines = render(planned).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 105
    assert all(any(line.startswith(one.step) for line in lines) for one in planned.steps)
    assert "workers for 3 d" in render(planned)
    assert " EUR" in render(planned)


def test_the_plan_is_json_with_every_range(planned: Plan) -> None:
    found = json.loads(json.dumps(planned.as_dict(), allow_nan=False))
    assert found["all"]["hours"].keys() == {"low", "middle", "high"}
    assert found["scales"][0]["cost"]["disk"]["middle"] > 0


def test_the_command_writes_the_same_numbers_and_no_run_folder(
    few_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slow: Clock
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(few_inputs)
    words = [*given(few_inputs, *QUICK), "--set", "plan.watts=50", "--json", "plan.json"]
    assert askback("plan", *words, "--days", "2") == 0
    assert "02-corpus" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    assert read_json(tmp_path / "plan.json")["terms"]["watts"] == 50
    assert snapshot(few_inputs) == before


def test_help_says_what_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert "time, tokens, memory, disk, money, carbon" in help_of(capsys, "plan")


# --- what cannot be planned


@pytest.mark.parametrize("days", [0.0, -1.0, math.nan, math.inf])
def test_days_that_are_none_are_refused(few_inputs: Path, days: float) -> None:
    with pytest.raises(ConfigError, match="number of days above 0"):
        plan(small_options(few_inputs), days)


def test_a_plan_without_a_seed_is_refused(capsys: pytest.CaptureFixture[str], few_inputs: Path) -> None:
    words = ["--set", f"corpus.path={few_inputs / 'docs'}", "--set", "seed.path="]
    assert "no seed is given" in refused(capsys, 2, "plan", *words)


def test_a_corpus_whose_length_nobody_knows_needs_a_number(
    few_inputs: Path, monkeypatch: pytest.MonkeyPatch, slow: Clock
) -> None:
    looked = survey.survey(small_options(few_inputs).corpus, 50)
    monkeypatch.setattr(planning, "survey", lambda *_: replace(looked, bytes_in_all=None, is_whole=False))
    with pytest.raises(ConfigError, match=r"plan\.passages=N"):
        plan(small_options(few_inputs, *QUICK))
    found = plan(small_options(few_inputs, *QUICK, "plan.passages=5000"))
    asked = next(one for one in found.steps if family_of(one.step) == "candidates")
    assert (found.passages, found.documents) == (exactly(5000), None)
    assert asked.rows.middle == pytest.approx(5000)


def test_a_corpus_without_a_passage_is_told_as_a_run_tells_it(few_inputs: Path, slow: Clock) -> None:
    with pytest.raises(DataError, match="no passage is left"):
        plan(small_options(few_inputs, *QUICK, "passages.min_chars=2900"))


# --- the sample


def asked_for(prompts: list[str]) -> list[Asked]:
    items = [Example(str(place), Prompt("", body), "x") for place, body in enumerate(prompts)]
    return [Asked("09-judged-1", Kind("judged", "likelihood", "forward"), None, items)]


def test_requests_that_share_a_prompt_are_as_often_in_the_sample_as_in_all() -> None:
    found = sampled(asked_for([*["same"] * 60, *(f"own {n}" for n in range(60))]), 20)
    assert sum(item.prompt.body == "same" for item in found) == 10
    assert len(found) == 20


def test_small_groups_of_one_prompt_are_not_torn_apart() -> None:
    found = sampled(asked_for([f"group {n // 3}" for n in range(60)]), 12)
    bodies = [item.prompt.body for item in found]
    assert {bodies.count(body) for body in bodies} == {3}


@pytest.mark.parametrize(
    ("step", "family"),
    [("10-judged-1-likeness", "judged-likeness"), ("08-forward-0", "forward"), ("judged-backward", "judged-backward")],
)
def test_a_family_is_a_steps_name_without_numbers(step: str, family: str) -> None:
    assert family_of(step) == family
