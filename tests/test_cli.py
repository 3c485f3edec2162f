"""Laws of the command line: results on standard output, one sentence for an error, an exit code for each kind."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askback import api, cli, commands
from askback.errors import ConfigError
from askback.store import open_run
from command_line import ECHO, askback, given, refused
from small_run import snapshot, still


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No meter, and this process's own answer to SIGTERM put back."""
    before = signal.getsignal(signal.SIGTERM)
    with still():
        yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def models(small_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backward and a forward model of the double, each trained by the command."""
    folder = tmp_path_factory.mktemp("models")
    for direction in ("backward", "forward"):
        words = ("train", direction, "--seed", small_inputs / "pairs.jsonl", "--out", folder / direction)
        assert askback(*words, *ECHO) == 0
    return folder


# --- errors: one sentence, one code, no traceback


def run_words(out: Path, *, seed: object, corpus: object) -> list[object]:
    return ["run", "--seed", seed, "--corpus", corpus, "--out", out, *ECHO]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path) -> Any:
    """A call that runs on the small inputs, with something wrong, and returns what was said."""

    def call(code: int, *more: object, seed: object = small_inputs / "pairs.jsonl", corpus: object = None) -> str:
        words = run_words(tmp_path / "run", seed=seed, corpus=corpus or small_inputs / "docs")
        return refused(capsys, code, *words, *more)

    return call


def test_a_wrong_seed_path_is_named(said: Any) -> None:
    line = said(2, seed="nowhere.jsonl")
    assert line.startswith("askback: seed.path 'nowhere.jsonl': no such file; name the seed pairs")
    assert said(2, seed="no where").startswith("askback: seed.path 'no where' is neither on disk nor a data set")


def test_a_wrong_corpus_path_is_named(said: Any) -> None:
    assert said(2, corpus="nowhere/") == "askback: --corpus nowhere/: there is no such file or folder"


def test_a_missing_seed_or_corpus_names_its_flag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--seed PATH" in refused(capsys, 2, "run", "--out", tmp_path / "run", *ECHO)
    assert "--corpus PATH" in refused(capsys, 2, "run", "--seed", "x", "--out", tmp_path / "run", *ECHO)
    assert "--seed PATH" in refused(capsys, 2, "train", "backward", "--out", tmp_path / "model", *ECHO)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_names_the_nearest(said: Any) -> None:
    assert said(2, "--set", "curate.keep_form=4").endswith(
        "the command line: unknown key `curate.keep_form`; did you mean `curate.keep_from`?"
    )


def test_a_missing_column_names_what_is_there(said: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "Why?", "reply": "Because."}\n')
    line = said(3, seed=tmp_path / "rows.jsonl")
    assert "question, reply fit no format" in line
    assert "instruction" in line


def test_a_corpus_without_a_readable_file_says_what_was_found(said: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.png").write_bytes(b"\x89PNG")
    assert ".png" in said(3, corpus=tmp_path / "docs")


def test_a_corpus_without_a_passage_names_reasons_and_options(said: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "short.md").write_text("# Tides\n\nThey rise and fall.\n")
    line = said(3, corpus=tmp_path / "docs")
    assert line == (
        "askback: no passage is left of 1 sections (too_short 1); look at passages.min_chars and passages.max_chars"
    )


def test_too_few_kept_rows_show_the_scores_and_an_option(said: Any) -> None:
    line = said(3, "--set", "curate.keep_from=5")
    assert "--set curate.keep_top=" in line


def test_a_run_in_use_is_told_with_the_process(said: Any, tmp_path: Path) -> None:
    with open_run(tmp_path / "run"):
        assert said(4).startswith(f"askback: {tmp_path / 'run'} is in use by process {os.getpid()} on ")


def test_a_folder_that_is_no_run_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "not a run folder" in refused(capsys, 2, "report", tmp_path)


@pytest.mark.parametrize("command", ["augment", "evaluate", "curate"])
def test_a_folder_that_is_no_model_is_told(
    command: str, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    pairs = small_inputs / "pairs.jsonl"
    more = {"augment": [pairs], "evaluate": ["--seed", pairs], "curate": [pairs, "--out", tmp_path / "kept.jsonl"]}
    line = refused(capsys, 2, command, "--model", tmp_path, *more[command])
    assert str(tmp_path) in line


def test_a_model_of_the_other_direction_is_refused(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path
) -> None:
    line = refused(capsys, 2, "augment", "--model", models / "forward", small_inputs / "docs")
    assert line.endswith("this is a forward model; a backward model is wanted here")


def test_another_base_than_the_one_trained_on_is_refused(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    commands.train("backward", commands.read_augmented(small_inputs / "pairs.jsonl"), model, *_echo_parts(), seed=0)
    note = json.loads((model / "base.json").read_text())
    (model / "base.json").write_text(json.dumps(note | {"hash": "another"}))
    line = refused(capsys, 6, "augment", "--model", model, small_inputs / "docs")
    assert "trained on the base echo with hash another" in line


def _echo_parts() -> tuple[Any, Any]:
    from askback.options import BackwardOptions, EngineOptions

    return BackwardOptions(), commands.engine_for(EngineOptions(kind="echo"))


OUTS = ("give a folder", "--base tiny", "hf auth login")


def test_an_unknown_base_without_network_names_three_ways_out(small_inputs: Path, tmp_path: Path) -> None:
    words = ["run", "--base", "nobody-here/no-such-base", "--out", str(tmp_path / "run")]
    words += ["--seed", str(small_inputs / "pairs.jsonl"), "--corpus", str(small_inputs / "docs")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "askback", *words], capture_output=True, text=True, env=env, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("askback: the base 'nobody-here/no-such-base' cannot be loaded")
    assert len(done.stderr.splitlines()) == 1
    assert [way for way in OUTS if way not in done.stderr] == []


def test_a_gated_base_says_so_and_names_three_ways_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("You are trying to access a gated repo.\n401 Client Error.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    words = ("train", "backward", "--seed", small_inputs / "pairs.jsonl", "--out", tmp_path / "model")
    line = refused(capsys, 2, *words, "--base", "owner/gated-base")
    assert line.startswith("askback: owner/gated-base is gated: accept its licence on its page")
    assert [way for way in OUTS if way not in line] == []


def test_a_base_folder_that_is_not_there_is_no_hub_name(capsys: pytest.CaptureFixture[str], small_inputs: Path) -> None:
    words = ("train", "backward", "--seed", small_inputs / "pairs.jsonl", "--out", "unused")
    assert "no such folder" in refused(capsys, 2, *words, "--base", "./no/such/folder")


def test_debug_shows_the_traceback_and_its_absence_does_not() -> None:
    words = [sys.executable, "-m", "askback", "doctor", "--set", "sed.path=x"]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    debug = subprocess.run([*words, "--debug"], capture_output=True, text=True, check=False)
    assert plain.stderr == "askback: the command line: unknown key `sed`; did you mean `seed`?\n"
    assert "Traceback" in debug.stderr
    assert debug.stderr.rstrip().endswith(plain.stderr.removeprefix("askback: ").rstrip())


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 5, "askback: stopped; the same command goes on from here"),
        (OSError(errno.ENOSPC, "No space left on device"), 5, "free some room, and the same command goes on from here"),
        (ConfigError("a sentence"), 2, "askback: a sentence"),
    ],
)
def test_each_end_has_its_code(
    monkeypatch: pytest.MonkeyPatch, said: Any, error: BaseException, code: int, sentence: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(api, "run", fail)
    assert sentence in said(code)


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, small_inputs: Path, tmp_path: Path) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "not a matter of room")

    monkeypatch.setattr(api, "run", fail)
    words = run_words(tmp_path / "run", seed=small_inputs / "pairs.jsonl", corpus=small_inputs / "docs")
    with pytest.raises(PermissionError):
        cli.main([str(word) for word in words])


@pytest.mark.parametrize("words", [[], ["fly"], ["run"], ["augment", "x"], ["train", "sideways", "--out", "x"]])
def test_a_command_that_cannot_be_parsed_leaves_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert askback(*words) == 2
    assert "usage: askback" in capsys.readouterr().err


# --- train


def test_only_training_needs_a_folder(capsys: pytest.CaptureFixture[str], small_inputs: Path) -> None:
    words = ("train", "backward", "--seed", small_inputs / "pairs.jsonl", *ECHO)
    assert "--out FOLDER" in refused(capsys, 2, *words)
    assert askback(*words, "--show-labels", 1) == 2
    assert "--show-labels needs engine.kind = local" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_labels_of_no_row_are_a_usage_error(capsys: pytest.CaptureFixture[str], count: str) -> None:
    assert askback("train", "backward", "--seed", "x", "--show-labels", count) == 2
    assert f"want a whole number from 1, got '{count}'" in capsys.readouterr().err


# --- augment


def lines_of(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    assert askback("augment", *words) == 0
    return [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_text_on_standard_input_gives_one_line(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, "Steep the leaves\u2028for three minutes.\n\nThen pour.\n".encode())
    (line,) = lines_of(capsys, "--model", models / "backward", "-")
    assert line["output"] == "Steep the leaves\u2028for three minutes.\n\nThen pour."
    assert line["instruction"].startswith("Write about")
    assert line["id"]


def test_json_lines_on_standard_input_give_a_line_each(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "Steep the leaves."}, {"output": "Pour the water."}, {"words": "none of ours"}]
    feed(monkeypatch, "\n".join(map(json.dumps, rows)).encode())
    lines = lines_of(capsys, "--model", models / "backward", "-")
    assert [line["output"] for line in lines] == ["Steep the leaves.", "Pour the water.", None]
    assert [line["instruction"] is None for line in lines] == [False, False, True]
    assert lines[2]["rejected"] == "no_text"


def test_nothing_on_standard_input_is_told_not_invented(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b" \n")
    (line,) = lines_of(capsys, "--model", models / "backward", "-")
    assert (line["instruction"], line["rejected"]) == (None, "empty")


def test_bytes_that_are_no_text_are_a_data_error(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b"caf\xe9")
    assert "not UTF-8 at byte 3" in refused(capsys, 3, "augment", "--model", models / "backward", "-")


def test_a_file_gives_one_line_and_a_folder_one_for_each_document(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path
) -> None:
    model = models / "backward"
    (line,) = lines_of(capsys, "--model", model, small_inputs / "docs" / "03.md")
    lines = lines_of(capsys, "--model", model, small_inputs / "docs")
    assert len(lines) == 30
    assert all(one["id"] and one["output"] and one["instruction"] for one in lines)
    assert line["output"] == next(one["output"] for one in lines if one["source"] == "03.md")


def test_several_candidates_and_passages_have_ids_of_their_own(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path
) -> None:
    lines = lines_of(capsys, "--model", models / "backward", "-n", 3, "--passages", small_inputs / "docs")
    assert len(lines) == 90
    assert len({line["id"] for line in lines}) == 90


def test_the_same_text_gives_the_same_line_and_a_file_holds_what_would_be_shown(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    words = ("--model", models / "backward", small_inputs / "docs")
    shown = lines_of(capsys, *words)
    assert lines_of(capsys, *words, "--out", tmp_path / "lines.jsonl") == []
    assert [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()] == shown


def test_a_reader_that_hangs_up_ends_the_command_quietly(models: Path, small_inputs: Path) -> None:
    words = [sys.executable, "-m", "askback", "augment", "--model", models / "backward", small_inputs / "docs"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 5


# --- curate, evaluate, run, report, doctor


def test_curate_keeps_or_rejects_every_pair_of_a_file(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.jsonl"
    words = ("curate", small_inputs / "pairs.jsonl", "--model", models / "forward", "--out", kept)
    assert askback(*words, "--set", "curate.keep_top=0.25") == 0
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    rejected = [json.loads(line) for line in (tmp_path / "kept.jsonl.rejected.jsonl").read_text().splitlines()]
    assert (len(rows), len(rejected)) == (10, 30)
    assert min(row["score"] for row in rows) >= max(float(row["detail"].split()[1]) for row in rejected)
    assert capsys.readouterr().out == f"40 read: 10 kept in {kept}, 30 rejected in {kept}.rejected.jsonl\n"


def test_curate_puts_aside_rows_that_are_no_pairs_and_goes_on(
    capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    good = (small_inputs / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text(good + good.splitlines()[0] + '\n{"instruction": "Why?"}\n{\n')
    words = ("curate", tmp_path / "pairs.jsonl", "--format", "pairs", "--out", tmp_path / "kept.jsonl", *ECHO)
    assert askback(*words, "--set", "curate.keep_from=1") == 0
    aside = (tmp_path / "kept.jsonl.rejected.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["reason"] for line in aside) == ["bad_json", "duplicate", "missing_column"]
    assert capsys.readouterr().out.startswith("43 read: 40 kept in ")


def test_a_file_that_is_not_there_is_no_seed_where_it_is_no_seed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refused(capsys, 2, "curate", "nowhere.jsonl", "--out", tmp_path / "kept.jsonl", *ECHO)
    assert line == "askback: nowhere.jsonl: no such file"


def test_curate_without_a_model_asks_the_base_itself(small_inputs: Path, tmp_path: Path) -> None:
    words = ("curate", small_inputs / "pairs.jsonl", "--out", tmp_path / "kept.jsonl", *ECHO)
    assert askback(*words, "--set", "curate.keep_from=1") == 0
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 40


def test_what_curate_wrote_can_be_trained_on(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    test_curate_without_a_model_asks_the_base_itself(small_inputs, tmp_path)
    words = ("train", "forward", "--seed", small_inputs / "pairs.jsonl", "--augmented", tmp_path / "kept.jsonl")
    assert askback(*words, "--out", tmp_path / "forward", *ECHO) == 0
    held = int(capsys.readouterr().out.split(" held out")[0].rsplit(" ", 1)[1])
    assert json.loads((tmp_path / "forward" / "base.json").read_text())["examples"] == 80 - held


def test_evaluate_shows_the_measures_beside_the_floors_and_writes_every_number(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path, tmp_path: Path
) -> None:
    words = ("evaluate", "--model", models / "backward", "--seed", small_inputs / "pairs.jsonl")
    assert askback(*words, "--out", tmp_path / "found.json", "--set", "evaluate.bootstrap=100") == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[-3:]] == ["BLEU", "chrF2", "ROUGE"]
    assert table[0].split() == ["adapter", "base", "first_sentence", "shuffled"]
    assert [line.split()[0] for line in table[1:3]] == ["rougeL", "rouge1"]
    found = json.loads((tmp_path / "found.json").read_text())
    trained = (models / "backward" / "trained_on.txt").read_text().split()
    assert found["backward"]["n"] == len(found["floors"]["shuffled"]["rows"]) == 40 - len(trained)


def test_evaluate_can_use_the_held_out_pairs_alone(
    models: Path, capsys: pytest.CaptureFixture[str], small_inputs: Path
) -> None:
    words = ("evaluate", "--model", models / "backward", "--seed", small_inputs / "pairs.jsonl", "--held-out-only")
    assert askback(*words, "--set", "evaluate.bootstrap=100", "--set", "seed.held_out=0.25") == 0
    assert int(capsys.readouterr().err.rsplit("measuring on ", 1)[1]) < 40


def test_a_run_shows_every_step_and_report_writes_the_same_bytes_again(
    few_inputs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert askback("run", "--out", out, *given(few_inputs, "curate.rounds=1")) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line[:2] for line in shown.err.splitlines() if "  rejected " in line] == [f"{n:02}" for n in range(1, 13)]
    assert str(out / "report.html") in shown.err
    before = snapshot(out)
    assert askback("report", out) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    assert snapshot(out) == before


def test_curate_reads_the_candidates_folder_of_a_run(few_inputs: Path, tmp_path: Path) -> None:
    assert askback("run", "--out", tmp_path / "run", *given(few_inputs, "curate.rounds=1")) == 0
    words = ("curate", tmp_path / "run" / "06-candidates", "--out", tmp_path / "kept.jsonl", *ECHO)
    assert askback(*words, "--set", "curate.keep_from=1") == 0
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 10


def test_doctor_names_device_and_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert askback("doctor", "--base", "tiny", "--set", "engine.device=cpu", "--set", "engine.threads=1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("device: cpu, precision float32, 1 threads") for line in lines)
    assert "base: tiny (embedded)" in lines


def test_doctor_says_what_a_name_will_mean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert askback("doctor", "--base", tmp_path) == 0
    assert f"base: {tmp_path} (a folder)" in capsys.readouterr().out
    assert askback("doctor", "--base", "owner/base") == 0
    assert "base: owner/base (a hub name: it is fetched when a run needs it)" in capsys.readouterr().out
