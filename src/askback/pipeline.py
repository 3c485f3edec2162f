"""The whole loop on one page: read `run` first.

Takes: Options, a run folder, an opened engine.  Gives: the finished folder.
Never: parses arguments, prints, or knows how a stage or an engine works.

Every step is done when its manifest is there; a step whose options, inputs or code changed is done again, and what
follows it too, since a step's fingerprint covers those of the steps it reads.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from askback.chance import normal, split
from askback.errors import DataError
from askback.finished import judged_names, rows_of, step_folder
from askback.options import Options, SignalName, TuneOptions
from askback.ports import Engine, Spread, spread_here
from askback.prompts import FORWARD_LAYOUT, UNTUNED_LAYOUT, Layout
from askback.readers.evalsets import read_evalsets
from askback.readers.rows import read_words
from askback.records import OK, Document, Judgement, Pair, Passage, Reject, content_id
from askback.stages.attacks import measure_shift, plant
from askback.stages.clean import clean
from askback.stages.curate import check_kept, check_parsed, combine, keep
from askback.stages.decontaminate import EvaluationSets, decontaminate
from askback.stages.distinct import distinct
from askback.stages.diversity import pick_diverse
from askback.stages.gates import gate
from askback.stages.rewrite import rewrite
from askback.stages.segment import segment, thin
from askback.stages.story import tell_story
from askback.steps import Show, Steps, code, input_hash
from askback.store import Manifest, Run, Step, write_json
from askback.tasks import (
    Asking,
    Judging,
    check_signals,
    fit_model,
    layout_for,
    open_encoder,
    open_signal,
    prompt_layout,
    prove_answers,
    prove_backward,
    prove_forward,
    read_calibration,
    read_layout,
    read_model,
)

ADAPTER = "adapter"
TRAINING = "training.json"
EVALUATION = "evaluation.json"

ASKING = tuple(
    f"engines.{name}" for name in ("local", "sampling", "tokens", "batches", "heads", "shared", "prefix", "echo")
)
TRAINING_CODE = tuple(
    f"engines.{name}" for name in ("lora", "trainer", "tokens", "batches", "presets", "heads", "echo")
)
CLEANING = ("stages.clean", "prose", "languages", "personal", "grams")
PROOF = ("evaluate", "story", "attacks", "duel", "judges")
"""The source files whose change makes a step be done again."""


def run(
    options: Options,
    held: Run,
    engine: Engine,
    show: Show,
    spread: Spread | None = None,
    make_steps: Callable[..., Steps] = Steps,
) -> None:
    """Do the main job in a run folder, or go on with it; `spread` works on shards, `make_steps` says who does steps.

    seed -> backward model -> passages -> candidates -> gates -> judged -> forward models 0, 1, 2 -> evaluation

    Where the engine does not tune, the steps are the same: a model is then the base as it is, and the round is one.
    """
    check_signals(engine, options.curate)
    steps = make_steps(held, show, spread or spread_here(engine), shard_rows=options.engine.shard_rows)
    job = Job(steps, options, engine)
    seed = job.read_seed()
    documents = job.read_corpus()
    passages = job.sift(job.cut(documents, seed))
    backward = job.tune_backward(seed)
    candidates = job.gate(job.ask(passages, backward), backward, seed)
    forwards = [job.tune_forward(0, seed, None)]
    rounds: list[Round] = []
    while len(rounds) < options.curate.rounds and not job.is_settled(rounds, forwards, seed):
        number = len(rounds) + 1
        judged = job.judge(number, candidates, forwards[-1], backward)
        kept = job.keep(number, candidates, judged)
        polished = job.rewrite(number, kept, forwards[-1]) if options.rewrite.on else kept
        rounds.append(Round(judged, kept, polished))
        forwards.append(job.tune_forward(number, seed, polished))
    if not steps.follows:
        job.evaluate(seed, backward, forwards, candidates, rounds[-1])
        steps.drop_others()


class Round(NamedTuple):
    """The steps of one round of curation."""

    judged: "dict[SignalName, Step[Judgement]]"
    kept: Step[Pair]
    polished: Step[Pair]
    """What the next model is tuned on: `kept`, or those pairs with their outputs rewritten."""


class Job:
    """The steps of one run. Each method is one step: what it depends on, and the stage that does it."""

    def __init__(self, steps: Steps, options: Options, engine: Engine) -> None:
        self.steps = steps
        self.show = steps.show
        self.options = options
        self.engine = engine

    # --- data in

    def read_seed(self) -> Step[Pair]:
        """Seed pairs, from whatever format they are in."""
        from askback.readers.seed import read_seed

        options = self.options.seed
        step = self.steps.step(
            "seed",
            Pair,
            options=options,
            input=input_hash(options.path),
            code=code("readers.seed", "readers.rows", "readers.listing"),
        )

        def work() -> dict[str, Any]:
            reading = read_seed(options)
            self.steps.write(step, reading.outcomes)
            return {"notes": {"format": reading.format, "explained": reading.explained}}

        self.steps.do(step, work, unit="pairs")
        self._show_seed(step)
        return step

    def read_corpus(self) -> Step[Document]:
        """Documents as Markdown."""
        from askback.readers.documents import read_documents

        options = self.options.corpus
        step = self.steps.step(
            "corpus",
            Document,
            options=options,
            input=input_hash(options.path),
            code=code("readers"),
        )
        return self.steps.do(step, lambda: self.steps.write(step, read_documents(options)), unit="documents")

    def cut(self, documents: Step[Document], seed: Step[Pair]) -> Step[Passage]:
        """Passages: the text under one heading, where it is fit to be an answer and is no held-out output."""
        options = self.options.passages
        held = {normal(pair.output) for pair in self.split(seed)[1]}
        step = self.steps.step(
            "passages",
            Passage,
            options=options,
            input=documents.fingerprint,
            held_out=content_id(*sorted(held)),
            block_words=input_hash(options.block_words),
            counted_by=self.engine.describe() if options.min_tokens or options.max_tokens else "",
            code=code("stages.segment", *CLEANING),
        )

        def work() -> dict[str, Any]:
            used: set[str] = set()
            cut = segment(documents.read(), options, self.engine.count_tokens)
            cleaned = clean(cut, options, read_words(options.block_words))
            self.steps.write(step, _note_documents(thin(_without(held, cleaned), options), used))
            total = documents.manifest.written if documents.manifest else 0
            return {"notes": {"documents": total, "documents_used": len(used), "documents_unused": total - len(used)}}

        self.steps.do(step, work, unit="passages")
        if step.manifest and not step.manifest.written:
            raise DataError(
                f"no passage is left of {step.manifest.read} sections ({_reasons(step.manifest)}); "
                "look at passages.min_chars and passages.max_chars"
            )
        return step

    def sift(self, passages: Step[Passage]) -> Step[Passage]:
        """The passages that repeat no other, no earlier run's, and nothing that models are evaluated on."""
        options = self.options.distinct
        step = self.steps.step(
            "distinct",
            Passage,
            options=options,
            input=passages.fingerprint,
            known=[input_hash(str(step_folder(Path(run), "distinct"))) for run in options.known],
            against=[input_hash(path) for path in options.against],
            code=code("stages.distinct", "stages.decontaminate", "readers.evalsets", "nearness", "grams"),
        )

        def work() -> None:
            known = chain.from_iterable(rows_of(Path(run), "distinct", Passage) for run in options.known)
            read = passages.read()
            clean = decontaminate(read, self.evaluation_sets()) if options.against else read
            self.steps.write(step, distinct(clean, options, known=known, scratch=step.folder))

        return self.steps.do(step, work, unit="passages")

    def evaluation_sets(self) -> EvaluationSets:
        """What passages and instructions must share nothing with."""
        return EvaluationSets(read_evalsets(self.options.distinct.against), self.options.distinct.ngram)

    # --- backward: output -> instruction

    def tune_backward(self, seed: Step[Pair]) -> Step[Pair]:
        """The backward model: tuned on the seed pairs turned round, or the base and a prompt that shows a few."""
        training, _ = self.split(seed)
        layout = layout_for("backward", self.options.backward)
        if self.options.augment.prompted or not self.engine.tunes:
            layout, training = prompt_layout(training, self.options.augment, self.engine)
            shown = f"{len(training)} of {self.options.augment.examples} examples"
            self.show.note(f"no backward model is tuned: the base is asked by prompt, with {shown}")
        step = self._model_step("backward", self.options.backward, layout, [seed])
        return self.steps.do(step, lambda: self._fit(step, training, self.options.backward, layout))

    def ask(self, passages: Step[Passage], backward: Step[Pair]) -> Step[Pair]:
        """Candidates: each passage with the instructions the backward model hears in it."""
        options = self.options.augment
        step = self.steps.step(
            "candidates",
            Pair,
            options=options,
            inputs=[passages.fingerprint, backward.fingerprint],
            shard_rows=self.options.engine.shard_rows,
            seed=self.options.random_seed,
            engine=self.engine.describe(),
            code=code("stages.augment", "prompts", "tasks", *ASKING),
        )
        task = Asking(model=backward.folder / ADAPTER, options=options, seed=self.options.random_seed)
        self.steps.map(step, passages, task)
        if step.manifest and not step.manifest.written:
            raise DataError(f"no candidate is left of {step.manifest.read} answers ({_reasons(step.manifest)})")
        return step

    # --- curation

    def gate(self, candidates: Step[Pair], backward: Step[Pair], seed: Step[Pair]) -> Step[Pair]:
        """The candidates, and those of earlier runs, that pass the cheap rules."""
        options, joined = self.options.gates, self.options.curate.join
        held = {normal(pair.output) for pair in self.split(seed)[1]}
        step = self.steps.step(
            "gated",
            Pair,
            options=options,
            inputs=[candidates.fingerprint, backward.fingerprint],
            join=[input_hash(str(step_folder(Path(run), "candidates"))) for run in joined],
            held_out=content_id(*sorted(held)),
            against=[input_hash(path) for path in self.options.distinct.against],
            code=code("stages.gates", "stages.decontaminate", "finished", "languages", "grams", "nearness"),
        )
        layout = read_layout(backward.folder / ADAPTER, "backward")

        def work() -> None:
            found = list(join_candidates(candidates.read(), [Path(run) for run in joined], held))
            pairs = [one for one in found if isinstance(one, Pair)]
            passed = gate(pairs, layout, options)
            if self.options.distinct.against:
                passed = _uncontaminated(passed, self.evaluation_sets())
            self.steps.write(step, [*passed, *(one for one in found if isinstance(one, Reject))])

        self.steps.do(step, work, unit="candidates")
        if step.manifest and not step.manifest.written:
            raise DataError(f"no candidate passes the gates ({_reasons(step.manifest)}); see the [gates] table")
        return step

    def judge(
        self, number: int, candidates: Step[Pair], forward: Step[Pair], backward: Step[Pair]
    ) -> dict[SignalName, Step[Judgement]]:
        """Every candidate judged, signal by signal, by the forward model of the round before (or the backward one)."""
        judged = {}
        for signal, name in judged_names(self.options.curate, number).items():
            judged[signal] = self.steps.known(name) or self._judge(
                name, signal, number, candidates, (forward, backward)
            )
        return judged

    def _judge(
        self, name: str, signal: SignalName, number: int, candidates: Step[Pair], models: tuple[Step[Pair], Step[Pair]]
    ) -> Step[Judgement]:
        forward, backward = models
        options = self.options.curate
        asks_rubric = {"rubric", "instruction_gate", "samples", "max_new_tokens"}
        step = self.steps.step(
            name,
            Judgement,
            options={
                "signal": signal,
                **options.model_dump(include=asks_rubric if signal in ("expected", "reasoned") else set()),
            },
            rubric=input_hash(options.rubric),
            inputs=[candidates.fingerprint, (backward if signal == "backward" else forward).fingerprint],
            shard_rows=self.options.engine.shard_rows,
            seed=self.options.random_seed,
            engine=self.engine.describe(),
            code=code("stages.judges", "prompts", "tasks", *ASKING),
        )
        task = Judging(
            signal=signal,
            forward=forward.folder / ADAPTER,
            backward=backward.folder / ADAPTER,
            options=options,
            round=number,
            seed=self.options.random_seed,
        )
        return self.steps.map(step, candidates, task)

    def keep(self, number: int, candidates: Step[Pair], judged: dict[SignalName, Step[Judgement]]) -> Step[Pair]:
        """The candidates that are good enough in this round."""
        options = self.options.curate
        step = self.steps.step(
            f"kept-{number}",
            Pair,
            options=options,
            calibration=input_hash(options.calibration),
            inputs=[step.fingerprint for step in judged.values()],
            code=code("stages.curate", "stages.diversity", "calibration", "metrics"),
        )

        def work() -> None:
            signals: dict[str, list[Judgement]] = {name: list(step.read()) for name, step in judged.items()}
            calibration = read_calibration(options)
            check_parsed(signals, options, calibration)
            outcomes = list(keep(candidates.read(), signals, options, calibration, pick=pick_diverse))
            check_kept(outcomes, combine(signals, options, calibration), options, calibration)
            self.steps.write(step, outcomes)

        return self.steps.do(step, work, unit="candidates")

    def rewrite(self, number: int, kept: Step[Pair], forward: Step[Pair]) -> Step[Pair]:
        """The kept pairs with their outputs polished; a text with new facts in it is not taken."""
        options = self.options.rewrite
        step = self.steps.step(
            f"rewritten-{number}",
            Pair,
            options=options,
            inputs=[kept.fingerprint, forward.fingerprint],
            seed=self.options.random_seed,
            engine=self.engine.describe(),
            code=code("stages.rewrite", "prompts", "metrics", *ASKING),
        )

        def work() -> dict[str, Any]:
            model, seed = read_model(forward.folder / ADAPTER, "forward"), self.options.random_seed
            ask = model.generate(self.engine)
            made = list(rewrite(list(kept.read()), ask, options, seed=seed, layout=model.layout))
            self.steps.write(step, (pair for pair, _ in made))
            reasons = Counter(verdict.reason for _, verdict in made if not verdict.keep)
            return {"notes": {"rewritten": len(made) - reasons.total(), "kept_original": dict(sorted(reasons.items()))}}

        return self.steps.do(step, work, unit="pairs")

    def is_settled(self, rounds: list[Round], forwards: list[Step[Pair]], seed: Step[Pair]) -> bool:
        """Whether another round would change little, by `curate.stop_overlap` or `curate.stop_gain`, or nothing."""
        options = self.options.curate
        if rounds and not self.engine.tunes:
            self.show.note("no further round: nothing is tuned, and so every round would judge alike")
            return True
        if options.stop_overlap and len(rounds) >= 2:
            before, now = ({pair.id for pair in one.kept.read()} for one in rounds[-2:])
            overlap = len(before & now) / max(1, len(before | now))
            if overlap >= options.stop_overlap:
                self.show.note(f"no further round: {overlap:.3f} of what the last two kept is the same")
                return True
        if options.stop_gain and rounds:
            before_loss, loss = (self._held_out_loss(number, forwards[number], seed) for number in _last_two(forwards))
            if abs(before_loss - loss) < options.stop_gain:
                self.show.note(f"no further round: held-out loss {before_loss:.4f} -> {loss:.4f} nats per token")
                return True
        return False

    def _held_out_loss(self, number: int, forward: Step[Pair], seed: Step[Pair]) -> float:
        held = self.split(seed)[1][: self.options.seed.held_out_most]
        name = f"loss-{number}"
        step = self.steps.known(name) or self.steps.step(
            name,
            Pair,
            options=self.options.evaluate.model_dump(include={"bootstrap"}),
            inputs=[seed.fingerprint, forward.fingerprint],
            held_out=[self.options.seed.held_out, self.options.seed.held_out_most],
            engine=self.engine.describe(),
            code=code("stages.evaluate", "tasks", *ASKING),
        )

        def work() -> dict[str, Any]:
            options, seed = self.options.evaluate, self.options.random_seed
            found = prove_forward(self.engine, [forward.folder / ADAPTER], held, options, seed=seed)
            score = found["forward"]["0"]["nll_per_token"]
            if score is None:
                raise DataError(
                    "curate.stop_gain: no held-out pair fits into the base; set it to 0, or use another base"
                )
            return {"counts": {"read": len(held), "written": len(held)}, "notes": {"nll_per_token": score["value"]}}

        done = self.steps.do(step, work).manifest
        return float(done.notes["nll_per_token"]) if done else math.nan

    # --- forward: instruction -> output

    def tune_forward(self, number: int, seed: Step[Pair], kept: Step[Pair] | None) -> Step[Pair]:
        """Forward model `number`: the base tuned on the seed pairs and, after round 0, on what was kept."""
        training, _ = self.split(seed)
        inputs = [seed] if kept is None else [seed, kept]
        layout = FORWARD_LAYOUT if self.engine.tunes else UNTUNED_LAYOUT
        step = self._model_step(f"forward-{number}", self.options.forward, layout, inputs)

        def work() -> dict[str, Any]:
            augmented = [] if kept is None else list(kept.read())
            pairs = [*training, *augmented] if layout.tuned else []
            return self._fit(step, pairs, self.options.forward, layout)

        return self.steps.do(step, work)

    # --- proof

    def evaluate(
        self,
        seed: Step[Pair],
        backward: Step[Pair],
        forwards: list[Step[Pair]],
        candidates: Step[Pair],
        last: Round,
    ) -> Step[Pair]:
        """The held-out pairs: backward model beside its floors and the bare base, forward models beside each other."""
        options, chance = self.options.evaluate, self.options.random_seed
        model = read_model(backward.folder / ADAPTER, "backward")
        before: list[Step[Any]] = [seed, backward, *last.judged.values(), last.kept, *forwards]
        everything = self.split(seed)[1]
        held, beyond = everything[: self.options.seed.held_out_most], everything[self.options.seed.held_out_most :]
        encode = open_encoder(options, self.options.engine)
        models = [one.folder / ADAPTER for one in (forwards if self.engine.tunes else forwards[:1])]
        step = self.steps.step(
            "evaluation",
            Pair,
            options=options,
            held_out=[self.options.seed.held_out, self.options.seed.held_out_most],
            inputs=[done.fingerprint for done in before],
            seed=chance,
            encoder=encode.describe() if encode else "",
            code=code(*(f"stages.{name}" for name in PROOF), "metrics", "prompts", "tasks", *ASKING),
        )

        def work() -> dict[str, Any]:
            result = {
                **prove_backward(self.engine, backward.folder / ADAPTER, held, options, seed=chance, encode=encode),
                **prove_forward(self.engine, models, held, options, seed=chance),
                "story": tell_story(
                    candidates.read(),
                    self._verdicts(last),
                    self.engine.generate(None) if model.weights else None,
                    model.layout,
                    options,
                ),
                "attacks": self._attack(candidates, forwards[-2], backward),
                "duel": self._duel(models, held) if options.answers and len(models) > 1 else None,
            }
            write_json(step.folder / EVALUATION, result)
            step.reject(Reject(pair.id, "held_out_most", "held out, but not evaluated", pair.source) for pair in beyond)
            counts = {"read": len(everything), "written": len(held)}
            counts |= {"reason:held_out_most": len(beyond)} if beyond else {}
            return {"counts": counts, "files": [step.folder / EVALUATION]}

        return self.steps.do(step, work)

    def _attack(self, candidates: Step[Pair], forward: Step[Pair], backward: Step[Pair]) -> dict[str, Any]:
        """Return, for each signal that reads a rubric, how far a score planted in the output moves it."""
        curate, chance = self.options.curate, self.options.random_seed
        attacks = plant(list(candidates.read()), self.options.evaluate.attacks, chance)
        models = forward.folder / ADAPTER, backward.folder / ADAPTER
        return {
            name: measure_shift(attacks, open_signal(self.engine, name, *models, curate, round=1, seed=chance))
            for name in curate.signals
            if name in ("expected", "reasoned") and attacks
        }

    def _duel(self, models: list[Path], held: list[Pair]) -> dict[str, Any]:
        """Return how often the last forward model's answers are preferred to the first one's, by the last one."""
        options, chance = self.options.evaluate, self.options.random_seed
        return prove_answers(self.engine, (models[-1], models[0]), models[-1], held, options, seed=chance)

    def _verdicts(self, last: Round) -> dict[str, tuple[float | None, str]]:
        options = self.options.curate
        signals: dict[str, list[Judgement]] = {name: list(step.read()) for name, step in last.judged.items()}
        scores = combine(signals, options, read_calibration(options))
        verdicts: dict[str, tuple[float | None, str]] = {p.id: (scores.get(p.id), "kept") for p in last.kept.read()}
        for reject in last.kept.rejects():
            verdicts[reject["id"]] = (scores.get(reject["id"]), reject["reason"])
        return verdicts

    # --- how a step is done

    def split(self, seed: Step[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Return training and held-out seed pairs; more may be held out than are evaluated.

        Raises:
            DataError: one of the sides is empty.
        """
        options = self.options.seed
        training, held = split(seed.read(), held_out=options.held_out)
        if not training or len(held) < 2:
            raise DataError(
                f"{len(training)} seed pairs to train on and {len(held)} held out are too few; "
                "give more pairs, or change seed.held_out"
            )
        return training, held

    def _model_step(self, name: str, options: TuneOptions, layout: Layout, inputs: list[Step[Pair]]) -> Step[Pair]:
        plain = options.model_dump(mode="json", exclude={"checkpoint_every_s"})
        return self.steps.step(
            name,
            Pair,
            options=plain if layout.tuned else {},
            layout=layout.dumps(),
            inputs=[step.fingerprint for step in inputs],
            held_out=self.options.seed.held_out,
            engine=self.engine.describe(),
            seed=self.options.random_seed,
            code=code("tasks", "prompts", "stages.examples", *TRAINING_CODE),
        )

    def _fit(self, step: Step[Pair], pairs: list[Pair], options: TuneOptions, layout: Layout) -> dict[str, Any]:
        """Tune on the pairs (or show them, as the layout has it); the model's folder appears whole, with its layout."""
        seed, watch = self.options.random_seed, self._watch_steps(step)
        report = fit_model(self.engine, pairs, layout, options, step.folder / ADAPTER, seed=seed, watch=watch)
        write_json(step.folder / TRAINING, report.as_dict())
        reasons = step.reject(Reject(id, *why.split(": ", 1)) for id, why in report.rejected)
        counts = {"read": len(pairs), "written": report.examples, **{f"reason:{k}": n for k, n in reasons.items()}}
        files = [step.folder / TRAINING, *sorted((step.folder / ADAPTER).iterdir())]
        return {"counts": counts, "files": files, "notes": {"rows_cut": report.cut}}

    def _watch_steps(self, step: Step[Pair]) -> Callable[[int, int], None]:
        """Return what shows the steps of a training run; a resumed one begins where it was."""
        shown = 0

        def watch(done: int, total: int) -> None:
            nonlocal shown
            if not shown:
                self.show.begin(step.folder.name, total, "steps")
            self.show.advance(done - shown)
            shown = done

        return watch

    def _show_seed(self, step: Step[Pair]) -> None:
        if not step.manifest or not step.manifest.written:
            return
        self.show.note(f"seed read as {step.manifest.notes['format']}: {step.manifest.notes['explained']}")
        for pair, _ in zip(step.read(), range(2), strict=False):
            self.show.note(f"  instruction: {_line(pair.instruction)}\n  output:      {_line(pair.output)}")


def _without(held: set[str], outcomes: Iterable[Passage | Reject]) -> Iterator[Passage | Reject]:
    """Reject passages that are the output of a held-out pair: they would be judged and trained on."""
    for outcome in outcomes:
        if isinstance(outcome, Passage) and normal(outcome.text) in held:
            yield Reject(outcome.id, "held_out_text", outcome.heading, outcome.source)
        else:
            yield outcome


def _note_documents(outcomes: Iterable[Passage | Reject], used: set[str]) -> Iterator[Passage | Reject]:
    for outcome in outcomes:
        if isinstance(outcome, Passage):
            used.add(outcome.document)
        yield outcome


def join_candidates(own: Iterable[Pair], runs: Iterable[Path], held: set[str]) -> Iterator[Pair | Reject]:
    """Yield this run's candidates and those of earlier runs: each pair once, and none of a held-out output."""
    seen: set[tuple[str, str]] = set()
    for pair in own:
        seen.add((normal(pair.output), normal(pair.instruction)))
        yield pair
    for run in runs:
        for pair in rows_of(run, "candidates", Pair):
            key = normal(pair.output), normal(pair.instruction)
            joined = replace(pair, id=content_id(str(run), pair.id), source=pair.source)
            if key in seen:
                yield Reject(joined.id, "same_candidate", f"from {run}", pair.source)
            elif key[0] in held:
                yield Reject(joined.id, "held_out_text", f"from {run}", pair.source)
            else:
                seen.add(key)
                yield joined


def _uncontaminated(outcomes: Iterable[Pair | Reject], sets: EvaluationSets) -> Iterator[Pair | Reject]:
    """Reject pairs whose instruction or output models are evaluated on: a joined one was never sifted here."""
    for outcome in outcomes:
        texts = (outcome.instruction, outcome.output) if isinstance(outcome, Pair) else ()
        failed = next((verdict for text in texts if not (verdict := sets.check_text(text)).keep), OK)
        yield outcome if failed.keep else Reject(outcome.id, failed.reason, failed.detail, outcome.source)


def _last_two(forwards: Sequence[object]) -> tuple[int, int]:
    return len(forwards) - 2, len(forwards) - 1


def _reasons(manifest: Manifest) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(manifest.reasons).most_common())


def _line(text: str, size: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= size else f"{line[: size - 1]}…"
