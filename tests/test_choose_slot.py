"""The answer slot, whatever the tokenizer: with the space, without it, split, merged, or both in one vocabulary."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest

from askback.engines.local import LocalEngine
from askback.engines.tokens import Slot, Tokens
from askback.errors import ConfigError
from askback.ports import Choice, Prompt
from askback.prompts import ASK_SCORE, DIGITS
from models import embedded_tokenizer, llama_tokenizer, open_local, write_mini_llama

AFTER = f"\n=== end\n\n{ASK_SCORE}"


def wrapped(model: Any, before: Any, decoder: Any) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(model)
    made.pre_tokenizer = before
    made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>")


def byte_level(merged: Sequence[str] = (), *, single_digits: bool = False) -> Any:
    """Byte-level BPE that knows single bytes and, of all longer pieces, a space with each of some digits."""
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġ{digit}" for digit in merged)]
    bpe = models.BPE(vocab={text: n for n, text in enumerate(pieces)}, merges=[("Ġ", digit) for digit in merged])
    apart = [pre_tokenizers.Digits(individual_digits=True)] if single_digits else []
    before = pre_tokenizers.Sequence([*apart, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return wrapped(bpe, before, decoders.ByteLevel())


def word_piece(digits: Sequence[str] = DIGITS) -> Any:
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["<unk>", "</s>", "Score", ":", "=", "end", *digits, *(f"##{digit}" for digit in digits)]
    model = models.WordPiece({text: n for n, text in enumerate(pieces)}, unk_token="<unk>")
    return wrapped(model, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece())


def unigram() -> Any:
    from tokenizers import decoders, models, pre_tokenizers

    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -5.0), (":", -4.0), *((letter, -6.0) for letter in "Scoren d=\n")]
    pieces += [(text, -3.0) for digit in DIGITS for text in (digit, f"▁{digit}")]
    return wrapped(models.Unigram(pieces, unk_id=0), pre_tokenizers.Metaspace(), decoders.Metaspace())


KINDS: dict[str, Callable[[], Any]] = {
    "embedded": embedded_tokenizer,
    "merged": partial(byte_level, DIGITS),
    "bytes": byte_level,
    "split": partial(byte_level, single_digits=True),
    "mixed": partial(byte_level, "5"),
    "word_piece": word_piece,
    "unigram": unigram,
}
WAYS = {
    # kind: the last piece before the slot, how "4" is written there, how "5" is
    "embedded": (":", {("Ġ4",), ("4",)}, {("Ġ5",), ("5",)}),
    "merged": (":", {("Ġ4",), ("4",)}, {("Ġ5",), ("5",)}),
    "bytes": ("Ġ", {("4",)}, {("5",)}),
    "split": ("Ġ", {("4",)}, {("5",)}),
    "mixed": (":", {("Ġ", "4"), ("4",)}, {("Ġ5",), ("5",)}),
    "word_piece": (":", {("4",)}, {("5",)}),
    "unigram": (":", {("▁4",), ("4",)}, {("▁5",), ("5",)}),
    "llama": ("▁", {("4",)}, {("5",)}),
}


@pytest.fixture(params=WAYS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokens(request: pytest.FixtureRequest, kind: str) -> Tokens:
    if kind == "llama":
        return Tokens(llama_tokenizer(request.getfixturevalue("shared")))
    return Tokens(KINDS[kind]())


def test_every_digit_is_found_in_every_form_the_tokenizer_gives_it(tokens: Tokens, kind: str) -> None:
    def named(ways: Sequence[Sequence[int]]) -> set[tuple[str, ...]]:
        return {tuple(tokens.tokenizer.convert_ids_to_tokens(list(way))) for way in ways}

    slot = tokens.choice_slot(AFTER, DIGITS)
    last, four, five = WAYS[kind]
    assert tokens.tokenizer.convert_ids_to_tokens(slot.lead[-1]) == last
    assert (named(slot.ways[3]), named(slot.ways[4])) == (four, five)


def test_the_slot_is_where_a_written_score_would_stand(tokens: Tokens) -> None:
    slot = tokens.choice_slot(AFTER, DIGITS)
    for ways, digit in zip(slot.ways, DIGITS, strict=True):
        assert tokens.encode(f"{AFTER} {digit}") in [[*slot.lead, *way] for way in ways]


def test_no_ids_count_twice(tokens: Tokens) -> None:
    ways = [way for own in tokens.choice_slot(AFTER, DIGITS).ways for way in own]
    assert len({*ways}) == len(ways)
    assert not [(a, b) for a in ways for b in ways if a != b and b[: len(a)] == a]


def test_one_pass_is_enough_unless_one_vocabulary_writes_digits_both_ways(tokens: Tokens, kind: str) -> None:
    steps = tokens.choice_slot(AFTER, DIGITS).steps
    assert len(steps) == (2 if kind == "mixed" else 1)
    assert () in steps


def test_sentencepiece_itself_puts_the_digit_in_the_slot(shared: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    real = sentencepiece.SentencePieceProcessor(model_file=str(shared / "tokenizers" / "llama2_tokenizer.model"))
    slot = Tokens(llama_tokenizer(shared)).choice_slot(ASK_SCORE, DIGITS)
    written = [[*slot.lead, *way] for [way] in slot.ways]
    assert written == [real.encode(f"{ASK_SCORE} {digit}") for digit in DIGITS]


# --- refusals


@pytest.mark.parametrize("choices", [["the", "the the"], ["one", "one"], ["1", "10"]])
def test_choices_of_which_one_begins_another_are_refused(choices: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"does not tell .* apart"):
        Tokens(byte_level()).choice_slot("A:", choices)


@pytest.mark.parametrize("known", [(), ("1", "2", "4", "5")])
def test_a_digit_without_an_id_is_refused_and_the_message_names_it(known: Sequence[str]) -> None:
    missing = next(digit for digit in DIGITS if digit not in known)
    with pytest.raises(ConfigError, match=f"no ids for '{missing}'"):
        Tokens(word_piece(known)).choice_slot(AFTER, DIGITS)


# --- weights


def test_ways_of_one_choice_add_up_and_the_ids_of_one_way_multiply() -> None:
    slot = Slot((7,), (((1,), (2, 3)), ((4,),)))
    assert slot.steps == {(): {1, 2, 4}, (2,): {3}}
    found = slot.weigh({(1,): 0.25, (2,): 0.5, (2, 3): 0.5, (4,): 0.125})
    assert found == Choice((0.5, 0.125), 0.375)


def by_hand(engine: LocalEngine, prompt: Prompt, choices: Sequence[str]) -> list[float]:
    """Return the chance of each choice as the logits of whole rows give it, a token at a time."""
    import torch

    def chance(ids: Sequence[int], token: int) -> float:
        with torch.no_grad():
            logits = engine.causal(input_ids=torch.tensor([list(ids)])).logits[0, -1]
        return float(torch.softmax(logits.double(), -1)[token])

    slot = engine.tokens.choice_slot(prompt.after, choices)
    ids = [*engine.tokens.start, *engine.tokens.encode(prompt.before), *engine.tokens.encode(prompt.body), *slot.lead]
    return [
        sum(prod(chance([*ids, *way[:n]], token) for n, token in enumerate(way)) for way in ways) for ways in slot.ways
    ]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    return open_local(write_mini_llama(tmp_path_factory.mktemp("mixed"), byte_level("5")))


@pytest.mark.parametrize("choices", [DIGITS, ("poor", "fair", "excellent")], ids=["digits", "words"])
def test_choices_of_several_ids_weigh_what_the_chain_of_their_tokens_does(
    mixed: LocalEngine, choices: Sequence[str]
) -> None:
    prompts = [Prompt("A grade for this text please: ", text, AFTER) for text in ("the sea", "a stone", "ships")]
    for prompt, found in zip(prompts, mixed.choose()(prompts, choices), strict=True):
        expected = by_hand(mixed, prompt, choices)
        assert found is not None
        assert found.probabilities == pytest.approx(expected, abs=1e-6, rel=1e-4)
        assert found.outside == pytest.approx(1 - sum(expected), abs=1e-6)


def test_an_empty_prompt_has_a_slot_too(mixed: LocalEngine) -> None:
    [found] = mixed.choose()([Prompt("", "")], ["a", "b"])
    assert found is not None
    assert sum(found.probabilities) + found.outside == pytest.approx(1)
