"""What the stand-alone commands do: one function behind each, and the readers they share.

Takes: paths, Pairs, Options, an Engine.  Gives: files, rows, lines of text.  Never: prints or parses arguments.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from askback.api import BackwardModel
from askback.chance import split
from askback.errors import ConfigError, DataError
from askback.options import AugmentOptions, EngineOptions, Options, SeedOptions, TuneOptions
from askback.ports import Engine, FitReport, Spread, spread_here
from askback.prompts import LAYOUT_FILE
from askback.records import Judgement, Pair, Passage, Reject, content_id
from askback.stages.compare import compare_runs
from askback.stages.curate import check_kept, check_parsed, combine, keep
from askback.stages.diversity import pick_diverse
from askback.store import by_number, check_replaceable, open_run, read_json, read_part, shards, write_rows
from askback.tables import score_notes
from askback.tasks import (
    Asking,
    Model,
    fit_model,
    layout_for,
    open_encoder,
    open_signal,
    prompt_layout,
    prove_backward,
    read_calibration,
    trained_on,
)

TEXTS_TOGETHER = 64
"""Texts that are asked about together: similar lengths then share a batch."""


def train(
    direction: str, pairs: Sequence[Pair], out: Path, options: TuneOptions, engine: Engine, *, seed: int
) -> FitReport:
    """Tune one model on pairs and write it into the folder `out`, whole or not at all.

    Raises:
        ConfigError: `out` holds files that askback did not write.
    """
    check_replaceable(out, LAYOUT_FILE)
    return fit_model(engine, pairs, layout_for(direction, options), options, out, seed=seed)


def write_prompted(pairs: Sequence[Pair], out: Path, options: AugmentOptions, engine: Engine) -> FitReport:
    """Write the folder of a backward model that is the base and a prompt which shows some of the pairs.

    Raises:
        ConfigError: `out` holds files that askback did not write.
    """
    check_replaceable(out, LAYOUT_FILE)
    layout, shown = prompt_layout(pairs, options, engine)
    return fit_model(engine, shown, layout, TuneOptions(), out, seed=0)


def prompted_model(pairs: Sequence[Pair], options: AugmentOptions, engine: Engine) -> BackwardModel:
    """Return the same model without a folder."""
    return BackwardModel(Model(prompt_layout(pairs, options, engine)[0], None), engine)


def write_rejects(path: Path, unread: Sequence[Reject], report: FitReport) -> None:
    """Write the rows that were no pairs and the pairs that could not be trained on, if there are any."""
    untrained = [Reject(id, *why.split(": ", 1)) for id, why in report.rejected]
    if unread or untrained:
        write_rows(path, (asdict(row) for row in [*unread, *untrained]))


def measure(model: Path, pairs: Sequence[Pair], options: Options, engine: Engine) -> dict[str, Any]:
    """Return the measures of a backward model on the pairs it was not trained on, beside its floors and the bare base.

    Raises:
        DataError: fewer than two such pairs.
    """
    pairs = unseen_by([model], pairs)
    encode = open_encoder(options.evaluate, options.engine)
    return prove_backward(engine, model, pairs, options.evaluate, seed=options.random_seed, encode=encode)


def measure_beside(
    models: tuple[Path, Path], engines: tuple[Engine, Engine], pairs: Sequence[Pair], options: Options
) -> dict[str, Any]:
    """Return the measures of the first model, with those of the second `beside` them and a `comparison` of both.

    Both are measured on the pairs that neither was trained on.
    """
    pairs = unseen_by(models, pairs)
    one, other = (measure(model, pairs, options, engine) for model, engine in zip(models, engines, strict=True))
    mine, yours = (
        {"evaluation": found, "base": engine.describe()} for found, engine in zip((one, other), engines, strict=True)
    )
    return {**one, "beside": other, "comparison": compare_runs(mine, yours, [str(model) for model in models])}


def unseen_by(models: Sequence[Path], pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that none of the models was trained on or shows in its prompt.

    Raises:
        DataError: fewer than two are left.
    """
    seen = set().union(*map(trained_on, models))
    unseen = [pair for pair in pairs if pair.id not in seen]
    if len(unseen) < 2:
        raise DataError(
            f"{len(pairs) - len(unseen)} of {len(pairs)} pairs were trained on; {len(unseen)} others are too few to "
            "evaluate on: give pairs the model has not seen"
        )
    return unseen


def judge_pairs(
    pairs: Sequence[Pair], model: Path | None, options: Options, engine: Engine, backward: Path | None = None
) -> Iterator[Pair | Reject]:
    """Yield the pairs that pass one round of curation with their score, and Rejects for the others.

    Raises:
        ConfigError: a signal needs a backward model, or rubric or calibration cannot be used.
        DataError: too many judgements without a score, or nothing is kept.
    """
    table, seed = options.curate, options.random_seed
    calibration = read_calibration(table)
    judges = {name: open_signal(engine, name, model, backward, table, round=1, seed=seed) for name in table.signals}
    signals: dict[str, list[Judgement]] = {name: list(judge(pairs)) for name, judge in judges.items()}
    check_parsed(signals, table, calibration)
    outcomes = list(keep(pairs, signals, table, calibration, pick_diverse))
    if not any(isinstance(outcome, Pair) for outcome in outcomes):
        check_kept(outcomes, combine(signals, table, calibration), table, calibration)
    return iter(outcomes)


def read_pairs(options: Options) -> tuple[list[Pair], list[Reject], str]:
    """Return the pairs of `seed.path`, the rows that are none, and what was read as what."""
    from askback.readers.seed import read_seed

    reading = read_seed(options.seed)
    outcomes = list(reading.outcomes)
    pairs = [outcome for outcome in outcomes if isinstance(outcome, Pair)]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
    if not pairs:
        raise DataError(
            f"{options.seed.path}: no pair in {len(rejects)} rows; the first: {rejects[0].reason if rejects else ''}"
        )
    return pairs, rejects, f"{reading.format}: {reading.explained}"


def held_out(pairs: Sequence[Pair], options: Options) -> tuple[list[Pair], list[Pair]]:
    """Return training and held-out pairs, split as a run splits them."""
    training, held = split(pairs, held_out=options.seed.held_out)
    return training, held[: options.seed.held_out_most]


def text_passage(text: str, source: str, licence: str = "") -> Passage:
    """Return a whole text as one passage."""
    stripped = text.strip()
    return Passage(
        id=content_id(source, stripped),
        document=content_id(source),
        heading="",
        text=stripped,
        start=0,
        end=len(stripped),
        source=source,
        licence=licence,
    )


def engine_for(options: EngineOptions) -> Engine:
    """Open the engine of a run file."""
    from askback.engines.open import open_engine

    return open_engine(options)


def read_augmented(path: Path) -> list[Pair]:
    """Return the kept pairs of a data set that askback wrote, as augmented training rows."""
    from askback.readers.seed import read_seed

    _check_there(path)
    reading = read_seed(SeedOptions(path=str(path), format="pairs", language=""))
    return [replace(row, kind="augmented") for row in reading.outcomes if isinstance(row, Pair)]


def read_any_pairs(path: Path, options: Options) -> list[Pair | Reject]:
    """Return what the rows of a file in any seed format are, or the pairs of the candidates folder of a run."""
    if path.is_dir() and (parts := sorted(path.glob("part-*.parquet"), key=by_number)):
        return [pair for part in parts for pair in read_part(part, Pair)]
    _check_there(path)
    table = options.seed.model_copy(update={"path": str(path), "language": "", "limit": 0})
    pairs, rejects, _ = read_pairs(options.model_copy(update={"seed": table}))
    return [*rejects, *(replace(pair, passage=pair.passage or pair.id) for pair in pairs)]


def _check_there(path: Path) -> None:
    """Name a missing file here, where it is not the seed."""
    from askback.readers.rows import row_format

    if row_format(path) and not path.exists():
        raise ConfigError(f"{path}: no such file")


def curate_file(
    rows: Sequence[Pair | Reject],
    model: Path | None,
    options: Options,
    engine: Engine,
    out: Path,
    *,
    backward: Path | None = None,
) -> tuple[int, int]:
    """Write kept pairs to `out`, other pairs and rows that are none beside it; return both counts."""
    pairs = [row for row in rows if isinstance(row, Pair)]
    unread = [row for row in rows if isinstance(row, Reject)]
    outcomes = [*unread, *judge_pairs(pairs, model, options, engine, backward)]
    kept = write_rows(out, (asdict(row) for row in outcomes if isinstance(row, Pair)))
    aside = out.with_name(f"{out.name}.rejected.jsonl")
    return kept, write_rows(aside, (asdict(row) for row in outcomes if isinstance(row, Reject)))


def augment_lines(
    model: BackwardModel,
    texts: Iterable[Passage | Reject],
    options: AugmentOptions,
    *,
    seed: int,
    spread: Spread | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready line per text and candidate, in order: the instruction, or null and the reason."""
    blocks: dict[int, list[Passage | Reject]] = {}
    early: dict[int, Iterator[Pair | Reject]] = {}

    def passages() -> Iterator[tuple[int, list[Passage]]]:
        for number, block in enumerate(shards(texts, TEXTS_TOGETHER)):
            blocks[number] = block
            yield number, [text for text in block if isinstance(text, Passage)]

    task, due = Asking(model=model.model, options=options, seed=seed), 0
    for number, outcomes in (spread or spread_here(model.engine))(task, passages()):
        early[number] = iter(outcomes)
        while due in early:
            yield from _lines(blocks.pop(due), early.pop(due), options.n)
            due += 1


def _lines(
    block: Iterable[Passage | Reject], outcomes: Iterator[Pair | Reject], candidates: int
) -> Iterator[dict[str, Any]]:
    for text in block:
        if isinstance(text, Reject):
            yield {"id": text.id, "source": text.source, "output": None, **_refused(text)}
            continue
        for outcome in islice(outcomes, candidates):
            line = {"id": outcome.id, "source": text.source, "output": text.text}
            if isinstance(outcome, Pair):
                yield {**line, "instruction": outcome.instruction, "candidate": outcome.candidate}
            else:
                yield {**line, **_refused(outcome)}


def _refused(reject: Reject) -> dict[str, Any]:
    return {"instruction": None, "rejected": reject.reason, "detail": reject.detail}


def texts_of_stream(stream: IO[bytes]) -> Iterator[Passage | Reject]:
    """Yield the texts of a stream: JSON lines with `text` or `output`, or else the whole as one text."""
    try:
        whole = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input: not UTF-8 at byte {error.start}; convert it first, such as with iconv"
        ) from error
    if not whole.strip():
        yield Reject("standard input", "empty", source="standard input")
        return
    try:
        rows = [json.loads(line) for line in whole.split("\n") if line.strip()]
    except ValueError:
        rows = []
    if not rows or not all(isinstance(row, dict) for row in rows):
        yield text_passage(whole, "standard input")
        return
    for number, row in enumerate(rows, start=1):
        text = row.get("text") or row.get("output")
        where = f"standard input:{number}"
        if isinstance(text, str) and text.strip():
            yield text_passage(text, where)
        else:
            yield Reject(where, "no_text", f"columns: {', '.join(row)}", where)


def texts_of_path(path: str, options: Options, *, passages: bool) -> Iterator[Passage | Reject]:
    """Yield each document of a path whole, or cut into passages as a run cuts it."""
    from askback.readers.documents import read_documents
    from askback.readers.rows import read_words
    from askback.stages.clean import clean
    from askback.stages.segment import segment

    blocked = read_words(options.passages.block_words)
    read = read_documents(options.corpus.model_copy(update={"path": path}))
    for outcome in read:
        if isinstance(outcome, Reject):
            yield outcome
        elif passages:
            yield from clean(segment([outcome], options.passages), options.passages, blocked)
        else:
            yield text_passage(outcome.text, outcome.source, outcome.licence)


def report(folder: Path) -> Path:
    """Write metrics, data set, cards and report of a finished run anew; return the report's path."""
    from askback import publish
    from askback.config import load_options

    if not (folder / "run.toml").exists():
        raise ConfigError(f"{folder}: not a run folder: no run.toml is in it")
    options = load_options(folder / "run.toml")
    with open_run(folder):
        base = read_json(folder / "metrics.json")["base"] if (folder / "metrics.json").exists() else None
        publish.publish(folder, options, base or engine_for(options.engine).describe())
    return folder / "report.html"


def show_labels(direction: str, pairs: Sequence[Pair], options: TuneOptions, engine: Engine) -> str:
    """Return what rows are trained on: the prompt dim, what carries loss in green, the stop token marked."""
    from askback.engines.local import LocalEngine
    from askback.engines.presets import resolve

    if not isinstance(engine, LocalEngine):
        raise ConfigError("--show-labels needs engine.kind = local: it shows the tokenizer's own view")
    layout = layout_for(direction, options)
    recipe = resolve(options, rows=len(pairs), model_tokens=engine.max_tokens)
    return "\n\n".join(engine.tokens.paint(layout.training_example(pair), recipe.max_tokens) for pair in pairs)


def measures_table(found: Mapping[str, Any]) -> str:
    """Return the measures of a backward model beside base and floors, one a line, and how they were computed."""
    models = {"adapter": found["backward"], "base": found["base"]} if found["base"] else {"prompt": found["backward"]}
    columns = {**models, **found["floors"]}
    lines = [f"{'':<14}" + "".join(f"{name:>22}" for name in columns)]
    for measure in ("rougeL", "rouge1", "rouge2", "bleu", "chrf", "nll_per_token", "retrieval"):
        cells = [column.get(measure) for column in columns.values()]
        shown = [f"{c['value']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" if c and "low" in c else "-" for c in cells]
        lines.append(f"{measure:<14}" + "".join(f"{cell:>22}" for cell in shown))
    missing = found["backward"].get("nll_why")
    whys = [f"nll_per_token and retrieval were not measured: {missing}."] if missing else []
    return "\n".join([*lines, "", *score_notes(found["backward"]), *whys])
