"""An HTTP response as a crawler kept it -> its media type, charset and decoded payload.

Takes: the bytes of the response, and the most its payload may unpack to.
Gives: Response, or Refused: another status than 200, broken off, damaged, too large once it is unpacked.
Never: takes a part of a payload for the whole, or unpacks more than it may.

Many crawlers decode a payload and leave the headers as they were: what does not look encoded is taken as it stands.
"""

import re
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple, Protocol

from askback.errors import borrow
from askback.readers.parsed import Refused

LINE_BYTES = 64 * 1024
_HEADER_LINES = 500
_STATUS = re.compile(rb"HTTP/\d[\d.]*[ \t]+(\d{3})(?!\d)")
_CHUNK = re.compile(rb"([0-9a-f]{1,15})[ \t]*(;.*)?\r?\n", re.IGNORECASE)
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW = 2**27
_ZSTD_BITE_BYTES = 64  # one packed byte may stand for 32 KB: small bites bound the memory


class Response(NamedTuple):
    """What a server answered."""

    media: str
    charset: str
    payload: bytes


class Lines(Protocol):
    """What header lines are read from."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line with its end, or as much of it as is allowed; nothing at the end."""
        ...


class _Damage(Exception):
    """A payload is not encoded as it says, or breaks off."""


def open_response(data: bytes, most_bytes: int) -> Response | Refused:
    """Return the payload of a response with status 200."""
    status, headers, payload = _split_head(data)
    while status.startswith("1"):  # an interim answer, the real one follows
        status, headers, payload = _split_head(payload)
    if status != "200":
        return Refused("http_status", status or "none")
    try:
        payload = _decode(payload, headers, most_bytes)
    except _Damage as damage:
        return Refused("broken_record", f"the payload {damage}")
    if len(payload) > most_bytes:
        return Refused("record_too_large", f"more than {most_bytes / 1e6:g} MB once it is unpacked")
    return Response(*split_media(headers.get(b"content-type", b"")), payload)


def read_headers(lines: Lines) -> dict[bytes, bytes]:
    """Return the headers up to a blank line, by their names in lower case; the first of a name holds."""
    headers: dict[bytes, bytes] = {}
    name = b""
    for _ in range(_HEADER_LINES):
        line = lines.readline(LINE_BYTES)
        if not line.strip():
            break
        if line[:1] in b" \t" and name:
            headers[name] += b" " + line.strip()
        else:
            name, _, value = line.partition(b":")
            name = name.strip().lower()
            headers.setdefault(name, value.strip())
    return headers


def split_media(said: bytes) -> tuple[str, str]:
    """Return the media type and the charset of a Content-Type."""
    media, *parameters = said.decode("ascii", errors="replace").split(";")
    named = (parameter.partition("=") for parameter in parameters)
    charset = next((value for name, _, value in named if name.strip().lower() == "charset"), "")
    return media.strip().lower(), charset.strip(" \t\"'")


def _split_head(data: bytes) -> tuple[str, dict[bytes, bytes], bytes]:
    stream = BytesIO(data)
    status = _STATUS.match(stream.readline(LINE_BYTES))
    return status[1].decode("ascii") if status else "", read_headers(stream), stream.read()


# --- what the payload is wrapped in


def _decode(payload: bytes, headers: dict[bytes, bytes], most_bytes: int) -> bytes:
    encodings = [name.strip() for name in headers.get(b"content-encoding", b"").lower().split(b",")]
    unpackers = [_UNPACKERS[name] for name in reversed(encodings) if name in _UNPACKERS]
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        payload = _join_chunks(payload)
    elif not unpackers:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and len(payload) < int(length[:18]):
            raise _Damage(f"breaks off after {len(payload)} of {int(length[:18])} bytes")
    for unpack in unpackers:
        payload = unpack(payload, most_bytes)
    return payload


def _join_chunks(payload: bytes) -> bytes:
    stream = BytesIO(payload)
    joined = bytearray()
    while opening := stream.readline(LINE_BYTES):
        chunk = _CHUNK.fullmatch(opening)
        if not chunk and not joined:
            return payload
        if not chunk:
            raise _Damage("is not chunked as it says")
        size = int(chunk[1], 16)
        if not size:
            return bytes(joined)
        joined += stream.read(size)
        stream.readline(LINE_BYTES)
    raise _Damage(f"breaks off after {len(joined)} bytes, before its last chunk")


def _gunzip(data: bytes, most_bytes: int) -> bytes:
    unpacked = data if not data.startswith(_GZIP) else b""
    while data.startswith(_GZIP) and len(unpacked) <= most_bytes:
        more, data = _inflate(data, 31, most_bytes + 1 - len(unpacked))
        unpacked += more
    return unpacked


def _inflate_either(data: bytes, most_bytes: int) -> bytes:
    """Unpack "deflate", which is to have a header but in half of the world has none."""
    try:
        return _inflate(data, 15, most_bytes + 1)[0]
    except _Damage:
        pass
    try:
        return _inflate(data, -15, most_bytes + 1)[0]
    except _Damage:
        return _as_it_stands(data, "deflate")


def _inflate(data: bytes, wbits: int, size: int) -> tuple[bytes, bytes]:
    """Return at most `size` unpacked bytes, and the packed ones behind their end."""
    stream = zlib.decompressobj(wbits)
    try:
        unpacked = stream.decompress(data, size)
    except zlib.error as error:
        raise _Damage(f"cannot be unpacked: {error}") from error
    if not stream.eof and len(unpacked) < size:
        raise _Damage("breaks off before its packed end")
    return unpacked, stream.unused_data


def _unbrotli(data: bytes, most_bytes: int) -> bytes:
    brotli = borrow("brotli", "crawl")
    stream = brotli.Decompressor()
    unpacked = bytearray()
    try:
        unpacked += stream.process(data, output_buffer_limit=most_bytes + 1)
        while len(unpacked) <= most_bytes and not stream.is_finished() and not stream.can_accept_more_data():
            unpacked += stream.process(b"", output_buffer_limit=most_bytes + 1)
    except brotli.error:
        return _as_it_stands(data, "br")
    if not stream.is_finished() and len(unpacked) <= most_bytes:
        raise _Damage("breaks off before its packed end")
    return bytes(unpacked)


def _unzstd(data: bytes, most_bytes: int) -> bytes:
    zstandard = borrow("zstandard")
    if not data.startswith(_ZSTD):
        return data
    frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    unpacked = bytearray()
    try:
        for start in range(0, len(data), _ZSTD_BITE_BYTES):
            if frame.eof or len(unpacked) > most_bytes:
                break
            unpacked += frame.decompress(data[start : start + _ZSTD_BITE_BYTES])
    except zstandard.ZstdError as error:
        raise _Damage(f"cannot be unpacked: {error}") from error
    if not frame.eof and len(unpacked) <= most_bytes:
        raise _Damage("breaks off before its packed end")
    return bytes(unpacked)


def _as_it_stands(data: bytes, encoding: str) -> bytes:
    """Return bytes that are markup already; these two encodings have no mark to know them by."""
    if not data.lstrip().startswith(b"<"):
        raise _Damage(f"is not encoded as it says: {encoding}")
    return data


_UNPACKERS: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"gzip": _gunzip,
    b"x-gzip": _gunzip,
    b"deflate": _inflate_either,
    b"br": _unbrotli,
    b"zstd": _unzstd,
}
