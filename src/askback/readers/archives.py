"""Archives -> their members, one after the other, without unpacking to disk.

Takes: a stream of .zip (.wacz) or .tar, the latter plain or as .gz .bz2 .xz .zst.
Gives: a Member to be read before the next one is asked for, or a Reject for an entry that is no file or is not opened.
Never: writes, follows a link, holds a member, or unpacks more than a bomb's first bytes; only names with a leading dot
are passed over in silence.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, NamedTuple, Self, cast

from askback.errors import AskbackError, borrow
from askback.readers.listing import printable
from askback.readers.rows import reject
from askback.records import Reject

MOST_RATIO = 200
BOMB_BYTES = 20_000_000
"""What unpacks to more than so many bytes and to more than `MOST_RATIO` times its size is taken for a bomb: text
shrinks to a third or a tenth, a log to a fiftieth."""

_ENCRYPTED = 0x1  # of a zip entry's flags
_ZSTD_WINDOW = 2**27
_COMPLAINTS = (
    *(EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError),
    *(lzma.LZMAError, struct.error, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)


class Member(NamedTuple):
    """A file in an archive: its name with the archive's before it, its size, and its bytes."""

    name: str
    size: int
    stream: BinaryIO


class BrokenArchive(Exception):
    """Bytes of an archive cannot be read: what is wrong with them, and the name of the reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def is_archive(name: str) -> bool:
    """Whether a name is that of an archive."""
    return _opener(name) is not None


def needs_seeking(name: str) -> bool:
    """Whether an archive of that name is read from its end, so that inside another one it must be held."""
    return _opener(name) is _zip_members


def list_members(stream: BinaryIO, name: str) -> Iterator[Member | Reject]:
    """Yield the members of an archive in the order they stand in it; damage to it is a Reject that ends the list."""
    opener = _opener(name)
    assert opener, f"{name} is no archive"
    try:
        with _explained():
            yield from opener(stream, name)
    except BrokenArchive as broken:
        yield reject(name, broken.reason, f"{broken}; what follows is not read")


@contextmanager
def _explained() -> Iterator[None]:
    """Raise BrokenArchive for whatever a library says of bytes it cannot unpack."""
    try:
        yield
    except AskbackError:
        raise
    except (*_COMPLAINTS, borrow("zstandard").ZstdError) as error:
        raise BrokenArchive("broken_archive", str(error) or type(error).__name__) from error


class _Explained:
    """A member's bytes, whose damage is a BrokenArchive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        with _explained():
            return self._stream.read(size)


# --- zip


def _zip_members(stream: BinaryIO, name: str) -> Iterator[Member | Reject]:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or _is_hidden(entry.filename):
                continue
            where = _member_name(name, entry.filename)
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
                yield reject(where, "not_a_file", "a link, a device or a pipe")
            elif entry.flag_bits & _ENCRYPTED:
                yield reject(where, "encrypted", "needs a password")
            elif _is_bomb(entry.file_size, entry.compress_size):
                yield reject(where, "zip_bomb", f"{entry.compress_size} bytes unpack to {entry.file_size}")
            else:
                yield from _open_entry(archive, entry, where)


def _open_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> Iterator[Member | Reject]:
    """Yield a member, or why it alone cannot be opened."""
    try:
        with _explained():
            opened = archive.open(entry)
    except BrokenArchive as broken:
        yield reject(where, broken.reason, str(broken))
        return
    with opened:
        yield Member(where, entry.file_size, cast(BinaryIO, _Explained(opened)))


# --- tar


def _tar_members(unpack: Callable[[BinaryIO], IO[bytes]]) -> Callable[[BinaryIO, str], Iterator[Member | Reject]]:
    """Return what yields the members of a tar file that is packed in one way."""

    def members(stream: BinaryIO, name: str) -> Iterator[Member | Reject]:
        packed = _Gauge(stream)
        unpacked = _Gauge(unpack(cast(BinaryIO, packed)), packed)
        source = cast(BinaryIO, unpacked)  # is read to its last byte, where the packing has its checksum
        with tarfile.open(fileobj=source, mode="r|", encoding="utf-8", tarinfo=_Header, ignore_zeros=True) as archive:
            for entry in archive:
                if not entry.isdir() and not _is_hidden(entry.name):
                    yield _tar_member(archive, entry, _member_name(name, entry.name))
                archive.members = []  # type: ignore[attr-defined]  # or it remembers every one

    return members


class _Header(tarfile.TarInfo):
    """A header of a tar file; the library takes a damaged one, or none, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> Self:
        """Return the next header; two archives one behind the other are one.

        Raises:
            BrokenArchive: it is damaged or cut off, or there is none and no mark of the end either.
        """
        try:
            header = super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            is_mark = isinstance(error, tarfile.EOFHeaderError)  # type: ignore[attr-defined]
            is_end = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            if is_mark or (is_end and getattr(archive, "is_marked", False)):
                archive.is_marked = True
                raise
            where = f"at {archive.offset} of its unpacked bytes"
            raise BrokenArchive("broken_archive", f"{where}: {error}") from error
        archive.is_marked = False
        return header


def _tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo, where: str) -> Member | Reject:
    opened = archive.extractfile(entry) if entry.isfile() else None
    if opened is None:
        return reject(where, "not_a_file", f"-> {entry.linkname}" if entry.linkname else "a device or a pipe")
    stretches: Any = entry.sparse or ()
    stored = sum(size for _, size in stretches)
    if stretches and _is_bomb(entry.size, stored):
        return reject(where, "zip_bomb", f"{stored} bytes with holes between them stand for {entry.size}")
    return Member(where, entry.size, cast(BinaryIO, _Explained(opened)))


class _Gauge:
    """A stream that counts what is read of it and, where it is told what it is unpacked from, notices a bomb."""

    def __init__(self, stream: IO[bytes], packed: "_Gauge | None" = None) -> None:
        self._stream = stream
        self._packed = packed
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.read_bytes += len(data)
        if self._packed and _is_bomb(self.read_bytes, self._packed.read_bytes):
            raise BrokenArchive("zip_bomb", f"{self._packed.read_bytes} bytes unpack to more than {self.read_bytes}")
        return data


def _unpack_gzip(stream: BinaryIO) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream))


def _unpack_zstd(stream: BinaryIO) -> IO[bytes]:
    unpacker = borrow("zstandard").ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return cast(IO[bytes], unpacker.stream_reader(stream, read_across_frames=True))


# --- both


def _is_bomb(unpacked: int, packed: int) -> bool:
    return unpacked > BOMB_BYTES and unpacked > MOST_RATIO * packed


def _is_hidden(name: str) -> bool:
    """Whether a name or a folder on the way to it has a leading dot; "." and ".." are no names."""
    return any(part.startswith(".") and part.strip(".") for part in name.replace("\\", "/").split("/"))


def _member_name(archive: str, name: str) -> str:
    """Return the name of a member behind its archive's, fit to be written down; no path is made of it."""
    plain = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in printable(name))
    return f"{archive}/{plain.removeprefix('./')}"


def _opener(name: str) -> Any:
    return next((opener for suffix, opener in _OPENERS.items() if name.lower().endswith(suffix)), None)


_GZIP = _tar_members(_unpack_gzip)
_BZIP2 = _tar_members(bz2.BZ2File)
_XZ = _tar_members(lzma.LZMAFile)
_ZSTD = _tar_members(_unpack_zstd)
_OPENERS: dict[str, Callable[[BinaryIO, str], Iterator[Member | Reject]]] = {
    ".zip": _zip_members,
    ".wacz": _zip_members,
    ".tar": _tar_members(lambda stream: stream),
    ".tar.gz": _GZIP,
    ".tgz": _GZIP,
    ".tar.bz2": _BZIP2,
    ".tbz2": _BZIP2,
    ".tar.xz": _XZ,
    ".txz": _XZ,
    ".tar.zst": _ZSTD,
}
SUFFIXES = tuple(_OPENERS)
