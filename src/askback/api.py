"""askback from Python: load a backward model and ask it, or do the whole job.

Takes: paths, texts, Options.  Gives: instructions; a finished run folder.  Never: prints or parses arguments.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from askback.chance import row_seed
from askback.config import check_options, to_toml
from askback.errors import ConfigError, IntegrityError
from askback.options import EngineOptions, GateOptions, Options
from askback.ports import Ask, Engine, Sampling, Spread, spread_here
from askback.ranks import ALONE, Rank, hold
from askback.records import Pair, content_id
from askback.stages.augment import check_reply
from askback.stages.gates import check_pair
from askback.tasks import BASE_NOTE, Model, read_model, weights_of

ATTEMPTS = 3
"""How often a text is asked about again when the answer cannot be used."""


class BackwardModel:
    """An adapter (or model, or a base asked by prompt) that hears instructions in texts; made by `load`."""

    def __init__(self, model: Model, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        self.layout = model.layout
        self.ask = model.generate(engine)

    def instructions(
        self, texts: Sequence[str], n: int = 1, *, seed: int = 0, sampling: Sampling | None = None
    ) -> list[list[str]]:
        """Return up to `n` instructions for each text, in the order of the texts.

        An answer that is cut off, empty, looping or stopped by a gate is asked for again, twice at most; a text
        for which nothing usable came has a shorter list.
        """
        sampling = sampling or Sampling()
        found: list[list[str]] = [[] for _ in texts]
        blanks = [Pair(id="", instruction="", output=text) for text in texts]
        prompts = [self.layout.prompt(pair) for pair in blanks]
        for attempt in range(ATTEMPTS):
            missing = [(i, k) for i, got in enumerate(found) for k in range(len(got), n)]
            asks = [Ask(prompts[i], row_seed(seed, f"{content_id(texts[i])}/{k}", attempt)) for i, k in missing]
            for (i, _), reply in zip(missing, self.ask(asks, sampling), strict=True):
                pair = replace(blanks[i], instruction=reply.text)
                if check_reply(reply, min_chars=8).keep and check_pair(pair, self.layout, GateOptions()).keep:
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
    model = read_model(path, "backward")
    return BackwardModel(model, open_for(path, base=base, settings=engine))


def open_for(model: Path, *, base: str = "", settings: Mapping[str, Any] | None = None) -> Engine:
    """Open an engine on the base that a model was trained on, and check that it is that base.

    A model that was not tuned has no base of its own: any other one can be asked by its prompt.
    """
    from askback.engines.open import open_engine

    options, note = options_for(model, base=base, settings=settings), _base_note(model)
    engine = open_engine(options)
    found = engine.describe()["hash"]
    if found and weights_of(model) is not None and note.get("hash", found) != found:  # "": nobody can tell
        raise IntegrityError(
            f"{model} was trained on the base {note['base']} with hash {note['hash']}, but {options.base} has {found}; "
            "give the right base with --base"
        )
    return engine


def options_for(model: Path, *, base: str = "", settings: Mapping[str, Any] | None = None) -> EngineOptions:
    """Return the engine's options with the base that a model was trained on, or another one."""
    from askback.engines.bases import adapter_base

    note, tuned = _base_note(model), weights_of(model) is not None
    ours = note.get("base") in ("tiny", "echo")  # names of this package, wherever it is installed
    own = note["base"] if ours else (adapter_base(model) or str(model)) if tuned else note["path"]
    preset = {"kind": note["kind"]} if "kind" in note else {}
    return check_options({"engine": {"base": base or own, **preset, **dict(settings or {})}}, "load").engine


def _base_note(model: Path) -> dict[str, Any]:
    file = model / BASE_NOTE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def run(
    options: Options | Mapping[str, Any], out: str | Path, *, show: Any = None, rank: Rank = ALONE, budget: str = ""
) -> Path:
    """Do the main job in the folder `out`, or go on with it; return the folder.

    `options` are Options, or a nested mapping as in a run file: `{"seed": {"path": ...}, "engine": {...}}`. With a
    `rank` above 0 this process only helps the one of rank 0, which writes everything. A `budget` such as "2h" is for
    all sittings together.

    Raises:
        Stopped: the next shard or training step could cross the budget; the same call goes on with a larger one.
    """
    from askback import budget as bounds
    from askback import pipeline, publish
    from askback.engines.open import open_engine
    from askback.meter import measured
    from askback.steps import Silent
    from askback.store import write_text

    options = options if isinstance(options, Options) else check_options(options, "askback.run")
    folder = Path(out)
    check_paths(options)
    bound = bounds.Budget.read(budget, options.plan.currency) if budget else None
    with hold(folder, rank) as (held, make_steps):  # before the engine, which takes seconds: is the folder in use?
        engine = open_engine(options.engine)
        options = with_presets(options, engine)
        with spread_of(options.engine, engine) as spread:
            if not rank.leads:
                pipeline.run(options, held, engine, show or Silent(), spread, make_steps)
                return folder
            write_text(folder / "run.toml", to_toml(options))
            with measured(folder / "cost.json", country=options.engine.country) as read_kwh:
                show = show or Silent()
                if bound:
                    show = bounds.Bounded(show, bound, bounds.open_meter(bound, options, folder, read_kwh))
                pipeline.run(options, held, engine, show, spread, make_steps)
        publish.publish(folder, options, engine.describe())
    return folder


@contextmanager
def spread_of(options: EngineOptions, engine: Engine) -> Iterator[Spread]:
    """Yield who works on shards: the cluster that the options name, or this process where they name none."""
    if not options.cluster.address:
        yield spread_here(engine)
        return
    from askback.engines.cluster import open_spread

    with open_spread(options, engine.describe()) as spread:
        yield spread


def with_presets(options: Options, engine: Engine) -> Options:
    """Return the options with the presets' choices in place of what was left open, as they are written down."""
    from askback.engines.presets import filled

    tables = {name: filled(getattr(options, name), model_tokens=engine.max_tokens) for name in ("backward", "forward")}
    return options.model_copy(update=tables)


def check_paths(options: Options) -> None:
    """Refuse a run without seed or corpus before anything is loaded."""
    for table, path in (("seed", options.seed.path), ("corpus", options.corpus.path)):
        if not path:
            raise ConfigError(f"no {table} is given: --{table} PATH, or {table}.path in the run file")
    corpus = options.corpus.path
    if not Path(corpus).exists() and not any(mark in corpus for mark in "*?["):
        raise ConfigError(f"--corpus {corpus}: there is no such file or folder")
