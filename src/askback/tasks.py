"""What a step asks of an engine, one function or Task for each kind: tune, ask, judge, prove.

Takes: an opened Engine, records, options.  Gives: a model's folder, candidates, judgements, measures.
Never: knows whether a run, a command, a Python caller or a worker elsewhere asked.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from askback.calibration import Calibration
from askback.errors import ConfigError
from askback.options import AugmentOptions, CurateOptions, EngineOptions, EvaluateOptions, SignalName, TuneOptions
from askback.ports import (
    Ask,
    Engine,
    Example,
    Fit,
    FitReport,
    Generate,
    Likelihood,
    Reply,
    Sampling,
    Watch,
    Work,
    ignore,
)
from askback.prompts import (
    BACKWARD_LAYOUTS,
    FORWARD_LAYOUT,
    LAYOUT_FILE,
    RUBRICS,
    Layout,
    Rubric,
    build_prompted,
    build_rubric,
)
from askback.records import Judgement, Pair, Passage, Reject
from askback.stages import evaluate
from askback.stages.augment import augment
from askback.stages.duel import Rules, answer, duel
from askback.stages.examples import pick_examples
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
BASE_NOTE = "base.json"
"""Beside every model: the base it belongs to."""
SHOWN = 3
"""Examples in a prompt take one part in so many of what the base reads."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it is asked: in the words of its layout, with weights tuned to them, or the base as it is (None)."""

    layout: Layout
    weights: Path | None

    def generate(self, engine: Engine) -> Generate:
        """Return the call that writes texts, whose replies are read as the layout reads them."""
        ask = engine.generate(self.weights)

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            return map(self.layout.read, ask(asks, sampling))

        return call


def read_model(folder: Path, direction: Literal["backward", "forward"]) -> Model:
    """Return the model of a folder, to be asked in the words that were saved in it.

    Raises:
        ConfigError: the folder holds no layout, or one of the other direction.
    """
    return Model(read_layout(folder, direction), weights_of(folder))


def weights_of(model: Path | None) -> Path | None:
    """Return what an engine loads for a model's folder: the folder, or None where nothing in it was tuned."""
    file = model / LAYOUT_FILE if model else None
    if file is None or not file.exists():
        return model
    return model if json.loads(file.read_text(encoding="utf-8")).get("tuned", True) else None


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


def prompt_layout(pairs: Sequence[Pair], options: AugmentOptions, engine: Engine) -> tuple[Layout, list[Pair]]:
    """Return the backward layout that asks a base by prompt, and those of the training pairs that it shows."""
    shown = pick_examples(pairs, options.examples, engine.max_tokens // SHOWN, engine.count_tokens)
    return build_prompted(shown), shown


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
    """Tune the base on pairs; the model's folder appears whole, with its layout in it, or not at all.

    With a layout that is not tuned nothing is: `pairs` are what it shows, and the folder holds no weights.

    Raises:
        ConfigError: the layout is one to be tuned, and the engine does not tune.
    """
    if layout.tuned:
        check_tunes(engine)
    examples, ids = [layout.training_example(pair) for pair in pairs], [pair.id for pair in pairs]
    fit = engine.fit(options, seed=seed) if layout.tuned else _note_base(engine)

    def fill(folder: Path) -> FitReport:
        report = fit(examples, folder, watch)
        saved = layout.trained(report.recipe.get("max_tokens", 0))
        (folder / LAYOUT_FILE).write_text(saved.dumps(), encoding="utf-8")
        (folder / TRAINED_ON).write_text("".join(f"{id}\n" for id in sorted({*ids})), encoding="utf-8")
        return report

    return write_folder(out, fill)


def check_tunes(engine: Engine) -> None:
    """Refuse an engine that does not tune.

    Raises:
        ConfigError: it does not.
    """
    if not engine.tunes:
        raise ConfigError(
            f"engine.kind = {engine.describe()['kind']!r} does not tune: take engine.kind = 'local', or tune nothing "
            "and ask by prompt with `askback train backward --prompted`, or augment.prompted in a run"
        )


def _note_base(engine: Engine) -> Fit:
    """Return what stands in for tuning where a base is taken as it is: a note of which one, and no step."""

    def call(examples: Sequence[Example], out: Path, watch: Watch = ignore) -> FitReport:
        found = engine.describe()
        path = str(Path(found["base"]).resolve()) if Path(found["base"]).is_dir() else found["base"]
        note = {"base": found["base"], "path": path, "hash": found["hash"], "kind": found["kind"]}
        (out / BASE_NOTE).write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return FitReport(examples=len(examples), epochs=0, steps=0, tokens=0, label_tokens=0, losses=())

    return call


def trained_on(model: Path) -> set[str]:
    """Return the ids of the pairs a model was trained on; none where the model does not say."""
    file = model / TRAINED_ON
    return set(file.read_text(encoding="utf-8").split()) if file.exists() else set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The Task of hearing instructions in passages; `model` is a backward model or its folder."""

    model: Path | Model
    options: AugmentOptions
    seed: int

    def open(self, engine: Engine) -> Work:
        """Return what turns Passages into candidate Pairs and Rejects."""
        model = read_model(self.model, "backward") if isinstance(self.model, Path) else self.model
        ask = model.generate(engine)
        return partial(augment, ask=ask, layout=model.layout, options=self.options, seed=self.seed)

    def give_up(self, row: Passage, reason: str, detail: str) -> Iterator[Reject]:
        """Yield a Reject for each instruction that was wanted of the passage."""
        return (Reject(f"{row.id}#{number}", reason, detail, row.source) for number in range(self.options.n))


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

    def give_up(self, row: Pair, reason: str, detail: str) -> Iterator[Judgement]:
        """Yield the Judgement that every pair must have: without a score, the reason as its outcome."""
        yield Judgement(pair=row.id, round=self.round, judge=self.signal, score=None, outcome=reason, detail=detail)


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
    layout, weights = read_layout(forward, "forward") if forward else None, weights_of(forward)
    if name == "likelihood":
        likelihood = engine.likelihood(weights)
        return lambda pairs: judge_likelihood(pairs, likelihood, layout or FORWARD_LAYOUT, round=round)
    if name == "likeness":
        tuned, bare = engine.likelihood(weights), engine.likelihood(None)
        return lambda pairs: judge_likeness(pairs, tuned, bare, layout or FORWARD_LAYOUT, round=round)
    rubric = read_rubric(options)
    judge: Judge
    if name == "expected":
        judge = partial(judge_expected, choose=engine.choose(weights), rubric=rubric, round=round, layout=layout)
    else:
        ask = engine.generate(weights)
        judge = partial(judge_reasoned, ask=ask, rubric=rubric, options=options, round=round, seed=seed, layout=layout)
    if not options.instruction_gate:
        return judge
    refuse = partial(
        refuse_unfit,
        choose=engine.choose(weights),
        least=options.instruction_gate,
        judge=name,
        round=round,
        layout=layout,
    )
    return lambda pairs: judge_gated(pairs, refuse, judge)


def _open_backward(engine: Engine, model: Path | None, *, round: int) -> Judge:
    if model is None:
        raise ConfigError(
            "the signal `backward` (a part of `cycle`) asks a backward model and none is given: name its folder with "
            "--backward, one that `askback train backward` wrote, or leave the signal out of the table [curate]"
        )
    likelihood, layout = engine.likelihood(weights_of(model)), read_layout(model, "backward")
    return lambda pairs: judge_backward(pairs, likelihood, layout, round=round)


def check_signals(engine: Engine, options: CurateOptions) -> None:
    """Refuse what the engine cannot measure before anything is asked of it.

    Raises:
        ConfigError: a signal, or the instruction gate, needs what the engine does not give.
    """
    if options.instruction_gate and (why := _refusal(engine.choose)):
        raise ConfigError(f"curate.instruction_gate = {options.instruction_gate:g}: {why}; set it to 0")
    for name in options.signals:
        if why := _unmeasured(engine, name):
            others = [f'"{other}"' for other in ("expected", "reasoned") if not _unmeasured(engine, other)]
            places = [key for key in ("judge", "beside", "rerank", "least") if name in getattr(options, key)]
            raise ConfigError(
                f"[curate] asks for the signal `{name}` ({', '.join(places)}), which cannot be measured here: {why}; "
                f"set curate.judge = {' or '.join(others)} and leave `{name}` out of beside, rerank and least"
            )


def _unmeasured(engine: Engine, name: SignalName) -> str:
    """Return why an engine cannot measure a signal, "" where it can."""
    if name == "likeness" and not engine.tunes:
        return "it compares a tuned model with the bare base, and this engine tunes none"
    if name == "reasoned":
        return ""
    return _refusal(engine.choose if name == "expected" else engine.likelihood)


def _refusal(call: Callable[[None], object]) -> str:
    """Return why an engine refuses a call, "" where it does not."""
    try:
        call(None)
    except ConfigError as error:
        return str(error)
    return ""


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
    """Return the measures of a backward model and of the bare base, both floors, and paired tests against them.

    `base` is None where nothing was tuned: the model is the base.
    """
    asked = read_model(model, "backward")

    def measure(one: Model) -> dict[str, Any]:
        likelihood = likelihood_of(engine, one.weights)
        return evaluate.evaluate_backward(held, one.generate(engine), likelihood, one.layout, options, seed, encode)

    backward, base = measure(asked), measure(Model(asked.layout, None)) if asked.weights else None
    floors = evaluate.floors(held, options, seed, encode)
    tests = evaluate.compare_with_floors(backward, floors | ({"base": base} if base else {}))
    return {"backward": backward, "base": base, "floors": floors, "tests": tests}


def likelihood_of(engine: Engine, weights: Path | None) -> Likelihood | None:
    """Return the call that scores targets, or None where the engine gives no likelihoods."""
    return None if _refusal(engine.likelihood) else engine.likelihood(weights)


def prove_forward(
    engine: Engine, models: Sequence[Path | None], held: Sequence[Pair], options: EvaluateOptions, *, seed: int
) -> dict[str, Any]:
    """Return the held-out loss of forward models 0, 1, 2 (None is the bare base), and tests of each against the first.

    Each model is measured in the layout it was tuned in.
    """
    found = {
        str(number): evaluate.evaluate_forward(
            held, likelihood_of(engine, weights_of(model)), forward_layout(model), options, seed
        )
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
        answer(asked, engine.generate(weights_of(model)), forward_layout(model), options.answer_tokens, seed)
        for model in models
    ]
    layout = read_layout(judge, "forward") if judge else None
    rules = Rules(resamples=options.bootstrap, seed=seed, layout=layout)
    return duel(asked, answers[0], answers[1], engine.choose(weights_of(judge)), rules)


def forward_layout(model: Path | None) -> Layout:
    """Return the layout a forward model was tuned in, or the usual one for the bare base."""
    return read_layout(model, "forward") if model else FORWARD_LAYOUT


def open_encoder(options: EvaluateOptions, engine: EngineOptions) -> Any | None:
    """Return the sentence encoder that `evaluate.encoder` names, if it names one: callable, and it describes itself."""
    if not options.encoder:
        return None
    from askback.engines.encoder import Encoder

    return Encoder(options.encoder, engine)
