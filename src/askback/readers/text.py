"""Bytes of a text -> characters; plain text and Markdown with its front matter -> Parsed.

Takes: the bytes of one document, and the character encoding somebody declared for it, if any.
Gives: the text with plain line ends and the encoding it was read with; Parsed, or Refused with the reason.
Never: drops a character it cannot read: one that is damaged stays as U+FFFD, a text of them is refused.
"""

import codecs
import re
from typing import NamedTuple

from askback.errors import borrow
from askback.readers.parsed import Parsed, Refused

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r"# +(.+?)[ #]*$")
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)^[ \t]*---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_KEY_LINE = re.compile(r"\s*([A-Za-z][\w-]*)\s*:(.*)$")
_NESTED_LINE = re.compile(r"\s|- |#|$")  # belongs to the key above it, or is a comment
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f\ufffd]")
_COMMON = "cp1252"  # the most likely of encodings that read the same bytes alike
_MOST_DAMAGE = 0.05  # damaged sequences to sound ones in a text still taken for UTF-8
_AS_BROWSERS_DO = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""Encodings whose name is declared where a larger one is meant (encoding.spec.whatwg.org, "names and labels")."""


class Decoded(NamedTuple):
    """A text with plain line ends, and the name of the encoding its bytes were read with."""

    text: str
    encoding: str


def decode(data: bytes, *declared: str) -> Decoded | Refused:
    """Return the text: as UTF-8, else as the first of `declared` that fits, else as its bytes look.

    The last is a guess, good for another alphabet, less so for telling one western code page from the next.
    """
    text = _decode_as(data, "utf-8-sig")
    if text is None:
        text = _decode_damaged(data)
    for encoding in declared:
        text = text or _decode_as(data, encoding)
    if text is None and (guessed := borrow("charset_normalizer").from_bytes(data).best()):
        text = _decode_as(data, _COMMON if _COMMON in guessed.could_be_from_charset else guessed.encoding)
    return text or Refused("bad_encoding", "neither UTF-8 nor any encoding that could be told")


def _decode_as(data: bytes, encoding: str) -> Decoded | None:
    """Return the text, or None if the bytes are not of that encoding; a NUL betrays UTF-16 or no text at all."""
    try:
        name = codecs.lookup(encoding).name
        name = _AS_BROWSERS_DO.get(name, name)
        text = data.decode(name)
        text.encode("utf-8")  # some codecs a page may name can yield halves of surrogate pairs
    except (LookupError, ValueError):
        return None
    return None if "\0" in text else Decoded(_plain(text), name.removesuffix("-sig"))


def _decode_damaged(data: bytes) -> Decoded | None:
    """Return a text that is UTF-8 but for a few bytes: by chance, letters of another encoding never look like it."""
    text = data.decode("utf-8", errors="replace")
    sound = len(_BEYOND_ASCII.findall(text))
    if "\0" in text or not 0 < text.count("\ufffd") <= _MOST_DAMAGE * sound:
        return None
    return Decoded(_plain(text), "utf-8")


def _plain(text: str) -> str:
    return plain_newlines(text.removeprefix("\ufeff"))


def plain_newlines(text: str) -> str:
    r"""Return the text with every line ended by \n."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_text(data: bytes, charset: str = "") -> Parsed | Refused:
    """Take plain text as it stands."""
    decoded = decode(data, charset)
    return decoded if isinstance(decoded, Refused) else Parsed(text=decoded.text, encoding=decoded.encoding)


def parse_markdown(data: bytes, charset: str = "") -> Parsed | Refused:
    """Take Markdown as it stands, without its front matter, which says title, genre and licence."""
    decoded = decode(data, charset)
    if isinstance(decoded, Refused):
        return decoded
    facts, body = split_front_matter(decoded.text)
    return Parsed(
        text=body,
        title=facts.get("title", "") or first_heading(body),
        genre=facts.get("genre", ""),
        licence=facts.get("licence", "") or facts.get("license", ""),
        encoding=decoded.encoding,
    )


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the `key: value` lines between two `---` lines at the top, keys in lower case, and the rest.

    A text that opens with a mere rule has none.
    """
    block = _FRONT_MATTER.match(text)
    lines = block[1].split("\n") if block else []
    keys = [key for line in lines if (key := _KEY_LINE.match(line))]
    if not block or not keys or any(not _KEY_LINE.match(line) and not _NESTED_LINE.match(line) for line in lines):
        return {}, text
    facts = {key[1].lower(): key[2].strip().strip("\"'") for key in reversed(keys)}  # the first of a name holds
    return facts, text[block.end() :]


def first_heading(text: str) -> str:
    """Return the first `# ` heading; a comment in a fenced block of code is none."""
    fenced = ""
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            fenced = "" if fenced == mark[1] else fenced or mark[1]
        elif not fenced and (heading := _HEADING.match(line)):
            return heading[1]
    return ""
