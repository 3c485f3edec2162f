"""Pictures for the report: histograms, curves, dots with intervals, as SVG that stands inside a page.

Takes: numbers and fixed labels.  Gives: one `<svg>` element, the same bytes for the same numbers.
Never: holds an address, a date or a colour of its own: ink and series take the page's, in light and in dark.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH_IN = 5.0
POINTS = 120
"""A curve is drawn with at most so many points: more cannot be seen and only make the page heavy."""

INK, LINE = "#000001", "#000002"
SERIES = ("#000011", "#000012", "#000013", "#000014")
PAGE_COLOURS = {
    INK: "currentColor",
    LINE: "var(--line, #8886)",
    SERIES[0]: "var(--series-1, #3f83d1)",
    SERIES[1]: "var(--series-2, #d07a24)",
    SERIES[2]: "var(--series-3, #3a9a68)",
    SERIES[3]: "var(--series-4, #9568cf)",
}
"""Colours nobody draws with, each exchanged for one that the page decides."""

STYLE = {
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True)
class Bars:
    """One histogram; `mark` is a place on its axis that matters."""

    title: str
    edges: Sequence[float]
    counts: Sequence[int]
    mark: float | None = None
    mark_label: str = ""


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure and its interval, in a group (a row of the picture) and a series (a colour)."""

    group: str
    series: str
    value: float
    low: float
    high: float


@contextmanager
def _house_style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


@_house_style()
def histograms(panels: Sequence[Bars], *, alt: str, x_label: str) -> str:
    """Return histograms below each other."""
    figure, axes = _figure(rows=len(panels), height_in=0.5 + 1.35 * len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        widths = [high - low for low, high in zip(panel.edges, panel.edges[1:], strict=False)]
        axis.bar(
            panel.edges[:-1], panel.counts, width=[0.92 * width for width in widths], align="edge", color=SERIES[0]
        )
        axis.set_title(panel.title)
        axis.set_ylabel("rows")
        axis.grid(axis="y")
        if panel.mark is not None:
            axis.axvline(panel.mark, color=SERIES[1], linewidth=1.6, label=panel.mark_label)
            axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, borderaxespad=0.2)
    axes[-1].set_xlabel(x_label)
    return _svg(figure, alt)


@_house_style()
def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, alt: str, x_label: str, y_label: str) -> str:
    """Return named curves, each as the running mean of its values."""
    figure, (axis,) = _figure(rows=1, height_in=2.6)
    for position, (name, points) in enumerate(lines.items()):
        smooth = thinned(running_mean(points))
        mark = "o" if len(smooth) == 1 else ""  # a line through one point is nothing to see
        colour = SERIES[position % len(SERIES)]
        axis.plot([x for x, _ in smooth], [y for _, y in smooth], marker=mark, color=colour, label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(axis="y")
    axis.legend()
    return _svg(figure, alt)


@_house_style()
def dots(figures: Sequence[Dot], *, alt: str, x_label: str) -> str:
    """Return figures with their intervals, groups below each other, series side by side in a group."""
    groups = list(dict.fromkeys(dot.group for dot in figures))
    series = list(dict.fromkeys(dot.series for dot in figures))
    figure, (axis,) = _figure(rows=1, height_in=0.9 + 0.17 * len(groups) * (len(series) + 1))
    step = 0.8 / len(series)
    for position, name in enumerate(series):
        mine = [dot for dot in figures if dot.series == name]
        heights = [groups.index(dot.group) + step * (position - (len(series) - 1) / 2) for dot in mine]
        colour = SERIES[position % len(SERIES)]
        axis.hlines(heights, [dot.low for dot in mine], [dot.high for dot in mine], color=colour, linewidth=1.6)
        axis.plot([dot.value for dot in mine], heights, "o", color=colour, markersize=4.5, label=name)
    axis.set_yticks(range(len(groups)), groups)
    axis.set_ylim(len(groups) - 0.5, -0.5)  # the first group on top
    axis.set_xlabel(x_label)
    axis.grid(axis="x")
    if len(series) > 1:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _svg(figure, alt)


def window_of(points: Sequence[Any]) -> int:
    """Return over how many steps a curve is averaged: about a fortieth of it."""
    return max(1, len(points) // 40)


def running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the mean of each value and those just before it, at the same places."""
    window = window_of(points)
    means = []
    for end in range(1, len(points) + 1):
        block = [float(y) for _, y in points[max(0, end - window) : end]]
        means.append((float(points[end - 1][0]), sum(block) / len(block)))
    return means


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most POINTS of the points, evenly spaced, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(n * (len(points) - 1) / (POINTS - 1))] for n in range(POINTS)]


# --- matplotlib


def _figure(*, rows: int, height_in: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for axis in axes:
        axis.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, alt: str) -> str:
    """Return a figure as an element that a page can hold: named for those who do not see it."""
    import matplotlib as mpl

    file = io.StringIO()
    # Ids are hashes: salted with what the picture shows, they differ between two pictures of one page.
    with mpl.rc_context({"svg.hashsalt": alt}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    return _slim(file.getvalue(), alt)


def _slim(text: str, alt: str) -> str:
    """Drop what is only for a file of its own: prologue, namespaces, style, metadata, ids that nothing points at."""
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None, "matplotlib writes a viewBox"
    text = f'<svg role="img" aria-label="{escape(alt)}" {view[0]}>' + text[text.index(">") + 1 :]
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"#0000\d\d\b", lambda found: PAGE_COLOURS[found[0]], text)
    return re.sub(r"\s*\n\s*", " ", text)
