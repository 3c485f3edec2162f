"""Time and memory of the demo, step by step, in a process of its own.

Takes: --out (a folder that is not there yet).  Gives: a Markdown table; with --write it goes into docs/benchmarks.md.
Never: reuses a finished step: what is printed was measured in this run.

    python -m benchmarks.demo --write
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import machine, write


def measure(out: Path) -> tuple[float, float]:
    """Run the demo; return seconds and the highest resident memory in GB."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "askback", "demo", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def table(out: Path, seconds: float, memory_gb: float) -> str:
    """Return what was measured as Markdown."""
    lines = ["| step | read | written | rejected | seconds |", "|---|---|---|---|---|"]
    spent = 0.0
    for file in sorted(out.glob("*/manifest.json")):
        step = json.loads(file.read_text())
        spent += step["cost"]["seconds"]
        row = (step["step"], step["read"], step["written"], step["rejected"], step["cost"]["seconds"])
        lines.append("| " + " | ".join(map(str, row)) + " |")
    lines.append(f"| start, data set, cards, report | | | | {seconds - spent:.1f} |")
    lines.append(f"| **whole** | | | | **{seconds:.1f}** |")
    return (
        f"`askback demo`, {machine()}; highest resident memory {memory_gb:.2f} GB (asked: under 300 s and 2 GB).\n\n"
        + "\n".join(lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the run (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch) / "demo"
        text = table(out, *measure(out))
    print(text)
    if args.write:
        write("demo", text)


if __name__ == "__main__":
    main()
