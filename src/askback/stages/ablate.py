"""What each part of the method adds: which rows each variant is tuned on, and how the variants compare.

Takes: training pairs, candidates, kept pairs; held-out losses by pair id.  Gives: variants, their rows, a report.
Never: trains or measures: ablating.py does, and hands the losses back.

The variants are those of Li et al. 2023, section 3.4: neither, seed, curated, both; beside curated rows as many that
nobody chose; with and without the lines that tag seed and augmented rows; one round and two.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from statistics import fmean
from typing import Any

from askback import metrics
from askback.records import Pair

ROUNDING = 1e-9
"""Smaller differences are what is left of rounding."""

Losses = Mapping[str, float]
"""Held-out loss in nats per token by pair id."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One training set: seed pairs or not, and which augmented pairs; round 0 is a blind draw among all candidates."""

    name: str
    seed: bool = False
    augmented: bool = False
    round: int = 0
    tags: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """The first variant is said to have the lower loss."""

    better: str
    worse: str


def variants(rounds: int) -> list[Variant]:
    """Return every variant; what was kept in the last round stands for `curated`."""
    last = rounds
    made = [
        Variant("none"),
        Variant("seed", seed=True),
        Variant("uncurated", augmented=True),
        Variant("curated", augmented=True, round=last),
        Variant("seed + uncurated", seed=True, augmented=True),
        Variant("seed + curated", seed=True, augmented=True, round=last),
        Variant("seed + curated, no tags", seed=True, augmented=True, round=last, tags=False),
    ]
    earlier = [Variant(f"seed + curated, round {n}", seed=True, augmented=True, round=n) for n in range(1, last)]
    return [*made, *earlier]


def claims(rounds: int) -> list[Claim]:
    """Return the orderings that the paper reports, each to be tested."""
    made = [
        Claim("seed", "none"),
        Claim("seed + curated", "seed"),
        Claim("seed + curated", "curated"),
        Claim("curated", "uncurated"),
        Claim("seed + curated", "seed + uncurated"),
        Claim("seed + curated", "seed + curated, no tags"),
    ]
    return [*made, *(Claim("seed + curated", f"seed + curated, round {n}") for n in range(1, rounds))]


def rows_for(
    variant: Variant,
    seed_pairs: Sequence[Pair],
    candidates: Sequence[Pair],
    kept: Mapping[int, Sequence[Pair]],
    seed: int,
) -> list[Pair]:
    """Return what a variant is tuned on; uncurated rows are as many as the last round kept, drawn by `seed`."""
    rows = list(seed_pairs) if variant.seed else []
    if variant.augmented and variant.round:
        rows += kept[variant.round]
    elif variant.augmented:
        rows += _drawn(candidates, len(kept[max(kept)]), seed)
    return rows


def _drawn(candidates: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """Return one candidate each of `count` passages, drawn without looking at any score."""
    by_passage = {pair.passage: pair for pair in sorted(candidates, key=lambda pair: (pair.passage, -pair.candidate))}
    pairs = [by_passage[name] for name in sorted(by_passage)]
    return [replace(pair, score=None) for pair in Random(f"{seed}/uncurated").sample(pairs, min(count, len(pairs)))]


def summarise(
    results: Mapping[str, Mapping[int, Losses]], tested: Iterable[Claim], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return each variant's held-out loss and the test of each claim; `table` wants the number of `rows` as well.

    `results` maps variant -> training seed -> losses. Intervals are over held-out pairs, each pair's loss being the
    mean over the training seeds; the loss of every single seed stands beside them.
    """
    ids = sorted(set.intersection(*(set(losses) for runs in results.values() for losses in runs.values())))
    means = {name: _over_seeds(runs, ids) for name, runs in results.items()}
    return {
        "n": len(ids),
        "variants": {
            name: {
                "nll": asdict(metrics.bootstrap_mean(values, resamples=resamples, seed=seed)),
                "seeds": {str(run): fmean(losses[id] for id in ids) for run, losses in results[name].items()},
            }
            for name, values in means.items()
        },
        "claims": list(_tests(means, results, ids, tested, resamples, seed)),
    }


def _over_seeds(runs: Mapping[int, Losses], ids: Sequence[str]) -> list[float]:
    return [fmean(losses[id] for losses in runs.values()) for id in ids]


def _tests(
    means: Mapping[str, Sequence[float]],
    results: Mapping[str, Mapping[int, Losses]],
    ids: Sequence[str],
    tested: Iterable[Claim],
    resamples: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    for claim in tested:
        if claim.better not in means or claim.worse not in means:
            continue
        found = metrics.paired_difference(means[claim.better], means[claim.worse], resamples=resamples, seed=seed)
        yield {
            "better": claim.better,
            "worse": claim.worse,
            **asdict(found),
            "seeds": list(_of_trainings(results[claim.better], results[claim.worse], ids)),
            "holds": found.high < -ROUNDING,
            "verdict": _verdict(found),
        }


def _verdict(test: metrics.PairedTest) -> str:
    """Say what an interval says of a claim: one that holds zero shows neither it nor its contrary."""
    if test.high < -ROUNDING:
        return "holds"
    return "reversed" if test.low > ROUNDING else "not shown"


def _of_trainings(better: Mapping[int, Losses], worse: Mapping[int, Losses], ids: Sequence[str]) -> Iterator[float]:
    """Yield the mean difference of each training from that of the same seed, or from the only one there is."""
    for run, losses in better.items():
        other = worse[run] if run in worse else worse[min(worse)] if len(worse) == 1 else None
        if other is not None:
            yield fmean(losses[id] - other[id] for id in ids)


def table(found: Mapping[str, Any]) -> str:
    """Return variants and claims as plain text."""
    lines = [f"{'tuned on':<28}{'rows':>6}{'nats per token [95 %]':>28}   each training"]
    for name, one in found["variants"].items():
        score, seeds = one["nll"], ", ".join(f"{value:.4f}" for value in one["seeds"].values())
        rows = found["rows"][name]
        lines.append(f"{name:<28}{rows:>6}{score['value']:>10.4f} [{score['low']:.4f}, {score['high']:.4f}]   {seeds}")
    lines += [
        "",
        f"lower loss on {found['n']} held-out pairs, as the paper has it; paired differences [95 %], trainings:",
    ]
    for claim in found["claims"]:
        low, high = f"{claim['low']:+.4f}", f"{claim['high']:+.4f}"
        seeds = ", ".join(f"{value:+.4f}" for value in claim["seeds"])
        name = f"{claim['better']} < {claim['worse']}"
        lines.append(f"  {claim['verdict']:<11}{name}: {claim['difference']:+.4f} [{low}, {high}]   {seeds}")
    return "\n".join(lines)
