"""The whole loop on one page: read `run` first.

Takes: Options, a run folder, an opened engine.  Gives: the finished folder.
Never: parses arguments, prints, or knows how a stage or an engine works.

Every step is done when its manifest is there; a step whose options, inputs or code changed is done again, and what
follows it too, since a step's fingerprint covers those of the steps it reads.
"""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, Protocol

from askback.chance import normal, split
from askback.errors import DataError
from askback.options import Options, TuneOptions
from askback.ports import Engine
from askback.prompts import FORWARD_LAYOUT, Layout
from askback.records import Document, Judgement, Pair, Passage, Reject, content_id
from askback.stages.augment import augment
from askback.stages.clean import clean
from askback.stages.curate import (
    check_kept,
    check_parsed,
    keep,
    to_scores,
)
from askback.stages.segment import segment
from askback.stages.story import tell_story
from askback.store import (
    STARTED,
    Manifest,
    Run,
    Step,
    drop_folder,
    file_hash,
    map_step,
    write_json,
    write_step,
)
from askback.tasks import fit_model, layout_for, open_judge, prove_backward, prove_forward, read_layout

ADAPTER = "adapter"
TRAINING = "training.json"
EVALUATION = "evaluation.json"

ASKING = tuple(f"engines.{name}" for name in ("local", "sampling", "tokens", "batches", "heads", "shared", "echo"))
TRAINING_CODE = tuple(
    f"engines.{name}" for name in ("lora", "trainer", "tokens", "batches", "presets", "heads", "echo")
)
"""The source files whose change makes a step be done again."""


class Show(Protocol):
    """Whoever watches: told what begins, moves and ends; answers nothing."""

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins; `total` 0 is unknown."""

    def advance(self, count: int) -> None:
        """So many rows more are done."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done, now or in an earlier run."""

    def note(self, text: str) -> None:
        """Something to know."""


class Silent:
    """Watches and says nothing."""

    def begin(self, step: str, total: int, unit: str) -> None:
        """A step begins."""

    def advance(self, count: int) -> None:
        """Rows are done."""

    def end(self, manifest: Manifest, *, reused: bool) -> None:
        """A step is done."""

    def note(self, text: str) -> None:
        """Something to know."""


def run(options: Options, held: Run, engine: Engine, show: Show) -> None:
    """Do the main job in a run folder that this process holds, or go on with it.

    seed -> backward model -> passages -> candidates -> judged -> forward models 0, 1, 2 -> evaluation
    """
    job = Job(held, options, engine, show)
    seed = job.read_seed()
    documents = job.read_corpus()
    passages = job.cut(documents, seed)
    backward = job.tune_backward(seed)
    candidates = job.ask(passages, backward)
    forwards = [job.tune_forward(0, seed, None)]
    for number in range(1, options.curate.rounds + 1):
        judged = job.judge(number, candidates, forwards[-1])
        kept = job.keep(number, candidates, judged)
        forwards.append(job.tune_forward(number, seed, kept))
    job.evaluate(seed, backward, forwards, candidates, judged, kept)
    job.drop_others()


class Job:
    """The steps of one run. Each method is one step: what it depends on, and the stage that does it."""

    def __init__(self, held: Run, options: Options, engine: Engine, show: Show) -> None:
        self.held = held
        self.options = options
        self.engine = engine
        self.show = show
        self.steps: list[Step[Any]] = []

    # --- data in

    def read_seed(self) -> Step[Pair]:
        """Seed pairs, from whatever format they are in."""
        from askback.readers.seed import read_seed

        options = self.options.seed
        step = self._step(
            "seed", Pair, options=options, input=input_hash(options.path), code=code("readers.seed", "readers.rows")
        )

        def work() -> dict[str, Any]:
            reading = read_seed(options)
            self._write(step, reading.outcomes)
            return {"notes": {"format": reading.format, "explained": reading.explained}}

        self._do(step, work, unit="pairs")
        self._show_seed(step)
        return step

    def read_corpus(self) -> Step[Document]:
        """Documents as Markdown."""
        from askback.readers.documents import read_documents

        options = self.options.corpus
        step = self._step(
            "corpus",
            Document,
            options=options,
            input=input_hash(options.path),
            code=code("readers.documents", "readers.rows"),
        )
        return self._do(step, lambda: self._write(step, read_documents(options)), unit="documents")

    def cut(self, documents: Step[Document], seed: Step[Pair]) -> Step[Passage]:
        """Passages: the text under one heading, where it is fit to be an answer and is no held-out output."""
        options = self.options.passages
        held = {normal(pair.output) for pair in self.split(seed)[1]}
        step = self._step(
            "passages",
            Passage,
            options=options,
            input=documents.fingerprint,
            held_out=content_id(*sorted(held)),
            code=code("stages.segment", "stages.clean"),
        )

        def work() -> dict[str, Any]:
            used: set[str] = set()
            cleaned = clean(segment(documents.read(), options), options)
            self._write(step, _note_documents(_without(held, cleaned), used))
            total = documents.manifest.written if documents.manifest else 0
            return {"notes": {"documents": total, "documents_used": len(used), "documents_unused": total - len(used)}}

        self._do(step, work, unit="passages")
        if step.manifest and not step.manifest.written:
            raise DataError(
                f"no passage is left of {step.manifest.read} sections ({_reasons(step.manifest)}); "
                "look at passages.min_chars and passages.max_chars"
            )
        return step

    # --- backward: output -> instruction

    def tune_backward(self, seed: Step[Pair]) -> Step[Pair]:
        """The backward model, tuned on the seed pairs turned round."""
        training, _ = self.split(seed)
        layout = layout_for("backward", self.options.backward)
        step = self._model_step("backward", self.options.backward, layout, [seed])
        return self._do(step, lambda: self._fit(step, training, self.options.backward, layout))

    def ask(self, passages: Step[Passage], backward: Step[Pair]) -> Step[Pair]:
        """Candidates: each passage with the instructions the backward model hears in it."""
        options = self.options.augment
        step = self._step(
            "candidates",
            Pair,
            options=options,
            inputs=[passages.fingerprint, backward.fingerprint],
            shard_rows=self.options.engine.shard_rows,
            seed=self.options.random_seed,
            engine=self.engine.describe(),
            code=code("stages.augment", "prompts", *ASKING),
        )
        ask = self.engine.generate(backward.folder / ADAPTER)
        work = partial(
            augment,
            ask=ask,
            layout=read_layout(backward.folder / ADAPTER, "backward"),
            options=options,
            seed=self.options.random_seed,
        )
        self._map(step, passages, work)
        if step.manifest and not step.manifest.written:
            raise DataError(f"no candidate is left of {step.manifest.read} answers ({_reasons(step.manifest)})")
        return step

    # --- curation

    def judge(self, number: int, candidates: Step[Pair], forward: Step[Pair]) -> Step[Judgement]:
        """Every candidate judged by the forward model of the round before."""
        options = self.options.curate
        asked = options.model_dump(include={"judge", "rubric", "max_new_tokens"})
        step = self._step(
            f"judged-{number}",
            Judgement,
            options=asked,
            rubric=input_hash(options.rubric),
            inputs=[candidates.fingerprint, forward.fingerprint],
            shard_rows=self.options.engine.shard_rows,
            seed=self.options.random_seed,
            engine=self.engine.describe(),
            code=code("stages.curate", "prompts", "tasks", *ASKING),
        )
        judge = open_judge(self.engine, forward.folder / ADAPTER, options, round=number, seed=self.options.random_seed)
        self._map(step, candidates, judge)
        return step

    def keep(self, number: int, candidates: Step[Pair], judged: Step[Judgement]) -> Step[Pair]:
        """The candidates that are good enough in this round."""
        options = self.options.curate
        step = self._step(
            f"kept-{number}", Pair, options=options, inputs=[judged.fingerprint], code=code("stages.curate")
        )

        def work() -> None:
            judgements = list(judged.read())
            check_parsed(judgements, options)
            outcomes = list(keep(candidates.read(), judgements, options))
            check_kept(sum(isinstance(outcome, Pair) for outcome in outcomes), judgements, options)
            self._write(step, outcomes)

        return self._do(step, work, unit="candidates")

    # --- forward: instruction -> output

    def tune_forward(self, number: int, seed: Step[Pair], kept: Step[Pair] | None) -> Step[Pair]:
        """Forward model `number`: the base tuned on the seed pairs and, after round 0, on what was kept."""
        training, _ = self.split(seed)
        inputs = [seed] if kept is None else [seed, kept]
        step = self._model_step(f"forward-{number}", self.options.forward, FORWARD_LAYOUT, inputs)

        def work() -> dict[str, Any]:
            augmented = [] if kept is None else list(kept.read())
            return self._fit(step, [*training, *augmented], self.options.forward, FORWARD_LAYOUT)

        return self._do(step, work)

    # --- proof

    def evaluate(
        self,
        seed: Step[Pair],
        backward: Step[Pair],
        forwards: list[Step[Pair]],
        candidates: Step[Pair],
        judged: Step[Judgement],
        kept: Step[Pair],
    ) -> Step[Pair]:
        """The held-out pairs: backward model beside its floors and the bare base, forward models beside each other."""
        options, chance = self.options.evaluate, self.options.random_seed
        layout = read_layout(backward.folder / ADAPTER, "backward")
        before: list[Step[Any]] = [seed, backward, judged, kept, *forwards]
        everything = self.split(seed)[1]
        held, beyond = everything[: self.options.seed.held_out_most], everything[self.options.seed.held_out_most :]
        step = self._step(
            "evaluation",
            Pair,
            options=options,
            held_out=[self.options.seed.held_out, self.options.seed.held_out_most],
            inputs=[done.fingerprint for done in before],
            seed=chance,
            code=code("stages.evaluate", "stages.story", "metrics", "prompts", "tasks", *ASKING),
        )

        def work() -> dict[str, Any]:
            result = {
                **prove_backward(self.engine, backward.folder / ADAPTER, held, options, seed=chance),
                **prove_forward(self.engine, [one.folder / ADAPTER for one in forwards], held, options, seed=chance),
                "story": tell_story(
                    candidates.read(), _verdicts(judged, kept), self.engine.generate(None), layout, options
                ),
            }
            write_json(step.folder / EVALUATION, result)
            step.reject(Reject(pair.id, "held_out_most", "held out, but not evaluated", pair.source) for pair in beyond)
            counts = {"read": len(everything), "written": len(held)}
            counts |= {"reason:held_out_most": len(beyond)} if beyond else {}
            return {"counts": counts, "files": [step.folder / EVALUATION]}

        return self._do(step, work)

    def drop_others(self) -> None:
        """Remove what an earlier run here did under other numbers, such as a round that is no longer asked for."""
        ours = {step.folder.name for step in self.steps}
        for started in sorted(self.held.folder.glob(f"[0-9][0-9]-*/{STARTED}")):
            if started.parent.name not in ours:
                self.show.note(f"{started.parent.name} is removed: with these options there is no such step")
                drop_folder(started.parent)

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

    def _step(self, name: str, record: type[Any], *, options: Any, **depends: Any) -> Step[Any]:
        plain = options if isinstance(options, dict) else options.model_dump(mode="json")
        step = self.held.step(f"{len(self.steps) + 1:02d}-{name}", record, {"options": plain, **depends})
        self.steps.append(step)
        return step

    def _model_step(self, name: str, options: TuneOptions, layout: Layout, inputs: list[Step[Pair]]) -> Step[Pair]:
        plain = options.model_dump(mode="json", exclude={"checkpoint_every_s"})
        return self._step(
            name,
            Pair,
            options=plain,
            layout=layout.dumps(),
            inputs=[step.fingerprint for step in inputs],
            held_out=self.options.seed.held_out,
            engine=self.engine.describe(),
            seed=self.options.random_seed,
            code=code("tasks", "prompts", *TRAINING_CODE),
        )

    def _do(self, step: Step[Any], work: Callable[[], Mapping[str, Any] | None], *, unit: str = "rows") -> Step[Any]:
        """Do a step unless it is done; say first what changed if it was done otherwise before."""
        done = step.manifest
        if done is not None and step.is_done:
            step.check_files()
            self.show.end(done, reused=True)
            return step
        if changed := step.changed():
            self.show.note(f"{step.folder.name} is done again, for these changed: {'; '.join(changed)}")
        began = time.monotonic()
        self.show.begin(step.folder.name, 0, unit)
        step.begin()
        more = work() or {}
        self.show.end(step.finish({"seconds": round(time.monotonic() - began, 2)}, **more), reused=False)
        return step

    def _write(self, step: Step[Any], outcomes: Iterable[Any]) -> None:
        def counted() -> Iterator[Any]:
            for outcome in outcomes:
                self.show.advance(1)
                yield outcome

        write_step(step, counted(), shard_rows=4096)

    def _map(self, step: Step[Any], rows: Step[Any], work: Callable[[list[Any]], Iterable[Any]]) -> None:
        def mapped() -> None:
            total = rows.manifest.written if rows.manifest else 0
            self.show.begin(step.folder.name, total, "rows")
            size = self.options.engine.shard_rows
            map_step(step, rows.read(), work, shard_rows=size, advance=self.show.advance)

        self._do(step, mapped)

    def _fit(self, step: Step[Pair], pairs: list[Pair], options: TuneOptions, layout: Layout) -> dict[str, Any]:
        """Tune on the pairs; the folder of the adapter appears whole, with its layout beside it."""
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


def _verdicts(judged: Step[Judgement], kept: Step[Pair]) -> dict[str, tuple[float | None, str]]:
    scores = to_scores(list(judged.read()))
    verdicts: dict[str, tuple[float | None, str]] = {pair.id: (scores.get(pair.id), "kept") for pair in kept.read()}
    for reject in kept.rejects():
        verdicts[reject["id"]] = (scores.get(reject["id"]), reject["reason"])
    return verdicts


def _reasons(manifest: Manifest) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(manifest.reasons).most_common())


def _line(text: str, size: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= size else f"{line[: size - 1]}…"


def input_hash(path: str) -> str:
    """Return the hash of what is read from the disk (for a glob, of every file it names), or else the name itself."""
    if path and Path(path).exists():
        return file_hash(Path(path))
    found = [Path(name) for name in sorted(glob(path, recursive=True))] if path else []  # noqa: PTH207
    parts = [f"{file} {file_hash(file)}" for file in found if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if parts else path


def code(*modules: str) -> str:
    """Return a hash of the modules' source: a step is done again when the code that makes it changed."""
    digest = hashlib.sha256()
    for module in (*modules, "records", "chance"):
        digest.update((Path(__file__).parent / f"{module.replace('.', '/')}.py").read_bytes())
    digest.update(f"{sys.version_info[:2]}".encode())
    return digest.hexdigest()[:16]
