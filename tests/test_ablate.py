"""Laws of the ablation: equal sizes where they are compared, one test per claim, nothing trained twice."""

import json
import re
from pathlib import Path

import pytest

from askback.ablating import ablate
from askback.records import Pair
from askback.stages.ablate import Claim, Variant, claims, rows_for, summarise, table, variants
from small_run import small_options, still


def pair(number: int, kind: str = "augmented") -> Pair:
    return Pair(id=f"{kind}{number}", instruction=f"i{number}", output=f"o{number}", kind=kind, passage=f"p{number}")


SEED = [pair(n, "seed") for n in range(5)]
CANDIDATES = [pair(n) for n in range(20)]
KEPT = {1: CANDIDATES[:6], 2: CANDIDATES[:4]}


def test_uncurated_rows_are_as_many_as_the_last_round_kept_and_one_of_a_passage() -> None:
    twice = [
        *CANDIDATES,
        *(Pair(id=f"b{n}", instruction="", output="", passage=f"p{n}", candidate=1) for n in range(20)),
    ]
    rows = rows_for(Variant("uncurated", augmented=True), SEED, twice, KEPT, seed=1)
    assert len(rows) == len(KEPT[2])
    assert len({row.passage for row in rows}) == len(rows)
    assert rows == rows_for(Variant("uncurated", augmented=True), SEED, twice[::-1], KEPT, seed=1)
    assert rows != rows_for(Variant("uncurated", augmented=True), SEED, twice, KEPT, seed=2)


def test_every_variant_has_the_rows_its_name_says() -> None:
    rows = {v.name: rows_for(v, SEED, CANDIDATES, KEPT, seed=0) for v in variants(2)}
    assert {name: len(found) for name, found in rows.items()} == {
        "none": 0,
        "seed": 5,
        "uncurated": 4,
        "curated": 4,
        "seed + uncurated": 9,
        "seed + curated": 9,
        "seed + curated, no tags": 9,
        "seed + curated, round 1": 11,
    }


def test_every_claim_is_about_variants_that_are_trained() -> None:
    for rounds in (1, 2, 3):
        made = {variant.name for variant in variants(rounds)}
        assert {name for claim in claims(rounds) for name in (claim.better, claim.worse)} <= made


def test_a_claim_holds_only_where_the_interval_lies_below_zero() -> None:
    ids = [f"h{n}" for n in range(30)]
    worse = {n: {id: 3.0 + k / 30 for k, id in enumerate(ids)} for n in range(3)}
    better = {n: {id: loss - 0.1 - (k % 3) / 50 for k, (id, loss) in enumerate(worse[n].items())} for n in range(3)}
    noise = {n: {id: loss + (-1) ** k * 0.3 for k, (id, loss) in enumerate(worse[n].items())} for n in range(3)}
    results = {"a": better, "b": worse, "c": noise}
    found = summarise(results, [Claim("a", "b"), Claim("c", "b"), Claim("a", "absent")], resamples=500, seed=0)
    assert [claim["holds"] for claim in found["claims"]] == [True, False]
    assert found["claims"][0]["seeds"] == pytest.approx([found["claims"][0]["difference"]] * 3)
    assert [claim["verdict"] for claim in found["claims"]] == ["holds", "not shown"]
    turned = summarise(results, [Claim("b", "a")], resamples=500, seed=0)["claims"][0]
    assert (turned["holds"], turned["verdict"]) == (False, "reversed")
    text = table(found | {"rows": {"a": 5, "b": 6, "c": 7}})
    assert "  not shown  c < b: " in text
    assert re.search(r"^c +7 ", text, re.MULTILINE)


def test_what_is_left_of_rounding_is_no_difference() -> None:
    losses = {f"h{n}": 3.1 + n for n in range(20)}
    results = {"a": {0: losses}, "b": {0: {id: loss + 1e-13 for id, loss in losses.items()}}}
    found = summarise(results, [Claim("a", "b"), Claim("b", "a")], resamples=100, seed=0)
    assert [claim["verdict"] for claim in found["claims"]] == ["not shown"] * 2


def test_a_variant_without_chance_is_set_against_every_training_of_the_other() -> None:
    none = {0: {"h1": 4.0, "h2": 5.0}}
    seed = {n: {"h1": 3.0 - n, "h2": 4.0 - n} for n in range(3)}
    found = summarise({"none": none, "seed": seed}, [Claim("seed", "none")], resamples=100, seed=0)
    assert found["claims"][0]["seeds"] == [-1.0, -2.0, -3.0]


def test_a_second_call_trains_nothing_and_says_the_same(small_inputs: Path, tmp_path: Path) -> None:
    options = small_options(small_inputs)
    with still():
        first = ablate(options, tmp_path, seeds=2)
        models = {path: path.stat().st_mtime_ns for path in tmp_path.glob("models/*/base.json")}
        second = ablate(options, tmp_path, seeds=2)
    assert first == second == json.loads((tmp_path / "ablation.json").read_text())
    assert first["rows"]["curated"] == first["rows"]["uncurated"]
    assert models == {path: path.stat().st_mtime_ns for path in tmp_path.glob("models/*/base.json")}
    assert len(models) == 2 * (len(variants(2)) - 1)
    page = (tmp_path / "ablation.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")
