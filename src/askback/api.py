"""The same work from Python: load a backward model, train, augment, curate, evaluate, run.

Takes: paths, texts, Pairs and Options.  Gives: what the commands write.  Never: prints or parses arguments.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from askback.chance import row_seed, split
from askback.config import check_options, to_toml
from askback.errors import ConfigError, DataError, IntegrityError
from askback.options import AugmentOptions, EngineOptions, Options, TuneOptions
from askback.ports import Ask, Engine, FitReport, Sampling
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT, LAYOUT_FILE, Layout, build_rubric
from askback.records import Pair, Passage, Reject, content_id
from askback.stages.augment import augment, check_reply

ATTEMPTS = 3
"""How often a text is asked about again when the answer cannot be used."""


class BackwardModel:
    """An adapter (or model) that hears instructions in texts; made by `load`."""

    def __init__(self, folder: Path, engine: Engine, layout: Layout) -> None:
        self.folder = folder
        self.engine = engine
        self.layout = layout

    def instructions(
        self, texts: Sequence[str], n: int = 1, *, seed: int = 0, sampling: Sampling | None = None
    ) -> list[list[str]]:
        """Return up to `n` instructions for each text, in the order of the texts.

        An answer that is cut off, empty, looping or an echo of the prompt is asked for again, twice at most; a text
        for which nothing usable came has a shorter list.
        """
        sampling = sampling or Sampling()
        ask = self.engine.generate(self.folder)
        found: list[list[str]] = [[] for _ in texts]
        prompts = [self.layout.prompt(Pair(id="", instruction="", output=text)) for text in texts]
        for attempt in range(ATTEMPTS):
            missing = [i for i, got in enumerate(found) for _ in range(n - len(got))]
            asks = [
                Ask(prompts[i], row_seed(seed, content_id(texts[i]), 1000 * attempt + number))
                for number, i in enumerate(missing)
            ]
            for i, reply in zip(missing, ask(asks, sampling), strict=True):
                if check_reply(reply, self.layout, min_chars=8).keep:
                    found[i].append(reply.text)
        return found


def load(folder: str | Path, *, base: str = "", **engine: Any) -> BackwardModel:
    """Load a backward model from the folder it was saved in, with the base it names (or another one).

    Keywords are those of the run file's `engine` table, such as `device="cpu"`.

    Raises:
        ConfigError: no such folder, not a backward model, or its base cannot be found.
        IntegrityError: the base found is not the one the adapter was trained on.
    """
    path = Path(folder)
    layout = read_layout(path, "backward")
    return BackwardModel(path, open_for(path, base=base, settings=engine), layout)


def read_layout(folder: Path, direction: str) -> Layout:
    """Return the layout saved beside an adapter, of the direction wanted."""
    file = folder / LAYOUT_FILE
    if not file.exists():
        raise ConfigError(
            f"{folder}: no {LAYOUT_FILE} here; want a folder that askback trained, such as models/backward"
        )
    return Layout.loads(file.read_text(encoding="utf-8"), direction=direction, where=str(folder))


def open_for(model: Path, *, base: str = "", settings: Mapping[str, Any] | None = None) -> Engine:
    """Open an engine on the base that a model was trained on, and check that it is that base."""
    from askback.engines.bases import adapter_base
    from askback.engines.open import open_engine

    note_file = model / "base.json"
    note = json.loads(note_file.read_text(encoding="utf-8")) if note_file.exists() else {}
    ours = note.get("base") in ("tiny", "echo")  # names of this package, wherever it is installed
    name = base or (note["base"] if ours else adapter_base(model) or str(model))
    preset = {"kind": note["kind"]} if "kind" in note else {}
    if name == "tiny":
        preset["precision"] = "float32"
    raw = {"engine": {"base": name, **preset, **dict(settings or {})}}
    engine = open_engine(check_options(raw, "load").engine)
    found = engine.describe()["hash"]
    if note.get("hash", found) != found:
        raise IntegrityError(
            f"{model} was trained on the base {note['base']} with hash {note['hash']}, but {name} has {found}; "
            "give the right base with --base"
        )
    return engine


def run(options: Options | Mapping[str, Any], out: str | Path, *, show: Any = None) -> Path:
    """Do the main job in the folder `out`, or go on with it; return the folder.

    `options` are Options, or a nested mapping as in a run file: `{"seed": {"path": ...}, "engine": {...}}`.
    """
    from askback import pipeline, publish
    from askback.engines.open import open_engine
    from askback.meter import measured
    from askback.store import open_run, write_text

    options = options if isinstance(options, Options) else check_options(options, "askback.run")
    folder = Path(out)
    check_paths(options)
    with open_run(folder) as held:  # before the engine, which takes seconds: a folder in use is told at once
        engine = open_engine(options.engine)
        write_text(folder / "run.toml", to_toml(options))
        with measured(folder / "cost.json", country=options.engine.country):
            pipeline.run(options, held, engine, show or pipeline.Silent())
        publish.publish(folder, options, engine.describe())
    return folder


def check_paths(options: Options) -> None:
    """Refuse a run without seed or corpus before anything is loaded."""
    for table, path in (("seed", options.seed.path), ("corpus", options.corpus.path)):
        if not path:
            raise ConfigError(f"no {table} is given: --{table} PATH, or {table}.path in the run file")
    corpus = options.corpus.path
    if not Path(corpus).exists() and not any(mark in corpus for mark in "*?["):
        raise ConfigError(f"--corpus {corpus}: there is no such file or folder")


def train(
    direction: str, pairs: Sequence[Pair], out: Path, options: TuneOptions, engine: Engine, *, seed: int
) -> FitReport:
    """Tune one model on pairs and write it into the folder `out`, whole or not at all."""
    from askback.store import write_folder

    layout = FORWARD_LAYOUT if direction == "forward" else BACKWARD_LAYOUTS[getattr(options, "layout", "asked")]
    fit = engine.fit(options, seed=seed)

    def fill(folder: Path) -> FitReport:
        report = fit([layout.training_example(pair) for pair in pairs], folder)
        saved = layout.trained(report.recipe.get("max_tokens", 0))
        (folder / LAYOUT_FILE).write_text(saved.dumps(), encoding="utf-8")
        return report

    return write_folder(out, fill)


def augment_passages(
    model: BackwardModel, passages: Iterable[Passage], options: AugmentOptions, *, seed: int
) -> Iterator[Pair | Reject]:
    """Yield one candidate or Reject for each passage and candidate number."""
    return augment(passages, model.engine.generate(model.folder), model.layout, options, seed=seed)


def judge_pairs(pairs: Sequence[Pair], model: Path | None, options: Options, engine: Engine) -> Iterator[Pair | Reject]:
    """Yield the pairs that pass one round of curation with their score, and Rejects for the others."""
    from askback.stages import curate

    table = options.curate
    if table.judge == "likelihood":
        layout = read_layout(model, "forward") if model else FORWARD_LAYOUT
        judged = list(curate.judge_likelihood(pairs, engine.likelihood(model), layout, round=1))
    else:
        path = Path(table.rubric)
        rubric = build_rubric(path.read_text(encoding="utf-8"), str(path)) if table.rubric else build_rubric()
        if table.judge == "expected":
            judged = list(curate.judge_expected(pairs, engine.choose(model), rubric, round=1))
        else:
            ask = engine.generate(model)
            judged = list(curate.judge_reasoned(pairs, ask, rubric, table, round=1, seed=options.random_seed))
    curate.check_parsed(judged, table)
    outcomes = list(curate.keep(pairs, judged, table))
    if not any(isinstance(outcome, Pair) for outcome in outcomes):
        curate.check_kept(0, judged, table)
    return iter(outcomes)


def evaluate_model(folder: Path, pairs: Sequence[Pair], options: Options, engine: Engine) -> dict[str, Any]:
    """Return the measures of a backward model on pairs, beside its floors and the bare base."""
    from askback.stages import evaluate

    layout = read_layout(folder, "backward")
    table, seed = options.evaluate, options.random_seed
    if len(pairs) < 2:
        raise DataError(f"{len(pairs)} pairs are too few to evaluate on")

    def measure(model: Path | None) -> dict[str, Any]:
        return evaluate.evaluate_backward(pairs, engine.generate(model), engine.likelihood(model), layout, table, seed)

    adapter, floors = measure(folder), evaluate.floors(pairs, table, seed)
    return {
        "backward": adapter,
        "base": measure(None),
        "floors": floors,
        "tests": evaluate.compare_with_floors(adapter, floors),
    }


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
    from askback.options import SeedOptions
    from askback.readers.seed import read_seed

    reading = read_seed(SeedOptions(path=str(path), format="pairs", language=""))
    return [replace(row, kind="augmented") for row in reading.outcomes if isinstance(row, Pair)]


def read_any_pairs(path: Path, options: Options) -> list[Pair]:
    """Return the pairs of a file in any seed format, or of the candidates folder of a run."""
    from askback.store import read_part

    if path.is_dir() and (parts := sorted(path.glob("part-*.parquet"))):
        return [pair for part in parts for pair in read_part(part, Pair)]
    table = options.seed.model_copy(update={"path": str(path), "language": ""})
    pairs, rejects, _ = read_pairs(options.model_copy(update={"seed": table}))
    if rejects:
        raise DataError(f"{path}: {len(rejects)} rows are no pairs; the first: {rejects[0].source} {rejects[0].reason}")
    return [replace(pair, passage=pair.passage or pair.id) for pair in pairs]


def curate_file(
    pairs: Sequence[Pair], model: Path | None, options: Options, engine: Engine, out: Path
) -> tuple[int, int]:
    """Write kept pairs to `out` and the others beside it; return both counts."""
    from askback.store import write_rows

    outcomes = list(judge_pairs(pairs, model, options, engine))
    kept = write_rows(out, (asdict(row) for row in outcomes if isinstance(row, Pair)))
    aside = out.with_name(f"{out.name}.rejected.jsonl")
    return kept, write_rows(aside, (asdict(row) for row in outcomes if isinstance(row, Reject)))


def augment_lines(
    model: BackwardModel, texts: Iterable[Passage | Reject], options: AugmentOptions, *, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready line per text and candidate: the instruction, or null and the reason."""
    for text in texts:
        if isinstance(text, Reject):
            yield {"id": text.id, "source": text.source, "output": None, "instruction": None, "rejected": text.reason}
            continue
        for outcome in augment_passages(model, [text], options, seed=seed):
            line = {"id": outcome.id, "source": text.source, "output": text.text}
            if isinstance(outcome, Pair):
                yield {**line, "instruction": outcome.instruction, "candidate": outcome.candidate}
            else:
                yield {**line, "instruction": None, "rejected": outcome.reason, "detail": outcome.detail}


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
    from askback.stages.clean import clean
    from askback.stages.segment import segment

    read = read_documents(options.corpus.model_copy(update={"path": path}))
    for outcome in read:
        if isinstance(outcome, Reject):
            yield outcome
        elif passages:
            yield from clean(segment([outcome], options.passages), options.passages)
        else:
            yield text_passage(outcome.text, outcome.source, outcome.licence)


def report(folder: Path) -> Path:
    """Write metrics, data set, cards and report of a finished run anew; return the report's path."""
    from askback import publish
    from askback.config import load_options
    from askback.store import open_run, read_json

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
    layout = FORWARD_LAYOUT if direction == "forward" else BACKWARD_LAYOUTS[getattr(options, "layout", "asked")]
    recipe = resolve(options, rows=len(pairs), model_tokens=engine.max_tokens)
    return "\n\n".join(engine.tokens.paint(layout.training_example(pair), recipe.max_tokens) for pair in pairs)


def measures_table(found: Mapping[str, Any]) -> str:
    """Return the measures of a backward model beside base and floors, one a line."""
    columns = {"adapter": found["backward"], "base": found["base"], **found["floors"]}
    lines = [f"{'':<14}" + "".join(f"{name:>22}" for name in columns)]
    for measure in ("rougeL", "rouge1", "rouge2", "bleu", "chrf", "nll_per_token", "retrieval"):
        cells = [column.get(measure) for column in columns.values()]
        shown = [f"{c['value']:.2f} [{c['low']:.2f}, {c['high']:.2f}]" if c and "low" in c else "-" for c in cells]
        lines.append(f"{measure:<14}" + "".join(f"{cell:>22}" for cell in shown))
    return "\n".join(lines)
