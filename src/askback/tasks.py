"""What a step asks of an engine, one function or Task for each kind: tune, ask, judge, prove.

Takes: an opened Engine, records, options.  Gives: a model's folder, candidates, judgements, measures.
Never: knows whether a run, a command, a Python caller or a worker elsewhere asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from askback.calibration import Calibration
from askback.errors import ConfigError
from askback.options import AugmentOptions, CurateOptions, EngineOptions, EvaluateOptions, SignalName, TuneOptions
from askback.ports import Engine, FitReport, Watch, Work, ignore
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT, LAYOUT_FILE, RUBRICS, Layout, Rubric, build_rubric
from askback.records import Judgement, Pair
from askback.stages import evaluate
from askback.stages.augment import augment
from askback.stages.duel import Rules, answer, duel
from askback.stages.judges import (
    Judge,
    judge_backward,
    judge_expected,
    judge_gated,
    judge_likelihood,
    judge_likeness,
    judge_reasoned,
    refuse_unfit,
)
from askback.store import write_folder

TRAINED_ON = "trained_on.txt"
"""Beside every model: the ids of the pairs it was given, so that no later measure uses one of them."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The Task of hearing instructions in passages."""

    model: Path
    options: AugmentOptions
    seed: int

    def open(self, engine: Engine) -> Work:
        """Return what turns Passages into candidate Pairs and Rejects."""
        layout = read_layout(self.model, "backward")
        ask = engine.generate(self.model)
        return partial(augment, ask=ask, layout=layout, options=self.options, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """The Task of measuring one signal of candidates."""

    signal: SignalName
    forward: Path | None
    backward: Path | None
    options: CurateOptions
    round: int
    seed: int

    def open(self, engine: Engine) -> Work:
        """Return what turns candidate Pairs into Judgements."""
        return open_signal(
            engine, self.signal, self.forward, self.backward, self.options, round=self.round, seed=self.seed
        )


def open_signal(
    engine: Engine,
    name: SignalName,
    forward: Path | None,
    backward: Path | None,
    options: CurateOptions,
    *,
    round: int,
    seed: int,
) -> Judge:
    """Return what measures a signal, with the forward model (or the bare base) or the backward model.

    Raises:
        ConfigError: the signal needs a backward model and there is none, or the rubric cannot be used.
    """
    if name == "backward":
        return _open_backward(engine, backward, round=round)
    layout = read_layout(forward, "forward") if forward else None
    if name == "likelihood":
        likelihood = engine.likelihood(forward)
        return lambda pairs: judge_likelihood(pairs, likelihood, layout or FORWARD_LAYOUT, round=round)
    if name == "likeness":
        tuned, bare = engine.likelihood(forward), engine.likelihood(None)
        return lambda pairs: judge_likeness(pairs, tuned, bare, layout or FORWARD_LAYOUT, round=round)
    rubric = read_rubric(options)
    choose, ask = engine.choose(forward), engine.generate(forward)

    def judge(pairs: Sequence[Pair]) -> Iterator[Judgement]:
        if name == "expected":
            return judge_expected(pairs, choose, rubric, round=round, layout=layout)
        return judge_reasoned(pairs, ask, rubric, options, round=round, seed=seed, layout=layout)

    def refuse(pairs: Sequence[Pair]) -> Iterator[Judgement | None]:
        return refuse_unfit(pairs, choose, options.instruction_gate, judge=name, round=round, layout=layout)

    return (lambda pairs: judge_gated(pairs, refuse, judge)) if options.instruction_gate else judge


def _open_backward(engine: Engine, model: Path | None, *, round: int) -> Judge:
    if model is None:
        raise ConfigError(
            "the signal `backward` (a part of `cycle`) asks a backward model and none is given: name its folder with "
            "--backward, one that `askback train backward` wrote, or leave the signal out of the table [curate]"
        )
    likelihood, layout = engine.likelihood(model), read_layout(model, "backward")
    return lambda pairs: judge_backward(pairs, likelihood, layout, round=round)


def read_rubric(options: CurateOptions) -> Rubric:
    """Return the rubric that `curate.rubric` names: a built-in one, or the user's file, whose grades are 1 to 5.

    Raises:
        ConfigError: the file cannot be read, or lacks what is filled in.
    """
    if options.rubric in RUBRICS:
        return RUBRICS[options.rubric]
    where = f"curate.rubric = {options.rubric!r}"
    try:
        text = Path(options.rubric).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = " or ".join(f"`{name}`" for name in RUBRICS)
        raise ConfigError(f"{where}: neither {names} nor a file that can be read: {error}") from error
    return build_rubric(text, where)


def read_calibration(options: CurateOptions) -> Calibration | None:
    """Return the calibration that `curate.calibration` names, or None where it names none.

    Raises:
        ConfigError: the file cannot be read or used, or needs a signal that is not measured.
    """
    if not options.calibration:
        return None
    where = f"curate.calibration = {options.calibration!r}"
    try:
        text = Path(options.calibration).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read: {error}; `askback calibrate` writes such a file") from error
    made = Calibration.loads(text, where)
    if missing := [name for name in made.signals if name not in options.signals]:
        raise ConfigError(
            f"{where}: it was fitted on {', '.join(made.signals)}, and {', '.join(missing)} would not be measured: "
            f"name every one of them in curate.judge or curate.beside"
        )
    return made


def prove_backward(
    engine: Engine,
    model: Path,
    held: Sequence[Pair],
    options: EvaluateOptions,
    *,
    seed: int,
    encode: evaluate.Encode | None = None,
) -> dict[str, Any]:
    """Return the measures of a backward model and of the bare base, both floors, and paired tests against them."""
    layout = read_layout(model, "backward")
    found: dict[str, Any] = {}
    for name, one in (("backward", model), ("base", None)):
        ask, likelihood = engine.generate(one), engine.likelihood(one)
        found[name] = evaluate.evaluate_backward(held, ask, likelihood, layout, options, seed, encode)
    floors = evaluate.floors(held, options, seed, encode)
    tests = evaluate.compare_with_floors(found["backward"], {**floors, "base": found["base"]})
    return {**found, "floors": floors, "tests": tests}


def prove_forward(
    engine: Engine, models: Sequence[Path | None], held: Sequence[Pair], options: EvaluateOptions, *, seed: int
) -> dict[str, Any]:
    """Return the held-out loss of forward models 0, 1, 2 (None is the bare base), and tests of each against the first.

    Each model is measured in the layout it was tuned in.
    """
    found = {
        str(number): evaluate.evaluate_forward(held, engine.likelihood(model), forward_layout(model), options, seed)
        for number, model in enumerate(models)
    }
    tests = {f"{name}-0": evaluate.compare_rows(one, found["0"]) for name, one in found.items() if name != "0"}
    return {"forward": found, "forward_tests": tests}


def prove_answers(
    engine: Engine,
    models: tuple[Path, Path],
    judge: Path | None,
    held: Sequence[Pair],
    options: EvaluateOptions,
    *,
    seed: int,
) -> dict[str, Any]:
    """Let two forward models answer the same held-out instructions and a third say which answer is better."""
    asked = held[: options.answers]
    answers = [
        answer(asked, engine.generate(model), forward_layout(model), options.answer_tokens, seed) for model in models
    ]
    layout = read_layout(judge, "forward") if judge else None
    rules = Rules(resamples=options.bootstrap, seed=seed, layout=layout)
    return duel(asked, answers[0], answers[1], engine.choose(judge), rules)


def forward_layout(model: Path | None) -> Layout:
    """Return the layout a forward model was tuned in, or the usual one for the bare base."""
    return read_layout(model, "forward") if model else FORWARD_LAYOUT


def open_encoder(options: EvaluateOptions, engine: EngineOptions) -> Any | None:
    """Return the sentence encoder that `evaluate.encoder` names, if it names one: callable, and it describes itself."""
    if not options.encoder:
        return None
    from askback.engines.encoder import Encoder

    return Encoder(options.encoder, engine)
