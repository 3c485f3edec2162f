"""The bytes of a crawl, unpacked, each with its place in the file.

Takes: a stream of plain or gzipped bytes; that it is gzipped is told by its first two.
Gives: lines and stretches of bytes in order; DamagedTape where packed bytes cannot be unpacked, and then what follows
the damage.
Never: holds more than what was asked for and a chunk, seeks, or stops at the first damage.
"""

import zlib
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 64 * 1024
_MAGIC = b"\x1f\x8b\x08"  # what opens a gzip member


class DamagedTape(Exception):
    """Packed bytes that cannot be unpacked; reading goes on at the next gzip member.

    `place` names the first byte that is lost, `member` the place of the gzip member it would have come from.
    """

    def __init__(self, detail: str, place: str, member: str) -> None:
        super().__init__(detail)
        self.place = place
        self.member = member


class _Piece(NamedTuple):
    """Unpacked bytes of the gzip member at `offset`, or why there are none."""

    offset: int
    data: bytes
    damage: str = ""


class Tape:
    """Reads forward only; `place` names the next byte."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(_CHUNK_BYTES)
        self._is_packed = head.startswith(_MAGIC[:2])
        self._pieces = _gunzip(head, stream) if self._is_packed else _plain(head, stream)
        self._buffer = bytearray()
        self._at = 0  # the position of the buffer's first byte among all unpacked ones
        self._members: deque[tuple[int, int]] = deque([(0, 0)])  # (position of its first byte, offset in the file)

    @property
    def place(self) -> str:
        """Offset in the file: of the next byte, or of its gzip member and then, after a plus, of the byte in it.

        Raises:
            DamagedTape: there is no next byte, but damage.
        """
        self.peek(1)
        return self._name_place()

    @property
    def opens_member(self) -> bool:
        """Whether the next byte is the first of a gzip member; there must be one, see `peek`."""
        return self._is_packed and self._member()[0] == self._at

    def peek(self, size: int) -> bytes:
        """Return so many of the next bytes, or those that are left, without passing them."""
        while len(self._buffer) < size and self._fill():
            pass
        return bytes(self._buffer[:size])

    def readline(self, most_bytes: int) -> bytes:
        """Return the next line with its end, or as much of it as is allowed; nothing at the end."""
        found = self._buffer.find(b"\n")
        while found < 0 and len(self._buffer) < most_bytes and self._fill():
            found = self._buffer.find(b"\n")
        return self._take(min(found + 1 or len(self._buffer), most_bytes))

    def read_some(self, size: int) -> bytes:
        """Return some of the next bytes, at most so many and all of one gzip member; nothing at the end."""
        if not self._buffer:
            self._fill()
        self._member()
        end = self._members[1][0] - self._at if len(self._members) > 1 else size
        return self._take(min(size, end))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._at += len(taken)
        return taken

    def _fill(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        if piece.offset != self._members[-1][1]:
            self._members.append((self._at + len(self._buffer), piece.offset))
        if piece.damage:
            self._take(len(self._buffer))
            raise DamagedTape(piece.damage, self._name_place(), str(piece.offset))
        self._buffer += piece.data
        return True

    def _member(self) -> tuple[int, int]:
        """Return where the member of the next byte begins, unpacked and in the file."""
        while len(self._members) > 1 and self._members[1][0] <= self._at:
            self._members.popleft()
        return self._members[0]

    def _name_place(self) -> str:
        first, offset = self._member()
        if not self._is_packed:
            return str(self._at)
        return str(offset) if self._at == first else f"{offset}+{self._at - first}"


def _plain(head: bytes, stream: BinaryIO) -> Iterator[_Piece]:
    while head:
        yield _Piece(0, head)
        head = stream.read(_CHUNK_BYTES)


def _gunzip(head: bytes, stream: BinaryIO) -> Iterator[_Piece]:
    """Yield what the members hold, in pieces; after damage go on where the next bytes look like a member."""
    packed, end = head, len(head)  # bytes at hand, and the offset behind the last of them
    while packed:
        start = end - len(packed)
        member, chunk = zlib.decompressobj(wbits=31), packed
        while not member.eof:
            try:
                data = member.decompress(packed, _CHUNK_BYTES)
            except zlib.error as error:
                yield _Piece(start, b"", str(error))
                packed, end = _next_member(chunk[1:], end, stream)
                break
            if data:
                yield _Piece(start, data)
            packed = member.unconsumed_tail
            if not packed and not member.eof:
                chunk = packed = stream.read(_CHUNK_BYTES)
                end += len(chunk)
                if not packed:
                    yield _Piece(start, b"", "the file breaks off within a gzip member")
                    return
        else:
            packed, end = _behind(member.unused_data, end, stream)


def _behind(packed: bytes, end: int, stream: BinaryIO) -> tuple[bytes, int]:
    """Return what follows a member, zeros that fill up a block left out."""
    while not (packed := packed.lstrip(b"\0")):
        packed = stream.read(_CHUNK_BYTES)
        end += len(packed)
        if not packed:
            break
    return packed, end


def _next_member(packed: bytes, end: int, stream: BinaryIO) -> tuple[bytes, int]:
    while (found := packed.find(_MAGIC)) < 0:
        more = stream.read(_CHUNK_BYTES)
        if not more:
            return b"", end
        packed, end = packed[-len(_MAGIC) + 1 :] + more, end + len(more)
    return packed[found:], end
