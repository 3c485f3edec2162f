"""Ask the backward model which instruction each passage answers.

Takes: Passages, a Generate call.  Gives: candidate Pairs, or Rejects with the reason (Li et al. 2023, section 2.2).
Never: keeps an answer that was cut off, is empty, or loops; what an answer says is weighed by `gates`.
"""

from collections.abc import Iterable, Iterator
from itertools import product

from askback.chance import row_seed
from askback.options import AugmentOptions
from askback.ports import Ask, Generate, Reply, Sampling
from askback.prompts import Layout
from askback.records import OK, Pair, Passage, Reject, Verdict, content_id, excerpt


def augment(
    passages: Iterable[Passage], ask: Generate, layout: Layout, options: AugmentOptions, *, seed: int
) -> Iterator[Pair | Reject]:
    """Yield `options.n` outcomes per passage: a candidate, or why there is none."""
    wanted = [(passage, candidate) for passage, candidate in product(passages, range(options.n))]
    sampling = Sampling(options.temperature, options.top_p, options.max_new_tokens, options.no_repeat)
    blanks = [_candidate(passage, number, "") for passage, number in wanted]
    asks = (Ask(layout.prompt(pair), row_seed(seed, pair.passage, pair.candidate)) for pair in blanks)
    seen: set[tuple[str, str]] = set()
    for (passage, number), reply in zip(wanted, ask(asks, sampling), strict=True):
        verdict = check_reply(reply, min_chars=options.min_chars)
        key = (passage.id, reply.text.casefold())
        if verdict.keep and key in seen:
            verdict = Verdict(False, "same_candidate", excerpt(reply.text))
        seen.add(key)
        if verdict.keep:
            yield _candidate(passage, number, reply.text)
        else:
            yield Reject(f"{passage.id}#{number}", verdict.reason, verdict.detail, passage.source)


def _candidate(passage: Passage, number: int, instruction: str) -> Pair:
    return Pair(
        id=content_id(passage.id, str(number)),
        instruction=instruction,
        output=passage.text,
        kind="augmented",
        candidate=number,
        passage=passage.id,
        document=passage.document,
        heading=passage.heading,
        start=passage.start,
        end=passage.end,
        source=passage.source,
        licence=passage.licence,
        genre=passage.genre,
        label=passage.label,
    )


def check_reply(reply: Reply, *, min_chars: int) -> Verdict:
    """Say whether a reply is whole: what the engine ended by itself, with words in it, and not for ever the same."""
    if reply.finish == "no_room":
        return Verdict(False, "no_room", "the prompt and the new tokens are longer than the base reads")
    if reply.finish == "length":
        return Verdict(False, "cut_off", excerpt(reply.text))
    if len(reply.text) < min_chars or not any(character.isalpha() for character in reply.text):
        return Verdict(False, "empty", excerpt(reply.text))
    if is_loop(reply.text):
        return Verdict(False, "repeated_loop", excerpt(reply.text))
    return OK


def is_loop(text: str, *, times: int = 3, longest: int = 12) -> bool:
    """Whether some run of up to `longest` words comes `times` times in a row (of a single word: twice as often)."""
    words = text.casefold().split()
    for size in range(1, min(longest, len(words) // times) + 1):
        needed = size * ((times * 2 if size == 1 else times) - 1)
        run = 0
        for here, before in zip(words[size:], words, strict=False):
            run = run + 1 if here == before else 0
            if run >= needed:
                return True
    return False
