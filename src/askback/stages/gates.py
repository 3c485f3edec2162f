"""Cheap rules a candidate must pass before a judge reads it; the reason of a reject is the name of the rule.

Takes: Pairs, the backward Layout they were asked in, GateOptions.
Gives: one outcome per Pair, in order: itself, or a Reject that names the first rule it fails.
Never: changes a pair, opens a network connection, or fails what a rule cannot tell (an unknown language passes).

`dangling_reference` and `refusal` know English phrases only; the other rules know every script.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import dropwhile

from askback import languages
from askback.nearness import Overlapping
from askback.options import GateOptions
from askback.prompts import Layout
from askback.records import OK, Pair, Reject, Verdict, excerpt

Rule = Callable[[Pair, Layout, GateOptions], Verdict]


def gate(pairs: Iterable[Pair], layout: Layout, options: GateOptions) -> Iterator[Pair | Reject]:
    """Yield what passes every rule and is no near-duplicate of what passed before it; the rest as Rejects."""
    passed = Passed(options.near_duplicate)
    for pair in pairs:
        verdict = check_pair(pair, layout, options)
        if verdict.keep:
            verdict = passed.admit(pair)
        yield pair if verdict.keep else _reject(pair, verdict)


def check_pair(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Return the verdict of the first rule that fails the pair by itself, or OK."""
    return next((verdict for rule in RULES if not (verdict := rule(pair, layout, options)).keep), OK)


def _reject(pair: Pair, verdict: Verdict) -> Reject:
    detail = ": ".join(filter(None, [verdict.detail, excerpt(pair.instruction)]))
    return Reject(id=pair.id, reason=verdict.reason, detail=detail, source=pair.source)


# --- the rules, each named for the reason it gives


def prompt_echo(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction that repeats a sentence of the words around the passage."""
    return Verdict(False, "prompt_echo") if options.echo and echoes(pair.instruction, layout) else OK


def copied(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction of at least `copy_words` words that stands in its output word for word."""
    words = words_of(pair.instruction)
    if not options.copy_words or len(words) < options.copy_words or not stands_in(words, pair.output):
        return OK
    return Verdict(False, "copied", f"{len(words)} words")


def dangling_reference(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction that points at a text it does not bring with it."""
    found = find_reference(pair.instruction) if options.dangling else ""
    return Verdict(False, "dangling_reference", f"`{found}`") if found else OK


def first_line_copy(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction that says the output's first line again, or the heading it stood under."""
    if not options.first_line:
        return OK
    words = words_of(pair.instruction)
    near = max(likeness(words, words_of(line), least=options.first_line) for line in _first_lines(pair))
    return Verdict(False, "first_line_copy", f"{near:.2f} alike") if near >= options.first_line else OK


def refusal(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction that begins as a refusal, an apology or a model's word on itself."""
    refuses = options.refusal and REFUSAL.match(_plain_marks(pair.instruction))
    return Verdict(False, "refusal") if refuses else OK


def wrong_language(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction plainly in another language than its output, unless it speaks of that language."""
    asked = tell_languages(pair.instruction, least=MIN_ASKED_BYTES) if options.language else ()
    answered = tell_languages(pair.output, least=MIN_ANSWERED_BYTES) if asked else ()
    if not answered:
        return OK
    here, there = asked[0], answered[0]
    if there in asked or here in answered or {here, there} <= ALIKE or _names(pair.instruction, there):
        return OK
    return Verdict(False, "wrong_language", f"`{here}` for an output in `{there}`")


def too_few_words(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction of fewer than `min_words` words."""
    count = len(words_of(pair.instruction))
    return Verdict(False, "too_few_words", f"{count}") if count < options.min_words else OK


def too_long(pair: Pair, layout: Layout, options: GateOptions) -> Verdict:
    """Fail an instruction of more than `max_chars` characters."""
    count = len(pair.instruction)
    return Verdict(False, "too_long", f"{count} characters") if 0 < options.max_chars < count else OK


RULES: tuple[Rule, ...] = (
    prompt_echo,
    copied,
    dangling_reference,
    first_line_copy,
    refusal,
    wrong_language,
    too_few_words,
    too_long,
)
"""In the order in which they are asked. `near_duplicate` comes after them: it remembers what passed the others."""


# --- near_duplicate


class Passed:
    """The instructions that passed, found again by what is nearly the same."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._seen: Overlapping[tuple[str, str]] = Overlapping(least or 1.0)
        self._rows: list[tuple[str, str]] = []
        """Id and passage of each."""

    def admit(self, pair: Pair) -> Verdict:
        """Remember the pair, or fail it as a near-duplicate of the first that overlaps so much.

        Candidates of one passage are alternatives, of which one is chosen later: they are not compared.
        """
        if not self._least:
            return OK
        bigrams, passage = _bigrams(words_of(pair.instruction)), pair.passage or pair.id
        for place, overlap in self._seen.find(bigrams):
            id, other = self._rows[place]
            if other != passage:
                return Verdict(False, "near_duplicate", f"{overlap:.2f} of the word pairs of {id}")
        self._seen.add(bigrams)
        self._rows.append((pair.id, passage))
        return OK


def _bigrams(words: Sequence[str]) -> set[tuple[str, str]]:
    """Return the word pairs; a single word is a pair with nothing."""
    return set(zip(words, words[1:] or [""], strict=False))


# --- words

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
"""Scripts written without spaces (Thai, Lao, Burmese, Khmer, kana, Han): each character counts as a word."""
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0970-\u0dff"
"""Signs inside words that are no letters to `\\w`: accents, points, the vowels of India."""
WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:[{_MARKS}]+[^\W_{_UNSPACED}]*)*")
ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
"""What WORD finds in such a text, five times as fast."""
_PLAIN_MARKS = str.maketrans("’‘ʼ`´“”„«»", "'''''\"\"\"\"\"")


def words_of(text: str) -> list[str]:
    """Return the words of a text, whatever their case, width and punctuation."""
    folded = _fold(text)
    return (ASCII_WORD if folded.isascii() else WORD).findall(folded)


def stands_in(words: Sequence[str], text: str) -> bool:
    """Whether a text holds these words one after the other."""
    folded = _fold(text)
    return all(word in folded for word in words) and _spaced(words) in _spaced(words_of(text))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _spaced(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


def _plain_marks(text: str) -> str:
    """Return a text with typewriter quotes, single spaces and its line ends."""
    return re.sub(r"[^\S\n]+", " ", text.translate(_PLAIN_MARKS)).strip()


# --- prompt_echo

MIN_ECHO_CHARS = 16
"""A shorter sentence of the layout could be anybody's."""


def echoes(text: str, layout: Layout) -> bool:
    """Whether a text repeats a sentence of the words the layout puts around the passage."""
    said = _spaced(words_of(text))
    return any(sentence in said for sentence in _sentences_around(layout))


@lru_cache(maxsize=8)
def _sentences_around(layout: Layout) -> tuple[str, ...]:
    parts = re.split(r"[.:\n]+", f"{layout.before}\n{layout.after}")
    sentences = [_spaced(words_of(part)) for part in parts]
    return tuple(sentence for sentence in sentences if len(sentence.strip()) >= MIN_ECHO_CHARS)


# --- first_line_copy

MAX_LINE_CHARS = 400
"""A longer line is a paragraph, and `copied` looks after it."""
QUESTION_WORDS = frozenset("how what when where which who why can could do does did is are should would".split())
REQUEST_WORDS = QUESTION_WORDS | frozenset(
    "compare create define describe design explain find give generate help list make name outline plan please "
    "provide recommend show suggest summarise summarize teach tell translate write".split()
)


def _first_lines(pair: Pair) -> tuple[str, str]:
    """Return the output's first line with a word in it, and the heading unless that is a question.

    The model saw the first line and not the heading: a heading's question that it found again is no copy.
    """
    first = next((line for line in pair.output.splitlines() if WORD.search(line)), "")
    return first[: MAX_LINE_CHARS + 1], "" if _is_question(pair.heading) else pair.heading


def _is_question(line: str) -> bool:
    return line.rstrip().endswith(("?", "？", "؟")) or not QUESTION_WORDS.isdisjoint(words_of(line)[:1])


def likeness(instruction: Sequence[str], line: Sequence[str], *, least: float = 0) -> float:
    """Return how alike two lists of words are, 0 to 1; 0 where the instruction asks about the line, or under `least`.

    It asks where it begins as a request and the line does not (`What are good X?` of `Here are good X`), and where
    the whole line stands in it after other words (`Explain X`). A number or article at the head does not count.
    """
    instruction, line = _matter(instruction), _matter(line)
    if not instruction or not line or sum(map(len, line)) > MAX_LINE_CHARS:
        return 0.0
    asks = instruction[0] in REQUEST_WORDS and line[0] not in REQUEST_WORDS
    if asks or _spaced(line) in _spaced(instruction[1:]):
        return 0.0
    matcher = SequenceMatcher(None, line, instruction, autojunk=False)
    return matcher.ratio() if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= least else 0.0


def _matter(words: Sequence[str]) -> list[str]:
    return list(dropwhile(lambda word: word.isdecimal() or word in ("the", "a", "an"), words))


# --- phrases


def any_of(phrases: Iterable[str], names: Mapping[str, str], *, start: bool = False) -> re.Pattern[str]:
    """Return one pattern of all phrases, each `<name>` in them replaced by its words (which may hold names again)."""
    pattern = "|".join(rf"(?:{phrase})(?!\w)" for phrase in phrases)
    while held := [name for name in names if name in pattern]:
        for name in held:
            pattern = pattern.replace(name, names[name])
    return re.compile((r"\W{0,20}" if start else r"(?<!\w)") + f"(?:{pattern})", re.IGNORECASE)


# --- refusal

_REFUSING = {
    "<cannot>": r"(?:can ?not|can't|could not|couldn't|am not able|am unable|do not|don't|will not|won't|must)",
    "<ai>": r"(?:an? )?(?:ai|artificial intelligence|(?:large )?language model|virtual assistant|chatbot)"
    r"(?: language)?(?: model| assistant| system| chatbot)?(?: (?:developed|created|trained|made) by \w+)?",
    "<help>": r"(?:assist|comply|fulfill?|provide|generate|produce|engage|offer|support|encourage|promote|discuss"
    r"|do that|help you|help with|(?:answer|write|create) (?:that|this|such))",
    "<trouble>": r"(?:the|any) (?:confusion|inconvenience|misunderstanding|mistake|error)",
}
REFUSAL = any_of(
    (
        r"(?:(?:i'm|i am|we are|we're) (?:\w+ )?)?sorry,? (?:but|i <cannot>|as an ai)",
        r"(?:i'm|i am) (?:\w+ )?sorry[.,] (?:i|as an ai)",
        r"(?:i'm|i am) (?:\w+ )?sorry for <trouble>",
        r"(?:i|my) apologi(?:[sz]e|es)(?:,? but|,? i|[.,] (?:i|as)| for <trouble>)",
        r"(?:unfortunately|regrettably|however),? (?:as an ai|i <cannot>)",
        r"as <ai>,? (?:i|my)",
        r"(?:i'm|i am) (?:just |only )?<ai>(?:[.,;]| and (?:i )?<cannot>)",
        r"i (?:can ?not|can't|will not|won't|must decline to) <help>",
        r"(?:i'm|i am) (?:not able|unable) to <help>",
        r"i <cannot> (?:see|access|read) (?:the|this|that|any|your) (?:text|passage|article|document|image|link)s?",
        r"i (?:do not|don't) have personal (?:opinion|feeling|experience|belief)s?",
        r"i (?:do not|don't) have enough (?:information|context)",
    ),
    _REFUSING,
    start=True,
)
"""How a reply begins that is none. People begin so too (`I can't sleep`): only what a model refuses is in it."""


# --- dangling_reference

OWN_TEXT_WORDS = 20
"""So many words outside the pointing sentence are taken for the text it points at."""
MAX_POINTING_WORDS = 120
"""A longer instruction brings what it speaks of."""

_POINTING = {
    "<text>": r"(?:(?:short|brief|long|news|blog|reference|source|wikipedia|piece of|body of) )?"
    r"(?:text|passage|article|paragraph|document|excerpt|extract|essay|story|poem|transcript|snippet|post|report|section"
    r"|chapter|dialogue|conversation|abstract|speech|letter|e-?mail|review|sentence|quote|quotation)s?",
    "<read>": r"(?:reference |source )?"
    r"(?:text|passage|article|paragraph|document|excerpt|extract|essay|story|poem|transcript|author|narrator)s?",
    "<shown>": r"(?:code(?: snippet)?|program|table|list|data|data ?set|image|picture|photo|diagram|chart|graph|summary"
    r"|information|context|content|example|scenario|statement|question|equation|detail)s?",
    "<page>": r"(?:tutorial|guide|page|web ?page|website|blog|lesson|image|picture|photo|diagram|chart|code"
    r"|code snippet)",
    "<written>": r"(?:text|passage|article|paragraph|document|excerpt|essay|story|poem)s?",
    "<gist>": r"(?:idea|point|topic|theme|message|purpose|argument|claim|tone|conclusion|title|summary)s?",
    "<view>": r"(?:argument|point|view|viewpoint|purpose|opinion|tone|claim|conclusion|perspective|intent|intention"
    r"|message|attitude|thesis|advice|suggestion|idea)s?",
    "<says>": r"(?:say|mention|state|describe|discuss|argue|suggest|claim|imply|explain|convey|mean|emphasi[sz]e"
    r"|propose|recommend|conclude|talk about|refer to)",
    "<said>": r"(?:mentioned|stated|noted|discussed|described|explained|outlined|listed|presented|referenced)",
    "<given>": r"(?:given|provided|attached|supplied|accompanying|quoted|presented|mentioned)",
    "<reads>": r"(?:read|summari[sz]e|paraphrase|proofread|analy[sz]e|translate|rewrite|rephrase|shorten|continue)",
    "<works>": r"(?:explain|describe|summari[sz]e|analy[sz]e|debug|fix|correct|answer|solve|interpret|given|consider"
    r"|refactor|using|does|do|is|are|in|from|of|to|on)",
    # No name of the text may follow (`the author of a will`), and no object (`the text above the image`).
    "<unnamed>": r"(?! (?:of|by|titled|entitled|called|named|from|published|written|i|you|we|who|that|which)\b"
    r"| in (?:the|an?|my|which)\b| in (?-i:[A-Z])| [\"'\d])",
    "<unplaced>": r"(?! (?:the|a|an|its|it|my|your|his|her|their|our|that|each|every|\d|sea|ground|all)\b)",
    "<end>": r"(?= ?(?:[.,;:?!\n]|$))",
}
COMES_NEXT = any_of(
    (
        r"(?<!all )the following (?:\w+ ){0,2}?<text>",
        r"<works> the following (?:\w+ )?<shown>",
        r"the (?:\w+ )?(?:<text>|<shown>) below<unplaced>",
        r"the below (?:\w+ )?(?:<text>|<shown>)",
        r"(?:<said>|given|shown|provided) below<unplaced>",
    ),
    _POINTING,
)
LIES_ELSEWHERE = any_of(
    (
        r"the (?:above|preceding|foregoing|aforementioned|above-? ?mentioned) (?:\w+ )?(?:<text>|<shown>)",
        r"the previous (?:text|passage|paragraph|article|excerpt|section|chapter|sentence|answer|response|message)s?",
        r"the (?:<text>|<shown>) (?:\w+ )?above<unplaced>",
        r"(?<!of )the above(?= (?:and|in|into)\b|<end>)",
        r"(?:<said>|given|shown|provided) above<unplaced>",
        r"as (?:i |we |you )?(?:was |were )?(?:<said>|said|seen|shown) (?:above|earlier|before|previously)",
        r"(?:mentioned|discussed|described|stated|introduced) earlier",
        r"previously (?:mentioned|discussed|described|stated)",
        r"(?:according to|based (?:up)?on|(?:as )?per|using|quoting from) the <read><unnamed>",
        r"from the (?:text|passage|paragraph|excerpt|article)<unnamed>",
        r"(?:in|of|to|with|does|do|did|is|was) the (?:passage|excerpt)<unnamed>",
        r"(?:<said>|provided|given|used) (?:in|by) (?:the|this) (?:<read>|<page>)<unnamed>",
        r"(?:the|from|using) <given> (?:\w+ )?(?:<text>|<shown>)<unnamed>",
        r"given (?:a|the|this|these) (?:\w+ )?(?:text|passage|paragraph|article|excerpt|information)s?<unnamed>",
        r"(?:the|a) (?:reference|source) (?:text|passage|paragraph)",
        r"the (?:<text>|context|information) <given><end>",
        r"<gist> (?:of|in|for) the <read><unnamed>",
        r"(?:does|did|do|is|was|would|might) the <read> (?:\w+ly )?(?:<says>|trying|saying|about)",
        r"the <read> (?:<says>s|discusses|implies|is about)",
        r"the (?:author|narrator)'s (?:\w+ )?<view>",
        r"(?:(?<=^)|(?<=[.!?,\n] )|(?<=\n)|(?<=please )|(?<=and ))<reads> the <written><unnamed>",
    ),
    _POINTING,
)
LIES_HERE = any_of(
    (
        r"this (?:given )?(?:<text>|<page>)",
        r"these (?:texts|passages|paragraphs|articles|excerpts)",
    ),
    _POINTING,
)

MIN_NOUN_CHARS = 4
_SENTENCE_END = re.compile(r"[.!?] |\n")
_INTRODUCED = re.compile(r"(?::(?!\d)|\n| [-–—] )\W{0,20}\w")
_QUOTED = re.compile(r'"[^"\s]+(?: [^"\s]+){2}[^"]*"|```')
_CODE = re.compile(
    r"\b(?:(?:write|create|implement|build|develop|make|define)\b.{0,60}\b(?:function|program|script|method|class|query|app)"
    r"|regex|python|java|javascript)\b",
    re.IGNORECASE,
)
_WORK = re.compile(r"\b(?:in|of|from|by) [A-Z]|\"")


def find_reference(instruction: str) -> str:
    """Return the words by which an instruction points at a text that is not in it, or an empty string."""
    text = _plain_marks(instruction)
    if len(words_of(text)) > MAX_POINTING_WORDS:
        return ""
    for phrases in (COMES_NEXT, LIES_ELSEWHERE, LIES_HERE):
        for found in phrases.finditer(text):
            beside = phrases is not LIES_ELSEWHERE
            if not (_brings_text(text, found, beside=beside) or _speaks_of_its_own(text, found)):
                return found[0]
    return ""


def _brings_text(text: str, found: re.Match[str], *, beside: bool) -> bool:
    """Whether the text pointed at is there: introduced or quoted beside the pointer, or long and in other sentences."""
    before, after = text[: found.start()], text[found.end() :]
    if beside and (_INTRODUCED.search(after) or _QUOTED.search(text)):
        return True
    start = max((end.end() for end in _SENTENCE_END.finditer(before)), default=0)
    stop = end.start() if (end := _SENTENCE_END.search(after)) else len(after)
    return len(words_of(before[:start])) + len(words_of(after[stop:])) >= OWN_TEXT_WORDS


def _speaks_of_its_own(text: str, found: re.Match[str]) -> bool:
    """Whether the phrase points at nothing outside: at `a story` named before, code's input, a work with a title."""
    nouns = "|".join(re.escape(word.rstrip("s")) for word in found[0].split() if len(word) >= MIN_NOUN_CHARS)
    named = re.search(rf"\b(?:an?|one|another|my|some) (?:[\w'-]+ ){{0,4}}(?:{nouns})", text[: found.start()], re.I)
    by_author = "author" in found[0].casefold() and _WORK.search(text)
    return bool(named or by_author or _CODE.search(text))


# --- wrong_language

LANGUAGES = {
    "ar": "arabic العربية",
    "bg": "bulgarian",
    "bn": "bengali bangla",
    "cs": "czech",
    "da": "danish dansk",
    "de": "german deutsch allemand alemán",
    "el": "greek",
    "en": "english englisch anglais inglés inglês inglese engels 英语 英文 英語",
    "es": "spanish español spanisch espagnol",
    "fa": "persian farsi",
    "fi": "finnish suomi",
    "fr": "french français französisch francés",
    "he": "hebrew",
    "hi": "hindi",
    "hu": "hungarian magyar",
    "id": "indonesian bahasa",
    "it": "italian italiano italienisch italien",
    "ja": "japanese 日本語",
    "ko": "korean 한국어",
    "nl": "dutch nederlands",
    "no": "norwegian norsk",
    "pl": "polish polski",
    "pt": "portuguese português",
    "ro": "romanian",
    "ru": "russian русский",
    "sv": "swedish svenska",
    "th": "thai",
    "tr": "turkish türkçe",
    "uk": "ukrainian",
    "vi": "vietnamese",
    "zh": "chinese mandarin cantonese 中文 汉语",
}
"""Languages the detector tells well, with names under which an instruction may ask for one."""
ALIKE = frozenset({"da", "no"})
"""Not told apart well enough to reject by."""
TRANSLATE = ("translat", "übersetz", "traduc", "traduis", "traduz", "traduir", "перевед", "vertaal", "翻译", "翻訳")
MIN_ASKED_BYTES = 40
MIN_ANSWERED_BYTES = 100
"""Letters of a text in UTF-8, below which its language is not known: a Chinese character says more than a letter."""
MAX_TOLD_CHARS = 250
NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)


def tell_languages(text: str, *, least: int) -> tuple[str, ...]:
    """Return the language of a text and after it those it could be in after all; nothing where it cannot be known.

    `least` is the number of bytes its letters must have. Code blocks and addresses are no part of the text.
    """
    prose = NO_PROSE.sub(" ", text[: 4 * MAX_TOLD_CHARS])[:MAX_TOLD_CHARS]
    told = languages.tell_languages(prose, least=least)
    return told if told and told[0] in LANGUAGES else ()


def _names(instruction: str, language: str) -> bool:
    """Whether an instruction names a language, or asks for a translation."""
    folded = _fold(instruction)
    return any(name in folded for name in (*LANGUAGES[language].split(), *TRANSLATE))
