"""Texts seen before, found again when one comes that repeats them: exactly, or in most of its runs of words.

Takes: ids and texts in reading order, a scratch folder.  Gives: for each text, the first earlier one it repeats.
Never: keeps a text, holds more than a batch of them in memory, or takes a guess for a match.

Two texts are near when the Jaccard overlap of their word 5-grams is at least `near`. What could be near is found by
MinHash signatures cut into bands (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3), what is near is decided on
the 5-grams themselves, kept as 32-bit hashes. Only texts that repeat nothing are found again, so a thousand copies
cost a thousand comparisons, not a million.

In the scratch folder: one row per text in files that only grow, and for each band a sorted list of (key, row), in
sorted runs that are merged when they are of a size (O'Neil et al. 1996). A batch looks up all of its keys at once. So
n texts take n log n steps, and what the process maps of these files the system may take back at any time.

`Overlapping` finds small sets again, such as the word pairs of instructions: exactly, and in memory.
"""

import errno
from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import chain
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from askback.errors import ConfigError, Stopped, borrow
from askback.grams import DIGEST_BYTES, gram_hashes, mix, text_digest, word_hashes, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from askback.grams import Hashes

    Entries = NDArray[np.uint64]
    """Each the key of a table in its upper 32 bits and a row in its lower."""

GRAM_WORDS = 5
FOUND = 0.99
"""Least probability with which two texts that are just near meet in a band."""
DEVIATIONS = 4.0
"""A pair is not looked at where its signatures agree less than `near` by so many standard deviations: 1 in 30,000."""
CHECKED_AT_ONCE = 256
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SEED = 1
_LOW = 0xFFFFFFFF
COMPARING_COSTS = 10
"""Comparing two sets takes as long as counting so many holders."""
ROUNDING = 1e-9
"""0.55 x 100 is 55.00000000000001 to a computer, and 55 shared members must do."""

Member = TypeVar("Member", bound=Hashable)


class Text(NamedTuple):
    """What is compared, and what it is called."""

    id: str
    text: str


class Match(NamedTuple):
    """The earlier text that one repeats; `known` where it was learned, not admitted."""

    id: str
    overlap: float
    exact: bool
    known: bool


class Banding(NamedTuple):
    """How a signature is cut: two texts meet where all rows of one band agree."""

    bands: int
    rows: int


def choose_banding(near: float, permutations: int) -> Banding:
    """Return the longest bands in which two texts of overlap `near` still meet with the probability FOUND.

    Raises:
        ConfigError: not even bands of one row are enough.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if 1 - (1 - near**rows) ** bands >= FOUND:
            return Banding(bands, rows)
    raise ConfigError(
        f"distinct.near = {near:g} is too low for {permutations} permutations: "
        f"of texts so near, fewer than {FOUND:.0%} would be found; raise one of them"
    )


@contextmanager
def open_seen(near: float, permutations: int, scratch: Path | None = None) -> Iterator["Seen"]:
    """Open an empty memory in a new folder inside `scratch` (or the system's), which is removed in the end.

    Raises:
        ConfigError: `near` is too low for the permutations, or the scratch folder cannot be written.
        Stopped: there is no room left in it.
    """
    try:
        if scratch:
            scratch.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=".seen-", suffix=".part", dir=scratch)
    except OSError as error:
        raise _unwritable(scratch, error) from error
    with folder as name:
        yield Seen(Path(name), near, permutations)


class Seen:
    """The texts that repeated nothing so far; `near` 0 compares whole texts only."""

    def __init__(self, folder: Path, near: float, permutations: int) -> None:
        self._near = near
        self._reader = _Reader(permutations, choose_banding(near, permutations) if near else Banding(0, 0))
        self._least_agreement = near - DEVIATIONS * (near * (1 - near) / permutations) ** 0.5
        self._prints = _Column(folder / "prints", "u1", width=DIGEST_BYTES + (permutations if near else 0))
        self._grams = _Lists(folder / "grams", "u4")
        self._ids = _Lists(folder / "ids", "u1")
        self._tables = _Tables(folder)
        self._rows = 0
        self._known = 0

    def learn(self, texts: Sequence[Text]) -> None:
        """Remember texts of an earlier run, all but exact copies: what was let through there is judged no more.

        To be called before the first `admit`.
        """
        self._pass(texts, near=False)
        self._known = self._rows

    def admit(self, texts: Sequence[Text]) -> list[Match | None]:
        """Return for each text the first one before it, here or earlier, that it repeats; remember the others."""
        return self._pass(texts, near=bool(self._near))

    def _pass(self, texts: Sequence[Text], *, near: bool) -> list[Match | None]:
        if not texts:
            return []
        first, self._rows = self._rows, self._rows + len(texts)
        entries = self._remember(texts, first)
        shared = _shared_keys(entries, first)
        holders: dict[int, list[int]] = {}
        matches: list[Match | None] = []
        for row, older in enumerate(self._tables.find(entries, first), start=first):
            keys = shared.get(row, ())
            of_batch = {holder for key in keys for holder in holders.get(key, ())}
            repeats = older or of_batch
            matches.append(self._first_match(row, _join(older, of_batch), near=near) if repeats else None)
            if matches[-1] is None:
                for key in keys:
                    holders.setdefault(key, []).append(row)
        self._tables.add(entries, [match is None for match in matches], first)
        return matches

    def _remember(self, texts: Sequence[Text], first: int) -> "Entries":
        """Write down what texts are compared by, under the next rows; return their sorted entries, table by table."""
        import numpy as np

        read = self._reader.read([text.text for text in texts])
        self._prints.append(read.prints)
        self._grams.append(read.grams, read.gram_counts)
        names = [text.id.encode("utf-8", "surrogatepass") for text in texts]
        self._ids.append(np.frombuffer(b"".join(names), dtype=np.uint8), [len(name) for name in names])
        rows = np.arange(first, self._rows, dtype=np.uint64)
        return np.sort(read.keys.T << np.uint64(32) | rows, axis=1)

    def _first_match(self, row: int, candidates: "NDArray[np.int64]", *, near: bool) -> Match | None:
        prints, own = self._prints.view[candidates], self._prints.view[row]
        same = (prints[:, :DIGEST_BYTES] == own[:DIGEST_BYTES]).all(axis=1)
        if same.any():
            return self._match(int(candidates[same.argmax()]), 1.0, exact=True)
        if not near:
            return None
        agreement = (prints[:, DIGEST_BYTES:] == own[DIGEST_BYTES:]).mean(axis=1)
        likely = candidates[agreement >= self._least_agreement]
        for start in range(0, len(likely), CHECKED_AT_ONCE):
            rows = likely[start : start + CHECKED_AT_ONCE]
            overlaps = self._overlaps(row, rows)
            if (overlaps >= self._near).any():
                place = int((overlaps >= self._near).argmax())
                return self._match(int(rows[place]), float(overlaps[place]), exact=False)
        return None

    def _overlaps(self, row: int, others: "NDArray[np.int64]") -> "NDArray[np.float64]":
        """Return the Jaccard overlap of a row's grams with those of each other row; no gram, no overlap."""
        import numpy as np

        own, (grams, sizes) = self._grams.take(np.array([row]))[0], self._grams.take(others)
        if not len(own):
            return np.zeros(len(others))
        at = np.minimum(np.searchsorted(own, grams), len(own) - 1)
        owners = np.repeat(np.arange(len(others)), sizes)
        common = np.bincount(owners, weights=own[at] == grams, minlength=len(others))
        return common / (len(own) + sizes - common)

    def _match(self, row: int, overlap: float, *, exact: bool) -> Match:
        import numpy as np

        name, _ = self._ids.take(np.array([row]))
        return Match(name.tobytes().decode("utf-8", "surrogatepass"), overlap, exact, known=row < self._known)


# --- what a text is compared by


class _Read(NamedTuple):
    """A batch of texts, one row each."""

    prints: "NDArray[np.uint8]"
    """Digest, and the low byte of every slot of the signature (Li and König 2010)."""
    keys: "Hashes"
    """One number below 2^32 for every table: the digest's first, then one for each band."""
    grams: "NDArray[np.uint32]"
    """Sorted and unique within a text, one text after the other."""
    gram_counts: Sequence[int]


class _Reader:
    """Turns texts into the numbers they are compared by."""

    def __init__(self, permutations: int, banding: Banding) -> None:
        self._permutations = permutations
        self._banding = banding

    def read(self, texts: Sequence[str]) -> _Read:
        import numpy as np

        digests = np.frombuffer(b"".join(map(text_digest, texts)), dtype=np.uint8).reshape(len(texts), DIGEST_BYTES)
        whole = digests.view("<u4")[:, :1].astype(np.uint64)
        if not self._banding.bands:
            return _Read(digests, whole, np.empty(0, dtype=np.uint32), [0] * len(texts))
        grams, counts = _hash_grams(texts)
        signatures = self._sign(grams, counts)
        # a text without a word is near to none: its bands meet where its digest does
        bands = np.where(counts[:, None] > 0, self._band(signatures), whole)
        prints = np.hstack([digests, (signatures & np.uint32(0xFF)).astype(np.uint8)])
        return _Read(prints, np.hstack([whole, bands]), grams, counts.tolist())

    def _sign(self, grams: "NDArray[np.uint32]", counts: "NDArray[np.int64]") -> "NDArray[np.uint32]":
        """Return the MinHash signature of every text, one slot a permutation."""
        import numpy as np

        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
        sign: Any = borrow("rensa").RMinHash.digest_matrix_from_flat_token_hashes
        matrix = sign(grams.astype(np.uint64), ends, self._permutations, _SEED)
        return np.array(matrix.to_rows(), dtype=np.uint32)

    def _band(self, signatures: "NDArray[np.uint32]") -> "Hashes":
        """Return a key below 2^32 for each band of each signature."""
        import numpy as np

        bands, rows = self._banding
        cut = signatures[:, : bands * rows].astype(np.uint64).reshape(-1, rows)
        keys: Hashes = np.zeros(len(cut), dtype=np.uint64)
        for slot in range(rows):
            keys = mix(keys + cut[:, slot])
        return (keys >> np.uint64(32)).reshape(len(signatures), bands)


def _hash_grams(texts: Sequence[str]) -> "tuple[NDArray[np.uint32], NDArray[np.int64]]":
    """Return the different word 5-grams of the texts, text after text, and how many each has.

    A shorter text is one gram, a text without a word none.
    """
    import numpy as np

    words = [_pad(words_of(text)) for text in texts]
    lengths = np.array([len(text) for text in words], dtype=np.int64)
    hashes = gram_hashes(word_hashes(words), GRAM_WORDS)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)[: len(hashes)]
    ends = np.repeat(np.cumsum(lengths), lengths)[: len(hashes)]
    inside = np.arange(len(hashes)) + GRAM_WORDS <= ends  # a gram does not reach into the next text
    grams = _sorted_set(owner[inside] << np.uint64(32) | hashes[inside] >> np.uint64(32))
    counts = np.bincount((grams >> np.uint64(32)).astype(np.int64), minlength=len(texts))
    return (grams & np.uint64(_LOW)).astype(np.uint32), counts


def _sorted_set(numbers: "Hashes") -> "Hashes":
    """Return the different numbers in order; `np.unique` takes seven times as long where most of them differ."""
    import numpy as np

    ordered: Hashes = np.sort(numbers)
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def _pad(words: list[bytes]) -> list[bytes]:
    return words + [b""] * (GRAM_WORDS - len(words)) if words else words


# --- tables: from a key to the rows that have it


class _Tables:
    """Sorted entries of every table, in runs that grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[tuple[Path, Entries]] = []
        self._written = 0

    def find(self, entries: "Entries", first: int) -> "list[list[Entries]]":
        """Return for each row of a batch, the first of them `first`, stretches of entries that share a key with it."""
        found: list[list[Entries]] = [[] for _ in range(entries.shape[1])]
        for _, run in self._runs:
            for mine, table in zip(entries, run, strict=True):
                _look_up(mine, table, first, found)
        return found

    def add(self, entries: "Entries", is_new: list[bool], first: int) -> None:
        """Take in the entries of the rows that are new."""
        import numpy as np

        if not any(is_new):
            return
        kept = np.array(is_new)[_rows(entries) - first]
        self._write([mine[keep] for mine, keep in zip(entries, kept, strict=True)])
        while len(self._runs) > 1 and self._runs[-2][1].shape[1] < 2 * self._runs[-1][1].shape[1]:
            (old, older), (new, newer) = self._runs[-2:]
            del self._runs[-2:]
            self._write(np.sort(np.concatenate(pair)) for pair in zip(older, newer, strict=True))
            old.unlink()
            new.unlink()

    def _write(self, tables: "Iterator[Entries] | list[Entries]") -> None:
        """Write a run, table after table, and look at it as one array."""
        file = self._folder / f"run-{self._written}"
        self._written += 1
        column = _Column(file, "u8")
        count = 0
        for table in tables:
            column.append(table)
            count += 1
        self._runs.append((file, column.view.reshape(count, -1)))


def _look_up(mine: "Entries", table: "Entries", first: int, found: "list[list[Entries]]") -> None:
    """Add to each row's findings the stretch of a table that has its key."""
    import numpy as np

    keys = _keys(mine) << np.uint64(32)
    starts = np.searchsorted(table, keys)
    hit = _keys(table[np.minimum(starts, len(table) - 1)]) == _keys(mine)  # past the end: a smaller key, no hit
    stops = np.searchsorted(table, keys[hit] | np.uint64(_LOW), side="right")
    places = _rows(mine[hit]) - first
    for place, start, stop in zip(places.tolist(), starts[hit].tolist(), stops.tolist(), strict=True):
        found[place].append(table[start:stop])


def _shared_keys(entries: "Entries", first: int) -> dict[int, list[int]]:
    """Return for each row of a batch its keys that another row of it has as well, each with its table."""
    import numpy as np

    edge = np.zeros((len(entries), 1), dtype=bool)
    same = _keys(entries[:, 1:]) == _keys(entries[:, :-1])
    tables, places = np.nonzero(np.hstack([same, edge]) | np.hstack([edge, same]))
    there = entries[tables, places]
    keys = tables.astype(np.uint64) << np.uint64(32) | _keys(there)
    shared: dict[int, list[int]] = {}
    for row, key in zip(_rows(there).tolist(), keys.tolist(), strict=True):
        shared.setdefault(row, []).append(key)
    return shared


def _join(older: "list[Entries]", of_batch: set[int]) -> "NDArray[np.int64]":
    """Return in reading order the rows in stretches of entries, and those of the batch, which came later."""
    import numpy as np

    earlier = [_rows(_sorted_set(_rows(np.concatenate(older)).astype(np.uint64)))] if older else []
    return np.concatenate([*earlier, np.array(sorted(of_batch), dtype=np.int64)])


def _keys(entries: "Entries") -> "Entries":
    import numpy as np

    return entries >> np.uint64(32)


def _rows(entries: "Entries") -> "NDArray[np.int64]":
    import numpy as np

    return (entries & np.uint64(_LOW)).astype(np.int64)


# --- files that only grow


class _Column:
    """Numbers of one kind in a file, `width` of them a row."""

    def __init__(self, file: Path, kind: str, width: int = 0) -> None:
        self._file = file
        self._kind = f"<{kind}"
        self._shape = (-1, width) if width else (-1,)
        self._view: Any = None

    def append(self, values: "NDArray[Any]") -> None:
        import numpy as np

        self._view = None
        try:
            with self._file.open("ab") as stream:
                stream.write(np.asarray(values, dtype=self._kind).tobytes())
        except OSError as error:
            raise _unwritable(self._file, error) from error

    @property
    def view(self) -> Any:
        """All that was appended, mapped: an array that is read where it is touched."""
        import numpy as np

        if self._view is None:
            empty = not self._file.stat().st_size  # nothing cannot be mapped
            flat = np.empty(0, self._kind) if empty else np.asarray(np.memmap(self._file, self._kind, mode="r"))
            self._view = flat.reshape(self._shape)
        return self._view


class _Lists:
    """Lists of numbers of one kind, a row each."""

    def __init__(self, file: Path, kind: str) -> None:
        self._values = _Column(file, kind)
        self._ends = _Column(file.with_suffix(".ends"), "u8")
        self._end = 0

    def append(self, values: "NDArray[Any]", lengths: Sequence[int]) -> None:
        import numpy as np

        ends = self._end + np.cumsum(np.array(lengths, dtype=np.uint64))
        self._end = int(ends[-1])
        self._values.append(values)
        self._ends.append(ends)

    def take(self, rows: "NDArray[np.int64]") -> "tuple[NDArray[Any], NDArray[np.int64]]":
        """Return the lists of some rows, one after the other, and how long each is."""
        import numpy as np

        stops = self._ends.view[rows].astype(np.int64)
        starts = np.where(rows > 0, self._ends.view[rows - 1], 0).astype(np.int64)
        sizes = stops - starts
        shifts = np.repeat(starts - np.cumsum(sizes) + sizes, sizes)
        return self._values.view[np.arange(len(shifts)) + shifts], sizes


def _unwritable(path: Path | None, error: OSError) -> Stopped | ConfigError:
    said = f"{path or 'the folder for temporary files'}: could not be written: {error.strerror or error}"
    if error.errno in NO_ROOM:
        return Stopped(f"{said}; free some room and run again")
    return ConfigError(f"{said}; name another scratch folder, or mend the rights")


# --- small sets, in memory


class Overlapping(Generic[Member]):
    """Sets seen before, found again by whatever overlaps them by at least `least` (Jaccard, above 0).

    Whatever overlaps a set A so much lacks at most s = |A| - least |A| of its members: of any s + k members it holds k.
    So only the holders of the s + 1 rarest are compared (the prefix filter of Chaudhuri et al. 2006), and where these
    are many, they must hold more.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._numbers: dict[Member, int] = {}
        self._holders: list[array[int]] = []
        self._sets: list[array[int]] = []

    def add(self, members: AbstractSet[Member]) -> None:
        """Remember a set; its place is the number of those remembered before it."""
        numbers = [self._numbers.setdefault(member, len(self._numbers)) for member in members]
        self._holders.extend(array("I") for _ in range(len(self._numbers) - len(self._holders)))
        for number in numbers:
            self._holders[number].append(len(self._sets))
        self._sets.append(array("I", sorted(numbers)))

    def find(self, members: AbstractSet[Member]) -> Iterator[tuple[int, float]]:
        """Yield place and overlap of each remembered set that overlaps so much, in order of the places."""
        numbers = {self._numbers[member] for member in members if member in self._numbers}
        for place in self._likely(numbers, len(members)):
            other = self._sets[place]
            shared = len(numbers.intersection(other))
            overlap = shared / (len(members) + len(other) - shared)
            if overlap >= self._least:
                yield place, overlap

    def _likely(self, numbers: AbstractSet[int], size: int) -> list[int]:
        """Return the places of all sets that could overlap enough; a member nobody holds is the rarest there is."""
        unheld = size - len(numbers)
        spare = size - ceil(self._least * size - ROUNDING) - unheld
        if spare < 0 or not numbers:
            return []
        holders = sorted((self._holders[number] for number in numbers), key=len)
        asked = spare + 1
        while asked < len(holders) and len(holders[asked]) <= COMPARING_COSTS * sum(map(len, holders[:asked])):
            asked += 1
        hits = Counter(chain.from_iterable(holders[:asked]))
        return sorted(place for place, times in hits.items() if times >= asked - spare)
