"""Pictures for the report: histograms, curves, dots with intervals, clouds, as SVG that stands inside a page.

Takes: numbers and labels.  Gives: one `<svg>` element, the same bytes for the same numbers.
Never: holds an address, a date or a colour of its own: ink and series take the page's, in light and in dark.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import cos, pi, radians, sin
from typing import Any

WIDTH_IN = 5.0
POINTS = 120
"""A curve is drawn with at most so many points: more cannot be seen and only make the page heavy."""
CLOUD_POINTS = 400
"""The same for each series of single points."""

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

DASHES = (0, (4, 3))

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


@dataclass(frozen=True, slots=True)
class Place:
    """A figure and its interval at a place on the axis."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ring:
    """Where a ring of a sunburst lies, how strong its colour is, and what it has room to say."""

    inner: float
    outer: float
    tint: float
    font_size: float

    @property
    def line(self) -> float:
        """Return the height of a line of text, in radii of the picture."""
        return 1.2 * self.font_size / RADIUS_POINTS

    def cut(self, label: str) -> tuple[str, float]:
        """Return the label, shortened to the ring's width, and its length in radii."""
        letter = LETTER * self.font_size / RADIUS_POINTS
        most = int((self.outer - self.inner - 2 * PAD) / letter)
        shown = label if len(label) <= most else f"{label[: most - 1]}…"
        return shown, len(shown) * letter

    def place(self, label: str, turns: float) -> float | None:
        """Return the radius a label is centred on: mid-ring, or further out where the stretch is wide enough for it.

        None where it is nowhere.
        """
        if not label or turns <= 0:
            return None
        half = self.cut(label)[1] / 2
        centre = max((self.inner + self.outer) / 2, self.line / (2 * pi * turns) + half)
        return centre if centre + half <= self.outer - PAD / 2 else None


RADIUS_POINTS, PAD, LETTER = 178, 0.012, 0.56
"""Radius of a sunburst in points, the room around a label in radii, and the width of a letter of 1 point."""
INNER_RING = Ring(0.27, 0.6, 0.55, 8)
OUTER_RING = Ring(0.6, 1.0, 0.3, 7)
FAINT = 0.1


@dataclass(frozen=True, slots=True)
class Sector:
    """A stretch of the inner ring, and those of its parts that the outer ring names."""

    label: str
    count: int
    parts: Sequence[tuple[str, int]] = ()


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
def dots(figures: Sequence[Dot], *, alt: str, x_label: str, mark: float | None = None) -> str:
    """Return figures with their intervals, groups below each other, series side by side in a group.

    `mark` is a place on the axis that matters.
    """
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
    if mark is not None:
        axis.axvline(mark, color=INK, linewidth=0.8, linestyle=DASHES)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=2)
    return _svg(figure, alt)


@_house_style()
def precision_recall(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, alt: str, wanted: float, proved: Place | None = None
) -> str:
    """Return named curves of (recall, precision), the wanted precision, and the place that was `proved`."""
    figure, (axis,) = _figure(rows=1, height_in=3.4)
    axis.axhline(wanted, color=INK, linewidth=0.8, linestyle=DASHES, label=f"wanted: {wanted:g}")
    for position, (name, points) in enumerate(lines.items()):
        shown = thinned(points)
        axis.plot([x for x, _ in shown], [y for _, y in shown], color=SERIES[position % len(SERIES)], label=name)
    if proved is not None:
        _place(axis, [proved], INK, "threshold, on held-out pairs")
    _unit_square(axis, "recall", "precision")
    figure.legend(loc="outside lower center", ncols=2)
    return _svg(figure, alt)


@_house_style()
def reliability(places: Sequence[Place], *, alt: str) -> str:
    """Return shares with intervals at their predicted probabilities, beside the line on which both would be equal."""
    figure, (axis,) = _figure(rows=1, height_in=3.0)
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=DASHES, label="prediction and share alike")
    axis.plot([place.x for place in places], [place.value for place in places], color=SERIES[0], linewidth=0.8)
    _place(axis, places, SERIES[0], "pairs of one bin")
    _unit_square(axis, "predicted probability of being good", "share that was good")
    axis.legend(loc="upper left")
    return _svg(figure, alt)


@_house_style()
def clouds(series: Mapping[str, Sequence[tuple[float, float]]], *, alt: str, x_label: str, y_label: str) -> str:
    """Return one cloud of points per name; of a large cloud, every so many-th point in the order of x."""
    figure, (axis,) = _figure(rows=1, height_in=3.0)
    for position, (name, points) in enumerate(series.items()):
        shown = thinned(sorted(points), CLOUD_POINTS)
        colour, mark = SERIES[position % len(SERIES)], "ox^s"[position % 4]
        x, y = [x for x, _ in shown], [y for _, y in shown]
        axis.plot(x, y, mark, color=colour, markersize=3.5, alpha=0.7, linestyle="none", label=name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid()
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return _svg(figure, alt)


@_house_style()
def sunburst(sectors: Sequence[Sector], *, alt: str, centre: str = "") -> str:
    """Return two rings: sectors inside and their parts around them, each as wide as its count; the largest on top.

    What no part names, or only one too narrow for its label, is a faint stretch without one; sectors too narrow are
    joined to one that says how many they are. Colour only tells neighbours apart, with the page's four series in turn:
    names, not colours, say what is what.
    """
    figure, (axis,) = _figure(rows=1, height_in=WIDTH_IN)
    total = sum(sector.count for sector in sectors) or 1
    start = 0.0
    for position, sector in enumerate(_nameable(sectors, total)):
        colour = SERIES[position % len(SERIES)] if sector in sectors else LINE
        _arc(axis, (start, sector.count / total), INNER_RING, sector.label, colour)
        named = [part for part in sector.parts if OUTER_RING.place(part[0], part[1] / total)]
        at = start
        for label, count in [*named, ("", sector.count - sum(count for _, count in named))]:
            _arc(axis, (at, count / total), OUTER_RING, label, colour)
            at += count / total
        start += sector.count / total
    axis.text(0, 0, centre, ha="center", va="center", linespacing=1.3)
    axis.set(xlim=(-1.01, 1.01), ylim=(-1.01, 1.01), aspect="equal")
    axis.axis("off")
    return _svg(figure, alt)


def _nameable(sectors: Sequence[Sector], total: int) -> list[Sector]:
    """Return the sectors that have room for their labels, and one that stands for all others."""
    named = [sector for sector in sectors if INNER_RING.place(sector.label, sector.count / total)]
    others = [sector.count for sector in sectors if sector not in named and sector.count]
    return [*named, Sector(f"{len(others)} more", sum(others))] if others else named


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


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """Return at most `most` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


# --- matplotlib


def _arc(axis: Any, span: tuple[float, float], ring: Ring, label: str, colour: str) -> None:
    """Draw one stretch of a ring: `span` is where it starts and how long it is, in turns from the top, clockwise."""
    from matplotlib.patches import Wedge

    start, turns = span
    if turns <= 0:
        return
    low, high = 90 - 360 * (start + turns), 90 - 360 * start
    gap = min(0.25 / ring.outer, (high - low) / 4)
    shape: dict[str, Any] = {"width": ring.outer - ring.inner - PAD / 2, "facecolor": colour, "linewidth": 0}
    axis.add_patch(Wedge((0, 0), ring.outer, low + gap, high - gap, alpha=ring.tint if label else FAINT, **shape))
    if radius := ring.place(label, turns):
        _write_radially(axis, ring, label, (low + high) / 2, radius)


def _write_radially(axis: Any, ring: Ring, label: str, degrees: float, radius: float) -> None:
    """Write a label along the ray from the centre, never upside down."""
    across, up = cos(radians(degrees)), sin(radians(degrees))
    turned = degrees + 180 * (across < 0)
    style = {"ha": "center", "va": "center", "rotation": turned, "rotation_mode": "anchor", "fontsize": ring.font_size}
    axis.text(radius * across, radius * up, ring.cut(label)[0], **style)


def _figure(*, rows: int, height_in: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for axis in axes:
        axis.set_axisbelow(True)
    return figure, axes


def _place(axis: Any, places: Sequence[Place], colour: str, label: str) -> None:
    x = [place.x for place in places]
    axis.vlines(x, [place.low for place in places], [place.high for place in places], color=colour, linewidth=1.6)
    axis.plot(x, [place.value for place in places], "o", color=colour, markersize=5, label=label)


def _unit_square(axis: Any, x_label: str, y_label: str) -> None:
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid()


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
