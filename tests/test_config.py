"""Laws of the run file: every key is known, every value is checked, and who says it last is right."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askback.cli import build_parser, read_options
from askback.config import MAX_RUN_FILE_BYTES, check_options, known_keys, load_options, to_toml
from askback.embedded import DEMO, TINY
from askback.errors import ConfigError
from askback.options import Options


def run_file(folder: Path, text: str) -> Path:
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return folder / "run.toml"


def options_of(*argv: str, defaults: dict[str, Any] | None = None) -> Options:
    return read_options(build_parser().parse_args(argv), defaults)


# --- what is refused


@pytest.mark.parametrize(
    ("key", "unknown", "nearest"),
    [
        ("curate.keep_form", "curate.keep_form", "curate.keep_from"),
        ("engine.bass", "engine.bass", "engine.base"),
        ("seed.held", "seed.held", "seed.held_out"),
        ("curat.keep_top", "curat", "curate"),
        ("random_sed", "random_sed", "random_seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, unknown: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key `{unknown}`; did you mean `{nearest}`\\?"):
        load_options(None, [f"{key}=1"])


def test_a_key_like_no_other_gets_the_list_of_tables() -> None:
    with pytest.raises(ConfigError, match="valid tables: random_seed, seed, corpus, passages"):
        load_options(None, ["xyzzy.qqq=1"])


def test_an_unknown_key_names_its_file(tmp_path: Path) -> None:
    file = run_file(tmp_path, "[curate]\nkeep_form = 4\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file}: unknown key `curate.keep_form`; did you mean")):
        load_options(file)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("curate.rounds=many", "`curate.rounds`: .*integer.*got 'many'"),
        ("passages.whole_without_headings=7", "`passages.whole_without_headings`: .*boolean.*got 7"),
        ("curate=4", "`curate`: .*got 4"),
        ("curate.rounds=0", "`curate.rounds`: .*greater than or equal to 1; got 0"),
        ("seed.held_out=1", "`seed.held_out`: .*less than 1; got 1"),
        ("curate.keep_from=5.5", "`curate.keep_from`: .*less than or equal to 5; got 5.5"),
        ("curate.judge=friendly", "`curate.judge.0`: .*'likeness' or 'backward'; got 'friendly'"),
        ("augment.top_p=nan", "`augment.top_p`: .*got nan"),
        ("engine.country=US", "`engine.country`: .*3 characters; got 'US'"),
    ],
)
def test_an_impossible_value_is_refused_with_key_bound_and_value(setting: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"the command line: {why}"):
        load_options(None, [setting])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[curate\nrounds = 1", "not a TOML file: .*line 1"),
        (b"[seed]\n[seed]\n", "not a TOML file"),
        (b'[seed]\npath = "\xff"', "not a TOML file: .*utf-8"),
        (b"#" * (MAX_RUN_FILE_BYTES + 1), "at most 262144 bytes"),
    ],
)
def test_a_file_that_is_no_run_file_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.toml: .*{why}"):
        load_options(tmp_path / "run.toml")


def test_a_missing_run_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read the run file: No such file"):
        load_options(tmp_path / "none.toml")


@pytest.mark.parametrize("setting", ["curate.rounds", ""])
def test_a_setting_without_a_value_is_refused_with_an_example(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"want table\.key=value, such as curate\.keep_from=4\.5"):
        load_options(None, [setting])


# --- what a setting may be


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("curate.rounds=3", 3),
        ("curate.keep_from=4", 4.0),
        ("backward.learning_rate=1e-4", 1e-4),
        ("backward.layout=plain", "plain"),
        ('backward.layout="plain"', "plain"),
        ("seed.path=my data/a=b.jsonl", "my data/a=b.jsonl"),
        ("seed.path=", ""),
        ("seed.language=''", ""),
        ("passages.whole_without_headings=false", False),
        ('forward.targets=["q_proj", "v_proj"]', ("q_proj", "v_proj")),
    ],
)
def test_a_setting_is_a_number_a_word_a_boolean_or_a_list(setting: str, value: object) -> None:
    table, key = setting.partition("=")[0].split(".")
    assert getattr(getattr(load_options(None, [setting]), table), key) == value


def test_random_seed_stands_above_the_tables(tmp_path: Path) -> None:
    assert load_options(run_file(tmp_path, "random_seed = 7\n[seed]\nlimit = 3\n")).random_seed == 7
    assert load_options(None, ["random_seed=8"]).random_seed == 8
    assert to_toml(Options(random_seed=9)).startswith("random_seed = 9\n")


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Options().curate.rounds = 3  # type: ignore[misc]


def test_every_option_is_in_a_table_that_the_run_file_knows() -> None:
    assert {name.split(".")[0] for name in known_keys()} == set(Options.model_fields)
    assert known_keys()["curate.keep_from"] == (4.5, "lowest score kept")


# --- the run file that is written is the one that was read


def read_back(options: Options, folder: Path) -> Options:
    return load_options(run_file(folder, to_toml(options)))


def test_the_defaults_come_back_from_the_written_run_file(tmp_path: Path) -> None:
    assert read_back(Options(), tmp_path) == Options()


def test_everything_that_differs_from_the_defaults_comes_back(tmp_path: Path) -> None:
    settings = ["random_seed=3", "backward.learning_rate=1e-05", "corpus.max_file_mb=inf", "forward.targets=['a', 'b']"]
    options = load_options(None, [*settings, "passages.whole_without_headings=false", "backward.layout=plain"])
    assert read_back(options, tmp_path) == options


@given(path=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_path_comes_back(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    options = check_options({"seed": {"path": path}}, "here")
    assert read_back(options, tmp_path_factory.mktemp("any")) == options


# --- who says it last


def test_a_run_file_beats_the_defaults_and_a_flag_beats_the_run_file(tmp_path: Path) -> None:
    file = run_file(tmp_path, '[seed]\npath = "from the file"\nlimit = 5\n[augment]\nn = 3\n')
    options = options_of("run", "--out", "x", "--config", str(file), "--seed", "from the flag", "--set", "augment.n=4")
    assert (options.seed.path, options.seed.limit, options.augment.n) == ("from the flag", 5, 4)
    assert options.seed.held_out == Options().seed.held_out


@pytest.mark.parametrize(
    "path", ["plain.jsonl", "2024", "true", "größe 漢字.jsonl", "😀.jsonl", 'a"b\\c', "[x]", "\x7f"]
)
def test_a_path_on_the_command_line_is_taken_word_for_word(path: str) -> None:
    assert options_of("run", "--out", "x", "--seed", path).seed.path == path


def test_what_tiny_means_lies_under_what_the_user_says(tmp_path: Path) -> None:
    file = run_file(tmp_path, "[curate]\nkeep_top = 0.9\n")
    options = options_of(
        "run", "--out", "x", "--base", "tiny", "--config", str(file), "--set", "augment.max_new_tokens=9"
    )
    assert (options.curate.judge, options.curate.keep_top, options.augment.max_new_tokens) == (
        ("likeness",),
        0.9,
        9,
    )
    assert options.backward.preset == TINY["backward"]["preset"]


def test_tiny_may_be_named_in_the_run_file(tmp_path: Path) -> None:
    file = run_file(tmp_path, '[engine]\nbase = "tiny"\n')
    assert options_of("run", "--out", "x", "--config", str(file)).backward.preset == "tiny"


def test_another_base_gets_nothing_of_what_tiny_means() -> None:
    assert options_of("run", "--out", "x") == Options()
    assert options_of("run", "--out", "x", "--base", "some/base").curate == Options().curate


def test_the_demo_lies_under_what_the_user_says() -> None:
    demo = {**DEMO, "engine": {"base": "tiny"}}
    options = options_of("demo", "--set", "seed.held_out=0.5", "--set", "curate.rounds=1", defaults=demo)
    assert (options.seed.path, options.seed.held_out, options.curate.rounds) == (DEMO["seed"]["path"], 0.5, 1)
    assert options.engine.base == "tiny"
    assert options.curate.judge == ("likeness",)


def test_the_demo_and_tiny_are_known_options_and_their_files_are_there() -> None:
    assert check_options(TINY, "TINY").engine.precision == "float32"
    demo = check_options(DEMO, "DEMO")
    assert Path(demo.seed.path).is_file()
    assert Path(demo.corpus.path).is_dir()
