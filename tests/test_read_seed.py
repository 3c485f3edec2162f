"""Laws of the row reader and the seed reader."""

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from askback.errors import ConfigError, DataError
from askback.options import SeedOptions
from askback.publish import dataset_row
from askback.readers import rows as row_reader
from askback.readers.rows import Located, read_rows, stream_rows
from askback.readers.seed import FORMATS, read_seed
from askback.records import Pair, Reject, content_id

PAIR = {"instruction": "Explain tides.", "output": "The moon pulls."}


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(folder: Path, content: bytes, name: str = "seed.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def outcomes(path: Path | str, **options: Any) -> list[Pair | Reject]:
    return list(read_seed(SeedOptions(path=str(path), **options)).outcomes)


def reasons(found: list[Pair | Reject]) -> Counter[str]:
    return Counter(item.reason if isinstance(item, Reject) else "pair" for item in found)


def texts(found: list[Pair | Reject]) -> list[tuple[str, str]]:
    return [(item.instruction, item.output) for item in found if isinstance(item, Pair)]


# --- rows


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\xff"}', "bad_utf8"),
        (rb'{"a": "\ud800"}', "bad_utf8"),
        (b'{"a": ', "bad_json"),
        (b'{"a": NaN}', "bad_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'["a"]', "not_an_object"),
    ],
)
def test_a_bad_line_is_a_reject_with_its_reason_and_the_next_row_is_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    bad, good = read_rows(write(tmp_path, line + b'\n{"a": 1}'))
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.source) == (reason, "seed.jsonl:1")
    assert good == Located("seed.jsonl:2", {"a": 1})


def test_an_overlong_line_is_a_reject_and_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "MAX_ROW_BYTES", 20)
    huge = write(tmp_path, b'{"a": "' + b"x" * 200_000 + b'"}\n{"a": "fits"}\n')
    first, second = stream_rows(huge)
    assert isinstance(first, Reject)
    assert first.reason == "row_too_large"
    assert second == Located("seed.jsonl:2", {"a": "fits"})
    assert max(map(len, row_reader.split_lines([huge.read_bytes()]))) == 21


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x0bd\x85e\x1ef"
    line = json.dumps({"text": text}, ensure_ascii=False).encode()
    file = write(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    assert list(read_rows(file)) == [Located(f"seed.jsonl:{n}", {"text": text}) for n in (1, 3)]


def test_lines_are_the_same_however_the_bytes_arrive() -> None:
    content = b"one\n\ntwo\r\nthree"
    for size in range(1, len(content) + 1):
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        assert list(row_reader.split_lines(chunks)) == content.split(b"\n")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "s.jsonl": lambda rows: jsonl(*rows),
    "s.ndjson": lambda rows: jsonl(*rows),
    "s.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "lines.json": lambda rows: jsonl(*rows),
    "s.jsonl.gz": lambda rows: gzip.compress(jsonl(rows[0])) + gzip.compress(jsonl(*rows[1:])),
    "s.jsonl.zst": lambda rows: zstandard.compress(jsonl(rows[0])) + zstandard.compress(jsonl(*rows[1:])),
    "s.JSON.GZ": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "s.csv": lambda rows: b'a,b\r\n"1, ""x""\n2",y\r\n\r\n' + "é,z".encode(),
    "s.tsv.gz": lambda rows: gzip.compress(b'a\tb\n"1, ""x""\n2"\ty\n' + "é\tz".encode()),
    "s.parquet": as_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    rows = [{"a": '1, "x"\n2', "b": "y"}, {"a": "é", "b": "z"}]
    found = list(read_rows(write(tmp_path, WRITERS[name](rows), name)))
    assert [item.row for item in found if isinstance(item, Located)] == rows


def test_a_csv_row_is_named_by_its_first_line_and_a_crooked_one_is_a_reject(tmp_path: Path) -> None:
    file = write(tmp_path, b'a,b\n"x\ny",1\n1,2,3\n"x"y,2\n\xff,2\n5,6\n"open,1\n', "s.csv")
    found = [item.where if isinstance(item, Located) else (item.source, item.reason) for item in read_rows(file)]
    bad = [("s.csv:4", "bad_csv"), ("s.csv:5", "bad_csv"), ("s.csv:6", "bad_utf8"), ("s.csv:8", "bad_csv")]
    assert found == ["s.csv:2", *bad[:3], "s.csv:7", bad[3]]


def test_a_csv_field_may_be_longer_than_the_library_allows_by_itself(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, b"a\n" + b"x" * 200_000, "s.csv"))
    assert isinstance(row, Located)
    assert len(row.row["a"]) == 200_000


def test_a_column_named_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.csv:1: .*twice: a, a"):
        list(read_rows(write(tmp_path, b"a,a\n1,2\n", "s.csv")))


def test_a_parquet_text_that_is_no_utf8_rejects_its_row_alone(tmp_path: Path) -> None:
    texts_ = pa.Array.from_buffers(
        pa.utf8(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")]
    )
    file = tmp_path / "s.parquet"
    pq.write_table(pa.table({"a": texts_}), file)
    bad, good = read_rows(file)
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.source) == ("bad_utf8", "s.parquet:1")
    assert good == Located("s.parquet:2", {"a": "a"})


@pytest.mark.parametrize("name", ["s.jsonl.gz", "s.jsonl.zst", "s.parquet"])
@pytest.mark.parametrize("keep", [0.3, 0.95])
def test_a_cut_off_file_is_named(tmp_path: Path, name: str, keep: float) -> None:
    whole = WRITERS[name]([{"a": f"row {n} {content_id(str(n))}"} for n in range(5000)])
    with pytest.raises(DataError, match=rf"{name}: "):
        list(read_rows(write(tmp_path, whole[: int(len(whole) * keep)], name)))


@pytest.mark.parametrize("name", ["s.jsonl.gz", "s.jsonl.zst", "s.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: "):
        list(read_rows(write(tmp_path, b'{"a": 1}\n', name)))


def test_a_file_without_a_usable_row_is_an_error_that_shows_the_first_bad_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is empty"):
        list(read_rows(write(tmp_path, b"")))
    with pytest.raises(DataError, match=r"no usable row$"):
        list(read_rows(write(tmp_path, b"\n\n")))
    with pytest.raises(DataError, match=r"no usable row; the first is not_an_object at seed\.jsonl:1"):
        list(read_rows(write(tmp_path, b"1\n{\n")))


# --- real seeds


@pytest.mark.parametrize(("name", "rows"), [("guanaco_train_en.jsonl.gz", 3377), ("guanaco_eval_part.jsonl", 237)])
def test_every_guanaco_row_is_accounted_for(shared: Path, name: str, rows: int) -> None:
    reading = read_seed(SeedOptions(path=str(shared / "oasst" / name)))
    found = list(reading.outcomes)
    assert reading.format == "guanaco"
    assert len(found) == rows
    assert reasons(found)["pair"] > 0.97 * rows
    assert not any("### " in item.instruction[:20] for item in found if isinstance(item, Pair))


def test_every_exchange_of_guanaco_is_accounted_for(shared: Path) -> None:
    file = shared / "oasst" / "guanaco_eval_part.jsonl"
    marks = sum(json.loads(line)["text"].count("### Human:") for line in file.read_text("utf-8").splitlines())
    assert len(outcomes(file, turns="all")) == marks


def test_a_tree_gives_its_english_prompt_and_the_reply_ranked_first(shared: Path) -> None:
    file = shared / "oasst" / "trees_validation_en.jsonl"
    found = outcomes(file)
    messages = {row["message_id"]: row for row in map(json.loads, file.read_text("utf-8").splitlines())}
    best = {row["text"].strip() for row in messages.values() if row["rank"] == 0}
    assert len(found) == 89
    assert reasons(found)["pair"] >= 87
    assert sum(output in best for _, output in texts(found)) >= 87
    roots = {row["text"].strip() for row in messages.values() if not row["parent_id"]}
    assert {asked for asked, _ in texts(found)} <= roots


def test_flat_messages_and_nested_trees_give_the_same_pairs(shared: Path, tmp_path: Path) -> None:
    file = shared / "oasst" / "trees_validation_en.jsonl"
    messages = {
        row["message_id"]: {**row, "replies": []} for row in map(json.loads, file.read_text("utf-8").splitlines())
    }
    for row in messages.values():
        if row["parent_id"]:
            messages[row["parent_id"]]["replies"].append(row)
    trees = write(tmp_path, jsonl(*({"prompt": row} for row in messages.values() if not row["parent_id"])))
    assert read_seed(SeedOptions(path=str(trees))).format == "oasst-trees"
    for turns in ("first", "all"):
        assert texts(outcomes(trees, turns=turns)) == texts(outcomes(file, turns=turns))


def test_dolly_puts_the_context_below_the_instruction(shared: Path) -> None:
    found = outcomes(shared / "dolly" / "dolly_part.jsonl.gz")
    assert len(found) == 4588
    assert reasons(found)["pair"] > 4500
    assert any("\n\n" in asked for asked, _ in texts(found))


# --- formats

CHAT = ["Be brief.", "Why tides?", "The moon.", "And the sun?", "Less so."]
BOTH = [("Why tides?", "The moon."), ("And the sun?", "Less so.")]


def chat(column: str, role: str, text: str, names: list[str]) -> dict[str, Any]:
    return {column: [{role: name, text: said} for name, said in zip(names, CHAT, strict=True)]}


def message(name: str, parent: str | None, text: str, rank: object = None, **more: Any) -> dict[str, Any]:
    role = more.pop("role", "assistant" if parent else "prompter")
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, "rank": rank, "lang": "en", **more}


TABLES: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "guanaco": ({"text": "### Human: Why tides?### Assistant: The moon.### Human: And"}, BOTH[0]),
    "alpaca": ({"output": "Chat", "input": "cat", "instruction": "To French:"}, ("To French:\n\ncat", "Chat")),
    "dolly": ({"instruction": "Who?", "context": "", "response": "Ann", "category": "qa"}, ("Who?", "Ann")),
    "messages": (chat("messages", "role", "content", ["system", *["user", "assistant"] * 2]), BOTH[0]),
    "sharegpt": (chat("conversations", "from", "value", ["system", *["human", "gpt"] * 2]), BOTH[0]),
    "prompt-completion": ({"prompt": " Why? ", "completion": " So. "}, ("Why?", "So.")),
    "pairs": ({"instruction": "Why?", "output": "So.", "genre": "myth"}, ("Why?", "So.")),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_format_is_found_by_its_columns_and_read(tmp_path: Path, name: str) -> None:
    row, want = TABLES[name]
    file = write(tmp_path, jsonl(row))
    reading = read_seed(SeedOptions(path=str(file)))
    (pair,) = reading.outcomes
    assert (reading.format, "\n" in reading.explained) == (name, False)
    assert isinstance(pair, Pair)
    assert (pair.instruction, pair.output, pair.source) == (*want, "seed.jsonl:1")
    assert pair.id == content_id(*want)
    assert texts(outcomes(file, format=name)) == [want]


@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_all_turns_give_one_pair_per_exchange_without_what_was_said_before(tmp_path: Path, name: str) -> None:
    found = outcomes(write(tmp_path, jsonl(TABLES[name][0])), turns="all")
    assert texts(found) == BOTH
    assert [item.source for item in found] == ["seed.jsonl:1", "seed.jsonl:1#2"]


def test_the_other_name_of_the_completion_is_known(tmp_path: Path) -> None:
    assert texts(outcomes(write(tmp_path, jsonl({"prompt": "Why?", "response": "So."})))) == [("Why?", "So.")]


def test_genre_and_licence_travel_with_a_pair(tmp_path: Path) -> None:
    (pair,) = outcomes(write(tmp_path, jsonl({**PAIR, "genre": "science", "licence": "CC0-1.0"})))
    assert isinstance(pair, Pair)
    assert (pair.genre, pair.licence, pair.kind) == ("science", "CC0-1.0", "seed")


def test_a_text_is_kept_byte_for_byte_but_for_its_ends(tmp_path: Path) -> None:
    text = "a  b\r\n\tc\u2028d\x00e \N{WAVING HAND SIGN}"
    assert texts(outcomes(write(tmp_path, jsonl({"instruction": f"\n {text}\t", "output": text})))) == [(text, text)]


def test_an_unknown_table_is_refused_with_its_columns_and_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns answer, question fit no format.*guanaco.*pairs"):
        read_seed(SeedOptions(path=str(write(tmp_path, jsonl({"question": "a", "answer": "b"})))))
    with pytest.raises(DataError, match="fit no format"):
        read_seed(SeedOptions(path=str(write(tmp_path, jsonl({"text": "plain prose"})))))


def test_a_table_that_fits_two_formats_is_refused_until_one_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, jsonl({**PAIR, "response": "Gravity."}))
    with pytest.raises(DataError, match=r"more than one format \(dolly, pairs\)"):
        read_seed(SeedOptions(path=str(file)))
    assert texts(outcomes(file, format="dolly")) == [("Explain tides.", "Gravity.")]


def test_the_rows_of_a_finished_data_set_are_read_as_pairs(tmp_path: Path) -> None:
    made = Pair(id="x", instruction="Why tides?", output="The moon.", score=4.5, genre="science", licence="CC0-1.0")
    file = write(tmp_path, jsonl(dataset_row(made)))
    (pair,) = outcomes(file)
    assert isinstance(pair, Pair)
    assert (read_seed(SeedOptions(path=str(file))).format, pair.genre, pair.licence) == ("pairs", "science", "CC0-1.0")
    assert texts([pair]) == texts(outcomes(file, format="messages")) == [("Why tides?", "The moon.")]


def test_a_format_nobody_knows_or_no_row_has_is_refused(tmp_path: Path) -> None:
    file = str(write(tmp_path, jsonl(PAIR)))
    with pytest.raises(ConfigError, match="no format 'csv'; known are auto, guanaco"):
        read_seed(SeedOptions(path=file, format="csv"))
    with pytest.raises(DataError, match="do not fit the format 'messages'"):
        read_seed(SeedOptions(path=file, format="messages"))


# --- rejects


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": " ", "output": "o"}, "empty_instruction"),
        ({"instruction": "i", "output": "\n"}, "empty_output"),
        ({"instruction": "i", "output": None}, "empty_output"),
        ({"instruction": ["i"], "output": "o"}, "wrong_type"),
        ({"instruction": "i", "output": 7}, "wrong_type"),
        ({"instruction": "i", "output": "o", "lang": "de"}, "other_language"),
        ({"instruction": "i"}, "missing_column"),
        (PAIR, "duplicate"),
    ],
)
def test_a_row_that_is_no_pair_is_a_reject_with_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    found = outcomes(write(tmp_path, jsonl(PAIR, {**PAIR, "output": "More."}, row)))
    assert reasons(found) == {"pair": 2, reason: 1}
    assert found[2].source == "seed.jsonl:3"


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", "Hello?")], "no_assistant_turn"),
        ([("user", "Sum?"), ("tool", "3"), ("assistant", "3")], "no_assistant_turn"),
        ([("system", "Be brief."), ("assistant", "Yes.")], "no_human_turn"),
        ([], "no_human_turn"),
        ([("user", None), ("assistant", "Yes.")], "empty_instruction"),
    ],
)
def test_a_conversation_without_an_exchange_is_a_reject(
    tmp_path: Path, turns: list[tuple[str, str]], reason: str
) -> None:
    bad = {"messages": [{"role": role, "content": text} for role, text in turns]}
    good, other = TABLES["messages"][0], {"messages": "not a list"}
    assert reasons(outcomes(write(tmp_path, jsonl(good, bad, other)), format="messages")) == {
        "pair": 1,
        reason: 1,
        "wrong_type": 1,
    }


def test_a_language_keeps_its_regions_and_empty_keeps_all(tmp_path: Path) -> None:
    rows = [{"instruction": lang, "output": "o", "lang": lang} for lang in ("en", "en-GB", "pt_BR", "enm")]
    file = write(tmp_path, jsonl(*rows))
    assert [asked for asked, _ in texts(outcomes(file))] == ["en", "en-GB"]
    assert [asked for asked, _ in texts(outcomes(file, language="pt-BR"))] == ["pt_BR"]
    assert len(texts(outcomes(file, language=""))) == 4


TREES = [
    ([message("a", None, "q"), message("b", "a", "no", 1), message("c", "a", "yes", 0)], "pair"),
    ([message("c", "a", "yes", "0"), message("a", None, "q")], "pair"),
    ([message("a", None, "q"), message("b", "a", "only")], "pair"),
    ([message("a", None, "q"), message("b", "a", "x", deleted=True), message("c", "a", "left")], "pair"),
    ([message("a", None, "q"), message("b", "a", "x"), message("c", "a", "y")], "no_best_reply"),
    ([message("a", None, "q"), message("b", "a", "x", 1)], "no_best_reply"),
    ([message("a", None, "q"), message("b", "a", "x", 0, deleted=True)], "no_assistant_turn"),
    ([message("a", None, "q", deleted=True), message("b", "a", "x", 0)], "deleted"),
    ([message("a", None, "q", lang="es"), message("b", "a", "x", 0)], "other_language"),
    ([message("a", None, "q"), message("b", "a", "x", 0, lang="es")], "other_language"),
    ([message("b", "gone", "x", 0)], "no_prompt"),
]


@pytest.mark.parametrize(("messages", "reason"), TREES)
def test_a_tree_has_one_outcome(tmp_path: Path, messages: list[dict[str, Any]], reason: str) -> None:
    assert reasons(outcomes(write(tmp_path, jsonl(*messages)))) == {reason: 1}


def test_no_message_vanishes_in_a_circle_or_under_a_taken_name(tmp_path: Path) -> None:
    circle = [message("a", "b", "x"), message("b", "a", "y"), message("b", None, "z"), message("", None, "w")]
    found = outcomes(write(tmp_path, jsonl(*circle, {**message("", None, "v"), "message_id": 3})))
    assert reasons(found) == {"no_prompt": 2, "duplicate_message": 1, "wrong_type": 2}


def test_a_tree_deeper_than_the_stack_is_read(tmp_path: Path) -> None:
    deep = [
        message(str(n), str(n - 1) if n else None, f"t{n}", 0, role=("prompter", "assistant")[n % 2])
        for n in range(3000)
    ]
    assert reasons(outcomes(write(tmp_path, jsonl(*deep)), turns="all")) == {"pair": 1500}


# --- limit and places


def test_the_limit_keeps_the_same_pairs_in_any_order(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {n}?", "output": "Yes."} for n in range(40)]
    forth = outcomes(write(tmp_path, jsonl(*rows)), limit=7)
    back = outcomes(write(tmp_path, jsonl(*rows[::-1])), limit=7)
    assert reasons(forth) == {"pair": 7, "over_limit": 33}
    assert texts(forth) == texts(back)
    smallest = sorted(content_id(row["instruction"], row["output"]) for row in rows)[:7]
    assert [item.id for item in forth if isinstance(item, Pair)] == smallest


def test_a_folder_is_read_in_the_order_of_its_row_files(tmp_path: Path) -> None:
    write(tmp_path, jsonl({"instruction": "2", "output": "o"}), "b.jsonl")
    write(tmp_path, gzip.compress(jsonl({"instruction": "1", "output": "o"})), "a.jsonl.gz")
    write(tmp_path, b"notes", "README.md")
    assert [item.source for item in outcomes(tmp_path)] == ["a.jsonl.gz:1", "b.jsonl:1"]


def test_a_place_without_rows_says_so(tmp_path: Path) -> None:
    write(tmp_path, b"notes", "README.md")
    with pytest.raises(DataError, match=r"no row file in the folder \(found: README\.md\)"):
        read_seed(SeedOptions(path=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"seed\.path is empty"):
        read_seed(SeedOptions())
    with pytest.raises(ConfigError, match=r"seed\.path 'data/seed\.jsonl': no such file; .*--seed.*hub"):
        read_seed(SeedOptions(path="data/seed.jsonl"))
    with pytest.raises(ConfigError, match=r"is neither on disk nor a data set .*hf auth login"):
        read_seed(SeedOptions(path=str(tmp_path / "none")))


def test_a_hub_name_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, **how: Any) -> list[dict[str, Any]]:
        asked.append((name, how))
        return [PAIR]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [item.source for item in outcomes("owner/name")] == ["owner/name:1"]
    assert asked == [("owner/name", {"split": "train", "streaming": True})]


def test_a_hub_failure_is_one_sentence_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, **how: Any) -> Iterator[dict[str, Any]]:
        raise RuntimeError("gated\nrepo")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(ConfigError, match=r"RuntimeError: gated repo.*local file.*name.*hf auth login.*network"):
        read_seed(SeedOptions(path="owner/name"))


def test_every_format_has_a_table_here() -> None:
    assert set(FORMATS) == {*TABLES, "oasst", "oasst-trees"}
