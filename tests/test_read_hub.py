"""Laws of reading from the hub, asked of a small hub on this machine: rows are streamed, and what fails has a name."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from askback.errors import MissingExtra
from askback.options import CorpusOptions
from askback.readers.documents import read_documents
from askback.readers.hub import names_data_set, stream_data_set

COMMIT = "c0ffee" * 6 + "c0ff"
NOT_THERE = -1
"""Stands for the bytes of a file that is listed and cannot be fetched."""


def rows(*texts: str, **more: object) -> bytes:
    return b"".join(json.dumps({"text": text, **more}).encode() + b"\n" for text in texts)


TWO_FILES = [f"first file, row {n} " + "x" * 200 for n in range(200)], ["second file, row 0", "second file, row 1"]
TWO_CONFIGURATIONS = (
    b"---\nconfigs:\n- {config_name: de, data_files: de.jsonl}\n- {config_name: fr, data_files: fr.jsonl}\n---\n"
)
SOUND_HEAD = b"---\ndataset_info:\n  features:\n  - {name: text, dtype: string}\n  - {name: sound, dtype: audio}\n---\n"
HUB: dict[str, dict[str, bytes | int]] = {
    "askback/whole": {
        "train-0.jsonl": rows(*TWO_FILES[0]),
        "train-1.jsonl": rows(*TWO_FILES[1]),
        "test.jsonl": rows("t"),
    },
    "askback/licensed": {
        "train.jsonl": rows("mine", licence="MIT", title="T") + rows("yours", licence="GPL", title="")
    },
    "askback/configured": {
        "README.md": TWO_CONFIGURATIONS,
        "de.jsonl": rows("Flut"),
        "fr.jsonl": rows("mer"),
    },
    "askback/gone": {"train-0.jsonl": rows(*TWO_FILES[0]), "train-1.jsonl": NOT_THERE},
    "askback/broken": {"train-0.jsonl": rows(*TWO_FILES[0]), "train-1.jsonl": b'{"text": "a"}\n{"text": \n'},
    "askback/changed": {"train-0.jsonl": rows(*TWO_FILES[0]), "train-1.jsonl": b'{"other": "a"}\n'},
    "askback/short": {"train-0.jsonl": rows(*TWO_FILES[0]), "train-1.jsonl": rows(*TWO_FILES[0])},
    "askback/script": {"script.py": b"raise SystemExit('run')", "README.md": b"---\n---\n"},
    "askback/empty": {"README.md": b"---\n---\n"},
    "askback/sound": {"README.md": SOUND_HEAD, "train.jsonl": rows("said", sound={"bytes": None, "path": "a.wav"})},
}


class Hub(BaseHTTPRequestHandler):
    """Answers what `datasets` asks of a hub, from the table above."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        kind, _, rest = path.removeprefix("/api").removeprefix("/datasets/").partition("/")
        name, _, rest = rest.partition("/")
        files = HUB.get(f"{kind}/{name}")
        if files is None:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/") and rest.startswith("tree/"):
            folder = rest.split("/", 2)[2:]
            listed = [] if folder else [self._entry(file, data) for file, data in files.items()]
            self._answer(200, {}, json.dumps(listed).encode())
        elif path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in files]
            facts = {
                "id": f"{kind}/{name}",
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            self._answer(200, {}, json.dumps(facts).encode())
        else:
            file = rest.split("/", 2)[2]
            self._send_file(files.get(file, NOT_THERE), 20_000 if (name, file) == ("short", "train-1.jsonl") else None)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing on the screen of the tests."""

    @staticmethod
    def _entry(file: str, data: bytes | int) -> dict[str, object]:
        return {"type": "file", "path": file, "size": len(data) if isinstance(data, bytes) else 99, "oid": "0" * 40}

    def _send_file(self, data: bytes | int, sent: int | None) -> None:
        if isinstance(data, int):
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        said = {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(data):040x}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if not asked:
            self._answer(200, said, data)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        said["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._answer(206, said, part, sent=sent)

    def _answer(self, status: int, said: dict[str, str], body: bytes = b"", *, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**said, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
        self.close_connection = sent is not None


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, list[str]]]:
    """The address of the hub, and what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Hub,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


READ = """
import datasets, json, sys
from askback.errors import AskbackError
from askback.options import CorpusOptions
from askback.readers.documents import read_documents

datasets.config.STREAMING_READ_MAX_RETRIES = 1  # and not 20, five seconds apart
datasets.config.STREAMING_READ_RETRY_INTERVAL = 0
for options in json.load(sys.stdin):
    found = {"outcomes": [], "error": "", "message": ""}
    try:
        for item in read_documents(CorpusOptions(**options)):
            found["outcomes"].append([item.source, getattr(item, "reason", "document"), getattr(item, "text", "")])
    except AskbackError as error:
        found |= {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(found))
"""


def read_each(address: str, home: Path, *asked: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
    """Return the outcomes of each reading, in a process of its own: the library looks for its hub when it is loaded."""
    pytest.importorskip("datasets")
    told = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        env={**os.environ, **told},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


QUICK: dict[str, dict[str, Any]] = {
    "whole": {"path": "askback/whole"},
    "split": {"path": "askback/whole", "split": "test"},
    "no split": {"path": "askback/whole", "split": "prove"},
    "column": {"path": "askback/whole", "split": "test", "text_column": "body"},
    "licensed": {"path": "askback/licensed", "allow_licence": ["MIT"]},
    "de": {"path": "askback/configured:de"},
    "no configuration": {"path": "askback/configured:it"},
    "unnamed configuration": {"path": "askback/configured"},
    "unknown": {"path": "askback/unknown"},
    **{name: {"path": f"askback/{name}"} for name in ("gone", "broken", "changed", "script", "empty", "sound")},
}


@pytest.fixture(scope="module")
def readings(hub: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of every quick reading, by its name."""
    found = read_each(hub[0], tmp_path_factory.mktemp("home"), *QUICK.values())
    return dict(zip(QUICK, found, strict=True))


# --- what is read


def test_the_rows_of_a_split_are_documents_in_their_order(readings: dict[str, dict[str, Any]]) -> None:
    found = readings["whole"]["outcomes"]
    assert [source for source, _, _ in found] == [f"askback/whole:{n}" for n in range(1, 203)]
    assert [text for _, _, text in found] == [*TWO_FILES[0], *TWO_FILES[1]]
    assert readings["split"]["outcomes"] == [["askback/whole:1", "document", "t"]]


def test_a_row_of_the_hub_is_judged_as_one_of_a_file_is(readings: dict[str, dict[str, Any]]) -> None:
    assert readings["column"]["outcomes"] == [["askback/whole:1", "no_text_column", ""]]
    assert [reason for _, reason, _ in readings["licensed"]["outcomes"]] == ["document", "licence_not_allowed"]


def test_a_configuration_is_named_behind_a_colon(readings: dict[str, dict[str, Any]]) -> None:
    assert readings["de"]["outcomes"] == [["askback/configured:de:1", "document", "Flut"]]
    assert "de" in readings["unnamed configuration"]["message"]
    assert "fr" in readings["unnamed configuration"]["message"]


def test_sound_beside_the_text_needs_no_library_that_plays_it(readings: dict[str, dict[str, Any]]) -> None:
    assert readings["sound"]["outcomes"] == [["askback/sound:1", "document", "said"]]


def test_rows_behind_the_limit_are_not_fetched(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    asked.clear()
    (found,) = read_each(address, tmp_path, {"path": "askback/whole", "limit": 3})
    assert len(found["outcomes"]) == 3
    assert [path for path in asked if path.endswith("train-0.jsonl")]
    assert not [path for path in asked if path.endswith("train-1.jsonl")]


# --- what fails


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no split", "with a split 'prove' could be opened on the hub: ValueError: Bad split: prove"),
        ("no configuration", "'it' not found"),
        ("unknown", "DatasetNotFoundError"),
        ("empty", "EmptyDatasetError"),
        ("script", "scripts are no longer supported"),
    ],
)
def test_what_is_not_on_the_hub_is_the_users_error(readings: dict[str, dict[str, Any]], name: str, why: str) -> None:
    found = readings[name]
    assert (found["error"], found["outcomes"]) == ("ConfigError", [])
    assert found["message"].startswith(f"corpus.path {QUICK[name]['path']}: no such file or folder, and no data set")
    assert why in found["message"]


@pytest.mark.parametrize("name", ["gone", "broken", "changed"])
def test_a_stream_that_breaks_off_is_no_end(readings: dict[str, dict[str, Any]], name: str) -> None:
    found = readings[name]
    assert found["error"] == "DataError"
    assert len(found["outcomes"]) == 200
    assert found["message"].startswith(f"askback/{name}: the stream broke off after row 200: ")
    assert "\n" not in found["message"]


def test_without_a_network_the_user_is_told(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    (found,) = read_each(hub[0], tmp_path, {"path": "askback/whole"}, HF_HUB_OFFLINE="1")
    assert found["error"] == "ConfigError"
    assert "Couldn't reach" in found["message"]


@pytest.mark.slow
def test_a_hub_that_hangs_up_or_is_not_there_is_an_error_once_all_retries_are_spent(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    (cut,) = read_each(hub[0], tmp_path, {"path": "askback/short"})
    assert cut["error"] == "DataError"
    assert cut["message"].startswith("askback/short: the stream broke off after row 200: ConnectionError")
    (closed,) = read_each("http://127.0.0.1:9", tmp_path, {"path": "askback/whole"})
    assert closed["error"] == "ConfigError"
    assert "ConnectionError" in closed["message"]


def test_without_the_library_the_user_is_told_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'askback\[hub\]'"):
        stream_data_set("owner/name", "train")


# --- what is a name


@pytest.mark.parametrize("path", ["owner/name", "owner/na.me-2", "owner/name:config", "0wner/_x:en.v1"])
def test_a_name_with_an_owner_is_one_of_the_hub(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names_data_set(path)


@pytest.mark.parametrize(
    "path",
    ["", "name", "/owner/name", "./name", "a/b/c", "owner/", "owner/*", "~/name", "own er/x", "owner/name:", "../x"],
)
def test_a_path_is_never_asked_of_the_hub(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not names_data_set(path)


def test_a_mistyped_path_is_never_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)  # asking would raise another error
    (tmp_path / "docs").mkdir()
    for path in ("docs/gone", "gone/rows.jsonl", "gone/page.html", "gone/x.tar.gz", "gone/a.warc.gz"):
        with pytest.raises(ValueError, match="no such file or folder, and no glob"):
            read_documents(CorpusOptions(path=path))
