"""Laws of what a finished run shows: every figure with its interval, of many candidates a sample that says so."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from askback import publish
from askback.config import check_options
from askback.finished import rows_of
from askback.options import Options
from askback.publish import draw, label_metrics
from askback.records import Judgement, Pair
from small_run import do_run, small_options, still


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with still():
        yield


def options() -> Options:
    return check_options({"evaluate": {"bootstrap": 200}}, "test")


def candidates(count: int = 40, *, per_document: int = 1) -> list[Pair]:
    """Return candidates of documents that are good and bad in turn."""
    made = []
    for n in range(count):
        document = n // per_document
        label = "good" if document % 2 == 0 else "bad"
        made.append(Pair(id=f"c{n}", instruction="Why?", output="So.", document=f"d{document}", label=label))
    return made


@pytest.fixture(scope="module")
def run(few_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with still():
        return do_run(small_options(few_inputs, "curate.rounds=1"), tmp_path_factory.mktemp("run") / "run")


# --- labels of documents


def test_precision_recall_and_area_stand_with_interval_and_n() -> None:
    pairs = candidates()
    scores = {pair.id: 5.0 - n / 10 for n, pair in enumerate(pairs)}
    kept = {"c0", "c2", "c4", "c1"}
    found = label_metrics(pairs, scores, kept, options())
    assert found is not None
    assert (found["n"], found["good"]) == (40, 20)
    assert (found["precision"]["value"], found["precision"]["n"]) == (0.75, 4)
    assert (found["recall"]["value"], found["recall"]["n"]) == (0.15, 20)
    for figure in ("precision", "recall", "auc"):
        assert found[figure]["low"] < found[figure]["value"] < found[figure]["high"]
    good = [scores[pair.id] for pair in pairs if pair.label == "good"]
    bad = [scores[pair.id] for pair in pairs if pair.label == "bad"]
    assert found["auc"]["value"] == pytest.approx(sum(x > y for x in good for y in bad) / 400)


def test_candidates_of_one_document_are_drawn_together() -> None:
    apart, together = candidates(80), candidates(80, per_document=8)
    width = []
    for pairs in (apart, together):
        scores = {pair.id: float(n % 8) for n, pair in enumerate(pairs)}
        kept = {pair.id for n, pair in enumerate(pairs) if n % 80 < 60}
        found = label_metrics(pairs, scores, kept, options())
        assert found is not None
        width.append(found["precision"]["high"] - found["precision"]["low"])
    assert width[1] > 1.5 * width[0]


def test_nothing_kept_has_a_recall_and_no_precision() -> None:
    pairs = candidates()
    found = label_metrics(pairs, {pair.id: float(n) for n, pair in enumerate(pairs)}, set(), options())
    assert found is not None
    assert (found["precision"], found["recall"]["value"]) == (None, 0.0)
    assert found["recall"]["high"] > 0


def test_labels_all_alike_or_none_have_no_figures() -> None:
    pairs = candidates()
    scores = dict.fromkeys((pair.id for pair in pairs), 3.0)
    assert label_metrics([replace(pair, label="good") for pair in pairs], scores, set(), options()) is None
    assert label_metrics([replace(pair, label="") for pair in pairs], scores, set(), options()) is None


# --- variety


def test_a_sample_does_not_depend_on_order_and_keeps_it() -> None:
    pairs = candidates()
    some = draw(pairs, 10, 3)
    assert len(some) == 10
    assert some == [pair for pair in pairs if pair in some]
    assert {pair.id for pair in draw(pairs[::-1], 10, 3)} == {pair.id for pair in some}
    assert draw(pairs, 10, 4) != some
    assert draw(pairs, 40, 3) == pairs


def test_of_too_many_candidates_a_sample_is_compared_and_its_size_told(
    run: Path, few_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_options(few_inputs, "curate.rounds=1")
    gated, kept = rows_of(run, "gated", Pair), rows_of(run, "kept-1", Pair)
    whole = publish.diversity_metrics(run, options, gated, kept)
    assert whole["sample"] is None
    assert whole["sets"]["kept"] == whole["sets"]["best by score"]  # the same pairs, so the same figures
    monkeypatch.setattr(publish, "MOST_COMPARED", 6)
    found = publish.diversity_metrics(run, options, gated, kept)
    assert found["sample"] == {"n": 6, "of": len(gated), "seed": 3}
    assert found["sets"]["candidates"]["n"] == 6
    sizes = {found["sets"][name]["n"] for name in ("kept", "best by score", "diverse")}
    assert sizes == {len({pair.id for pair in draw(gated, 6, 3)} & {pair.id for pair in kept})}
    assert found["sets"]["kept"]["verb_object"]["n"] == len(kept)
    assert found == publish.diversity_metrics(run, options, gated[::-1], kept)


def test_with_an_encoder_the_spread_in_meaning_stands_beside(
    run: Path, few_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def encode(texts: list[str]) -> Any:
        asked.append(len(texts))
        return np.eye(len(texts))

    monkeypatch.setattr(publish, "open_encoder", lambda evaluate, engine: encode)
    options, gated = small_options(few_inputs, "curate.rounds=1"), rows_of(run, "gated", Pair)
    found = publish.diversity_metrics(run, options, gated, rows_of(run, "kept-1", Pair))
    assert asked == [len(gated)]
    assert {one["embedding_spread"] for one in found["sets"].values()} == {1.0}


# --- the data set


def test_a_rewritten_row_has_its_original_beside_it(run: Path) -> None:
    old = Pair(id="a", instruction="Why?", output="New words.", original="Old words.")
    assert publish.dataset_row(old)["original"] == "Old words."
    rows = [json.loads(line) for line in (run / "dataset" / "train.jsonl").read_text().splitlines()]
    assert {row["original"] for row in rows} == {""}


def test_the_mass_off_the_digits_has_an_interval() -> None:
    rows = [Judgement(pair=f"c{n}", round=1, judge="expected", score=3.0, distribution=(0.5, n / 40)) for n in range(9)]
    found = publish.signal_metrics(rows, [], options())
    assert found["mass_outside"]["value"] == pytest.approx(0.1)
    assert found["mass_outside"]["low"] < 0.1 < found["mass_outside"]["high"]
    assert found["mass_outside"]["n"] == 9
