"""Laws of a survey: a small corpus is known exactly, a large one about, whatever it is packed in."""

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from askback.errors import ConfigError
from askback.options import CorpusOptions
from askback.readers import survey
from askback.readers.survey import Survey

WORDS = "anchor bramble cobalt compass dolphin ember falcon glacier granite harbour".split()
COUNT = 1200


@cache
def texts(count: int) -> list[str]:
    random = Random(3)
    return [f"{' '.join(WORDS)} {random.randbytes(random.randint(500, 9000)).hex()}" for _ in range(count)]


def lines(count: int) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts(count)).encode()


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"text": text} for text in texts(COUNT)]), path)


def write_folder(path: Path) -> None:
    path.mkdir()
    for number, text in enumerate(texts(COUNT // 2)):
        (path / f"{number}.txt").write_text(text, encoding="utf-8")


PACKED: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_bytes(lines(COUNT)),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines(COUNT), 1)),
    "rows.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(lines(COUNT))),
    "rows.parquet": write_parquet,
    "folder": write_folder,
}


def count_of(found: Survey) -> float:
    assert found.bytes_in_all
    return found.bytes_in_all * len(found.documents) / sum(found.bytes_read)


def look(path: Path, most: int = 200, **options: int) -> Survey:
    return survey.survey(CorpusOptions(path=str(path), **options), most)


@pytest.mark.parametrize("name", PACKED)
def test_the_number_of_documents_is_told_about_from_a_few(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SMALL_BYTES", 10_000)
    PACKED[name](tmp_path / name)
    found = look(tmp_path / name)
    assert not found.is_whole
    assert len(found.documents) <= 400
    assert count_of(found) == pytest.approx(COUNT // 2 if name == "folder" else COUNT, rel=0.25)


def test_a_small_corpus_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(30))
    found = look(tmp_path / "rows.jsonl", most=30)
    assert found.is_whole
    assert count_of(found) == pytest.approx(30)


def test_no_more_documents_are_expected_than_a_run_would_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(COUNT))
    assert count_of(look(tmp_path / "rows.jsonl", limit=1000)) == pytest.approx(1000)
    assert len(look(tmp_path / "rows.jsonl", limit=40).documents) == 40


def test_a_file_that_holds_next_to_no_document_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines(5) + b'{"other": 1}\n' * 100_000)
    found = look(tmp_path / "rows.jsonl")
    assert not found.is_whole
    assert len(found.documents) == 5


def test_bytes_of_files_without_a_document_count(tmp_path: Path) -> None:
    for number, text in enumerate(texts(250)):
        (tmp_path / f"{number}.txt").write_text(text)
        (tmp_path / f"{number}.xyz").write_text("x" * len(text))
    found = look(tmp_path)
    assert len(found.bytes_read) > len(found.documents)


def test_a_corpus_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        look(tmp_path / "nowhere.jsonl")
