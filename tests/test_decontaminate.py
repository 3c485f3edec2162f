"""Laws of decontamination: what shares a run of words with an evaluation set does not get through, the rest does."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askback.errors import ConfigError, DataError
from askback.grams import words_of
from askback.readers.evalsets import read_evalsets
from askback.records import OK, Passage, Reject
from askback.stages.decontaminate import SHORTEST_RUN, EvaluationSets, decontaminate

PROMPT = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
EIGHT = "How can I improve my time management skills?"
AROUND = "The kettle was on. {} Nobody had asked for tea."


def sets(*texts: str, ngram: int = 13) -> EvaluationSets:
    return EvaluationSets([(f"set.jsonl:{number}", text) for number, text in enumerate(texts, start=1)], ngram)


def passage(text: str) -> Passage:
    return Passage(id="p", document="d", heading="", text=text, start=0, end=len(text), source="p.md")


@pytest.fixture(scope="module")
def evalsets(shared: Path) -> list[tuple[str, str]]:
    return list(read_evalsets([str(shared / "evalsets")]))


@pytest.fixture(scope="module")
def clean(shared: Path) -> list[str]:
    """Return 10,000 passages of real prose and code."""
    texts = list(_pieces(shared / "pretrain" / "text.jsonl.gz"))
    return Random(0).sample(texts, 10_000)


def _pieces(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for text in (json.loads(line)["text"] for line in lines):
            yield from (text[start : start + 1500] for start in range(0, len(text) - 300, 1500))


# --- the real sets


def test_no_clean_passage_is_dropped(evalsets: list[tuple[str, str]], clean: list[str]) -> None:
    judge = EvaluationSets(evalsets, 13)
    assert [verdict for text in clean if not (verdict := judge.check_text(text)).keep] == []


def test_every_planted_prompt_is_found_and_its_place_named(evalsets: list[tuple[str, str]], clean: list[str]) -> None:
    judge = EvaluationSets(evalsets, 13)
    long = [(place, text) for place, text in evalsets if len(words_of(text)) >= SHORTEST_RUN]
    verdicts = [
        judge.check_text(f"{around[:700]}\n{text.upper()}\n{around[700:]}")
        for (_, text), around in zip(long, clean, strict=False)
    ]
    assert {verdict.reason for verdict in verdicts} == {"contaminated"}
    named = [verdict.detail.split(": ")[0] == place for (place, _), verdict in zip(long, verdicts, strict=True)]
    assert sum(named) > 0.95 * len(named) > 500  # some prompts stand in two rows: the first is named


def test_every_string_of_the_four_sets_is_found_as_an_instruction(evalsets: list[tuple[str, str]]) -> None:
    judge = EvaluationSets(evalsets, 13)
    assert [text for _, text in evalsets if words_of(text) and judge.check_text(text).keep] == []


# --- what counts as shared


def test_thirteen_words_in_a_row_are_shared_and_twelve_are_not() -> None:
    words = PROMPT.split()
    assert len(words) == 15
    judge = sets(PROMPT)
    for start in range(3):
        assert not judge.check_text(AROUND.format(" ".join(words[start : start + 13]))).keep
    for start in range(4):
        assert judge.check_text(AROUND.format(" ".join(words[start : start + 12]))).keep


def test_case_punctuation_and_line_ends_hide_nothing() -> None:
    assert not sets(PROMPT).check_text(AROUND.format(PROMPT.upper().replace(" ", " *\n "))).keep


def test_a_prompt_of_eight_words_counts_as_a_whole() -> None:
    judge = sets(EIGHT)
    assert judge.check_text(AROUND.format(EIGHT)).detail == "set.jsonl:1: how can i improve my time management skills"
    assert judge.check_text(AROUND.format(EIGHT.removesuffix(" skills?"))).keep


def test_a_shorter_prompt_counts_only_where_the_text_is_nothing_else() -> None:
    judge = sets("hello", "Prove the theorem.")
    assert judge.check_text("Hello!").detail == "set.jsonl:1: hello"
    assert not judge.check_text("prove the theorem").keep
    assert judge.check_text("Say hello, then prove the theorem.").keep


def test_a_shorter_ngram_finds_shorter_runs() -> None:
    judge = sets(PROMPT, "a b c", ngram=3)
    assert not judge.check_text("We saw a trip to Hawaii.").keep
    assert not judge.check_text("x A, B; C y").keep
    assert judge.check_text("We saw Hawaii and a b.").keep


def test_the_first_row_that_has_the_run_is_named() -> None:
    assert sets("Something else", PROMPT, f"{PROMPT} {EIGHT}").check_text(PROMPT).detail.startswith("set.jsonl:2: ")


def test_texts_without_spaces_count_by_characters() -> None:
    judge = sets("请写一篇关于夏威夷之旅的游记并介绍当地文化")
    assert not judge.check_text("他说:关于夏威夷之旅的游记并介绍。").keep
    assert judge.check_text("他说:关于夏威夷之旅的游记。").keep


@pytest.mark.parametrize("text", ["", "  ", "?!", "word"])
def test_without_sets_and_without_words_everything_is_kept(text: str) -> None:
    assert sets().check_text(text) is OK
    assert sets("", "...", PROMPT).check_text(text) is OK


@given(st.lists(st.text("ab ", max_size=30), max_size=6), st.text("ab ", max_size=60), st.integers(3, 9))
def test_a_hit_is_a_run_of_words_and_no_hit_is_none(texts: list[str], text: str, ngram: int) -> None:
    assert sets(*texts, ngram=ngram).check_text(text).keep != any(_shares(text, one, ngram) for one in texts)


def _shares(text: str, one: str, ngram: int) -> bool:
    """Say it again, as plainly as it can be said."""
    size = len(one.split())
    if size < min(SHORTEST_RUN, ngram):
        return bool(size) and text.split() == one.split()
    run = min(size, ngram)
    runs = {tuple(one.split()[start : start + run]) for start in range(size - run + 1)}
    return any(tuple(text.split()[start : start + run]) in runs for start in range(len(text.split())))


def test_passages_and_rejects_come_out_in_order() -> None:
    early = Reject("r", "too_short")
    outcomes = list(decontaminate([early, passage(PROMPT), passage("Clean."), early], sets(PROMPT)))
    assert [getattr(outcome, "reason", "") for outcome in outcomes] == ["too_short", "contaminated", "", "too_short"]
    assert (outcomes[1].id, outcomes[1].source) == ("p", "p.md")


# --- reading the sets


def test_every_string_of_a_row_is_read(tmp_path: Path) -> None:
    row = {"id": 3, "turns": ["first", "second"], "more": [{"input": "", "output": "third"}], "none": None}
    (tmp_path / "set.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / "set.csv").write_text("question,answer\nfourth,fifth\n", encoding="utf-8")
    assert [*read_evalsets([str(tmp_path / "set.jsonl"), str(tmp_path / "set.csv")])] == [
        *(("set.jsonl:1", text) for text in ("first", "second", "", "third")),
        *(("set.csv:2", text) for text in ("fourth", "fifth")),
    ]


def test_a_text_is_read_by_lines_and_by_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "set.txt").write_text("one\n\ntwo\nthree\n", encoding="utf-8")
    assert {*read_evalsets([str(tmp_path / "set.txt")])} == {
        ("set.txt:1", "one"),
        ("set.txt:3", "two"),
        ("set.txt:4", "three"),
        ("set.txt:3", "two\nthree"),
    }


def test_the_four_sets_are_read_whole(evalsets: list[tuple[str, str]]) -> None:
    names = {place.split(":")[0] for place, _ in evalsets}
    files = ("koala", "mt_bench", "self_instruct_seeds", "vicuna")
    assert names == {f"evalsets/{name}.jsonl" for name in files}
    assert len({place for place, _ in evalsets}) == 180 + 80 + 175 + 80


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", '{"q": "x"}\n{'), ("a.csv", "q\n"), ("a.txt", " \n")])
def test_a_set_that_cannot_be_read_whole_is_an_error(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        list(read_evalsets([str(tmp_path)]))


@pytest.mark.parametrize("path", ["absent.jsonl", "empty", "image.png"])
def test_a_path_that_is_no_set_is_an_error(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.png").touch()
    with pytest.raises(ConfigError, match=f"distinct.against: .*{path}"):
        list(read_evalsets([str(tmp_path / path)]))
