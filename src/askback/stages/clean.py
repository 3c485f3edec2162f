"""Drop passages no assistant would give as an answer (Li et al. 2023, section 2.1), and say why.

Takes: Passages and Rejects.  Gives: both in order, each failing Passage turned into a Reject that names its rule.
Never: looks at more than one passage at a time, opens a file, or changes a passage but to mask personal data.

A rule is a pure function of a passage and the options, named for the reason it gives; `RULES` is the order in which
they are asked, the cheap ones first. What they measure is in `prose`, `personal` and `languages`. A rule that cannot
tell (an unknown language, a script without capitals) passes.

A heading nobody wrote cannot be empty, and only `segment` knows which were written: it rejects those itself, and it
writes plain-text headings in sentence case, so that `capital_heading` judges Markdown headings only.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from askback import personal
from askback.errors import ConfigError
from askback.grams import words_of
from askback.languages import tell_languages
from askback.options import PassageOptions
from askback.prose import (
    CASED_WORD,
    INLINE_CODE,
    STOP_WORDS,
    capital_share,
    count_steps,
    count_stop_words,
    link_share,
    prose_share,
    repeated_lines,
    repeated_ngrams,
    repeated_paragraphs,
    running,
    sentence_overlap,
    symbol_share,
)
from askback.records import OK, Passage, Reject, Verdict, excerpt

MIN_CAPITALS = 4
MAX_ACRONYM = 4
"""Letters of a word that is a heading by itself: `HTML` is no banner."""
SHOUTED = 0.5
"""Share of words in capitals from which a text shows nothing about its heading."""
MAX_TOLD_CHARS = 1000
"""The language of a passage is told by so much prose at its head: more is slower and hardly surer."""
MIN_TOLD_BYTES = 100
"""Letters in UTF-8 below which it is not told."""
LATIN = 0.9
"""Share of letters from A to Z from which a text whose language cannot be told is taken for English or none."""

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
NUMBER_MARK = re.compile(r"^[\d.\s]+")
TEXT_MARK = re.compile(r"[^\w\s]+|_")

Rule = Callable[[Passage, PassageOptions], Verdict]


def clean(
    outcomes: Iterable[Passage | Reject], options: PassageOptions, blocked: Sequence[str] = ()
) -> Iterator[Passage | Reject]:
    """Yield what passes every rule; the rest as Rejects, those that came in untouched.

    `blocked` holds the lines of the file `options.block_words` names, a word or phrase each.

    With `personal = "mask"` a passage keeps its id and its span in the source, but its heading and text are no longer
    the characters of that span: they hold `[email]`, `[phone]`, `[ip]`, `[card]` or `[iban]` where something stood.

    Raises:
        ConfigError: words are to be blocked and none are given, or a line of them has no letter.
    """
    rules = choose_rules(options, blocked)
    return (outcome if isinstance(outcome, Reject) else _outcome(outcome, options, rules) for outcome in outcomes)


def choose_rules(options: PassageOptions, blocked: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the rules a run asks, in their order; with words to block, `blocked_word` is the last.

    Raises:
        ConfigError: words are to be blocked and none are given, or a line of them has no letter.
    """
    phrases = [line.strip() for line in blocked if line.strip()]
    if options.block_words and not phrases:
        raise ConfigError(
            f"passages.block_words = {options.block_words}: no word is in it; name a file with one a line"
        )
    return (*RULES, block(phrases)) if phrases else RULES


def judge(passage: Passage, options: PassageOptions, rules: Sequence[Rule] | None = None) -> Verdict:
    """Return the verdict of the first rule that fails the passage, or OK."""
    asked = RULES if rules is None else rules
    return next((verdict for rule in asked if not (verdict := rule(passage, options)).keep), OK)


def _outcome(passage: Passage, options: PassageOptions, rules: Sequence[Rule]) -> Passage | Reject:
    verdict = judge(passage, options, rules)
    if not verdict.keep:
        heading = excerpt(passage.heading, 80) or "(no heading)"
        detail = ": ".join(filter(None, [heading, verdict.detail]))
        return Reject(id=passage.id, reason=verdict.reason, detail=detail, source=passage.source)
    if options.personal == "mask":
        return replace(passage, heading=personal.mask(passage.heading), text=personal.mask(passage.text))
    return passage


# --- the rules, each named for the reason it gives


def capital_heading(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a heading in capitals, unless it is an acronym, or the text writes its words so as well: `SQL JOIN`."""
    letters = [char for char in passage.heading if char.isalpha()]
    words = CASED_WORD.findall(passage.heading)
    if len(letters) < MIN_CAPITALS or not all(map(str.isupper, letters)) or _writes_so(passage.text, words):
        return OK
    return OK if len(words) == 1 and len(words[0]) <= MAX_ACRONYM else Verdict(False, "capital_heading")


def navigation_heading(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a heading that announces the furniture of a page, not its matter."""
    bare = " ".join(TEXT_MARK.sub(" ", NUMBER_MARK.sub("", passage.heading.casefold())).split())
    return Verdict(False, "navigation_heading") if bare in NAVIGATION else OK


def few_steps(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of fewer list items and numbered steps than `min_steps`."""
    count = count_steps(passage.text) if options.min_steps else 0
    return OK if count >= options.min_steps else Verdict(False, "few_steps", f"{count} items or steps")


def link_list(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which more than `max_links` of what is read are links."""
    return _at_most(options.max_links, link_share, passage, Verdict(False, "link_list", "of what is read"))


def little_prose(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which less than `min_prose` are letters and spaces outside code blocks."""
    share = prose_share(passage.text) if options.min_prose else 0
    return OK if share >= options.min_prose else Verdict(False, "little_prose", f"{share:.2f} of the characters")


def many_symbols(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage with more than `max_symbols` symbols outside code blocks and tables; `symbol_share` says which."""
    return _at_most(options.max_symbols, symbol_share, passage, Verdict(False, "many_symbols", "of the characters"))


def many_capitals(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage that shouts: more than `max_capitals` of its words are in capitals."""
    return _at_most(options.max_capitals, capital_share, passage, Verdict(False, "many_capitals", "of the words"))


def repeated_line(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which more than `max_repeated_lines` of the lines stand there before."""
    found = Verdict(False, "repeated_line", "of the lines stand there before")
    return _at_most(options.max_repeated_lines, repeated_lines, passage, found)


def repeated_paragraph(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which more than `max_repeated_lines` lie in paragraphs that stand there before."""
    found = Verdict(False, "repeated_paragraph", "of the text is in paragraphs that stand there before")
    return _at_most(options.max_repeated_lines, repeated_paragraphs, passage, found)


def repetitive(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage that says something twice: the 3-grams of two sentences overlap by more than `max_repetition`."""
    found = Verdict(False, "repetitive", "of their 3-grams are shared by two sentences")
    return _at_most(options.max_repetition, sentence_overlap, passage, found)


def repeated_ngram(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage of which more than `max_repeated_ngrams` of the words lie in 5-grams said before."""
    found = Verdict(False, "repeated_ngram", "of the words are in 5-grams said before")
    return _at_most(options.max_repeated_ngrams, repeated_ngrams, passage, found)


def other_language(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage that can be in none of `languages`; one too short to tell passes."""
    told = _tell(passage.text) if options.languages else ()
    return OK if not told or _wanted(options).intersection(told) else Verdict(False, "other_language", f"`{told[0]}`")


def few_stop_words(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail an English passage with fewer than `min_stop_words` of the commonest words: a list, a log, a tag cloud.

    A passage in another language passes, since only English has a list. One in no language that can be told is judged
    as English where its letters are from A to Z.
    """
    count = count_stop_words(passage.text) if options.min_stop_words else 0
    if count >= options.min_stop_words or not _may_be_english(passage, options):
        return OK
    return Verdict(False, "few_stop_words", f"{count} of {len(STOP_WORDS['en'])}")


def personal_data(passage: Passage, options: PassageOptions) -> Verdict:
    """Fail a passage with personal data in it, where `personal` is "drop"."""
    if options.personal != "drop":
        return OK
    kinds = {span.kind for text in (passage.heading, passage.text) for span in personal.find(text)}
    return Verdict(False, "personal_data", ", ".join(sorted(kinds))) if kinds else OK


RULES: tuple[Rule, ...] = (
    capital_heading,
    navigation_heading,
    few_steps,
    link_list,
    little_prose,
    many_symbols,
    many_capitals,
    repeated_line,
    repeated_paragraph,
    repetitive,
    repeated_ngram,
    other_language,
    few_stop_words,
    personal_data,
)
"""In the order in which they are asked; `blocked_word` follows where there are words to block."""

REASONS = {
    "capital_heading": "the heading is all in capitals",
    "navigation_heading": "the heading belongs to the furniture of a page, such as `See also`",
    "few_steps": "too few list items or numbered steps",
    "link_list": "mostly links",
    "little_prose": "too little prose: mostly code, numbers or signs",
    "many_symbols": "too many symbols",
    "many_capitals": "too many words in capitals",
    "repeated_line": "too many lines repeat earlier ones",
    "repeated_paragraph": "too much of the text is paragraphs repeated",
    "repetitive": "two sentences say nearly the same",
    "repeated_ngram": "too many phrases are repeated",
    "other_language": "in another language than those asked for",
    "few_stop_words": "hardly any of the commonest words: a list or keywords, no sentences",
    "personal_data": "holds personal data",
    "blocked_word": "holds a blocked word",
}
"""What each reason of this stage says to a reader."""


def block(phrases: Sequence[str]) -> Rule:
    """Return the rule that fails a passage with one of these words or phrases in it, whole and whatever their case.

    Raises:
        ConfigError: a phrase has no letter and no digit.
    """
    by_words = {tuple(words_of(phrase)): phrase for phrase in phrases}
    if () in by_words:
        raise ConfigError(f"passages.block_words: `{by_words[()]}` has no letter or digit; take that line out")
    sizes = sorted({len(words) for words in by_words})

    def blocked_word(passage: Passage, options: PassageOptions) -> Verdict:
        words = words_of(f"{passage.heading}\n{passage.text}")
        runs = (tuple(words[at : at + size]) for size in sizes for at in range(len(words) - size + 1))
        found = next((by_words[run] for run in runs if run in by_words), "")
        return Verdict(False, "blocked_word", f"`{found}`") if found else OK

    return blocked_word


# --- what the rules share


def _at_most(bound: float, measure: Callable[[str], float], passage: Passage, failure: Verdict) -> Verdict:
    """Measure a passage where the bound is below 1, and give it the failure, with the share, where it is above."""
    share = measure(passage.text) if bound < 1 else 0
    return OK if share <= bound else failure._replace(detail=f"{share:.2f} {failure.detail}")


def _writes_so(text: str, words: Sequence[str]) -> bool:
    """Tell whether at least half of these words stand in a text in the same capitals, and most others do not."""
    written = {word for word in CASED_WORD.findall(text) if word.isupper()}
    same = sum(1 for word in words if word in written or word.removesuffix("S") in written)
    return 0 < len(words) <= 2 * same and capital_share(text) < SHOUTED


def _wanted(options: PassageOptions) -> set[str]:
    return {code.casefold().split("-")[0] for code in options.languages}


def _may_be_english(passage: Passage, options: PassageOptions) -> bool:
    if options.languages and "en" not in _wanted(options):
        return False
    told = _tell(passage.text)
    letters = [char for char in running(passage.text) if char.isalpha()]
    return told[0] == "en" if told else sum(map(str.isascii, letters)) >= LATIN * len(letters)


@lru_cache(maxsize=8)
def _tell(text: str) -> tuple[str, ...]:
    """Return the languages a text may be in, the likeliest first, by the prose at its head."""
    return tell_languages(INLINE_CODE.sub(" ", running(text))[:MAX_TOLD_CHARS], least=MIN_TOLD_BYTES)
