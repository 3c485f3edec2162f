"""One HTML file that shows what a run did and how good it is: opened by anybody, with nothing beside it.

Takes: the `metrics` dict and the costs, as publish.py defines them, and rows of the data set.
Gives: a page without address, script or date: the same numbers give the same bytes.
Never: shows a text as anything but text, or fills a gap: what is not there reads "not measured".
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askback import plots, tables

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATE = "report.html.j2"
STORIES = 3
EXAMPLES = 20

WHY = {
    "below_threshold": "below the lowest score kept",
    "not_best_of_passage": "another instruction for this passage scored higher",
    "parse_failed": "the judge's reply held no score",
    "no_mass_on_digits": "the judge gave no digit a probability",
    "too_long": "too long for the judge",
    "below_least": "below the lowest value of a signal",
    "not_selected": "another pair covers the same ground",
    "unfit_instruction": "the instruction alone is not a request that can be answered",
}
"""The reasons of curation in plain words."""

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture and the words below it."""

    svg: "Markup"
    caption: str


def render_report(found: Found, cost: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the whole page; `rows` are shown as they come."""
    evaluation = found.get("evaluation") or {}
    return (
        _templates()
        .get_template(TEMPLATE)
        .render(
            title=f"Instruction backtranslation with {(found.get('base') or {}).get('base', 'an unnamed base')}",
            stories=[_story(told) for told in (evaluation.get("story") or [])[:STORIES]],
            key_figures=key_figures(found),
            flow=flow(found),
            figures=build_figures(found),
            tables=build_tables(found, cost),
            judge=tables.judging(found),
            tuned={direction: tables.is_tuned(found, direction) for direction in ("backward", "forward")},
            score_notes=tables.score_notes(evaluation.get("backward") or {}),
            nll_why=(evaluation.get("backward") or {}).get("nll_why", ""),
            retrieval_why=(evaluation.get("backward") or {}).get("retrieval_why", ""),
            rows=[_row(row) for row in rows],
            examples=[_example(row) for row in examples(found)],
            energy=tables.energy(cost),
            run_file=run_file((found.get("run") or {}).get("options") or {}),
        )
    )


def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Everything from a document is a text to be shown, never a part of the page.
    return Environment(
        loader=PackageLoader("askback"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# --- the first screen


def _story(told: Mapping[str, Any]) -> dict[str, Any]:
    reason = told.get("verdict")
    return {
        "heading": told.get("heading") or "without a heading",
        "source": told.get("source") or "source not recorded",
        "text": told["text"],
        "base": None if told["base"] is None else told["base"] or "(nothing)",
        "trained": told.get("trained") or "(nothing)",
        "fate": {None: "unknown", "kept": "kept"}.get(reason, "dropped"),
        "verdict": _verdict(reason, told.get("score")),
    }


def _verdict(reason: str | None, score: float | None) -> str:
    scored = "" if score is None else f", score {tables.number(score)} of 5"
    if reason is None:
        return f"Verdict not recorded{scored}"
    return f"Kept{scored}" if reason == "kept" else f"Thrown away: {WHY.get(reason, reason)}{scored}"


def key_figures(found: Found) -> list[tuple[str, str, str]]:
    """Return label, figure and what it stands beside, for the five figures that matter most."""
    backward = (found.get("evaluation") or {}).get("backward") or {}
    documents, candidates = tables.step(found, "corpus"), tables.step(found, "candidates")
    kept = (found.get("dataset") or {}).get("rows")
    retrieval = backward.get("retrieval")
    return [
        ("Documents read", tables.count(documents.get("written")), _used(found)),
        ("Candidates", tables.count(candidates.get("written")), "passages with an instruction"),
        ("Kept", tables.count(kept), _share_kept(kept, candidates.get("written"))),
        ("ROUGE-L", tables.number((backward.get("rougeL") or {}).get("value")), _beside_floor(found)),
        ("Own output found", tables.percent(retrieval["value"] if retrieval else None), _beside_chance(retrieval)),
    ]


def _used(found: Found) -> str:
    used = (tables.step(found, "passages").get("notes") or {}).get("documents_used")
    return "" if used is None else f"{tables.count(used)} of them gave a passage"


def _share_kept(kept: int | None, candidates: int | None) -> str:
    return f"{tables.percent(kept / candidates)} of the candidates" if kept is not None and candidates else ""


def _beside_floor(found: Found) -> str:
    floor = tables.better_floor(found)
    if floor is None:
        return "floors not measured"
    return f"better floor: {tables.number(floor[1]['value'])} ({tables.SYSTEMS[floor[0]].lower()})"


def _beside_chance(retrieval: Mapping[str, Any] | None) -> str:
    return f"among {retrieval['of']} outputs; chance: {tables.percent(1 / retrieval['of'])}" if retrieval else ""


# --- the flow


def flow(found: Found) -> list[dict[str, Any]]:
    """Return the counts from documents to kept rows, each with its width beside the largest in per cent."""
    names = [("corpus", "Documents"), ("passages", "Passages"), ("candidates", "Candidates")]
    names += [("gated", "Past the gates")]
    names += [(f"kept-{at}", f"Kept in round {at}") for at, _ in tables.rounds(found)]
    counts = [(label, made["written"]) for name, label in names if (made := tables.step(found, name))]
    most = max((n for _, n in counts), default=0) or 1
    return [{"label": label, "count": tables.count(n), "width": f"{100 * n / most:.1f}%"} for label, n in counts]


# --- figures and tables


def build_tables(found: Found, cost: Mapping[str, Any]) -> dict[str, tables.Table]:
    """Return every table of the page by its place."""
    return {
        "funnel": tables.funnel(found),
        "rounds": tables.round_counts(found),
        "labels": tables.label_agreement(found),
        "signals": tables.signals(found),
        "attacks": tables.attacks(found),
        "slices": tables.slices(found),
        "diversity": tables.diversity(found),
        "trainings": tables.trainings(found),
        "comparison": tables.comparison(found),
        "tests": tables.paired_tests(found),
        "forward": tables.forward_losses(found),
        "duel": tables.duel(found),
        "lengths": tables.lengths(found),
        "costs": tables.costs(cost),
        "versions": tables.versions(found),
    }


def build_figures(found: Found) -> dict[str, Figure | None]:
    """Return every figure of the page by its place; None where nothing was measured that it could show."""
    return {
        "scores": scores_figure(found),
        "gains": gains_figure(found),
        "losses": losses_figure(found),
        "verbs": verbs_figure(found),
        "comparison": comparison_figure(found),
        "forward": forward_figure(found),
        "instruction_chars": lengths_figure(found, "instruction_chars", "instructions"),
        "output_chars": lengths_figure(found, "output_chars", "outputs"),
    }


def scores_figure(found: Found) -> Figure | None:
    """Return the histogram of the scores of every round, with the lowest score that was kept."""
    panels = [
        plots.Bars(f"Round {at}", *_bins(made["scores"]), made.get("floor"), "lowest score kept")
        for at, made in tables.rounds(found)
        if _bins(made.get("scores"))[1]
    ]
    if not panels:
        return None
    alt = f"Histogram of the scores, {_rounds(panels)}, from 1 to 5"
    return _figure(plots.histograms(panels, alt=alt, x_label="score"), "Scores of all candidates, round by round.")


def gains_figure(found: Found) -> Figure | None:
    """Return the histogram of the likelihood gains of every round, where they are a signal."""
    raw = {at: ((made.get("signals") or {}).get("likelihood") or {}).get("raw") for at, made in tables.rounds(found)}
    panels = [
        plots.Bars(f"Round {at}", *_bins(histogram), 0.0, "no gain")
        for at, histogram in raw.items()
        if _bins(histogram)[1]
    ]
    if not panels:
        return None
    svg = plots.histograms(
        panels, alt=f"Histogram of likelihood gains, {_rounds(panels)}", x_label="likelihood gain, nats per token"
    )
    return _figure(svg, "The gains themselves: right of the line the instruction helps to predict its output.")


def verbs_figure(found: Found) -> Figure | None:
    """Return the verbs of the kept instructions with their commonest objects, as rings."""
    heard = (((found.get("diversity") or {}).get("sets") or {}).get("kept") or {}).get("verb_object") or {}
    sectors = [
        plots.Sector(one["verb"], one["count"], [(noun, times) for noun, times in one["objects"]])
        for one in heard.get("verbs") or []
    ]
    if not sectors:
        return None
    svg = plots.sunburst(sectors, alt="Verbs of the kept instructions and their commonest objects")
    said = f"of {heard['found']} of {heard['n']} kept instructions, as a simple rule without a parser finds them."
    return _figure(svg, f"The commonest verbs and their objects {said}")


def _bins(histogram: Mapping[str, Any] | None) -> tuple[list[float], list[int]]:
    return ((histogram or {}).get("edges") or [], (histogram or {}).get("counts") or [])


def _rounds(panels: Sequence[plots.Bars]) -> str:
    return "one round" if len(panels) == 1 else f"{len(panels)} rounds"


def losses_figure(found: Found) -> Figure | None:
    """Return the loss curves of all training runs."""
    lines = {
        name: [(step, loss) for step, loss in made["losses"]]
        for name, made in (found.get("training") or {}).items()
        if made.get("losses")
    }
    if not lines:
        return None
    widest = max(plots.window_of(points) for points in lines.values())
    svg = plots.curves(
        lines, alt=f"Training loss by step of {', '.join(lines)}", x_label="step", y_label="nats per label token"
    )
    caption = f"Training losses, each the mean of up to {widest} steps." if widest > 1 else "Training losses."
    return _figure(svg, caption)


def comparison_figure(found: Found) -> Figure | None:
    """Return the text scores of everybody who answered, as dots with intervals."""
    figures = [
        plots.Dot(label, tables.SYSTEMS[name], report[score]["value"], report[score]["low"], report[score]["high"])
        for name, report in tables.systems(found).items()
        for score, label in tables.TEXT_SCORES.items()
        if report.get(score)
    ]
    if not figures:
        return None
    alt = "Scores of the backward model beside the bare base and the two floors; the numbers stand in the table"
    svg = plots.dots(figures, alt=alt, x_label="0 to 100, higher is nearer to the true instruction")
    return _figure(svg, "Nearness to the true instructions of the held-out pairs; lines are 95 % intervals.")


def forward_figure(found: Found) -> Figure | None:
    """Return the forward models' held-out log-loss as dots with intervals."""
    forward = (found.get("evaluation") or {}).get("forward") or {}
    figures = [
        plots.Dot(f"Forward {name}", "log-loss", score["value"], score["low"], score["high"])
        for name in sorted(forward, key=int)
        if (score := forward[name].get("nll_per_token"))
    ]
    if not figures:
        return None
    svg = plots.dots(
        figures,
        alt="Held-out log-loss of the forward models; the numbers stand in the table",
        x_label="nats per token, lower is better",
    )
    return _figure(svg, "Log-loss of the held-out outputs given their instructions; lines are 95 % intervals.")


def lengths_figure(found: Found, key: str, what: str) -> Figure | None:
    """Return the histogram of the kept texts' lengths."""
    edges, counts = _bins((found.get("dataset") or {}).get(key))
    if not counts:
        return None
    svg = plots.histograms(
        [plots.Bars(what.capitalize(), edges, counts)], alt=f"Histogram of the lengths of {what}", x_label="characters"
    )
    return _figure(svg, f"Lengths of the kept {what}.")


def _figure(svg: str, caption: str) -> Figure:
    from markupsafe import Markup

    return Figure(Markup(svg), caption)  # drawn by plots.py, which escapes what it writes


# --- texts to read


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "instruction": row["instruction"],
        "output": row["output"],
        "score": tables.number(row.get("score")),
        "heading": row.get("heading") or "none",
        "source": row.get("source") or "not recorded",
        "licence": row.get("licence") or "unknown",
    }


def examples(found: Found) -> list[Mapping[str, Any]]:
    """Return held-out rows evenly spread from the best ROUGE-L to the worst: a sample nobody picked."""
    rows = ((found.get("evaluation") or {}).get("backward") or {}).get("rows") or []
    ranked = sorted(rows, key=lambda row: (-(row.get("rougeL") or 0.0), row["id"]))
    if len(ranked) <= EXAMPLES:
        return ranked
    return [ranked[round(n * (len(ranked) - 1) / (EXAMPLES - 1))] for n in range(EXAMPLES)]


def _example(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "true": row["instruction"],
        "generated": row.get("generated") or "(nothing)",
        "output": row.get("output") or "",
        "rouge": tables.number(row.get("rougeL"), 1),
    }


def run_file(options: Mapping[str, Any]) -> str:
    """Return the options as the lines of a run file: single keys first, then the tables."""
    return "\n".join(_toml_lines(options)) + "\n"


def _toml_lines(options: Mapping[str, Any]) -> Iterable[str]:
    single = {key: value for key, value in options.items() if not isinstance(value, Mapping)}
    yield from _keys(single)
    for name, table in options.items():
        if isinstance(table, Mapping):
            yield from ("", f"[{name}]", *_keys(table))


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
