"""What curation and evaluation reach, measured anew beside what was asked of them.

Takes: the embedded default; --data (ratings nobody here wrote).  Gives: one line per figure; see figures.py.
Never: holds a figure of its own.

    python -m benchmarks.judge --data ../shared/data --check
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from askback import agreement
from askback.chance import row_seed
from askback.config import check_options
from askback.embedded import DEMO
from askback.grades import Grade, Preference, merge_grades, preferences_within
from askback.options import CurateOptions
from askback.ports import Engine
from askback.prompts import parse_score
from askback.readers.labels import read_labels
from askback.records import Judgement, Pair
from askback.stages.attacks import measure_shift, plant
from askback.stages.calibrate import hang_together
from askback.tasks import Judge, open_signal
from benchmarks import judge_speed
from benchmarks.figures import Figure, add_flags, show

ROOT = Path(__file__).parents[1]
RATINGS = ("llmbar_natural.json", "vicuna_answers_scored.jsonl.gz")
ASKED_CLAIMS = (("seed + curated", "seed"), ("curated", "uncurated"))
ROWS_SPEED, ATTACKS, MOST_PREFERENCES = 48, 200, 150


def measure_ablation(out: Path, seeds: int) -> Iterator[Figure]:
    """The orderings of the paper on the embedded default; the interval must lie below zero."""
    from askback.ablating import ablate

    found = ablate(check_options(DEMO, "demo"), out, seeds=seeds)
    for claim in found["claims"]:
        name = f"{claim['better']} - {claim['worse']}, nats: upper end of the interval"
        asked = (claim["better"], claim["worse"]) in ASKED_CLAIMS
        yield Figure(f"{claim['better']} - {claim['worse']}, nats: mean", claim["difference"])
        yield Figure(name, claim["high"], 0 if asked else None, at_most=True)


def planted_perfect(preferences: Sequence[Preference]) -> Judge:
    """A judge that knows people's choices: whatever is preferred stands above what it is preferred to."""
    ranks = {pair.id: 0 for one in preferences for pair in (one.better, one.worse)}
    for _ in ranks:  # the longest chain of choices is no longer than there are pairs
        for one in preferences:
            ranks[one.better.id] = max(ranks[one.better.id], ranks[one.worse.id] + 1)
    return lambda pairs: (_scored(pair, float(ranks[pair.id])) for pair in pairs)


def planted_random(pairs: Sequence[Pair]) -> Iterable[Judgement]:
    """A judge that throws a die."""
    return (_scored(pair, random.Random(row_seed(0, pair.id, 0)).uniform(1, 5)) for pair in pairs)


def _scored(pair: Pair, score: float) -> Judgement:
    return Judgement(pair=pair.id, round=1, judge="planted", score=score)


def measure_agreement(data: Path, engine: Engine, forward: Path, backward: Path) -> Iterator[Figure]:
    """Pairwise accuracy of every judge mode on people's preferences, beside two judges planted to test the test."""
    for name in RATINGS:
        rows = list(read_labels(data / "ratings" / name))
        preferences = [row for row in rows if isinstance(row, Preference)]
        preferences += preferences_within(merge_grades(row for row in rows if isinstance(row, Grade)))
        if len(preferences) > MOST_PREFERENCES:
            preferences = random.Random(0).sample(preferences, MOST_PREFERENCES)
        pairs = list({pair.id: pair for one in preferences for pair in (one.better, one.worse)}.values())
        groups = hang_together(pairs)
        judges: dict[str, Judge] = {"planted perfect": planted_perfect(preferences), "planted random": planted_random}
        for signal in ("expected", "likelihood", "backward"):
            judges[signal] = open_signal(engine, signal, forward, backward, CurateOptions(), round=1, seed=0)
        additive = CurateOptions(rubric="additive")
        judges["expected, additive"] = open_signal(engine, "expected", forward, backward, additive, round=1, seed=0)
        for judge, call in judges.items():
            scores = {row.pair: row.score for row in call(pairs)}
            both = [(one, scores[one.better.id], scores[one.worse.id]) for one in preferences]
            scored = [(one, better, worse) for one, better, worse in both if better is not None and worse is not None]
            draws = agreement.Draws(2000, 0, tuple(groups[one.better.id] for one, _, _ in scored))
            found = agreement.preference_accuracy([(better, worse) for _, better, worse in scored], draws)
            title = f"{name.split('.')[0]}, {judge}: pairwise accuracy"
            if found is None:
                yield Figure(title, math.nan)
                continue
            asked = {"planted perfect": 1.0}.get(judge)
            yield Figure(f"{title} (n {found.n}, {found.low:.2f} to {found.high:.2f})", found.value, asked)
            if judge == "planted random":
                away = abs(found.value - 0.5)
                yield Figure(f"{name.split('.')[0]}, planted random: distance from chance", away, 0.1, at_most=True)


def measure_replies() -> Iterator[Figure]:
    """Replies of every odd shape: the exact score or none."""
    from tests.judge_replies import REPLIES

    right = sum(parse_score(reply) == five and parse_score(reply, 0) == six for reply, five, six in REPLIES)
    yield Figure("judge replies read exactly, or refused, on both scales", right / len(REPLIES), 1.0)
    yield Figure("judge replies tried", len(REPLIES), 150)


def measure_attacks(engine: Engine, forward: Path, backward: Path, candidates: Sequence[Pair]) -> Iterator[Figure]:
    """How far a score planted in the document moves the judges."""
    attacks = plant(candidates, ATTACKS, 0)
    for signal in ("expected", "likelihood"):
        found = measure_shift(attacks, open_signal(engine, signal, forward, backward, CurateOptions(), round=1, seed=0))
        yield Figure(f"{found['n']} planted scores, mean shift of {signal}", found["shift"]["difference"])


def measure_speed() -> Iterator[Figure]:
    """One prefill judgement beside generate-and-parse on the same rows."""
    found = judge_speed.measure(ROWS_SPEED)
    yield Figure("expected score, rows per second over generate-and-parse", found["ratio"], 10)
    yield Figure("shared prefix, rows per second over none", found["prefix_ratio"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, help="keep run and ablation here")
    parser.add_argument("--seeds", type=int, default=3)
    add_flags(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        show(_all(args.out or Path(name), args.data, args.seeds), args, "judge")


def _all(out: Path, data: Path, seeds: int) -> Iterator[Figure]:
    from askback import api
    from askback.finished import rows_of

    yield from measure_replies()
    yield from measure_ablation(out, seeds)
    forward, backward = out / "run" / "models" / "forward", out / "run" / "models" / "backward"
    engine = api.open_for(forward)
    yield from measure_attacks(engine, forward, backward, rows_of(out / "run", "gated", Pair))
    if (data / "ratings").is_dir():
        yield from measure_agreement(data, engine, forward, backward)
    yield from measure_speed()
    print(json.dumps(json.loads((out / "ablation.json").read_text())["variants"], indent=1))


if __name__ == "__main__":
    main()
