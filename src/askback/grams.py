"""The words of a text and the hashed runs of words it holds: what two texts are compared by.

Takes: texts in any script.  Gives: words as bytes, and their n-grams as numbers that are the same on every machine.
Never: holds a text, or draws chance: every hash is fixed here.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING
from zlib import crc32

from askback.metrics import UNSPACED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

DIGEST_BYTES = 16
_ASCII = bytes(ord(chr(byte).lower()) if byte < 128 and chr(byte).isalnum() else 32 for byte in range(256))
_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that multiplying by it loses nothing modulo 2^64 (2^64 over the golden ratio: Knuth 1973, section 6.4)."""


def words_of(text: str) -> list[bytes]:
    """Return the words of a text without case, width and punctuation; in scripts without spaces, its characters."""
    if text.isascii():
        return text.encode().translate(_ASCII).split()  # what the lines below make of it, faster
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word.encode() for word in folded.translate(_SPACING).split()]


class _Spacing(dict[int, int | str]):
    """What each character becomes before a text is split at its spaces; filled as characters are met."""

    def __missing__(self, code: int) -> int | str:
        char = chr(code)
        if any(first <= char <= last for first, last in UNSPACED):
            becomes: int | str = f" {char} "
        elif char.isalnum() or unicodedata.category(char).startswith("M"):  # marks: accents, the vowels of India
            becomes = code
        else:
            becomes = " "
        return self.setdefault(code, becomes)


_SPACING = _Spacing()


def text_digest(text: str) -> bytes:
    """Return 16 bytes of a text that do not depend on its case and white space."""
    normal = " ".join(text.casefold().split())
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def word_hashes(texts: Iterable[Sequence[bytes]]) -> "Hashes":
    """Return one number below 2^32 for every word of every text, one text after the other."""
    import numpy as np

    return np.fromiter(map(crc32, chain.from_iterable(texts)), dtype=np.uint64)


def gram_hashes(words: "Hashes", n: int) -> "Hashes":
    """Return a 64-bit hash of every run of n words, by its first word; none where there are fewer words."""
    import numpy as np

    count = max(0, len(words) - n + 1)
    grams = np.zeros(count, dtype=np.uint64)
    factor = 1
    for place in range(n):
        factor = factor * _FACTOR % 2**64
        grams += words[place : place + count] * np.uint64(factor)
    return mix(grams)


def mix(hashes: "Hashes") -> "Hashes":
    """Return the numbers with every bit depending on every other (the finalizer of splitmix64, Steele et al. 2014)."""
    import numpy as np

    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
