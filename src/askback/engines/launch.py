"""Processes that train one network together, each on a device of its own.

Takes: a Job: rows in training order and every number of a run.  Gives: what was trained, as one process would have.
Never: leaves a process behind, or lets any but rank 0 write a result.

There are two ways to be several. `train_apart` starts them with `torchrun`, for one training. Or the whole program was
started so (torchrun, Ray Train, srun: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set): then rank 0 is the
program, and every other process waits in `led` for trainings to take part in.
"""

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askback import errors
from askback.engines import device
from askback.errors import AskbackError, Stopped
from askback.ports import Watch

if TYPE_CHECKING:
    import torch

    from askback.engines.lora import Job, Made

JOB, RESULT, WHY = "job.pickle", "result.pickle", "why.json"
ENV = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(days=30)
"""How long a process waits for the next training: whole steps of a run lie between."""


def is_launched() -> bool:
    """Whether this process is one of several that were started to train together."""
    return all(os.environ.get(name) for name in ENV) and int(os.environ["WORLD_SIZE"]) > 1


def rank() -> int:
    """Return the number of this process among those that train together; 0 alone."""
    return int(os.environ["RANK"]) if is_launched() else 0


def world() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def least(value: int, where: "torch.device") -> int:
    """Return the least of what the processes say, in all of them."""
    import torch

    if not is_launched():
        return value
    said = torch.tensor([value], device=where)
    torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MIN)
    return int(said.item())


# --- started for one training


def train_apart(job: "Job", out: Path, count: int, watch: Watch) -> "Made":
    """Train in `count` processes of their own, which are gone when this returns.

    Raises:
        Stopped: a process ended, or was ended; the same job goes on from its last checkpoint.
        AskbackError: what a process raised.
    """
    with tempfile.TemporaryDirectory(prefix="askback-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps((job, out.resolve())))
        said = _run(folder, count, job.options.threads or max(1, device.cpus_at_hand() // count), watch)
        if (folder / RESULT).exists():
            return pickle.loads((folder / RESULT).read_bytes())  # type: ignore[no-any-return]
        if (folder / WHY).exists():
            why = json.loads((folder / WHY).read_text(encoding="utf-8"))
            raise getattr(errors, why["type"])(why["message"])
        raise Stopped(
            f"one of {count} processes that trained together ended ({last_words(said)}); "
            "the same command goes on from the last checkpoint"
        )


def _run(folder: Path, count: int, threads: int, watch: Watch) -> str:
    """Run the processes to their end, telling of their steps; return what they wrote to standard error.

    They write their steps into a pipe: when this process is no more, so is the pipe, and they end with it.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "--local-addr=127.0.0.1"]
    command = [*(torchrun if count > 1 else ()), "-m", "askback.engines.launch", str(folder)]
    inherited = {name: value for name, value in os.environ.items() if name not in (*ENV, "LOCAL_RANK")}
    environment = {**inherited, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if device.backends() == "gloo":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    with (folder / "stderr").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            _listen(process, watch)
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends its processes
            process.wait()
        said.seek(0)
        return said.read()


def _listen(process: "subprocess.Popen[str]", watch: Watch) -> None:
    assert process.stdout
    with process.stdout as lines:
        for line in lines:
            if step := re.fullmatch(r"step (\d+) of (\d+)\n", line):
                watch(int(step[1]), int(step[2]))


def last_words(said: str) -> str:
    """Return how the first of the processes ended, from what torchrun and they said."""
    ended = re.search(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", said)
    lines = [
        line for line in said.splitlines() if re.match(r"(?:\[rank\d+\]: ?)?\w*(?:\.\w+)*(?:Error|Exception): ", line)
    ]
    if ended and int(ended[1]) < 0:
        return f"rank {ended[2]}, by signal {-int(ended[1])}"
    return lines[0].strip() if lines else (said.strip().splitlines() or ["without a word"])[-1]


def _work(folder: Path) -> None:
    """Be one of the processes that `train_apart` started."""
    from askback.engines.local import LocalEngine
    from askback.engines.lora import carry_out
    from askback.engines.open import quieten

    quieten()
    job, out = pickle.loads((folder / JOB).read_bytes())
    try:
        with _joined():
            made = carry_out(LocalEngine(job.options), job, out, _tell)
    except AskbackError as error:
        why = {"type": type(error).__name__, "message": str(error)}
        (folder / f"{WHY}.{os.getpid()}").write_text(json.dumps(why), encoding="utf-8")
        (folder / f"{WHY}.{os.getpid()}").replace(folder / WHY)
        sys.exit(error.exit_code)
    if not rank():
        (folder / RESULT).write_bytes(pickle.dumps(made))


def _tell(done: int, total: int) -> None:
    if not rank():
        sys.stdout.write(f"step {done} of {total}\n")
        sys.stdout.flush()


@contextmanager
def _joined() -> Iterator[None]:
    """Join the others inside, where there are any."""
    import torch

    if not is_launched():
        yield
        return
    torch.distributed.init_process_group(device.backends())
    yield
    torch.distributed.destroy_process_group()


# --- the whole program started so


@contextmanager
def led() -> Iterator[bool]:
    """Yield True in rank 0, which does the work; elsewhere take part in its trainings to their end, then yield False.

    Raises:
        RuntimeError: (of torch) rank 0 is no more.
    """
    if not is_launched():
        yield True
        return
    with _joined():
        if rank():
            _attend()
            yield False
        else:
            yield True
            call(None)  # after an error the others are not called: whoever started them ends them


def call(job: "Job | None") -> None:
    """Call the other processes to a training; None lets them go."""
    if is_launched():
        _say(job)


def _attend() -> None:
    from askback.engines.local import LocalEngine
    from askback.engines.lora import carry_out
    from askback.engines.open import quieten

    quieten()
    engine: LocalEngine | None = None
    while (job := _say(None)) is not None:
        engine = engine or LocalEngine(job.options)
        carry_out(engine, job, Path(os.devnull), lambda done, total: None)


_groups: list[Any] = []


def _say(job: "Job | None") -> "Job | None":
    """Hand rank 0's job to all; a group of its own, since hours may pass until the next."""
    import torch

    if not _groups:
        _groups.append(torch.distributed.new_group(backend="gloo", timeout=PATIENCE))
    box = [job]
    torch.distributed.broadcast_object_list(box, src=0, group=_groups[0])
    return box[0]


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
