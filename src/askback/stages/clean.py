"""Drop passages no assistant would give as an answer (Li et al. 2023, section 2.1), and say why.

Takes: Passages and Rejects.  Gives: both in order, each failing Passage turned into a Reject.
Never: changes a passage, or looks at more than one at a time but to find duplicates.

A heading nobody wrote cannot be empty, and only `segment` knows which were written: it rejects those itself, and it
writes plain-text headings in sentence case, so that `capital_heading` judges Markdown headings only.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from askback.options import PassageOptions
from askback.records import OK, Passage, Reject, Verdict, excerpt

MIN_CAPITALS = 4
MAX_SENTENCES = 80
"""Sentences compared with each other: 3,160 pairs, whatever the length of the passage."""
MIN_SENTENCE_WORDS = 5
MAX_REPEATED_LINES = 0.3
MAX_LINKS = 0.5

NAVIGATION = frozenset(
    {
        *("about me", "about the author", "about us", "acknowledgements", "additional reading", "archives"),
        *("additional resources", "bibliography", "categories", "citations", "comments", "contact", "contact us"),
        *("contents", "copyright", "external links", "external resources", "follow us", "footer", "footnotes"),
        *("for more information", "further information", "further reading", "further resources", "leave a comment"),
        *("leave a reply", "links", "main menu", "menu", "more info", "more information", "more resources"),
        *("navigation", "newsletter", "notes and references", "on this page", "other resources", "popular posts"),
        *("read more", "recent posts", "reference", "references", "related", "related articles", "related links"),
        *("related posts", "resources", "search", "see also", "share this", "sign up", "site map", "sitemap"),
        *("sources", "subscribe", "table of contents", "tags", "useful links", "useful resources", "you may also like"),
    }
)

FENCED = re.compile(
    r"^[ \t]*(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
LINK = re.compile(
    r"""
      !?\[([^\[\]\n]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s[^()\n]*)?\)  # [text](address "title")
    | <a\b[^<>]*>([^<>]*)</a>
    | <?https?://[^\s<>)]+>?
    """,
    re.VERBOSE | re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
NUMBER_MARK = re.compile(r"^[\d.\s]+")
TEXT_MARK = re.compile(r"[^\w\s]+|_")

Rule = Callable[[Passage, PassageOptions], Verdict]
Outcomes = Iterable[Passage | Reject]


def clean(outcomes: Outcomes, options: PassageOptions) -> Iterator[Passage | Reject]:
    """Yield what passes every rule and is no duplicate; the rest as Rejects, those that came in untouched."""
    seen: dict[bytes, str] = {}
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            yield outcome
            continue
        verdict = judge(outcome, options)
        if verdict.keep:
            verdict = _judge_novelty(outcome, seen)
        yield outcome if verdict.keep else _reject(outcome, verdict)


def _judge_novelty(passage: Passage, seen: dict[bytes, str]) -> Verdict:
    """Fail a text that stood there before, but for case and white space; remember it otherwise."""
    text = _fingerprint(passage.text)
    if text in seen:
        return Verdict(False, "duplicate", f"the text of {seen[text]}")
    seen[text] = passage.id
    return OK


def judge(passage: Passage, options: PassageOptions) -> Verdict:
    """Return the verdict of the first rule that fails the passage, or OK."""
    return next((v for rule in RULES if not (v := rule(passage, options)).keep), OK)


# --- the rules, each named for the reason it gives


def capital_heading(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a heading in capitals: a banner rather than a heading."""
    letters = [char for char in passage.heading if char.isalpha()]
    fails = len(letters) >= MIN_CAPITALS and all(map(str.isupper, letters))
    return Verdict(False, "capital_heading") if fails else OK


def navigation_heading(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a heading that announces the furniture of a page, not its matter."""
    bare = " ".join(TEXT_MARK.sub(" ", NUMBER_MARK.sub("", passage.heading.casefold())).split())
    return Verdict(False, "navigation_heading") if bare in NAVIGATION else OK


def little_prose(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which too small a share is letters and spaces outside code blocks."""
    prose = sum(map(_is_prose, without_code(passage.text))) / max(1, len(passage.text))
    return OK if prose >= options.min_prose else Verdict(False, "little_prose", f"{prose:.2f} of the characters")


def link_list(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage that is for the most part links, or list items holding nothing else."""
    linked = sum(map(_linked_chars, passage.text.splitlines())) / max(1, len(passage.text))
    return OK if linked <= MAX_LINKS else Verdict(False, "link_list", f"{linked:.2f} of the characters")


def repetitive(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage that says something twice: two sentences nearly alike, or line after line repeated."""
    prose = LINK.sub(lambda link: link[1] or link[2] or "", without_code(passage.text))  # addresses always repeat
    repeated = repeated_lines(prose)
    if repeated > MAX_REPEATED_LINES:
        return Verdict(False, "repetitive", f"{repeated:.2f} of the lines stand there before")
    overlap = sentence_overlap(prose)
    if overlap > options.max_repetition:
        return Verdict(False, "repetitive", f"two sentences share {overlap:.2f} of their 3-grams")
    return OK


RULES: tuple[Rule, ...] = (capital_heading, navigation_heading, little_prose, link_list, repetitive)


# --- what the rules measure


def sentence_overlap(prose: str) -> float:
    """Largest Jaccard overlap of the word 3-grams of two sentences, 0 to 1.

    Compared are the first 80 sentences of at least 5 words.
    """
    grams: list[set[tuple[str, ...]]] = []
    for sentence in SENTENCE_END.split(prose):
        words = WORD.findall(sentence.lower())
        if len(words) >= MIN_SENTENCE_WORDS:
            grams.append(set(zip(words, words[1:], words[2:], strict=False)))
        if len(grams) == MAX_SENTENCES:
            break
    return max((len(a & b) / len(a | b) for a, b in combinations(grams, 2)), default=0.0)


def repeated_lines(prose: str) -> float:
    """Share of the lines with a letter that stood there before, 0 to 1, whatever their case and spacing."""
    lines = [_normal(line) for line in prose.splitlines() if any(map(str.isalpha, line))]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


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


def _linked_chars(line: str) -> int:
    item = LIST_ITEM.match(line)
    rest = LINK.sub("", line[item.end() :] if item else line)
    if item and len(rest) < len(line) - item.end() and not any(map(str.isalnum, rest)):
        return len(line)
    return sum(len(link.group()) for link in LINK.finditer(line))


def _is_prose(char: str) -> bool:
    return char.isalpha() or char.isspace() or unicodedata.category(char).startswith("M")  # marks: vowel signs


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _fingerprint(text: str) -> bytes:
    return hashlib.sha256(_normal(text).encode("utf-8", "surrogatepass")).digest()


def _reject(passage: Passage, verdict: Verdict) -> Reject:
    parts: Sequence[str] = [excerpt(passage.heading, 80) or "(no heading)", verdict.detail]
    return Reject(id=passage.id, reason=verdict.reason, detail=": ".join(filter(None, parts)), source=passage.source)
