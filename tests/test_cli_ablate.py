"""Laws of `askback ablate`: one command from a run file to a table and a picture, each training counted once."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askback.config import to_toml
from askback.stages.ablate import claims, variants
from command_line import askback, help_of, refused
from small_run import small_options, snapshot, still


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with still():
        yield


def write_run_file(inputs: Path, file: Path, *more: str) -> Path:
    file.write_text(to_toml(small_options(inputs, *more)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def done(few_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run.toml` and, under `out`, what the command made of it with two trainings of each variant."""
    folder = tmp_path_factory.mktemp("ablated")
    file = write_run_file(few_inputs, folder / "run.toml")
    with still():
        assert askback("ablate", file, "--out", folder / "out", "--seeds", 2) == 0
    return folder


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "ablation.json").read_text())
    return found


def test_every_variant_is_trained_with_every_seed_and_written_down(done: Path) -> None:
    found = report(done / "out")
    assert {*found["variants"]} == {variant.name for variant in variants(2)}
    trainings = {name: len(one["seeds"]) for name, one in found["variants"].items()}
    assert trainings == {name: 1 if name == "none" else 2 for name in trainings}  # the bare base has no chance in it
    assert len(list((done / "out" / "results").glob("*.json"))) == sum(trainings.values())
    assert [(one["better"], one["worse"]) for one in found["claims"]] == [(c.better, c.worse) for c in claims(2)]
    assert {one["verdict"] for one in found["claims"]} == {"not shown"}  # the double learns nothing
    assert found["seeds"] == 2


def test_curated_and_uncurated_sets_are_of_one_size(done: Path) -> None:
    rows = report(done / "out")["rows"]
    assert rows["curated"] == rows["uncurated"] > 0
    assert rows["seed + curated"] == rows["seed + uncurated"] == rows["seed"] + rows["curated"]
    assert rows["none"] == 0


def test_variants_are_trained_on_the_lines_their_names_say(done: Path) -> None:
    layouts = {
        path.parent.name[:-2]: json.loads(path.read_text())["system"]
        for path in (done / "out" / "models").glob("*-0/askback.json")
    }
    assert {name for name, system in layouts.items() if system == "none"} == {"seed-curated-no-tags"}


def test_table_and_page_show_every_variant_and_every_ordering(done: Path) -> None:
    found, text = report(done / "out"), (done / "out" / "ablation.txt").read_text()
    page = (done / "out" / "ablation.html").read_text()
    for name in found["variants"]:
        assert re.search(rf"^{re.escape(name)} +\d+ ", text, re.MULTILINE)
        assert f'<th scope="row">{name}</th>' in page
    for claim in found["claims"]:
        assert f"not shown  {claim['better']} < {claim['worse']}: " in text
        assert f'<th scope="row">{claim["better"]} &lt; {claim["worse"]}</th>' in page
    assert page.count("<svg role=") == 2
    assert "http" not in page
    assert not re.search(r"#0000\d\d", page)


def test_the_table_is_printed_as_it_is_written(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(done / "out")
    assert askback("ablate", done / "run.toml", "--out", done / "out", "--seeds", 2) == 0
    assert capsys.readouterr().out == (done / "out" / "ablation.txt").read_text()
    assert snapshot(done / "out") == before  # nothing was trained or measured again


def test_one_training_of_each_is_enough_for_a_table(
    few_inputs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = write_run_file(few_inputs, tmp_path / "run.toml", "curate.rounds=1")
    assert askback("ablate", file, "--out", tmp_path / "out", "--seeds", 1) == 0
    found = report(tmp_path / "out")
    assert {len(one["seeds"]) for one in found["variants"].values()} == {1}
    assert "seed + curated, round 1" in found["variants"]  # two rounds were done, for one to be compared
    assert "2 rounds are done, not 1" in capsys.readouterr().err


def test_more_trainings_join_those_that_are_there(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "out", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "models").glob("*/base.json")}
    assert askback("ablate", done / "run.toml", "--out", tmp_path / "out", "--seeds", 3) == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "models").glob("*/base.json")}
    assert {path: after[path] for path in before} == before
    assert len(after) == 3 * len(before) / 2
    assert len(report(tmp_path / "out")["variants"]["seed"]["seeds"]) == 3


def test_other_options_train_again_what_they_change(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "out", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (done / "out" / "results").iterdir()}
    words = ("ablate", done / "run.toml", "--out", tmp_path / "out", "--seeds", 1)
    assert askback(*words, "--set", "curate.keep_top=0.4") == 0
    changed = {path.name for path in (tmp_path / "out" / "results").iterdir() if path.read_bytes() != before[path.name]}
    assert "seed-curated-0.json" in changed
    assert "none-0.json" not in changed
    assert report(tmp_path / "out")["rows"]["curated"] < report(done / "out")["rows"]["curated"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.toml",), "nowhere.toml: cannot read the run file: No such file or directory"),
        (("bad.toml",), "bad.toml: not a TOML file"),
        (("typo.toml",), "unknown key `curate.keep_form`; did you mean `curate.keep_from`?"),
        (("empty.toml",), "no seed is given: --seed PATH, or seed.path in the run file"),
        (("empty.toml", "--seeds", "0"), "argument --seeds: want a whole number from 1, got '0'"),
    ],
)
def test_a_run_file_that_cannot_be_used_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text("[curate\n")
    Path("typo.toml").write_text("[curate]\nkeep_form = 4\n")
    Path("empty.toml").write_text('[engine]\nkind = "echo"\n')
    assert said in refused(capsys, 2, "ablate", *words)
    assert not Path("ablation").exists()


def test_a_file_in_the_place_of_the_folder_is_told(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, 2, "ablate", done / "run.toml", "--out", done / "run.toml")
    assert "cannot be a run folder" in line
    assert (done / "run.toml").is_file()


def test_help_says_what_is_varied_and_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, "ablate")
    assert "what seed, curation, tags and rounds add, each trained anew" in said
    assert "trainings of each variant (default 3)" in said
    assert "folder for the results (default ablation)" in said
    assert "example: askback ablate run.toml --out ablation" in said
