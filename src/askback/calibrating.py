"""What `askback calibrate` does: labels joined with what judges said, and the folder that comes of it.

Takes: a file of labels, and a finished run or an engine with models.  Gives: a folder, and its report as a dict.
Never: lets a label go unmentioned, or writes a calibration when no score reaches the precision asked for.

    calibration.json         what `curate.calibration` names; only where the precision is reached
    calibration_report.json  every figure, as stages/calibrate.py lists them, and `files`: what became of the rows
    calibration.html         the same to look at
    unused_labels.jsonl      one line per row that is no label, or whose pair no judge saw: id, reason, detail, source
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from askback import tables
from askback.calibration import Calibration
from askback.config import load_options
from askback.errors import ConfigError, DataError
from askback.finished import has_step, judged_names, rounds_of, rows_of
from askback.grades import Grade, Preference
from askback.options import Options
from askback.ports import Engine
from askback.readers.labels import read_labels
from askback.records import Judgement, Pair, Reject, excerpt
from askback.stages.calibrate import NotCalibrated, Report, Wanted, calibrate, check_extra, collect_labels, measure
from askback.stages.calibration_page import agreements, render_calibration
from askback.store import check_replaceable, write_folder, write_json, write_rows, write_text
from askback.tasks import open_signal

CALIBRATION = "calibration.json"
REPORT = "calibration_report.json"
PAGE = "calibration.html"
UNUSED = "unused_labels.jsonl"

Signals = Mapping[str, Sequence[Judgement]]


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of a label file: those that are used, and those that are not."""

    grades: tuple[Grade, ...]
    preferences: tuple[Preference, ...]
    unused: tuple[Reject, ...]

    @property
    def pairs(self) -> list[Pair]:
        """Every pair to be judged, once."""
        preferred = [pair for one in self.preferences for pair in (one.better, one.worse)]
        return list({pair.id: pair for pair in (*preferred, *(grade.pair for grade in self.grades))}.values())

    def counts(self) -> dict[str, Any]:
        """Return how many rows were read, and why some are not used."""
        used = len(self.grades) + len(self.preferences)
        reasons = Counter(reject.reason for reject in self.unused)
        return {"read": used + len(self.unused), "used": used, "reasons": dict(sorted(reasons.items()))}


def calibrate_run(
    labels: Path, run: Path, options: Options, precision: float, out: Path, *, good_from: float = 4.0
) -> dict[str, Any]:
    """Calibrate every signal of the last round of a finished run; return the report.

    A label finds its candidate by id, or by instruction and output.

    Raises:
        ConfigError: no run is there, `out` holds something else, or the extra `calibrate` is not installed.
        DataError: no label is about a candidate that was judged; or, with the report written, the labels do not carry
            a calibration.
    """
    wanted = _ready(options, precision, out)
    rounds = rounds_of(run)
    if not (run / "run.toml").exists() or not rounds:
        raise ConfigError(f"{run}: want a run folder with a finished round; run `askback run --out {run}` to go on")
    read = _join(_read(labels, good_from), run, labels)
    names = judged_names(load_options(run / "run.toml").curate, rounds[-1])
    signals: dict[str, list[Judgement]] = {name: rows_of(run, step, Judgement) for name, step in names.items()}
    return _finish(read, signals, wanted, out)


def calibrate_rows(
    labels: Path,
    engine: Engine,
    model: Path | None,
    backward: Path | None,
    options: Options,
    precision: float,
    out: Path,
    *,
    good_from: float = 4.0,
) -> dict[str, Any]:
    """Judge the labelled pairs with every signal of `curate`, and calibrate them; return the report.

    Raises:
        ConfigError: a signal lacks its model, `out` holds something else, or the extra `calibrate` is not installed.
        DataError: no label has texts to be judged; or, with the report written, the labels do not carry a calibration.
    """
    wanted = _ready(options, precision, out)
    read = _with_texts(_read(labels, good_from), labels)
    signals = judge_labels(read.pairs, engine, (model, backward), options)
    return _finish(read, signals, wanted, out)


def measure_rows(
    labels: Path, engine: Engine, model: Path | None, backward: Path | None, options: Options
) -> dict[str, Any]:
    """Return how far every signal of `curate` agrees with the labels; nothing is fitted or written."""
    read = _with_texts(_read(labels, 4.0), labels)
    signals = judge_labels(read.pairs, engine, (model, backward), options)
    found = measure(signals, collect_labels(read.grades, read.preferences), _wanted(options, 1.0))
    return found | {"files": read.counts()}


def judge_labels(
    pairs: Sequence[Pair], engine: Engine, models: tuple[Path | None, Path | None], options: Options
) -> dict[str, list[Judgement]]:
    """Return what every signal of `curate` says of the pairs, by its name; `models` are forward and backward."""
    table, seed = options.curate, options.random_seed
    judges = {name: open_signal(engine, name, *models, table, round=1, seed=seed) for name in table.signals}
    return {name: list(judge(list(pairs))) for name, judge in judges.items()}


def summary(found: Mapping[str, Any]) -> str:
    """Return the report in a few lines: labels, agreement, threshold, what was written."""
    files, labels, threshold = found["files"], found["labels"], found["threshold"]
    unused = ", ".join(f"{count} {reason}" for reason, count in files["reasons"].items())
    lines = [
        f"labels      {files['read']} rows: {labels['grades']} graded pairs, {labels['good']} of them good, "
        f"{labels['preferences']} preferences; not used: {unused or 'none'}"
    ]
    for name, one in agreements(found).items():
        pairs = one["preferences"] or one["pairwise"]
        lines.append(
            f"{name:<12}Spearman {tables.interval(one['spearman'])}; "
            f"right about two pairs {tables.percent_interval(pairs)}; n {one['n']}"
        )
    if threshold:
        lines.append(
            f"keep from   {threshold['keep_from']:.3f}: precision {tables.percent_interval(threshold['precision'])} "
            f"(wanted {tables.percent(found['wanted'])}), recall {tables.percent_interval(threshold['recall'])}"
        )
    return "\n".join([*lines, f"written     {found['folder']}: {', '.join(found['written'])}"])


# --- labels


def _read(labels: Path, good_from: float) -> Read:
    outcomes = list(read_labels(labels, good_from=good_from))
    return Read(
        tuple(row for row in outcomes if isinstance(row, Grade)),
        tuple(row for row in outcomes if isinstance(row, Preference)),
        tuple(row for row in outcomes if isinstance(row, Reject)),
    )


def _join(read: Read, run: Path, labels: Path) -> Read:
    """Put the run's candidates in place of the labelled pairs; a label of another pair is not used."""
    judged = {pair.id: pair for pair in rows_of(run, "gated", Pair)}
    asked = {pair.id for pair in rows_of(run, "candidates", Pair)} if has_step(run, "candidates") else set()
    by_text = {_texts(pair): pair for pair in judged.values()}

    def find(pair: Pair) -> Pair | Reject:
        known = judged.get(pair.id)
        if known is not None and pair.output and _texts(known) != _texts(pair):
            return _unused(pair, "other_text", "the candidate of this id has other texts: label the run's own rows")
        found = known or by_text.get(_texts(pair))
        if found is None and pair.id in asked:
            return _unused(pair, "not_judged", "the candidate did not pass the gates")
        return found or _unused(pair, "no_candidate", "no candidate of the run has this id or these texts")

    joined = _mapped(read, find)
    _check_used(joined, f"{labels}: no label is about a judged candidate of {run}; use the ids of its gated rows")
    return joined


def _with_texts(read: Read, labels: Path) -> Read:
    """Leave out the labels that name a pair by its id alone: nothing is there to be judged."""
    known = {pair.id: pair for pair in read.pairs if pair.output}

    def find(pair: Pair) -> Pair | Reject:
        return known.get(pair.id) or _unused(pair, "no_text", "an id alone; give the run it is of with --run")

    joined = _mapped(read, find)
    _check_used(joined, f"{labels}: no label has instruction and output; give the run its ids are of with --run")
    return joined


def _mapped(read: Read, find: Callable[[Pair], Pair | Reject]) -> Read:
    """Return the labels with what `find` finds for each pair; where it finds none, the label is not used."""
    grades: list[Grade] = []
    preferences: list[Preference] = []
    unused = list(read.unused)
    for grade in read.grades:
        found = find(grade.pair)
        if isinstance(found, Reject):
            unused.append(found)
        else:
            grades.append(replace(grade, pair=found))
    for one in read.preferences:
        better, worse = find(one.better), find(one.worse)
        if isinstance(better, Reject) or isinstance(worse, Reject):
            unused += [found for found in (better, worse) if isinstance(found, Reject)][:1]  # one line for one row
        else:
            preferences.append(Preference(better, worse))
    return Read(tuple(grades), tuple(preferences), tuple(unused))


def _unused(pair: Pair, reason: str, detail: str) -> Reject:
    said = excerpt(pair.instruction, 60)
    return Reject(pair.id, reason, f"{detail}: {said}" if said else detail, pair.source)


def _check_used(read: Read, message: str) -> None:
    if not read.grades and not read.preferences:
        first = read.unused[0]
        raise DataError(f"{message}; the first that is not used: {first.source}: {first.reason} ({first.detail})")


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.instruction.strip(), pair.output.strip()


# --- the folder


def _ready(options: Options, precision: float, out: Path) -> Wanted:
    """Return what is wanted, having found before any model is asked that it can be had, and written down."""
    check_extra()
    check_replaceable(out, REPORT)
    return _wanted(options, precision)


def _wanted(options: Options, precision: float) -> Wanted:
    return Wanted(precision=precision, resamples=options.evaluate.bootstrap, seed=options.random_seed)


def _finish(read: Read, signals: Signals, wanted: Wanted, out: Path) -> dict[str, Any]:
    """Calibrate and write the folder; where the labels do not carry a calibration, write the rest and say so."""
    try:
        calibration, report = calibrate(signals, read.grades, read.preferences, wanted)
    except NotCalibrated as error:
        _write(read, None, error.report, out)
        raise DataError(f"{error}; how far the judges agree stands in {out / PAGE}") from error
    return _write(read, calibration, report, out)


def _write(read: Read, calibration: Calibration | None, report: Report, out: Path) -> dict[str, Any]:
    report = report | {"files": read.counts()}

    def fill(folder: Path) -> list[str]:
        if calibration is not None:
            write_text(folder / CALIBRATION, calibration.dumps())
        write_json(folder / REPORT, report)
        write_text(folder / PAGE, render_calibration(report))
        if read.unused:
            write_rows(folder / UNUSED, map(asdict, read.unused))
        return sorted(file.name for file in folder.iterdir())

    return report | {"written": write_folder(out, fill), "folder": str(out)}
