"""A figure beside what was asked of it, and the way every benchmark here ends.

Takes: figures as they are measured.
Gives: one line each; with --write a table in docs/benchmarks.md; with --check the exit code 1 and what falls short.
Never: holds a figure of its own.
"""

import argparse
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"


class Figure(NamedTuple):
    """What was measured and what was asked; `at_most` where less is better. No `asked` is for information."""

    name: str
    measured: float
    asked: float | None = None
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the figure is what was asked for; a figure that could not be measured is not."""
        if self.asked is None:
            return True
        if math.isnan(self.measured):
            return False
        return self.measured <= self.asked if self.at_most else self.measured >= self.asked

    def line(self) -> str:
        """Return the figure on one line."""
        if self.asked is None:
            return f"      {self.name:<66} {self.measured:10.3f}"
        sign, verdict = "<=" if self.at_most else ">=", "ok   " if self.reached else "SHORT"
        return f"{verdict} {self.name:<66} {self.measured:10.3f}   asked {sign} {self.asked:g}"

    def row(self) -> str:
        """Return the figure as a row of a Markdown table."""
        sign = "≤" if self.at_most else "≥"
        asked = "" if self.asked is None else f"{sign} {self.asked:g}"
        return f"| {self.name.strip()} | {self.measured:,.3f} | {asked} | {'' if self.reached else 'short'} |"


def add_flags(parser: argparse.ArgumentParser, *, writes: bool = True) -> None:
    """Add what every benchmark can be told; one that is a part of another does not write."""
    parser.add_argument("--check", action="store_true", help="end non-zero where a figure falls short")
    if writes:
        parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")


def show(figures: Iterable[Figure], given: argparse.Namespace, section: str = "") -> None:
    """Print each figure when it is there; then do as the flags say.

    Raises:
        SystemExit: a figure falls short and --check was given.
    """
    shown = []
    for figure in figures:
        print(figure.line(), flush=True)
        shown.append(figure)
    if section and given.write:
        head = f"{machine()}.\n\n| figure | measured | asked | |\n|---|---|---|---|\n"
        write(section, head + "\n".join(figure.row() for figure in shown))
    short = [figure.name for figure in shown if not figure.reached]
    if given.check and short:
        raise SystemExit("short: " + "; ".join(short))


def machine() -> str:
    """Return what the figures depend on, in words."""
    return f"{len(os.sched_getaffinity(0))} CPUs ({platform.machine()}), Python {platform.python_version()}"


def write(section: str, text: str, docs: Path = DOCS) -> None:
    """Put text between the marks of a section in docs/benchmarks.md, or in another file.

    Raises:
        ValueError: the section is not there.
    """
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    whole = docs.read_text(encoding="utf-8")
    if begin not in whole:
        raise ValueError(f"{docs} has no section {begin}: write its heading and marks first")
    before, _, rest = whole.partition(begin)
    _, _, after = rest.partition(end)
    docs.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
