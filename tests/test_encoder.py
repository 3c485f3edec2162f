"""Laws of the sentence encoder: alike texts are alike, batches and padding change nothing, nothing is filled in."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from askback.engines.encoder import Encoder
from askback.errors import ConfigError
from askback.options import EngineOptions, EvaluateOptions
from askback.ports import Ask, Example, LogLikelihood, Reply, Sampling
from askback.prompts import BACKWARD_LAYOUTS
from askback.records import Pair
from askback.stages.evaluate import evaluate_backward, floors

WORDS = "how do i mend a leaking tap or knit sock explain tides to child and moon why what is the".split()
TEXTS = ["how do i mend a tap", "why tides", "explain the moon to a child and knit a sock or what is a tap", "moon"]
CPU = EngineOptions(device="cpu", threads=1)


def write_bert(folder: Path, *, seed: int = 0) -> Path:
    """Write a BERT of random weights, some four thousand of them, whose tokens are words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    made = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=made, **named).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=32, initializer_range=0.5, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["bert", "mini_base"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """An encoder that reads both ways, and a decoder whose tokenizer knows no padding."""
    return Encoder(str(request.getfixturevalue(request.param)), CPU)


def test_vectors_have_length_one_and_the_same_text_the_same_vector(encoder: Encoder) -> None:
    found = encoder([*TEXTS, *TEXTS])
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert (found[:4] * found[4:]).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found[0] @ found[1:4].T).max() < 0.999


def test_neither_batch_nor_padding_changes_a_vector(encoder: Encoder) -> None:
    alone = np.concatenate([encoder([text]) for text in TEXTS])
    assert encoder(TEXTS) == pytest.approx(alone, abs=1e-5)
    assert encoder(TEXTS[::-1])[::-1] == pytest.approx(alone, abs=1e-5)


def test_a_vector_is_the_mean_of_the_hidden_states(bert: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    with torch.inference_mode():
        hidden = network(**tokenizer(TEXTS[2], return_tensors="pt")).last_hidden_state[0].numpy()
    mean = hidden.mean(axis=0)
    assert Encoder(str(bert), CPU)([TEXTS[2]])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_a_text_longer_than_the_encoder_reads_is_cut(bert: Path) -> None:
    encoder = Encoder(str(bert), CPU)
    assert encoder(["tides " * 500]) == pytest.approx(encoder(["tides " * 30]), abs=1e-5)


def test_a_control_token_in_a_text_stays_text(bert: Path) -> None:
    ids = Encoder(str(bert), CPU)._ids(["tap [SEP] tap"])[0]
    assert ids.count(3) == 1


def test_a_text_without_a_token_is_the_zero_vector_and_no_texts_no_rows(mini_base: Path) -> None:
    encoder = Encoder(str(mini_base), CPU)
    tokenizer = encoder._tokenizer
    encoder._tokenizer = _WithoutStart(tokenizer)
    assert not encoder([""]).any()
    assert encoder([]).shape == (0, 64)


class _WithoutStart:
    """A tokenizer that adds nothing to a text."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.model_max_length = inner.model_max_length

    def __call__(self, texts: list[str], **more: Any) -> Any:
        return self.inner(texts, add_special_tokens=False, **more)


@pytest.mark.parametrize(
    ("name", "message"), [("./nowhere", "no such folder"), ("{empty}", "cannot be loaded .*safetensors")]
)
def test_what_is_no_encoder_is_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"evaluate.encoder = .*{message}"):
        Encoder(name.format(empty=tmp_path), CPU)


def test_pickled_weights_are_not_read(bert: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    _copy(bert, tmp_path)
    torch.save(load_file(bert / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Encoder(str(tmp_path), CPU)(TEXTS)


def test_missing_weights_are_named_not_drawn(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _copy(bert, tmp_path)
    weights = load_file(bert / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layer.1" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"weights are missing, such as encoder\.layer\.1"):
        Encoder(str(tmp_path), CPU)(TEXTS)


def _copy(source: Path, out: Path) -> None:
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())


def test_what_a_result_depends_on_names_the_weights(bert: Path, tmp_path: Path) -> None:
    one, other = Encoder(str(bert), CPU).describe(), Encoder(str(write_bert(tmp_path, seed=1)), CPU).describe()
    assert one["type"] == "bert"
    assert one["hash"] != other["hash"]


# --- in the evaluation

OPTIONS = EvaluateOptions(retrieval_of=2, bootstrap=100)
PAIRS = [Pair(id=f"p{at}", instruction=text, output=f"An answer of {at} words.") for at, text in enumerate(TEXTS)]


def repeats(asks: list[Ask], sampling: Sampling) -> Iterator[Reply]:
    return (Reply(next(p.instruction for p in PAIRS if p.output == ask.prompt.body), "stop") for ask in asks)


def shrugs(examples: list[Example]) -> Iterator[LogLikelihood]:
    return (LogLikelihood(-8.0, 4) for _ in examples)


def test_a_model_that_says_the_same_is_alike_and_a_shuffled_one_is_less(bert: Path) -> None:
    encode, layout = Encoder(str(bert), CPU), BACKWARD_LAYOUTS["plain"]
    report = evaluate_backward(PAIRS, repeats, shrugs, layout, OPTIONS, 0, encode=encode)  # type: ignore[arg-type]
    assert report["similarity"]["value"] == pytest.approx(1, abs=1e-5)
    assert report["similarity"]["n"] == len(PAIRS)
    below = floors(PAIRS, OPTIONS, 0, encode=encode)
    assert below["shuffled"]["similarity"]["value"] < 0.999
    assert [row["similarity"] for row in below["shuffled"]["rows"]]


def test_without_an_encoder_nothing_is_said_of_meaning() -> None:
    report = floors(PAIRS, OPTIONS, 0)["shuffled"]
    assert "similarity" not in report
    assert all("similarity" not in row for row in report["rows"])


def test_silence_is_like_nothing() -> None:
    silent = [replace(pair, instruction="") for pair in PAIRS]

    def lengths(texts: list[str]) -> Any:
        return np.array([[float(len(text)), 0.0] for text in texts])

    report = floors(silent, OPTIONS, 0, encode=lengths)  # type: ignore[arg-type]
    assert report["first_sentence"]["similarity"]["value"] == 0
