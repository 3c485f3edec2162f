"""askback from Python: load a backward model and ask it, or do the whole job.

Takes: paths, texts, Options.  Gives: instructions; a finished run folder.  Never: prints or parses arguments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from askback.chance import row_seed
from askback.config import check_options, to_toml
from askback.errors import ConfigError, IntegrityError
from askback.options import GateOptions, Options
from askback.ports import Ask, Engine, Sampling
from askback.prompts import Layout
from askback.records import Pair, content_id
from askback.stages.augment import check_reply
from askback.stages.gates import check_pair
from askback.tasks import read_layout

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

        An answer that is cut off, empty, looping or stopped by a gate is asked for again, twice at most; a text
        for which nothing usable came has a shorter list.
        """
        sampling = sampling or Sampling()
        ask = self.engine.generate(self.folder)
        found: list[list[str]] = [[] for _ in texts]
        blanks = [Pair(id="", instruction="", output=text) for text in texts]
        prompts = [self.layout.prompt(pair) for pair in blanks]
        for attempt in range(ATTEMPTS):
            missing = [(i, k) for i, got in enumerate(found) for k in range(len(got), n)]
            asks = [Ask(prompts[i], row_seed(seed, f"{content_id(texts[i])}/{k}", attempt)) for i, k in missing]
            for (i, _), reply in zip(missing, ask(asks, sampling), strict=True):
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
    layout = read_layout(path, "backward")
    return BackwardModel(path, open_for(path, base=base, settings=engine), layout)


def open_for(model: Path, *, base: str = "", settings: Mapping[str, Any] | None = None) -> Engine:
    """Open an engine on the base that a model was trained on, and check that it is that base."""
    from askback.engines.bases import adapter_base
    from askback.engines.open import open_engine

    note_file = model / "base.json"
    note = json.loads(note_file.read_text(encoding="utf-8")) if note_file.exists() else {}
    ours = note.get("base") in ("tiny", "echo")  # names of this package, wherever it is installed
    name = base or (note["base"] if ours else adapter_base(model) or str(model))
    preset = {"kind": note["kind"]} if "kind" in note else {}
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
    from askback.steps import Silent
    from askback.store import open_run, write_text

    options = options if isinstance(options, Options) else check_options(options, "askback.run")
    folder = Path(out)
    check_paths(options)
    with open_run(folder) as held:  # before the engine, which takes seconds: a folder in use is told at once
        engine = open_engine(options.engine)
        options = with_presets(options, engine)
        write_text(folder / "run.toml", to_toml(options))
        with measured(folder / "cost.json", country=options.engine.country):
            pipeline.run(options, held, engine, show or Silent())
        publish.publish(folder, options, engine.describe())
    return folder


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
