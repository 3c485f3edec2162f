"""What `askback plan` said of the demo, beside what the demo then took, step by step.

Takes: --out (a folder that is not there yet).  Gives: figures; with --write the table in docs/scale.md.
Never: reuses a finished step, or takes the plan's word for what was measured.

    python -m benchmarks.plan --check --write
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import DOCS, Figure, add_flags, machine, show, write

ASKED = 0.3
"""A plan may be off by so much."""
SCALE = DOCS.with_name("scale.md")


def plan(folder: Path) -> dict[str, Any]:
    """Plan the demo; return what the plan says, with the seconds it took as `took_s`."""
    file = folder / "plan.json"
    began = time.monotonic()
    _askback("plan", "--json", str(file))
    return {**json.loads(file.read_text(encoding="utf-8")), "took_s": time.monotonic() - began}


def measure_demo(out: Path) -> tuple[float, dict[str, dict[str, Any]]]:
    """Run the demo; return its seconds, and the manifests of its steps."""
    began = time.monotonic()
    _askback("demo", "--out", str(out))
    seconds = time.monotonic() - began
    return seconds, {file.parent.name: json.loads(file.read_text()) for file in sorted(out.glob("*/manifest.json"))}


def _askback(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "askback", *words], check=True, stdout=subprocess.DEVNULL)


def measure_plan(out: Path | None = None, *, writes: bool = False) -> Iterator[Figure]:
    """Plan the demo and run it; yield how far the plan was off, and what else there is to know of it."""
    with tempfile.TemporaryDirectory() as scratch:
        planned = plan(Path(scratch))
        seconds, manifests = measure_demo(out or Path(scratch) / "demo")
    said = planned["all"]["hours"]
    expected = said["middle"] * 3600
    yield Figure("plan of the demo, off by this share of the measured time", abs(expected / seconds - 1), ASKED, True)
    yield Figure("seconds the plan took", planned["took_s"], 60, True)
    yield Figure("seconds the demo took", seconds)
    yield Figure("seconds the plan said, least", said["low"] * 3600)
    yield Figure("seconds the plan said", expected)
    yield Figure("seconds the plan said, most", said["high"] * 3600)
    if writes:
        write("plan", table(planned, manifests, seconds), SCALE)


def table(planned: dict[str, Any], manifests: dict[str, dict[str, Any]], seconds: float) -> str:
    """Return what was planned beside what was measured, as Markdown."""
    lines = [
        "| step | rows planned | rows read | seconds planned | (low–high) | seconds taken |",
        "|---|---|---|---|---|---|",
    ]
    own = sum(manifest["cost"]["seconds"] for manifest in manifests.values())
    rest = {"start": seconds - own}  # what no step accounts for: start, data set, cards, report
    for step in planned["steps"]:
        name, hours = step["step"], step["hours"]
        done = manifests.get(name)
        taken = f"{done['cost']['seconds']:.1f}" if done else f"{rest[name]:.1f} (with publish)" if name in rest else ""
        low, middle, high = (hours[end] * 3600 for end in ("low", "middle", "high"))
        rows = f"{step['rows']['middle']:.0f} | {done['read']}" if done else " | "
        lines.append(f"| {name} | {rows} | {middle:.1f} | {low:.1f}–{high:.1f} | {taken} |")
    low, middle, high = (planned["all"]["hours"][end] * 3600 for end in ("low", "middle", "high"))
    lines.append(f"| **all** | | | **{middle:.1f}** | {low:.1f}–{high:.1f} | **{seconds:.1f}** |")
    return (
        f"`askback plan` and then `askback demo`, {machine()}; the plan took {planned['took_s']:.0f} s.\n\n"
        + "\n".join(lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the run (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/scale.md")
    add_flags(parser, writes=False)
    args = parser.parse_args()
    show(measure_plan(args.out, writes=args.write), args)


if __name__ == "__main__":
    main()
