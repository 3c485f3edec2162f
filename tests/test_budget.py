"""Laws of a budget: it is not crossed, what was done stays done, and the run ends as if it had never been stopped."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as laws
from hypothesis import strategies as st

from askback import api, budget
from askback.budget import Bounded, Budget, open_meter, spent_before
from askback.engines.checkpoints import COMPLETE
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, Stopped
from askback.options import Options, TuneOptions
from askback.ports import Example, Generate
from askback.steps import Silent
from askback.store import open_run, write_json
from command_line import refused
from models import example, open_local
from small_run import differences, do_run, settings, small_options, snapshot, still

ASK_S = 1.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def bounded(amount: float, clock: Clock) -> Bounded:
    return Bounded(Silent(), Budget(amount, "seconds", f"{amount:g}s"), clock)


# --- what is asked for


@pytest.mark.parametrize(
    ("text", "amount", "kind"),
    [
        ("2h", 7200, "seconds"),
        ("90 min", 5400, "seconds"),
        ("1.5d", 129600, "seconds"),
        (".5kWh", 0.5, "kwh"),
        ("300Wh", 0.3, "kwh"),
        ("5EUR", 5, "money"),
    ],
)
def test_a_budget_is_time_energy_or_money(text: str, amount: float, kind: str) -> None:
    assert Budget.read(text, "EUR") == Budget(pytest.approx(amount), kind, text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["2", "h", "two hours", "5USD", "5€", "-2h", "0h", "2h30", "1e3s", "nan h"])
def test_a_budget_that_is_none_is_refused_with_what_would_be_one(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--budget" in refused(capsys, 2, "demo", "--out", "unmade", f"--budget={text}")
    assert not Path("unmade").exists()


def test_money_without_a_price_and_energy_without_a_meter_are_refused(tmp_path: Path) -> None:
    def meter(text: str, **prices: float) -> float:
        options = Options.model_validate({"plan": prices, "engine": {"kind": "echo"}})
        return open_meter(Budget.read(text, "EUR"), options, tmp_path, None)()

    with pytest.raises(ConfigError, match=r"plan\.price_per_hour"):
        meter("5EUR", price_per_gpu_hour=2)  # no GPU works here
    with pytest.raises(ConfigError, match=r"plan\.watts"):
        meter("1kWh")
    assert meter("5EUR", price_per_hour=1) < 0.01
    assert meter("1kWh", watts=100) < 0.01


# --- when it stops


PIECES = st.lists(st.floats(min_value=0.01, max_value=10), min_size=1, max_size=40)


@laws(deadline=None)
@given(PIECES, st.floats(min_value=0.1, max_value=200))
def test_a_budget_is_crossed_only_by_a_piece_longer_than_all_before_it(pieces: list[float], amount: float) -> None:
    clock = Clock()
    watch = bounded(amount, clock)
    watch.begin("01-step", len(pieces), "rows")
    done: list[float] = []
    try:
        for piece in pieces:
            clock.now += piece
            done.append(piece)
            watch.advance(1)
    except Stopped:
        assert len(done) < len(pieces)
        assert sum(done) + max(done) > amount
    if clock.now > amount:
        assert done[-1] == max(done)


@laws(deadline=None)
@given(st.integers(1, 30), st.floats(min_value=0.5, max_value=100))
def test_pieces_of_one_length_never_cross_a_budget_they_fit_into(count: int, amount: float) -> None:
    assume(amount > 1)
    clock = Clock()
    watch = bounded(amount, clock)
    watch.begin("01-step", count, "rows")
    try:
        for _ in range(count):
            clock.now += 1
            watch.advance(1)
    except Stopped:
        pass
    assert clock.now <= amount


def test_a_step_that_is_at_its_end_is_let_end_and_the_next_is_not_begun() -> None:
    clock = Clock()
    watch = bounded(3.0, clock)
    watch.begin("01-step", 3, "rows")
    for _ in range(3):
        clock.now += 1
        watch.advance(1)
    with pytest.raises(Stopped, match=r"0 of 5 rows of 02-step"):
        watch.begin("02-step", 5, "rows")


def test_earlier_sittings_count(tmp_path: Path) -> None:
    assert spent_before(tmp_path) == (0, 0)
    write_json(tmp_path / "cost.json", [{"seconds": 70.0, "energy_kwh": 0.25}, {"seconds": 30.0, "energy_kwh": 0.5}])
    assert spent_before(tmp_path) == (100, 0.75)
    for step, seconds in (("01-seed", 40.0), ("02-corpus", 90.0)):
        write_json(tmp_path / step / "manifest.json", {"cost": {"seconds": seconds}})
    assert spent_before(tmp_path) == (130, 0.75)  # a killed sitting leaves no entry, but what it finished


# --- a run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that the engine moves by a second for each instruction it writes."""
    clock, quick = Clock(), EchoEngine.generate

    def slow(engine: EchoEngine, model: Path | None = None) -> Generate:
        def call(asks: Any, sampling: Any) -> Iterator[Any]:
            for reply in quick(engine, model)(asks, sampling):
                clock.now += ASK_S
                yield reply

        return call

    monkeypatch.setattr(EchoEngine, "generate", slow)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_a_run_stops_between_shards_and_goes_on_to_the_same_bytes(
    few_inputs: Path, tmp_path: Path, clock: Clock
) -> None:
    options = small_options(few_inputs, "curate.rounds=1")
    unbroken = snapshot(do_run(options, tmp_path / "unbroken"))
    out, clock.now = tmp_path / "run", 0.0
    with still(), pytest.raises(Stopped, match=r"budget of 9s.*8 of 10 rows of 06-candidates"):
        api.run(options, out, budget="9s")  # shards of four rows: a third one could end at twelve seconds
    assert clock.now == 8
    assert len(list((out / "06-candidates").glob("part-*"))) == 2
    with still():
        api.run(options, out, budget="1000s")
    assert differences(out, unbroken) == []


def test_a_budget_that_is_spent_already_begins_nothing(few_inputs: Path, tmp_path: Path, clock: Clock) -> None:
    out = tmp_path / "run"
    with open_run(out):
        write_json(out / "cost.json", [{"seconds": 7200.0, "energy_kwh": 0.1}])
    with still(), pytest.raises(Stopped, match="of which 100% is spent: 0 steps"):
        api.run(small_options(few_inputs), out, budget="2h")
    assert not (out / "01-seed").exists()


def test_a_finished_run_needs_no_budget(few_inputs: Path, tmp_path: Path, clock: Clock) -> None:
    options = small_options(few_inputs, "curate.rounds=1")
    before = snapshot(do_run(options, tmp_path / "run"))
    write_json(tmp_path / "cost.json", [])
    clock.now = 0.0
    with still():
        api.run(options, tmp_path / "run", budget="1s")
    assert differences(tmp_path / "run", before) == []


def test_the_command_stops_with_5_and_says_how_to_go_on(
    few_inputs: Path, tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for setting in settings(few_inputs) for part in ("--set", setting)]
    with still():
        said = refused(capsys, 5, "run", "--out", tmp_path / "run", "--budget", "9s", *given)
    assert "the same command goes on from here with more" in said


# --- a training

TINY = TuneOptions(preset="tiny", learning_rate=1e-2, epochs=1, batch=4, max_tokens=64, checkpoint_every_s=3600)
ROWS: list[Example] = [
    example(f"the sea is deep {n}", "so ships may sail where fishes sleep", id=f"e{n}", before="Text: ", after="\nAsk:")
    for n in range(20)
]


def test_a_training_stops_between_steps_with_a_checkpoint_and_goes_on_to_the_same_bytes(
    mini_base: Path, tmp_path: Path
) -> None:
    clock = Clock()
    told: list[int] = []

    def train(name: str, watch: Any) -> dict[str, str]:
        out = tmp_path / name / "adapter"
        out.mkdir(parents=True, exist_ok=True)
        open_local(mini_base).fit(TINY, seed=5)(ROWS, out, watch)
        return snapshot(out)

    show = bounded(3.5, clock)

    def step(done: int, total: int) -> None:
        if not told:
            show.begin("05-backward", total, "steps")
        told.append(done)
        clock.now += 1
        show.advance(1)

    unbroken = train("unbroken", lambda done, total: None)
    with pytest.raises(Stopped, match="3 of 5 steps of 05-backward"):
        train("stopped", step)
    assert [file.parent.name for file in (tmp_path / "stopped").rglob(COMPLETE)] == ["checkpoint-3"]
    more: list[int] = []
    assert train("stopped", lambda done, total: more.append(done)) == unbroken
    assert (told, more) == ([1, 2, 3], [4, 5])
