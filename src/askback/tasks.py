"""What a step asks of an engine, one function for each kind: tune, judge, prove.

Takes: an opened Engine, records, options.  Gives: a model's folder, judgements, measures.
Never: knows whether a run, a command or a Python caller asked.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from askback.errors import ConfigError
from askback.options import CurateOptions, EvaluateOptions, TuneOptions
from askback.ports import Engine, FitReport, Watch, ignore
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT, LAYOUT_FILE, Layout, Rubric, build_rubric
from askback.records import Judgement, Pair
from askback.stages import evaluate
from askback.stages.curate import judge_expected, judge_likelihood, judge_reasoned
from askback.store import write_folder

TRAINED_ON = "trained_on.txt"
"""Beside every model: the ids of the pairs it was given, so that no later measure uses one of them."""
Judge = Callable[[list[Pair]], Iterable[Judgement]]


def layout_for(direction: str, options: TuneOptions) -> Layout:
    """Return the layout a new model of this direction is trained with."""
    return FORWARD_LAYOUT if direction == "forward" else BACKWARD_LAYOUTS[getattr(options, "layout", "asked")]


def read_layout(model: Path, direction: Literal["backward", "forward"]) -> Layout:
    """Return the layout saved beside a model, which whatever uses the model must use.

    Raises:
        ConfigError: the folder holds none, or one of the other direction.
    """
    file = model / LAYOUT_FILE
    if not file.exists():
        raise ConfigError(
            f"{model}: no {LAYOUT_FILE} here; want a folder that askback trained, such as models/{direction}"
        )
    return Layout.loads(file.read_text(encoding="utf-8"), direction=direction, where=str(model))


def fit_model(
    engine: Engine,
    pairs: Sequence[Pair],
    layout: Layout,
    options: TuneOptions,
    out: Path,
    *,
    seed: int,
    watch: Watch = ignore,
) -> FitReport:
    """Tune the base on pairs; the model's folder appears whole, with its layout in it, or not at all."""
    examples, ids = [layout.training_example(pair) for pair in pairs], [pair.id for pair in pairs]
    fit = engine.fit(options, seed=seed)

    def fill(folder: Path) -> FitReport:
        report = fit(examples, folder, watch)
        saved = layout.trained(report.recipe.get("max_tokens", 0))
        (folder / LAYOUT_FILE).write_text(saved.dumps(), encoding="utf-8")
        (folder / TRAINED_ON).write_text("".join(f"{id}\n" for id in sorted({*ids})), encoding="utf-8")
        return report

    return write_folder(out, fill)


def trained_on(model: Path) -> set[str]:
    """Return the ids of the pairs a model was trained on; none where the model does not say."""
    file = model / TRAINED_ON
    return set(file.read_text(encoding="utf-8").split()) if file.exists() else set()


def open_judge(engine: Engine, model: Path | None, options: CurateOptions, *, round: int, seed: int) -> Judge:
    """Return the judge that the options name, with `model` (or the bare base) as its model."""
    layout = read_layout(model, "forward") if model else None
    if options.judge == "likelihood":
        likelihood = engine.likelihood(model)
        return lambda pairs: judge_likelihood(pairs, likelihood, layout or FORWARD_LAYOUT, round=round)
    rubric = read_rubric(options)
    if options.judge == "expected":
        choose = engine.choose(model)
        return lambda pairs: judge_expected(pairs, choose, rubric, round=round, layout=layout)
    ask = engine.generate(model)
    return lambda pairs: judge_reasoned(pairs, ask, rubric, options, round=round, seed=seed, layout=layout)


def read_rubric(options: CurateOptions) -> Rubric:
    """Return the user's rubric, or the built-in one.

    Raises:
        ConfigError: the file cannot be read, or lacks what is filled in.
    """
    if not options.rubric:
        return build_rubric()
    path = Path(options.rubric)
    try:
        return build_rubric(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"curate.rubric {path}: cannot be read: {error}") from error


def prove_backward(
    engine: Engine, model: Path, held: Sequence[Pair], options: EvaluateOptions, *, seed: int
) -> dict[str, Any]:
    """Return the measures of a backward model and of the bare base, both floors, and paired tests against them."""
    layout = read_layout(model, "backward")
    found: dict[str, Any] = {}
    for name, one in (("backward", model), ("base", None)):
        ask, likelihood = engine.generate(one), engine.likelihood(one)
        found[name] = evaluate.evaluate_backward(held, ask, likelihood, layout, options, seed)
    floors = evaluate.floors(held, options, seed)
    tests = evaluate.compare_with_floors(found["backward"], {**floors, "base": found["base"]})
    return {**found, "floors": floors, "tests": tests}


def prove_forward(
    engine: Engine, models: Sequence[Path], held: Sequence[Pair], options: EvaluateOptions, *, seed: int
) -> dict[str, Any]:
    """Return the held-out loss of forward models 0, 1, 2 and paired tests of each against model 0."""
    found = {
        str(number): evaluate.evaluate_forward(
            held, engine.likelihood(model), read_layout(model, "forward"), options, seed
        )
        for number, model in enumerate(models)
    }
    tests = {f"{name}-0": evaluate.compare_rows(one, found["0"]) for name, one in found.items() if name != "0"}
    return {"forward": found, "forward_tests": tests}
