"""What carries loss: the target and one stop token, with real tokenizers and text of every kind."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from askback.engines.bases import Base, load_tokenizer
from askback.engines.batches import pad_right
from askback.engines.tokens import Row, Tokens
from askback.errors import ConfigError
from askback.ports import Example, Prompt
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT
from askback.records import Pair, Verdict
from models import embedded_tokenizer, example, llama_tokenizer

LAYOUTS = {"backward": BACKWARD_LAYOUTS["asked"], "forward": FORWARD_LAYOUT}
FRAGMENTS = [
    *["the", "Write", " a", " letter", "e", "Q", "7", "10", ".", "?", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t"],
    *["漢字", "かな", "한국어", "。", "עברית", "مرحبا", "\u202e", "\u200f", "हिन्दी", "ไทย", "Ж", "ß", "ﬁ", "½"],
    *["🙂", "👩‍👩‍👧", "🇨🇭", "👍🏽", "e\u0301", "\u0301", "a\u0323\u0307", "\u200b", "\u200d", "\ufeff", "\xa0", "\x00"],
    *["\u2028", "\u2029", "\x85", "\x0b", "\U000e0041", "\ufffd", "\U0010ffff", "{", "{output}", "\\n", '"', "\x1b"],
    *["</s>", "<s>", "<unk>", "<pad>", "<|im_end|>", "<|im_start|>", "[INST]", "[/INST]", "<<SYS>>", "<0x0A>", "<s"],
]


def odd_text(random: Random) -> str:
    return "".join(random.choices(FRAGMENTS, k=random.randint(1, 24)))


def odd_pairs(count: int) -> list[Pair]:
    random = Random(7)
    kinds = ("seed", "augmented")
    return [
        Pair(id=str(n), instruction=odd_text(random), output=odd_text(random), kind=kinds[n % 2]) for n in range(count)
    ]


PAIRS = odd_pairs(1000)


@pytest.fixture(scope="module", params=["embedded", "llama"])
def tokens(request: pytest.FixtureRequest) -> Tokens:
    if request.param == "embedded":
        return Tokens(embedded_tokenizer())
    return Tokens(llama_tokenizer(request.getfixturevalue("shared")))


@pytest.fixture(scope="module")
def rows(tokens: Tokens) -> dict[str, list[tuple[Row, Example]]]:
    """Every pair in both directions, with all the room it needs."""
    examples = {name: [layout.training_example(pair) for pair in PAIRS] for name, layout in LAYOUTS.items()}
    return {name: [(whole_row(tokens, e), e) for e in found] for name, found in examples.items()}


def whole_row(tokens: Tokens, wanted: Example, most: int = 1 << 20) -> Row:
    row = tokens.row(wanted, most)
    assert isinstance(row, Row), row
    return row


def test_a_backward_row_learns_the_instruction_and_a_forward_row_the_output() -> None:
    for pair in PAIRS:
        assert LAYOUTS["backward"].training_example(pair).target == pair.instruction
        assert LAYOUTS["forward"].training_example(pair).target == pair.output


@pytest.mark.parametrize("direction", LAYOUTS)
def test_the_trainable_span_is_the_target_and_exactly_one_stop_token(
    tokens: Tokens, rows: dict[str, list[tuple[Row, Example]]], direction: str
) -> None:
    """Holds to the character for both: Llama adds one space in front and its decoder takes just that one away."""
    for row, wanted in rows[direction]:
        assert row.target[-1] == tokens.stop
        assert tokens.stop not in row.target[:-1]
        assert tokens.decode(row.target[:-1]) == wanted.target


@pytest.mark.parametrize("direction", LAYOUTS)
def test_labels_are_the_span_and_minus_100_everywhere_else(
    tokens: Tokens, rows: dict[str, list[tuple[Row, Example]]], direction: str
) -> None:
    made = [row for row, _ in rows[direction]]
    for start in range(0, len(made), 50):
        batch = made[start : start + 50]
        ids, mask, labels = pad_right(batch, tokens.pad)
        for k, row in enumerate(batch):
            rest = labels.shape[1] - len(row)
            assert labels[k].tolist() == [-100] * len(row.prompt) + list(row.target) + [-100] * rest
            assert ids[k].tolist() == [*row.prompt, *row.target] + [tokens.pad] * rest
            assert mask[k].tolist() == [1] * len(row) + [0] * rest


@pytest.mark.parametrize("direction", LAYOUTS)
def test_there_is_one_start_token_and_no_control_token_comes_from_a_text(
    tokens: Tokens, rows: dict[str, list[tuple[Row, Example]]], direction: str
) -> None:
    special = set(tokens.tokenizer.all_special_ids)
    for row, _ in rows[direction]:
        ids = [*row.prompt, *row.target]
        assert ids[0] == tokens.tokenizer.bos_token_id
        assert not special & set(ids[1:-1])


@pytest.mark.parametrize("direction", LAYOUTS)
def test_the_prompt_decodes_to_the_words_of_the_layout_and_the_text_unharmed(tokens: Tokens, direction: str) -> None:
    for pair in PAIRS[:200]:
        prompt = LAYOUTS[direction].training_example(pair).prompt
        made = tokens.prompt(prompt, 1 << 20)
        assert made is not None
        parts = [tokens.encode(part) for part in (prompt.before, prompt.body, prompt.after)]
        assert made == ([*tokens.start, *parts[0], *parts[1], *parts[2]], 0)
        assert [tokens.decode(ids) for ids in parts] == [prompt.before, prompt.body, prompt.after]


def test_the_one_character_llama_cannot_tell_apart_is_its_own_mark_for_a_space(shared: Path) -> None:
    tokens = Tokens(llama_tokenizer(shared))
    assert tokens.decode(tokens.encode("a\u2581b")) == "a b"
    assert tokens.decode(tokens.encode("  a b  ")) == "  a b  "


def test_a_long_output_is_cut_at_its_end_and_the_instruction_never(tokens: Tokens) -> None:
    layout, cut_rows = LAYOUTS["backward"], 0
    for pair in PAIRS[:300]:
        whole = whole_row(tokens, layout.training_example(pair))
        body = len(tokens.encode(pair.output))
        for lost in {1, body // 2, body - 1} - {0, body, -1}:
            row = whole_row(tokens, layout.training_example(pair), len(whole) - lost)
            after = tokens.encode(layout.after)
            kept = len(whole.prompt) - lost - len(after)
            assert (row.target, row.cut) == (whole.target, lost)
            assert row.prompt == (*whole.prompt[:kept], *after)
            cut_rows += 1
    assert cut_rows > 300


def test_a_row_that_fits_exactly_loses_nothing(tokens: Tokens) -> None:
    wanted = LAYOUTS["backward"].training_example(PAIRS[0])
    whole = whole_row(tokens, wanted)
    assert whole_row(tokens, wanted, len(whole)) == whole
    assert whole.cut == 0


def test_what_leaves_no_room_for_the_text_is_rejected_with_its_reason(tokens: Tokens) -> None:
    for pair in PAIRS[:100]:
        target = len(tokens.encode(pair.instruction)) + 1
        verdict = tokens.row(LAYOUTS["backward"].training_example(pair), target + 3)
        assert isinstance(verdict, Verdict)
        assert not verdict.keep
        assert (verdict.reason, str(target - 1) in verdict.detail) == ("too_long", True)


def test_a_forward_row_is_rejected_rather_than_cut(tokens: Tokens) -> None:
    wanted = LAYOUTS["forward"].training_example(PAIRS[1])
    whole = whole_row(tokens, wanted)
    verdict = tokens.row(wanted, len(whole) - 1)
    assert isinstance(verdict, Verdict)
    assert verdict.reason == "too_long"


def test_an_empty_target_is_rejected_as_holding_no_label(tokens: Tokens) -> None:
    verdict = tokens.row(example("", "a body"), 100)
    assert isinstance(verdict, Verdict)
    assert (verdict.keep, verdict.reason) == (False, "no_label")


# --- tokenizers with and without their special tokens


def changed_tokenizer(**tokens: Any) -> Any:
    """Return the embedded tokenizer with other special tokens and, where given, another template."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    template = tokens.pop("template", "<s> $A")
    backend = embedded_tokenizer().backend_tokenizer
    ids = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)


def test_a_stop_token_that_also_pads_is_still_learnt() -> None:
    tokens = Tokens(changed_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="</s>"))
    short, long = (whole_row(tokens, example(text)) for text in ("Why?", "Why is the sea salt and the lake not?"))
    _, mask, labels = pad_right([short, long], tokens.pad)
    assert tokens.pad == tokens.stop
    assert labels[0].tolist().count(tokens.stop) == 1
    assert mask[0].sum() == len(short)


def test_a_tokenizer_without_a_padding_token_pads_with_its_stop_token() -> None:
    tokens = Tokens(changed_tokenizer(bos_token="<s>", eos_token="</s>"))
    assert tokens.tokenizer.pad_token_id is None
    assert tokens.pad == tokens.stop


def test_a_tokenizer_without_a_start_token_gets_none() -> None:
    tokens = Tokens(changed_tokenizer(eos_token="</s>", template="$A"))
    row = whole_row(tokens, example("Why?", "Because."))
    assert list(row.prompt) == tokens.encode("Because.")
    assert whole_row(tokens, example("Why?")).prompt == (tokens.stop,)  # something must come before the first label


def test_a_tokenizer_that_adds_its_own_stop_token_still_gets_one_of_each() -> None:
    tokens = Tokens(changed_tokenizer(bos_token="<s>", eos_token="</s>", template="<s> $A </s>"))
    row = whole_row(tokens, example("Why?", "Because."))
    ids = [*row.prompt, *row.target]
    assert (ids.count(tokens.tokenizer.bos_token_id), ids.count(tokens.stop)) == (1, 1)
    assert ids[0] == tokens.tokenizer.bos_token_id


def test_a_tokenizer_without_a_stop_token_is_refused(tmp_path: Path) -> None:
    changed_tokenizer(bos_token="<s>").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no stop token"):
        load_tokenizer(Base("mine", str(tmp_path), None, None))


def test_painted_rows_show_the_cut_and_the_stop_token() -> None:
    tokens = Tokens(embedded_tokenizer())
    wanted = Example("a", Prompt("Text: ", "one two three four five six seven", "\n"), "Count.")
    painted = tokens.paint(wanted, len(whole_row(tokens, wanted)) - 2)
    assert "Count.</s>" in painted
    assert "[2 tokens of the text cut]" in painted
    assert "rejected, no_label" in tokens.paint(example(""), 9)
