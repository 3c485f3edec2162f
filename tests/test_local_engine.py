"""The engine on transformers: batch, order, padding, adapters and sharing change no number; chance belongs to a row."""

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from askback.engines import local
from askback.engines.batches import by_token_budget, by_total
from askback.engines.local import LocalEngine
from askback.engines.tokens import Row
from askback.errors import ConfigError
from askback.ports import Ask, Choice, Example, Prompt, Reply, Sampling
from askback.prompts import ASK_SCORE, DIGITS
from models import example, open_local, write_adapter

WORDS = "the sea is salt and deep so ships may sail where fishes sleep a letter lamp under stone".split()
GREEDY = Sampling(temperature=0.0, max_new_tokens=12)
NUCLEUS = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=12)


def texts(count: int, seed: int = 0) -> list[str]:
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=random.randint(1, 24))) for _ in range(count)]


ASKS = [Ask(Prompt("Text: ", text, "\nRequest:"), seed) for seed, text in enumerate(texts(9))]
EXAMPLES = [example(target, body, before="Text: ") for target, body in zip(texts(9, 1), texts(9, 2), strict=True)]


@pytest.fixture(scope="module")
def engine(mini_base: Path) -> LocalEngine:
    return open_local(mini_base)


@pytest.fixture(scope="module")
def adapters(mini_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder / str(seed), mini_base, seed=seed) for seed in (1, 2)]


def replies(engine: LocalEngine, asks: Sequence[Ask], sampling: Sampling, model: Path | None = None) -> list[Reply]:
    return list(engine.generate(model)(asks, sampling))


def totals(engine: LocalEngine, examples: Sequence[Example], model: Path | None = None) -> list[float]:
    found = list(engine.likelihood(model)(examples))
    assert all(one is not None for one in found)
    return [one.total for one in found if one is not None]


def row_of(engine: LocalEngine, wanted: Example) -> Row:
    row = engine.tokens.row(wanted, engine.max_tokens)
    assert isinstance(row, Row)
    return row


def direct(engine: LocalEngine, row: Row) -> float:
    """Return log p(target | prompt) as the model's own logits give it: one row, no padding, nothing shared."""
    import torch

    ids = [*row.prompt, *row.target]
    with torch.no_grad():
        logits = engine.causal(input_ids=torch.tensor([ids])).logits[0]
    shares = torch.log_softmax(logits.double(), dim=-1)
    return sum(float(shares[place - 1, ids[place]]) for place in range(len(row.prompt), len(ids)))


# --- generation


@pytest.mark.parametrize("sampling", [GREEDY, NUCLEUS], ids=["greedy", "sampled"])
def test_a_batch_of_many_lengths_answers_as_each_alone(engine: LocalEngine, sampling: Sampling) -> None:
    assert replies(engine, ASKS, sampling) == [replies(engine, [ask], sampling)[0] for ask in ASKS]


@pytest.mark.parametrize("sampling", [GREEDY, NUCLEUS], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch_tokens", [64, 150])
def test_order_and_batch_size_change_no_reply(mini_base: Path, sampling: Sampling, batch_tokens: int) -> None:
    engine = open_local(mini_base, batch_tokens=batch_tokens)
    there = replies(engine, ASKS, sampling)
    assert replies(open_local(mini_base), ASKS[::-1], sampling) == there[::-1]


def test_the_seed_of_a_row_decides_what_is_drawn(engine: LocalEngine) -> None:
    prompt = ASKS[0].prompt
    first, again, other = replies(engine, [Ask(prompt, 1), Ask(prompt, 1), Ask(prompt, 2)], NUCLEUS)
    assert first == again
    assert first.text != other.text


def test_greedy_takes_no_notice_of_seeds(engine: LocalEngine) -> None:
    assert len({reply.text for reply in replies(engine, [Ask(ASKS[0].prompt, n) for n in range(3)], GREEDY)}) == 1


def likeliest_ids(engine: LocalEngine, ask: Ask) -> list[int]:
    """Return what greedy search must write, one whole forward pass for each token."""
    import torch

    made = engine.tokens.prompt(ask.prompt, 100)
    assert made is not None
    ids, written = list(made[0]), []
    for _ in range(GREEDY.max_new_tokens):
        with torch.no_grad():
            written.append(int(engine.causal(input_ids=torch.tensor([[*ids, *written]])).logits[0, -1].argmax()))
    return written


def test_greedy_takes_the_likeliest_token_at_each_step(engine: LocalEngine) -> None:
    written = likeliest_ids(engine, ASKS[3])
    [reply] = replies(engine, [ASKS[3]], GREEDY)
    assert engine.tokens.stop not in written
    assert (reply.text, reply.finish, reply.tokens) == (engine.tokens.decode(written).strip(), "length", len(written))


def test_a_reply_ends_before_its_stop_token(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    written = likeliest_ids(engine, ASKS[1])
    stop = written[-1]
    monkeypatch.setattr(engine.tokens, "stop", stop)
    [reply] = replies(engine, [ASKS[1]], GREEDY)
    before = written[: written.index(stop)]
    assert (reply.text, reply.finish, reply.tokens) == (engine.tokens.decode(before).strip(), "stop", len(before))


def test_left_padding_changes_no_logit(engine: LocalEngine) -> None:
    import torch

    ids = engine.tokens.encode(texts(1)[0])
    padded = torch.tensor([[engine.tokens.pad] * 7 + ids])
    mask = torch.tensor([[0] * 7 + [1] * len(ids)])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        plain = engine.causal(input_ids=torch.tensor([ids])).logits[0, -1]
        beside = engine.causal(input_ids=padded, attention_mask=mask, position_ids=places).logits[0, -1]
    assert torch.allclose(plain, beside, atol=1e-5)


def test_a_long_text_is_cut_to_leave_room_for_the_reply(engine: LocalEngine) -> None:
    long = Ask(Prompt("Text: ", " ".join(WORDS * 40), "\nRequest:"))
    [reply] = replies(engine, [long], GREEDY)
    assert reply.tokens == GREEDY.max_new_tokens


def test_a_prompt_longer_than_the_model_saw_in_training_is_cut_as_it_was_there(engine: LocalEngine) -> None:
    body = " ".join(WORDS * 3)
    [cut] = replies(engine, [Ask(Prompt("", body, "", most=30))], GREEDY)
    kept = engine.tokens.encode(body)[: 30 - GREEDY.max_new_tokens - len(engine.tokens.start)]
    assert replies(engine, [Ask(Prompt("", engine.tokens.decode(kept)))], GREEDY) == [cut]


def test_words_that_may_not_be_cut_and_do_not_fit_get_no_answer_and_harm_no_other(engine: LocalEngine) -> None:
    long = Prompt(" ".join(WORDS * 40), "text")
    [refused, answered] = replies(engine, [Ask(long), ASKS[0]], GREEDY)
    assert (refused.text, refused.finish) == ("", "no_room")
    assert answered == replies(engine, [ASKS[0]], GREEDY)[0]
    assert next(iter(engine.choose()([long, ASKS[0].prompt], DIGITS))) is None


def test_no_request_is_no_reply(engine: LocalEngine) -> None:
    assert replies(engine, [], GREEDY) == []
    assert list(engine.likelihood()([])) == []
    assert list(engine.choose()([], DIGITS)) == []


# --- likelihood


def test_log_likelihood_is_what_the_models_logits_say(engine: LocalEngine) -> None:
    for found, wanted in zip(totals(engine, EXAMPLES), EXAMPLES, strict=True):
        assert found == pytest.approx(direct(engine, row_of(engine, wanted)), abs=1e-5, rel=1e-6)


def test_the_stop_token_counts_and_the_mean_is_per_token(engine: LocalEngine) -> None:
    [found] = engine.likelihood()([EXAMPLES[0]])
    assert found is not None
    assert found.tokens == len(engine.tokens.encode(EXAMPLES[0].target)) + 1
    assert found.per_token == pytest.approx(found.total / found.tokens)


def test_targets_of_one_prompt_score_together_as_alone(engine: LocalEngine) -> None:
    shared = [example(target, texts(1, 5)[0], before="Text: ") for target in texts(7, 4)]
    rows = [row_of(engine, wanted) for wanted in shared]
    alone, groups = engine._grouped(None, rows)
    assert (alone, groups) == ([], [list(range(7))])
    assert totals(engine, shared) == pytest.approx([direct(engine, row) for row in rows], abs=1e-5, rel=1e-6)


def test_rows_with_shared_and_with_own_prompts_come_back_in_order(engine: LocalEngine) -> None:
    mixed = [example(target, texts(3, 6)[n % 3] if n % 4 else f"own {n}") for n, target in enumerate(texts(11, 8))]
    assert totals(engine, mixed) == pytest.approx([totals(engine, [one])[0] for one in mixed], abs=1e-5, rel=1e-6)


def test_an_architecture_that_was_not_tested_is_scored_row_by_row(engine: LocalEngine) -> None:
    class Other:
        config = type("Config", (), {"model_type": "gpt2"})

    engine_of_another = open_local(Path(engine.base.path))
    engine_of_another._active = lambda model: Other()  # type: ignore[method-assign]
    rows = [row_of(engine, one) for one in EXAMPLES]
    assert engine_of_another._grouped(None, rows) == (list(range(len(rows))), [])


def test_a_target_without_room_has_no_likelihood_and_its_neighbours_do(engine: LocalEngine) -> None:
    long = example(" ".join(WORDS * 40), "text")
    before, none, after = engine.likelihood()([EXAMPLES[0], long, EXAMPLES[1]])
    assert none is None
    assert before is not None
    assert after is not None
    assert [before.total, after.total] == pytest.approx(totals(engine, EXAMPLES[:2]), abs=1e-5)


def test_windows_join_without_a_seam(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    there = totals(engine, EXAMPLES), replies(engine, ASKS, GREEDY)
    monkeypatch.setattr(local, "WINDOW", 4)
    assert totals(engine, EXAMPLES) == pytest.approx(there[0], abs=1e-5)
    assert replies(engine, ASKS, GREEDY) == there[1]


# --- choices


def at_slot(engine: LocalEngine, prompt: Prompt) -> Any:
    import torch

    ids = [*engine.tokens.start, *engine.tokens.encode(prompt.before), *engine.tokens.encode(prompt.body)]
    lead, ways = engine.tokens.choice_slot(prompt.after, DIGITS)
    with torch.no_grad():
        shares = torch.softmax(engine.causal(input_ids=torch.tensor([[*ids, *lead]])).logits[0, -1].double(), -1)
    return [sum(float(shares[token]) for (token,) in own) for own in ways]


def test_choices_are_the_softmax_at_the_slot_and_the_rest_is_outside(engine: LocalEngine) -> None:
    prompts = [Prompt("Grade this. ", text, f"\n{ASK_SCORE}") for text in texts(5, 9)]
    for found, prompt in zip(engine.choose()(prompts, DIGITS), prompts, strict=True):
        by_hand = at_slot(engine, prompt)
        assert found.probabilities == pytest.approx(by_hand, abs=1e-6, rel=1e-4)
        assert found.outside == pytest.approx(1 - sum(by_hand), abs=1e-6)


def test_choices_do_not_depend_on_their_neighbours(engine: LocalEngine) -> None:
    prompts = [Prompt("", text, ASK_SCORE) for text in texts(6, 3)]
    together = list(engine.choose()(prompts, DIGITS))
    alone = [next(iter(engine.choose()([prompt], DIGITS))) for prompt in prompts]
    assert [c.probabilities for c in together] == [pytest.approx(c.probabilities, abs=1e-6) for c in alone]
    assert all(isinstance(choice, Choice) for choice in together)


def test_a_judges_question_survives_a_text_too_long_to_read(engine: LocalEngine) -> None:
    body = " ".join(WORDS * 40)
    [cut] = engine.choose()([Prompt("", body, ASK_SCORE)], DIGITS)
    lead, _ = engine.tokens.choice_slot(ASK_SCORE, DIGITS)
    kept = engine.tokens.encode(body)[: engine.max_tokens - len(lead) - len(engine.tokens.start)]
    [same] = engine.choose()([Prompt("", engine.tokens.decode(kept), ASK_SCORE)], DIGITS)
    assert cut.probabilities == pytest.approx(same.probabilities, abs=1e-6)


# --- sampling


def test_the_nucleus_is_the_smallest_set_that_holds_the_mass() -> None:
    import torch

    from askback.engines.sampling import nucleus

    logits = torch.log(torch.tensor([[0.1, 0.5, 0.05, 0.3, 0.05], [0.97, 0.0075, 0.0075, 0.0075, 0.0075]]))
    inside = nucleus(logits, 0.85).isfinite()
    assert inside.tolist() == [[True, True, False, True, False], [True, False, False, False, False]]
    assert nucleus(logits, 0.79).isfinite()[0].tolist() == [False, True, False, True, False]
    assert torch.equal(nucleus(logits, 1.0), logits)


def drawn(shares: Sequence[float], count: int, temperature: float, top_p: float) -> list[int]:
    import torch

    from askback.engines.sampling import RowSampling

    logits = torch.log(torch.tensor([list(shares)] * count))
    scores = RowSampling(range(count), temperature, top_p)(torch.zeros(count, 1, dtype=torch.long), logits)
    return scores.argmax(-1).bincount(minlength=len(shares)).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_come_as_often_as_the_softmax_says(temperature: float) -> None:
    shares, count = [0.4, 0.3, 0.15, 0.1, 0.04, 0.01], 6000
    weights = [share ** (1 / temperature) for share in shares]
    expected = [count * weight / sum(weights) for weight in weights]
    seen = drawn(shares, count, temperature, 1.0)
    chi_square = sum((a - b) ** 2 / b for a, b in zip(seen, expected, strict=True))
    assert chi_square < 20.5  # five degrees of freedom: exceeded once in a thousand


def test_nothing_outside_the_nucleus_is_ever_drawn() -> None:
    assert drawn([0.4, 0.3, 0.2, 0.06, 0.04], 2000, 1.0, 0.85)[3:] == [0, 0]


def test_each_step_draws_anew() -> None:
    import torch

    from askback.engines.sampling import RowSampling

    draw, flat = RowSampling([5], 1.0, 1.0), torch.zeros(1, 1000)
    picked = [int(draw(torch.zeros(1, 1, dtype=torch.long), flat).argmax()) for _ in range(20)]
    assert len(set(picked)) > 15


# --- adapters


def test_adapters_go_on_and_off_and_the_base_is_as_it_was(engine: LocalEngine, adapters: list[Path]) -> None:
    before = replies(engine, ASKS, GREEDY), totals(engine, EXAMPLES)
    for adapter in (*adapters, adapters[0]):
        assert replies(engine, ASKS, GREEDY, adapter) != before[0]
        assert replies(engine, ASKS, GREEDY) == before[0]
    assert totals(engine, EXAMPLES) == before[1]
    engine.release()
    assert totals(engine, EXAMPLES) == before[1]


def test_two_adapters_on_one_base_answer_each_as_alone(mini_base: Path, adapters: list[Path]) -> None:
    engine = open_local(mini_base)
    alone = [totals(open_local(mini_base), EXAMPLES, adapter) for adapter in adapters]
    turns = [totals(engine, EXAMPLES, adapters[n]) for n in (0, 1, 0, 1, 1, 0)]
    assert turns == [alone[n] for n in (0, 1, 0, 1, 1, 0)]
    assert alone[0] != alone[1]


def test_an_adapter_answers_as_peft_says_it_does(mini_base: Path, adapters: list[Path]) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = open_local(mini_base)
    row = row_of(engine, EXAMPLES[2])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(mini_base, dtype=torch.float32), adapters[1])
    labels = torch.tensor([[-100] * len(row.prompt) + list(row.target)])
    with torch.no_grad():
        loss = plain(input_ids=torch.tensor([[*row.prompt, *row.target]]), labels=labels).loss
    assert totals(engine, [EXAMPLES[2]], adapters[1])[0] == pytest.approx(-float(loss) * len(row.target), rel=1e-5)


def test_the_base_is_loaded_once(mini_base: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []

    def load_base(*args: Any, **options: Any) -> Any:
        loads.append(args)
        return original(*args, **options)

    original = local.load_base
    monkeypatch.setattr(local, "load_base", load_base)
    engine = open_local(mini_base)
    assert loads == []  # opening reads no weights
    for model in (None, adapters[0], adapters[1], None):
        totals(engine, EXAMPLES[:1], model)
        replies(engine, ASKS[:1], GREEDY, model)
    engine.release()
    totals(engine, EXAMPLES[:1])
    assert len(loads) == 1


def test_a_folder_that_is_neither_adapter_nor_model_is_refused(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither an adapter"):
        totals(engine, EXAMPLES[:1], tmp_path)


def test_a_base_that_is_not_there_is_refused_with_the_ways_out() -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        open_local(Path("/nowhere/at/all"))


def test_a_device_that_is_not_there_is_refused(mini_base: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.device = 'tpu9'"):
        open_local(mini_base, device="tpu9")


# --- batches


@pytest.mark.parametrize("budget", [1, 64, 200, 10**6])
def test_a_budget_loses_no_row_and_is_kept(budget: int) -> None:
    lengths = [Random(n).randint(1, 90) for n in range(60)]
    made = list(by_token_budget(lengths, budget))
    assert sorted(position for batch in made for position in batch) == list(range(60))
    assert all(len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= budget for batch in made)


def test_runs_keep_their_order_and_their_limit() -> None:
    sizes = [3, 3, 3, 9, 1, 1]
    runs = by_total(list("abcdef"), sizes, 6)  # type: ignore[arg-type]
    assert runs == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert math.fsum(sizes) == 20
