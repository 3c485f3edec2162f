"""Any OpenAI-compatible endpoint as an engine: hosted, vLLM, llama.cpp, Ollama, `transformers serve`.

Takes: Prompts and Examples.  Gives: replies, choices, log-likelihoods, in the order asked.
Never: tunes, sends what the endpoint was not seen to take, or passes off what it does not show as a number.
"""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from askback.engines.bases import EMBEDDED, Base
from askback.engines.dialect import Dialect, echo_body, read_echo, read_models, read_slots, weigh, without
from askback.engines.endpoint import Call, Endpoint, Fault, GaveUp, Refused
from askback.engines.tokens import Row, Tokens
from askback.errors import ConfigError
from askback.options import EngineOptions
from askback.ports import (
    Ask,
    Choice,
    Choose,
    Example,
    Generate,
    Likelihood,
    LogLikelihood,
    Prompt,
    Reply,
    Sampling,
)

NO_ROOM = Reply("", "no_room")
CHARS_PER_TOKEN = 4
"""What a token is taken to hold where no tokenizer is at hand: right for English on the whole, too many elsewhere."""
TEMPLATE_TOKENS = 64
"""Room left for what an endpoint puts around a message."""
MOST_SHOWN = (20, 5)
"""Likeliest tokens that are asked for at the answer slot: what most endpoints give at most, then what the rest do."""
PROBE = "Say yes."
PROBE_TOKENS = 16
PROBE_ATTEMPTS = 3
SLOT_TOKENS = 2
"""At the answer slot the choice itself, and before it a token that may be only a space."""
SEEDS = 1 << 31
"""Seeds that every endpoint takes are below this."""
TOLD = ("owned_by", "root", "parent", "max_model_len", "context_length", "context_window")
"""What an endpoint says of a model that stays the same from call to call."""
WITHOUT_LIKELIHOOD = (
    "`likelihood`, `likeness`, `backward` and `cycle` cannot be measured here: name `reasoned`, or `expected` where "
    "the endpoint gives log-probabilities, in curate.judge"
)


class ServerEngine:
    """The calls on one served base; `model` is an adapter's folder that is served too, or None for the base.

    The base is asked by chat where that is offered. An adapter was trained on plain text and is asked by plain
    completions. `engine.server.speaks` decides otherwise.

    Raises:
        ConfigError: at the first call that needs the endpoint: it is not there, or does not serve the base.
    """

    tunes = False

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.endpoint = Endpoint(options.server)
        self._ways: dict[bool, Dialect | str] = {}
        self._shown: dict[Dialect, int] = {}
        self._echoes: bool | None = None

    # --- what is known of the served base

    @property
    def max_tokens(self) -> int:
        """The longest row the served model reads: as the endpoint says, or else as `engine.server.context` does."""
        told = (self.served.get(name) for name in ("max_model_len", "context_length", "context_window"))
        return next((size for size in told if isinstance(size, int) and size > 0), self.options.server.context)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has: by the base's tokenizer if it lies here, else a quarter of its characters.

        It lies here where `engine.server.tokenizer`, or else `engine.base`, is a folder or in the hub's cache.
        """
        if self.tokens is not None:
            return len(self.tokens.encode(text))
        return -(-len(text) // CHARS_PER_TOKEN)

    def describe(self) -> dict[str, Any]:
        """Return what a result depends on, as far as the endpoint tells; the same at each call, and without a key."""
        dialect = self._dialect(tuned=False)
        folder = Path(self.options.base)
        found = Base(folder.name, str(folder), None, None) if folder.is_dir() else None
        return {
            "kind": "server",
            "base": self.options.base,
            "hash": found.hash if found else "",  # no endpoint tells the weights' hash
            "licence": found.licence if found else "unknown",
            "type": "served",
            "precision": "",
            "url": self.endpoint.url,
            "served": self.served,
            "max_tokens": self.max_tokens,
            "speaks": dialect.name,
            "seeded": dialect.seeded,
            "tokens": "counted" if self.tokens else "estimated",
        }

    @cached_property
    def tokens(self) -> Tokens | None:
        """The tokenizer of the served base, if it lies here; the network is not asked for it."""
        from transformers import AutoTokenizer

        name = self.options.server.tokenizer or self.options.base
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(EMBEDDED) if name == "tiny" else name, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            if self.options.server.tokenizer:
                raise ConfigError(f"engine.server.tokenizer = {name!r}: cannot be loaded: {error}") from error
            return None
        return None if tokenizer.eos_token_id is None else Tokens(tokenizer)

    @cached_property
    def served(self) -> Mapping[str, Any]:
        """What the endpoint says of the base; checks that it is there and serves it.

        Raises:
            ConfigError: names the address, what was found there, and what to change.
        """
        base, listed = self.options.base, self._listed()
        entry = listed.get(base) or listed.get(f"{base}:latest")
        trusted = self.options.server.unlisted or not listed or Path(base).is_dir()
        if entry is None and not trusted:
            near = difflib.get_close_matches(base, listed, n=1, cutoff=0.4)
            raise ConfigError(
                f"{self.endpoint.url} does not list engine.base = {base!r}; it lists {_some(listed)}"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + "; where it answers for models it does not list, set engine.server.unlisted = true"
            )
        return {name: entry[name] for name in TOLD if entry and isinstance(entry.get(name), str | int)}

    def _listed(self) -> dict[str, dict[str, Any]]:
        """Return the models the endpoint lists by name; none where it keeps no list."""

        def refused(no: Refused) -> dict[str, dict[str, Any]]:
            if no.status in (401, 403):
                raise ConfigError(self.endpoint.explain(no))
            return {}

        call = Call("/models", None, read_models, refused=refused)
        try:
            return self.endpoint.ask_once(call)
        except Fault as fault:
            status, said = fault.status, str(fault)
        if not status:
            raise ConfigError(
                f"{self.endpoint.url} cannot be reached ({said}): start the endpoint, or set engine.server.url to its "
                "address, /v1 included"
            )
        return {} if status == 500 else self.endpoint.ask(call)  # else it is busy, or not ready yet

    # --- the four calls

    def generate(self, model: Path | None = None) -> Generate:
        """Return the call that writes texts with `model`."""
        name, tuned = self._served_as(model)
        dialect = self._dialect(tuned=tuned)

        def call(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
            if sampling.no_repeat:
                raise ConfigError(
                    f"no_repeat = {sampling.no_repeat}: an endpoint offers no such rule; "
                    "set no_repeat = 0 in [augment] and [evaluate]"
                )
            return self.endpoint.stream(self._ask(dialect, name, ask, sampling) for ask in asks)

        return call

    def choose(self, model: Path | None = None) -> Choose:
        """Return the call that gives the probabilities of fixed answers, as far as the endpoint shows them.

        A choice counts where one token writes it, with a space before it or without, or where a token that is only
        the space comes first. What is not among the likeliest tokens that the endpoint shows lies outside.

        Raises:
            ConfigError: it shows none.
        """
        name, tuned = self._served_as(model)
        self._dialect(tuned=tuned)  # one that does not answer at all is told apart from one that shows nothing
        for dialect in self._offered(tuned=tuned):
            if shown := self._shows(dialect):
                return self._chooser(dialect, name, shown)
        raise ConfigError(
            f"{self.endpoint.url} gives no log-probabilities of its answers: use the signal `reasoned` instead "
            'of `expected` (curate.judge = ["reasoned"]), and no curate.instruction_gate'
        )

    def likelihood(self, model: Path | None = None) -> Likelihood:
        """Return the call that scores targets; it sends token ids, so that a target is what it was in training.

        Raises:
            ConfigError: the tokenizer does not lie here, or the endpoint does not show what its prompt's tokens had.
        """
        name, _ = self._served_as(model)
        tokens = self._echoing()

        def call(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
            return self.endpoint.stream(self._score(tokens, name, example) for example in examples)

        return call

    def fit(self, options: Any, *, seed: int) -> NoReturn:
        """Refuse: an endpoint cannot be tuned.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"engine.kind = 'server': what {self.endpoint.url} serves cannot be tuned from here; tune with "
            "engine.kind = 'local' and serve the adapter, or ask by prompt with augment.prompted = true"
        )

    # --- how it is asked

    def _dialect(self, *, tuned: bool) -> Dialect:
        """Return how a model is asked.

        Raises:
            ConfigError: the endpoint answers in none of the ways that are allowed for such a model.
        """
        found = next(self._offered(tuned=tuned), None)
        if found is None:
            said = "; ".join(dict.fromkeys(why for why in self._ways.values() if isinstance(why, str)))
            plain = " in plain completions, which a tuned model needs" if tuned else ""
            raise ConfigError(f"engine.base = {self.options.base!r} does not answer{plain}: {said}")
        return found

    def _offered(self, *, tuned: bool) -> Iterator[Dialect]:
        speaks = self.options.server.speaks
        ways = (speaks == "chat",) if speaks != "auto" else (False,) if tuned else (True, False)
        for chat in ways:
            if chat not in self._ways:
                self._ways[chat] = self._probe(chat)
            if isinstance(found := self._ways[chat], Dialect):
                yield found

    def _probe(self, chat: bool) -> Dialect | str:
        """Ask the base once by chat or by plain completions; return what it took, or why it did not answer."""
        assert self.served is not None  # checks first that the endpoint is there and lists the base
        dialect: Dialect | None = Dialect(chat, ids=not chat and self.tokens is not None)
        said = ""
        while dialect is not None:
            body = self._body(dialect, self.options.base, PROBE, Sampling(max_new_tokens=PROBE_TOKENS), seed=1)
            call = Call(dialect.path, body, lambda said: self._reply(said, chat))
            try:
                self.endpoint.ask(call, attempts=min(PROBE_ATTEMPTS, self.options.server.attempts))
                return dialect
            except Refused as no:
                said, dialect = self.endpoint.explain(no), without(dialect, no)
            except GaveUp as stopped:
                if stopped.status != 500:  # some endpoints answer so where a model has no chat template
                    raise
                return str(stopped)
        return said

    def _body(
        self, dialect: Dialect, name: str, prompt: str | list[int], sampling: Sampling, seed: int
    ) -> dict[str, Any]:
        if dialect.ids and isinstance(prompt, str) and self.tokens is not None:
            prompt = self.tokens.encode(prompt)
        asked = {"messages": [{"role": "user", "content": prompt}]} if dialect.chat else {"prompt": prompt}
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        seeded = {"seed": seed % SEEDS} if dialect.seeded else {}
        return {"model": name, **asked, **drawn, dialect.room_key: sampling.max_new_tokens, **seeded}

    def _fitted(self, dialect: Dialect, prompt: Prompt, new_tokens: int) -> str | list[int] | None:
        """Return the prompt as it is sent, its body cut where it is too long; None where the rest leaves no room."""
        room = min(self.max_tokens, prompt.most or self.max_tokens) - new_tokens
        if dialect.ids and self.tokens is not None:
            made = self.tokens.prompt(prompt, room)
            return None if made is None else made[0]
        room -= TEMPLATE_TOKENS if dialect.chat else 1
        whole = prompt.before + prompt.body + prompt.after
        if len(whole.encode()) <= room:  # a token holds a byte at least
            return whole
        left = room - self.count_tokens(prompt.before) - self.count_tokens(prompt.after)
        if left < min(1, len(prompt.body)):
            return None
        return prompt.before + self._cut(prompt.body, left) + prompt.after

    def _cut(self, text: str, most: int) -> str:
        if self.tokens is None:
            return text[: most * CHARS_PER_TOKEN]
        ids = self.tokens.encode(text)
        return text if len(ids) <= most else text[: len(self.tokens.decode(ids[:most]))]

    def _ask(self, dialect: Dialect, name: str, ask: Ask, sampling: Sampling) -> Call[Reply] | Reply:
        prompt = self._fitted(dialect, ask.prompt, sampling.max_new_tokens)
        if prompt is None:
            return NO_ROOM
        return Call(
            dialect.path,
            self._body(dialect, name, prompt, sampling, ask.seed),
            lambda said: self._reply(said, dialect.chat),
            self._allowance(prompt, sampling.max_new_tokens),
            self._no_reply,
        )

    def _allowance(self, prompt: str | list[int], new_tokens: int) -> int:
        """Return what a request takes of a minute's tokens, counted as hosted endpoints do: the room, not its use."""
        if not self.options.server.tokens_per_minute:
            return 0
        return new_tokens + (self.count_tokens(prompt) if isinstance(prompt, str) else len(prompt))

    def _reply(self, said: Any, chat: bool) -> Reply:
        choice = said["choices"][0]
        message = choice["message"] if chat else choice
        text = (message.get("content") if chat else message["text"]) or ""
        if isinstance(text, list):  # some endpoints part what was thought from what is answered
            text = "".join(part["text"] for part in text if part.get("type") == "text")
        finish = choice.get("finish_reason")
        if finish == "content_filter" or message.get("refusal"):
            text = ""
        tokens = (said.get("usage") or {}).get("completion_tokens")
        count = tokens if isinstance(tokens, int) else self.count_tokens(text)
        return Reply(text.strip(), "length" if finish == "length" else "stop", count)

    def _no_reply(self, refused: Refused) -> Reply:
        if refused.no_room:
            return NO_ROOM
        if refused.unwanted:
            return Reply("", "stop")
        raise refused

    # --- what its answers weigh

    def _shows(self, dialect: Dialect) -> int:
        """Return how many likeliest tokens the endpoint shows at each place of its answers; 0 where it shows none."""
        if dialect not in self._shown:
            self._shown[dialect] = next(filter(None, (self._try_shown(dialect, most) for most in MOST_SHOWN)), 0)
        return self._shown[dialect]

    def _try_shown(self, dialect: Dialect, most: int) -> int:
        body = self._slot_body(dialect, self.options.base, PROBE, most)
        try:
            return most if self.endpoint.ask(Call(dialect.path, body, read_slots)) is not None else 0
        except Refused as no:
            if no.status in (401, 403):
                raise ConfigError(self.endpoint.explain(no)) from None
            return 0

    def _slot_body(self, dialect: Dialect, name: str, prompt: str | list[int], most: int) -> dict[str, Any]:
        shown = {"logprobs": True, "top_logprobs": most} if dialect.chat else {"logprobs": most}
        return {**self._body(dialect, name, prompt, Sampling(0.0, 1.0, SLOT_TOKENS), 0), **shown}

    def _chooser(self, dialect: Dialect, name: str, shown: int) -> Choose:
        def call(prompts: Iterable[Prompt], choices: Sequence[str]) -> Iterator[Choice | None]:
            return self.endpoint.stream(self._weigh(dialect, name, prompt, choices, shown) for prompt in prompts)

        return call

    def _weigh(
        self, dialect: Dialect, name: str, prompt: Prompt, choices: Sequence[str], shown: int
    ) -> Call[Choice | None] | None:
        fitted = self._fitted(dialect, prompt, SLOT_TOKENS)
        if fitted is None:
            return None

        def read(said: Any) -> Choice:
            slots = read_slots(said)
            if slots is None:
                raise ValueError("an answer without log-probabilities")
            return weigh(slots, choices)

        body = self._slot_body(dialect, name, fitted, shown)
        return Call(dialect.path, body, read, self._allowance(fitted, SLOT_TOKENS), none_if_no_room)

    def _echoing(self) -> Tokens:
        """Return the tokenizer whose ids the endpoint weighs, once it was seen to weigh every one of a prompt."""
        tokens = self.tokens
        if tokens is None:
            raise ConfigError(
                "a likelihood is read token by token, and the tokenizer of the served model does not lie here: name "
                f"its folder, or a hub name that is in the cache, in engine.server.tokenizer; else {WITHOUT_LIKELIHOOD}"
            )
        if self._echoes is None:
            assert self.served is not None
            ids = [*tokens.start, *tokens.encode(f"{PROBE} {PROBE}")]
            call = Call("/completions", echo_body(self.options.base, ids), lambda said: read_echo(said, 1, len(ids)))
            try:
                self._echoes = self.endpoint.ask(call, attempts=1) is not None
            except (Refused, GaveUp):
                self._echoes = False
        if not self._echoes:
            raise ConfigError(
                f"{self.endpoint.url} does not tell how likely a prompt's own tokens are (completions with echo and "
                f"logprobs, which vLLM has): {WITHOUT_LIKELIHOOD}"
            )
        return tokens

    def _score(self, tokens: Tokens, name: str, example: Example) -> Call[LogLikelihood | None] | None:
        most = self.max_tokens - 1  # an endpoint writes one token at least
        row = tokens.row(example, min(most, example.prompt.most or most))
        if not isinstance(row, Row):
            return None
        ids, begins = [*row.prompt, *row.target], len(row.prompt)

        def read(said: Any) -> LogLikelihood:
            return LogLikelihood(sum(read_echo(said, begins, len(ids))), len(row.target))

        return Call("/completions", echo_body(name, ids), read, self._allowance(ids, 1), none_if_no_room)

    # --- which name a model has there

    def _served_as(self, model: Path | None) -> tuple[str, bool]:
        """Return the name under which the endpoint serves a model, and whether it was tuned to plain text.

        Raises:
            ConfigError: it does not serve it, and will not load it.
        """
        if model is None:
            return self.options.base, False
        if not model.is_dir():
            raise ConfigError(f"{model}: there is no such folder")
        if (model / "adapter_config.json").exists():
            own = _own_name(model)
            return _listed_as(model, own, self._listed()) or self._load_adapter(model, own), True
        if not (model / "config.json").exists():
            return self.options.base, False  # asked by prompt: nothing was tuned
        name = _listed_as(model, "", self._listed())
        if name is None:
            raise ConfigError(f"{model}: {self.endpoint.url} does not list it: serve it under the name {model.name!r}")
        return name, True

    def _load_adapter(self, model: Path, own: str) -> str:
        """Have the endpoint load an adapter, as vLLM does where it is allowed to."""
        body = {"lora_name": own, "lora_path": str(model.resolve())}
        try:
            self.endpoint.ask(Call("/load_lora_adapter", body, lambda said: None), attempts=1)
        except (Refused, GaveUp) as no:
            raise ConfigError(
                f"{model}: {self.endpoint.url} lists no such adapter and did not load it ({no}): start it with "
                f"--enable-lora --lora-modules {own}={model.resolve()}, or set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True "
                "where vLLM runs and sees this folder"
            ) from None
        return own


def none_if_no_room(refused: Refused) -> None:
    """Return None, the answer to a prompt that is too long; raise any other refusal."""
    if not refused.no_room:
        raise refused


def _own_name(model: Path) -> str:
    """Return a name for an adapter that no other has: its folders', and the beginning of its weights' hash."""
    digest = hashlib.sha256()
    for file in sorted(model.glob("adapter_model.*")):
        digest.update(file.read_bytes())
    return f"{model.resolve().parent.name}-{model.name}-{digest.hexdigest()[:12]}"


def _listed_as(model: Path, own: str, listed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the name under which a folder is listed: one that names its path, or else one that is its own."""
    here = model.resolve()
    roots = {name: Path(str(entry["root"])) for name, entry in listed.items() if entry.get("root")}
    if same := [name for name, root in roots.items() if root.is_absolute() and root.resolve() == here]:
        return same[0]
    elsewhere = {name for name, root in roots.items() if root.is_absolute() and root.is_dir()}
    names = (own, f"{here.parent.name}/{here.name}", str(model), str(here), here.name)
    return next((name for name in names if name in listed and name not in elsewhere), None)


def _some(names: Iterable[str], most: int = 8) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
