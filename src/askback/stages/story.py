"""Three passages, told from the beginning: what was asked before training, after it, and what became of the pair.

Takes: candidates, their scores and what was kept, the bare base's Generate call.  Gives: rows for the report.
Never: chooses by hand: the best kept pair, a middling one, and the worst one thrown away.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from askback.options import EvaluateOptions
from askback.ports import Ask, Generate, Sampling
from askback.prompts import Layout
from askback.records import Pair, excerpt


def tell_story(
    candidates: Iterable[Pair],
    verdicts: Mapping[str, tuple[float | None, str]],
    ask: Generate | None,
    layout: Layout,
    options: EvaluateOptions,
) -> list[dict[str, Any]]:
    """Return the story of three candidates; `verdicts` maps id -> (score, "kept" or the reason it was not).

    `base` is None where no `ask` of a bare base is given, since no training came after it.
    """
    picked = pick(candidates, verdicts)
    asks = (Ask(layout.prompt(pair)) for pair in picked)
    greedy = Sampling(0.0, 1.0, options.max_new_tokens, options.no_repeat)
    asked = [excerpt(reply.text, 300) for reply in ask(asks, greedy)] if ask else [None] * len(picked)
    return [
        {
            "heading": pair.heading,
            "source": pair.source,
            "text": pair.output,
            "base": before,
            "trained": pair.instruction,
            "score": verdicts[pair.id][0],
            "verdict": verdicts[pair.id][1],
        }
        for pair, before in zip(picked, asked, strict=True)
    ]


def pick(candidates: Iterable[Pair], verdicts: Mapping[str, tuple[float | None, str]]) -> list[Pair]:
    """Return the best and the median of the kept pairs, and the worst of the others; fewer where there are fewer."""
    scored = [pair for pair in candidates if pair.id in verdicts and verdicts[pair.id][0] is not None]
    ranked = sorted(scored, key=lambda pair: (-(verdicts[pair.id][0] or 0), pair.id))
    kept = [pair for pair in ranked if verdicts[pair.id][1] == "kept"]
    lost = [pair for pair in ranked if verdicts[pair.id][1] != "kept"]
    return _distinct([*kept[:1], *kept[len(kept) // 2 : len(kept) // 2 + 1], *lost[-1:]])


def _distinct(pairs: Sequence[Pair]) -> list[Pair]:
    return list({pair.id: pair for pair in pairs}.values())
