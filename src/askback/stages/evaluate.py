"""Measure a model on held-out pairs, next to the floors anybody clears without a model.

Takes: held-out Pairs, the ports of one model, the layout it was tuned with.  Gives: dicts ready for JSON.
Never: knows which model answers: call it again with the ports of the bare base to see what tuning added.

Backward: what was asked for, given the output. Greedy instructions against the true ones (BLEU, chrF, ROUGE, and
likeness in meaning where there is a sentence encoder), the likelihood of the true instruction, and whether it points
back at its own output among others (retrieval). Forward: the likelihood of the output, given the instruction.

Every figure has a 95 % interval over pairs, every report its rows by pair id, so that two reports of the same pairs
can be compared by a paired test. Pairs are taken in id order: their arrival does not matter. A pair the model has no
room for is counted as `unscored`, never given a number.

    slices  {length | genre | source: {name: {n, rougeL, nll, retrieval, similarity}}}

The same rows again, part by part: thirds of the output's length, what the pairs say of their genre, the file they
were read from. Forward reports have `nll` alone. A dimension with one part says nothing new and is left out.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from askback import agreement, metrics
from askback.errors import DataError, IntegrityError
from askback.options import EvaluateOptions
from askback.ports import Ask, Example, Generate, Likelihood, LogLikelihood, Prompt, Reply, Sampling
from askback.records import Pair, excerpt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXCERPT_CHARS = 300
ROUGES = ("rouge1", "rouge2", "rougeL")

SLICED = {"rougeL": "rougeL", "nll": "nll", "first": "retrieval", "similarity": "similarity"}
"""What a row holds, and the figure of a slice that is its mean."""
SLICE_LEAST = 5
"""Fewer rows than this have no interval worth the name: their slice goes into `other`."""
OTHER, UNNAMED = "other", "not named"
ROW_OF_SOURCE = re.compile(r"(?::\d+)?(?:#\d+)?$")
"""What follows the file in a pair's source: its row, and its turn where a row is a conversation."""

NO_LIKELIHOODS = "the engine gives no log-likelihoods"

Report = dict[str, Any]
Encode = Callable[[Sequence[str]], "NDArray[np.floating[Any]]"]
"""Texts to one vector each, in order [texts, width]; the nearer two meanings, the smaller the angle."""


class Lays(Protocol):
    """How a pair becomes a prompt, and an example with its target; which way round is the layout's business."""

    def prompt(self, pair: Pair) -> Prompt: ...

    def example(self, pair: Pair) -> Example: ...


def evaluate_backward(
    pairs: Sequence[Pair],
    ask: Generate,
    likelihood: Likelihood | None,
    layout: Lays,
    options: EvaluateOptions,
    seed: int,
    encode: Encode | None = None,
) -> Report:
    """Return every figure of a backward model, and a row per pair; `similarity` is there where `encode` is.

    `retrieval` is None, and `retrieval_why` says why, where the pairs have too few different outputs to rank; a row's
    `first` says whether its own output came first, None where it was not ranked. Without `likelihood`, `nll_per_token`
    is None too, and `nll_why` is there.

    Raises:
        DataError: fewer than two pairs.
        IntegrityError: the model gave a likelihood that is not finite, or the encoder such a vector.
    """
    pairs = _in_order(pairs)
    replies = _generate(pairs, ask, layout, options)
    losses = _losses(pairs, likelihood, layout)
    generated = [reply.text.strip() for reply in replies]
    figures, scores = _text_figures(pairs, generated, options, seed, encode)
    retrieval, firsts = _retrieval(pairs, likelihood, layout, options, seed)
    rows = [
        _row(pair, text) | score | {"output": excerpt(pair.output, EXCERPT_CHARS), "nll": loss, "first": first}
        for pair, text, score, loss, first in zip(pairs, generated, scores, losses, firsts, strict=True)
    ]
    return {
        "n": len(pairs),
        **figures,
        **_loss_figures(losses, options, seed),
        **_why_unmeasured(likelihood),
        **retrieval,
        "slices": _slices(pairs, rows, options, seed),
        "copy_share": {
            "generated": _copied(generated, pairs, options, seed),
            "true": _copied([pair.instruction for pair in pairs], pairs, options, seed),
        },
        "cut_off": _plain(agreement.wilson(sum(reply.finish == "length" for reply in replies), len(replies))),
        "rows": rows,
    }


def evaluate_forward(
    pairs: Sequence[Pair], likelihood: Likelihood | None, layout: Lays, options: EvaluateOptions, seed: int
) -> Report:
    """Return the held-out loss per token of the outputs, and a row per pair; None and `nll_why` without `likelihood`.

    Raises:
        DataError: fewer than two pairs.
        IntegrityError: the model gave a likelihood that is not finite.
    """
    pairs = _in_order(pairs)
    losses = _losses(pairs, likelihood, layout)
    rows = [{"id": pair.id, "nll": loss} for pair, loss in zip(pairs, losses, strict=True)]
    slices = _slices(pairs, rows, options, seed)
    figures = _loss_figures(losses, options, seed) | _why_unmeasured(likelihood)
    return {"n": len(pairs), **figures, "slices": slices, "rows": rows}


def floors(
    pairs: Sequence[Pair], options: EvaluateOptions, seed: int, encode: Encode | None = None
) -> dict[str, Report]:
    """Return the text figures of two answers that need no model.

    `first_sentence` copies the opening of the output; `shuffled` gives each pair another one's true instruction.
    """
    pairs = _in_order(pairs)
    order = metrics.derangement(len(pairs), seed=seed)
    answers = {
        "first_sentence": [metrics.first_sentence(pair.output) for pair in pairs],
        "shuffled": [pairs[other].instruction for other in order],
    }
    return {name: _floor(pairs, texts, options, seed, encode) for name, texts in answers.items()}


def compare_with_floors(
    report: Report, floors: Mapping[str, Report], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Report]:
    """Return, for each floor, the paired test of the report's ROUGE-L over that of the floor."""
    return {
        name: compare_rows(report, floor, of="rougeL", resamples=resamples, seed=seed) for name, floor in floors.items()
    }


def compare_rows(a: Report, b: Report, *, of: str = "nll", resamples: int = 2000, seed: int = 0) -> Report:
    """Return the paired test of a - b over one figure of the rows, such as `nll` (lower is better) or `rougeL`.

    Rows that either report could not score are left out and counted as `unscored`.

    Raises:
        DataError: the reports are not about the same pairs, lack the figure, or share no scored row.
    """
    both = [(_figure(x, of, "first"), _figure(y, of, "second")) for x, y in _matched(a, b)]
    scored = [(x, y) for x, y in both if x is not None and y is not None]
    if not scored:
        raise DataError(f"compare_rows: want a row with `{of}` in both reports, got none of {len(both)}")
    test = metrics.paired_difference([x for x, _ in scored], [y for _, y in scored], resamples=resamples, seed=seed)
    return {"of": of, **asdict(test), "unscored": len(both) - len(scored)}


# --- texts


def _generate(pairs: Sequence[Pair], ask: Generate, layout: Lays, options: EvaluateOptions) -> list[Reply]:
    greedy = Sampling(0.0, 1.0, options.max_new_tokens, options.no_repeat)
    replies = ask((Ask(layout.prompt(pair)) for pair in pairs), greedy)
    return [reply for _, reply in zip(pairs, replies, strict=True)]


def _text_figures(
    pairs: Sequence[Pair], texts: Sequence[str], options: EvaluateOptions, seed: int, encode: Encode | None
) -> tuple[Report, list[Report]]:
    """Return every figure that compares texts with the true instructions, and row by row what rows hold of them."""
    true = [pair.instruction for pair in pairs]
    rouge = metrics.rouge(texts, true)
    figures = {
        "bleu": asdict(metrics.bleu(texts, true, resamples=options.bootstrap, seed=seed)),
        "chrf": asdict(metrics.chrf(texts, true, resamples=options.bootstrap, seed=seed)),
        **{kind: _mean(rouge[kind], options, seed) for kind in ROUGES},
        "length_ratio": _plain(
            metrics.bootstrap_ratio(list(map(len, texts)), list(map(len, true)), resamples=options.bootstrap, seed=seed)
        ),
    }
    scores = [{"rougeL": score} for score in rouge["rougeL"]]
    if encode is None:
        return figures, scores
    alike = _likeness(texts, true, encode)
    scores = [score | {"similarity": cosine} for score, cosine in zip(scores, alike, strict=True)]
    return figures | {"similarity": _mean(alike, options, seed)}, scores


def _likeness(texts: Sequence[str], true: Sequence[str], encode: Encode) -> list[float]:
    """Return the cosine of each text with the true one, -1 to 1; a text without a vector is like nothing: 0."""
    import numpy as np

    vectors_ND = np.asarray(encode([*texts, *true]), dtype=np.float64)
    if vectors_ND.ndim != 2 or len(vectors_ND) != 2 * len(texts) or not np.isfinite(vectors_ND).all():
        want = f"{2 * len(texts)} finite vectors"
        raise IntegrityError(f"evaluate.encoder: want {want}, got shape {vectors_ND.shape}; try another encoder")
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit_ND = vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0)
    cosines = (unit_ND[: len(texts)] * unit_ND[len(texts) :]).sum(axis=1)
    return [float(cosine) for cosine in np.clip(cosines, -1.0, 1.0)]


def _floor(
    pairs: Sequence[Pair], texts: Sequence[str], options: EvaluateOptions, seed: int, encode: Encode | None
) -> Report:
    figures, scores = _text_figures(pairs, texts, options, seed, encode)
    return {
        **figures,
        "rows": [_row(pair, text) | score for pair, text, score in zip(pairs, texts, scores, strict=True)],
    }


def _row(pair: Pair, text: str) -> Report:
    return {"id": pair.id, "instruction": pair.instruction, "generated": text}


def _copied(instructions: Sequence[str], pairs: Sequence[Pair], options: EvaluateOptions, seed: int) -> Report:
    """Mean share of an instruction's content words that stand in the output it belongs to."""
    shares = [metrics.copy_share(text, pair.output) for text, pair in zip(instructions, pairs, strict=True)]
    return _mean(shares, options, seed)


# --- likelihoods


def _why_unmeasured(likelihood: Likelihood | None) -> Report:
    return {} if likelihood else {"nll_why": NO_LIKELIHOODS}


def _losses(pairs: Sequence[Pair], likelihood: Likelihood | None, layout: Lays) -> list[float | None]:
    """Return each pair's negative log-likelihood in nats per target token, None where there was no room."""
    if likelihood is None:
        return [None] * len(pairs)
    found = likelihood(layout.example(pair) for pair in pairs)
    totals = [_finite(result, pair) for pair, result in zip(pairs, found, strict=True)]
    return [None if total is None else -total.per_token for total in totals]


def _loss_figures(losses: Sequence[float | None], options: EvaluateOptions, seed: int) -> Report:
    scored = [loss for loss in losses if loss is not None]
    score = _mean(scored, options, seed) if scored else None
    return {"nll_per_token": score, "unscored": len(losses) - len(scored)}


def _retrieval(
    pairs: Sequence[Pair], likelihood: Likelihood | None, layout: Lays, options: EvaluateOptions, seed: int
) -> tuple[Report, list[bool | None]]:
    """Return how often a true instruction is likelier after its own output than after each of k - 1 others.

    The others are drawn per pair from the different outputs at hand. A tie is no success; blind chance is 1 / k.
    Beside the figure stands, pair by pair, whether its own output came first, None where that was not asked.
    """
    outputs = sorted({pair.output for pair in pairs})
    unasked: list[bool | None] = [None] * len(pairs)
    if likelihood is None:
        return {"retrieval": None, "retrieval_why": NO_LIKELIHOODS}, unasked
    if len(outputs) < options.retrieval_of:
        why = f"want {options.retrieval_of} different outputs to rank, got {len(outputs)}"
        return {"retrieval": None, "retrieval_why": why}, unasked
    asked = pairs[: options.retrieval_rows]
    lineups = [[pair, *_others(pair, outputs, options.retrieval_of - 1, seed)] for pair in asked]
    flat = [candidate for lineup in lineups for candidate in lineup]
    found = likelihood(layout.example(candidate) for candidate in flat)
    results = iter([_finite(result, pair) for pair, result in zip(flat, found, strict=True)])
    ranked = [_is_first([next(results) for _ in lineup]) for lineup in lineups]
    scored = [float(first) for first in ranked if first is not None]
    if not scored:
        why = "no instruction fitted into the model together with an output"
        return {"retrieval": None, "retrieval_why": why}, unasked
    more = {"of": options.retrieval_of, "unscored": len(ranked) - len(scored)}
    return {"retrieval": _mean(scored, options, seed) | more}, [*ranked, *unasked[len(ranked) :]]


def _others(pair: Pair, outputs: Sequence[str], count: int, seed: int) -> Iterator[Pair]:
    """Yield the pair with other outputs in place of its own; the seed and the pair alone decide which."""
    strangers = [output for output in outputs if output != pair.output]
    for output in Random(f"{seed}/retrieval/{pair.id}").sample(strangers, count):
        yield replace(pair, output=output)


def _is_first(results: Sequence[LogLikelihood | None]) -> bool | None:
    """Tell whether the first result is greater than all others; None where one of them is missing."""
    totals = [result.total for result in results if result is not None]
    if len(totals) < len(results):
        return None
    return totals[0] > max(totals[1:])


def _finite(result: LogLikelihood | None, pair: Pair) -> LogLikelihood | None:
    if result is not None and not math.isfinite(result.per_token):
        raise IntegrityError(
            f"pair {pair.id}: want a finite log-likelihood, got {result.total} over {result.tokens} tokens; "
            "try engine.precision = float32, and look at the losses of the training run"
        )
    return result


# --- slices


def _slices(pairs: Sequence[Pair], rows: Sequence[Report], options: EvaluateOptions, seed: int) -> Report:
    """Return the figures of the rows again for each part of the pairs; no model is asked for them."""
    names = {
        "length": _thirds([len(pair.output) for pair in pairs]),
        "genre": [pair.genre or UNNAMED for pair in pairs],
        "source": [ROW_OF_SOURCE.sub("", pair.source) or UNNAMED for pair in pairs],
    }
    found = {kind: _slice(_gathered(each), rows, options, seed) for kind, each in names.items()}
    return {kind: slices for kind, slices in found.items() if len(slices) > 1}


def _thirds(lengths: Sequence[int]) -> list[str]:
    """Return for each length the third it falls into, named by that third's shortest and longest."""
    ordered, n = sorted(lengths), len(lengths)
    low, high = ordered[math.ceil(n / 3) - 1], ordered[math.ceil(2 * n / 3) - 1]
    thirds = [(length > low) + (length > high) for length in lengths]
    spans = {third: [length for length, at in zip(lengths, thirds, strict=True) if at == third] for third in {*thirds}}
    return [f"{min(spans[third])} to {max(spans[third])} characters" for third in thirds]


def _gathered(names: Sequence[str]) -> list[str]:
    """Return the names with those of fewer than SLICE_LEAST rows made one."""
    counts = Counter(names)
    return [name if counts[name] >= SLICE_LEAST else OTHER for name in names]


def _slice(names: Sequence[str], rows: Sequence[Report], options: EvaluateOptions, seed: int) -> Report:
    """Return {name: {n, figure: Score}}; None for a figure that too few rows of the slice have."""
    found: Report = {}
    for name in sorted({*names}):
        part = [row for row, mine in zip(rows, names, strict=True) if mine == name]
        found[name] = {"n": len(part)}
        for key, figure in SLICED.items():
            if key in part[0]:
                values = [float(row[key]) for row in part if row[key] is not None]
                found[name][figure] = _mean(values, options, seed) if len(values) >= SLICE_LEAST else None
    return found


# --- rows and means


def _in_order(pairs: Sequence[Pair]) -> list[Pair]:
    if len(pairs) < 2:
        raise DataError(f"evaluate: want at least 2 held-out pairs, got {len(pairs)}; raise seed.held_out or add seeds")
    return sorted(pairs, key=lambda pair: pair.id)


def _mean(values: Sequence[float], options: EvaluateOptions, seed: int) -> Report:
    return asdict(metrics.bootstrap_mean(values, resamples=options.bootstrap, seed=seed))


def _plain(score: metrics.Score | None) -> Report | None:
    return None if score is None else asdict(score)


def _matched(a: Report, b: Report) -> Iterable[tuple[Report, Report]]:
    if _ids(a) != _ids(b):
        raise DataError(
            f"compare_rows: want two reports on the same pairs, got {len(_ids(a))} and {len(_ids(b))} rows "
            "whose ids differ; evaluate both on the same held-out set"
        )
    return zip(a["rows"], b["rows"], strict=True)


def _ids(report: Report) -> list[str]:
    return [row["id"] for row in report["rows"]]


def _figure(row: Report, of: str, which: str) -> float | None:
    if of not in row:
        raise DataError(f"compare_rows: the {which} report has no `{of}` in row {row['id']}; it has {', '.join(row)}")
    value = row[of]
    return None if value is None else float(value)
