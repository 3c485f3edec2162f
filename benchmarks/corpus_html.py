"""How much of an article is read out of its page, and what is not read at all.

Takes: the folder of real data, with pages and, beside each, its article as a person cut it out.
Gives: F1 of the words of each page; what becomes of a page nested 300 deep, and of one of 50 MB, and how fast.
Never: counts a page that was refused as left out: it has an F1 of 0.

    python -m benchmarks.corpus_html --check ../shared/data
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askback.readers.parsed import Parsed
from askback.readers.web import parse_html
from benchmarks.figures import Figure, add_flags, show

DEPTH = 300
LARGE_MB = 50
WORST = 5
_WORD = re.compile(r"\w+")
_PROSE = "Some words of prose stand here and there, and then they go on for a while. "


def measure(data: Path) -> dict[str, Any]:
    """Return the mean F1 over pages, how many they are, and the worst of them with precision and recall."""
    pages = [score(page) for page in sorted((data / "corpus" / "html").iterdir())]
    worst = sorted(pages, key=lambda page: page["f1"])[:WORST]
    return {"mean": sum(page["f1"] for page in pages) / len(pages), "n": len(pages), "worst": worst}


def score(page: Path) -> dict[str, Any]:
    """Compare the words of an article as multisets, in lower case."""
    import lxml.html

    parsed = parse_html((page / "source.html").read_bytes())
    found = _count(parsed.text if isinstance(parsed, Parsed) else "")
    parser = lxml.html.HTMLParser(encoding="utf-8")
    wanted = _count(lxml.html.fromstring((page / "expected.html").read_bytes(), parser=parser).text_content())
    both, said, asked = (found & wanted).total(), found.total(), wanted.total()
    return {
        "page": page.name,
        "f1": 2 * both / max(1, said + asked),
        "precision": both / max(1, said),
        "recall": both / max(1, asked),
    }


def _count(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def read_deep(depth: int = DEPTH) -> dict[str, Any]:
    """Return what becomes of a word so deep in a page: it is kept, or the page is refused and a reason named."""
    head = f"<html><body><article><h1>Title</h1><p>{_PROSE * 10}</p>"
    parsed = parse_html(f"{head}{'<div>' * depth}<p>A marker, MARKER, in the depth.</p>".encode())
    if isinstance(parsed, Parsed):
        return {"outcome": "read", "is_right": "MARKER" in parsed.text}
    return {"outcome": parsed.reason, "is_right": True}


def read_large(megabytes: int = LARGE_MB) -> dict[str, Any]:
    """Return what becomes of a page so large, and the seconds until then."""
    page = f"<html><body><article><h1>T</h1>{f'<p>{_PROSE * 4}</p>' * (megabytes * 3_300)}</article></body></html>"
    start = time.perf_counter()
    parsed = parse_html(page.encode())
    outcome = "read" if isinstance(parsed, Parsed) else parsed.reason
    return {"outcome": outcome, "seconds": time.perf_counter() - start, "megabytes": len(page) / 1e6}


def figures(data: Path) -> Iterator[Figure]:
    """Yield each figure beside what was asked."""
    articles = measure(data)
    yield Figure(f"article text: F1 of its words, mean over {articles['n']} pages", articles["mean"], 0.90)
    for page in articles["worst"]:
        yield Figure(f"  {page['page']}", page["f1"])
    deep = read_deep()
    yield Figure(f"a marker at depth {DEPTH} is kept or refused ({deep['outcome']})", float(deep["is_right"]), 1)
    large = read_large()
    yield Figure(f"a page of {LARGE_MB} MB ({large['outcome']}), seconds", large["seconds"], 5, at_most=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    add_flags(parser, writes=False)
    given = parser.parse_args()
    show(figures(given.data), given)


if __name__ == "__main__":
    main()
