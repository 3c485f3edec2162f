"""Make one score of the signals of a candidate, and keep the best candidates.

Takes: candidate Pairs, the Judgements of each signal by its name.  Gives: kept Pairs with their score, or Rejects.
Never: asks a model, gives a score where a signal that makes it has none, or sees what people said of a document.

A candidate is lost to the first of these that applies: a deciding signal has no score (under that outcome's name),
`below_least`, `not_best_of_passage`, `below_threshold`, `not_selected`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from askback import metrics
from askback.calibration import Calibration
from askback.errors import DataError
from askback.options import CurateOptions, SignalName
from askback.records import Judgement, Pair, Reject, excerpt

GRADES = ("expected", "reasoned")
"""Signals that are grades of a rubric, which mean something by themselves; the others only order the candidates."""
NO_FAULT = ("too_long", "unfit_instruction", "killed_worker")
"""Outcomes without a score that say nothing against the judge: no room for the pair, nothing worth judging, nobody to
judge it."""

Signals = Mapping[str, Sequence[Judgement]]
Pick = Callable[[Sequence[str], Sequence[float], int], list[int]]
"""Texts, their scores, a count -> places of so many texts: a selection that is more than the best scores."""
Losses = dict[str, tuple[str, str]]
"""Pair id -> reason and detail."""


# --- from signals to a score


def combine(signals: Signals, options: CurateOptions, calibration: Calibration | None = None) -> dict[str, float]:
    """Return pair id -> score; a pair for which one of the signals that make the score has none is not in it.

    A grade alone is the score as it is. Whatever else is mapped to its rank, from 1 to 5 with ties sharing theirs;
    of several signals it is the mean of these. A calibration takes the values as they are.

    Raises:
        DataError: a signal was not measured.
    """
    names = _made_of(options, calibration)
    if calibration is not None:
        found = {pair: calibration.score(row) for pair, row in _complete(signals, names).items()}
        return {pair: score for pair, score in found.items() if score is not None}
    return _values(signals, names[0]) if len(names) == 1 and names[0] in GRADES else _mean_ranks(signals, names)


def _mean_ranks(signals: Signals, names: Sequence[str]) -> dict[str, float]:
    rows = _complete(signals, names)
    ranked = [to_ranks([row[name] for row in rows.values()]) for name in names]
    return {pair: sum(ranks) / len(names) for pair, *ranks in zip(rows, *ranked, strict=True)}


def to_ranks(values: Sequence[float]) -> list[float]:
    """Return each value's rank from 1, the lowest, to 5, the highest; equal values share the mean of theirs."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    top = max(1, len(values) - 1)
    return [1 + 4 * (sum(places[value]) / len(places[value])) / top for value in values]


def deciding(options: CurateOptions, calibration: Calibration | None = None) -> tuple[str, ...]:
    """Return the signals without which a candidate is not kept, those that make the score first."""
    return tuple(dict.fromkeys((*_made_of(options, calibration), *options.rerank, *options.least)))


def _made_of(options: CurateOptions, calibration: Calibration | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(calibration.signals if calibration is not None else options.judge))


def _complete(signals: Signals, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return pair id -> signal -> value, of the pairs for which every one of the signals has a value."""
    found = {name: _values(signals, name) for name in names}
    shared = [pair for pair in found[names[0]] if all(pair in values for values in found.values())]
    return {pair: {name: found[name][pair] for name in names} for pair in shared}


def _values(signals: Signals, name: str) -> dict[str, float]:
    return {said.pair: said.score for said in _judgements(signals, name) if said.score is not None}


def _judgements(signals: Signals, name: str) -> Sequence[Judgement]:
    if name not in signals:
        raise DataError(
            f"the signal `{name}` was not measured, only {', '.join(signals) or 'none'}; "
            f"name it in curate.judge, or in curate.beside where a calibration makes the score"
        )
    return signals[name]


# --- who is kept


def keep(
    pairs: Iterable[Pair],
    signals: Signals,
    options: CurateOptions,
    calibration: Calibration | None = None,
    pick: Pick | None = None,
) -> Iterator[Pair | Reject]:
    """Yield each candidate in order: kept with its score, or why it is not; of one passage at most one is kept.

    `pick` makes the selection of `curate.select = "diverse"`.

    Raises:
        DataError: a signal was not measured, or a pair was lost in one.
    """
    pairs = list(pairs)
    scores = combine(signals, options, calibration)
    worth = _worth(signals, options.rerank) if options.rerank else scores
    rules: list[Callable[[list[Pair]], Losses]] = [
        lambda left: _without_score(left, signals, deciding(options, calibration)),
        lambda left: _below_least(left, signals, options.least),
        lambda left: _not_best(left, worth),
        lambda left: _below_floor(left, scores, keep_floor([scores[p.id] for p in left], options, calibration)),
        lambda left: _not_selected(left, scores, options, pick),
    ]
    lost: Losses = {}
    for rule in rules:
        lost |= rule([pair for pair in pairs if pair.id not in lost])
    for pair in pairs:
        if pair.id in lost:
            yield Reject(pair.id, *lost[pair.id], pair.source)
        else:
            yield replace(pair, score=round(scores[pair.id], 6))


def _worth(signals: Signals, names: Sequence[str]) -> dict[str, float]:
    """Return what picks among the candidates of a passage: a signal as it is, or the mean of the ranks of several."""
    return _values(signals, names[0]) if len(names) == 1 else _mean_ranks(signals, names)


def keep_floor(scores: Sequence[float], options: CurateOptions, calibration: Calibration | None = None) -> float:
    """Return the lowest score kept: that of the last row of the best `keep_top` share, or a fixed one.

    The fixed one is `keep_from`, unless a calibration found the score that reaches the wanted precision.
    """
    if options.keep_top and scores:
        count = max(1, round(options.keep_top * len(scores)))
        return sorted(scores, reverse=True)[count - 1]
    return options.keep_from if calibration is None else calibration.keep_from


def _without_score(pairs: Sequence[Pair], signals: Signals, names: Sequence[str]) -> Losses:
    lost: Losses = {}
    for name in names:
        said = {judgement.pair: judgement for judgement in _judgements(signals, name)}
        for pair in pairs:
            if pair.id not in said:
                raise DataError(f"{pair.id}: no judgement of the signal `{name}`, which judged {len(said)} others")
            found = said[pair.id]
            if found.score is None:
                why = f"{found.detail}: " if found.outcome in NO_FAULT and found.detail else ""
                lost.setdefault(pair.id, (found.outcome, why + excerpt(pair.instruction)))
    return lost


def _below_least(pairs: Sequence[Pair], signals: Signals, least: Mapping[SignalName, float]) -> Losses:
    lost: Losses = {}
    for name, bound in least.items():
        values = _values(signals, name)
        for pair in pairs:
            if values[pair.id] < bound:
                lost.setdefault(pair.id, ("below_least", f"{name} {values[pair.id]:.3f} < {bound:g}"))
    return lost


def _not_best(pairs: Sequence[Pair], worth: Mapping[str, float]) -> Losses:
    """Of each passage all but the best candidate; of equals the one asked for first is the best."""
    best: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.candidate, pair.id)):
        if pair.passage not in best or worth[pair.id] > worth[best[pair.passage].id]:
            best[pair.passage] = pair
    return {
        pair.id: ("not_best_of_passage", f"{worth[pair.id]:.3f} <= {worth[best[pair.passage].id]:.3f}")
        for pair in pairs
        if pair is not best[pair.passage]
    }


def _below_floor(pairs: Sequence[Pair], scores: Mapping[str, float], floor: float) -> Losses:
    low = (pair for pair in pairs if scores[pair.id] < floor)
    return {pair.id: ("below_threshold", f"score {scores[pair.id]:.3f} < {floor:.3f}") for pair in low}


def _not_selected(
    pairs: Sequence[Pair], scores: Mapping[str, float], options: CurateOptions, pick: Pick | None
) -> Losses:
    """Of more than `keep_most` pairs those left out; a diverse selection spreads over the instructions."""
    if not options.keep_most or len(pairs) <= options.keep_most:
        return {}
    ranked = sorted(pairs, key=lambda pair: (-scores[pair.id], pair.id))  # arrival order must not matter
    chosen: Iterable[int] = range(options.keep_most)
    if options.select == "diverse":
        assert pick is not None, "keep: curate.select = diverse, and no `pick` was handed in"
        chosen = pick([pair.instruction for pair in ranked], [scores[pair.id] for pair in ranked], options.keep_most)
    lost = set(range(len(ranked))) - set(chosen)
    return {ranked[n].id: ("not_selected", f"score {scores[ranked[n].id]:.3f}") for n in sorted(lost)}


# --- when to stop


def check_parsed(signals: Signals, options: CurateOptions, calibration: Calibration | None = None) -> None:
    """Stop when a deciding signal gave too many of the pairs it could read no score.

    Raises:
        DataError: the share is above `curate.max_unparsed`; three of the replies are shown, and what would help.
    """
    for name in deciding(options, calibration):
        read = [said for said in _judgements(signals, name) if said.outcome not in NO_FAULT]
        failed = [said for said in read if said.score is None]
        if len(failed) > options.max_unparsed * len(read):
            shown = "\n".join(f"  {said.pair}: {excerpt(said.detail) or said.outcome}" for said in failed[:3])
            raise DataError(
                f"{len(failed)} of {len(read)} judgements of the signal `{name}` hold no score, more than "
                f"curate.max_unparsed = {options.max_unparsed:g} allows; such as\n{shown}\n{_stronger(name)}"
            )


def _stronger(name: str) -> str:
    """Return what helps against a judge that gives no score."""
    ways = [
        "use a stronger engine.base",
        "--set curate.judge=likelihood: it needs no grades, and any base can give it",
        "a higher curate.max_unparsed, where losing these candidates is fine",
    ]
    if name == "reasoned":
        ways[1:1] = [
            "--set curate.judge=expected: it reads the grade off the probabilities of the digits",
            "more room for reasons that are cut off: curate.max_new_tokens",
        ]
    return "what helps, one of:\n" + "\n".join(f"  {way}" for way in ways)


def check_kept(
    outcomes: Sequence[Pair | Reject],
    scores: Mapping[str, float],
    options: CurateOptions,
    calibration: Calibration | None = None,
) -> None:
    """Stop when too few rows are left to tune on; `scores` are those of `combine`.

    Raises:
        DataError: with what the others were lost to, the histogram of the scores and the option that would help.
    """
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Reject))
    kept = len(outcomes) - reasons.total()
    if kept >= options.min_kept:
        return
    lost = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    raise DataError(
        f"{kept} of {len(outcomes)} candidates are kept, fewer than curate.min_kept = {options.min_kept} "
        f"({lost or 'none was lost'}); the scores:\n{_bars(list(scores.values()))}\n"
        f"{_remedy(kept, reasons, options, calibration)}"
    )


def _bars(scores: Sequence[float]) -> str:
    lowest = 0 if any(score < 1 for score in scores) else 2
    edges = [half / 2 for half in range(lowest, 11)]
    counts = metrics.histogram(scores, edges)
    return "\n".join(f"  {low:.1f} to {low + 0.5:.1f}: {count}" for low, count in zip(edges, counts, strict=False))


def _remedy(kept: int, reasons: Counter[str], options: CurateOptions, calibration: Calibration | None) -> str:
    """Return the option that would let enough candidates through; where none would, more documents do."""
    if 0 < options.keep_most < options.min_kept:
        return f"curate.keep_most = {options.keep_most} allows no more: raise it, or lower curate.min_kept"
    reached = kept + reasons["below_threshold"] + reasons["not_selected"]
    if reached >= options.min_kept:
        share = min(1.0, 2 * options.min_kept / reached)
        floor = "lower curate.keep_from" if calibration is None else "calibrate for a lower precision"
        return f"{floor}, or keep the best share: --set curate.keep_top={share:.2f}"
    for reason, remedy in (
        ("below_least", "lower the bounds of curate.least"),
        ("unfit_instruction", "lower curate.instruction_gate"),
        ("too_long", "use an engine.base that reads longer texts, or lower passages.max_chars"),
    ):
        if reached + reasons[reason] >= options.min_kept:
            return remedy
    return "there are too few candidates: give more documents, or lower curate.min_kept"
