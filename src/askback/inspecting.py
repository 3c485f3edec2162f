"""`askback inspect CORPUS`: what lies in a corpus, and what a run with these options would make of it.

Takes: a path, Options, how many documents to read.  Gives: an Inspection, and the one screen it is shown on.
Never: writes, loads a base, or asks a network; the model that tells languages apart comes in its wheel.

Read are the first documents, in the order of a run, and cut and cleaned as a run cuts and cleans them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from statistics import quantiles
from typing import NamedTuple

from askback.errors import ConfigError, borrow
from askback.languages import tell_languages
from askback.options import Options
from askback.prose import running
from askback.records import Document, Passage, Reject, content_id, excerpt

KEPT = "kept"
NOT_SAID = "(not said)"
UNSURE = "(unsure)"
MOST_READ_CHARS = 20_000
MOST_TOLD_CHARS = 2_000
MIN_TOLD_BYTES = 100
"""The language of a document is told by so much prose at its head, and by no less."""
SHOWN = 10
REJECTS_PER_DOCUMENT = 10
"""So many rejects for each document asked for end the sample too: a crawl may hold little else."""

COLUMNS = 100
MOST_RULES = 17
"""Rules that have a line of their own; with all else on the screen, and a line for the others, that makes 40 lines."""


class Quartiles(NamedTuple):
    """Lengths in characters: the least, the most, and those between the quarters."""

    least: int
    lower: int
    median: int
    upper: int
    most: int


class Shown(NamedTuple):
    """A stretch of a document, and the rule that drops it, or `kept`."""

    reason: str
    chars: int
    heading: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found; of `passages` stretches each was dropped for one reason, or kept."""

    path: str
    documents: int
    is_whole: bool
    """Whether the corpus ended before the sample was full."""
    formats: Mapping[str, int]
    encodings: Mapping[str, int]
    languages: Mapping[str, int]
    licences: Mapping[str, int]
    chars: Quartiles | None
    """Lengths of the documents; None where there is none."""
    rejected: Mapping[str, int]
    """Documents that could not be read, by reason."""
    passages: int
    dropped: Mapping[str, int]
    """Stretches by the rule that drops them, in the order in which they are asked."""
    kept: int
    kept_chars: Quartiles | None
    shown: tuple[Shown, ...]


def inspect(
    path: str, options: Options, sample: int = 200, count_tokens: Callable[[str], int] | None = None
) -> Inspection:
    """Read the first documents of a corpus and tell what a run would keep of them.

    `count_tokens` is needed only where the options bound passages in tokens.

    Raises:
        ConfigError: nothing is at the path, the sample is none, or a bound in tokens is set and nothing counts them.
        DataError: nothing of a readable kind is there.
    """
    from askback.readers.documents import read_documents
    from askback.readers.rows import read_words
    from askback.stages.clean import choose_rules, clean
    from askback.stages.segment import segment, thin

    if sample < 1:
        raise ConfigError(f"--sample {sample}: want the number of documents to read, 1 or more")
    passages, blocked = options.passages, read_words(options.passages.block_words)
    notes = _Notes()
    read = read_documents(options.corpus.model_copy(update={"path": path}))
    cut = notes.watch_cuts(segment(notes.watch_documents(read, sample), passages, count_tokens))
    notes.note_outcomes(thin(clean(cut, passages, blocked), passages))
    return notes.sum_up(path, [rule.__name__ for rule in choose_rules(passages, blocked)])


@dataclass(slots=True)
class _Notes:
    """What is noted while documents flow by; no text of theirs stays."""

    documents: int = 0
    is_whole: bool = True
    formats: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    chars: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    cuts: dict[str, Shown] = field(default_factory=dict)
    """Every stretch by its id; `reason` is why it was not cut out, or `kept`."""
    ends: dict[str, str] = field(default_factory=dict)
    """What became of it in the end."""

    def watch_documents(self, outcomes: Iterable[Document | Reject], sample: int) -> Iterator[Document]:
        """Yield the sample's documents, each noted."""
        for outcome in outcomes:
            if self.documents == sample or self.rejected.total() == sample * REJECTS_PER_DOCUMENT:
                self.is_whole = False
                return
            if isinstance(outcome, Reject):
                self.rejected[outcome.reason] += 1
                continue
            self.documents += 1
            self.formats[outcome.format] += 1
            self.encodings[outcome.encoding or NOT_SAID] += 1
            self.languages[_tell_language(outcome.text)] += 1
            self.licences[outcome.licence or NOT_SAID] += 1
            self.chars.append(len(outcome.text))
            yield outcome

    def watch_cuts(self, outcomes: Iterable[Passage | Reject]) -> Iterator[Passage | Reject]:
        """Yield what `segment` gives, each noted."""
        from askback.stages.segment import size_of

        for outcome in outcomes:
            if isinstance(outcome, Reject):
                heading, chars = size_of(outcome)
                self.cuts[outcome.id] = Shown(outcome.reason, chars, heading, outcome.source)
            else:
                heading = excerpt(outcome.heading, COLUMNS)
                self.cuts[outcome.id] = Shown(KEPT, len(outcome.text), heading, outcome.source)
            yield outcome

    def note_outcomes(self, outcomes: Iterable[Passage | Reject]) -> None:
        """Note how each stretch ends."""
        for outcome in outcomes:
            self.ends[outcome.id] = outcome.reason if isinstance(outcome, Reject) else KEPT

    def sum_up(self, path: str, rules: Sequence[str]) -> Inspection:
        """Return what was noted; `rules` are those of `clean` in the order in which they were asked."""
        ended = {id: cut._replace(reason=self.ends[id]) for id, cut in self.cuts.items()}
        by_cutting = _by_size(Counter(cut.reason for cut in self.cuts.values() if cut.reason != KEPT))
        in_all = _by_size(Counter(cut.reason for cut in ended.values() if cut.reason != KEPT))
        order = [*by_cutting, *rules, *in_all]
        kept = [cut.chars for cut in ended.values() if cut.reason == KEPT]
        return Inspection(
            path=path,
            documents=self.documents,
            is_whole=self.is_whole,
            formats=_by_size(self.formats),
            encodings=_by_size(self.encodings),
            languages=_by_size(self.languages),
            licences=_by_size(self.licences),
            chars=_quartiles(self.chars),
            rejected=_by_size(self.rejected),
            passages=len(ended),
            dropped={reason: in_all[reason] for reason in dict.fromkeys(order) if reason in in_all},
            kept=len(kept),
            kept_chars=_quartiles(kept),
            shown=_choose(ended),
        )


def _tell_language(text: str) -> str:
    told = tell_languages(running(text[:MOST_READ_CHARS])[:MOST_TOLD_CHARS], least=MIN_TOLD_BYTES)
    return told[0] if told else UNSURE


def _by_size(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _quartiles(sizes: Sequence[int]) -> Quartiles | None:
    if not sizes:
        return None
    lower, median, upper = quantiles(sizes, n=4, method="inclusive") if len(sizes) > 1 else [sizes[0]] * 3
    return Quartiles(min(sizes), round(lower), round(median), round(upper), max(sizes))


def _choose(cuts: Mapping[str, Shown]) -> tuple[Shown, ...]:
    """Choose what is shown by the hash of its id: half of it kept, the rest one from each rule in turn."""
    by_reason: dict[str, list[Shown]] = {KEPT: []}
    for id in sorted(cuts, key=content_id):
        by_reason.setdefault(cuts[id].reason, []).append(cuts[id])
    kept = by_reason.pop(KEPT)
    groups = sorted(by_reason.values(), key=len, reverse=True)
    dropped = [cut for turn in zip_longest(*groups) for cut in turn if cut]
    shown = [*kept[: max(SHOWN // 2, SHOWN - len(dropped))]]
    shown += sorted(dropped[: SHOWN - len(shown)], key=lambda cut: cut.reason)
    return tuple(shown)


# --- one screen


def render(inspection: Inspection) -> str:
    """Return the inspection as text: at most 40 lines of 100 columns."""
    return "\n".join(
        _clip(line, COLUMNS) for line in chain(_corpus(inspection), _rules(inspection), _shown(inspection))
    )


def _corpus(found: Inspection) -> Iterator[str]:
    more = "" if found.is_whole else " (there are more)"
    yield f"{found.documents:,} documents read{more}, {sum(found.rejected.values()):,} rejected: {found.path}"
    for name in ("formats", "encodings", "languages", "licences", "rejected"):
        if counts := getattr(found, name):
            yield _counts(name, counts)
    if found.chars:
        yield f"{'lengths':<11}{_lengths(found.chars)}"


def _rules(found: Inspection) -> Iterator[str]:
    share = f" ({found.kept / found.passages:.0%})" if found.passages else ""
    yield ""
    yield f"cut into {found.passages:,} stretches of text, {found.kept:,} kept{share}:"
    rules = list(found.dropped.items())
    rest = rules[MOST_RULES:]
    others = [(f"{len(rest)} other rules", sum(count for _, count in rest))] if rest else []
    left = found.passages
    for reason, count in rules[:MOST_RULES] + others:
        left -= count
        yield f"  {reason:<26}{count:>9,} dropped{left:>10,} left"
    if found.kept_chars:
        yield f"  {'lengths of what is kept':<26}{_lengths(found.kept_chars)}"


def _shown(found: Inspection) -> Iterator[str]:
    if found.shown:
        yield ""
        yield f"{len(found.shown)} of them:"
    for reason, chars, heading, source in found.shown:
        yield f"  {_pad(reason, 20)}{chars:>8,}  {_pad(heading or '(no heading)', 40)}  {source}"


def _counts(name: str, counts: Mapping[str, int]) -> str:
    """Return names with their numbers on one line, the largest first, and how many did not fit."""
    line, left = f"{name:<11}", len(counts)
    for at, (key, count) in enumerate(counts.items()):
        entry = f"{', ' if at else ''}{_clip(key, 40)} {count:,}"
        if len(line) + len(entry) > COLUMNS - len(", 100 others"):
            return f"{line}, {left} others"
        line, left = line + entry, left - 1
    return line


def _lengths(chars: Quartiles) -> str:
    return " – ".join(f"{size:,}" for size in chars) + " characters (quartiles)"


def _pad(text: str, width: int) -> str:
    clipped = _clip(text, width)
    return clipped + " " * (width - _width(clipped))


def _clip(text: str, width: int) -> str:
    """Return what fits the columns of a terminal; what would steer it is shown as a question mark."""
    plain = "".join(char if char.isprintable() else "?" for char in text)
    if _width(plain) <= width:
        return plain
    while _width(plain) >= width:
        plain = plain[:-1]
    return f"{plain}…"


def _width(text: str) -> int:
    return int(borrow("rich.cells").cell_len(text))
