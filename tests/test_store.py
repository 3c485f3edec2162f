"""Laws of the store: a file is whole or absent, every row is counted, one process holds a run."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from askback import store
from askback.errors import ConfigError, IntegrityError, RunInUse
from askback.records import Judgement, Pair, Reject
from askback.store import Step, open_run, write_aside, write_folder, write_json, write_rows

STRANGE = 'line\u2028paragraph\u2029next\u0085tab\tnul\x00bell\x07 quote" back\\slash\r\nünï 漢字 😀 \ufeff end'


def pair(name: str, text: str = "An output.") -> Pair:
    return Pair(id=name, instruction=f"Explain {name}.", output=text)


def step(folder: Path, name: str = "05-candidates", **depends: object) -> Step[Pair]:
    return Step(folder / name, Pair, depends or {"options": {"n": 1}})


def in_python(code: str, *args: object) -> "subprocess.Popen[str]":
    """Start a program in an interpreter of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- files are whole or absent


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with write_aside(tmp_path / "a.txt") as file:
            file.write(b"new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_a_write_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    with write_aside(tmp_path / "deep" / "a.txt") as file:
        file.write(b"new")
        assert not (tmp_path / "deep" / "a.txt").exists()
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"new"


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert store.read_json(tmp_path / "a.json") == {"loss": 1.5}


def test_equal_values_are_equal_bytes_whatever_their_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [STRANGE]})
    write_json(tmp_path / "b", {"y": [STRANGE], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("old"))

    def fail(folder: Path) -> None:
        (folder / "weights").write_text("new")
        raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        write_folder(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_folder(tmp_path / "model", lambda folder, name=name: (folder / name).write_text(name))
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["model", "model/second"]


def test_a_folder_cannot_take_the_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ConfigError, match="model: could not be written"):
        write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("new"))
    assert (tmp_path / "model").read_text() == "mine"


# --- rows


def test_strange_characters_come_back_from_parquet_as_they_went(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    made.write_part(0, [pair("a", STRANGE), pair("b", "")])
    assert list(made.read()) == [pair("a", STRANGE), pair("b", "")]


def test_strange_characters_stay_on_one_line_of_jsonl(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "a.jsonl", [{"text": STRANGE}, {"text": "plain"}]) == 2
    lines = (tmp_path / "a.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line)["text"] for line in lines[:2]] == [STRANGE, "plain"]
    assert lines[2:] == [""]


def test_a_ledger_with_strange_characters_is_read_row_by_row(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    made.write_part(0, [Reject("a", "empty", STRANGE), Reject("b", "empty")])
    made.finish({})
    assert [row["detail"] for row in made.rejects()] == [STRANGE, ""]


def test_a_missing_score_and_an_empty_distribution_come_back(tmp_path: Path) -> None:
    rows = [
        Judgement(pair="a", round=1, judge="expected", score=None, outcome="too_long"),
        Judgement(pair="b", round=1, judge="expected", score=4.25, distribution=(0.25, 0.75)),
    ]
    made = Step(tmp_path / "07-judged-1", Judgement, {})
    made.begin()
    made.write_part(0, rows)
    assert list(made.read()) == rows


# --- steps


def finished(folder: Path, **depends: object) -> Step[Pair]:
    made = step(folder, **depends)
    made.begin()
    made.write_part(0, [pair("a"), Reject("b", "empty"), Reject("c", "cut_off")])
    made.write_part(1, [Reject("d", "empty"), pair("e")])
    made.finish({"seconds": 1.0})
    return made


def test_read_is_written_plus_rejected_with_every_reason_counted(tmp_path: Path) -> None:
    manifest = finished(tmp_path).manifest
    assert manifest is not None
    assert (manifest.read, manifest.written, manifest.rejected) == (5, 2, 3)
    assert manifest.reasons == {"cut_off": 1, "empty": 2}


def test_a_part_carries_its_own_counts(tmp_path: Path) -> None:
    made = finished(tmp_path)
    assert store.part_counts(made.part(0)) == {"read": 3, "written": 1, "reason:cut_off": 1, "reason:empty": 1}


def test_a_part_that_lost_a_row_is_refused(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    with pytest.raises(AssertionError, match="read 2 rows, wrote or rejected 1"):
        made.write_part(0, [pair("a")], read=2)
    assert made.parts() == []


def test_counts_that_do_not_add_up_end_no_step(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    with pytest.raises(AssertionError, match="do not add up"):
        made.finish({}, counts={"read": 3, "written": 1, "reason:empty": 1})
    assert not made.is_done


def test_the_manifest_names_every_file_with_its_hash(tmp_path: Path) -> None:
    made = finished(tmp_path)
    assert made.manifest is not None
    assert made.manifest.files == {
        name: store.file_hash(made.folder / name)
        for name in ("part-00000.parquet", "part-00001.parquet", "rejected.jsonl")
    }


def test_the_joined_ledger_replaces_those_of_the_parts(tmp_path: Path) -> None:
    made = finished(tmp_path)
    assert [row["id"] for row in made.rejects()] == ["b", "c", "d"]
    assert list(made.folder.glob("rejected-*")) == []


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    made.write_part(0, [pair("kept")])
    shown: list[int] = []

    def work(blocks: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, Iterator[Pair]]]:
        for number, rows in blocks:
            assert rows == ["c"]
            yield number, map(pair, rows)

    store.map_step(made, "abc", work, shard_rows=2, advance=shown.append)
    assert [row.id for row in made.read()] == ["kept", "c"]
    assert shown == [2, 1]


def test_shards_may_come_back_in_any_order_but_must_come_back(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()

    def backwards(blocks: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[Pair]]]:
        yield from reversed([(number, [*map(pair, rows)]) for number, rows in blocks])

    store.map_step(made, "abcde", backwards, shard_rows=2, advance=lambda count: None)
    assert [row.id for row in made.read()] == [*"abcde"]

    def forgetful(blocks: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[Pair]]]:
        yield from ((number, [*map(pair, rows)]) for number, rows in list(blocks)[1:])

    other = step(tmp_path, options={"n": 3})
    other.begin()
    with pytest.raises(AssertionError, match=r"shards \[0\] were given out and never came back"):
        store.map_step(other, "abcde", forgetful, shard_rows=2, advance=lambda count: None)


def test_the_hundred_thousandth_part_is_the_last(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    for number in (100_000, 99_999, 3):
        made.write_part(number, [pair(str(number)), Reject(f"r{number}", "why")])
    assert [row.id for row in made.read()] == ["3", "99999", "100000"]
    made.finish({})
    assert [row["id"] for row in made.rejects()] == ["r3", "r99999", "r100000"]


def test_shards_keep_order_and_lose_nothing() -> None:
    assert list(store.shards("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(store.shards("", 2)) == []


# --- what a step depends on


def test_a_changed_option_changes_the_fingerprint(tmp_path: Path) -> None:
    same = [step(tmp_path, options={"n": 1, "top_p": 0.9}), step(tmp_path, options={"top_p": 0.9, "n": 1})]
    other = [
        step(tmp_path, options={"n": 2, "top_p": 0.9}),
        step(tmp_path, name="06-kept", options={"n": 1, "top_p": 0.9}),
    ]
    assert len({made.fingerprint for made in same}) == 1
    assert len({made.fingerprint for made in same + other}) == 3


def test_a_change_is_named_with_key_and_both_values(tmp_path: Path) -> None:
    finished(tmp_path, options={"n": 1, "layout": "asked"}, seed=0)
    now = step(tmp_path, options={"n": 3, "layout": "asked"}, seed=0, rubric="mine.txt")
    assert now.changed() == ["options.n: 1 -> 3", 'rubric: null -> "mine.txt"']
    assert not now.is_done


def test_nothing_changed_says_nothing(tmp_path: Path) -> None:
    assert step(tmp_path, options={"n": 1}).changed() == []
    finished(tmp_path, options={"targets": ("q", "v")})
    assert step(tmp_path, options={"targets": ("q", "v")}).changed() == []


def test_a_step_begun_with_other_options_keeps_none_of_its_parts(tmp_path: Path) -> None:
    finished(tmp_path, options={"n": 1})
    now = step(tmp_path, options={"n": 2})
    now.begin()
    assert [path.name for path in now.folder.iterdir()] == ["started.json"]


def test_a_step_begun_again_keeps_its_parts(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    made.write_part(0, [pair("a")])
    made.begin()
    assert made.parts() == [made.part(0)]


# --- damage


@pytest.mark.parametrize("harm", [b"", b"not parquet at all", b"PAR1PAR1"])
def test_a_damaged_part_is_named(tmp_path: Path, harm: bytes) -> None:
    made = finished(tmp_path)
    made.part(1).write_bytes(harm)
    for read in (made.check_files, lambda: list(made.read()), lambda: store.part_counts(made.part(1))):
        with pytest.raises(IntegrityError, match=r"part-00001\.parquet: damaged.*delete its folder and run again"):
            read()


def test_no_flipped_bit_passes_for_what_was_written(tmp_path: Path) -> None:
    made = finished(tmp_path)
    made.check_files()
    whole = made.part(0).read_bytes()
    for at in range(0, len(whole), 97):
        made.part(0).write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(IntegrityError, match=r"part-00000\.parquet"):
            made.check_files()


def test_a_part_of_another_record_is_named(tmp_path: Path) -> None:
    made = finished(tmp_path)
    with pytest.raises(IntegrityError, match=r"part-00000\.parquet"):
        list(store.read_part(made.part(0), Judgement))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    made = finished(tmp_path)
    (made.folder / "manifest.json").write_bytes(b'{"step": "\xff')
    with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
        assert made.is_done


# --- one process at a time

HOLD = """
    import sys, time
    from pathlib import Path
    from askback.store import open_run
    with open_run(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the run folder `tmp_path/run`."""
    with in_python(HOLD, tmp_path / "run") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_run_is_refused_with_the_holder_named(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    with (
        pytest.raises(RunInUse, match=rf"run is in use by process {holder.pid} on ") as refused,
        open_run(tmp_path / "run"),
    ):
        raise AssertionError("two processes hold one run")
    assert refused.value.exit_code == 4


def test_a_killed_holder_leaves_the_run_free(holder: "subprocess.Popen[str]", tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with open_run(tmp_path / "run") as held:
        assert (held.folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    for _ in range(2):
        with open_run(tmp_path / "run") as held:
            assert held.folder.is_dir()


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / ".lock").touch()
    before = {path.name for path in tmp_path.rglob("*")}
    (tmp_path / "05-candidates" / ".part-00002.parquet.123.part").write_bytes(b"half")
    (tmp_path / ".model.part" / ".weights.7.part").mkdir(parents=True)
    (tmp_path / "05-candidates" / "rejected-00001.jsonl").write_bytes(b"joined already")
    with open_run(tmp_path):
        assert {path.name for path in tmp_path.rglob("*")} == before | {".lock"}


def test_ledgers_of_an_unfinished_step_are_not_swept(tmp_path: Path) -> None:
    made = step(tmp_path)
    made.begin()
    made.write_part(0, [pair("a"), Reject("b", "empty")])
    (tmp_path / ".lock").touch()
    with open_run(tmp_path):
        assert made.finish({}).rejected == 1
    assert [row["id"] for row in made.rejects()] == ["b"]


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with (
        pytest.raises(ConfigError, match="run is there already and not of askback's making"),
        open_run(tmp_path / "run"),
    ):
        raise AssertionError("a file was opened as a run")


def test_a_folder_of_somebody_elses_files_is_no_run_folder_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="give another folder with --out"), open_run(tmp_path):
        raise AssertionError("somebody's folder was opened as a run")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


# --- no room left

CROWDED = """
    import resource, sys
    from pathlib import Path
    from askback.errors import Stopped
    from askback.records import Pair
    from askback.store import Step, write_aside, write_folder, write_json
    folder = Path(sys.argv[1])
    made = Step(folder / "05-candidates", Pair, {"n": 1})
    made.begin()
    made.write_part(0, [Pair(id="a", instruction="i", output="o")])
    write_json(folder / "metrics.json", {"old": True})
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    big = [Pair(id=str(n), instruction="i", output=str(hash(str(n))) * 3) for n in range(9000)]
    refused = []
    for write in (
        lambda: made.write_part(1, big),
        lambda: write_json(folder / "metrics.json", {"new": "x" * 100_000}),
        lambda: write_folder(folder / "model", lambda aside: (aside / "weights").write_bytes(bytes(100_000))),
    ):
        try:
            write()
        except Stopped as error:
            refused.append(f"{error.exit_code} {error}")
    print("\\n".join(refused))
"""


def test_without_room_the_work_stops_with_5_and_what_was_there_stays(tmp_path: Path) -> None:
    with in_python(CROWDED, tmp_path) as process:
        said, errors = process.communicate(timeout=60)
    assert not process.returncode, errors
    for line, name in zip(said.splitlines(), ("part-00001.parquet", "metrics.json", "model"), strict=True):
        assert line.startswith(f"5 {tmp_path}")
        assert f"{name}: could not be written" in line
        assert "File too large" in line
        assert "free some room and run again" in line
    made = step(tmp_path, n=1)
    assert [row.id for row in made.read()] == ["a"]
    assert store.read_json(tmp_path / "metrics.json") == {"old": True}
    assert list(tmp_path.rglob(".*.part")) == []
