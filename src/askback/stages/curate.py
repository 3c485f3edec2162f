"""Judge candidates with the forward model of the round before, and keep the best.

Takes: Pairs, one of the calls Choose, Generate, Likelihood.  Gives: Judgements; then kept Pairs, or Rejects.
Never: makes a number of a reply that holds none, or sees what people said of a document.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from askback.chance import row_seed
from askback.errors import DataError
from askback.options import CurateOptions
from askback.ports import Ask, Choose, Generate, Likelihood, Sampling
from askback.prompts import DIGITS, Layout, Rubric, parse_score
from askback.records import Judgement, Pair, Reject, excerpt

RETRIES = 2
TOO_LONG = "too_long"
"""A pair the judge has no room to read: rejected under that name, and no sign of a weak judge."""


def judge_expected(
    pairs: Sequence[Pair], choose: Choose, rubric: Rubric, *, round: int, layout: Layout | None = None
) -> Iterator[Judgement]:
    """Yield the expected score under the judge's own probabilities of the digits 1 to 5: one forward pass each."""
    prompts = (rubric.prompt(pair, reasons=False, layout=layout) for pair in pairs)
    for pair, choice in zip(pairs, choose(prompts, DIGITS), strict=True):
        if choice is None:
            yield Judgement(pair=pair.id, round=round, judge="expected", score=None, outcome=TOO_LONG)
            continue
        inside = sum(choice.probabilities)
        expected = sum(n * p for n, p in enumerate(choice.probabilities, start=1)) / inside if inside > 0 else None
        yield Judgement(
            pair=pair.id,
            round=round,
            judge="expected",
            score=expected,
            outcome="scored" if expected is not None else "no_mass_on_digits",
            distribution=(*choice.probabilities, choice.outside),
        )


def judge_reasoned(
    pairs: Sequence[Pair],
    ask: Generate,
    rubric: Rubric,
    options: CurateOptions,
    *,
    round: int,
    seed: int,
    layout: Layout | None = None,
) -> Iterator[Judgement]:
    """Yield the score of each reply's last score line; after two more tries without one, `parse_failed`."""
    replies: dict[str, str] = {}
    scores: dict[str, float] = {}
    for attempt in range(1 + RETRIES):
        open_pairs = [pair for pair in pairs if pair.id not in scores]
        sampling = Sampling(0.0 if attempt == 0 else 0.7, 0.9, options.max_new_tokens)
        asks = [
            Ask(rubric.prompt(p, reasons=True, layout=layout), row_seed(seed, f"{p.id}/judge{round}", attempt))
            for p in open_pairs
        ]
        for pair, reply in zip(open_pairs, ask(asks, sampling), strict=True):
            replies[pair.id] = reply.text
            score = parse_score(reply.text)
            if score is not None:
                scores[pair.id] = score
    for pair in pairs:
        score = scores.get(pair.id)
        outcome = "scored" if score is not None else "parse_failed"
        yield Judgement(
            pair=pair.id, round=round, judge="reasoned", score=score, outcome=outcome, detail=replies[pair.id]
        )


def judge_likelihood(
    pairs: Sequence[Pair], likelihood: Likelihood, layout: Layout, *, round: int
) -> Iterator[Judgement]:
    """Yield how much the instruction helps to predict the output, in nats per token of the output.

    log p(output | instruction) - log p(output), both under the forward layout, the second with the instruction
    left empty. `to_scores` turns these into ranks.
    """
    with_instruction = likelihood(layout.example(pair) for pair in pairs)
    without = likelihood(layout.unconditional(pair) for pair in pairs)
    for pair, given, alone in zip(pairs, with_instruction, without, strict=True):
        if given is None or alone is None:
            yield Judgement(pair=pair.id, round=round, judge="likelihood", score=None, outcome=TOO_LONG)
        else:
            gain = (given.total - alone.total) / given.tokens
            yield Judgement(pair=pair.id, round=round, judge="likelihood", score=gain)


def to_scores(judgements: Iterable[Judgement]) -> dict[str, float]:
    """Return pair id -> score from 1 to 5; likelihood gains are mapped to their ranks, ties share theirs."""
    given = {j.pair: j.score for j in judgements if j.score is not None}
    ranked = [j for j in judgements if j.judge == "likelihood"] if isinstance(judgements, Sequence) else []
    if not ranked:
        return given
    order = sorted(given.values())
    places: dict[float, list[int]] = {}
    for place, value in enumerate(order):
        places.setdefault(value, []).append(place)
    top = max(1, len(order) - 1)
    return {pair: 1 + 4 * (sum(places[v]) / len(places[v])) / top for pair, v in given.items()}


def check_parsed(judgements: Sequence[Judgement], options: CurateOptions) -> None:
    """Stop when too many replies held no score.

    Raises:
        DataError: the share without a score is above `curate.max_unparsed`; three of the replies are shown.
    """
    failed = [j for j in judgements if j.score is None and j.outcome != TOO_LONG]
    if len(failed) > options.max_unparsed * len(judgements):
        shown = "\n".join(f"  {j.pair}: {excerpt(j.detail) or j.outcome}" for j in failed[:3])
        raise DataError(
            f"{len(failed)} of {len(judgements)} judgements hold no score, more than curate.max_unparsed = "
            f"{options.max_unparsed} allows; such as\n{shown}\nuse a stronger base, or --set curate.judge=expected "
            "(for a base of a few million parameters: likelihood)"
        )


def keep(pairs: Iterable[Pair], judgements: Sequence[Judgement], options: CurateOptions) -> Iterator[Pair | Reject]:
    """Yield the pairs that are good enough, each with its score; of one passage at most the best candidate."""
    scores = to_scores(judgements)
    outcomes = {j.pair: j.outcome for j in judgements}
    pairs = list(pairs)
    best = _best_of_passage(pairs, scores)
    floor = keep_floor([scores[pair.id] for pair in pairs if pair.id in best], options)
    for pair in pairs:
        if pair.id not in scores:
            yield Reject(pair.id, outcomes[pair.id], excerpt(pair.instruction), pair.source)
        elif pair.id not in best:
            yield Reject(pair.id, "not_best_of_passage", f"score {scores[pair.id]:.3f}", pair.source)
        elif scores[pair.id] < floor:
            yield Reject(pair.id, "below_threshold", f"score {scores[pair.id]:.3f} < {floor:.3f}", pair.source)
        else:
            yield replace(pair, score=round(scores[pair.id], 6))


def keep_floor(scores: Sequence[float], options: CurateOptions) -> float:
    """Return the lowest score kept: `keep_from`, or the score of the last row of the best `keep_top` share."""
    if not options.keep_top or not scores:
        return options.keep_from
    count = max(1, round(options.keep_top * len(scores)))
    return sorted(scores, reverse=True)[count - 1]


def check_kept(kept: int, judgements: Sequence[Judgement], options: CurateOptions) -> None:
    """Stop when too few rows are left to tune on.

    Raises:
        DataError: with the histogram of the scores and the option that would help.
    """
    if kept >= options.min_kept:
        return
    scores = sorted(to_scores(judgements).values())
    bars = "\n".join(f"  {low:.1f} to {low + 0.5:.1f}: {_count(scores, low)}" for low in [1 + n / 2 for n in range(8)])
    raise DataError(
        f"{kept} of {len(scores)} candidates are kept, fewer than curate.min_kept = {options.min_kept}; "
        f"the scores:\n{bars}\n{_remedy(len(scores), options)}"
    )


def _remedy(scored: int, options: CurateOptions) -> str:
    if scored < options.min_kept:
        return "there are too few candidates: give more documents, or lower curate.min_kept"
    share = min(1.0, 2 * options.min_kept / scored)
    return f"lower curate.keep_from, or keep the best share: --set curate.keep_top={share:.2f}"


def _count(scores: Sequence[float], low: float) -> int:
    return sum(low <= score < low + 0.5 or (low == 4.5 and score == 5) for score in scores)


def _best_of_passage(pairs: Sequence[Pair], scores: Mapping[str, float]) -> set[str]:
    best: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.candidate):
        if pair.id in scores and (pair.passage not in best or scores[pair.id] > scores[best[pair.passage].id]):
            best[pair.passage] = pair
    return {pair.id for pair in best.values()}
