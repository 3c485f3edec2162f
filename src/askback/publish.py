"""From a finished run's folder to what people came for: metrics, data set, models, cards, report.

Takes: a run folder.  Gives: metrics.json, cost.json, dataset/, models/, report.html in it.
Never: asks a model (but for the encoder that `evaluate.encoder` names), or counts anything that no manifest holds.

`metrics.json` depends on options and data alone; whatever depends on the clock is in `cost.json`.

    run         {askback, python, torch, transformers, peft: versions; options: the whole run file}
    base        {base, hash, licence, type, precision}
    funnel      [{step, read, written, rejected, reasons: {name: count}, notes}] in order of the steps
    training    {backward | forward-0 ..: {examples, steps, tokens, label_tokens, losses: [[step, loss]], recipe, ...}}
    rounds      {"1": {judge: [signal], judged, without_score, kept, floor, scores: {edges, counts},
                       labels: null | {n, good, auc, precision, recall},
                       signals: {name: {n, outcomes, raw: {edges, counts}, mass_outside, auc}}}}
                figures with interval and n; the candidates of one document are drawn together
    evaluation  as stages.evaluate gives it: backward, base (null where nothing was tuned), floors, tests, forward,
                story; attacks: {signal: shift}; duel: null | as stages.duel gives it
    seed        {name, pairs, licences: {name: count}}
    diversity   {sets: {name: as stages.diversity gives it}, shared, sample: null | {n, of, seed}}
    dataset     {rows, instruction_chars, output_chars: {mean, sd, edges, counts}, licences, sources}
"""

import importlib.metadata
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import Any, Literal

from askback import agreement, metrics
from askback.agreement import Draws
from askback.finished import judged_names, kept_name, rounds_of, rows_of, step_folder, steps_of
from askback.options import CurateOptions, Options
from askback.pipeline import ADAPTER, EVALUATION, TRAINING
from askback.records import Judgement, Pair
from askback.stages.curate import combine
from askback.stages.diversity import count_verb_objects, diversity_report
from askback.store import Manifest, read_json, write_folder, write_json, write_rows, write_text
from askback.store import write_table as write_parquet
from askback.tasks import open_encoder, read_calibration

VERSIONED = ("askback", "torch", "transformers", "peft", "tokenizers", "pyarrow")
MOST_COMPARED = 5000
"""Candidates whose variety is measured: choosing the diverse half of so many takes seconds, of all of them hours."""


def publish(folder: Path, options: Options, base: dict[str, Any]) -> dict[str, Any]:
    """Write everything people came for; return the metrics."""
    found = collect_metrics(folder, options, base)
    write_json(folder / "metrics.json", found)
    write_dataset(folder, found)
    write_models(folder, found)
    write_report(folder)
    return found


def last_kept(folder: Path) -> list[Pair]:
    """Return the pairs that the last round ended with."""
    return rows_of(folder, kept_name(folder, rounds_of(folder)[-1]), Pair)


# --- metrics


def collect_metrics(folder: Path, options: Options, base: dict[str, Any]) -> dict[str, Any]:
    """Return every number of the report, from the manifests and what the steps wrote."""
    kept = last_kept(folder)
    candidates = rows_of(folder, "gated", Pair)
    return {
        "run": {
            "options": options.model_dump(mode="json"),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONED},
        },
        "base": base,
        "funnel": [_funnel_row(step) for step in steps_of(folder)],
        "training": {path.parent.name[3:]: read_json(path) for path in sorted(folder.glob(f"[0-9][0-9]-*/{TRAINING}"))},
        "rounds": {str(number): round_metrics(folder, options, number, candidates) for number in rounds_of(folder)},
        "evaluation": read_json(step_folder(folder, "evaluation") / EVALUATION),
        "seed": seed_metrics(rows_of(folder, "seed", Pair), options),
        "dataset": dataset_metrics(kept),
        "diversity": diversity_metrics(folder, options, candidates, kept),
    }


def _funnel_row(step: Manifest) -> dict[str, Any]:
    return {key: asdict(step)[key] for key in ("step", "read", "written", "rejected", "reasons", "notes")}


def round_metrics(folder: Path, options: Options, number: int, candidates: Sequence[Pair]) -> dict[str, Any]:
    """Return what one round of curation did, and how it agrees with people's labels where there are some."""
    signals, scores = scored_round(folder, options.curate, number)
    kept = {pair.id: pair for pair in rows_of(folder, f"kept-{number}", Pair)}
    edges = [1 + n / 4 for n in range(17)]
    first = signals[options.curate.judge[0]]
    return {
        "judge": list(options.curate.judge),
        "judged": len(first),
        "without_score": sum(row.pair not in scores for row in first),
        "kept": len(kept),
        "floor": min((pair.score or 0 for pair in kept.values()), default=None),
        "scores": {"edges": edges, "counts": metrics.histogram(list(scores.values()), edges)},
        "labels": label_metrics(candidates, scores, set(kept), options),
        "signals": {name: signal_metrics(rows, candidates, options) for name, rows in signals.items()},
    }


def scored_round(
    folder: Path, options: CurateOptions, number: int
) -> tuple[dict[str, list[Judgement]], dict[str, float]]:
    """Return what every signal said in a round, and the score that came of it."""
    names = judged_names(options, number)
    signals: dict[str, list[Judgement]] = {name: rows_of(folder, step, Judgement) for name, step in names.items()}
    return signals, combine(signals, options, read_calibration(options))


def signal_metrics(rows: Sequence[Judgement], candidates: Sequence[Pair], options: Options) -> dict[str, Any]:
    """Return how one signal's values lie, why some are missing, and how well it sorts good from bad documents."""
    values = {row.pair: row.score for row in rows if row.score is not None}
    outside = [row.distribution[-1] for row in rows if row.distribution]
    labels = label_metrics(candidates, values, set(), options)
    resamples, seed = options.evaluate.bootstrap, options.random_seed
    return {
        "n": len(rows),
        "outcomes": dict(sorted(Counter(row.outcome for row in rows).items())),
        "raw": histogram(list(values.values())),
        "mass_outside": asdict(metrics.bootstrap_mean(outside, resamples=resamples, seed=seed)) if outside else None,
        "auc": labels["auc"] if labels else None,
    }


def label_metrics(
    candidates: Sequence[Pair], scores: dict[str, float], kept: set[str], options: Options
) -> dict[str, Any] | None:
    """Return how scores and keeping agree with the labels good and bad; None where documents carry no such labels."""
    labelled = [pair for pair in candidates if pair.label in ("good", "bad") and pair.id in scores]
    good = [pair.label == "good" for pair in labelled]
    if not any(good) or all(good):
        return None
    documents = {name: number for number, name in enumerate(sorted({pair.document or pair.id for pair in labelled}))}
    groups = tuple(documents[pair.document or pair.id] for pair in labelled)
    draws = Draws(options.evaluate.bootstrap, options.random_seed, groups)
    is_kept = [pair.id in kept for pair in labelled]
    figures = {
        "auc": agreement.pairwise_accuracy([scores[pair.id] for pair in labelled], list(map(float, good)), draws),
        "precision": _share_of(good, is_kept, draws),
        "recall": _share_of(is_kept, good, draws),
    }
    plain = {name: asdict(figure) if figure else None for name, figure in figures.items()}
    return {"n": len(labelled), "good": sum(good), **plain}


def _share_of(flags: Sequence[bool], among: Sequence[bool], draws: Draws) -> agreement.Agreed | None:
    """Return the share of flagged rows among some of the rows."""
    rows = [row for row, counts in enumerate(among) if counts]
    return agreement.share([float(flags[row]) for row in rows], draws.of(rows))


def seed_metrics(pairs: Sequence[Pair], options: Options) -> dict[str, Any]:
    """Return what the seed pairs are called, and under which licences they stand."""
    licences = Counter(pair.licence or options.seed.licence or "unknown" for pair in pairs)
    return {"name": Path(options.seed.path).name, "pairs": len(pairs), "licences": dict(sorted(licences.items()))}


def dataset_metrics(kept: Sequence[Pair]) -> dict[str, Any]:
    """Return sizes, lengths, licences and sources of the finished data set."""
    return {
        "rows": len(kept),
        "instruction_chars": lengths([len(pair.instruction) for pair in kept]),
        "output_chars": lengths([len(pair.output) for pair in kept]),
        "licences": dict(sorted(Counter(pair.licence or "unknown" for pair in kept).items())),
        "sources": len({pair.source for pair in kept}),
    }


def diversity_metrics(
    folder: Path, options: Options, candidates: Sequence[Pair], kept: Sequence[Pair]
) -> dict[str, Any]:
    """Return how varied the instructions are: of all scored, of those kept, of as many by score or variety alone.

    Of more than MOST_COMPARED candidates so many are drawn, and all but the verbs and objects is said of these alone:
    `sample` tells it.
    """
    _, scores = scored_round(folder, options.curate, rounds_of(folder)[-1])
    scored = [pair for pair in candidates if pair.id in scores]
    drawn = draw(scored, MOST_COMPARED, options.random_seed)
    ids, encode = {pair.id for pair in kept}, open_encoder(options.evaluate, options.engine)
    found = diversity_report(
        drawn,
        [scores[pair.id] for pair in drawn],
        chosen=[place for place, pair in enumerate(drawn) if pair.id in ids],
        embeddings=encode([pair.instruction for pair in drawn]) if encode and drawn else None,
    )
    found["chosen"]["verb_object"] = count_verb_objects([pair.instruction for pair in kept])
    names = {"candidates": "all", "kept": "chosen", "best by score": "top", "diverse": "diverse"}
    sample = {"n": len(drawn), "of": len(scored), "seed": options.random_seed} if len(drawn) < len(scored) else None
    sets = {shown: found[name] for shown, name in names.items() if name in found}
    return {"sets": sets, "shared": found.get("shared"), "sample": sample}


def draw(pairs: Sequence[Pair], most: int, seed: int) -> list[Pair]:
    """Return the pairs as they come, or of too many so many that the seed draws: the same ones in any order."""
    if len(pairs) <= most:
        return list(pairs)
    chosen = {*Random(f"{seed}/diversity").sample(sorted(pair.id for pair in pairs), most)}
    return [pair for pair in pairs if pair.id in chosen]


def lengths(values: Sequence[int]) -> dict[str, Any]:
    """Return mean, standard deviation and histogram of lengths in characters."""
    return {"mean": fmean(values), "sd": pstdev(values), **histogram(values)} if values else {"mean": 0.0, "sd": 0.0}


def histogram(values: Sequence[float], bins: int = 20) -> dict[str, Any]:
    """Return a histogram of equal bins over the whole range."""
    if not values:
        return {"edges": [], "counts": []}
    low, high = min(values), max(values)
    edges = [low + (high - low) * n / bins for n in range(bins)] + [high] if high > low else [low, low + 1]
    return {"edges": edges, "counts": metrics.histogram(values, edges)}


# --- data set


def dataset_row(pair: Pair) -> dict[str, Any]:
    """Return a row that any trainer reads (`messages`) and that leads back to its source.

    `original` is the output as it stood before it was rewritten, empty where it was not.
    """
    messages = [{"role": "user", "content": pair.instruction}, {"role": "assistant", "content": pair.output}]
    trace = ("id", "instruction", "output", "original", "score", "source", "heading", "licence", "genre")
    ids = ("document", "passage", "candidate", "start", "end")
    return {"messages": messages, **{name: getattr(pair, name) for name in (*trace, *ids)}}


def write_dataset(folder: Path, found: dict[str, Any]) -> None:
    """Write the pairs kept in the last round, best first, as JSONL and Parquet with their card."""
    from askback.cards import dataset_card

    kept = last_kept(folder)
    rows = [dataset_row(pair) for pair in sorted(kept, key=lambda pair: (-(pair.score or 0), pair.id))]
    write_rows(folder / "dataset" / "train.jsonl", rows)
    write_parquet(folder / "dataset" / "train.parquet", rows)
    write_text(folder / "dataset" / "README.md", dataset_card(found, rows[:3]))


# --- models


def write_models(folder: Path, found: dict[str, Any]) -> None:
    """Copy the backward and the last forward model, each with its card, to where people look for them."""
    from askback.cards import model_card

    last = f"forward-{rounds_of(folder)[-1]}"
    cost = read_cost(folder)
    names: tuple[tuple[Literal["backward", "forward"], str], ...] = (("backward", "backward"), ("forward", last))
    for direction, name in names:
        source = step_folder(folder, name) / ADAPTER
        card = model_card(direction, source, found, found["training"][name], cost)
        write_folder(folder / "models" / direction, lambda out, s=source, c=card: _fill_model(s, c, out))  # type: ignore[misc]


def _fill_model(source: Path, card: str, out: Path) -> None:
    shutil.copytree(source, out, dirs_exist_ok=True)
    (out / "README.md").write_text(card, encoding="utf-8")


# --- cost and report


def read_cost(folder: Path) -> dict[str, Any]:
    """Return seconds per step, and the energy of the sessions that made them where it was measured."""
    sessions = read_json(folder / "cost.json") if (folder / "cost.json").exists() else []
    return {
        "seconds": {step.step: step.cost.get("seconds", 0.0) for step in steps_of(folder)},
        "energy_kwh": sum(session["energy_kwh"] for session in sessions),
        "co2_kg": sum(session["co2_kg"] for session in sessions),
        "sessions": sessions,
    }


def write_report(folder: Path) -> Path:
    """Write report.html from metrics.json, the costs and twenty rows of the data set; return its path."""
    from askback.stages.report import render_report

    found = read_json(folder / "metrics.json")
    kept = last_kept(folder)
    path = folder / "report.html"
    write_text(path, render_report(found, read_cost(folder), [dataset_row(pair) for pair in spread(kept, 20)]))
    return path


def spread(pairs: Iterable[Pair], count: int) -> list[Pair]:
    """Return `count` pairs evenly spread over the scores, best first."""
    ranked = sorted(pairs, key=lambda pair: (-(pair.score or 0), pair.id))
    if len(ranked) <= count:
        return ranked
    return [ranked[round(n * (len(ranked) - 1) / (count - 1))] for n in range(count)]
