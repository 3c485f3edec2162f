"""Laws of the cluster: the same bytes as here, no row lost or doubled, and one row's fault is nobody else's."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from askback import cli
from askback.api import with_presets
from askback.config import load_options
from askback.engines.cluster import Crew, Piece, Shard, _init, count_workers, open_spread
from askback.engines.echo import EchoEngine
from askback.errors import ConfigError, DataError
from askback.options import EngineOptions
from askback.ports import Spread
from askback.records import Judgement, Pair, Passage, Reject
from askback.stages.curate import check_parsed, keep
from askback.tasks import Asking, Judging
from small_run import do_run, do_steps, small_options, snapshot
from striking import Doubling

TWO = ("engine.cluster.address=local", "engine.cluster.workers=2", "engine.cluster.cpus=0.5")


def engine_options(*more: str) -> EngineOptions:
    return load_options(None, ["engine.kind=echo", *TWO, *more]).engine


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all: whoever opens a spread finds it and leaves it running. Its workers find `striking` too."""
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parent)), open_spread(engine_options()):
        yield


def spread_over(*more: str) -> Any:
    return open_spread(engine_options(*more))


def done(spread: Spread, task: Any, shards: int = 6, rows: int = 8) -> list[Any]:
    blocks = [list(range(n * rows, n * rows + rows)) for n in range(shards)]
    found = dict(spread(task, iter(enumerate(blocks))))
    assert sorted(found) == list(range(shards))
    return list(chain.from_iterable(found[n] for n in range(shards)))


DOUBLED = [2 * n for n in range(48)]


# --- the same as here


def steps_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file of every step: parts, rejects, manifests, models."""
    return {name: digest for name, digest in snapshot(folder).items() if name[:2].isdigit()}


def test_a_run_over_two_workers_is_the_same_bytes(cluster: None, few_inputs: Path, tmp_path: Path) -> None:
    options = small_options(few_inputs)
    do_steps(with_presets(options, EchoEngine(options.engine)), tmp_path / "here")
    do_run(small_options(few_inputs, *TWO), tmp_path / "there")
    here = steps_of(tmp_path / "here")
    assert sum(name.endswith(".parquet") for name in here) > 15
    assert steps_of(tmp_path / "there") == here


def test_augment_over_two_workers_prints_the_same_lines_in_the_same_order(
    cluster: None, few_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    run_cli("train", "backward", f"--seed={few_inputs / 'pairs.jsonl'}", "--set", "engine.kind=echo", f"--out={model}")
    ask = ("augment", f"--model={model}", str(few_inputs / "docs"), "--set", "augment.n=2")
    capsys.readouterr()
    run_cli(*ask)
    here = capsys.readouterr().out
    run_cli(*ask, *chain.from_iterable(("--set", setting) for setting in TWO))
    assert len(here.splitlines()) == 20
    assert capsys.readouterr().out == here


def run_cli(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert not end.value.code


# --- what goes wrong


def is_gone(process: int) -> bool:
    """Whether a process ends within the time that Ray takes to end one that does not answer."""
    ends = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < ends:
        time.sleep(0.1)
    return not Path(f"/proc/{process}").exists()


def test_a_worker_that_dies_or_stops_moving_loses_and_doubles_nothing_and_says_nothing(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for how in ("dies once", "stops once"):
        (tmp_path / how).mkdir()
        with spread_over("engine.cluster.stuck_s=2") as spread:
            assert done(spread, Doubling(tmp_path / how, poison=21, how=how)) == DOUBLED
        assert is_gone(int((tmp_path / how / "struck").read_text()))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("how", "attempts"), [("dies", 2), ("is out of memory", 1)])
def test_a_row_that_ends_its_workers_is_given_up_by_name_and_no_other_is(
    how: str, attempts: int, cluster: None, tmp_path: Path
) -> None:
    with spread_over(f"engine.cluster.attempts={attempts}") as spread:
        found = done(spread, Doubling(tmp_path, poison=21, how=how), rows=4, shards=8)
    why = {"dies": "it died", "is out of memory": "out of memory"}[how]
    lost = (21, "killed_worker", f"ended {attempts} workers; the last: {why}")
    assert found == [*(2 * n for n in range(21)), lost, *(2 * n for n in range(22, 32))]


def test_an_error_of_the_task_is_raised_here_as_it_is_and_nothing_is_tried_again(cluster: None, tmp_path: Path) -> None:
    with (
        spread_over() as spread,
        pytest.raises(DataError, match=r"^pairs\.jsonl:7: this is no row$"),
    ):
        done(spread, Doubling(tmp_path, poison=21, how="raises"))
    assert len(list(tmp_path.glob("worker-*"))) <= 2


def test_an_engine_that_cannot_be_opened_is_named_as_it_would_be_here(cluster: None, tmp_path: Path) -> None:
    task = Asking(model=tmp_path, options=load_options().augment, seed=0)
    with spread_over() as spread, pytest.raises(ConfigError, match="want a folder that askback trained"):
        done(spread, task)


def test_a_worker_with_another_engine_than_this_process_is_refused(cluster: None, tmp_path: Path) -> None:
    described = EchoEngine(engine_options()).describe() | {"precision": "bfloat16"}
    with (
        open_spread(engine_options(), described) as spread,
        pytest.raises(ConfigError, match="precision: here 'bfloat16', there ''"),
    ):
        done(spread, Doubling(tmp_path))


def test_rows_that_all_end_their_workers_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("askback.engines.cluster.MOST_GIVEN_UP", 2)
    crew = Crew(None, engine_options(), Doubling(tmp_path), 1, None)  # type: ignore[arg-type]
    crew.shards[0] = Shard(left=3)
    pieces = [Piece(0, row, [row], most=3, ended=3) for row in range(3)]
    crew._give_up(pieces[0], "it died")
    crew._give_up(pieces[1], "it died")
    with pytest.raises(DataError, match="this is no fault of single rows"):
        crew._give_up(pieces[2], "it died")


def test_what_is_said_of_a_row_given_up_counts_as_the_work_would_count_it() -> None:
    options = load_options(None, ["augment.n=2"])
    passage = Passage(id="p", document="d", heading="", text="Tides rise.", start=0, end=11, source="tides.md")
    asking = Asking(model=Path(), options=options.augment, seed=0)
    said = list(asking.give_up(passage, "killed_worker", "ended 3 workers"))
    assert said == [Reject(f"p#{n}", "killed_worker", "ended 3 workers", "tides.md") for n in range(2)]

    pairs = [Pair(id=f"{n}", instruction="Why do tides rise?", output="The moon pulls.") for n in range(3)]
    judging = Judging(signal="expected", forward=None, backward=None, options=options.curate, round=1, seed=0)
    judged = [Judgement(pair=pair.id, round=1, judge="expected", score=5.0) for pair in pairs[1:]]
    judged += judging.give_up(pairs[0], "killed_worker", "ended 3 workers")
    check_parsed({"expected": judged}, options.curate)
    lost, *kept = keep(pairs, {"expected": judged}, options.curate)
    assert lost == Reject("0", "killed_worker", "ended 3 workers: Why do tides rise?")
    assert [pair.id for pair in kept] == ["1", "2"]


def test_no_more_shards_are_read_than_workers_are_free_for(cluster: None, tmp_path: Path) -> None:
    read: list[int] = []

    def blocks() -> Iterator[tuple[int, list[int]]]:
        for number in range(9):
            read.append(number)
            yield number, [number]

    with spread_over() as spread:
        for back, _ in enumerate(spread(Doubling(tmp_path), blocks()), start=1):
            assert len(read) <= back + 2


# --- the cluster itself


def test_so_many_workers_as_fit_are_wanted_and_none_is_an_error() -> None:
    resources = {"CPU": 16.0, "GPU": 4.0}
    wanted = {
        ("cpus=2",): 8,
        ("cpus=1", "gpus=1"): 4,
        ("cpus=1", "gpus=0.5"): 8,
        ("cpus=1", "workers=3"): 3,
    }
    for settings, count in wanted.items():
        options = load_options(None, [f"engine.cluster.{setting}" for setting in settings]).engine
        assert count_workers(resources, options) == count
    with pytest.raises(ConfigError, match="wants 1 CPUs and 8 GPUs, and the cluster has 16 CPUs, 4 GPUs"):
        count_workers(resources, load_options(None, ["engine.cluster.gpus=8"]).engine)


def test_a_cluster_of_our_own_asks_for_a_token_and_has_no_dashboard(cluster: None) -> None:
    import ray

    assert ray._raylet.get_authentication_mode() == ray._raylet.AuthenticationMode.TOKEN
    assert not ray._private.worker.global_worker.node.webui_url


@pytest.mark.slow
def test_a_cluster_of_our_own_ends_with_us_and_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from striking import Doubling
        from test_cluster import done, spread_over
        kept = signal.getsignal(signal.SIGTERM)
        with spread_over() as spread:
            import ray
            assert done(spread, Doubling(Path({str(tmp_path)!r}), 9, "dies once"))[9] == 18
            session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
            assert session.exists() and signal.getsignal(signal.SIGTERM) is kept
        assert not ray.is_initialized() and not session.exists()
        assert not [name for name in os.environ if name.startswith("RAY_AUTH")]
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    found = {**plain, "PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=found)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_cluster_that_is_not_there_is_named_with_what_to_do() -> None:
    def refuse(address: str, **settings: Any) -> None:
        raise ConnectionError("nobody answers")

    ray = SimpleNamespace(init=refuse, exceptions=SimpleNamespace(RayError=OSError))
    with pytest.raises(ConfigError, match=r"address = 'auto': nobody answers; .*`ray start --head`"):
        _init(ray, "auto", engine_options(), None)  # type: ignore[arg-type]
