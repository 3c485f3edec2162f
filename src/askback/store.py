"""All durability lives here: run folder, lock, steps, shards, manifests, resume.

Takes: records and JSON.  Gives: files that are only ever whole.
Never: knows what a step means, or counts a row twice.

A file is written aside, synced, renamed over its name, and the folder synced. A shard is a Parquet part whose
presence means it is done; its counts stand in its own metadata. A step is done when its manifest is there, and
the manifest's fingerprint covers the step's options, inputs and code version. Nothing written here depends on the
clock except the `cost` of a manifest.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, get_type_hints

from askback.errors import ConfigError, IntegrityError, RunInUse, Stopped
from askback.records import Reject

MANIFEST = "manifest.json"
STARTED = "started.json"
REJECTED = "rejected.jsonl"
R = TypeVar("R")


# --- files that are only ever whole


@contextmanager
def write_aside(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing; it takes the name only when it is whole and on the disk.

    Raises:
        Stopped: the disk is full or not writable; what was there before stays as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    with write_aside(path) as file:
        file.write(text.encode("utf-8", errors="strict"))


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file with sorted keys, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file this package wrote.

    Raises:
        IntegrityError: it is not JSON any more.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged: {error}; delete its folder and run again") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole JSONL file; return the number of rows."""
    count = 0
    with write_aside(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            count += 1
    return count


def write_folder(path: Path, fill: Callable[[Path], R]) -> R:
    """Let `fill` write a folder aside, then give it its name in one rename; return what `fill` returned."""
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        result = fill(aside)
        for file in sorted(aside.rglob("*")):
            _sync(file)
        drop_folder(path)
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return result


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to put a folder where something else already is: only a folder with our marker may be replaced.

    Raises:
        ConfigError: the path holds files that askback did not write.
    """
    there = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if there and not (path / marker).exists():
        raise ConfigError(f"{path} is there already and not of askback's making; give another folder with --out")


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _unwritable(path: Path, error: OSError) -> Stopped | ConfigError:
    why = error.strerror or str(error)
    if error.errno in NO_ROOM:
        return Stopped(f"{path}: could not be written: {why}; free some room and run again")
    return ConfigError(f"{path}: could not be written: {why}; give another place, or mend the rights")


def drop_folder(path: Path) -> None:
    """Remove a folder, if it is there, in one rename: a kill leaves it whole or gone, never with files missing."""
    if path.is_dir():
        aside = path.with_name(f".{path.name}.old.part")
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        shutil.rmtree(aside)


def sync_folder(path: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Return 16 hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --- Parquet parts


def arrow_schema(record: type) -> Any:
    """Return the Arrow schema of a record class: strings, integers, floats and lists of floats only."""
    import pyarrow as pa

    kinds = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        float | None: pa.float64(),
        tuple[float, ...]: pa.list_(pa.float64()),
    }
    hints = get_type_hints(record)
    return pa.schema([(field.name, kinds[hints[field.name]]) for field in fields(record)])


def write_part(path: Path, record: type, rows: list[Any], counts: Mapping[str, int]) -> None:
    """Write one whole Parquet part (zstd) with its counts in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(record).with_metadata({"askback": json.dumps(dict(counts), sort_keys=True)})
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    with write_aside(path) as file:
        pq.write_table(table, file, compression="zstd")


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a whole Parquet file of plain rows, its columns found from the values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with write_aside(path) as file:
        pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")


def read_part(path: Path, record: type[R]) -> Iterator[R]:
    """Yield the records of one part.

    Raises:
        IntegrityError: the part is damaged or holds other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    hints = get_type_hints(record)
    lists = {name for name, hint in hints.items() if hint == tuple[float, ...]}
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield record(**row | {name: tuple(row[name]) for name in lists})
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: damaged: {error}; delete its folder and run again") from error


def part_counts(path: Path) -> dict[str, int]:
    """Return the counts a part carries in its metadata.

    Raises:
        IntegrityError: the part is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(json.loads(pq.read_schema(path).metadata[b"askback"]))
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: damaged: {error}; delete its folder and run again") from error


# --- steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a finished step did: read = written + rejected, and what it depended on."""

    step: str
    fingerprint: str
    read: int
    written: int
    rejected: int
    reasons: dict[str, int]
    files: dict[str, str]
    """File name -> sha256."""
    notes: dict[str, Any]
    cost: dict[str, float]
    """What it took: seconds, and energy where it was measured. The only part that differs between two runs."""


class Step(Generic[R]):
    """One folder of a run, holding the parts of one record class."""

    def __init__(self, folder: Path, record: type[R], depends: Mapping[str, Any]) -> None:
        self.folder = folder
        self.record = record
        self.depends = dict(depends)
        self.fingerprint = fingerprint({"step": folder.name, **self.depends})

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of a finished step, or None while it is not finished."""
        path = self.folder / MANIFEST
        return Manifest(**read_json(path)) if path.exists() else None

    @property
    def is_done(self) -> bool:
        """Whether the step is finished with just these options and inputs."""
        done = self.manifest
        return done is not None and done.fingerprint == self.fingerprint

    def changed(self) -> list[str]:
        """Return what differs from the step as it was last begun here: empty when nothing, or nothing is here."""
        started = self.folder / STARTED
        if not started.exists():
            return []
        before = read_json(started)
        if fingerprint({"step": self.folder.name, **before}) == self.fingerprint:
            return []
        return sorted(_differences(before, json.loads(json.dumps(self.depends, default=str))))

    def begin(self) -> None:
        """Make the folder ready: keep finished parts of the same step, drop those of another."""
        if self.folder.exists() and (self.changed() or not (self.folder / STARTED).exists()):
            drop_folder(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / STARTED).exists():
            write_json(self.folder / STARTED, self.depends)

    def check_files(self) -> None:
        """Hold the files of a finished step against its manifest.

        Raises:
            IntegrityError: one is gone, or is not what was written.
        """
        for name, written in (self.manifest.files if self.manifest else {}).items():
            path = self.folder / name
            if not path.exists() or file_hash(path) != written:
                what = "damaged: not what its manifest says" if path.exists() else "gone"
                raise IntegrityError(f"{path}: {what}; delete its folder and run again")

    def part(self, index: int) -> Path:
        """Return the path of a part."""
        return self.folder / f"part-{index:05d}.parquet"

    def rejects_of(self, index: int) -> Path:
        """Return the path of the rejects of a part, while the step is being done."""
        return self.folder / f"rejected-{index:05d}.jsonl"

    def parts(self) -> list[Path]:
        """Return the finished parts in order."""
        return sorted(self.folder.glob("part-*.parquet"), key=by_number)

    def write_part(
        self, index: int, outcomes: Iterable[R | Reject], read: int | None = None, *, into: Path | None = None
    ) -> None:
        """Write one part and its rejects, here or into another folder; the part's own name is what commits both."""
        rows: list[R] = []
        rejects: list[Reject] = []
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                rejects.append(outcome)
            else:
                rows.append(outcome)
        seen = len(rows) + len(rejects)
        if read is not None and read != seen:
            raise AssertionError(f"{self.folder.name} part {index}: read {read} rows, wrote or rejected {seen}")
        reasons = Counter(reject.reason for reject in rejects)
        counts = {"read": seen, "written": len(rows), **{f"reason:{name}": n for name, n in reasons.items()}}
        folder = into or self.folder
        write_rows(folder / self.rejects_of(index).name, (_reject_row(self.folder.name, r) for r in rejects))
        write_part(folder / self.part(index).name, self.record, rows, counts)

    def read(self) -> Iterator[R]:
        """Yield the records of all parts in order."""
        for path in self.parts():
            yield from read_part(path, self.record)

    def rejects(self) -> Iterator[dict[str, str]]:
        """Yield the rows that did not pass, from the finished step."""
        path = self.folder / REJECTED
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)

    def reject(self, rejects: Iterable[Reject]) -> Counter[str]:
        """Write the ledger of a step that has no parts; return the count of each reason."""
        rejects = list(rejects)
        write_rows(self.rejects_of(0), (_reject_row(self.folder.name, r) for r in rejects))
        return Counter(reject.reason for reject in rejects)

    def finish(
        self,
        cost: Mapping[str, float],
        *,
        counts: Mapping[str, int] | None = None,
        notes: Mapping[str, Any] | None = None,
        files: Iterable[Path] = (),
    ) -> Manifest:
        """Join the rejects, add up the counts (of the parts, unless given), write the manifest that ends the step."""
        total = Counter(counts) if counts is not None else self._count_parts()
        reasons = {name.removeprefix("reason:"): n for name, n in sorted(total.items()) if name.startswith("reason:")}
        ledgers = sorted(self.folder.glob("rejected-*.jsonl"), key=by_number)
        with write_aside(self.folder / REJECTED) as joined:
            for ledger in ledgers:
                joined.write(ledger.read_bytes())
        named = [*self.parts(), self.folder / REJECTED, *files]
        manifest = Manifest(
            step=self.folder.name,
            fingerprint=self.fingerprint,
            read=total["read"],
            written=total["written"],
            rejected=sum(reasons.values()),
            reasons=reasons,
            files={str(path.relative_to(self.folder)): file_hash(path) for path in named},
            notes=dict(notes or {}),
            cost=dict(cost),
        )
        if manifest.read != manifest.written + manifest.rejected:
            raise AssertionError(f"{self.folder.name}: the counts do not add up: {manifest}")
        write_json(self.folder / MANIFEST, asdict(manifest))
        for ledger in ledgers:
            ledger.unlink()
        return manifest

    def _count_parts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for path in self.parts():
            total.update(part_counts(path))
        return total


def by_number(file: Path) -> tuple[int, str]:
    """Return what sorts numbered files: part-100000 comes after part-99999."""
    return len(file.name), file.name


def _reject_row(stage: str, reject: Reject) -> dict[str, str]:
    return {"stage": stage, **asdict(reject), "detail": reject.detail[:200]}


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path}: {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# --- the run


class Run:
    """A run folder held by this process alone; made by `open_run`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self, name: str, record: type[R], depends: Mapping[str, Any]) -> Step[R]:
        """Return the step of that name with what it depends on."""
        return Step(self.folder / name, record, depends)


@contextmanager
def open_run(folder: Path) -> Iterator[Run]:
    """Hold the lock of a run folder; it is made if it is not there.

    Raises:
        RunInUse: another process holds it; the message names the process.
        ConfigError: no folder can be made or written to there.
    """
    with _open_lock(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise RunInUse(f"{folder} is in use by {lock.read().strip() or 'another process'}") from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {os.uname().nodename}")
        lock.flush()
        for left in _unfinished(folder):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for ledger in folder.glob("*/rejected-*.jsonl"):  # joined already, if the step has its manifest
            if (ledger.parent / MANIFEST).exists():
                ledger.unlink()
        yield Run(folder)


def _unfinished(folder: Path) -> list[Path]:
    """Return what a killed process left half written, in the places where a run writes and nowhere else."""
    places = [folder, folder / "dataset", folder / "models", *folder.glob("[0-9][0-9]-*")]
    return [left for place in places for left in place.glob(".*.part")]


def _open_lock(folder: Path) -> IO[str]:
    check_replaceable(folder, ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("a+")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be a run folder: {error.strerror}; give another one with --out") from error


def shards(records: Iterable[R], size: int) -> Iterator[list[R]]:
    """Cut a stream into lists of `size`."""
    block: list[R] = []
    for record in records:
        block.append(record)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def write_step(step: Step[R], outcomes: Iterable[R | Reject], *, shard_rows: int) -> None:
    """Write all outcomes of a step as parts; parts that are there already are kept as they are."""
    for index, block in enumerate(shards(outcomes, shard_rows)):
        if not step.part(index).exists():
            step.write_part(index, block)


def map_step(
    step: Step[R],
    rows: Iterable[Any],
    work: Callable[[Iterator[tuple[int, list[Any]]]], Iterable[tuple[int, Iterable[R | Reject]]]],
    *,
    shard_rows: int,
    advance: Callable[[int], None],
    wanted: Callable[[int], bool] | None = None,
    put: Callable[[int, Iterable[R | Reject]], None] | None = None,
) -> None:
    """Write one part for each shard of the input; a shard whose part is there is not worked on again.

    `work` is given the missing shards by number and yields what became of each, in any order. `wanted` picks among
    the shards in another way, and `put` writes a shard elsewhere.
    """
    sizes: dict[int, int] = {}
    is_wanted = wanted or (lambda index: not step.part(index).exists())

    def missing() -> Iterator[tuple[int, list[Any]]]:
        for index, block in enumerate(shards(rows, shard_rows)):
            if is_wanted(index):
                sizes[index] = len(block)
                yield index, block
            else:
                advance(len(block))

    for index, outcomes in work(missing()):
        (put or step.write_part)(index, outcomes)
        advance(sizes.pop(index))
    if sizes:
        raise AssertionError(f"{step.folder.name}: shards {sorted(sizes)} were given out and never came back")
