"""WARC and ARC files, plain or gzipped -> the documents in their responses.

Takes: a stream, the name of its file, the most bytes of a record.
Gives: Found or Reject for each record, in order; `where` is "file:offset URL".
Never: holds more than one record, or loses one: what cannot be read is a Reject with its place.

Records are framed here and opened by fastwarc, for fastwarc 2.0 ends at the first damaged record and takes one that
is cut off for whole, and warcio 1.8 passes over bad lines and ends at a gzip member of several records.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from askback.errors import borrow
from askback.readers.formats import Found, format_of_media, parse
from askback.readers.parsed import Refused
from askback.readers.rows import reject
from askback.readers.tape import DamagedTape, Tape
from askback.records import Reject

SUFFIXES = (".warc", ".warc.gz", ".arc", ".arc.gz", ".wet", ".wet.gz")

_LINE_BYTES = 64 * 1024
_HEADER_LINES = 500
_URL_CHARS = 1000
_READ_KINDS = ("response", "resource", "conversion")
_WARC_START = re.compile(rb"WARC/\d")
_ARC_START = re.compile(
    rb"(?P<url>[a-z][a-z0-9+.-]*:\S.*?) (?P<ip>\S+) (?P<date>\d{8,}) (?P<media>\S+)"
    rb"(?: \S+ \S+ \S+ \S+ \S+)? (?P<length>\S+)\s*$",  # the five more of version 2
    re.IGNORECASE,
)


class _Frame(NamedTuple):
    """A record: where it stands, what it says it is, and the bytes it holds, or what is wrong with it."""

    place: str
    kind: str
    url: str
    media: str = ""
    body: bytes = b""
    trouble: Refused | None = None


class _Response(NamedTuple):
    """What a server answered."""

    status: str
    media: str
    charset: str
    payload: bytes


def read_crawl(stream: BinaryIO, name: str, most_bytes: int) -> Iterator[Found | Reject]:
    """Yield what became of each record."""
    for frame in _frames(Tape(stream), most_bytes):
        where = f"{name}:{frame.place} {frame.url}".rstrip()
        response = frame.trouble or _open(frame, most_bytes)
        if isinstance(response, Refused):
            yield reject(where, response.reason, response.detail)
        elif (format := format_of_media(response.media)) is None:
            yield reject(where, "unknown_format", response.media or "no content type")
        else:
            yield parse(response.payload, format, where, response.charset)


# --- what a record holds


def _open(frame: _Frame, most_bytes: int) -> _Response | Refused:
    if frame.kind not in _READ_KINDS or frame.url.startswith("metadata:"):
        return Refused("not_a_response", frame.kind)
    if not frame.body.startswith(b"HTTP/"):
        media, charset = _split_media(frame.media)
        if frame.kind == "response" and (not media or media == "application/http"):
            return Refused("broken_record", "the response opens with no HTTP status")
        return _Response("200", media, charset, frame.body)
    response = _open_http(frame.body, most_bytes)
    if isinstance(response, Refused) or response.status == "200":
        return response
    return Refused("http_status", response.status or "none")


def _open_http(body: bytes, most_bytes: int) -> _Response | Refused:
    """Decode an HTTP response; a crawler may have decoded the payload, and left the headers as they were."""
    try:
        record = _parse_http(body, "all")
        payload = _read(record.reader, most_bytes + 1)
    except OSError as error:
        record = _parse_http(body, "none")
        payload = _read(record.reader, most_bytes + 1)
        if not payload.lstrip().startswith(b"<"):
            return Refused("broken_record", f"the payload is not encoded as it says: {error}")
    if len(payload) > most_bytes:
        return Refused("record_too_large", f"more than {most_bytes / 1e6:g} MB once it is unpacked")
    media, charset = _split_media(record.http_headers.get("Content-Type") or "")
    return _Response(str(record.http_headers.status_code or ""), media, charset, payload)


def _parse_http(body: bytes, decode: str) -> Any:
    fastwarc = borrow("fastwarc.warc", "crawl")
    record = fastwarc.WarcRecord()
    record.init_headers(fastwarc.WarcRecordType.response)
    record.set_bytes_content(body)
    record.is_http = True
    record.parse_http(auto_decode=decode, quirks_mode=True)
    return record


def _read(reader: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := reader.read(size - len(data))):
        data += more
    return bytes(data)


def _split_media(said: str) -> tuple[str, str]:
    """Return the media type and the charset of a Content-Type."""
    media, *parameters = said.split(";")
    named = (parameter.partition("=") for parameter in parameters)
    charset = next((value for name, _, value in named if name.strip().lower() == "charset"), "")
    return media.strip().lower(), charset.strip(" \t\"'")


# --- where one record ends and the next begins


def _frames(tape: Tape, most_bytes: int) -> Iterator[_Frame]:
    """Yield every record; one that is not followed by another, or by the end, is broken."""
    start, place, lost = _next_start(tape)
    if lost or not start:
        yield _Frame("0", "", "", trouble=Refused("broken_record", f"no record opens it, {lost} bytes are passed over"))
    while start:
        try:
            frame = _read_frame(tape, start, place, most_bytes)
        except DamagedTape as damage:
            frame = _Frame(place, "", _url(start), trouble=Refused("broken_record", str(damage)))
        start, place, lost = _next_start(tape)
        if lost and not frame.trouble:
            frame = frame._replace(trouble=Refused("broken_record", f"{lost} bytes behind it belong to no record"))
        yield frame


def _next_start(tape: Tape) -> tuple[bytes, str, int]:
    """Return the line that opens the next record, its place, and how many bytes before it belong to none."""
    lost = 0
    while True:
        try:
            place = tape.place
            line = tape.readline(_LINE_BYTES)
        except DamagedTape:
            lost += 1
            continue
        if not line or _WARC_START.match(line) or _ARC_START.match(line):
            return line, place, lost
        lost += len(line) if line.strip(b"\r\n") else 0


def _read_frame(tape: Tape, start: bytes, place: str, most_bytes: int) -> _Frame:
    if arc := _ARC_START.match(start):
        url = _printable(arc["url"])
        kind = "filedesc" if url.startswith("filedesc:") else "response"
        return _with_body(tape, _Frame(place, kind, url, _text(arc["media"])), _text(arc["length"]), most_bytes)
    headers = _read_headers(tape)
    url = _printable(headers.get(b"warc-target-uri", b"").strip(b"<>"))
    frame = _Frame(place, _text(headers.get(b"warc-type", b"")).lower(), url, _text(headers.get(b"content-type", b"")))
    if b"warc-truncated" in headers and frame.kind in _READ_KINDS:
        why = _text(headers[b"warc-truncated"])
        frame = frame._replace(trouble=Refused("broken_record", f"the crawler cut it off: {why}"))
    return _with_body(tape, frame, _text(headers.get(b"content-length", b"")), most_bytes)


def _read_headers(tape: Tape) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for _ in range(_HEADER_LINES):
        line = tape.readline(_LINE_BYTES)
        if not line.strip():
            break
        name, _, value = line.partition(b":")
        headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _with_body(tape: Tape, frame: _Frame, length: str, most_bytes: int) -> _Frame:
    """Return the record with its bytes, if anybody is going to read them."""
    if not length.isdecimal() or len(length) > 18:
        return frame._replace(trouble=Refused("broken_record", f"its length is {length or 'missing'}"))
    size = int(length)
    wanted = frame.kind in _READ_KINDS and not frame.trouble
    body = tape.read(size) if wanted and size <= most_bytes else b""
    read = len(body) or tape.skip(size)
    if read < size:
        return frame._replace(trouble=Refused("broken_record", f"it breaks off after {read} of {size} bytes"))
    if wanted and size > most_bytes:
        what = f"{size / 1e6:.1f} MB, at most {most_bytes / 1e6:g}"
        return frame._replace(trouble=Refused("record_too_large", what))
    return frame._replace(body=body)


def _url(start: bytes) -> str:
    arc = _ARC_START.match(start)
    return _printable(arc["url"]) if arc else ""


def _printable(url: bytes) -> str:
    return _text(url).replace(" ", "%20")[:_URL_CHARS]


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="backslashreplace")
