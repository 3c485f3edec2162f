"""Laws of the reader of crawls: every record of a WARC or ARC file has one outcome, whatever is damaged around it."""

import gzip
import random
import re
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from askback.options import CorpusOptions
from askback.readers.crawl import read_crawl
from askback.readers.documents import read_documents
from askback.readers.tape import DamagedTape, Tape
from askback.records import Document, Reject

WORDS = "The tide rises twice a day because the moon pulls at the sea. " * 4
PAGE = f"<html><body><article><h1>Tides</h1><p>{WORDS}</p></article></body></html>".encode()
URL = "http://a.b/c"


def http(payload: bytes = PAGE, status: str = "200 OK", media: str = "text/html", **headers: object) -> bytes:
    said = {"Content-Type": media, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode() + payload


def warc(
    body: bytes, kind: str = "response", media: str = "application/http", url: str = URL, **headers: object
) -> bytes:
    said = {"WARC-Type": kind, "WARC-Target-URI": url, "Content-Type": media, "Content-Length": len(body)}
    said |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = ["WARC/1.0", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode() + body + b"\r\n\r\n"


def arc(body: bytes, url: str = URL, media: str = "text/html", length: object = None) -> bytes:
    return f"{url} 1.2.3.4 20080430204825 {media} {len(body) if length is None else length}\n".encode() + body + b"\n"


def page(number: int) -> bytes:
    return warc(http(PAGE.replace(b"Tides", b"Tides %d" % number)), url=f"{URL}/{number}")


def read(folder: Path, data: bytes, name: str = "a.warc", **options: Any) -> list[Document | Reject]:
    (folder / name).write_bytes(data)
    return list(read_documents(CorpusOptions(path=str(folder / name), **options)))


def reasons(found: list[Document | Reject]) -> list[str]:
    return [item.reason if isinstance(item, Reject) else "document" for item in found]


def read_one(folder: Path, data: bytes, name: str = "a.warc", **options: Any) -> Document:
    (document,) = read(folder, data, name, **options)
    assert isinstance(document, Document), document
    return document


def refused(folder: Path, data: bytes, name: str = "a.warc", **options: Any) -> tuple[str, str]:
    (item,) = read(folder, data, name, **options)
    assert isinstance(item, Reject), item
    return item.reason, item.detail


def damage(data: bytes, at: int) -> bytes:
    """Return the bytes with eight of them changed."""
    return data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 8]) + data[at + 8 :]


# --- real files


EDGES = {
    "bad.arc": "broken_record broken_record empty broken_record",
    "example-bad-non-chunked.warc.gz": "not_a_response not_a_response document not_a_response not_a_response "
    "not_a_response",
    "example-bad.warc.gz.bad": "not_a_response document not_a_response not_a_response not_a_response http_status",
    "example-digest.warc": "not_a_response not_a_response not_a_response not_a_response",
    "example-iana.org-chunked.warc": "not_a_response document not_a_response",
    "example-resource.warc.gz": "not_a_response not_a_response document",
    "example-space-in-target-uri.warc.gz": "not_a_response unknown_format",
    "example-space-in-url.arc": "not_a_response broken_record",
    "example-trunc.warc": "not_a_response not_a_response broken_record not_a_response",
    "example-wget-bad-target-uri.warc.gz": "not_a_response not_a_response document not_a_response not_a_response "
    "not_a_response",
    "example-wrong-chunks.warc.gz": "broken_record not_a_response",
    "example.arc": "not_a_response document",
    "example.arc.gz": "not_a_response document",
    "example.warc": "not_a_response not_a_response document not_a_response not_a_response not_a_response",
    "example.warc.gz": "not_a_response not_a_response document not_a_response not_a_response not_a_response",
    "post-test.warc.gz": "unknown_format not_a_response unknown_format not_a_response unknown_format not_a_response",
}
"""What becomes of each record. In bad.arc a length is -1 or abc; it is too large in example-space-in-url, too small in
example-trunc; in example-wrong-chunks the page is a byte shorter than its server said."""


@pytest.mark.parametrize("name", EDGES)
def test_every_record_of_an_odd_file_has_its_outcome(shared: Path, tmp_path: Path, name: str) -> None:
    data = (shared / "corpus" / "warc" / "edge" / name).read_bytes()
    found = read(tmp_path, data, name.removesuffix(".bad"))
    assert reasons(found) == EDGES[name].split()
    for document in (item for item in found if isinstance(item, Document) and "iana" not in item.source):
        assert document.title == "Example Domain"
        assert "This domain is established to be used for illustrative examples" in document.text


def test_every_odd_file_is_tested(shared: Path) -> None:
    assert {file.name for file in (shared / "corpus" / "warc" / "edge").iterdir()} == set(EDGES)


def test_what_is_wrong_with_an_odd_record_is_said(shared: Path) -> None:
    edge = shared / "corpus" / "warc" / "edge"
    said = {
        item.source: item.detail
        for name in ("bad.arc", "example-trunc.warc", "example-space-in-url.arc", "example-wrong-chunks.warc.gz")
        for item in read_documents(CorpusOptions(path=str(edge / name)))
        if isinstance(item, Reject) and item.reason == "broken_record"
    }
    assert list(said.values()) == [
        "its length is -1",
        "its length is -1",
        "its length is abc",
        "4 bytes behind it belong to no record",
        "it breaks off after 1579 of 1591 bytes",
        "the payload breaks off after 1270 of 1271 bytes",
    ]
    assert "bad.arc:134 http://example.com/" in said
    assert all("%20" in source for source in said if source.startswith("example-space"))


@cache
def read_capture(file: Path) -> list[Document | Reject]:
    return list(read_documents(CorpusOptions(path=str(file))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("common_crawl_1.warc.gz", {"document": 13, "duplicate_document": 2, "not_a_response": 19}),
        ("archive_org_2008.arc.gz", {"not_a_response": 1}),
        ("archive_org_2008.warc.gz", {"not_a_response": 523}),
    ],
)
def test_a_real_capture_is_read_to_its_end(shared: Path, name: str, counts: dict[str, int]) -> None:
    file = shared / "corpus" / "warc" / name
    opening = rb"^WARC/[\d.]+\r\n" if ".warc" in name else rb"^(?:filedesc|http|dns)s?:\S+ [\d.]+ \d{14} \S+ \d+\n"
    records = len(re.findall(opening, gzip.decompress(file.read_bytes()), re.MULTILINE))
    found = read_capture(file)
    tally = Counter(reasons(found))
    assert len(found) == len({item.source for item in found}) == records == tally.total()
    assert counts.items() <= tally.items()
    if "2008" in name:
        assert tally - Counter(counts) == Counter(
            document=86,
            duplicate_document=40,
            unknown_format=122,
            http_status=47,
            no_article=1,
            page_too_large=2,
            empty=1,
        )


@pytest.mark.slow
def test_the_two_captures_of_one_crawl_hold_the_same_texts(shared: Path) -> None:
    texts = [
        [item.text for item in read_capture(file) if isinstance(item, Document)]
        for file in sorted((shared / "corpus" / "warc").glob("archive_org_2008.*"))
    ]
    assert len(texts) == 2
    assert texts[0] == texts[1]


# --- what is read of a record


def test_a_page_in_any_wrapping_is_the_same_document(tmp_path: Path) -> None:
    two = arc(b"1 1 A\nURL IP-address Archive-date Content-type Archive-length\n", "filedesc://a.arc", "text/plain")
    version_2 = f"{URL} 1.2.3.4 20080430204825 text/html 200 - - 0 a.arc {len(PAGE)}\n".encode() + PAGE
    wrapped = {
        "a.warc": warc(http()),
        "b.warc.gz": gzip.compress(warc(http())),
        "c.arc": two + arc(http()),
        "d.arc.gz": gzip.compress(two) + gzip.compress(arc(http())),
        "e.arc": arc(PAGE),
        "f.arc": version_2,
        "g.warc": warc(PAGE, "resource", "text/html"),
        "H.WARC": warc(http()),
        "i.warc": b"\r\n\r\n" + warc(http()),
        "j.warc": gzip.compress(warc(http())),  # packed, whatever its name says
    }
    texts = {
        item.text if isinstance(item, Document) else item.detail
        for name, data in wrapped.items()
        for item in read(tmp_path, data, name)
        if not (isinstance(item, Reject) and item.reason == "not_a_response")
    }
    assert len(texts) == 1
    assert texts.pop().startswith("# Tides\n\nThe tide rises twice")


def test_a_document_is_named_by_its_file_place_and_address(tmp_path: Path) -> None:
    data = warc(b"software: x", "warcinfo", url="") + warc(http(), url="<http://a.b/two words>")
    _, document = read(tmp_path, data)
    assert document.source == f"a.warc:{len(warc(b'software: x', 'warcinfo', url=''))} http://a.b/two%20words"
    packed = [gzip.compress(page(number)) for number in range(3)]
    places = [item.source.split()[0] for item in read(tmp_path, b"".join(packed), "b.warc.gz")]
    assert places == ["b.warc.gz:0", f"b.warc.gz:{len(packed[0])}", f"b.warc.gz:{len(packed[0] + packed[1])}"]
    together = read(tmp_path, gzip.compress(page(0) + page(1)), "c.warc.gz")
    assert [item.source.split()[0] for item in together] == ["c.warc.gz:0", f"c.warc.gz:0+{len(page(0))}"]


def test_records_that_hold_no_answer_are_counted_by_their_kind(tmp_path: Path) -> None:
    kinds = ["warcinfo", "request", "revisit", "metadata", "continuation", "made_up"]
    found = read(tmp_path, b"".join(warc(b"x: y", kind) for kind in kinds))
    assert {(item.reason, item.detail) for item in found if isinstance(item, Reject)} == {
        ("not_a_response", kind) for kind in kinds
    }


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (http(status="404 Not Found"), "http_status", "404"),
        (http(b"", status="301 Moved", Location="/"), "http_status", "301"),
        (http(status="206 Partial Content"), "http_status", "206"),
        (http(status="what"), "http_status", "none"),
        (http(status="404 Not Found", Content_Encoding="gzip"), "http_status", "404"),
        (http(media="image/png"), "unknown_format", "image/png"),
        (http(media="application/json; charset=utf-8"), "unknown_format", "application/json"),
        (http(media=""), "unknown_format", "no content type"),
        (http(b""), "empty", ""),
        (b"<html>", "broken_record", "the response opens with no HTTP status"),
        (http(b"<nav>Home</nav>"), "no_article", "no main text was found in the page"),
        (
            http(bytes(range(256)), media="text/plain"),
            "bad_encoding",
            "neither UTF-8 nor any encoding that could be told",
        ),
    ],
)
def test_a_response_that_is_no_document_is_a_reject_with_its_reason(
    tmp_path: Path, body: bytes, reason: str, detail: str
) -> None:
    assert refused(tmp_path, warc(body)) == (reason, detail)


def test_other_types_are_read_as_files_of_them_are(tmp_path: Path) -> None:
    plain = read_one(tmp_path, warc(http(b"one\r\ntwo", media="text/plain")))
    markdown = read_one(tmp_path, warc(http(b"---\ntitle: T\n---\nx", media="text/markdown; charset=utf-8")))
    converted = read_one(tmp_path, warc(b"HTTP/2 is newer than HTTP/1.1.", "conversion", "text/plain"), "a.wet")
    assert (plain.text, plain.format) == ("one\ntwo", "text")
    assert (markdown.text, markdown.title, markdown.format) == ("x", "T", "markdown")
    assert converted.text == "HTTP/2 is newer than HTTP/1.1."


@pytest.mark.parametrize(
    ("header", "meta", "written"),
    [
        ("koi8-r", "", "koi8-r"),
        ("", "koi8-r", "koi8-r"),
        ("koi8-r", "windows-1251", "koi8-r"),
        ('"KOI8-R"', "", "koi8-r"),
        ("unheard-of", "koi8-r", "koi8-r"),
        ("iso-8859-1", "koi8-r", "utf-8"),
    ],
)
def test_the_charset_of_the_server_goes_before_that_of_the_page(
    tmp_path: Path, header: str, meta: str, written: str
) -> None:
    text = "Приливы и отливы зависят от луны. " * 3
    body = f'<html><head><meta charset="{meta}"></head><body><article><p>{text}</p></article></body></html>'
    media = f"text/html; Charset={header}" if header else "text/html"
    document = read_one(tmp_path, warc(http(body.encode(written), media=media)))
    assert (document.text, document.encoding) == (text.strip(), written)


def test_headers_may_be_folded_repeated_or_preceded_by_an_interim_answer(tmp_path: Path) -> None:
    folded = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain;\r\n charset=koi8-r\r\nContent-Type: image/png\r\n\r\n"
    body = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + folded + "Луна".encode("koi8-r")
    assert read_one(tmp_path, warc(body)).text == "Луна"
    assert read_one(tmp_path, warc(body.replace(b"\r\n", b"\n"))).text == "Луна"


# --- what a payload is wrapped in


def chunked(payload: bytes, size: int = 100, extension: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(b"%X%s\r\n%s\r\n" % (len(part), extension, part) for part in parts) + end


def raw_deflate(payload: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(payload) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    "br": partial(brotli.compress, quality=5),
    "zstd": zstandard.compress,
    "identity": bytes,
    "deflate, gzip": lambda payload: gzip.compress(zlib.compress(payload)),
}


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_packed_payload_is_unpacked(tmp_path: Path, encoding: str) -> None:
    packed = PACKERS[encoding](PAGE)
    whole = read_one(tmp_path, warc(http(packed, Content_Encoding=encoding, Content_Length=len(packed))))
    in_chunks = http(chunked(packed, extension=b";a=b"), Content_Encoding=encoding, Transfer_Encoding="chunked")
    assert whole.text == read_one(tmp_path, warc(in_chunks)).text
    assert whole.text.startswith("# Tides")


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (raw_deflate(PAGE), "deflate"),
        (gzip.compress(PAGE[:90]) + gzip.compress(PAGE[90:]), "gzip"),
        (gzip.compress(PAGE) + b"\r\n", "gzip"),
        *[(PAGE, encoding) for encoding in ("gzip", "deflate", "br", "zstd", "unheard-of")],
    ],
)
def test_what_servers_and_crawlers_do_against_the_rules_is_read(tmp_path: Path, payload: bytes, encoding: str) -> None:
    document = read_one(tmp_path, warc(http(payload, Content_Encoding=encoding)))
    assert document.text == f"# Tides\n\n{WORDS.strip()}"


@pytest.mark.parametrize(
    "payload",
    [PAGE, chunked(PAGE), chunked(PAGE).replace(b"\r\n", b"\n"), chunked(PAGE, end=b"0;x=y\r\nExpires: 0\r\n\r\n")],
)
def test_chunks_are_joined_unless_the_crawler_did(tmp_path: Path, payload: bytes) -> None:
    document = read_one(tmp_path, warc(http(payload, Transfer_Encoding="Chunked", Content_Length=9)))
    assert document.text == f"# Tides\n\n{WORDS.strip()}"


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        (PAGE, {"Content-Length": len(PAGE) + 1}),
        (chunked(PAGE, end=b""), {"Transfer-Encoding": "chunked"}),
        (chunked(PAGE)[:-40], {"Transfer-Encoding": "chunked"}),
        (chunked(PAGE)[:100] + b"junk", {"Transfer-Encoding": "chunked"}),
        *[(PACKERS[name](PAGE)[:-3], {"Content-Encoding": name}) for name in ("gzip", "deflate", "br", "zstd")],
        (raw_deflate(PAGE)[:-9], {"Content-Encoding": "deflate"}),
        (damage(gzip.compress(PAGE), 90), {"Content-Encoding": "gzip"}),
        (b"neither packed nor a page", {"Content-Encoding": "br"}),
    ],
)
def test_a_part_of_a_payload_is_never_taken_for_the_whole(
    tmp_path: Path, payload: bytes, headers: dict[str, Any]
) -> None:
    reason, detail = refused(tmp_path, warc(http(payload, **headers)))
    assert reason == "broken_record"
    assert detail.startswith("the payload ")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_payload_that_unpacks_to_too_much_is_named_without_unpacking_it(tmp_path: Path, encoding: str) -> None:
    bomb = warc(http(PACKERS[encoding](bytes(30_000_000)), Content_Encoding=encoding))
    tracemalloc.start()
    outcome = refused(tmp_path, bomb, max_file_mb=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcome == ("record_too_large", "more than 1 MB once it is unpacked")
    assert peak < 12_000_000


# --- damage


def test_a_record_that_is_too_large_is_passed_over_and_not_held(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(warc(http(b"<p>" + b"x" * 8_000_000), url="http://a.b/large") + page(1))
    tracemalloc.start()
    found = list(read_documents(CorpusOptions(path=str(tmp_path / "a.warc"), max_file_mb=1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons(found) == ["record_too_large", "document"]
    assert isinstance(found[0], Reject)
    assert found[0].detail == "8.0 MB, at most 1"
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"WARC-Truncated": "length"}, "the crawler cut it off: length"),
        ({"WARC-Segment-Number": 1}, "a segment of a record that is in several"),
        ({"Content-Length": -1}, "its length is -1"),
        ({"Content-Length": ""}, "its length is missing"),
        ({"Content-Length": "9" * 30}, f"its length is {'9' * 30}"),
    ],
)
def test_a_record_that_says_it_is_no_whole_one_is_not_read(
    tmp_path: Path, headers: dict[str, Any], detail: str
) -> None:
    found = read(tmp_path, warc(http(), **headers) + page(1))
    assert reasons(found) == ["broken_record", "document"]
    assert isinstance(found[0], Reject)
    assert (found[0].detail, found[0].source) == (detail, f"a.warc:0 {URL}")


@pytest.mark.parametrize("missing", [1, 30, 700])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_a_file_that_breaks_off_gives_what_is_whole(
    tmp_path: Path, missing: int, pack: Callable[[bytes], bytes]
) -> None:
    last = pack(page(2).rstrip(b"\r\n"))
    found = read(tmp_path, pack(page(1)) + last[: max(len(last) - missing, 20)])
    assert reasons(found) == ["document", "broken_record"]
    assert found[1].source.startswith(f"a.warc:{len(pack(page(1)))}")


def test_a_length_that_is_too_small_spoils_one_record(tmp_path: Path) -> None:
    found = read(tmp_path, page(0) + warc(http(), Content_Length=len(http()) - 9) + page(2))
    assert reasons(found) == ["document", "broken_record", "document"]


def test_a_length_that_is_too_large_spoils_no_record_of_another_member(tmp_path: Path) -> None:
    for make, wrong in (
        (page, warc(http(), Content_Length=9999)),
        (lambda n: arc(http(), f"{URL}/{n}"), arc(http(), length=9999)),
    ):
        records = [make(0), wrong, make(2), make(3)]
        found = read(tmp_path, b"".join(map(gzip.compress, records)))
        assert [reason.replace("duplicate_", "") for reason in reasons(found)] == [
            "document",
            "broken_record",
            "document",
            "document",
        ]


def test_a_record_may_lie_in_several_members(tmp_path: Path) -> None:
    data = page(0) + page(1)
    members = [data[at : at + 100] for at in range(0, len(data), 100)]
    assert reasons(read(tmp_path, b"".join(map(gzip.compress, members)))) == ["document", "document"]


@pytest.mark.parametrize("at", [0, 3, 12, 60, -30, -5])
def test_after_a_damaged_member_reading_goes_on_at_the_next(tmp_path: Path, at: int) -> None:
    members = [gzip.compress(page(number)) for number in range(4)]
    whole = [gzip.compress(page(number)) for number in range(4)]
    members[1] = damage(members[1], at % len(members[1]))
    found = read(tmp_path, b"".join(members), "a.warc.gz")
    assert reasons(found) == ["document", "broken_record", "document", "document"]
    assert found[1].source.startswith(f"a.warc.gz:{len(whole[0])}")


def test_damage_in_the_middle_of_one_large_member_takes_no_record_before_it(tmp_path: Path) -> None:
    chance = random.Random(1)
    noise = [bytes(chance.choices(range(32, 127), k=200_000)) for _ in range(3)]
    data = b"".join(warc(http(part, media="text/plain"), url=f"{URL}/{n}") for n, part in enumerate(noise))
    packed = gzip.compress(data)
    found = read(tmp_path, damage(packed, len(packed) // 2) + gzip.compress(page(9)), "a.warc.gz")
    assert reasons(found)[0] == "document"
    assert "broken_record" in reasons(found)
    assert reasons(found)[-1] == "document"
    assert found[-1].source.endswith("/9")


def test_what_is_left_of_a_damaged_record_spoils_neither_neighbour(tmp_path: Path) -> None:
    parts = [page(1)[at : at + 100] for at in range(0, len(page(1)), 100)]
    members = [gzip.compress(part) for part in (page(0), *parts, page(2))]
    members[1] = damage(members[1], 20)
    found = read(tmp_path, b"".join(members), "a.warc.gz")
    assert reasons(found) == ["document", "broken_record", "document"]


def test_bytes_before_damage_are_never_joined_to_those_behind_it() -> None:
    noise = random.Random(1).randbytes(100_000).hex().encode()
    packed = gzip.compress(noise)
    tape = Tape(BytesIO(damage(packed, len(packed) - 20_000) + gzip.compress(b"sound\n")))
    with pytest.raises(DamagedTape) as damaged:
        tape.readline(10**6)
    assert damaged.value.member == "0"
    assert damaged.value.place.startswith("0+1")
    assert tape.place == str(len(packed))
    assert tape.readline(10**6) == b"sound\n"


def test_zeros_between_members_and_at_the_end_are_no_damage(tmp_path: Path) -> None:
    packed = gzip.compress(page(0)) + bytes(70_000) + gzip.compress(page(1)) + bytes(1000)
    assert reasons(read(tmp_path, packed, "a.warc.gz")) == ["document", "document"]


def test_a_file_without_a_record_says_so(tmp_path: Path) -> None:
    assert refused(tmp_path, b"") == ("empty", "")
    assert refused(tmp_path, b"\r\n\r\n") == ("empty", "")
    assert refused(tmp_path, b"no crawl\n") == ("broken_record", "no record opens it, 9 bytes are passed over")
    assert refused(tmp_path, b"\x1f\x8b\x08junk")[0] == "broken_record"
    assert reasons(read(tmp_path, b"junk\n" + page(0))) == ["broken_record", "document"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([bytes, gzip.compress]), st.floats(0, 1), st.binary(max_size=30), st.integers(0, 60))
def test_whatever_bytes_are_changed_what_stands_before_them_is_read(
    pack: Callable[[bytes], bytes], share: float, put: bytes, taken: int
) -> None:
    records = [pack(warc(f"text {n}".encode(), "resource", "text/plain", f"{URL}/{n}")) for n in range(4)]
    whole = b"".join(records)
    at = int(share * len(whole))
    found = list(read_crawl(BytesIO(whole[:at] + put + whole[at + taken :]), "a", 10**6))
    texts = [item.parsed.text for item in found if not isinstance(item, Reject)]
    before = sum(len(b"".join(records[:n])) <= at for n in range(1, 5))
    untouched = max(before - 1, 0)  # what follows a record may show that it is longer
    assert texts[:untouched] == [f"text {n}" for n in range(untouched)]
    places = [item.source if isinstance(item, Reject) else item.where for item in found]
    assert len(set(places)) == len(places)


def test_no_more_than_a_record_is_held(tmp_path: Path) -> None:
    chance = random.Random(1)
    block = bytes(chance.choices(range(97, 123), k=500_000))
    with (tmp_path / "a.warc.gz").open("wb") as file:
        for number in range(30):
            file.write(gzip.compress(warc(http(b"%d " % number + block, media="text/plain")), 1))
    options = CorpusOptions(path=str(tmp_path / "a.warc.gz"))
    next(read_documents(options))
    tracemalloc.start()
    count = sum(isinstance(item, Document) for item in read_documents(options))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30
    assert peak < 10_000_000
