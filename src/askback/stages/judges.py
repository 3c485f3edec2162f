"""Measure candidates: one number from a model per signal and candidate, or the reason why there is none.

Takes: Pairs, one of the calls Choose, Generate, Likelihood.  Gives: one Judgement per pair, in order.
Never: makes a number of a reply that holds none, keeps or drops a pair, or sees what people said of a document.

    expected    expected grade under the judge's own probabilities of the rubric's digits: one forward pass
    reasoned    grade of the last score line of generated replies
    likelihood  log p(output | instruction) - log p(output) under a forward model, in nats per token of the output
    backward    log p(instruction | output) under the backward model, in nats per token of the instruction

Outcomes: `scored`; `parse_failed` and `no_mass_on_digits`, which say the judge is too weak; `too_long` and
`unfit_instruction`, which do not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean

from askback.chance import row_seed
from askback.options import CurateOptions
from askback.ports import Ask, Choice, Choose, Generate, Likelihood, Reply, Sampling
from askback.prompts import INSTRUCTION_RUBRIC, Layout, Rubric, parse_score
from askback.records import Judgement, Pair

RETRIES = 2
"""More tries at a reply that holds no score, where one reply is asked for."""
SAMPLED = (0.7, 0.9)
"""Temperature and top p of every reply that is not greedy."""

Judge = Callable[[Sequence[Pair]], Iterable[Judgement]]


def judge_expected(
    pairs: Sequence[Pair], choose: Choose, rubric: Rubric, *, round: int, layout: Layout | None = None
) -> Iterator[Judgement]:
    """Yield the mean grade under the judge's probabilities of the digits, and those with the mass outside them."""
    prompts = (rubric.prompt(pair, reasons=False, layout=layout) for pair in pairs)
    for pair, choice in zip(pairs, choose(prompts, rubric.digits), strict=True):
        score, outcome = _expected(choice, rubric)
        shares = () if choice is None else (*choice.probabilities, choice.outside)
        yield Judgement(pair=pair.id, round=round, judge="expected", score=score, outcome=outcome, distribution=shares)


def _expected(choice: Choice | None, rubric: Rubric) -> tuple[float | None, str]:
    if choice is None:
        return None, "too_long"
    inside = sum(choice.probabilities)
    if not inside > 0:
        return None, "no_mass_on_digits"
    return sum(int(digit) * p for digit, p in zip(rubric.digits, choice.probabilities, strict=True)) / inside, "scored"


def refuse_unfit(
    pairs: Sequence[Pair], choose: Choose, least: float, *, judge: str, round: int, layout: Layout | None = None
) -> Iterator[Judgement | None]:
    """Yield None for a pair whose instruction alone is graded `least` or better, else the last word of `judge` on it.

    The grade stands in the detail. It comes from the digits' probabilities, whatever `judge` is.
    """
    prompts = (INSTRUCTION_RUBRIC.prompt(pair, reasons=False, layout=layout) for pair in pairs)
    for pair, choice in zip(pairs, choose(prompts, INSTRUCTION_RUBRIC.digits), strict=True):
        score, outcome = _expected(choice, INSTRUCTION_RUBRIC)
        if score is not None and score >= least:
            yield None
            continue
        outcome = "unfit_instruction" if score is not None else outcome
        detail = "the instruction alone" if score is None else f"the instruction alone: {score:.3f} < {least:g}"
        yield Judgement(pair=pair.id, round=round, judge=judge, score=None, outcome=outcome, detail=detail)


def judge_gated(
    pairs: Sequence[Pair], refuse: Callable[[Sequence[Pair]], Iterable[Judgement | None]], judge: Judge
) -> Iterator[Judgement]:
    """Yield what `refuse` says of the pairs it refuses and what `judge` says of the others, which it alone sees."""
    refused = {pair.id: said for pair, said in zip(pairs, refuse(pairs), strict=True) if said is not None}
    passed = [pair for pair in pairs if pair.id not in refused]
    judged = {pair.id: said for pair, said in zip(passed, judge(passed), strict=True)}
    found = refused | judged
    yield from (found[pair.id] for pair in pairs)


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
    """Yield the mean score of `options.samples` replies, of those that hold one; `parse_failed` where none does.

    One reply is greedy, and drawn anew up to two times where it holds no score; several are all drawn, once.
    """
    several = options.samples > 1
    replies: dict[str, list[Reply]] = {pair.id: [] for pair in pairs}
    for attempt in range(options.samples if several else 1 + RETRIES):
        asked = [pair for pair in pairs if several or not _is_answered(replies[pair.id], rubric)]
        temperature, top_p = SAMPLED if several or attempt else (0.0, SAMPLED[1])
        asks = [
            Ask(rubric.prompt(pair, reasons=True, layout=layout), row_seed(seed, f"{pair.id}/judge{round}", attempt))
            for pair in asked
        ]
        sampling = Sampling(temperature, top_p, options.max_new_tokens)
        for pair, reply in zip(asked, ask(asks, sampling), strict=True):
            replies[pair.id].append(reply)
    for pair in pairs:
        score, outcome, detail = _mean_score(replies[pair.id] if several else replies[pair.id][-1:], rubric)
        yield Judgement(pair=pair.id, round=round, judge="reasoned", score=score, outcome=outcome, detail=detail)


def _is_answered(replies: Sequence[Reply], rubric: Rubric) -> bool:
    """Whether asking again is of no use: the last reply holds a score, or the question does not fit the base."""
    if not replies:
        return False
    return replies[-1].finish == "no_room" or parse_score(replies[-1].text, rubric.lowest) is not None


def _mean_score(replies: Sequence[Reply], rubric: Rubric) -> tuple[float | None, str, str]:
    """Return score, outcome and detail: the first reply, and how many hold a score where not all do."""
    if replies[0].finish == "no_room":
        return None, "too_long", ""
    found = [score for reply in replies if (score := parse_score(reply.text, rubric.lowest)) is not None]
    first = replies[0].text
    if not found:
        return None, "parse_failed", first
    some = f"{len(found)} of {len(replies)} replies hold a score; the first: " if len(found) < len(replies) else ""
    return fmean(found), "scored", some + first


def judge_likelihood(
    pairs: Sequence[Pair], likelihood: Likelihood, layout: Layout, *, round: int
) -> Iterator[Judgement]:
    """Yield how much the instruction helps to predict the output, in nats per token of the output.

    Both likelihoods are under the forward layout, the second with the instruction left empty.
    """
    with_instruction = likelihood(layout.example(pair) for pair in pairs)
    without = likelihood(layout.unconditional(pair) for pair in pairs)
    for pair, given, alone in zip(pairs, with_instruction, without, strict=True):
        if given is None or alone is None:
            yield Judgement(pair=pair.id, round=round, judge="likelihood", score=None, outcome="too_long")
        else:
            gain = (given.total - alone.total) / given.tokens
            yield Judgement(pair=pair.id, round=round, judge="likelihood", score=gain)


def judge_likeness(
    pairs: Sequence[Pair], likelihood: Likelihood, base: Likelihood, layout: Layout, *, round: int
) -> Iterator[Judgement]:
    """Yield how much likelier tuning made the output, in nats per token: how like it is to what was tuned on.

    The difference of two models' cross-entropies sorts text by its nearness to a sample (Moore and Lewis 2010). It says
    nothing of whether the instruction fits: ask `likelihood` or `backward` for that.
    """
    examples = [layout.example(pair) for pair in pairs]
    for pair, tuned, bare in zip(pairs, likelihood(examples), base(examples), strict=True):
        if tuned is None or bare is None:
            yield Judgement(pair=pair.id, round=round, judge="likeness", score=None, outcome="too_long")
        else:
            gain = (tuned.total - bare.total) / tuned.tokens
            yield Judgement(pair=pair.id, round=round, judge="likeness", score=gain)


def judge_backward(pairs: Sequence[Pair], likelihood: Likelihood, layout: Layout, *, round: int) -> Iterator[Judgement]:
    """Yield how likely the backward model finds the instruction, given the output, in nats per token of it."""
    for pair, found in zip(pairs, likelihood(layout.example(pair) for pair in pairs), strict=True):
        if found is None:
            yield Judgement(pair=pair.id, round=round, judge="backward", score=None, outcome="too_long")
        else:
            yield Judgement(pair=pair.id, round=round, judge="backward", score=found.per_token)
