"""Laws of comparing two runs: the same pairs or none, what chance makes is nobody's win, and nothing is left unsaid."""

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from askback.agreement import wilson
from askback.comparing import compare_folders, compare_table
from askback.errors import ConfigError, DataError, IntegrityError
from askback.stages.compare import compare_runs


def share(right: int, n: int) -> dict[str, Any] | None:
    found = wilson(right, n)
    return asdict(found) if found else None


def run(*, better: float = 0.0, rows: range = range(40), rounds: int = 2, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of a run that never was; `better` nats, and ten times as much ROUGE-L."""
    random = Random(seed)
    backward = [
        {"id": f"p{at}", "rougeL": 10 + at % 7 + 10 * better + random.random(), "nll": 4 + at / 50 - better, "first": 1}
        for at in rows
    ]
    forward = [{"id": f"p{at}", "nll": 3 + at / 50 - better + random.random() / 10} for at in rows]
    labels = {"n": 100, "good": 60, "precision": share(40, 50)}
    return {
        "run": {"options": {"random_seed": 0, "evaluate": {"encoder": ""}}},
        "base": {"base": "tiny", "hash": "abc"},
        "rounds": {str(number + 1): {"labels": labels} for number in range(rounds)},
        "evaluation": {
            "backward": {"rows": backward, "retrieval": {"value": 1.0, "of": 10}},
            "forward": {str(number): {"rows": forward} for number in range(rounds + 1)},
        },
    }


def test_a_run_compared_with_itself_does_not_differ() -> None:
    found = compare_runs(run(), run())
    each = [*found["backward"].values(), *found["forward"].values(), *found["rounds"].values()]
    assert [one["difference"] for one in each] == [0] * 8
    assert {one["better"] for one in each} == {None}
    assert found["pairs"] == {"both": 40, "only_a": 0, "only_b": 0}
    assert found["notes"] == []


def test_a_better_run_is_named_whichever_side_it_stands_on() -> None:
    one, other = compare_runs(run(better=1), run(seed=1)), compare_runs(run(seed=1), run(better=1))
    for figure in ("rougeL", "nll"):
        assert (one["backward"][figure]["better"], other["backward"][figure]["better"]) == ("a", "b")
    assert one["backward"]["nll"]["difference"] == pytest.approx(-1)
    assert one["backward"]["nll"]["high"] < 0
    assert one["forward"]["2"]["better"] == "a"
    assert one["forward"]["2"]["n"] == 40


def test_what_chance_makes_is_nobodys_win() -> None:
    tests = [compare_runs(run(seed=seed), run(seed=seed + 100))["backward"]["rougeL"] for seed in range(60)]
    assert sum(test["better"] is not None for test in tests) <= 8


def test_only_pairs_of_both_runs_are_compared_and_the_others_counted() -> None:
    found = compare_runs(run(), run(better=1, rows=range(30, 45)))
    assert found["pairs"] == {"both": 10, "only_a": 30, "only_b": 5}
    assert found["backward"]["nll"]["n"] == 10
    assert found["backward"]["nll"]["a"] == pytest.approx(4 + 34.5 / 50)
    assert "30 only in a and 5 only in b" in compare_table(found)


def test_runs_without_a_pair_in_common_are_refused() -> None:
    with pytest.raises(DataError, match=r"mine and yours share no held-out pair .* same seed\.path"):
        compare_runs(run(), run(rows=range(50, 60)), ("mine", "yours"))
    with pytest.raises(DataError, match="B: no held-out rows"):
        compare_runs(run(), {"evaluation": {}})


def test_a_row_that_one_run_could_not_score_is_left_out_and_counted() -> None:
    gap = run()
    gap["evaluation"]["backward"]["rows"][3]["nll"] = None
    found = compare_runs(gap, run())["backward"]["nll"]
    assert (found["n"], found["unscored"]) == (39, 1)


def test_a_figure_that_one_run_lacks_is_said_and_one_that_both_lack_is_not_there() -> None:
    old = run()
    for row in old["evaluation"]["backward"]["rows"]:
        del row["first"]
    found = compare_runs(run(), old)
    assert found["backward"]["retrieval"]["missing"].startswith("the rows of b hold no `first`")
    assert "similarity" not in found["backward"]
    assert "not compared: the rows of b" in compare_table(found)


def test_retrieval_among_other_numbers_is_not_compared() -> None:
    other = run()
    other["evaluation"]["backward"]["retrieval"]["of"] = 4
    assert compare_runs(run(), other)["backward"]["retrieval"] == {"missing": "ranked among 10 in a and among 4 in b"}


def test_rounds_that_one_run_has_alone_are_named_and_the_last_models_compared() -> None:
    found = compare_runs(run(rounds=1), run(rounds=3, better=1))
    assert set(found["forward"]) == {"0", "1", "last"}
    assert (found["forward"]["last"]["of"], found["forward"]["last"]["better"]) == (["1", "3"], "b")
    assert found["only"] == {"a": {"forward": [], "rounds": []}, "b": {"forward": ["2", "3"], "rounds": ["2", "3"]}}
    assert "Only b has forward model 2, 3." in compare_table(found)
    assert "forward 1 and 3 nll" in compare_table(found)


def test_other_bases_encoders_and_seeds_are_noted() -> None:
    other = run()
    other["base"]["hash"] = "def"
    other["run"]["options"] = {"random_seed": 1, "evaluate": {"encoder": "e5"}}
    notes = compare_runs(run(), other)["notes"]
    assert [word in note for word, note in zip(("bases differ", "none and e5", "seeds differ"), notes, strict=True)]


# --- precision


def labelled(right: int, kept: int, good: int = 200) -> dict[str, Any]:
    found = run(rounds=1)
    labels = {"n": 400, "good": good, "precision": share(right, kept)}
    found["rounds"]["1"]["labels"] = labels
    return found


def test_the_interval_of_two_precisions_is_newcombes() -> None:
    found = compare_runs(labelled(56, 70), labelled(48, 80))["rounds"]["1"]  # his first example
    assert (found["n_a"], found["n_b"], found["better"]) == (70, 80, "a")
    assert [found[name] for name in ("difference", "low", "high")] == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-4)


def test_precision_of_nothing_is_missing_and_without_labels_there_is_none() -> None:
    assert "missing" in compare_runs(labelled(0, 0), labelled(48, 80))["rounds"]["1"]
    bare = run()
    bare["rounds"]["1"]["labels"] = None
    assert set(compare_runs(run(), bare)["rounds"]) == {"2"}


# --- text and files


def test_the_table_shows_each_figure_with_interval_p_and_n() -> None:
    table = compare_table(compare_runs(run(better=1), run(), ("curated", "uncurated")))
    line = next(line for line in table.splitlines() if line.startswith("backward nll"))
    assert line.split()[2:] == ["3.3900", "4.3900", "-1.0000", "[-1.0000,", "-1.0000]", "0.0005", "40", "a"]
    assert "a: curated" in table
    assert not any(line != line.rstrip() for line in table.splitlines())


def test_folders_are_compared_by_their_metrics(tmp_path: Path) -> None:
    for name, metrics in (("one", run(better=1)), ("two", run())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    found = compare_folders(tmp_path / "one", tmp_path / "two")
    assert found["names"] == ["one", "two"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_folder_without_a_finished_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no metrics.json is in it; want the folder of a finished run"):
        compare_folders(tmp_path, tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        compare_folders(tmp_path, tmp_path)


def test_comparing_changes_neither_run() -> None:
    one, other = run(), run(better=1)
    before = deepcopy((one, other))
    compare_runs(one, other)
    assert (one, other) == before
