"""Without training: a base is asked by prompt, and whatever takes a model's folder takes one without weights."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askback import api, cli, commands
from askback.chance import split
from askback.config import load_options
from askback.embedded import DEMO, DOCUMENTS, SEED
from askback.engines import echo
from askback.errors import ConfigError
from askback.finished import rows_of
from askback.options import CurateOptions, EngineOptions, TuneOptions
from askback.ports import Ask, Generate, Prompt, Reply, Sampling
from askback.prompts import LAYOUT_FILE, UNTUNED_LAYOUT, Layout, build_prompted, parse_instruction
from askback.records import Pair
from askback.stages.examples import pick_examples
from askback.steps import Silent
from askback.store import read_json
from askback.tasks import check_signals, fit_model, read_layout, trained_on, weights_of
from models import open_local
from served import Answer, Asked, StandIn, said
from small_run import do_run, small_options, snapshot

ECHO = ("--set", "engine.kind=echo")
REFUSED = "the endpoint gives no log-probabilities of a given text"


class Served(echo.EchoEngine):
    """An engine that cannot be tuned and gives no likelihoods, and must never be asked for a model's folder."""

    tunes = False

    def generate(self, model: Path | None = None) -> Generate:
        assert model is None
        return super().generate(model)

    def choose(self, model: Path | None = None) -> Any:
        assert model is None
        return super().choose(model)

    def likelihood(self, model: Path | None = None) -> Any:
        raise ConfigError(REFUSED)

    def fit(self, options: Any, *, seed: int) -> Any:
        raise AssertionError("a served model was to be tuned")


class Deaf(Served):
    """One that gives no probabilities either."""

    def choose(self, model: Path | None = None) -> Any:
        raise ConfigError("the endpoint gives no log-probabilities")


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def pair(number: int, *, genre: str = "", chars: int = 300, instruction: str = "") -> Pair:
    about = f"about{number} thing{number}"
    return Pair(
        id=f"{number:04}",
        instruction=instruction or f"Tell me {about} {about}z.",
        output=f"{about} ".ljust(chars, "x"),
        genre=genre,
    )


def askback(*words: object) -> int:
    """Run a command in this process; return its exit code."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    signal.signal(signal.SIGTERM, before)
    return int(end.value.code or 0)


def files_of(run: Path) -> set[str]:
    return {*snapshot(run)}


# --- whole runs


@pytest.fixture(scope="module")
def runs(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One-round runs on the same inputs: trained, prompted, and served by an engine that cannot be tuned."""
    folder = tmp_path_factory.mktemp("runs")
    once = small_options(small_inputs, "curate.rounds=1")
    made = {"trained": do_run(once, folder / "trained")}
    made["prompted"] = do_run(small_options(small_inputs, "augment.prompted=true"), folder / "prompted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(echo, "EchoEngine", Served)
        notes = Notes()
        made["served"] = do_run(small_options(small_inputs, "evaluate.answers=4"), folder / "served", notes)
    (folder / "notes.json").write_text(json.dumps(notes.said))
    return made


def test_a_run_without_training_has_the_files_of_a_trained_one(runs: dict[str, Path]) -> None:
    assert files_of(runs["served"]) == files_of(runs["trained"])
    keys = {name: {*read_json(run / "metrics.json")["evaluation"]} for name, run in runs.items()}
    assert keys["served"] == keys["prompted"] == keys["trained"]
    for name in ("backward", "forward"):
        assert not read_layout(runs["served"] / "models" / name, name).tuned


def test_the_rounds_are_one_and_a_note_says_why(runs: dict[str, Path]) -> None:
    said = json.loads((runs["served"].parent / "notes.json").read_text())
    assert any("every round would judge alike" in note for note in said)
    assert any("no backward model is tuned" in note and "4 of 4 examples" in note for note in said)
    assert {*read_json(runs["served"] / "metrics.json")["rounds"]} == {"1"}


def test_what_was_not_measured_is_absent_with_its_reason_and_nowhere_a_number(runs: dict[str, Path]) -> None:
    found = read_json(runs["served"] / "metrics.json")["evaluation"]
    backward, forward = found["backward"], found["forward"]
    assert (backward["nll_per_token"], backward["retrieval"], found["base"], found["duel"]) == (None,) * 4
    assert "no log-likelihoods" in backward["nll_why"]
    assert "no log-likelihoods" in backward["retrieval_why"]
    assert backward["rougeL"]["n"] == len(backward["rows"])
    assert {row["nll"] for row in [*backward["rows"], *forward["0"]["rows"]]} == {None}
    assert ([*forward], found["forward_tests"], forward["0"]["nll_per_token"]) == (["0"], {}, None)
    assert {*found["tests"]} == {"first_sentence", "shuffled"}
    assert [told["base"] for told in found["story"]] == [None] * len(found["story"])


def test_report_and_cards_say_that_nothing_was_tuned(runs: dict[str, Path]) -> None:
    pages = {
        name: [(runs["served"] / file).read_text(), (runs["trained"] / file).read_text()]
        for name, file in {
            "report": "report.html",
            "backward": "models/backward/README.md",
            "forward": "models/forward/README.md",
            "data": "dataset/README.md",
        }.items()
    }
    for name, words in {
        "report": "No forward model was tuned",
        "backward": "holds no weights",
        "forward": "no forward model came of it",
        "data": "The *backward model* was not tuned",
    }.items():
        assert [words in page for page in pages[name]] == [True, False], name
    assert "tuned on the seed pairs" not in " ".join(pages["report"][0].split())
    assert "None" not in pages["backward"][0] + pages["forward"][0] + pages["data"][0]


def test_a_prompted_run_tunes_its_forward_models_alone(runs: dict[str, Path]) -> None:
    training = read_json(runs["prompted"] / "metrics.json")["training"]
    assert {name: one["steps"] > 0 for name, one in training.items()} == {
        "backward": False,
        **{f"forward-{number}": True for number in range(3)},
    }
    found = read_json(runs["prompted"] / "metrics.json")["evaluation"]
    assert found["base"] is None
    assert found["backward"]["nll_per_token"]["n"] == len(found["backward"]["rows"])
    assert [*found["forward"]] == ["0", "1", "2"]
    assert "No forward model was tuned" not in (runs["prompted"] / "report.html").read_text()


def test_candidates_are_parsed_replies(runs: dict[str, Path]) -> None:
    asked = [one.instruction for one in rows_of(runs["served"], "candidates", Pair)]
    assert asked
    assert not any("\n" in instruction or "Score" in instruction for instruction in asked)
    assert any("\n" in one.instruction for one in rows_of(runs["trained"], "candidates", Pair))


def test_examples_are_training_pairs_and_stand_beside_the_model(runs: dict[str, Path]) -> None:
    seed = rows_of(runs["served"], "seed", Pair)
    training, held = split(seed, held_out=0.25)
    model = runs["served"] / "models" / "backward"
    shown = trained_on(model)
    assert len(shown) == 4
    assert shown <= {one.id for one in training}
    before = read_layout(model, "backward").before
    assert all((one.output in before) == (one.id in shown) for one in seed)
    assert not any(one.output in before or one.instruction in before for one in held)


def test_the_same_run_goes_on_without_asking_again(runs: dict[str, Path], small_inputs: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(echo, "EchoEngine", Deaf)
        patch.setattr(Deaf, "choose", Served.choose)
        patch.setattr(Deaf, "generate", None)
        before = snapshot(runs["served"])
        do_run(small_options(small_inputs, "evaluate.answers=4", "backward.epochs=9"), runs["served"])
    changed = {name for name, _ in before.items() ^ snapshot(runs["served"]).items()}
    assert changed <= {
        "run.toml",
        "metrics.json",
        "report.html",
    }  # they show the options; the tuning table tunes nothing


def instruct(asked: Asked) -> Answer:
    """Answer as an instruct model does, with a courtesy before and after what was asked for."""
    words = asked.text.split()
    if "Score:" in asked.text:
        return said(f"It answers some of it.\n\n**Score: {1 + len(words) % 5}**")
    return said(f'Sure! Here is the request:\n\n"Explain {words[-9]} and {words[-7]} to me."\n\nI hope this helps!')


def test_a_whole_run_on_an_endpoint(few_inputs: Path, tmp_path: Path) -> None:
    with StandIn(instruct) as endpoint:
        where = ("engine.kind=server", "engine.base=m", f"engine.server.url={endpoint.url}")
        more = ("curate.judge=reasoned", "evaluate.attacks=5")
        run = do_run(small_options(few_inputs, *where, *more), tmp_path / "run")
        model = api.load(run / "models" / "backward", server={"url": endpoint.url})
        again = model.instructions([rows_of(run, "candidates", Pair)[0].output])
    kept = [json.loads(line) for line in (run / "dataset" / "train.jsonl").read_text().splitlines()]
    assert kept
    assert all(re.fullmatch(r"Explain \S+ and \S+ to me\.", row["instruction"]) for row in kept)
    assert again == [[rows_of(run, "candidates", Pair)[0].instruction]]
    assert read_json(run / "metrics.json")["base"]["kind"] == "server"


# --- what an engine cannot measure is refused first


def engine(kind: type[echo.EchoEngine]) -> echo.EchoEngine:
    return kind(EngineOptions(kind="echo"))


@pytest.mark.parametrize(
    ("kind", "table", "said"),
    [
        (Served, {"judge": "likelihood"}, ("`likelihood` (judge)", REFUSED, '"expected" or "reasoned"')),
        (Served, {"beside": "cycle"}, ("`likelihood` (beside)", REFUSED, '"expected" or "reasoned"')),
        (Served, {"least": {"backward": -1}}, ("`backward` (least)", REFUSED, '"expected" or "reasoned"')),
        (Served, {"judge": "likeness"}, ("`likeness` (judge)", "tunes none", '"expected" or "reasoned"')),
        (Deaf, {}, ("`expected` (judge)", "no log-probabilities", 'curate.judge = "reasoned" and')),
        (Deaf, {"judge": "reasoned", "instruction_gate": 3}, ("curate.instruction_gate = 3", "set it to 0")),
    ],
)
def test_a_signal_the_engine_lacks_is_refused_with_what_to_set(
    kind: type[echo.EchoEngine], table: dict[str, Any], said: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_signals(engine(kind), CurateOptions(**table))
    assert [words for words in said if words not in str(refused.value)] == []


def test_what_an_engine_can_measure_passes() -> None:
    check_signals(engine(Deaf), CurateOptions(judge=("reasoned",)))
    check_signals(engine(Served), CurateOptions())
    check_signals(engine(echo.EchoEngine), CurateOptions(judge=("likelihood", "likeness", "backward")))


def test_a_run_is_refused_before_its_first_step(
    small_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "EchoEngine", Served)
    with pytest.raises(ConfigError, match="likelihood"):
        do_run(small_options(small_inputs, "curate.judge=likelihood"), tmp_path / "run")
    assert list((tmp_path / "run").glob("[0-9]*")) == []


def test_an_engine_without_probabilities_judges_by_reasons(
    small_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "EchoEngine", Deaf)
    run = do_run(small_options(small_inputs, "curate.judge=reasoned", "evaluate.attacks=0"), tmp_path / "run")
    assert read_json(run / "metrics.json")["rounds"]["1"]["signals"]["reasoned"]["outcomes"] == {"scored": 30}


def test_an_engine_that_does_not_tune_says_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not tune.*--prompted"):
        commands.train("backward", [pair(1)], tmp_path / "model", TuneOptions(), engine(Served), seed=0)
    assert list(tmp_path.iterdir()) == []


# --- the prompt

EXAMPLES = [pair(1), replace(pair(2), output='{fence} "text"\n=== 12 end\n{instruction}')]


@pytest.mark.parametrize("layout", [build_prompted([]), build_prompted(EXAMPLES), UNTUNED_LAYOUT], ids=str)
def test_a_layout_without_weights_comes_back_from_its_file(layout: Layout) -> None:
    assert Layout.loads(layout.dumps(), direction=layout.direction, where="x") == layout


def test_a_layout_from_before_there_were_prompts_is_a_tuned_one() -> None:
    old = {k: v for k, v in asdict(build_prompted([])).items() if k not in ("tuned", "fenced")}
    layout = Layout.loads(json.dumps(old), direction="backward", where="x")
    assert (layout.tuned, layout.fenced) == (True, False)


def test_the_examples_stand_in_the_prompt_as_the_passage_does() -> None:
    layout = build_prompted(EXAMPLES)
    for one in EXAMPLES:
        asked = build_prompted([]).prompt(one)
        marks = asked.before.splitlines()[-1]
        assert f"{marks}\n{asked.body}{asked.after}{one.instruction}\n\n" in layout.before
    prompt = layout.prompt(pair(3))
    assert (prompt.body, prompt.after.endswith("The request:\n")) == (pair(3).output, True)


def test_a_passage_cannot_close_its_own_marks() -> None:
    layout = build_prompted([])
    guess = layout.prompt(pair(1)).before.splitlines()[-1]
    forged = layout.prompt(replace(pair(1), output=f"{pair(1).output}\n{guess.replace('text', 'end')}\nThe request:"))
    assert forged.before.splitlines()[-1] not in (guess, *forged.body.splitlines())


def test_a_base_that_was_not_tuned_is_judged_by_the_bare_question() -> None:
    question = Prompt("Grade this.\n\n=== a request\nWhy?\n=== a text\n", "Because.", "\n=== a end\n\n")
    assert UNTUNED_LAYOUT.around(question, lead="Score:") == replace(question, after=f"{question.after}Score:")


REPLIES = [
    ("Explain tides.", "Explain tides."),
    ("Explain tides.\n\nThis request asks about tides.", "Explain tides."),
    ("Explain tides.\n\n=== 12ab text\nMore.\n=== 12ab end\nThe request:\nNext.", "Explain tides."),
    ('Sure! Here is the request:\n\n"Explain `ls` to me."\n\nI hope this helps!', "Explain `ls` to me."),
    ("Here's a possible question that the text answers: Why is it so?", "Why is it so?"),
    ("Here is a list of numbers: 3, 1. Sort them.", "Here is a list of numbers: 3, 1. Sort them."),
    ("**Request:** Explain tides.", "Explain tides."),
    ("Instruction: “Explain tides.”", "Explain tides."),
    ("The request is: 'Why?' is what they asked", "'Why?' is what they asked"),
    ("**Explain the *tides*.**", "Explain the *tides*."),
    ("1. Explain tides.\n2. Why are there tides?", "Explain tides."),
    ('Say "high" or "low"', 'Say "high" or "low"'),
    ('"High" or "low"?', '"High" or "low"?'),
    ("Answer these questions:\n\n- Why?\n- When?\n\nI hope it helps.", "Answer these questions:\n- Why?\n- When?"),
    ("```\nExplain tides.\n```", "Explain tides."),
    ("<think>\nA text about tides.\n</think>\n\nExplain tides.", "Explain tides."),
    ("<think>\nA text about tides. I should", ""),
    ("Sure! Here is the request:", ""),
    ("=== 12ab text\nMore.", ""),
    ("", ""),
    ("为什么会有潮汐？", "为什么会有潮汐？"),
]


@pytest.mark.parametrize(("reply", "instruction"), REPLIES)
def test_a_reply_is_the_request_in_it(reply: str, instruction: str) -> None:
    assert parse_instruction(Reply(reply, "stop", 7)) == Reply(instruction, "stop", 7)


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        ("Explain tides.", "length"),
        ("Explain tides.\n\n=== 12ab text\nThe moon", "stop"),
        ("Explain tides.\nNext", "stop"),
        ("Sure! Here is the request:\n", "length"),
        ("Answer these:\n- Wh", "length"),
        ("Answer these:\n- Why?\n=== 12", "stop"),
    ],
)
def test_a_reply_cut_off_after_its_request_is_whole(reply: str, finish: str) -> None:
    assert parse_instruction(Reply(reply, "length")).finish == finish


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80) | st.lists(st.sampled_from([*'"*`:.-=\n ', "the ", "request", "===", "<think>"])).map("".join)
)
def test_no_reply_breaks_the_parser(text: str) -> None:
    found = parse_instruction(Reply(text, "stop"))
    assert len(found.text) <= len(text)
    assert found.text == found.text.strip()


# --- which pairs are shown


def words(text: str) -> int:
    return len(text.split())


def test_genres_take_turns_the_commonest_first() -> None:
    genres = ["how-to"] * 5 + ["letter"] * 3 + ["poem"] * 2
    shown = pick_examples([pair(n, genre=genre) for n, genre in enumerate(genres)], 4, 999, words)
    assert [one.genre for one in shown] == ["how-to", "letter", "poem", "how-to"]


def test_the_shortest_that_is_long_enough_comes_first() -> None:
    pairs = [pair(n, chars=chars) for n, chars in enumerate([20, 900, 250, 400])]
    assert [len(one.output) for one in pick_examples(pairs, 9, 999, words)] == [250, 400, 900, 20]


def test_together_they_take_no_more_tokens_than_there_are() -> None:
    pairs = [pair(n, chars=chars) for n, chars in enumerate([300, 310, 320, 400])]
    shown = pick_examples(pairs, 4, 700, len)
    assert [one.id for one in shown] == ["0000", "0001"]
    assert pick_examples(pairs, 4, 3, len) == pick_examples(pairs, 0, 999, len) == []


def test_an_instruction_of_several_lines_or_like_another_one_is_not_shown() -> None:
    pairs = [pair(1), pair(2, instruction=f"{pair(1).instruction} Now."), pair(3, instruction="Tell\nme")]
    assert [one.id for one in pick_examples(pairs, 4, 999, words)] == ["0001"]


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_the_pairs_does_not_matter(order: list[int]) -> None:
    pairs = [pair(n, genre="ab"[n % 2], chars=200 + n % 3) for n in range(12)]
    assert pick_examples([pairs[n] for n in order], 5, 999, words) == pick_examples(pairs, 5, 999, words)


# --- a folder without weights


@pytest.fixture(scope="module")
def prompted(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    out = tmp_path_factory.mktemp("prompted") / "backward"
    assert askback("train", "backward", "--prompted", "--seed", small_inputs / "pairs.jsonl", "--out", out, *ECHO) == 0
    return out


def test_a_folder_without_weights_is_the_bare_base(prompted: Path, tmp_path: Path) -> None:
    assert weights_of(prompted) is None
    assert weights_of(None) is None
    assert weights_of(tmp_path) == tmp_path  # whatever it is, it is not for us to say
    assert {file.name for file in prompted.iterdir()} == {LAYOUT_FILE, "trained_on.txt", "base.json"}


def test_a_local_engine_answers_for_it_with_its_base(mini_base: Path, tmp_path: Path) -> None:
    local = open_local(mini_base)
    layout = build_prompted([])
    fit_model(local, [], layout, TuneOptions(), tmp_path / "model", seed=0)
    model = api.load(tmp_path / "model", device="cpu", precision="float32", threads=1)
    ask, greedy = Ask(layout.prompt(pair(1))), Sampling(0.0, 1.0, 6)
    [there] = model.ask([ask], greedy)
    [bare] = local.generate(None)([ask], greedy)
    assert there == parse_instruction(bare)


def test_any_base_can_be_asked_by_a_prompt(mini_base: Path, prompted: Path) -> None:
    model = api.load(prompted, base=str(mini_base), kind="local", device="cpu", threads=1)
    assert [len(found) <= 1 for found in model.instructions([pair(1).output])] == [True]


def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    return map(json.loads, capsys.readouterr().out.splitlines())


def test_a_text_is_asked_about_by_folder_and_without_one_alike(
    prompted: Path, small_inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = small_inputs / "docs" / "03.md"
    assert askback("augment", "--model", prompted, texts) == 0
    by_folder = list(lines(capsys))
    assert askback("augment", "--prompted", "--seed", small_inputs / "pairs.jsonl", texts, *ECHO) == 0
    assert list(lines(capsys)) == by_folder
    assert by_folder[0]["instruction"].startswith("Write about")
    assert askback("augment", "--prompted", texts, *ECHO, "--set", "augment.examples=0") == 0


def test_the_same_measures_stand_beside_those_of_a_trained_model(
    prompted: Path, small_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = ("--seed", small_inputs / "pairs.jsonl")
    assert askback("train", "backward", *seed, "--out", tmp_path / "trained", *ECHO) == 0
    capsys.readouterr()
    quick = ("--set", "evaluate.bootstrap=100", "--set", "evaluate.retrieval_of=3")
    words = ("--model", prompted, "--beside", tmp_path / "trained", *seed, *quick, "--out", tmp_path / "out.json")
    assert askback("evaluate", *words) == 0
    shown = capsys.readouterr().out
    assert [name in shown for name in ("backward ROUGE-L", "backward retrieval", "first_sentence")] == [True] * 3
    found = read_json(tmp_path / "out.json")
    unseen = {row["id"] for row in found["backward"]["rows"]}
    assert unseen == {row["id"] for row in found["beside"]["backward"]["rows"]}
    assert not unseen & (trained_on(prompted) | trained_on(tmp_path / "trained"))
    assert (found["base"], found["beside"]["base"] is None) == (None, False)
    assert {*found["comparison"]["backward"]} == {"rougeL", "nll", "retrieval"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("augment", "x.md", "--prompted"), "no seed is given to take examples from"),
        (("train", "forward", "--prompted", "--seed", "x", "--out", "y"), "--prompted writes a backward model"),
        (("train", "backward", "--prompted", "--seed", "x"), "--out FOLDER"),
    ],
)
def test_a_prompt_asked_for_wrongly_is_refused(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert askback(*words, *ECHO) == 2
    assert said in capsys.readouterr().err


# --- the embedded base

TINY = ["seed.limit=24", "engine.threads=1", "augment.prompted=true", "curate.rounds=1", "curate.min_kept=1"]
TINY += ["evaluate.bootstrap=100", "evaluate.retrieval_of=3", "evaluate.max_new_tokens=8", "forward.steps=2"]


@pytest.mark.slow
def test_the_embedded_base_can_be_asked_by_prompt(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for file in sorted(DOCUMENTS.glob("*.md"))[:4]:
        (tmp_path / "docs" / file.name).write_bytes(file.read_bytes())
    corpus = f'corpus.path="{tmp_path / "docs"}"'
    run = api.run(load_options(None, [*TINY, corpus, f'seed.path="{SEED}"'], DEMO), tmp_path / "run")
    found = read_json(run / "metrics.json")["evaluation"]
    assert found["backward"]["nll_per_token"]["value"] > 0
    assert found["base"] is None
    assert "holds no weights" in (run / "models/backward/README.md").read_text()
