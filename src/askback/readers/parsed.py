"""What a parser makes of the bytes of one document, before anybody knows which file they came from.

Takes: nothing.  Gives: the two records every parser returns one of.
Never: holds a path: `documents` joins them with their source.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A document's text as Markdown, and what it says of itself."""

    text: str
    title: str = ""
    genre: str = ""
    licence: str = ""
    encoding: str = ""
    """The character encoding its bytes were read with, where they were text."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the bytes are no document: a name that is counted, and what was seen."""

    reason: str
    detail: str = ""
