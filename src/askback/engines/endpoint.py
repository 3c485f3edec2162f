"""One OpenAI-compatible endpoint: asked in order, never faster than it allows, and again after a pause where it failed.

Takes: ServerOptions, requests as plain JSON.  Gives: what was read from the answers, in the order asked.
Never: writes the key anywhere, knows what is asked, or holds more requests than fit on the wire.
"""

import asyncio
import json
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from askback.errors import ConfigError, Stopped, borrow
from askback.options import ServerOptions

T = TypeVar("T")

AHEAD = 4
"""Requests taken from the stream for each that may be on its way, so that a slow one does not hold up the rest."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
"""Pauses between tries grow by two from the first to the longest, each shortened by up to a half at random."""
LONGEST_WAIT_S = 600.0
"""An endpoint that asks for a longer wait than this is left alone: the run stops and can go on later."""
TRY_AGAIN = frozenset({408, 409, 425, 429})
"""Below 500, what a later request may well get an answer to; 501 is the one above that will stay."""
NO_MONEY = ("insufficient_quota", "billing_hard_limit")
"""A limit that no pause lifts."""
TOO_LONG = (
    "context_length",
    "context length",
    "context size",
    "context_size",
    "context window",
    "maximum model length",
    "max_model_len",
    "max_total_tokens",
    "maximum number of tokens",
    "too long",
    "too many tokens",
    "`inputs` tokens",
)
"""How endpoints say that a prompt does not fit: OpenAI, vLLM, llama.cpp, TGI, Anthropic's and Google's dialects."""
UNWANTED = ("content_filter", "content_policy", "responsibleaipolicy", "content management policy")


class Refused(Exception):
    """The endpoint understood and said no: asking again would get the same answer."""

    def __init__(self, status: int, said: str, code: str = "") -> None:
        super().__init__(f"status {status}: {said}" if said else f"status {status}")
        self.status = status
        self.words = f"{code} {said}".lower()

    @property
    def no_room(self) -> bool:
        """Whether the prompt was too long for the model."""
        return self.status == 413 or (self.status in (400, 422) and any(words in self.words for words in TOO_LONG))

    @property
    def unwanted(self) -> bool:
        """Whether what was asked was not liked, rather than how."""
        return any(words in self.words for words in UNWANTED)


class Fault(Exception):
    """No answer this time; `wait_s` is how long the endpoint asked to be left alone."""

    def __init__(self, said: str, *, status: int = 0, wait_s: float = 0) -> None:
        super().__init__(said)
        self.status = status
        self.wait_s = wait_s


class GaveUp(Stopped):
    """A request was tried as often as it may be; `status` is that of the last answer, 0 where there was none."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request and how its answer is read; reading raises LookupError, TypeError or ValueError where it cannot be."""

    path: str
    body: Mapping[str, Any] | None
    """None: a GET."""
    read: Callable[[Any], T]
    tokens: int = 0
    """How many of the tokens allowed in a minute it takes, prompt and reply."""
    refused: Callable[[Refused], T] | None = None
    """What a refusal means, where it is an answer of its own; raises what was refused where it is not."""


class Pace:
    """Spreads requests evenly, so that no minute holds more of them than is allowed."""

    def __init__(self, per_minute: int) -> None:
        self.step_s = 60 / per_minute if per_minute else 0.0
        self.free_at = 0.0

    def reserve(self, amount: float, now: float) -> float:
        """Return in how many seconds it may begin what takes so much of a minute's allowance."""
        begins = max(now, self.free_at)
        self.free_at = begins + amount * self.step_s
        return begins - now


class Endpoint:
    """The way to one address. Requests run in a thread of their own; answers are waited for in the caller's.

    Raises:
        ConfigError: the address cannot be used; MissingExtra: the client is not installed.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.url = _check_url(options.url)
        self._openai = borrow("openai", "server")
        self._key = _read_key(options.key_env)
        self._requests = Pace(options.per_minute)
        self._tokens = Pace(options.tokens_per_minute)
        self._resume_at = 0.0
        self._room = asyncio.Semaphore(options.at_once)
        self._client = self._openai.AsyncOpenAI(
            base_url=self.url, api_key=self._key or "none", max_retries=0, timeout=options.timeout_s
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="askback-endpoint").start()
        self.close = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        """Ends the thread; called by itself when nobody holds the endpoint any more."""

    def ask(self, call: Call[T], *, attempts: int = 0) -> T:
        """Return what was read from one answer; `attempts` 0 takes the options'.

        Raises:
            Refused: with the endpoint's words, where the call does not say what a refusal means.
            GaveUp: no answer after so many attempts.
        """
        return self._submit(self._fetch(call, attempts or self.options.attempts)).result()

    def ask_once(self, call: Call[T]) -> T:
        """Return what was read from one answer to one try; raises Fault or Refused."""
        return self._submit(self._once(call)).result()

    def stream(self, calls: Iterable[Call[T] | T]) -> Iterator[T]:
        """Yield what was read from the answers, in order; what is no Call comes through as it is.

        Raises:
            ConfigError: the endpoint refused a request.
            GaveUp: one was tried as often as the options say and not answered.
        """
        waiting: deque[Future[T]] = deque()
        try:
            for call in calls:
                waiting.append(self._send(call))
                if len(waiting) >= self.options.at_once * AHEAD:
                    yield self._answer(waiting.popleft())
            while waiting:
                yield self._answer(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def _send(self, call: Call[T] | T) -> Future[T]:
        if isinstance(call, Call):
            return self._submit(self._fetch(call, self.options.attempts))
        known: Future[T] = Future()
        known.set_result(call)
        return known

    def _answer(self, future: Future[T]) -> T:
        refused = ""
        try:
            return future.result()
        except Refused as no:
            refused = self.explain(no)
        finally:
            future.cancel()  # does nothing where it is done; where the wait was broken off, ends the request
        raise ConfigError(refused)

    def explain(self, refused: Refused) -> str:
        """Return what to do about a refusal."""
        if refused.status in (401, 403):
            env = self.options.key_env
            held = f"{env} is set, but not to a key it takes" if self._key else f"{env} is not set"
            return f"{self.url} asks for a key ({refused}): {held}; put one into the environment variable {env}"
        return f"{self.url} refused a request, {refused}"

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # --- in the loop's thread

    async def _fetch(self, call: Call[T], attempts: int) -> T:
        async with self._room:
            for attempt in range(attempts):
                await self._turn(call.tokens)
                try:
                    return await self._once(call)
                except Fault as error:
                    fault = error
                if fault.wait_s > LONGEST_WAIT_S or any(words in str(fault).lower() for words in NO_MONEY):
                    break
                if attempt + 1 < attempts:
                    await self._pause(fault, attempt)
        raise GaveUp(
            f"{self.url} gave no answer in {attempt + 1} {'try' if attempt == 0 else 'tries'} (last: {fault}); "
            "what is finished stays: start the same command again when the endpoint answers, and it goes on from there",
            fault.status,
        )

    async def _turn(self, tokens: int) -> None:
        now = time.monotonic()
        await asyncio.sleep(max(self._requests.reserve(1, now), self._tokens.reserve(tokens, now)))
        while (left_s := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    async def _pause(self, fault: Fault, attempt: int) -> None:
        if fault.wait_s:  # meant for whoever asks, not for this request alone
            self._resume_at = max(self._resume_at, time.monotonic() + fault.wait_s)
        grown_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
        await asyncio.sleep(grown_s * random.uniform(0.5, 1))

    async def _once(self, call: Call[T]) -> T:
        failed: Fault | Refused
        try:
            async with asyncio.timeout(self.options.timeout_s):  # the client's own bound is one on each read
                return call.read(await self._exchange(call))
        except TimeoutError:
            failed = Fault(f"nothing within {self.options.timeout_s:g} s")
        except self._openai.APIStatusError as error:
            failed = self._status_fault(error)
        except self._openai.APIConnectionError as error:
            failed = Fault(self._plain(f"no connection: {error.__cause__ or error}"))
        except (LookupError, TypeError, ValueError, AttributeError, self._openai.APIError) as error:
            failed = Fault(self._plain(f"an answer that cannot be read: {error!r}"))
        if isinstance(failed, Refused) and call.refused is not None:
            return call.refused(failed)
        raise failed  # outside the handlers: what the client raised holds the request, and with it the key

    async def _exchange(self, call: Call[T]) -> Any:
        if call.body is None:
            return await self._client.get(call.path, cast_to=object)
        return await self._client.post(call.path, body=dict(call.body), cast_to=object)

    def _status_fault(self, error: Any) -> Fault | Refused:
        status, said = int(error.status_code), self._plain(_said(error.body) or error.response.text)
        code = str(getattr(error, "code", None) or "")
        if status in TRY_AGAIN or (status >= 500 and status != 501):
            words = f"status {status}: {said}" if said else f"status {status}"
            return Fault(f"{words} ({code})" if code else words, status=status, wait_s=_wait_s(error.response.headers))
        return Refused(status, said, code)

    def _plain(self, text: str) -> str:
        """Return a line of text, without the key should it stand there."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:400]


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"engine.server.url = {url!r}: want http:// or https:// with a host, /v1 included")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"engine.server.url holds more than scheme, host {parts.hostname!r} and path: a run file is kept beside "
            "the results, so put the key into the environment variable that engine.server.key_env names"
        )
    return url.rstrip("/")


def _read_key(env: str) -> str:
    key = os.environ.get(env, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the environment variable {env} holds characters that no key has")
    return key


def _said(body: Any) -> str:
    """Return the words of an error's body, whichever of the known shapes it has."""
    while isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error")
    return "" if body is None else body if isinstance(body, str) else json.dumps(body)


def _wait_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that Retry-After asks for, as a number or as a date; 0 where it asks for none."""
    said, ms = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    try:
        wait_s = float(ms) / 1000 if ms else float(said)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(said).timestamp() - time.time()
        except ValueError:
            return 0.0
    return wait_s if wait_s > 0 else 0.0
