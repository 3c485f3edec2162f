"""Lay out the text the tiny base is trained on: documents, pairs forwards, pairs backwards.

Takes: a folder of public text (see README.md), pairs.jsonl and manner.jsonl beside this file.  Gives: (text, label)
examples in a seeded order, where `label` is the tail of the text that names what the rest is about and weighs more.
Never: reads the validation trees, the evaluation part or the embedded seed pairs, or uses a layout of askback.

The mix is shaped for copying, because that is the skill a backward model needs: an instruction about a text names
what the text is about. Hence `reversed_pair`, `titled_section`, `about_words`, and `quoted` and `repeated`, which do
nothing but copy and keep the heads that copy alive (Olsson et al. 2022; plant.py puts them there).

Texts are held out before any view is made of them, by their content, so that no view of a held-out text is trained on.
"""

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple


class Example(NamedTuple):
    text: str
    label: str = ""


class Sources(NamedTuple):
    pairs: list[tuple[str, str]]  # instruction, output: written as such
    turns: list[tuple[str, str]]  # the same, found among messages
    own: list[tuple[str, str]]  # those of the pairs that pairs.jsonl holds
    manner: list[tuple[str, str]]  # those of manner.jsonl, which only the last stage reads
    guides: list[tuple[str, str]]  # title, body
    commands: list[tuple[str, str]]  # command, body
    prose: list[str]
    technical: list[str]
    messages: list[str]


ASKS = ["Q: {i}", "The question was: {i}", "{i}", "Somebody had asked: {i}", "Title: {i}", "Asked for: {i}"]
ANSWERS = ["Q: {i}\nA: {o}", "{i}\n\n{o}", "User: {i}\nBot: {o}", "Question: {i}\n\nAnswer: {o}"]
ABOUT_TITLE = [
    "What is {t}?", "Explain {t}.", "Tell me about {t}.", "Write a short guide to {t}.", "How does {t} work?",
    "Give an introduction to {t}.", "Describe {t} with an example.", "{t}",
]  # fmt: skip
ABOUT_COMMAND = [
    "What does the command {t} do?", "Show examples of {t}.", "How do I use {t}?", "Give me a short reference for {t}.",
]  # fmt: skip
ABOUT_WORDS = [
    "Write a text about {a} and {b}.", "Explain how {a} relates to {b}.", "Keywords: {a}, {b}, {c}.",
    "What should I know about {a}?", "Tell me something about {a}, {b} and {c}.", "Topic: {a}.",
]  # fmt: skip
QUOTES = ["It says: {q}", "A sentence from it: {q}", "Quote: {q}", "For example: {q}"]
WORD = re.compile(r"[A-Za-z][a-z]{3,}")
REQUEST = re.compile(
    r"(what|how|why|who|when|where|which|can|could|is|are|do|does|should|would|will|please|write|explain|give|tell|list"
    r"|describe|create|make|show|help|provide|suggest|compare|summari[sz]e|i|in)\b",
    re.IGNORECASE,
)


def rows(path: Path) -> Iterator[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def first_turn(text: str) -> tuple[str, str]:
    """Return the first request and reply of a `### Human: ... ### Assistant: ...` row."""
    asked, _, rest = text.split("### Human:", 1)[1].partition("### Assistant:")
    return asked.strip(), rest.split("### Human:")[0].strip()


def forbidden(data: Path) -> set[str]:
    """Return the normal form of every text that later evaluations hold out."""
    held = {normal(row["text"]) for row in rows(data / "oasst/trees_validation_en.jsonl")}
    for row in rows(data / "oasst/guanaco_eval_part.jsonl"):
        held.update(normal(part) for part in re.split(r"### (?:Human|Assistant):", row["text"]))
    return held - {""}


def normal(text: str) -> str:
    return " ".join(text.lower().split())


def once(texts: Iterable[str], never: set[str]) -> Iterator[str]:
    """Yield each text the first time its normal form is seen, unless it is held out."""
    seen: set[bytes] = set()
    for text in texts:
        plain = normal(text)
        key = hashlib.sha256(plain.encode()).digest()
        if plain and plain not in never and key not in seen:
            seen.add(key)
            yield text


def read_sources(data: Path, *, held: bool) -> Sources:
    """Return the texts held out for the loss curve (about one in fifty, by content), or all others."""
    never = forbidden(data)
    by_kind: dict[str, list[str]] = {}
    for row in rows(data / "pretrain/text.jsonl.gz"):
        by_kind.setdefault(row["source"].split("/")[0], []).append(row["text"])
    by_kind = {kind: _side(once(texts, never), held) for kind, texts in by_kind.items()}
    messages = [row["text"].strip() for row in rows(data / "oasst/messages_train_en.jsonl.gz")]
    asked = [first_turn(row["text"]) for row in rows(data / "oasst/guanaco_train_en.jsonl.gz")]
    own, manner = (
        [(row["instruction"], row["output"]) for row in rows(Path(__file__).parent / name)]
        for name in ("pairs.jsonl", "manner.jsonl")
    )
    asked += own
    contexts: list[str] = []
    for row in rows(data / "dolly/dolly_part.jsonl.gz"):
        if row["context"]:
            contexts.append(row["context"])
        else:
            asked.append((row["instruction"].strip(), row["response"].strip()))
    return Sources(
        pairs=_pairs(asked, never, held),
        turns=_pairs(find_turns(messages), never, held),
        own=_pairs(own, never, held),
        manner=_pairs(manner, never, held),
        guides=[guide for text in by_kind["freecodecamp-guide"] for guide in guide_sections(text)],
        commands=[(text.split("\n", 1)[0].lstrip("# "), text.split("\n", 1)[1]) for text in by_kind["tldr"]],
        prose=[*by_kind["wikipedia-demo"], *by_kind["c4-demo"], *_side(once(contexts, never), held)],
        technical=[*by_kind["peps"], *by_kind["rust-book"]],
        messages=_side(once(messages, never), held),
    )


def is_held(text: str) -> bool:
    return hashlib.sha256(normal(text).encode()).digest()[0] < 5


def _side(texts: Iterable[str], held: bool) -> list[str]:
    return [text for text in texts if is_held(text) == held]


def _pairs(pairs: Iterable[tuple[str, str]], never: set[str], held: bool) -> list[tuple[str, str]]:
    """Return each pair once; its output decides which side it is on, as it does among the messages."""
    kept = dict.fromkeys((i, o) for i, o in pairs if i and o and normal(i) not in never and normal(o) not in never)
    return [(i, o) for i, o in kept if is_held(o) == held]


def find_turns(messages: list[str]) -> Iterator[tuple[str, str]]:
    """Yield neighbours that look like request and reply: in tree pre-order a first reply follows its request."""
    for asked, reply in pairwise(messages):
        if not 12 <= len(asked) <= 300 or len(reply) < max(200, 1.3 * len(asked)):
            continue
        named = {word.lower() for word in WORD.findall(asked) if len(word) > 4}
        shared = named & {word.lower() for word in WORD.findall(reply)}
        if (asked.endswith("?") or REQUEST.match(asked)) and shared and len(shared) * 3 >= len(named):
            yield asked, reply


def guide_sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield (title, text) for a guide page and for each of its sections long enough to stand alone."""
    front = re.match(r"---\s*\ntitle:\s*(.+?)\n---\s*\n", text)
    if not front:
        return
    title, body = front[1].strip().strip("\"'"), text[front.end() :]
    yield title, body
    for part in re.split(r"^#{1,4} +", body, flags=re.MULTILINE)[1:]:
        heading, _, section = part.partition("\n")
        if len(section.strip()) > 200 and normal(heading) != normal(title):
            yield f"{heading.strip('# ')} in {title}", section.strip()


def cut(text: str, random: Random, *, least: int = 150, most: int = 1300) -> str:
    """Return a head of the text of a random length, ending where a sentence or line ends if one does."""
    size = random.randint(least, most)
    if len(text) <= size:
        return text
    end = max(text.rfind(mark, least // 2, size) for mark in (". ", "\n"))
    return text[: end + 1 if end > 0 else size]


def piece(text: str, random: Random, *, size: int = 1800) -> str:
    """Return a random stretch of a long text, begun at the start of a line."""
    if len(text) <= size:
        return text
    start = text.find("\n", random.randrange(len(text) - size)) + 1
    return text[start : start + size]


def backwards(output: str, instruction: str, random: Random, frames: list[str] = ASKS) -> Example:
    label = random.choice(frames).format(i=instruction, q=instruction)
    return Example(f"{output}\n\n{label}", label)


def reversed_pair(sources: Sources, random: Random) -> Example:
    instruction, output = random.choice(sources.pairs if random.random() < 0.7 else sources.turns)
    return backwards(cut(output, random), instruction[:400], random)


def own_pair(sources: Sources, random: Random) -> Example:
    instruction, output = random.choice(sources.own)
    return backwards(cut(output, random, least=300), instruction, random)


def manner_pair(sources: Sources, random: Random) -> Example:
    instruction, output = random.choice(sources.manner)
    return backwards(cut(output, random, least=300), instruction, random)


def titled_section(sources: Sources, random: Random) -> Example:
    title, body = random.choice(sources.guides)
    return backwards(cut(body, random), random.choice(ABOUT_TITLE).format(t=title), random)


def named_command(sources: Sources, random: Random) -> Example:
    name, body = random.choice(sources.commands)
    return backwards(cut(body, random, most=600), random.choice(ABOUT_COMMAND).format(t=name), random)


def about_words(sources: Sources, random: Random) -> Example:
    """Ask for a passage by the words it repeats: pure practice in naming what is there."""
    text = cut(piece(random.choice(random.choice([sources.prose, sources.messages])), random), random, most=900)
    counts = Counter(word.lower() for word in WORD.findall(text))
    rare = [word for word, count in counts.most_common() if count >= 2 and len(word) > 4] or list(counts)
    if len(rare) < 3:
        return Example(text)
    a, b, c = random.sample(rare[:8], 3) if len(rare) >= 8 else random.sample(rare, 3)
    return backwards(text, random.choice(ABOUT_WORDS).format(a=a, b=b, c=c), random)


def quoted(sources: Sources, random: Random) -> Example:
    """Repeat one line or sentence of a text: practice in copying and nothing else."""
    kind = random.choice([sources.prose, sources.messages, sources.messages, sources.technical])
    text = cut(piece(random.choice(kind), random), random, most=700)
    sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if 25 <= len(part.strip()) <= 140]
    if not sentences:
        return Example(text)
    return backwards(text, random.choice(sentences), random, QUOTES)


def repeated(sources: Sources, random: Random) -> Example:
    """Say a stretch again and again, half the time with its words shuffled: nothing can be learnt but to copy."""
    words = piece(random.choice(random.choice([sources.messages, sources.prose])), random, size=900).split()
    words = words[: random.randint(8, 60)]
    if random.random() < 0.5:
        random.shuffle(words)
    stretch = " ".join(words)
    return Example(" ".join([stretch] * random.randint(2, 4)))


def forward_pair(sources: Sources, random: Random) -> Example:
    instruction, output = random.choice(sources.pairs)
    return Example(random.choice(ANSWERS).format(i=instruction[:600], o=output[:1500]))


def plain(texts: list[str], random: Random) -> Example:
    return Example(piece(random.choice(texts), random))


class Stage(NamedTuple):
    """One stretch of training, with a rate schedule and a mix of its own; each goes on from the weights before it."""

    tokens: float
    decay: float  # last share of the stage over which the rate falls to 0
    shares: dict[str, float]  # share of the examples (not of the tokens) that each view gives


COPYING = {
    "reversed_pair": 0.36,
    "titled_section": 0.11,
    "named_command": 0.02,
    "about_words": 0.09,
    "quoted": 0.08,
    "repeated": 0.12,
    "forward_pair": 0.09,
    "messages": 0.08,
    "prose": 0.04,
    "technical": 0.01,
}
ASKING = {
    "reversed_pair": 0.48,
    "own_pair": 0.08,
    "titled_section": 0.08,
    "named_command": 0.01,
    "about_words": 0.04,
    "quoted": 0.04,
    "repeated": 0.03,
    "forward_pair": 0.12,
    "messages": 0.07,
    "prose": 0.04,
    "technical": 0.01,
}
STAGES = [Stage(6e6, 0.5, COPYING), Stage(4.5e6, 0.2, ASKING), Stage(3.6e6, 0.9, ASKING | {"manner_pair": 0.16})]
"""Pure copying first, while the planted heads find their use; then mostly pairs; the manner asked for comes last."""


def examples(data: Path, *, seed: int, held: bool = False, shares: dict[str, float] = COPYING) -> Iterator[Example]:
    """Yield training (or held-out) examples without end, in an order that depends on the seed alone."""
    sources, random = read_sources(data, held=held), Random(seed)
    views = {
        view.__name__: view
        for view in (
            reversed_pair,
            own_pair,
            manner_pair,
            titled_section,
            named_command,
            about_words,
            quoted,
            repeated,
            forward_pair,
        )
    }
    while True:
        view = random.choices(list(shares), list(shares.values()))[0]
        yield views[view](sources, random) if view in views else plain(getattr(sources, view), random)
