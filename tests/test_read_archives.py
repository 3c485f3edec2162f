"""Laws of reading archives: each member has one outcome, nothing is written, held or followed."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.options import CorpusOptions
from askback.readers.archives import BrokenArchive, is_archive, list_members
from askback.readers.documents import read_documents
from askback.records import Document, Reject

WORDS = "The tide rises twice a day because the moon pulls at the sea. " * 4
PAGE = f"<html><body><article><h1>Tides</h1><p>{WORDS}</p></article></body></html>"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".txz": lzma.compress,
    ".tar.zst": zstandard.compress,
}
Files = dict[str, str | bytes]


def as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def tar(files: Files, more: Iterable[tarfile.TarInfo] = (), form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(as_bytes(content))
            archive.addfile(entry, io.BytesIO(as_bytes(content)))
        for entry in more:
            archive.addfile(entry)
    return out.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def pack(suffix: str, files: Files) -> bytes:
    return zipped(files) if suffix == ".zip" else PACKERS[suffix](tar(files))


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def read(folder: Path, name: str, data: bytes, **options: Any) -> list[Document | Reject]:
    (folder / name).write_bytes(data)
    return list(read_documents(CorpusOptions(path=str(folder / name), **options)))


def by_source(found: list[Document | Reject]) -> dict[str, str]:
    """Return what became of each member; a source that occurs twice would show as a lost one."""
    said = {item.source: item.reason if isinstance(item, Reject) else "document" for item in found}
    assert len(said) == len(found), found
    return said


def detail(found: list[Document | Reject], source: str) -> str:
    return next(item.detail for item in found if isinstance(item, Reject) and item.source == source)


# --- what is read of an archive


@pytest.mark.parametrize("suffix", [".zip", ".ZIP", ".wacz", *PACKERS])
def test_members_are_documents_in_the_order_they_stand_in(tmp_path: Path, suffix: str) -> None:
    files: Files = {"b.txt": "one", "a/c.md": "# Two", "a/": "", "./d.html": PAGE, "e.png": "x"}
    data = zipped(files) if suffix.lower() in (".zip", ".wacz") else pack(suffix, {n: c for n, c in files.items() if c})
    found = read(tmp_path, f"x{suffix}", data)
    name = f"x{suffix}"
    assert by_source(found) == {
        f"{name}/b.txt": "document",
        f"{name}/a/c.md": "document",
        f"{name}/d.html": "document",
        f"{name}/e.png": "unknown_format",
    }
    assert [item.source for item in found] == list(by_source(found))
    assert [item.title for item in found if isinstance(item, Document)] == ["", "Two", "Tides"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.zst"])
def test_a_member_is_read_as_a_file_of_its_kind_would_be(tmp_path: Path, shared: Path, suffix: str) -> None:
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["row of parquet"], "licence": ["CC0"]}), table)
    edge = shared / "corpus" / "warc" / "edge"
    files: Files = {
        "a.jsonl": '{"text": "row one"}\n{"txt": "none"}\n{',
        "b.csv.gz": gzip.compress(b"text,n\nrow of csv,1\n"),
        "c.json.zst": zstandard.compress(b'[{"text": "row of a list"}]'),
        "d.parquet": table.getvalue().to_pybytes(),
        "e.warc.gz": (edge / "example.warc.gz").read_bytes(),
        "f.arc": (edge / "example.arc").read_bytes(),
        "g.html": PAGE,
    }
    found = read(tmp_path, f"x{suffix}", pack(suffix, files), licence="MIT")
    said = {source.removeprefix(f"x{suffix}/"): reason for source, reason in by_source(found).items()}
    assert {source: reason for source, reason in said.items() if reason != "not_a_response"} == {
        "a.jsonl:1": "document",
        "a.jsonl:2": "no_text_column",
        "a.jsonl:3": "bad_json",
        "b.csv.gz:2": "document",
        "c.json.zst:1": "document",
        "d.parquet:1": "document",
        "e.warc.gz:784 http://example.com/": "document",
        "f.arc:151 http://example.com/": "duplicate_document",
        "g.html": "document",
    }
    assert {item.licence for item in found if isinstance(item, Document) and ".parquet" in item.source} == {"CC0"}
    assert detail(found, f"x{suffix}/f.arc:151 http://example.com/") == f"the same text stands in x{suffix}"


def test_an_archive_in_an_archive_is_read_and_one_in_that_is_named(tmp_path: Path) -> None:
    deepest = zipped({"no.txt": "too deep"})
    inner = zipped({"a.txt": "in a zip in a tar", "b.tgz": gzip.compress(tar({"no.txt": "x"})), "c.zip": deepest})
    middle = tar({"d.txt": "in a tar in a tar"})
    found = read(tmp_path, "x.tar.gz", gzip.compress(tar({"in.zip": inner, "in.tar": middle, "e.txt": "last"})))
    assert by_source(found) == {
        "x.tar.gz/in.zip/a.txt": "document",
        "x.tar.gz/in.zip/b.tgz": "nested_archive",
        "x.tar.gz/in.zip/c.zip": "nested_archive",
        "x.tar.gz/in.tar/d.txt": "document",
        "x.tar.gz/e.txt": "document",
    }
    other = read(tmp_path, "y.zip", zipped({"in.tar.xz": lzma.compress(middle), "in.zip": deepest}))
    assert by_source(other) == {"y.zip/in.tar.xz/d.txt": "document", "y.zip/in.zip/no.txt": "document"}


def test_a_zip_in_a_tar_that_would_have_to_be_held_may_not_be_larger_than_a_document(tmp_path: Path) -> None:
    inner = zipped({"a.txt": random.Random(1).randbytes(300_000)})
    found = read(tmp_path, "x.tar", tar({"in.zip": inner, "b.txt": "b"}), max_file_mb=0.2)
    assert by_source(found) == {"x.tar/in.zip": "file_too_large", "x.tar/b.txt": "document"}


@pytest.mark.parametrize("suffix", [".zip", ".tar.bz2"])
def test_hidden_members_alone_are_passed_over(tmp_path: Path, suffix: str) -> None:
    hidden: Files = {".a.txt": "1", "b/.c/d.txt": "2", "__MACOSX/._e.txt": "3", ".git/f.txt": "4"}
    found = read(tmp_path, f"x{suffix}", pack(suffix, {**hidden, "./g.txt": "g", "h..i.txt": "h"}))
    assert by_source(found) == {f"x{suffix}/g.txt": "document", f"x{suffix}/h..i.txt": "document"}
    assert by_source(read(tmp_path, f"y{suffix}", pack(suffix, hidden))) == {f"y{suffix}": "empty"}
    assert by_source(read(tmp_path, f"z{suffix}", pack(suffix, {}))) == {f"z{suffix}": "empty"}


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_limits_licences_and_duplicates_hold_across_members_and_files(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": f"row {n}", "licence": licence} for n, licence in enumerate(["CC BY 4.0", "GPL", "cc-by-sa", ""])]
    files: Files = {"a.jsonl": "\n".join(map(json.dumps, rows)), "b.txt": "row 0", "c.md": "---\nlicense: CC0\n---\nc"}
    (tmp_path / "before.txt").write_text("row 2")
    (tmp_path / f"x{suffix}").write_bytes(pack(suffix, files))

    def reasons(**options: Any) -> list[str]:
        return list(by_source(list(read_documents(CorpusOptions(path=str(tmp_path), **options)))).values())

    assert reasons() == ["document"] * 3 + ["duplicate_document", "document", "duplicate_document", "document"]
    assert reasons(allow_licence=("CC-BY*", "CC0"), licence="CC0") == [
        "document",
        "document",
        "licence_not_allowed",
        "duplicate_document",
        "document",
        "duplicate_document",
        "document",
    ]
    assert reasons(allow_licence=("cc by*",))[:3] == ["licence_not_allowed", "document", "licence_not_allowed"]
    assert reasons(limit=2) == ["document", "document"]


# --- what is not opened


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_name_that_leads_elsewhere_is_only_a_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "in").mkdir()
    names = ["../secret.txt", f"{tmp_path}/secret.txt", "a/../../secret.txt", "C:\\b.txt", "two\nlines\x1b[1m.txt"]
    found = read(tmp_path / "in", f"x{suffix}", pack(suffix, {name: f"text of {n}" for n, name in enumerate(names)}))
    assert [item.text for item in found if isinstance(item, Document)] == [f"text of {n}" for n in range(5)]
    assert all(item.source.startswith(f"x{suffix}/") and item.source.isprintable() for item in found)
    assert (tmp_path / "secret.txt").read_text() == "secret"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "secret.txt"]


def test_links_devices_and_pipes_in_a_tar_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    odd = [
        entry("soft.txt", tarfile.SYMTYPE, "../secret.txt"),
        entry("hard.txt", tarfile.LNKTYPE, "a.txt"),
        entry("null.txt", tarfile.CHRTYPE),
        entry("disk.txt", tarfile.BLKTYPE),
        entry("pipe.txt", tarfile.FIFOTYPE),
        entry("folder.txt", tarfile.DIRTYPE),
    ]
    found = read(tmp_path, "x.tar", tar({"a.txt": "a"}, odd))
    assert by_source(found) == {
        "x.tar/a.txt": "document",
        **{f"x.tar/{name}.txt": "not_a_file" for name in ("soft", "hard", "null", "disk", "pipe")},
    }
    assert detail(found, "x.tar/soft.txt") == "-> ../secret.txt"


def test_a_link_in_a_zip_is_no_text_that_names_its_target(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, mode in (("link.txt", 0o120777), ("pipe.txt", 0o010644), ("file.txt", 0o100644)):
            made = zipfile.ZipInfo(name)
            made.external_attr = mode << 16
            archive.writestr(made, "../../etc/passwd")
    assert by_source(read(tmp_path, "x.zip", out.getvalue())) == {
        "x.zip/link.txt": "not_a_file",
        "x.zip/pipe.txt": "not_a_file",
        "x.zip/file.txt": "document",
    }


def patch_entry(data: bytes, name: str, at: int, value: int) -> bytes:
    """Return a zip with a field of one entry changed, in both of its headers."""
    patched = bytearray(data)
    local, central = data.index(name.encode()) - 30, data.rindex(name.encode()) - 46
    for start in (local + at, central + at + 2):
        patched[start : start + 2] = value.to_bytes(2, "little")
    return bytes(patched)


def test_an_encrypted_or_strangely_packed_entry_spoils_no_other(tmp_path: Path) -> None:
    data = zipped({"a.txt": "a", "locked.txt": "b", "new.txt": "c", "d.txt": "d"})
    data = patch_entry(patch_entry(data, "locked.txt", 6, 1), "new.txt", 8, 93)
    found = read(tmp_path, "x.zip", data)
    assert by_source(found) == {
        "x.zip/a.txt": "document",
        "x.zip/locked.txt": "encrypted",
        "x.zip/new.txt": "broken_archive",
        "x.zip/d.txt": "document",
    }


def sparse_tar(name: str, size: int) -> bytes:
    """Return a tar whose one member is a hole of so many bytes and a word (format 1.0 of GNU tar)."""
    word = b"end\n"
    stretches = f"1\n{size - len(word)}\n{len(word)}\n".encode()
    made = tarfile.TarInfo(name)
    made.size = 512 + len(word)
    made.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(made, io.BytesIO(stretches.ljust(512, b"\0") + word))
    return out.getvalue()


BOMB = bytes(40_000_000)


@pytest.mark.parametrize("member", ["a.txt", "a.jsonl", "a.warc"])
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar"])
def test_a_bomb_is_named_and_not_unpacked(tmp_path: Path, suffix: str, member: str) -> None:
    data = sparse_tar(member, 10**13) if suffix == ".tar" else pack(suffix, {member: BOMB, "b.txt": "b"})
    tracemalloc.start()
    found = read(tmp_path, f"x{suffix}", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert by_source(found)[f"x{suffix}/{member}"] == "zip_bomb"
    assert peak < 35_000_000
    assert ("document" in by_source(found).values()) == (suffix == ".zip")
    assert (f"x{suffix}" in by_source(found)) == (suffix not in (".zip", ".tar"))


def test_a_small_sparse_member_is_read_with_its_holes(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "x.tar", sparse_tar("a.txt", 1000))
    assert isinstance(found, Reject)
    assert found.reason == "bad_encoding"  # of zeros and a word


def test_many_names_for_the_same_bytes_are_documents_once(tmp_path: Path) -> None:
    found = read(tmp_path, "x.zip", zipped({f"{n}.txt": "same" for n in range(50)}))
    assert list(by_source(found).values()) == ["document", *["duplicate_document"] * 49]


# --- damage


TEXTS: Files = {f"{n}.txt": f"text {n} " + random.Random(n).randbytes(30_000).hex() for n in range(6)}


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_an_archive_that_breaks_off_gives_what_stands_before_and_says_so(
    tmp_path: Path, suffix: str, share: float
) -> None:
    data = pack(suffix, TEXTS)
    end = int(len(data) * share) if suffix != ".tar" or share < 0.9 else len(data) - 20_000
    found = read(tmp_path, f"x{suffix}", data[:end])
    documents = [item for item in found if isinstance(item, Document)]
    assert [item.text for item in documents] == [as_bytes(text).decode() for text in TEXTS.values()][: len(documents)]
    assert len(documents) >= 6 * share - 4 or suffix == ".tar.bz2"  # of blocks that hold all six
    assert by_source(found)[f"x{suffix}"] == "broken_archive"


def test_a_tar_that_ends_where_a_header_should_stand_is_cut_off(tmp_path: Path) -> None:
    data = tar({"a.txt": "a", "b.txt": "b"}, form=tarfile.USTAR_FORMAT)
    for end in (1024, 1100):
        found = read(tmp_path, "x.tar", data[:end])
        assert by_source(found) == {"x.tar/a.txt": "document", "x.tar": "broken_archive"}
        assert detail(found, "x.tar").startswith("at 1024 of its unpacked bytes: ")


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    data = bytearray(tar({"a.txt": "a", "b.txt": "b", "c.txt": "c"}, form=tarfile.USTAR_FORMAT))
    data[1024 + 100] ^= 0xFF
    found = read(tmp_path, "x.tar", bytes(data))
    assert by_source(found) == {"x.tar/a.txt": "document", "x.tar": "broken_archive"}
    assert "bad checksum; what follows is not read" in detail(found, "x.tar")


def test_two_archives_one_behind_the_other_are_both_read(tmp_path: Path) -> None:
    for suffix, packer in PACKERS.items():
        data = packer(tar({"a.txt": "a"})) + packer(tar({"b.txt": "b"}))
        assert list(by_source(read(tmp_path, f"x{suffix}", data)).values()) == ["document", "document"]
    cut = tar({"a.txt": "a"}) + tar({"b.txt": "b"})[:1024]
    assert list(by_source(read(tmp_path, "y.tar", cut)).values()) == ["document", "document", "broken_archive"]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_checksum_that_fails_at_the_very_end_is_said(tmp_path: Path, suffix: str) -> None:
    data = bytearray(pack(suffix, {"a.txt": "a"}))
    at = {".tar.gz": -6, ".tar.bz2": -3, ".tar.xz": -20}[suffix]
    data[at] ^= 0xFF
    assert by_source(read(tmp_path, f"x{suffix}", bytes(data)))[f"x{suffix}"] == "broken_archive"


def test_a_damaged_entry_of_a_zip_spoils_no_other(tmp_path: Path) -> None:
    whole = zipped(TEXTS)
    starts = {made.filename: made.header_offset for made in zipfile.ZipFile(io.BytesIO(whole)).infolist()}
    data = bytearray(whole)
    data[starts["1.txt"]] ^= 0xFF
    data[starts["3.txt"] + 5000] ^= 0xFF
    found = read(tmp_path, "x.zip", bytes(data))
    reasons = ["document", "broken_archive", "document", "broken_archive", "document", "document"]
    assert list(by_source(found).values()) == reasons
    assert by_source(read(tmp_path, "y.zip", whole[:-30])) == {"y.zip": "broken_archive"}


def test_damaged_members_spoil_no_other(tmp_path: Path) -> None:
    files: Files = {
        "a.jsonl.gz": gzip.compress(b'{"text": "row"}\n' * 9)[:-9],
        "b.parquet": b"PAR1 no table PAR1",
        "c.zip": b"PK no archive",
        "d.tar.gz": b"no gzip",
        "e.warc": b"no crawl",
        "f.csv": "text,text\n1,2\n",
        "g.pdf": b"%PDF- no more",
        "h.jsonl": b"",
        "i.txt": b"",
        "j.txt": "sound",
    }
    for suffix in (".zip", ".tar"):
        found = by_source(read(tmp_path, f"x{suffix}", pack(suffix, files)))
        assert [reason for source, reason in found.items() if not source.endswith("pdf")] == [
            "broken_rows",
            "broken_rows",
            "broken_archive",
            "broken_archive",
            "broken_record",
            "broken_rows",
            "empty",
            "empty",
            "document",
        ]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([".zip", ".tar", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2"]),
    st.floats(0, 1),
    st.binary(max_size=12),
    st.integers(0, 700),
)
def test_whatever_bytes_are_changed_nothing_crashes_and_no_text_is_another(
    suffix: str, share: float, put: bytes, taken: int
) -> None:
    files: Files = {"a.txt": "one " * 50, "in.zip": zipped({"b.txt": "two"}), "c.txt": "three"}
    data = pack(suffix, files)
    at = int(share * len(data))
    found = list(list_all(data[:at] + put + data[at + taken :], f"x{suffix}"))
    assert found
    checked = suffix in (".tar.gz", ".tar.bz2", ".tar.xz")  # by a checksum over everything
    if checked and not any(isinstance(item, Reject) for item in found):
        assert found == [as_bytes(content) for content in files.values()]


def list_all(data: bytes, name: str) -> Iterator[Reject | bytes]:
    """Yield what the members hold, or why they cannot be read."""
    for member in list_members(io.BytesIO(data), name):
        try:
            yield member if isinstance(member, Reject) else member.stream.read()
        except BrokenArchive as broken:
            yield Reject("", broken.reason, str(broken))


# --- without unpacking


def test_names_tell_what_an_archive_is() -> None:
    assert [
        name for name in ("a.zip", "b.TAR.GZ", "c.gz", "tar", "d.tar.lz4", "e.tgz", "f.zip.txt") if is_archive(name)
    ] == [
        "a.zip",
        "b.TAR.GZ",
        "e.tgz",
    ]


WATCH = """
import os, sys
from askback.options import CorpusOptions
from askback.readers.documents import read_documents
options = CorpusOptions(path=sys.argv[1])
count = len(list(read_documents(options)))
touched = []
def note(event, given):
    writes = event == "open" and (given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.split(".")[0] in ("tempfile", "shutil", "subprocess") or event in ("os.mkdir", "os.rename"):
        touched.append((event, str(given[0])))
sys.addaudithook(note)
open(os.devnull, "wb").close()
assert len(list(read_documents(options))) == count
print(count, touched)
"""


def test_reading_archives_of_every_packing_writes_nothing(tmp_path: Path) -> None:
    files: Files = {"a.txt": "a", "b.html": PAGE, "c.jsonl": '{"text": "c"}', "d.zip": zipped({"e.txt": "e"})}
    for suffix in (".zip", *PACKERS):
        (tmp_path / f"x{suffix}").write_bytes(pack(suffix, files))
    code = [sys.executable, "-B", "-c", WATCH, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"{4 * 9} [('open', '{os.devnull}')]\n"  # the watch sees, and this is all it saw


class Generated(io.RawIOBase):
    """A tar of texts that is made while it is read, so that only its reader holds anything."""

    def __init__(self, members: int, size: int) -> None:
        self._parts = self._make(members, size)
        self._left = b""

    @staticmethod
    def _make(members: int, size: int) -> Iterator[bytes]:
        filler = (WORDS * (size // len(WORDS) + 1)).encode()
        for number in range(members):
            made = tarfile.TarInfo(f"{number}.txt")
            made.size = size
            yield made.tobuf() + (b"%d " % number + filler)[:size] + bytes(-size % 512)
        yield bytes(1024)

    def read(self, size: int = -1) -> bytes:
        self._left = self._left or next(self._parts, b"")
        taken, self._left = self._left[:size], self._left[size:]
        return taken


@pytest.mark.parametrize(("members", "size", "most_bytes"), [(20, 1_000_000, 8_000_000), (1500, 100, 1_000_000)])
def test_members_are_streamed_one_at_a_time_and_forgotten(members: int, size: int, most_bytes: int) -> None:
    archive = Generated(members, size)
    tracemalloc.start()
    read_bytes = 0
    for member in list_members(cast(BinaryIO, archive), "x.tar"):
        assert not isinstance(member, Reject)
        read_bytes += len(member.stream.read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read_bytes == members * size
    assert peak < most_bytes


def write_texts(file: Path, megabytes: int) -> None:
    """Write an archive of texts of 1 MB each, which shrink to a third."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(20_000)]
    text = " ".join(chance.choices(words, k=125_000))[:1_000_000]
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number in range(megabytes):
                archive.writestr(f"{number}.txt", f"{number} {text}")
        return
    with gzip.open(file, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for number in range(megabytes):
            made = tarfile.TarInfo(f"{number}.txt")
            content = f"{number} {text}".encode()
            made.size = len(content)
            archive.addfile(made, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_two_hundred_megabytes_of_text_are_read_in_the_memory_of_a_few(tmp_path: Path, name: str) -> None:
    write_texts(tmp_path / name, 200)
    tracemalloc.start()
    count = sum(isinstance(item, Document) for item in read_documents(CorpusOptions(path=str(tmp_path / name))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 15_000_000
    assert [file.name for file in tmp_path.iterdir()] == [name]
