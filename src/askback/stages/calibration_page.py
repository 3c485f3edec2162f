"""One HTML page that shows how far the judges agree with people, and what their score is worth.

Takes: the report of `stages/calibrate.py`, with `files` (what became of the label rows) from calibrating.py.
Gives: a page without address, script or date: the same numbers give the same bytes.
Never: shows a text as anything but text, or fills a gap: what is not there reads "not measured".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from askback import plots, tables
from askback.tables import Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATE = "calibration.html.j2"
COMBINED = "combined"
NOT_A_GRADE = "–"
N = "n\u00a0"
ROLES = ("good", "better", "bad", "worse")
"""What people said of a pair, in the order in which it is drawn."""
ODD_PAIRS = 5
"""So many pairs are shown which people found bad and the score good, and so many the other way round."""

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture and the words below it."""

    svg: "Markup"
    caption: str


def render_calibration(found: Found) -> str:
    """Return the whole page."""
    return (
        _templates()
        .get_template(TEMPLATE)
        .render(
            found=found,
            key_figures=key_figures(found),
            shortfall=shortfall(found),
            agreement=agreement_table(found),
            lengths=length_table(found),
            weights=weights_table(found),
            bins=bins_table(found),
            labels=labels_table(found),
            pictures={
                "precision": precision_picture(found),
                "reliability": reliability_picture(found),
                "lengths": length_picture(found),
            },
            odd=odd_pairs(found["rows"]),
            run_file=run_file(found),
        )
    )


def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What stands in a label file is a text to be shown, never a part of the page.
    return Environment(
        loader=PackageLoader("askback"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def run_file(found: Found) -> str:
    """Return the lines of a run file that use the calibration; empty where there is none."""
    if not found["calibration"]:
        return ""
    names = ", ".join(f'"{name}"' for name in found["calibration"]["signals"])
    lines = [
        "[curate]",
        f"judge = [{names}]",
        'calibration = "calibration.json"  # where this page lies',
        "keep_top = 0  # the threshold decides, not a share",
    ]
    return "\n".join(lines) + "\n"


# --- the first screen


def key_figures(found: Found) -> list[tuple[str, str, str]]:
    """Return label, figure and what it stands beside, for what is asked first."""
    labels, threshold = found["labels"], found["threshold"] or {}
    name, best = score_shown(found)
    order = best and (best["preferences"] or best["pairwise"])
    precision, recall = threshold.get("precision"), threshold.get("recall")
    good = f"{tables.count(labels['good'])} of them good; {tables.count(labels['preferences'])} preferences"
    wanted = f"wanted: {tables.percent(found['wanted'])}" if threshold else "no threshold was found"
    held = f"of the good pairs{_n(recall)}" if threshold else "no threshold was found"
    return [
        ("Graded pairs", tables.count(labels["grades"]), good),
        ("Keep from", tables.number(threshold.get("keep_from")), "on the scale from 1 to 5"),
        ("Precision there", tables.percent_interval(precision), f"{wanted}{_n(precision)}"),
        ("Recall there", tables.percent_interval(recall), held),
        ("Right about two pairs", tables.percent_interval(order), f"{name}; chance: 50 %{_n(order)}"),
    ]


def shortfall(found: Found) -> str:
    """Return that the precision on held-out pairs is below the one wanted; empty where it is not."""
    precision = (found["threshold"] or {}).get("precision")
    if not precision or precision["value"] >= found["wanted"]:
        return ""
    wanted, reached = tables.percent(found["wanted"]), tables.percent_interval(precision)
    return (
        f"On held-out pairs the precision is {reached}, below the {wanted} that was wanted: a threshold flatters the "
        "pairs it was found on. More labels make it firmer; a higher --precision leaves some room."
    )


def score_shown(found: Found) -> tuple[str, Found | None]:
    """Return name and agreement of the combined score, or of the first signal where nothing was combined."""
    if found["combined"]:
        return "the calibrated score", found["combined"]
    return next(iter(found["signals"].items()), ("no signal", None))


# --- tables


def agreements(found: Found) -> dict[str, Found]:
    """Return the agreement of each signal, and of the combined score last."""
    return dict(found["signals"]) | ({COMBINED: found["combined"]} if found["combined"] else {})


def agreement_table(found: Found) -> Table:
    """Return how far each score agrees with people."""
    columns = ("Score", "Spearman", "Weighted kappa", "Good above bad", "Any two pairs", "Two answers", "Without score")
    rows = [
        (
            name,
            _figure(one["spearman"]),
            _figure(one["kappa"]) if one["kappa"] else NOT_A_GRADE,
            _share(one["auc"]),
            _share(one["pairwise"]),
            _share(one["preferences"]),
            _without(one),
        )
        for name, one in agreements(found).items()
    ]
    return Table(
        "Agreement with the labels, with 95 % intervals and the number of rows or comparisons",
        columns,
        rows=tuple(rows),
    )


def length_table(found: Found) -> Table:
    """Return how far each score follows the length of the output."""
    columns = (
        "Score",
        "Score with length",
        "People's grade with length",
        "Right: shorter is better",
        "Right: longer is",
    )
    rows = [
        (
            name,
            _figure(one["length"]["score"]),
            _figure(one["length"]["grade"]),
            _share(one["length"]["shorter_better"]),
            _share(one["length"]["longer_better"]),
        )
        for name, one in agreements(found).items()
    ]
    return Table("Score and length of the output in characters", columns, tuple(rows))


def weights_table(found: Found) -> Table:
    """Return what each signal adds to the calibrated score."""
    made = found["calibration"] or {"signals": (), "weights": (), "means": (), "scales": ()}
    rows = zip(made["signals"], made["weights"], made["means"], made["scales"], strict=True)
    columns = ("Signal", "Weight", "Mean", "Standard deviation")
    caption = "Weights of the standardized signals in the logarithm of the odds of being good"
    return Table(caption, columns, tuple((name, *map(tables.number, numbers)) for name, *numbers in rows))


def bins_table(found: Found) -> Table:
    """Return the bins of the reliability diagram."""
    bins = (found["combined"] or {}).get("reliability") or []
    rows = [
        (
            f"{one['low']:.1f} to {one['high']:.1f}",
            tables.number(one["predicted"]),
            tables.percent_interval(one["good"]),
            tables.count(one["good"]["n"]),
        )
        for one in bins
    ]
    return Table("Predicted probability and share of good pairs", ("Bin", "Predicted", "Good", "Pairs"), tuple(rows))


def labels_table(found: Found) -> Table:
    """Return what became of the rows of the label file."""
    labels, files = found["labels"], found.get("files") or {}
    rows = [
        ("Rows read", files.get("read")),
        ("Pairs graded", labels["grades"]),
        ("Grades of a pair that was graded before", labels["twice"]),
        ("Preferences given", labels["preferences"]),
        ("Preferences that follow from grades of answers to one instruction", labels["followed"]),
        *((f"Not used: {reason}", count) for reason, count in (files.get("reasons") or {}).items()),
    ]
    return Table("Rows of the label file", ("What", "Number"), tuple((name, tables.count(n)) for name, n in rows))


def _n(figure: Found | None) -> str:
    return f"; {N}{tables.count(figure['n'])}" if figure else ""


def _figure(figure: Found | None) -> str:
    return f"{tables.interval(figure)}, {N}{tables.count(figure['n'])}" if figure else tables.NOT_MEASURED


def _share(figure: Found | None) -> str:
    return f"{tables.percent_interval(figure)}, {N}{tables.count(figure['n'])}" if figure else tables.NOT_MEASURED


def _without(one: Found) -> str:
    return ", ".join(f"{reason}: {tables.count(count)}" for reason, count in one.get("unscored", {}).items()) or "none"


# --- pictures


def precision_picture(found: Found) -> Picture | None:
    """Return the precision-recall curves of the calibrated score and of every signal."""
    lines = {
        name: [(recall, precision) for _, precision, recall, _ in one["curve"]] for name, one in _combined_first(found)
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    threshold = found["threshold"] or {}
    recall, precision = threshold.get("recall"), threshold.get("precision")
    proved = None
    if recall and precision:
        proved = plots.Place(recall["value"], precision["value"], precision["low"], precision["high"])
    alt = f"Precision against recall of {', '.join(lines)}; the figures stand in the text and the tables"
    svg = plots.precision_recall(lines, alt=alt, wanted=found["wanted"], proved=proved)
    return _picture(
        svg, "Each point keeps everything from one score on. The curve of the combined score is out of fold."
    )


def _combined_first(found: Found) -> list[tuple[str, Found]]:
    return sorted(agreements(found).items(), key=lambda one: one[0] != COMBINED)


def reliability_picture(found: Found) -> Picture | None:
    """Return the reliability diagram of the calibrated score."""
    bins = (found["combined"] or {}).get("reliability")
    if not bins:
        return None
    places = [
        plots.Place(one["predicted"], one["good"]["value"], one["good"]["low"], one["good"]["high"]) for one in bins
    ]
    alt = "Share of good pairs against the predicted probability; the figures stand in the table"
    error = tables.number(found["combined"]["calibration_error"], 3)
    return _picture(
        plots.reliability(places, alt=alt), f"Expected calibration error {error}; lines are 95 % intervals."
    )


def length_picture(found: Found) -> Picture | None:
    """Return the score shown first against the length of the output."""
    first = next(iter(found["signals"]), "")
    name = "calibrated score" if found["combined"] else first
    clouds: dict[str, list[tuple[float, float]]] = {}
    for row in found["rows"]:
        score = row["combined"] if found["combined"] else row["scores"].get(first)
        if score is not None:
            clouds.setdefault(row["role"], []).append((row["output_chars"], score))
    if not clouds:
        return None
    shown = sum(min(len(points), plots.CLOUD_POINTS) for points in clouds.values())
    alt = f"The {name} against the length of the output, by what people said of the pair"
    ordered = {role: clouds[role] for role in ROLES if role in clouds}
    svg = plots.clouds(ordered, alt=alt, x_label="characters of the output", y_label=name)
    return _picture(svg, f"{shown} of {sum(map(len, clouds.values()))} labelled pairs, by what people said of them.")


def _picture(svg: str, caption: str) -> Picture:
    from markupsafe import Markup

    return Picture(Markup(svg), caption)  # drawn by plots.py, which escapes what it writes


# --- pairs to read


def odd_pairs(rows: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the bad pairs that score highest and the good ones that score lowest."""
    scored = sorted((row for row in rows if row["combined"] is not None), key=lambda row: (row["combined"], row["id"]))
    bad = [row for row in reversed(scored) if row["role"] == "bad"][:ODD_PAIRS]
    good = [row for row in scored if row["role"] == "good"][:ODD_PAIRS]
    return [
        {
            "said": f"People: {row['role']}, {tables.number(row['grade'], 1)} of 5",
            "score": f"Calibrated score: {tables.number(row['combined'])}",
            "signals": ", ".join(f"{name} {tables.number(value)}" for name, value in row["scores"].items()),
            "source": row["source"],
            "instruction": row["instruction"],
            "output": row["output"],
        }
        for row in (*bad, *good)
    ]
