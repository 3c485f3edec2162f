"""Public suites (lm-evaluation-harness): a base, or an adapter on it, measured on tasks that others use as well.

Takes: EngineOptions, an adapter's folder, names of tasks.  Gives: figures with standard error, interval and n.
Never: runs code that comes with a model, or programs that a model wrote.

Most tasks fetch their rows from the hub. A task file of one's own may name Python functions, and these are run: take
task files from people one would take code from.
Suites lay their questions out themselves, without the words around a pair that an adapter of ours was tuned with:
what is measured is the model as anybody would find it.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from askback.engines import device
from askback.engines.bases import open_base
from askback.errors import ConfigError, borrow
from askback.options import EngineOptions

EXTRA = "suites"
Z = 1.959964
"""The normal quantile of a 95 % interval."""
RESAMPLES = 1000
"""Resamples behind the standard error of a figure that is no plain mean."""


def run_suites(
    options: EngineOptions,
    adapter: Path | None,
    tasks: Sequence[str],
    limit: int = 0,
    include_path: Path | None = None,
) -> dict[str, Any]:
    """Return {task: {n, shots, version, figures: {metric: {value, stderr, low, high, n, higher_is_better}}}}.

    `limit` rows of each task are used, all where it is 0; `include_path` is a folder of task files (YAML) of one's
    own, found beside the built-in ones. `stderr` and the interval are None where the harness gives none, and where all
    rows came out alike: that is no certainty.

    Raises:
        ConfigError: the extra is not installed, a task is unknown or its rows are out of reach, or no base is there.
    """
    harness, manager = borrow("lm_eval", EXTRA), borrow("lm_eval.tasks", EXTRA)
    known = manager.TaskManager(include_path=str(include_path) if include_path else None)
    _check_tasks(tasks, known.all_tasks)
    try:
        found = harness.simple_evaluate(
            model="hf",
            model_args=_model(options, adapter),
            tasks=list(tasks),
            task_manager=known,
            limit=limit or None,
            batch_size=1,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
            confirm_run_unsafe_code=False,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"suites {', '.join(tasks)}: {_first_line(error)}") from error
    return {name: _task(name, found) for name in found["results"]}


def _model(options: EngineOptions, adapter: Path | None) -> dict[str, Any]:
    """Return what the harness loads the model with: the same base, device and precision as any other step here."""
    base, where = open_base(options), device.pick_device(options)
    dtype = str(device.pick_dtype(options, where)).removeprefix("torch.")
    device.set_threads(options)
    more = {"revision": base.revision} if base.revision else {}
    if adapter is not None:
        more["peft"] = str(adapter.resolve())
    return {"pretrained": base.path, "dtype": dtype, "device": str(where), "trust_remote_code": False, **more}


def _check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    if not tasks:
        raise ConfigError("suites: name at least one task, such as arc_easy")
    for task in tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, n=3)
            hint = f"near are {', '.join(near)}" if near else "give the folder of its YAML file if it is your own"
            raise ConfigError(f"suites: no task {task!r} among {len(known)}; {hint}")


def _task(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return one task (or group of tasks) of the harness's results in our words."""
    results, counts = found["results"][name], found.get("n-samples", {}).get(name, {})
    n = counts.get("effective", results.get("sample_len"))
    better = found.get("higher_is_better", {}).get(name) or {}
    return {
        "n": n,
        "shots": found.get("n-shot", {}).get(name),
        "version": found.get("versions", {}).get(name),
        "figures": {
            metric: figure | {"n": n, "higher_is_better": better.get(metric.partition(" ")[0])}
            for metric, figure in _figures(results)
        },
    }


def _figures(results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (metric, figure); the harness says `acc,none` and `acc_stderr,none`, with a filter after the comma."""
    for key, value in results.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        said = results.get(f"{metric}_stderr,{filtered}")
        stderr = float(said) if isinstance(said, int | float) and said > 0 else None
        span = {"low": value - Z * stderr, "high": value + Z * stderr} if stderr else {"low": None, "high": None}
        title = metric if filtered == "none" else f"{metric} ({filtered})"
        yield title, {"value": float(value), "stderr": stderr, **span}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
