"""A shared beginning is read once, and nobody can tell from the numbers: batch, order, adapter or architecture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from askback.engines.bases import EMBEDDED
from askback.engines.local import LocalEngine
from askback.engines.prefix import SHORTEST, Prefix, by_beginning, next_logits, reads_prefixes, shared_length
from askback.engines.shared import TESTED
from askback.ports import Choice, Prompt
from askback.prompts import ASK_SCORE, DIGITS, build_rubric
from askback.records import Pair
from models import open_local, write_adapter

WORDS = "the sea is salt and deep so ships may sail where fishes sleep a letter lamp under stone".split()
SHORT = "Grade how well a text answers a request: 1 is poor, 5 is excellent.\n{instruction}\n{output}\n{fence}\n"
"""The built-in rubric is longer than the 256 tokens that one of these bases reads."""
ROWS = 7


def text(seed: int, longest: int = 20) -> str:
    random = Random(seed)
    return " ".join(random.choices(WORDS, k=random.randint(1, longest)))


def questions(rubric: str = SHORT, first: int = 0) -> list[Prompt]:
    pairs = [Pair(id=str(n), instruction=text(n, 6), output=text(100 + n)) for n in range(first, first + ROWS)]
    return [build_rubric(rubric).prompt(pair, reasons=False) for pair in pairs]


def chosen(engine: LocalEngine, prompts: Sequence[Prompt], model: Path | None = None) -> list[Choice]:
    found = list(engine.choose(model)(prompts, DIGITS))
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def same(found: Sequence[Choice], wanted: Sequence[Choice]) -> bool:
    return [(*c.probabilities, c.outside) for c in found] == [
        pytest.approx((*c.probabilities, c.outside), abs=1e-5) for c in wanted
    ]


@contextmanager
def read_whole(engine: LocalEngine) -> Iterator[None]:
    engine.shares_prefixes = False
    yield
    engine.shares_prefixes = True


@contextmanager
def watched(engine: LocalEngine) -> Iterator[list[tuple[int, int, int]]]:
    """Note every pass over more than one row or a long beginning: (rows, new tokens, tokens remembered)."""
    passes: list[tuple[int, int, int]] = []

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        known = given.get("past_key_values")
        passes.append((*given["input_ids"].shape, known.get_seq_length() if known is not None else 0))

    hook = engine.causal.base_model.register_forward_pre_hook(note, with_kwargs=True)
    yield passes
    hook.remove()


@pytest.fixture(scope="module", params=["embedded", "grouped"])
def engine(request: pytest.FixtureRequest) -> LocalEngine:
    """The embedded base, and a mini Llama of which two query heads share one key."""
    base = EMBEDDED if request.param == "embedded" else request.getfixturevalue("mini_base")
    return open_local(base)


@pytest.fixture(scope="module")
def mini(mini_base: Path) -> LocalEngine:
    return open_local(mini_base)


@pytest.fixture(scope="module")
def adapter(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"), Path(engine.base.path), seed=3)


# --- the same numbers


@pytest.mark.parametrize("tuned", [False, True], ids=["base", "adapter"])
def test_a_shared_beginning_changes_no_probability(engine: LocalEngine, adapter: Path, tuned: bool) -> None:
    model = adapter if tuned else None
    together = chosen(engine, questions(), model)
    with read_whole(engine):
        apart = chosen(engine, questions(), model)
    assert same(together, apart)
    assert len({choice.probabilities for choice in together}) == ROWS


def test_the_beginning_is_read_by_the_model_that_is_asked(engine: LocalEngine, adapter: Path) -> None:
    bare, tuned = (chosen(engine, questions(), model) for model in (None, adapter))
    assert not same(bare, tuned)
    assert same(chosen(engine, questions()), bare)


@pytest.mark.parametrize("batch_tokens", [64, 150, 400])
def test_batch_and_order_change_nothing(mini_base: Path, mini: LocalEngine, batch_tokens: int) -> None:
    small = open_local(mini_base, batch_tokens=batch_tokens)
    there = chosen(mini, questions())
    assert same(chosen(small, questions()), there)
    assert same(chosen(small, questions()[::-1])[::-1], there)
    assert same([chosen(mini, [prompt])[0] for prompt in questions()], there)


def test_two_rubrics_short_rows_and_equal_rows_mix(mini: LocalEngine) -> None:
    other = questions("You weigh an answer and give it points. " + SHORT, first=3)
    short = [Prompt("", "the sea", ASK_SCORE), Prompt("", "a stone", ASK_SCORE)]
    mixed = [p for rows in zip(questions(), other, strict=True) for p in rows] + short + questions()[:2] * 2
    with watched(mini) as passes:
        together = chosen(mini, mixed)
    with read_whole(mini):
        assert same(together, chosen(mini, mixed))
    assert len({known for *_, known in passes if known}) == 2


@pytest.mark.parametrize("kind", sorted(TESTED))
def test_every_tested_architecture_reads_on_as_if_it_had_read_whole(kind: str) -> None:
    network, random = build(kind), Random(5)
    start = [random.randrange(90) for _ in range(SHORTEST + 9)]
    rows = [(*start, *(random.randrange(90) for _ in range(size))) for size in (3, 1, 8, 5, 5)]
    shared, whole = (logits_of(network, rows, share=share) for share in (True, False))
    assert reads_prefixes(network)
    assert shared == [pytest.approx(one, abs=1e-5) for one in whole]


def build(kind: str, **settings: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    window = {"sliding_window": None} if kind == "mistral" else {}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = AutoConfig.for_model(kind, **(small | heads | window | settings))
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logits_of(network: Any, rows: Sequence[tuple[int, ...]], *, share: bool) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for positions, logits in next_logits(network, rows, pad=0, batch_tokens=90, share=share):
        found |= dict(zip(positions, logits.tolist(), strict=True))
    assert sorted(found) == list(range(len(rows)))
    return [found[position] for position in range(len(rows))]


# --- read once, within the budget


@pytest.mark.parametrize("batch_tokens", [64, 200, 8192])
def test_the_beginning_is_read_once_however_many_batches_follow(mini_base: Path, batch_tokens: int) -> None:
    engine = open_local(mini_base, batch_tokens=batch_tokens)
    chosen(engine, questions()[:1])  # a first call tries the head
    with watched(engine) as passes:
        chosen(engine, questions())
    (rows, lead, known), *others = passes
    assert (rows, known) == (1, 0)
    assert lead > SHORTEST
    assert {known for *_, known in others} == {lead}
    assert sum(rows for rows, *_ in others) == ROWS


@pytest.mark.parametrize("batch_tokens", [150, 300, 700])
def test_remembered_tokens_count_for_every_row_of_a_batch(mini_base: Path, batch_tokens: int) -> None:
    engine = open_local(mini_base, batch_tokens=batch_tokens)
    with watched(engine) as passes:
        chosen(engine, questions())
    assert all(rows == 1 or rows * (new + known) <= batch_tokens for rows, new, known in passes)


def test_reading_on_leaves_the_beginning_as_it_was(mini: LocalEngine) -> None:
    import torch

    lead = tuple(range(20, 40))
    prefix = Prefix(mini.causal, lead)
    rows = [(*lead, 50, 51, 52), (*lead, 60)]
    first, other, again = (prefix.logits_after(batch, 0) for batch in (rows, [(*lead, 9)] * 3, rows))
    assert torch.equal(first, again)
    assert other.shape[0] == 3


# --- where nothing is shared


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
        ("gpt_neox", {}),
    ],
    ids=["window", "window_switch", "angles_by_length", "untested"],
)
def test_a_network_whose_result_might_differ_reads_every_row_whole(kind: str, settings: dict[str, Any]) -> None:
    network = build(kind, **settings)
    rows = [(*range(30), 40 + n) for n in range(3)]
    assert not reads_prefixes(network)
    assert logits_of(network, rows, share=True) == logits_of(network, rows, share=False)


def test_a_head_that_does_more_than_one_product_reads_every_row_whole() -> None:
    network = build("llama")
    plain = network.forward

    def halved(*args: Any, **given: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=plain(*args, **given).logits / 2)

    network.forward = halved
    assert not reads_prefixes(network)


# --- what is shared


@pytest.mark.parametrize("seed", range(8))
def test_what_rows_share_is_all_of_it_and_leaves_each_its_last_token(seed: int) -> None:
    random = Random(seed)
    rows = [tuple(random.choices([1, 2], weights=[9, 1], k=random.randint(2, 9))) for _ in range(3)]
    length = shared_length(rows)
    assert len({row[:length] for row in rows}) == 1
    assert all(length < len(row) for row in rows)
    assert length + 1 == min(map(len, rows)) or len({row[: length + 1] for row in rows}) > 1


def test_rows_are_grouped_by_a_beginning_worth_a_pass_and_none_is_lost() -> None:
    lead, other = tuple(range(SHORTEST)), tuple(range(50, 50 + SHORTEST))
    rows = [(*lead, 1), other, (*lead, 2, 3), (*other, 1), lead[:4], lead[:4], (*lead[:-1], 99, 1), (*lead, 1)]
    assert by_beginning(rows) == ([1, 3, 4, 5, 6], [[0, 2, 7]])
    assert by_beginning([]) == ([], [])
