"""Several processes train as one: the same rows in a step, the same losses, the same adapter, and a clear end."""

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from askback.engines import device, launch, lora
from askback.engines.batches import share_of
from askback.engines.checkpoints import COMPLETE
from askback.engines.presets import resolve
from askback.engines.tokens import Row
from askback.errors import ConfigError, Stopped
from askback.options import EngineOptions, TuneOptions
from askback.ports import FitReport
from models import open_local
from test_training import EXAMPLES, QUICK, bytes_of

EVEN = QUICK.model_copy(update={"dropout": 0.0})
"""Without dropout: what is dropped out belongs to a process, and no two worlds would drop the same."""
ROWS = EXAMPLES[:21]  # five steps of four rows and one of a single row, which leaves a process without any


def fit_on(base: Path, out: Path, devices: int, options: TuneOptions = EVEN, watch: Any = None) -> FitReport:
    out.mkdir(parents=True, exist_ok=True)
    engine = open_local(base, devices=devices)
    return engine.fit(options, seed=5)(ROWS, out, watch or (lambda done, total: None))


def farthest(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def is_one_curve(one: FitReport, other: FitReport) -> bool:
    return [step for step, _ in one.losses] == [step for step, _ in other.losses] and all(
        abs(a - b) < 1e-5 for (_, a), (_, b) in zip(one.losses, other.losses, strict=True)
    )


# --- who reads which rows


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize(("total", "batch", "micro"), [(24, 4, 2), (21, 4, 1), (7, 8, 2), (100, 16, 4)])
def test_each_step_has_the_rows_it_has_in_one_process(total: int, batch: int, micro: int, world: int) -> None:
    shares = [share_of(total, batch=batch, micro=micro, rank=rank, world=world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert Counter(row for share in shares for part in share for row in part) == Counter(range(total))
    times = math.ceil(math.ceil(batch / world) / micro)
    for step in range(total // batch):
        parts = [part for share in shares for part in share[step * times : (step + 1) * times]]
        assert sorted(row for part in parts for row in part) == list(range(step * batch, (step + 1) * batch))
        assert all(len(part) <= micro for part in parts)


def test_a_process_without_a_row_reads_one_of_padding_that_carries_no_label() -> None:
    from askback.engines.trainer import Collate

    collate = Collate.__new__(Collate)
    collate.pad = 3
    made = collate([])
    assert made["input_ids"].shape == (1, 2)
    assert made["labels"].eq(-100).all()


# --- how many


def test_a_cpu_trains_in_one_process_unless_more_are_asked_for() -> None:
    assert device.count_devices(EngineOptions(device="cpu")) == 1
    assert device.count_devices(EngineOptions(device="cpu", devices=2)) == 2


def test_spreading_weights_over_cpus_is_refused_by_name(mini_base: Path, tmp_path: Path) -> None:
    engine = open_local(mini_base, devices=2, shard=True)
    with pytest.raises(ConfigError, match=r"engine\.shard = true spreads the weights over GPUs.*this is a cpu"):
        engine.fit(EVEN, seed=5)(ROWS, tmp_path)


def test_spreading_weights_over_one_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is one; leave it out"):
        device.check_sharding(SimpleNamespace(type="cuda"), 1)  # type: ignore[arg-type]


# --- how many rows at once


@pytest.mark.parametrize(
    ("room", "found", "tried"), [(900, 8, [1, 2, 4, 8]), (500, 4, [1, 2, 4]), (150, 1, [1]), (50, 0, [1])]
)
def test_rows_are_taken_as_memory_allows_and_what_cannot_fit_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, room: int, found: int, tried: list[int]
) -> None:
    import torch

    sizes: list[int] = []

    def attempt(size: int) -> None:
        sizes.append(size)
        if 100 * size > 900:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(device, "memory_bytes", lambda where: room / device.MOST_OF_MEMORY)
    monkeypatch.setattr(device, "peak_bytes", lambda where, call: call() or 100 * sizes[-1])
    assert device.largest_that_fits(attempt, [1, 2, 4, 8], torch.device("cpu")) == found
    assert sizes == tried
    assert device.largest_that_fits(attempt, [1, 2, 4, 8], torch.device("cpu"), reserve=room) == 0
    assert device.largest_that_fits(attempt, [16], torch.device("cpu")) == 0


def test_the_trial_of_a_size_leaves_no_gradient_behind(mini_base: Path) -> None:
    engine = open_local(mini_base)
    recipe = resolve(EVEN, rows=len(ROWS), model_tokens=64)
    rows = [row for row in (engine.tokens.row(one, 64) for one in ROWS) if isinstance(row, Row)]
    network = lora.build_network(engine, recipe)
    job = lora.Job(engine.options, recipe, tuple(rows), 0, Path("nowhere"), 1.0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    lora._trial(network, engine, job)(2)
    assert all(p.grad is None and bool((p == before[name]).all()) for name, p in network.named_parameters())


# --- who is one of several


def test_one_of_several_is_known_by_all_four_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    for name, value in given.items():
        assert (launch.is_launched(), launch.rank(), launch.world()) == (False, 0, 1)
        monkeypatch.setenv(name, value)
    assert (launch.is_launched(), launch.rank(), launch.world()) == (True, 1, 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("x\nE1 failed (exitcode: -9) local_rank: 1 (pid: 7) of binary: p\nRuntimeError: peer", "rank 1, by signal 9"),
        ("[rank0]: torch.OutOfMemoryError: no room\nE failed (exitcode: 1) local_rank: 0 (pid: 7)", "no room"),
        ("", "without a word"),
    ],
)
def test_the_end_of_a_process_is_told_in_its_own_words(said: str, words: str) -> None:
    assert words in launch.last_words(said)


# --- two processes


@pytest.fixture(scope="module")
def two(mini_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitReport]:
    """One training in two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("two") / "adapter"
    return out, fit_on(mini_base, out, 2)


@pytest.mark.slow
def test_two_processes_train_as_one(mini_base: Path, two: tuple[Path, FitReport], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one = fit_on(mini_base, tmp_path / "adapter", 1, watch=lambda done, total: told.append((done, total)))
    assert is_one_curve(two[1], one)
    assert farthest(two[0], tmp_path / "adapter") < 1e-5
    assert {**two[1].as_dict(), "losses": ()} == {**one.as_dict(), "losses": ()}
    assert two[0].parent.joinpath("checkpoints").exists() is False
    assert bytes_of(two[0]).keys() == bytes_of(tmp_path / "adapter").keys()


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_training_goes_on_from_its_checkpoint(
    mini_base: Path, two: tuple[Path, FitReport], tmp_path: Path
) -> None:
    options, out = EVEN.model_copy(update={"checkpoint_every_s": 1e-9}), tmp_path / "adapter"
    spawned: list[psutil.Process] = []

    def kill(done: int, total: int) -> None:
        if done == 3:
            spawned.extend(psutil.Process().children(recursive=True))
            next(one for one in spawned if one.environ().get("RANK") == "1").send_signal(signal.SIGKILL)

    with pytest.raises(Stopped, match=r"one of 2 processes .*rank 1, by signal 9.*goes on from the last checkpoint"):
        fit_on(mini_base, out, 2, options, kill)
    assert len(spawned) >= 3
    assert not psutil.wait_procs(spawned, timeout=1)[1]
    assert not list(out.iterdir())
    done = sorted(int(path.parent.name.rpartition("-")[2]) for path in tmp_path.rglob(f"checkpoint-*/{COMPLETE}"))
    assert done
    assert done[-1] in (2, 3)
    told: list[int] = []
    again = fit_on(mini_base, out, 2, options, lambda step, total: told.append(step))
    assert told == list(range(done[-1] + 1, 7))
    assert again.losses == two[1].losses
    assert bytes_of(out) == bytes_of(two[0])


@pytest.mark.slow
def test_two_processes_stopped_go_on_as_one(mini_base: Path, two: tuple[Path, FitReport], tmp_path: Path) -> None:
    options, out = EVEN.model_copy(update={"checkpoint_every_s": 1e-9}), tmp_path / "adapter"

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_on(mini_base, out, 2, options, interrupt)
    assert not [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    told: list[int] = []
    again = fit_on(mini_base, out, 1, options, lambda step, total: told.append(step))
    assert 1 < told[0] <= 4
    assert is_one_curve(again, two[1])
    assert farthest(out, two[0]) < 1e-5


@pytest.mark.slow
def test_what_a_process_refuses_is_refused_as_in_one(mini_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nonsense not in this base; its linear modules are .*q_proj"):
        fit_on(mini_base, tmp_path / "adapter", 2, EVEN.model_copy(update={"targets": ("nonsense",)}))


PROGRAM = """
import json, sys
from pathlib import Path
from askback.engines.launch import led, rank
from test_ddp import EVEN, fit_on
with led() as leads:
    if leads:
        reports = [fit_on(Path(sys.argv[1]), Path(sys.argv[2]) / name / "adapter", 1) for name in ("a", "b")]
        Path(sys.argv[2], "losses.json").write_text(json.dumps([report.losses for report in reports]))
Path(sys.argv[2], f"ended-{rank()}").touch()
"""


@pytest.mark.slow
def test_a_program_that_torchrun_started_trains_with_all_its_processes(
    mini_base: Path, two: tuple[Path, FitReport], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "program.py")]
    done = subprocess.run(
        [sys.executable, *torchrun, str(mini_base), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("ended-*")) == ["ended-0", "ended-1"]
    for losses in json.loads((tmp_path / "losses.json").read_text()):
        assert [tuple(one) for one in losses] == list(two[1].losses)
    assert bytes_of(tmp_path / "a" / "adapter") == bytes_of(tmp_path / "b" / "adapter") == bytes_of(two[0])
