"""Laws of the engine behind an endpoint: answers in order, patience where it helps, plain words where it does not.

The endpoints are real: `transformers serve` with a small model, and a stand-in on loopback for what that one lacks.
"""

import json
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from askback.engines import endpoint as wire
from askback.engines.dialect import Place, weigh
from askback.engines.endpoint import AHEAD, Call, Endpoint
from askback.engines.local import LocalEngine
from askback.engines.open import open_engine
from askback.engines.server import ServerEngine
from askback.errors import ConfigError, Stopped
from askback.options import EngineOptions, ServerOptions
from askback.ports import Ask, Prompt, Reply, Sampling
from models import embedded_tokenizer, example, open_local, write_adapter, write_mini_llama
from served import DROP, Answer, Asked, StandIn, failed, said, serve_model, weigh_by, wrote

SAMPLING = Sampling(max_new_tokens=16)
GREEDY = Sampling(0.0, 1.0, 12)
KEY = "sk-planted-5f2d1c9be7"


def open_server(url: str, base: str = "m", **server: Any) -> ServerEngine:
    return ServerEngine(EngineOptions(kind="server", base=base, server=ServerOptions(url=url, **server)))


def asks(texts: Any) -> Iterator[Ask]:
    return (Ask(Prompt("", str(text))) for text in texts)


def replies(engine: ServerEngine, *texts: str, sampling: Sampling = SAMPLING) -> list[Reply]:
    return list(engine.generate()(asks(texts), sampling))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def echoing() -> Iterator[StandIn]:
    with StandIn() as found:
        yield found


# --- a real server

CHAT = "{{ bos_token }}{% for one in messages %}<{{ one['role'] }}>{{ one['content'] }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mini Llama that has a chat template and draws its tokens."""
    from transformers import GenerationConfig

    tokenizer = embedded_tokenizer()
    tokenizer.chat_template = CHAT
    folder = write_mini_llama(tmp_path_factory.mktemp("served"), tokenizer)
    GenerationConfig(do_sample=True, eos_token_id=tokenizer.eos_token_id, top_k=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_model(small, tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="module")
def local(small: Path) -> LocalEngine:
    return open_local(small)


def test_a_served_base_writes_by_plain_completions_what_the_same_base_writes_here(
    address: str, small: Path, local: LocalEngine
) -> None:
    texts = ["The tide rises", "Boats wait for it", "A harbour is"]
    served = open_server(address, str(small), speaks="text")
    assert replies(served, *texts, sampling=GREEDY) == list(local.generate()(asks(texts), GREEDY))
    assert served.describe()["speaks"] == "text"  # token ids were refused


def test_a_served_base_is_asked_by_chat_in_its_own_template(address: str, small: Path, local: LocalEngine) -> None:
    served = open_server(address, str(small))
    templated = "<user>The tide rises\n<assistant>"
    assert replies(served, "The tide rises", sampling=GREEDY) == list(local.generate()(asks([templated]), GREEDY))
    assert served.describe()["speaks"] == "chat"


def test_chance_comes_from_the_seed_of_a_row(address: str, small: Path) -> None:
    served = open_server(address, str(small), at_once=1)  # this server keeps one seed for all it is doing
    rows = [Ask(Prompt("", "The tide"), seed) for seed in (1, 2, 1 << 62, 1)]
    drawn = [reply.text for reply in served.generate()(rows, SAMPLING)]
    assert drawn[0] == drawn[3]
    assert len({*drawn}) == 3


def test_a_server_that_shows_no_log_probabilities_is_no_judge_and_says_so_at_once(address: str, small: Path) -> None:
    served = open_server(address, str(small))
    with pytest.raises(ConfigError, match=r"no log-probabilities.*`reasoned`"):
        served.choose()
    with pytest.raises(ConfigError, match=r"does not tell how likely.*`likelihood`.*`reasoned`"):
        served.likelihood()


def test_what_is_told_of_a_served_base_stays_the_same(address: str, small: Path) -> None:
    found = open_server(address, str(small)).describe()
    assert found == open_server(address, str(small)).describe()
    assert found["hash"] == open_local(small).describe()["hash"]
    assert found["tokens"] == "counted"


def test_a_model_that_the_real_server_does_not_hold_is_refused_in_its_own_words(address: str) -> None:
    with pytest.raises(ConfigError, match=r"'other' does not answer: .*status 400: Server is pinned"):
        open_server(address, "other").generate()


# --- many requests


def test_replies_come_in_order_and_as_many_are_on_their_way_as_allowed_but_never_more() -> None:
    together = threading.Barrier(4, timeout=20)

    def script(asked: Asked) -> Answer:
        if asked.number < 4:
            together.wait()
        time.sleep(0.03 if int(asked.text) % 5 == 0 else 0.002)
        return said(asked.text)

    with StandIn(script) as found:
        texts = [str(number) for number in range(60)]
        assert [reply.text for reply in replies(open_server(found.url, at_once=4), *texts)] == texts
        assert found.most_busy == 4


def test_a_stream_without_end_is_read_no_further_than_is_on_its_way(echoing: StandIn) -> None:
    engine, taken = open_server(echoing.url, at_once=2), count()
    drawn = engine.generate()(asks(taken), SAMPLING)
    assert [reply.text for reply in islice(drawn, 50)] == [f"re {number}" for number in range(50)]
    assert next(taken) <= 50 + 2 * AHEAD


def test_a_stream_that_is_left_ends_its_requests() -> None:
    release = threading.Event()

    def script(asked: Asked) -> Answer:
        if asked.number:
            release.wait(5)
        return said("x")

    with StandIn(script) as found:
        drawn = open_server(found.url, at_once=2).generate()(asks(range(40)), SAMPLING)
        next(drawn)
        drawn.close()  # type: ignore[attr-defined]
        seen = len(found.asked)
        release.set()
        time.sleep(0.1)
        assert len(found.asked) <= max(seen, 3)


def test_each_row_carries_its_own_numbers(echoing: StandIn) -> None:
    engine = open_server(echoing.url, at_once=1)
    rows = [Ask(Prompt("b ", "ody", " a"), 7), Ask(Prompt("", "y"), (1 << 63) - 1)]
    list(engine.generate()(rows, Sampling(0.3, 0.8, 33)))
    first, second = (asked.body for asked in echoing.asked)
    assert first["messages"] == [{"role": "user", "content": "b ody a"}]
    assert (first["model"], first["temperature"], first["top_p"], first["max_tokens"]) == ("m", 0.3, 0.8, 33)
    assert first["seed"] == 7
    assert 0 <= second["seed"] < 1 << 31


# --- patience

FAULTS: dict[str, Callable[[], Answer]] = {
    "429": lambda: failed(429),
    "500": lambda: failed(500),
    "503": lambda: failed(503),
    "408": lambda: failed(408),
    "dropped": lambda: DROP,
    "half of some JSON": lambda: Answer(b'{"choices": ['),
    "a page": lambda: Answer(b"<html>busy</html>", kind="text/html"),
    "another shape": lambda: Answer({"choices": []}),
    "a list": lambda: Answer([1, 2]),
    "a trickle": lambda: replace(said("late"), pause_s=0.1),
    "too slow": lambda: time.sleep(0.6) or said("late"),  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_request_that_failed_is_asked_again(name: str) -> None:
    with StandIn(lambda asked: FAULTS[name]() if asked.number < 2 else said("at last")) as found:
        engine = open_server(found.url, timeout_s=0.3)
        assert replies(engine, "x") == [Reply("at last", "stop", 2)]
        assert len(found.asked) == 3


def test_pauses_grow_and_after_the_last_try_the_run_stops_to_go_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FIRST_PAUSE_S", 0.08)
    with StandIn(lambda asked: failed(503, "warming up")) as found:
        with pytest.raises(Stopped, match=r"no answer in 4 tries \(last: status 503: warming up\).*goes on") as stopped:
            replies(open_server(found.url, attempts=4), "x")
        times = [asked.at_s for asked in found.asked]
    gaps = [after - before for before, after in pairwise(times)]
    assert stopped.value.exit_code == 5
    assert len(gaps) == 3
    assert all(0.04 * 2**n <= gap <= 0.08 * 2**n + 2 for n, gap in enumerate(gaps))


def test_what_was_answered_before_a_stop_is_given() -> None:
    with StandIn(lambda asked: said("x") if asked.text != "7" else failed(500)) as found:
        drawn = open_server(found.url, attempts=2).generate()(asks(range(9)), SAMPLING)
        assert len(list(islice(drawn, 7))) == 7
        with pytest.raises(Stopped):
            next(drawn)


def test_a_wait_that_is_asked_for_is_kept() -> None:
    with StandIn(lambda asked: failed(429, Retry_After="0.5") if asked.number == 0 else said("x")) as found:
        replies(open_server(found.url, at_once=1), *"abcd")
        assert found.asked[1].at_s - found.asked[0].at_s >= 0.5


def test_a_wait_that_is_asked_for_holds_back_every_request() -> None:
    def script(asked: Asked) -> Answer:
        if asked.number == 0:
            return failed(429, retry_after_ms="600")
        time.sleep(0.2 if asked.number < 3 else 0)
        return said("x")

    with StandIn(script) as found:
        replies(open_server(found.url, at_once=3), *"abcdefgh")
        assert all(asked.at_s - found.asked[0].at_s >= 0.6 for asked in found.asked[3:])


def test_a_wait_may_be_given_as_a_date() -> None:
    from email.utils import formatdate

    assert 8 < wire._wait_s({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10
    assert wire._wait_s({"retry-after": "soon"}) == 0
    assert wire._wait_s({}) == 0


@pytest.mark.parametrize(
    "answer", [failed(429, "come back tomorrow", Retry_After="86400"), failed(429, "no more", "insufficient_quota")]
)
def test_a_limit_that_no_pause_lifts_stops_the_run_at_once(answer: Answer) -> None:
    with StandIn(lambda asked: answer) as found:
        with pytest.raises(Stopped, match=r"in 1 try"):
            replies(open_server(found.url), "x")
        assert len(found.asked) == 1


def test_requests_keep_to_the_rate_allowed(echoing: StandIn) -> None:
    engine = open_server(echoing.url, per_minute=1200)  # one every 50 ms
    replies(engine, *"abcdefghij")
    times = sorted(asked.at_s for asked in echoing.asked)
    assert times[-1] - times[0] >= 9 * 0.05 - 0.02


def test_tokens_keep_to_the_rate_allowed(echoing: StandIn) -> None:
    engine = open_server(echoing.url, tokens_per_minute=60 * 400)
    replies(engine, *(["word " * 20] * 6), sampling=Sampling(max_new_tokens=15))  # 25 tokens in, 15 out: 0.1 s each
    times = sorted(asked.at_s for asked in echoing.asked)
    assert times[-1] - times[0] >= 5 * 0.1 - 0.02


# --- refusals


def test_a_request_that_is_wrong_is_an_error_with_the_servers_words() -> None:
    with StandIn(lambda asked: failed(422, "top_p: want less")) as found:
        with pytest.raises(ConfigError, match=r"status 422: top_p: want less"):
            replies(open_server(found.url), "x")
        assert len(found.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        failed(400, "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens"),
        failed(400, "the request exceeds the available context size. try increasing it", "exceed_context_size_error"),
        failed(400, "please shorten it", "context_length_exceeded"),
        failed(422, "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000"),
        failed(400, "prompt is too long: 210000 tokens > 200000 maximum"),
        Answer({"detail": "The decoder prompt (length 3000) is longer than the maximum model length of 2048"}, 400),
        failed(413, "payload"),
    ],
)
def test_a_prompt_too_long_for_the_model_is_a_reply_of_its_own(answer: Answer) -> None:
    with StandIn(lambda asked: answer if asked.text == "long" else said("x")) as found:
        assert [one.finish for one in replies(open_server(found.url), "a", "long", "b")] == ["stop", "no_room", "stop"]


@pytest.mark.parametrize(
    "answer",
    [
        said(""),
        said(None),
        said("  \n"),
        said("I am sorry", refusal="I cannot"),
        said("half a", "content_filter"),
        failed(400, "filtered", "content_filter"),
        failed(400, "The response was filtered due to the prompt triggering content management policy"),
    ],
)
def test_a_refusal_is_an_empty_reply(answer: Answer) -> None:
    with StandIn(lambda asked: answer) as found:
        (reply,) = replies(open_server(found.url), "x")
        assert (reply.text, reply.finish) == ("", "stop")


def test_an_answer_that_was_cut_off_says_so_and_one_in_parts_is_joined_without_its_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"}, {"type": "text", "text": " it is"}]
    with StandIn(lambda asked: said("and then", "length") if asked.text == "x" else said(parts)) as found:  # type: ignore[arg-type]
        assert [(one.text, one.finish) for one in replies(open_server(found.url, at_once=1), "x", "y")] == [
            ("and then", "length"),
            ("so it is", "stop"),
        ]


def test_a_rule_that_no_endpoint_has_is_refused(echoing: StandIn) -> None:
    with pytest.raises(ConfigError, match=r"no_repeat = 3.*set no_repeat = 0"):
        replies(open_server(echoing.url), "x", sampling=Sampling(no_repeat=3))


def test_an_endpoint_cannot_be_tuned(echoing: StandIn) -> None:
    engine = open_server(echoing.url)
    assert engine.tunes is False
    with pytest.raises(ConfigError, match=r"cannot be tuned.*augment.prompted"):
        engine.fit(None, seed=0)


# --- the health of an endpoint


def test_an_endpoint_that_is_not_there_is_named_with_the_remedy() -> None:
    with StandIn() as gone:
        url = gone.url
    with pytest.raises(ConfigError, match=rf"{url} cannot be reached.*start the endpoint, or set engine.server.url"):
        open_server(url).describe()


def test_an_address_that_is_no_endpoint_is_named_with_the_remedy() -> None:
    page = Answer(b"<html>hello</html>", kind="text/html")
    with (
        StandIn(models=lambda _: page) as found,
        pytest.raises(ConfigError, match=r"cannot be reached.*/v1 included"),
    ):
        open_server(found.url).describe()


def test_a_base_that_is_not_listed_is_named_beside_what_is() -> None:
    with StandIn(models=["llama-3.1-8b", "qwen3-4b:latest"]) as found:
        with pytest.raises(ConfigError, match=r"'llama-3-8b'; it lists 'llama-3.1-8b', .*mean 'llama-3.1-8b'"):
            open_server(found.url, "llama-3-8b").generate()
        assert replies(open_server(found.url, "qwen3-4b"), "x")[0].text == "re x"
        assert replies(open_server(found.url, "deployment-7", unlisted=True), "x")[0].text == "re x"


def test_an_endpoint_that_is_still_starting_is_waited_for() -> None:
    def listing(number: int) -> Answer:
        return failed(503, "loading") if number < 3 else Answer({"data": [{"id": "m"}]})

    with StandIn(models=listing) as found:
        assert replies(open_server(found.url), "x")[0].text == "re x"


@pytest.mark.parametrize("status", [404, 405, 500])
def test_an_endpoint_that_keeps_no_list_is_asked_for_the_base_itself(status: int) -> None:
    with StandIn(models=lambda _: failed(status)) as found:
        assert replies(open_server(found.url), "x")[0].text == "re x"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("localhost:8000/v1", "want http"), ("ftp://host/v1", "want http"), ("http://h:99999/v1", "want http")],
)
def test_an_address_that_is_none_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_server(url)


def test_what_an_endpoint_tells_of_a_model_bounds_it_and_what_changes_from_call_to_call_is_left_out() -> None:
    entry = {"id": "m", "root": "org/m", "max_model_len": 777, "permission": [{"id": "p-1"}]}
    with StandIn(models=[entry]) as found:
        engine = open_server(found.url)
        assert engine.max_tokens == 777
        assert engine.describe()["served"] == {"root": "org/m", "max_model_len": 777}
        assert engine.describe() == open_server(found.url).describe()
        assert open_server(found.url).describe()["url"] == found.url


# --- keys


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_a_key_reaches_the_endpoint_and_nothing_else(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    page = failed(status, f"Incorrect key {KEY} in " + "x" * 350 + KEY)
    with StandIn(lambda asked: page if status != 200 else said("x")) as found:
        engine = open_server(found.url, key_env="PLANTED_KEY", attempts=2)
        told.append(json.dumps(engine.describe()))
        try:
            replies(engine, "x")
        except (ConfigError, Stopped) as error:
            told.append("".join(traceback.format_exception(error)))
            told.append(repr(error.__context__) + repr(error.__cause__))
        assert found.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert status == 200 or "***" in told[-2]
    assert KEY not in "".join(told) + caplog.text
    assert KEY[:12] not in "".join(told)


def test_a_key_that_is_missing_or_wrong_is_asked_for_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANTED_KEY", raising=False)
    with StandIn(lambda asked: failed(401, "no key"), models=lambda _: failed(401, "no key")) as found:
        with pytest.raises(ConfigError, match=r"asks for a key.*PLANTED_KEY is not set"):
            open_server(found.url, key_env="PLANTED_KEY").generate()
        monkeypatch.setenv("PLANTED_KEY", KEY)
        with pytest.raises(ConfigError, match=r"PLANTED_KEY is set, but not to a key it takes"):
            open_server(found.url, key_env="PLANTED_KEY").generate()


@pytest.mark.parametrize("url", [f"http://me:{KEY}@127.0.0.1:1/v1", f"http://127.0.0.1:1/v1?api-key={KEY}"])
def test_an_address_that_holds_a_key_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"engine.server.key_env") as refused:
        open_server(url)
    assert KEY not in "".join(traceback.format_exception(refused.value))


# --- dialects


def test_an_endpoint_without_chat_is_asked_by_plain_completions() -> None:
    for status in (404, 400, 500):

        def script(asked: Asked, status: int = status) -> Answer:
            return failed(status, "no chat template") if "messages" in asked.body else wrote("plain")

        with StandIn(script, probes=True) as found:
            engine = open_server(found.url)
            assert replies(engine, "x")[0].text == "plain"
            assert engine.describe()["speaks"] == "text"


def test_what_an_endpoint_does_not_take_is_left_out_and_told() -> None:
    def script(asked: Asked) -> Answer:
        if "max_tokens" in asked.body:
            return failed(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return failed(422, "Extra inputs are not permitted: seed") if "seed" in asked.body else said("x")

    with StandIn(script, probes=True) as found:
        engine = open_server(found.url)
        replies(engine, "x")
        assert found.asked[-1].body["max_completion_tokens"] == 16
        assert engine.describe()["seeded"] is False


def test_an_endpoint_that_is_down_is_not_taken_for_one_without_chat() -> None:
    def script(asked: Asked) -> Answer:
        return failed(503) if "messages" in asked.body else wrote("plain")

    with StandIn(script, probes=True) as found, pytest.raises(Stopped):
        open_server(found.url).generate()


# --- lengths


def test_a_body_that_is_too_long_is_cut_and_nothing_else_is(echoing: StandIn) -> None:
    engine = open_server(echoing.url, context=256)
    long = Prompt("before ", "word " * 1000, " after")
    list(engine.generate()([Ask(long)], SAMPLING))
    sent = echoing.asked[0].text
    assert sent.startswith("before word")
    assert sent.endswith(" after")
    assert 400 < len(sent) <= 4 * 256
    assert [r.finish for r in engine.generate()([Ask(Prompt("word " * 1000, "x"))], SAMPLING)] == ["no_room"]
    assert len(echoing.asked) == 1


def test_tokens_are_counted_where_a_tokenizer_lies_here_and_estimated_elsewhere(
    echoing: StandIn, small: Path, local: LocalEngine
) -> None:
    text = "The tide rises twice a day."
    counted = open_server(echoing.url, tokenizer=str(small))
    assert counted.count_tokens(text) == local.count_tokens(text)
    assert open_server(echoing.url).count_tokens(text) == math.ceil(len(text) / 4)
    with pytest.raises(ConfigError, match=r"engine.server.tokenizer = 'nobody/nothing'"):
        open_server(echoing.url, tokenizer="nobody/nothing").count_tokens(text)


def test_a_body_is_cut_by_the_tokenizer_where_it_lies_here(echoing: StandIn, small: Path) -> None:
    engine = open_server(echoing.url, tokenizer=str(small), context=256)
    list(engine.generate()([Ask(Prompt("Text: ", "tides and boats " * 400, "\nEnd"))], SAMPLING))
    sent = echoing.asked[0].text
    assert sent.endswith("\nEnd")
    assert 160 <= engine.count_tokens(sent) <= 256 - 16


# --- log-probabilities, with the numbers of a real model


@pytest.fixture
def weighing(local: LocalEngine, small: Path) -> Iterator[ServerEngine]:
    with StandIn(weigh_by(local), models=[str(small)]) as found:
        yield open_server(found.url, str(small), speaks="text", context=local.max_tokens)


def test_likelihoods_are_those_of_the_same_base_here(weighing: ServerEngine, local: LocalEngine) -> None:
    rows = [
        example("The tide rises.", "Why is the harbour dry?", before="Request: ", after="\nAnswer:\n"),
        example("x", "y" * 3000, before="Say: "),
        example("no room for this " * 200, "z"),
    ]
    served, here = list(weighing.likelihood()(rows)), list(local.likelihood()(rows))
    assert served[2] is None
    assert here[2] is None
    for one, other in zip(served[:1], here[:1], strict=True):
        assert one is not None
        assert other is not None
        assert one.total == pytest.approx(other.total, abs=1e-3)
        assert one.tokens == other.tokens


def test_choices_weigh_as_with_the_same_base_here_and_what_is_not_shown_lies_outside(
    weighing: ServerEngine, local: LocalEngine
) -> None:
    import torch

    prompts = [Prompt("The tide ", "rises in the harbour", ". Score:")]
    ids = local.tokens.prompt(prompts[0], 200)
    assert ids is not None
    with torch.inference_mode():
        shares = local.causal(torch.tensor([ids[0]])).logits[0, -1].softmax(-1)
    order = [local.tokens.decode([one]) for one in shares.argsort(descending=True).tolist()]
    words = [text.strip() for text in order[:20] if text.startswith(" ") and text[1:].isalpha()]
    unseen = next(t.strip() for t in order[3000:] if t.startswith(" ") and t[1:].isalpha() and len(t) > 3)
    choices = [words[0], words[1], unseen]
    (served,), (here,) = weighing.choose()(prompts, choices), local.choose()(prompts, choices)
    assert served is not None
    assert here is not None
    assert served.probabilities[:2] == pytest.approx(here.probabilities[:2], abs=1e-3)
    assert served.probabilities[2] == 0 < here.probabilities[2]
    assert sum(served.probabilities) + served.outside == pytest.approx(1)


def test_a_choice_counts_with_its_space_without_it_and_after_a_token_that_is_only_a_space() -> None:
    log = math.log
    first = Place(" ", [(" ", log(0.6)), ("4", log(0.1)), (" 4", log(0.05)), (" 5", log(0.02)), ("no", log(0.2))])
    second = Place("4", [("4", log(0.5)), ("5", log(0.25)), (" 4", log(0.2))])
    found = weigh([first, second], ["4", "5", "6"])
    assert found.probabilities == pytest.approx((0.1 + 0.05 + 0.6 * 0.5, 0.02 + 0.6 * 0.25, 0))
    assert found.outside == pytest.approx(1 - 0.45 - 0.17)
    assert weigh([first._replace(written="no"), second], ["4"]).probabilities == pytest.approx((0.15,))
    assert weigh([], ["4"]).outside == 1


def test_choices_are_read_from_a_chat_and_with_as_many_tokens_as_it_shows() -> None:
    def script(asked: Asked) -> Answer:
        if asked.body.get("top_logprobs", 0) > 5:
            return failed(400, "top_logprobs must be at most 5")
        if asked.text == "none":
            return failed(400, "maximum context length is 10")
        shown = [{"token": "4", "logprob": math.log(0.75)}, {"token": "3", "logprob": math.log(0.125)}]
        place = {"token": "4", "logprob": math.log(0.75), "top_logprobs": shown}
        made = said("4")
        if asked.body.get("logprobs"):
            made.body["choices"][0]["logprobs"] = {"content": [place]}
        return made

    with StandIn(script, probes=True) as found:
        choose = open_server(found.url).choose()
        one, none = choose([Prompt("Score:", ""), Prompt("none", "")], ["3", "4", "5"])
        assert none is None
        assert one is not None
        assert one.probabilities == pytest.approx((0.125, 0.75, 0))
        assert one.outside == pytest.approx(0.125)


def test_an_endpoint_that_weighs_only_what_it_writes_gives_no_likelihood(small: Path) -> None:
    short = {"tokens": ["x"], "token_logprobs": [-0.5], "top_logprobs": [{"x": -0.5}]}
    with (
        StandIn(lambda asked: wrote("x", logprobs=short), models=[str(small)]) as found,
        pytest.raises(ConfigError, match=r"does not tell.*name `reasoned`, or `expected`"),
    ):
        open_server(found.url, str(small), speaks="text").likelihood()


def test_a_likelihood_needs_the_tokenizer(echoing: StandIn) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer of the served model.*engine.server.tokenizer"):
        open_server(echoing.url).likelihood()


# --- adapters


@pytest.fixture(scope="module")
def adapter(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("05-backward") / "adapter", small, seed=1)


def asked_name(model: Path, listed: list[Any], script: Callable[[Asked], Answer] | None = None) -> str:
    """Return the name under which a model is asked for at an endpoint that lists these."""
    with StandIn(script or (lambda asked: wrote("x")), models=listed) as found:
        list(open_server(found.url).generate(model)(asks(["x"]), SAMPLING))
        assert found.asked[-1].path == "/completions"  # it was tuned on plain text
        return str(found.asked[-1].body["model"])


def test_an_adapter_is_asked_for_by_the_name_it_is_listed_under(adapter: Path) -> None:
    both = f"{adapter.parent.name}/{adapter.name}"
    assert asked_name(adapter, ["m", "adapter"]) == "adapter"
    assert asked_name(adapter, ["m", "adapter", both]) == both
    assert asked_name(adapter, ["m", "adapter", {"id": "mine", "root": str(adapter)}]) == "mine"


def test_an_adapter_of_another_folder_is_not_taken_for_ours(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    theirs = {"id": "adapter", "root": str(tmp_path / "adapter")}
    name = asked_name(adapter, ["m", theirs], lambda asked: wrote("x") if "prompt" in asked.body else Answer("done"))
    assert name.startswith(f"{adapter.parent.name}-adapter-")


def test_an_adapter_that_is_not_listed_is_loaded_where_the_endpoint_does_that(adapter: Path) -> None:
    loaded: list[dict[str, Any]] = []

    def script(asked: Asked) -> Answer:
        if asked.path == "/load_lora_adapter":
            loaded.append(asked.body)
            return Answer(b"Success: added", kind="text/plain")
        return wrote("x")

    assert asked_name(adapter, ["m"], script) == loaded[0]["lora_name"]
    assert loaded[0]["lora_path"] == str(adapter)


def test_an_adapter_that_is_not_served_says_how_to_serve_it(adapter: Path) -> None:
    with (
        StandIn(lambda asked: failed(404, "not found")) as found,
        pytest.raises(ConfigError, match=rf"--lora-modules .*={adapter}"),
    ):
        open_server(found.url).generate(adapter)


def test_a_folder_in_which_nothing_was_tuned_means_the_base(echoing: StandIn, tmp_path: Path) -> None:
    (tmp_path / "askback.json").write_text("{}", encoding="utf-8")
    list(open_server(echoing.url).generate(tmp_path)(asks(["x"]), SAMPLING))
    assert echoing.asked[0].body["model"] == "m"
    with pytest.raises(ConfigError, match=r"no such folder"):
        open_server(echoing.url).generate(tmp_path / "absent")


# --- around it


def test_a_run_file_opens_it_by_its_kind(echoing: StandIn) -> None:
    options = EngineOptions(kind="server", base="m", server=ServerOptions(url=echoing.url))
    assert isinstance(open_engine(options), ServerEngine)


def test_the_thread_of_an_endpoint_ends_with_it(echoing: StandIn) -> None:
    found = Endpoint(ServerOptions(url=echoing.url))
    assert found.ask(Call("/models", None, lambda listed: len(listed["data"]))) == 1
    ours = [one for one in threading.enumerate() if one.name == "askback-endpoint"]
    found.close()
    ends = time.monotonic() + 2
    while all(one.is_alive() for one in ours) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not all(one.is_alive() for one in ours)
