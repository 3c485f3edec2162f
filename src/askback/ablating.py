"""`askback ablate`: a run, then every variant of its training set with every seed, then one table and one picture.

Takes: Options, a folder.  Gives: ablation.json, ablation.txt and ablation.html in it.
Never: trains a variant again whose rows, options and base are the same: what is done is kept in results/.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from askback import api
from askback.chance import split
from askback.engines.presets import resolve
from askback.errors import DataError
from askback.finished import kept_name, rounds_of, rows_of
from askback.options import Options, TuneOptions
from askback.ports import Engine
from askback.prompts import FORWARD_LAYOUT, Layout
from askback.records import Pair, content_id
from askback.stages import ablate as stage
from askback.stages.ablation_page import render_ablation
from askback.steps import Show, Silent
from askback.store import drop_folder, read_json, write_json, write_text
from askback.tasks import check_tunes, fit_model, prove_forward

ROUNDS = 2
"""Fewer rounds cannot be compared."""


def ablate(options: Options, out: Path, *, seeds: int = 3, show: Show | None = None) -> dict[str, Any]:
    """Do (or go on with) the run in `out/run`, train every variant `seeds` times, and return the report.

    Every variant is trained for the same number of steps, so that a larger set is not a longer training. The run has
    two rounds at least, for one of them to be compared with the other.
    """
    from askback.engines.open import open_engine

    check_tunes(open_engine(options.engine))
    show = show or Silent()
    if options.curate.rounds < ROUNDS:
        show.note(f"{ROUNDS} rounds are done, not {options.curate.rounds}: rounds are compared too")
        options = options.model_copy(update={"curate": options.curate.model_copy(update={"rounds": ROUNDS})})
    bench = Bench(options, api.run(options, out / "run", show=show), out, show)
    rounds = max(bench.kept)
    results: dict[str, dict[int, stage.Losses]] = {}
    for variant in stage.variants(rounds):
        for number in range(seeds if variant.seed or variant.augmented else 1):
            results.setdefault(variant.name, {})[number] = bench.losses(variant, number)
    resamples, seed = options.evaluate.bootstrap, options.random_seed
    found = stage.summarise(results, stage.claims(rounds), resamples=resamples, seed=seed)
    found |= {"seeds": seeds, "steps": bench.tune.steps, "rows": bench.rows}
    write_json(out / "ablation.json", found)
    write_text(out / "ablation.txt", stage.table(found) + "\n")
    write_text(out / "ablation.html", render_ablation(found))
    return found


class Bench:
    """The rows of a finished run, an engine, and what every variant is trained with."""

    def __init__(self, options: Options, run: Path, out: Path, show: Show) -> None:
        from askback.engines.open import open_engine

        self.engine = open_engine(options.engine)
        self.options = api.with_presets(options, self.engine)
        self.out, self.show = out, show
        self.rows: dict[str, int] = {}
        """How many rows each variant is trained on."""
        self.training, held = split(rows_of(run, "seed", Pair), held_out=options.seed.held_out)
        self.held = held[: options.seed.held_out_most]
        self.candidates: list[Pair] = rows_of(run, "gated", Pair)
        self.kept: dict[int, list[Pair]] = {n: rows_of(run, kept_name(run, n), Pair) for n in rounds_of(run)}
        most = len(self.training) + len(self.kept[max(self.kept)])
        self.tune = same_steps(self.options.forward, most, self.engine)

    def losses(self, variant: stage.Variant, number: int) -> stage.Losses:
        """Return the held-out losses of one training of a variant, from results/ where they are there already."""
        chance = self.options.random_seed + number
        rows = stage.rows_for(variant, self.training, self.candidates, self.kept, chance)
        self.rows[variant.name] = len(rows)
        layout = FORWARD_LAYOUT if variant.tags else replace(FORWARD_LAYOUT, name="untagged", system="none")
        made_of = {
            "rows": content_id(*(f"{row.kind} {row.instruction} {row.output}" for row in rows)),
            "held": content_id(*(row.id for row in self.held)),
            "tune": self.tune.model_dump(mode="json", exclude={"checkpoint_every_s"}) if rows else None,
            "layout": layout.dumps(),
            "engine": self.engine.describe(),
            "seed": chance,
        }
        name = f"{variant.name.replace(' + ', '-').replace(', ', '-').replace(' ', '-')}-{number}"
        file = self.out / "results" / f"{name}.json"
        if file.exists() and (known := read_json(file))["made_of"] == made_of:
            return dict(known["losses"])
        self.show.note(f"{name}: {len(rows)} rows, {self.tune.steps if rows else 0} steps")
        losses = self._measure(self._train(rows, layout, chance, self.out / "models" / name) if rows else None)
        write_json(file, {"made_of": made_of, "losses": losses})
        return losses

    def _train(self, rows: Sequence[Pair], layout: Layout, chance: int, folder: Path) -> Path:
        drop_folder(folder)
        fit_model(self.engine, rows, layout, self.tune, folder, seed=chance)
        return folder

    def _measure(self, model: Path | None) -> stage.Losses:
        found = prove_forward(self.engine, [model], self.held, self.options.evaluate, seed=self.options.random_seed)
        losses = {row["id"]: row["nll"] for row in found["forward"]["0"]["rows"] if row["nll"] is not None}
        if not losses:
            raise DataError(f"none of {len(self.held)} held-out pairs fits into the base: nothing to compare")
        return losses


def same_steps(options: TuneOptions, rows: int, engine: Engine) -> TuneOptions:
    """Return the options with the number of steps that so many rows take, whatever the size of a variant."""
    recipe = resolve(options, rows=rows, model_tokens=engine.max_tokens)
    steps = math.ceil(rows * recipe.epochs / recipe.batch)
    return options.model_copy(update={"steps": steps, "epochs": float(steps * recipe.batch)})
