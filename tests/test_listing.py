"""Laws of listing, of telling texts apart, and of reading only as far as was asked."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from askback.errors import ConfigError, DataError
from askback.options import CorpusOptions
from askback.readers import seen
from askback.readers.documents import read_documents
from askback.readers.listing import list_path
from askback.readers.seen import Seen
from askback.records import Document, Reject


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def outcomes(path: Path, **options: Any) -> list[Document | Reject]:
    return list(read_documents(CorpusOptions(path=str(path), **options)))


def reasons(found: list[Document | Reject]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else "document" for item in found]


# --- which files


def test_the_order_is_that_of_the_names_however_the_disk_gives_them(tmp_path: Path) -> None:
    names = ["b/2.md", "B.txt", "a.txt", "b/10.md", "ä.txt", "a/z.md", "b.txt"]
    for name in names:
        write(tmp_path, {name: name})
    assert list(list_path(str(tmp_path)).files) == sorted(names)
    assert list(list_path(str(tmp_path / "**" / "*.md")).files) == ["a/z.md", "b/10.md", "b/2.md"]


def test_a_single_file_is_itself_even_through_a_link_or_a_name_like_a_glob(tmp_path: Path) -> None:
    write(tmp_path, {"in/a[1].txt": "x", "in/a1.txt": "y"})
    (tmp_path / "link.txt").symlink_to("in/a1.txt")
    assert list(list_path(str(tmp_path / "in" / "a[1].txt")).files) == ["a[1].txt"]
    assert list(list_path(str(tmp_path / "link.txt")).files) == ["link.txt"]
    assert list(list_path(str(tmp_path / "in" / "a[12].txt")).files) == ["a1.txt"]


def test_a_folder_that_is_a_link_is_read_and_what_it_holds_stays_inside(tmp_path: Path) -> None:
    write(tmp_path, {"real/a.txt": "a", "real/b/c.txt": "c"})
    (tmp_path / "alias").symlink_to("real")
    listing = list_path(str(tmp_path / "alias"))
    assert list(listing.files) == ["a.txt", "b/c.txt"]
    assert listing.refused == []


@pytest.mark.parametrize("pattern", ["l*", "*/secret.txt", "**/*"])
def test_no_glob_leads_out_of_its_folder(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, {"out/secret.txt": "s", "in/a.txt": "a"})
    (tmp_path / "in" / "l").symlink_to("../out")
    (tmp_path / "in" / "lone.txt").symlink_to("../out/secret.txt")
    listing = list_path(str(tmp_path / "in" / pattern))
    assert set(listing.files) <= {"a.txt"}
    assert {item.reason for item in listing.refused} == {"link_outside"}


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a", "sub/b.txt": "b"})
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "sub" / "back").symlink_to("..")
    found = list_path(str(tmp_path))
    assert list(found.files) == ["a.txt", "sub/b.txt"]
    assert {item.source: item.reason for item in found.refused} == {
        "one": "broken_link",
        "sub/back": "link_to_folder",
        "two": "broken_link",
    }


def test_a_name_that_is_no_utf_8_or_holds_a_line_end_can_be_written_down(tmp_path: Path) -> None:
    odd = [b"caf\xe9.txt", b"two\nlines.txt", b"-rf.txt", b"n" * 251 + b".txt"]
    for name in odd:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(name)
    found = outcomes(tmp_path)
    assert [item.source for item in found] == sorted(["caf\\xe9.txt", "two\nlines.txt", "-rf.txt", "n" * 251 + ".txt"])
    assert json.loads(json.dumps([item.source for item in found], ensure_ascii=False).encode("utf-8"))


@pytest.mark.parametrize("path", ["/dev/null", "gone\0.txt", "~none", "none/**/*.md", "none[", "**bad**"])
def test_a_path_that_names_nothing_to_read_is_the_users_error(path: str) -> None:
    with pytest.raises(ConfigError, match=r"corpus\.path "):
        list_path(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ConfigError, match="a pipe or a device"):
        list_path(str(tmp_path / "pipe.txt"))
    with pytest.raises(DataError, match="nothing to read; found: 1 refused"):
        outcomes(tmp_path)


def test_a_file_that_goes_away_after_the_listing_is_a_reject(tmp_path: Path) -> None:
    reading = read_documents(CorpusOptions(path=str(write(tmp_path, {"a.txt": "a", "b.txt": "b", "c.txt": "c"}))))
    assert isinstance(next(reading), Document)
    (tmp_path / "b.txt").unlink()
    assert reasons(list(reading)) == ["unreadable", "document"]


# --- the same text twice


def test_a_text_counts_once_wherever_it_stands_and_in_whatever_format(tmp_path: Path) -> None:
    rows = "\n".join(json.dumps({"text": text}) for text in ["one", "two", "two"])
    found = outcomes(
        write(tmp_path, {"a.txt": "one\n", "b.md": "---\ntitle: x\n---\none", "c.jsonl": rows, "d.txt": "two"})
    )
    assert [(item.source, item.detail) for item in found if isinstance(item, Reject)] == [
        ("b.md", "the same text stands in a.txt"),
        ("c.jsonl:1", "the same text stands in a.txt"),
        ("c.jsonl:3", "the same text stands in c.jsonl"),
        ("d.txt", "the same text stands in c.jsonl"),
    ]


def test_a_text_that_was_refused_does_not_hide_the_next_one(tmp_path: Path) -> None:
    rows = [{"text": "one", "licence": "GPL"}, {"text": "one", "licence": "MIT"}]
    write(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows))})
    assert reasons(outcomes(tmp_path, allow_licence=("MIT",))) == ["licence_not_allowed", "document"]


@given(st.lists(st.integers(0, 3000), max_size=6000))
def test_seen_agrees_with_a_dictionary(numbers: list[int]) -> None:
    table, plain = Seen(), dict[str, int]()
    for place, number in enumerate(numbers):
        assert table.first_place(str(number), place) == plain.get(str(number))
        plain.setdefault(str(number), place)


def test_texts_are_told_apart_where_their_hashes_crowd_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "content_id", lambda text: f"{int(text) << 32:016x}")
    table = Seen()
    assert [table.first_place(str(n), n) for n in range(1200)] == [None] * 1200
    assert [table.first_place(str(n), 9) for n in range(1200)] == list(range(1200))


def test_a_text_that_was_seen_costs_36_bytes_at_most_and_54_while_the_table_grows() -> None:
    tracemalloc.start()
    table = Seen()
    for number in range(11_000):  # the table has just grown
        table.first_place(str(number), number)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 36.5 * 11_000
    assert peak < 54.5 * 11_000


# --- only as far as was asked


def test_the_limit_counts_documents_and_what_lies_behind_the_last_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a", "b.png": "b", "c.txt": "a", "d.txt": "d", "e.txt": "e"})
    assert reasons(outcomes(tmp_path, limit=2)) == ["document", "unknown_format", "duplicate_document", "document"]
    (tmp_path / "f.jsonl.gz").write_bytes(b"no gzip: reading it would raise")
    assert reasons(outcomes(tmp_path, limit=3)).count("document") == 3


def write_rows(file: Path, megabytes: int) -> int:
    """Write rows of 10 KB, no two alike; return their number."""
    filler = "The tide rises twice a day because the moon pulls. " * 200
    openers: dict[str, Any] = {".gz": partial(gzip.open, compresslevel=1), ".zst": zstandard.open}
    with openers.get(file.suffix, open)(file, "wb") as stream:
        for number in range(megabytes * 100):
            stream.write(json.dumps({"text": f"{number} {filler[:9970]}"}).encode() + b"\n")
    return megabytes * 100


def test_the_memory_for_a_row_file_does_not_grow_with_it(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl", 12)
    tracemalloc.start()
    count = sum(isinstance(item, Document) for item in read_documents(CorpusOptions(path=str(tmp_path / "a.jsonl"))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert peak < 2_000_000


GROWTH = """
import resource, sys
from askback.options import CorpusOptions
from askback.readers.documents import read_documents
reading = read_documents(CorpusOptions(path=sys.argv[1]))
first = [next(reading) for _ in range(1000)]
del first
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in reading)
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_three_hundred_megabytes_of_rows_leave_the_memory_of_the_process_where_it_was(
    tmp_path: Path, packing: str
) -> None:
    file = tmp_path / f"a.jsonl{packing}"
    rows = write_rows(file, 300)
    done = subprocess.run([sys.executable, "-c", GROWTH, str(file)], capture_output=True, text=True, check=True)
    count, grown_kb = map(int, done.stdout.split())
    assert count == rows - 1000
    assert grown_kb < 10_000
