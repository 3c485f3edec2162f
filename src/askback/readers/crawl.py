"""WARC and ARC files, plain or gzipped -> the documents in their responses.

Takes: a stream, the name of its file, the most bytes of a record.
Gives: Found or Reject for each record, in order; `where` is "file:offset URL".
Never: holds more than one record, or loses one: what cannot be read is a Reject with its place.

Records are framed and opened here: fastwarc 2.0 ends at the first damaged record and takes one that is cut off, or a
payload that is, for whole; warcio 1.8 passes over bad lines and ends at a gzip member of several records.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from askback.readers.formats import Found, format_of_media, parse
from askback.readers.parsed import Refused
from askback.readers.response import LINE_BYTES, Response, open_response, read_headers, split_media
from askback.readers.rows import reject
from askback.readers.tape import DamagedTape, Tape
from askback.records import Reject

SUFFIXES = (".warc", ".warc.gz", ".arc", ".arc.gz", ".wet", ".wet.gz")

_URL_CHARS = 1000
_PEEK_BYTES = 4096  # longer than any line that opens a record is likely to be
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
    kind: str = ""
    url: str = ""
    media: bytes = b""
    body: bytes = b""
    trouble: Refused | None = None


class _Gap(NamedTuple):
    """What lies before a record: the line that opens it and its place, how many bytes before it belong to none."""

    start: bytes
    place: str
    lost_bytes: int
    damage: DamagedTape | None


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


def _open(frame: _Frame, most_bytes: int) -> Response | Refused:
    if frame.kind not in _READ_KINDS or frame.url.startswith("metadata:"):
        return Refused("not_a_response", frame.kind)
    media, charset = split_media(frame.media)
    if frame.body.startswith(b"HTTP/") and (frame.kind == "response" or media == "application/http"):
        return open_response(frame.body, most_bytes)
    if frame.kind == "response" and media in ("", "application/http"):
        return Refused("broken_record", "the response opens with no HTTP status")
    return Response(media, charset, frame.body)


# --- where one record ends and the next begins


def _frames(tape: Tape, most_bytes: int) -> Iterator[_Frame]:
    """Yield every record; one that is not followed by another, or by the end, is broken."""
    gap = _read_gap(tape)
    if gap.lost_bytes:
        yield _broken("0", f"no record opens it, {gap.lost_bytes} bytes are passed over")
    elif not gap.start and not gap.damage:
        yield _Frame("0", trouble=Refused("empty"))
    while True:
        if gap.damage:
            yield _broken(gap.damage.place, str(gap.damage))
        if not gap.start:
            return
        frame = _read_frame(tape, gap, most_bytes)
        gap = _read_gap(tape)
        if gap.damage and gap.damage.member == frame.place:  # the one record of a member, whose checksum fails
            frame, gap = _spoil(frame, str(gap.damage)), gap._replace(damage=None)
        yield _spoil(frame, f"{gap.lost_bytes} bytes behind it belong to no record") if gap.lost_bytes else frame


def _read_gap(tape: Tape) -> _Gap:
    """Go on to the line that opens the next record."""
    lost, damage = 0, None
    while True:
        try:
            place = tape.place
            line = tape.readline(LINE_BYTES)
        except DamagedTape as found:
            damage = damage or found
            continue
        if not line or _opens_record(line):
            return _Gap(line, place, lost, damage)
        lost += 0 if damage or not line.strip(b"\r\n") else len(line)  # behind damage, it is of the damaged record


def _opens_record(line: bytes) -> bool:
    return bool(_WARC_START.match(line) or _ARC_START.match(line))


def _read_frame(tape: Tape, gap: _Gap, most_bytes: int) -> _Frame:
    if arc := _ARC_START.match(gap.start):
        url = _printable(arc["url"])
        kind = "filedesc" if url.startswith("filedesc:") else "response"
        return _with_body(tape, _Frame(gap.place, kind, url, arc["media"]), arc["length"], most_bytes)
    try:
        headers = read_headers(tape)
    except DamagedTape as damage:
        return _broken(gap.place, str(damage))
    kind = _text(headers.get(b"warc-type", b"")).lower()
    url = _printable(headers.get(b"warc-target-uri", b"").strip(b"<>"))
    frame = _Frame(gap.place, kind, url, headers.get(b"content-type", b""))
    if kind in _READ_KINDS and b"warc-truncated" in headers:
        frame = _spoil(frame, f"the crawler cut it off: {_text(headers[b'warc-truncated'])}")
    if kind in _READ_KINDS and b"warc-segment-number" in headers:
        frame = _spoil(frame, "a segment of a record that is in several")
    return _with_body(tape, frame, headers.get(b"content-length", b""), most_bytes)


def _with_body(tape: Tape, frame: _Frame, length: bytes, most_bytes: int) -> _Frame:
    """Return the record with its bytes, if anybody is going to read them."""
    if not length.isdigit() or len(length) > 18:
        return _spoil(frame, f"its length is {_text(length) or 'missing'}")
    size, body, read = int(length), bytearray(), 0
    wanted = frame.kind in _READ_KINDS and not frame.trouble
    try:
        for piece in _stretch(tape, size):
            read += len(piece)
            body += piece if wanted and size <= most_bytes else b""
    except DamagedTape as damage:
        return _spoil(frame, str(damage))
    if read < size:
        return _spoil(frame, f"it breaks off after {read} of {size} bytes")
    if wanted and size > most_bytes:
        what = f"{size / 1e6:.1f} MB, at most {most_bytes / 1e6:g}"
        return frame._replace(trouble=Refused("record_too_large", what))
    return frame._replace(body=bytes(body))


def _stretch(tape: Tape, size: int) -> Iterator[bytes]:
    """Yield so many bytes in pieces, or fewer: those before the end, or before a gzip member that opens a record."""
    while size and (piece := tape.read_some(size)):
        yield piece
        size -= len(piece)
        if size and tape.peek(1) and tape.opens_member and _opens_record(tape.peek(_PEEK_BYTES).partition(b"\n")[0]):
            return


def _broken(place: str, why: str) -> _Frame:
    return _Frame(place, trouble=Refused("broken_record", why))


def _spoil(frame: _Frame, why: str) -> _Frame:
    """Return a record that is broken; what was found first stays the reason."""
    return frame if frame.trouble else frame._replace(trouble=Refused("broken_record", why))


def _printable(url: bytes) -> str:
    return _text(url).replace(" ", "%20")[:_URL_CHARS]


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="backslashreplace")
