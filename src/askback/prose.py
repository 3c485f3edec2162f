"""What a text in Markdown is made of, in shares and counts: the measures behind the rules of `clean`.

Takes: texts in any script.  Gives: shares from 0 to 1, counts, and the text without its code, tables or addresses.
Never: judges, or raises on any text.

What a reader reads of a text is what counts: the words of a link and not its address, no tag and no comment.
Letters are those of every script, vowel signs and accents included.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

from askback.grams import words_of
from askback.metrics import UNSPACED

MAX_SENTENCES = 80
"""Sentences compared with each other: 3,160 pairs, whatever the length of the text."""
MIN_SENTENCE_WORDS = 5
GRAM_WORDS = 5
GRAM_CHARS = 10
"""Length of a run in scripts written without spaces, where a word has about two characters."""
ADDRESS_CHARS = 20
"""What a bare address counts for, however long it is: a reader skips it."""

FENCED = re.compile(
    r"^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
INLINE_CODE = re.compile(r"(?<!`)(`++)[^`\n]++\1")
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])\s+")
LIST_MARK = re.compile(r"^[ \t]*[-*+][ \t]+", re.MULTILINE)
STEP = re.compile(
    r"""
    \s*(?:
        (?: (?: [-*+•‣◦▪·–] | \(?\d{1,3}[.):] ) \s | [\d一二三四五六七八九十]{1,3}、 ) .* [^\W_]  # no rule of dashes
      | (?: step | schritt | étape | paso ) \s+ \d{1,3}\b
      | 第 [\d一二三四五六七八九十]{1,3} 步
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_IMAGE = r"!\[[^\[\]\n]*\]\([^()\n]*\)"
LINK = re.compile(
    rf"""
      !?\[((?:[^\[\]\n!]++|{_IMAGE}|!)*+)\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s[^()\n]*)?\)|\[[^\[\]\n]*\])
    | <a\b[^<>]*>((?:[^<\n]|<(?!/?a\b))*)</a>
    | <?(?:https?|ftp)://[^\s<>)\]]+>?
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""`[words](address "title")` or `[words][reference]`, around an image too; the same in HTML; a bare address."""
TAG = re.compile(
    r"((?<!`)`++[^`\n]++`+)|<!--(?:(?!<!--).)*?-->|</?[a-z][\w-]*(?:\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL
)
"""A tag of HTML or a comment; one in inline code is spoken of, and stays."""
TABLE_EDGE = re.compile(r"[ \t]*(?:\||\+[-=])")
TABLE_RULE = re.compile(r"[ \t]*[-:=+|][-:=+| \t]*$")

SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")
GOES_ON = frozenset("`(")
PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")
CASED_WORD = re.compile(r"[^\W\d_]{2,}")
SYMBOL_PUNCTUATION = frozenset("#*@\\_[]{}")
"""Punctuation to Unicode, but markup or code where it is frequent."""

STOP_WORDS = {"en": frozenset(b"the be to of and that have with".split())}
"""Of English, the eight words of Rae et al. 2021, appendix A1.1; a language without a list is not judged by one."""


# --- parts of a text


@lru_cache(maxsize=8)
def without_code(text: str) -> str:
    """Return the text without its code blocks, fenced or indented; an indented line in a list is no code."""
    kept: list[str] = []
    in_list = in_code = False
    after_blank = True
    for line in FENCED.sub("", text).splitlines():
        indented = line.startswith(("    ", "\t"))
        if line.strip():
            in_list = bool(LIST_ITEM.match(line)) or (in_list and (indented or not after_blank))
            in_code = indented and not in_list and (after_blank or in_code)
        if not in_code:
            kept.append(line)
        after_blank = not line.strip()
    return "\n".join(kept)


@lru_cache(maxsize=8)
def shown(text: str) -> str:
    """Return what a reader reads outside code blocks: links by their words, no address, no tag."""
    return TAG.sub(r"\1", LINK.sub(_words_of_link, without_code(text)))


@lru_cache(maxsize=8)
def running(text: str) -> str:
    """Return what is shown of a text outside its tables."""
    return "\n".join(line for line, is_row in _mark_rows(shown(text).split("\n")) if not is_row)


def _words_of_link(link: re.Match[str]) -> str:
    words = link[1] or link[2] or ""
    return LINK.sub(_words_of_link, words) if "](" in words else words


def _mark_rows(lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield each line with whether it is a row of a table: edged by a bar, or around a rule with bars in it."""
    is_row = False
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        under = "|" in after and "-" in after and TABLE_RULE.match(after)
        is_row = bool(TABLE_EDGE.match(line)) or ("|" in line and (is_row or bool(under)))
        yield line, is_row


# --- what its characters are


def prose_share(text: str) -> float:
    """Return the share of letters and spaces outside code blocks; addresses count neither way."""
    read = shown(text)
    return _count(_is_prose, read) / max(1, len(read) + len(text) - len(without_code(text)))


def link_share(text: str) -> float:
    """Return the share of what is read that is the words of links, or stands on lines that hold nothing else."""
    code_chars = len(text) - len(without_code(text))
    linked = total = 0
    for line in without_code(text).split("\n"):
        item = LIST_ITEM.match(line)
        body = line[item.end() :] if item else line
        of_links = sum(map(_link_chars, LINK.finditer(body)))
        rest = LINK.sub("", body) if of_links else body
        size = len(line) - len(body) + of_links + len(rest)
        linked += of_links if any(map(str.isalnum, rest)) or not of_links else size
        total += size
    return linked / max(1, total + code_chars)


def symbol_share(text: str) -> float:
    """Return the share of symbols among the characters outside code blocks, tables, addresses and marks of lists.

    A symbol is whatever is no letter, mark, digit, space or common punctuation: Unicode's categories S (`+ < = > | ~ ^
    ` $ €`, emoji), C without format characters and white space (controls, unassigned), and of the punctuation those
    that are markup or code where they are frequent: `# * @ \\ _ [ ] { }`.
    """
    read = LIST_MARK.sub("", running(text))
    return _count(_is_symbol, read) / max(1, len(read))


def capital_share(text: str) -> float:
    """Return the share of words in capitals among the words of two letters or more that have a case, outside code."""
    found = CASED_WORD.findall(INLINE_CODE.sub(" ", shown(text)))
    cased = [word for word in found if word.lower() != word.upper()]
    return sum(map(str.isupper, cased)) / max(1, len(cased))


def _count(is_one: Callable[[str], bool], text: str) -> int:
    return sum(times for char, times in Counter(text).items() if is_one(char))


def _link_chars(link: re.Match[str]) -> int:
    bare = link[1] is None and link[2] is None
    return min(len(link[0]), ADDRESS_CHARS) if bare else len(_words_of_link(link))


def _is_prose(char: str) -> bool:
    return char.isalpha() or char.isspace() or unicodedata.category(char)[0] == "M"  # marks: vowel signs


def _is_symbol(char: str) -> bool:
    if char.isalnum() or char.isspace():
        return False
    category = unicodedata.category(char)
    return category[0] == "S" or (category[0] == "C" and category != "Cf") or char in SYMBOL_PUNCTUATION


# --- what it says twice


def repeated_lines(text: str) -> float:
    """Return the share of the lines with a letter that stood there before, whatever their case and spacing."""
    lines = _normal_parts(shown(text).splitlines())
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_paragraphs(text: str) -> float:
    """Return the share of the text, in characters, that lies in paragraphs that stood there before."""
    paragraphs = _normal_parts(PARAGRAPH_END.split(shown(text)))
    total = sum(map(len, paragraphs))
    return 1 - sum(map(len, set(paragraphs))) / total if total else 0.0


def repeated_ngrams(text: str) -> float:
    """Return the share of the words outside code blocks and tables that lie in a run of five that was said before.

    In scripts without spaces each character is a word, and a run is ten of them.
    """
    words = words_of(running(text))
    size = GRAM_CHARS if 2 * sum(map(_is_unspaced, words)) > len(words) else GRAM_WORDS
    seen: set[tuple[bytes, ...]] = set()
    covered = repeated_to = 0
    for start in range(len(words) - size + 1):
        gram = tuple(words[start : start + size])
        if gram in seen:
            covered += start + size - max(start, repeated_to)
            repeated_to = start + size
        seen.add(gram)
    return covered / max(1, len(words))


def sentence_overlap(text: str) -> float:
    """Return the largest Jaccard overlap of the word 3-grams of two sentences outside code blocks and tables.

    Compared are the first 80 sentences of at least 5 words.
    """
    sizes: list[int] = []
    holders: defaultdict[tuple[bytes, ...], list[int]] = defaultdict(list)
    for sentence in _sentences(running(text)):
        words = words_of(sentence)
        if len(words) >= MIN_SENTENCE_WORDS:
            grams = set(zip(words, words[1:], words[2:], strict=False))
            for gram in grams:
                holders[gram].append(len(sizes))
            sizes.append(len(grams))
        if len(sizes) == MAX_SENTENCES:
            break
    shared = Counter(pair for places in holders.values() for pair in combinations(places, 2))
    return max((both / (sizes[one] + sizes[other] - both) for (one, other), both in shared.items()), default=0.0)


def _sentences(text: str) -> Iterator[str]:
    """Yield sentences; a line ends one unless the next goes on as a wrapped line does, in lower case for one."""
    wrapped: list[str] = []
    for line in text.split("\n"):
        head = line.lstrip()[:1]
        if wrapped and not (head.islower() or head in GOES_ON):
            yield from SENTENCE_END.split(" ".join(wrapped))
            wrapped = []
        wrapped.append(LIST_ITEM.sub("", line, count=1))
    yield from SENTENCE_END.split(" ".join(wrapped))


def _normal_parts(parts: Sequence[str]) -> list[str]:
    return [" ".join(part.casefold().split()) for part in parts if any(map(str.isalpha, part))]


def _is_unspaced(word: bytes) -> bool:
    char = word.decode()
    return len(char) == 1 and any(first <= char <= last for first, last in UNSPACED)


# --- what it holds


def count_steps(text: str) -> int:
    """Return the number of list items and numbered steps outside code blocks."""
    return sum(1 for line in without_code(text).split("\n") if STEP.match(line))


def count_stop_words(text: str, language: str = "en") -> int:
    """Return how many different words of a language's list a text holds."""
    return len(STOP_WORDS[language].intersection(words_of(shown(text))))
