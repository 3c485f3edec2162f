"""Laws of the slices: each row is in one part of each dimension, small parts are one, and no model is asked again."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from askback.options import EvaluateOptions
from askback.ports import Ask, Example, LogLikelihood, Reply, Sampling
from askback.prompts import BACKWARD_LAYOUTS, FORWARD_LAYOUT
from askback.records import Pair
from askback.stages.evaluate import evaluate_backward, evaluate_forward

OPTIONS = EvaluateOptions(retrieval_of=2, retrieval_rows=10, bootstrap=100)
GENRES = ["recipe"] * 8 + ["letter"] * 6 + ["poem"] * 3 + ["code"] * 2 + [""] * 5
PAIRS = [
    Pair(
        id=f"p{at:02}",
        instruction=f"Ask {at} of {genre}",
        output="word " * (10 + at),
        genre=genre,
        source=f"{'one' if at % 2 else 'two'}.jsonl:{at}" + "#1" * (at % 4 == 0),
    )
    for at, genre in enumerate(GENRES)
]


def repeats(asks: Iterable[Ask], sampling: Sampling) -> Iterator[Reply]:
    return (Reply("Ask of recipe", "stop", 3) for _ in asks)


def by_number(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
    return (LogLikelihood(-float(example.id[1:]), 1) for example in examples)


def backward(pairs: list[Pair] = PAIRS, options: EvaluateOptions = OPTIONS) -> dict[str, Any]:
    return evaluate_backward(pairs, repeats, by_number, BACKWARD_LAYOUTS["plain"], options, 0)


def forward(pairs: list[Pair] = PAIRS) -> dict[str, Any]:
    return evaluate_forward(pairs, by_number, FORWARD_LAYOUT, OPTIONS, 0)


@pytest.mark.parametrize("report", [backward(), forward()], ids=["backward", "forward"])
def test_every_row_is_in_one_part_of_each_dimension(report: dict[str, Any]) -> None:
    assert set(report["slices"]) == {"length", "genre", "source"}
    for slices in report["slices"].values():
        assert sum(part["n"] for part in slices.values()) == len(PAIRS)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_parts_of_fewer_than_five_rows_are_one() -> None:
    counts = {name: part["n"] for name, part in forward()["slices"]["genre"].items()}
    assert counts == {"recipe": 8, "letter": 6, "other": 5, "not named": 5}


def test_a_figure_of_a_part_is_the_mean_of_its_rows_with_interval_and_n() -> None:
    found = backward()["slices"]["genre"]
    assert found["recipe"]["nll"] == {"value": 3.5, "low": pytest.approx(2, abs=1), "high": pytest.approx(5, abs=1)} | {
        "n": 8
    }
    assert found["letter"]["nll"]["value"] == 10.5
    assert found["recipe"]["rougeL"]["low"] > found["letter"]["rougeL"]["high"]
    assert set(found["recipe"]) == {"n", "rougeL", "nll", "retrieval"}


def test_thirds_of_length_are_named_by_their_edges() -> None:
    found = forward()["slices"]["length"]
    assert {name: part["n"] for name, part in found.items()} == {
        "50 to 85 characters": 8,
        "90 to 125 characters": 8,
        "130 to 165 characters": 8,
    }


def test_a_source_is_the_file_without_its_row_and_turn() -> None:
    assert set(forward()["slices"]["source"]) == {"one.jsonl", "two.jsonl"}


def test_retrieval_stands_where_enough_rows_of_the_part_were_ranked() -> None:
    found = backward()["slices"]["genre"]
    assert found["recipe"]["retrieval"]["n"] == 8
    assert found["letter"]["retrieval"] is None  # of its rows two are among the ten that were ranked


def test_a_figure_of_too_few_rows_is_none_not_a_number() -> None:
    def only_even(examples: Iterable[Example]) -> Iterator[LogLikelihood | None]:
        return (None if int(example.id[1:]) % 2 else LogLikelihood(-1.0, 1) for example in examples)

    found = evaluate_forward(PAIRS, only_even, FORWARD_LAYOUT, OPTIONS, 0)["slices"]["genre"]
    assert (found["letter"]["n"], found["letter"]["nll"]) == (6, None)


def test_a_dimension_with_one_part_is_left_out() -> None:
    alike = [replace(pair, genre="", source="", output=f"{pair.output[:20]}{pair.id}") for pair in PAIRS]
    assert forward(alike)["slices"] == {}


def test_thirds_of_too_few_rows_are_no_thirds_and_a_lonely_row_has_no_figure() -> None:
    found = forward(PAIRS[:9])["slices"]
    assert "length" not in found
    assert found["genre"]["other"] == {"n": 1, "nll": None}


def test_no_model_is_asked_for_slices() -> None:
    asked: list[str] = []

    def note(examples: Iterable[Example]) -> Iterator[LogLikelihood]:
        for example in examples:
            asked.append(example.id)
            yield LogLikelihood(-1.0, 1)

    evaluate_forward(PAIRS, note, FORWARD_LAYOUT, OPTIONS, 0)
    assert len(asked) == len(PAIRS)
