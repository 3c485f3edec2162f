"""A look before a run: it is rehearsed on some documents, and the engine is asked a little of what it would be asked.

Takes: an opened engine, Options with nothing left open, some documents, a scratch folder.
Gives: what each step did, and what the engine takes for it.
Never: touches the run folder, or lets the engine work for more than about a minute.
"""

import resource
import sys
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from askback import pipeline, publish
from askback.errors import AskbackError
from askback.estimate import ONCE, Range, exactly, rate
from askback.finished import rows_of, steps_of
from askback.options import Options
from askback.ports import Engine
from askback.records import Document, Judgement, Pair, Passage
from askback.rehearsal import (
    Asked,
    Fitted,
    Kind,
    Rehearsal,
    Role,
    Timed,
    Trained,
    Weights,
    ask,
    family_of,
    spread_over,
    time_requests,
    time_training,
)
from askback.store import MANIFEST, REJECTED, STARTED, Manifest, open_run, write_part, write_rows

T = TypeVar("T")
K = TypeVar("K")

TINY_SAMPLE = 12
"""Documents the run is rehearsed with first, to load what is loaded late and to tell what a step takes anyway."""
MOST_S = 25.0
"""After so many seconds of asking the engine, a call that was timed once is timed no more; others are like it."""
ROW_KEYS = ("title", "licence", "genre")
"""What a document of the rehearsal keeps beside its text."""
COUNTED = 200
"""Requests or rows of a kind whose tokens are counted."""
FIXED = ("seed", "backward", "evaluation")
"""Steps that do the same however large the corpus is; so does the first forward model."""
PAPER_KEPT = Range(0.083, 0.18, 0.388)
"""Share of the candidates a threshold keeps, which nobody knows before they are judged: from the share that Li et al.
2023 kept with scores of 4.5 and more to that with 4 and more, and their geometric mean."""


class Done(NamedTuple):
    """What a step of the rehearsal did, and the bytes it left."""

    manifest: Manifest
    parts: int
    books: int
    """Manifest, and what the step depends on."""
    ledger: int
    """The rejects, row by row."""
    others: int

    @property
    def family(self) -> str:
        """The step's name without numbers."""
        return family_of(self.manifest.step)

    @property
    def seconds(self) -> float:
        """What it took, the models' work left out."""
        return self.manifest.cost["seconds"]


class Rehearsed(NamedTuple):
    """A rehearsal: its steps, and what was asked in them."""

    steps: Sequence[Done]
    asked: Sequence[Asked]
    trained: Sequence[Trained]
    cut: Sequence[int]
    """Passages of each document."""
    held: Mapping[type, float]
    """Bytes in memory of a row of a class."""

    @property
    def passages(self) -> int:
        """How many were asked about."""
        return sum(self.cut)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Everything that was measured."""

    done: Rehearsed
    small: Mapping[str, float]
    """Step -> seconds it takes with next to nothing to do."""
    small_passages: int
    counts: Mapping[Kind, "Counts"]
    timed: Mapping[Kind, Timed]
    fitted: Mapping[Role, Fitted]
    weights: Weights
    load_s: float
    """Seconds the first request took beyond those that came after it."""
    publish_s: float
    published: Mapping[str, int]
    """Bytes beside the steps: of the `dataset`, and of the `rest` without the models."""
    frame: int
    """Bytes of a part without rows."""
    memory: float
    """Most bytes in memory so far."""


class Counts(NamedTuple):
    """Tokens of a request: what the engine reads of it, and what its time goes by."""

    read: Range
    weight: Range


def look(options: Options, engine: Engine, documents: Sequence[Document], scratch: Path) -> Seen:
    """Rehearse the run on the documents, then ask the engine some of what it would be asked.

    Raises:
        DataError: the documents or the seed pairs give nothing to work with.
    """
    rehearse = _rehearser(options, engine, scratch)
    small, small_passages = _rehearse_small(rehearse, documents)
    folder, done = rehearse("whole", documents, {})
    began = time.perf_counter()
    publish.publish(folder, _rehearsed_options(options, scratch, {}), engine.describe())
    publish_s = time.perf_counter() - began
    weights = Weights(engine)
    done = done._replace(asked=_as_long_as_learnt(done, weights))
    fitted = _time_trainings(engine, done.trained, scratch / "models", weights, options.random_seed)
    models = {role: scratch / "models" / role / "model" for role in fitted}
    load_s, timed = _time_requests(engine, done.asked, models, weights, options.engine.batch_tokens)
    kinds = _by(done.asked, lambda one: one.kind)
    return Seen(
        done=done,
        small=small,
        small_passages=small_passages,
        counts={kind: _count(asked, weights) for kind, asked in kinds.items()},
        timed=timed,
        fitted=fitted,
        weights=weights,
        load_s=load_s,
        publish_s=publish_s,
        published=_published(folder),
        frame=_frame_bytes(scratch),
        memory=_peak_bytes(),
    )


# --- the rehearsal


def _rehearser(options: Options, engine: Engine, scratch: Path) -> Callable[..., tuple[Path, Rehearsed]]:
    def rehearse(name: str, documents: Sequence[Document], smaller: Mapping[str, Any]) -> tuple[Path, Rehearsed]:
        rows = ({"text": one.text, **{key: getattr(one, key) for key in ROW_KEYS}} for one in documents)
        write_rows(scratch / f"{name}.jsonl", rows)
        rehearsal, folder = Rehearsal(engine), scratch / name
        with open_run(folder) as held:
            pipeline.run(_rehearsed_options(options, scratch / f"{name}.jsonl", smaller), held, rehearsal, rehearsal)
        return folder, _sum_up(folder, rehearsal, documents)

    return rehearse


def _rehearsed_options(options: Options, corpus: Path, smaller: Mapping[str, Any]) -> Options:
    """Return the options of a run on other documents whose answers mean nothing: no bound on them may stop it."""
    free = {"calibration": "", "min_kept": 1, "max_unparsed": 1.0, "keep_most": 0, "least": {}, "join": ()}
    rounds = {"stop_overlap": 0.0, "stop_gain": 0.0}
    share = {"keep_top": options.curate.keep_top or PAPER_KEPT.middle}
    changed: dict[str, dict[str, Any]] = {
        "corpus": {"path": str(corpus), "text_column": "text", "limit": 0},
        "distinct": {"known": ()},
        "curate": {**free, **rounds, **share},
        "evaluate": {"encoder": "", **smaller.get("evaluate", {})},
        "seed": smaller.get("seed", {}),
    }
    return options.model_copy(
        update={name: getattr(options, name).model_copy(update=table) for name, table in changed.items()}
    )


def _rehearse_small(
    rehearse: Callable[..., tuple[Path, Rehearsed]], documents: Sequence[Document]
) -> tuple[dict[str, float], int]:
    """Return what each step takes with next to nothing to do, and for how many passages; nothing where that fails."""
    smaller = {"seed": {"held_out_most": 10}, "evaluate": {"bootstrap": 100, "attacks": 0, "answers": 0}}
    found: tuple[dict[str, float], int] = {}, 0
    with suppress(AskbackError):  # so few documents may hold no passage at all
        for turn in ("loading", "small"):
            _, done = rehearse(turn, spread_over(documents, TINY_SAMPLE), smaller)
            found = {one.manifest.step: one.seconds for one in done.steps}, done.passages
    return found


def _sum_up(folder: Path, rehearsal: Rehearsal, documents: Sequence[Document]) -> Rehearsed:
    cut = Counter(int(passage.source.rpartition(":")[2]) - 1 for passage in rows_of(folder, "distinct", Passage))
    steps = [_step_done(folder / manifest.step, manifest) for manifest in steps_of(folder)]
    judged = next(one.manifest.step for one in steps if one.family.startswith("judged"))
    return Rehearsed(
        steps=steps,
        asked=rehearsal.asked,
        trained=rehearsal.trained,
        cut=[cut[place] for place in range(len(documents))],
        held={
            Pair: _held_bytes(lambda: rows_of(folder, "gated", Pair)),
            Judgement: _held_bytes(lambda: rows_of(folder, judged[3:], Judgement)),
        },
    )


def _step_done(folder: Path, manifest: Manifest) -> Done:
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    parts = sum(size for name, size in sizes.items() if name.startswith("part-"))
    books = sum(sizes[name] for name in (MANIFEST, STARTED, REJECTED))
    return Done(manifest, parts, books - sizes[REJECTED], sizes[REJECTED], sum(sizes.values()) - parts - books)


def _held_bytes(read: Callable[[], list[Any]]) -> float:
    """Return the bytes a row takes in memory."""
    tracemalloc.start()
    rows = read()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / max(1, len(rows))


def _frame_bytes(scratch: Path) -> int:
    """Return the bytes of a part without rows, and of its line in a manifest."""
    path = scratch / "part-00000.parquet"
    write_part(path, Pair, [], {"read": 0, "written": 0})
    return path.stat().st_size + len(f'    "{path.name}": "{"0" * 64}",\n')


def _published(folder: Path) -> dict[str, int]:
    """Return the bytes beside the steps: the data set, and all else but the models."""
    sizes: Counter[str] = Counter()
    for file in folder.rglob("*"):
        if file.is_file():
            sizes[file.relative_to(folder).parts[0]] += file.stat().st_size
    rest = sum(size for name, size in sizes.items() if name not in ("dataset", "models") and not name[0].isdigit())
    return {"dataset": sizes["dataset"], "rest": rest}


def _peak_bytes() -> float:
    """Return the most memory this process had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


# --- the sample


def _count(asked: Sequence[Asked], weights: Weights) -> Counts:
    how, items = asked[0].how, [item for one in asked for item in one.items]
    some = spread_over(items, COUNTED)
    return Counts(
        mean([weights.read(item, how) for item in some], len(items)),
        mean([weights.weight(item, how) for item in some], len(items)),
    )


def mean(some: Sequence[float], of: int) -> Range:
    """Return the mean of values drawn from so many: exactly, where they are all."""
    if not some:
        return exactly(0)
    return exactly(fmean(some)) if len(some) == of else rate([(value, 1) for value in some])


def _as_long_as_learnt(done: Rehearsed, weights: Weights) -> list[Asked]:
    """Return the requests with as much room for replies as those of the finished models will take.

    The model of the sample has not learnt to stop, one that is tuned writes as long as what it was tuned to write; rows
    are written in batches, which last as long as the longest of them: here the length that one in twenty passes.
    """
    reach: dict[Role, int] = {}
    for one in done.trained:
        some = spread_over(one.examples, COUNTED)
        lengths = sorted(weights.engine.count_tokens(example.target) + 1 for example in some)
        reach[one.role] = lengths[int(0.95 * (len(lengths) - 1))]

    def shortened(one: Asked) -> Asked:
        if one.kind.call != "generate" or one.kind.role not in reach:
            return one
        most = min(one.how.max_new_tokens, reach[one.kind.role])
        return replace(one, how=replace(one.how, max_new_tokens=most))

    return [shortened(one) for one in done.asked]


def _time_trainings(
    engine: Engine, trained: Sequence[Trained], out: Path, weights: Weights, seed: int
) -> dict[Role, Fitted]:
    """Time a training of each direction: of several the last one, whose rows are of both kinds."""
    last = {one.role: one for one in trained}
    return {role: time_training(engine, one, out / role, weights, seed) for role, one in last.items()}


def _time_requests(
    engine: Engine, asked: Sequence[Asked], models: Mapping[Role, Path], weights: Weights, batch_tokens: int
) -> tuple[float, dict[Kind, Timed]]:
    """Return what the first request took to be ready, and the time of each kind: first those that grow, by weight.

    When time is up, kinds are taken for as slow as one of the same call, within ONCE.
    """
    kinds = _by([one for one in asked if one.items], lambda one: one.kind)
    if not kinds:
        return 0.0, {}
    order = sorted(kinds, key=lambda kind: (kind.family in FIXED, -_weight(kinds[kind], weights)))
    load_s = _first_s(engine, kinds[order[0]], models.get(order[0].role))
    began = time.perf_counter()
    timed: dict[Kind, Timed] = {}
    for kind in order:
        like = [one for one in timed if one.call == kind.call]
        if like and time.perf_counter() - began > MOST_S:
            known = timed[next((one for one in like if one.role == kind.role), like[0])]
            wide = Range(known.seconds.low / ONCE, known.seconds.middle, known.seconds.high * ONCE)
            timed[kind] = Timed(wide, known.written, 0)
        else:
            timed[kind] = time_requests(engine, models.get(kind.role), kinds[kind], weights, batch_tokens)
    return load_s, timed


def _weight(asked: Sequence[Asked], weights: Weights) -> int:
    return weights.weight(asked[0].items[0], asked[0].how) * sum(len(one.items) for one in asked)


def _first_s(engine: Engine, asked: Sequence[Asked], model: Path | None) -> float:
    """Return how much longer a request takes when it is the first."""
    lasted = []
    for _ in range(2):
        began = time.perf_counter()
        list(ask(engine, model, asked[0], asked[0].items[:1]))
        lasted.append(time.perf_counter() - began)
    return max(0.0, lasted[0] - lasted[1])


def _by(things: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for thing in things:
        found[key(thing)].append(thing)
    return dict(found)
