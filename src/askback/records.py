"""The nouns of the flow: one frozen record for each arrow between two stages.

Takes: strings and numbers.  Gives: records to be derived with `replace`, never changed.
Never: reads a file, or holds anything a Parquet row cannot.

    Document -> Passage -> Pair (a candidate) -> Judgement -> Pair (kept)
                  any of them, when it does not pass -> Reject
"""

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text somebody wrote, as Markdown, before it is cut.

    `genre` and `label` are what a person said of it, carried as data and seen by no model.
    """

    id: str
    text: str
    source: str
    """Path (and row) it was read from, relative to the corpus where that is a folder."""
    title: str = ""
    format: str = "text"
    encoding: str = ""
    """What its bytes were read as, where they were text."""
    licence: str = ""
    genre: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A stretch of a document that can stand alone as an answer.

    `start` and `end` count characters in the document's text; the heading lies outside the span.
    """

    id: str
    document: str
    heading: str
    text: str
    start: int
    end: int
    source: str = ""
    licence: str = ""
    genre: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An instruction and the output that answers it.

    A seed pair has `kind` "seed"; a candidate has "augmented", the passage it came from, and after curation a
    score. `original` is the output as it stood before it was rewritten, empty where it was not.
    """

    id: str
    instruction: str
    output: str
    kind: str = "seed"
    candidate: int = 0
    score: float | None = None
    passage: str = ""
    document: str = ""
    heading: str = ""
    start: int = 0
    end: int = 0
    source: str = ""
    licence: str = ""
    genre: str = ""
    label: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one signal said of one candidate in one round; `judge` is the signal's name.

    `score` is None when the judge gave none (`outcome` then says why): a number is never invented.
    `distribution` holds the probabilities of the rubric's digits, lowest first, and the mass outside them, or is empty.
    """

    pair: str
    round: int
    judge: str
    score: float | None
    outcome: str = "scored"
    distribution: tuple[float, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that did not pass, and why."""

    id: str
    reason: str
    detail: str = ""
    source: str = ""


class Verdict(NamedTuple):
    """What a rule says of a text; `reason` is "ok" or what is counted in the report."""

    keep: bool
    reason: str = "ok"
    detail: str = ""


OK = Verdict(True)


def content_id(*parts: str) -> str:
    """Return 16 hex digits that depend on the content alone."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def excerpt(text: str, size: int = 120) -> str:
    """Return the head of a text on one line, for messages and the ledger of rejects."""
    line = " ".join(text.split())
    return line if len(line) <= size else line[: size - 1] + "…"
