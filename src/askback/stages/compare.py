"""Two finished runs, set against each other on the held-out pairs that both were measured on.

Takes: two `metrics` dicts, as publish.py defines them.  Gives: differences a - b ready for JSON, and a table of text.
Never: compares rows of different pairs, fills in a row that one run lacks, or names a winner that chance may have made.

    names     [a, b]
    pairs     {both, only_a, only_b}: held-out pairs
    backward  {rougeL, nll, retrieval, similarity: difference}; a figure that neither run has is not there
    forward   {"0", "1", ..: difference of nll}; "last" where the runs ended after different numbers of rounds
    rounds    {"1", ..: difference of the precision of what was kept}, where documents carry labels
    only      {a, b}: forward models and rounds that the other run has not
    notes     [what to know before one of these numbers is believed]

A difference is {a, b: means over the rows both have; difference, low, high, p_value, n, unscored, better: "a", "b" or
None where the interval holds zero}, or {missing: why there is none}. Better is lower for nll and higher elsewhere.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from askback import metrics
from askback.errors import DataError

Found = dict[str, Any]

RESAMPLES = 2000
BACKWARD = {"rougeL": "rougeL", "nll": "nll", "retrieval": "first", "similarity": "similarity"}
"""Figure of a backward model -> what its rows call it."""
LOWER_IS_BETTER = ("nll",)
TITLES = {
    "rougeL": "backward ROUGE-L",
    "nll": "backward nll",
    "retrieval": "backward retrieval",
    "similarity": "backward similarity",
}


def compare_runs(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str] = ("A", "B")) -> Found:
    """Return every difference a - b that two runs allow.

    Raises:
        DataError: a run holds no evaluation, or the runs share no held-out pair.
    """
    one, other = _evaluation(a, names[0]), _evaluation(b, names[1])
    mine, yours = _by_id(one["backward"]), _by_id(other["backward"])
    if not mine.keys() & yours.keys():
        raise DataError(
            f"{names[0]} and {names[1]} share no held-out pair ({len(mine)} and {len(yours)} rows): "
            "want runs with the same seed.path and seed.held_out"
        )
    return {
        "names": list(names),
        "pairs": {
            "both": len(mine.keys() & yours.keys()),
            "only_a": len(mine.keys() - yours.keys()),
            "only_b": len(yours.keys() - mine.keys()),
        },
        "backward": _backward(one["backward"], other["backward"]),
        "forward": _forward(one.get("forward") or {}, other.get("forward") or {}),
        "rounds": _rounds(a.get("rounds") or {}, b.get("rounds") or {}),
        "only": {"a": _only(a, b), "b": _only(b, a)},
        "notes": list(_notes(a, b)),
    }


def compare_table(found: Mapping[str, Any]) -> str:
    """Return a comparison as plain text, one figure a line, and what to know of it below."""
    a, b = found["names"]
    rows = [("", a, b, "a - b", "95 % interval", "p", "n", "better"), *_lines(found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"a: {a}", f"b: {b}", "", *lines, "", *_small_print(found)])


# --- the parts of a run


def _evaluation(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    evaluation = run.get("evaluation") or {}
    if not (evaluation.get("backward") or {}).get("rows"):
        raise DataError(f"{name}: no held-out rows of a backward model in its metrics; want a finished run")
    found: Mapping[str, Any] = evaluation
    return found


def _by_id(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {row["id"]: row for row in report["rows"]}


def _backward(a: Mapping[str, Any], b: Mapping[str, Any]) -> Found:
    found = {
        figure: _paired(a, b, key, lower=figure in LOWER_IS_BETTER)
        for figure, key in BACKWARD.items()
        if any(report.get(figure) or _holds(report["rows"], key) for report in (a, b))
    }
    ranked = [(report.get("retrieval") or {}).get("of") for report in (a, b)]
    if None not in ranked and ranked[0] != ranked[1]:
        found["retrieval"] = {"missing": f"ranked among {ranked[0]} in a and among {ranked[1]} in b"}
    return found


def _forward(a: Mapping[str, Any], b: Mapping[str, Any]) -> Found:
    found = {name: _paired(a[name], b[name], "nll", lower=True) for name in _numbers(a) if name in b}
    if a and b and (last := (_numbers(a)[-1], _numbers(b)[-1]))[0] != last[1]:
        found["last"] = {"of": list(last), **_paired(a[last[0]], b[last[1]], "nll", lower=True)}
    return found


def _rounds(a: Mapping[str, Any], b: Mapping[str, Any]) -> Found:
    both = [name for name in _numbers(a) if name in b and a[name].get("labels") and b[name].get("labels")]
    return {name: _precision(a[name]["labels"], b[name]["labels"]) for name in both}


def _only(run: Mapping[str, Any], other: Mapping[str, Any]) -> Found:
    def names(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return (found.get("evaluation") or {}).get("forward") or {}, found.get("rounds") or {}

    (forward, rounds), (forward_other, rounds_other) = names(run), names(other)
    return {
        "forward": [name for name in _numbers(forward) if name not in forward_other],
        "rounds": [name for name in _numbers(rounds) if name not in rounds_other],
    }


def _numbers(found: Mapping[str, Any]) -> list[str]:
    return sorted(found, key=int)


def _notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    bases = [run.get("base") or {} for run in (a, b)]
    if any(bases[0].get(key) != bases[1].get(key) for key in ("base", "hash")):
        shown = " and ".join(f"{base.get('base', 'unknown')} ({base.get('hash', 'unknown')})" for base in bases)
        yield (
            f"the bases differ: {shown}; nll is nats per token, and says who is better only where both bases split "
            "texts into the same tokens"
        )
    encoders = [_option(run, "evaluate", "encoder") for run in (a, b)]
    if encoders[0] != encoders[1]:
        yield f"similarity was measured by different encoders: {encoders[0] or 'none'} and {encoders[1] or 'none'}"
    seeds = [_option(run, "random_seed") for run in (a, b)]
    if seeds[0] != seeds[1]:
        yield f"the seeds differ ({seeds[0]} and {seeds[1]}): retrieval ranked each pair among other outputs"


def _option(run: Mapping[str, Any], *keys: str) -> Any:
    value: Any = (run.get("run") or {}).get("options") or {}
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


# --- differences


def _paired(a: Mapping[str, Any], b: Mapping[str, Any], key: str, *, lower: bool) -> Found:
    """Return the paired test of a - b over the rows of the same pairs, in the order of their ids."""
    mine, yours = _by_id(a), _by_id(b)
    shared = sorted(mine.keys() & yours.keys())
    for name, rows in (("a", mine), ("b", yours)):
        if not _holds((rows[id] for id in shared), key):
            return {"missing": f"the rows of {name} hold no `{key}`; evaluate that run again"}
    both = [(mine[id].get(key), yours[id].get(key)) for id in shared]
    scored = [(float(x), float(y)) for x, y in both if x is not None and y is not None]
    if len(scored) < 2:
        return {"missing": f"{len(scored)} of {len(both)} shared rows have a `{key}` in both runs: want 2 or more"}
    left, right = [x for x, _ in scored], [y for _, y in scored]
    test = metrics.paired_difference(left, right, resamples=RESAMPLES, seed=0)
    more = {"unscored": len(both) - len(scored), "better": _better(test.low, test.high, lower=lower)}
    return {"a": fmean(left), "b": fmean(right), **asdict(test), **more}


def _holds(rows: Iterable[Mapping[str, Any]], key: str) -> bool:
    return any(key in row for row in rows)


def _better(low: float, high: float, *, lower: bool) -> str | None:
    if low <= 0 <= high:
        return None
    return "a" if (high < 0) == lower else "b"


def _precision(a: Mapping[str, Any], b: Mapping[str, Any]) -> Found:
    """Return the difference of two precisions, with an interval made of both of theirs (Newcombe 1998, method 10).

    It holds for two samples apart. Two runs that judged the same candidates are surer than it says.
    """
    one, other = a.get("precision"), b.get("precision")
    if not one or not other:
        return {"missing": "nothing with a label was kept"}
    difference = one["value"] - other["value"]
    low = difference - math.hypot(one["value"] - one["low"], other["high"] - other["value"])
    high = difference + math.hypot(one["high"] - one["value"], other["value"] - other["low"])
    sides = {"a": one["value"], "b": other["value"], "n_a": one["n"], "n_b": other["n"]}
    return {**sides, "difference": difference, "low": low, "high": high, "better": _better(low, high, lower=False)}


# --- as text


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for figure, each in found["backward"].items():
        yield _line(TITLES[figure], each)
    for number, each in found["forward"].items():
        yield _line(f"forward {' and '.join(each['of']) if number == 'last' else number} nll", each)
    for number, each in found["rounds"].items():
        yield _line(f"round {number} precision", each)


def _line(title: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    if "missing" in each:
        return (title, "-", "-", "-", "-", "-", "-", f"not compared: {each['missing']}")
    n = str(each["n"]) if "n" in each else f"{each['n_a']}, {each['n_b']}"
    p = f"{each['p_value']:.4f}" if "p_value" in each else "-"
    interval = f"[{each['low']:+.4f}, {each['high']:+.4f}]"
    numbers = (f"{each['a']:.4f}", f"{each['b']:.4f}", f"{each['difference']:+.4f}")
    return (title, *numbers, interval, p, n, each["better"] or "neither")


def _small_print(found: Mapping[str, Any]) -> Iterator[str]:
    pairs = found["pairs"]
    yield (
        f"{pairs['both']} held-out pairs are in both runs; {pairs['only_a']} only in a and {pairs['only_b']} only in b "
        "are left out."
    )
    for name in ("a", "b"):
        for kind, title in (("forward", "forward model"), ("rounds", "round")):
            if numbers := found["only"][name][kind]:
                yield f"Only {name} has {title} {', '.join(numbers)}."
    tests = sum("p_value" in each for part in ("backward", "forward") for each in found[part].values())
    yield f"{tests} tests, none corrected for the others: by chance alone one in twenty has p below 0.05."
    yield from (f"Note: {note}." for note in found["notes"])
