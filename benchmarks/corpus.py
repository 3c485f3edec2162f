"""From a raw crawl to clean passages: what is read, what is lost, what is found twice, what leaks from evaluation sets.

Takes: the folder of real data, and how many passages to make up for the search of near-duplicates.
Gives: each figure beside the asked one; half an hour on one core, most of it the million passages.
Never: types a figure in, or takes a file that was passed over for one that was read.

    OMP_NUM_THREADS=1 python -m benchmarks.corpus --check
"""

import argparse
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from askback.grams import words_of
from askback.options import CorpusOptions, DistinctOptions
from askback.readers.documents import read_documents
from askback.readers.evalsets import read_evalsets
from askback.records import Reject
from askback.stages.decontaminate import SHORTEST_RUN, EvaluationSets
from benchmarks import corpus_distinct, corpus_html
from benchmarks.figures import Figure, add_flags, show

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLEAN = 10_000
PASSAGE_CHARS = 1500


def figures(data: Path, counts: Sequence[int]) -> Iterator[Figure]:
    """Yield the figures of reading, of articles, of evaluation sets and of near-duplicates, the quick ones first."""
    yield from measure_reading(data / "corpus")
    yield from corpus_html.figures(data)
    yield from measure_decontamination(data)
    yield from corpus_distinct.figures(counts)


# --- reading


def measure_reading(corpus: Path) -> Iterator[Figure]:
    """Read everything: each file and each record of a crawl must come out, as a document or as a reject."""
    read = Counter[str]()
    reasons = Counter[str]()
    for outcome in read_documents(CorpusOptions(path=str(corpus))):
        read[_file_of(outcome.source)] += 1
        reasons[outcome.reason if isinstance(outcome, Reject) else "read"] += 1
    files = sorted(file.relative_to(corpus).as_posix() for file in corpus.rglob("*") if file.is_file())
    yield Figure(
        f"files of {len(files)} that gave a document or a reason", sum(name in read for name in files), len(files)
    )
    for file in sorted((corpus / "warc").glob("*.gz")):
        members = _count_members(file)
        found = read[f"warc/{file.name}"]
        yield Figure(f"{file.name}: records answered for, of {members} gzip members", found / members, 1.0)
    for reason, count in reasons.most_common():
        yield Figure(f"  {reason}", count)


def _file_of(source: str) -> str:
    """Return the file an outcome came from; a record adds ":offset URL" to it."""
    return source.split(" ")[0].rsplit(":", 1)[0] if source.startswith("warc/") and ":" in source else source


def _count_members(file: Path) -> int:
    """Return how many gzip members a file has: one per record where each was packed by itself."""
    packed, members = file.read_bytes(), 0
    while packed:
        member = zlib.decompressobj(wbits=31)
        member.decompress(packed)
        packed, members = member.unused_data, members + 1
    return members


# --- evaluation sets


def measure_decontamination(data: Path) -> Iterator[Figure]:
    """Plant every prompt that is long enough to be found inside a text; and try as many texts without any."""
    strings = [*read_evalsets([str(data / "evalsets")])]
    sets = EvaluationSets(strings, DistinctOptions().ngram)
    clean = _clean_passages(data)
    prompts = [text for _, text in strings if len(words_of(text)) >= SHORTEST_RUN]
    half = PASSAGE_CHARS // 2
    planted = [f"{around[:half]}\n{text}\n{around[half:]}" for text, around in zip(prompts, clean, strict=False)]
    found = sum(not sets.check_text(text).keep for text in planted)
    yield Figure(f"planted evaluation prompts found, of {len(planted)}", found / len(planted), 1.0)
    alone = [text for _, text in strings if words_of(text)]
    found = sum(not sets.check_text(text).keep for text in alone)
    yield Figure(f"the same as instructions, short ones too, of {len(alone)}", found / len(alone), 1.0)
    dropped = sum(not sets.check_text(text).keep for text in clean)
    yield Figure(f"clean passages dropped, of {len(clean):,}", dropped, 0, at_most=True)


def _clean_passages(data: Path) -> list[str]:
    pieces = []
    with gzip.open(data / "pretrain" / "text.jsonl.gz", "rt", encoding="utf-8") as lines:
        for text in (json.loads(line)["text"] for line in lines):
            pieces += [text[start : start + PASSAGE_CHARS] for start in range(0, len(text) - 300, PASSAGE_CHARS)]
    return Random(0).sample(pieces, CLEAN)


def main() -> None:
    """Measure and print; with --check, fail if a figure falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--counts", type=int, nargs="+", default=corpus_distinct.COUNTS)
    add_flags(parser)
    given = parser.parse_args()
    show(figures(given.data, given.counts), given, "corpus")


if __name__ == "__main__":
    main()
