"""What the embedded default reaches, measured anew beside what was asked of it.

Takes: the embedded base, pairs and documents; --data (real pairs nobody here wrote).
Gives: one line per figure; with --check the exit code 1 and the names of those that fall short.
Never: holds a figure of its own: every number is measured in this run, the verdicts are read from docs/log.md.

    python -m benchmarks.tiny --data ../shared/data --check
"""

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, add_flags, show

ROOT = Path(__file__).parents[1]
LOG = ROOT / "docs" / "log.md"
ENGLISH = frozenset("the of and to in is that for it as with on be are this by an or from you can how what".split())


def english(text: str) -> bool:
    """Whether at least a sixth of the words are common English ones."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return bool(words) and sum(word in ENGLISH for word in words) * 6 >= len(words)


def askback(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "askback", *arguments], check=True, stdout=subprocess.DEVNULL)


def measure_demo(out: Path) -> Iterator[Figure]:
    """The demo: time, memory, the backward model beside its floors, the curation beside the labels."""
    began = time.monotonic()
    askback("demo", "--out", str(out))
    yield Figure("demo, seconds", time.monotonic() - began, 300, at_most=True)
    yield Figure("demo, GB", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2, at_most=True)
    metrics = json.loads((out / "metrics.json").read_text())
    yield from _beside_floors("embedded", metrics["evaluation"], points=5)
    yield Figure("embedded, retrieval first of 10", metrics["evaluation"]["backward"]["retrieval"]["value"], 0.7)
    for number, found in metrics["rounds"].items():
        yield Figure(f"embedded, area under ROC, round {number}", found["labels"]["auc"]["value"], 0.75)
        rubric = found["signals"].get("expected", {}).get("auc")
        yield Figure(f"rubric judge on the same candidates, round {number}", rubric["value"] if rubric else math.nan)


def _beside_floors(name: str, found: dict[str, Any], *, points: float) -> Iterator[Figure]:
    value, floors = found["backward"]["rougeL"]["value"], found["floors"]
    better = max(floors, key=lambda floor: floors[floor]["rougeL"]["value"])
    yield Figure(f"{name}, ROUGE-L over {better}", value - floors[better]["rougeL"]["value"], points)
    yield Figure(f"{name}, low end of that difference", found["tests"][better]["low"], 0)


def measure_real(data: Path, scratch: Path) -> Iterator[Figure]:
    """Real pairs: tuned on the Guanaco train part, measured on English rows of its evaluation part."""
    rows = [json.loads(line) for line in (data / "oasst/guanaco_eval_part.jsonl").open(encoding="utf-8")]
    held = scratch / "guanaco_eval_en.jsonl"
    held.write_text("".join(json.dumps(row) + "\n" for row in rows if english(row["text"])), encoding="utf-8")
    model, found = scratch / "real", scratch / "real.json"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    settings = ["--base", "tiny", "--set", "seed.held_out=0.0001", "--set", "backward.steps=230"]
    train = str(data / "oasst/guanaco_train_en.jsonl.gz")
    askback("train", "backward", "--seed", train, "--out", str(model), *settings)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    yield Figure("real pairs, CPU minutes of tuning", minutes, 10, at_most=True)
    askback("evaluate", "--model", str(model), "--seed", str(held), "--out", str(found),
            "--set", "evaluate.max_new_tokens=48", "--set", "seed.language=\"\"")  # fmt: skip
    metrics = json.loads(found.read_text())
    yield from _beside_floors("real pairs", metrics, points=0)
    yield Figure("real pairs, retrieval first of 10", metrics["backward"]["retrieval"]["value"], 0.75)


def read_verdicts(demo: Path) -> Iterator[Figure]:
    """The forty instructions that were read: those in the log must be those this run generated."""
    rows = json.loads((demo / "metrics.json").read_text())["evaluation"]["backward"]["rows"][:40]
    verdicts = dict(re.findall(r"^\| (.+?) \| (yes|no) \|$", LOG.read_text(encoding="utf-8"), flags=re.M))
    generated = [" ".join(row["generated"].split()).replace("|", "/") for row in rows]
    yield Figure("of 40 generated instructions, read and found in the log", sum(g in verdicts for g in generated), 40)
    yield Figure("of them grammatical and on the topic", sum(verdicts.get(g) == "yes" for g in generated), 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--demo", type=Path, help="keep the demo here")
    add_flags(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        show(_all(args.demo or scratch / "demo", args.data, scratch), args, "tiny")


def _all(demo: Path, data: Path, scratch: Path) -> Iterator[Figure]:
    yield from measure_demo(demo)
    yield from read_verdicts(demo)
    if data.is_dir():
        yield from measure_real(data, scratch)


if __name__ == "__main__":
    main()
