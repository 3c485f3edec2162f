"""Endpoints on loopback for tests: a real `transformers serve`, and a stand-in that scripts what that one never does.

Takes: a model's folder, or a script of answers.  Gives: addresses, and what was asked there.
Never: leaves a process or a thread behind, or answers another machine.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from askback.engines.local import LocalEngine
from askback.engines.server import PROBE

START_S = 90


@contextmanager
def serve_model(folder: Path, cache: Path) -> Iterator[str]:
    """Serve a model's folder by `transformers serve`, with an empty hub cache, and give the address."""
    port = free_port()
    command = "from transformers.cli.transformers import main; main()"
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = cache / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", str(folder), *where],
            stdout=out,
            stderr=out,
            env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server answers; fail with its log where it ends before."""
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"no answer in {START_S} s: {log.read_text(encoding='utf-8', errors='replace')}")


# --- the stand-in


@dataclass(frozen=True)
class Asked:
    """A request that came in: its number among those that are no probes, and when it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    number: int
    at_s: float

    @property
    def text(self) -> str:
        """The prompt, as chat or as plain text."""
        return str(self.body["messages"][0]["content"] if "messages" in self.body else self.body["prompt"])


@dataclass(frozen=True)
class Answer:
    """What the stand-in sends back; `status` 0 drops the connection."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    pause_s: float = 0
    """Between ten pieces of the body."""


DROP = Answer("", 0)
Script = Callable[[Asked], Answer]


def said(text: str | None, finish: str | None = "stop", **more: Any) -> Answer:
    """Return a chat answer; `more` goes into its message."""
    message = {"role": "assistant", "content": text, **more}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return Answer({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})


def wrote(text: str, **more: Any) -> Answer:
    """Return an answer of plain completions."""
    return Answer({"choices": [{"index": 0, "text": text, "finish_reason": "stop", **more}]})


def failed(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """Return an error in the shape of the dialect."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "code": code, "param": None}}, status, named)


class StandIn:
    """A real HTTP server whose answers a test writes; it answers the engine's own probes by itself."""

    def __init__(self, script: Script | None = None, *, models: Any = ("m",), probes: bool = False) -> None:
        self.script = script or (lambda asked: said(f"re {asked.text}"))
        self.models = models
        self.probes = probes
        self.asked: list[Asked] = []
        self.listings = 0
        self.busy = 0
        self.most_busy = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "StandIn":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _listing(self) -> Answer:
        self.listings += 1
        if callable(self.models):
            found: Answer = self.models(self.listings)
            return found
        entries = [{"id": one} if isinstance(one, str) else one for one in self.models]
        return Answer(
            {"object": "list", "data": [{"object": "model", "created": time.time_ns(), **e} for e in entries]}
        )

    def _answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        probe = PROBE in json.dumps(body) and not self.probes
        with self._lock:
            asked = Asked(path, body, headers, len(self.asked), time.monotonic())
            if not probe:
                self.asked.append(asked)
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
        try:
            return (said("yes") if "messages" in body else wrote("yes")) if probe else self.script(asked)
        finally:
            with self._lock:
                self.busy -= not probe

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def handle(self) -> None:
                with suppress(ConnectionError):  # whoever asked has gone
                    super().handle()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                self._send(owner._listing())

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                if len(raw := self.rfile.read(length)) < length:
                    raise ConnectionError("whoever asked has gone")
                headers = {name.lower(): value for name, value in self.headers.items()}
                self._send(owner._answer(self.path.removeprefix("/v1"), json.loads(raw), headers))

            def _send(self, answer: Answer) -> None:
                if not answer.status:
                    self.close_connection = True
                    return
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": answer.kind, **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for begin in range(0, len(body), size := len(body) // 10 + 1 if answer.pause_s else len(body) + 1):
                    self.wfile.write(body[begin : begin + size])
                    self.wfile.flush()
                    time.sleep(answer.pause_s)

        return Handler


def weigh_by(engine: LocalEngine) -> Script:
    """Return a script that answers plain completions of token ids as vLLM does, with the numbers of a real model."""
    lock = threading.Lock()

    def script(asked: Asked) -> Answer:
        import torch

        ids, shown = list(asked.body["prompt"]), asked.body.get("logprobs")
        begins = 0 if asked.body.get("echo") else len(ids)
        with lock, torch.inference_mode():
            for _ in range(asked.body["max_tokens"]):
                ids.append(int(engine.causal(torch.tensor([ids])).logits[0, -1].argmax()))
            chances = engine.causal(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        pieces = [engine.tokens.tokenizer.decode([one]) for one in ids]
        own = [None, *(float(chances[place - 1, ids[place]]) for place in range(1, len(ids)))]
        tops: list[Any] = [None]
        for place in range(1, len(ids)):
            values, which = chances[place - 1].topk(shown or 1)
            texts = [engine.tokens.tokenizer.decode([one]) for one in which.tolist()]
            tops.append(dict(zip(texts, values.tolist(), strict=True)))
        logprobs = {"tokens": pieces[begins:], "token_logprobs": own[begins:], "top_logprobs": tops[begins:]}
        return wrote("".join(pieces[begins:]), logprobs=logprobs if shown else None)

    return script
