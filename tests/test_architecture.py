"""Laws of the house: imports point down, the heavy world is borrowed late, and only one file prints."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import askback
from askback.cli import build_parser

ROOT = Path(askback.__file__).parent
LAYERS = (
    "errors records metrics estimate",
    "agreement options plots tables embedded verbs grades grams languages personal",
    "nearness prose",
    "ports chance",
    "prompts store calibration",
    "stages engines readers steps",
    "config cards meter tasks finished ranks rehearsal",
    "pipeline",
    "publish doctor progress budget",
    "api looking",
    "commands calibrating comparing ablating inspecting planning",
    "cli",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
DOORS = ("__init__", "__main__")
"""The package's two doors: above every layer."""
FILES = sorted(ROOT.rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """Yield the dotted names of this package that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("askback.") for name in names if name.startswith("askback."))


def rooms_imported(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(file)} - {"__version__"}


def importers(*rooms: str) -> list[Path]:
    return [file for file in FILES if room(file) in rooms]


# --- who may know whom


def test_every_module_has_a_layer() -> None:
    assert {room(file) for file in FILES} == {*RANK, *DOORS}


@pytest.mark.parametrize("file", [file for file in FILES if room(file) not in DOORS], ids=lambda file: file.stem)
def test_imports_point_down(file: Path) -> None:
    others = rooms_imported(file) - {room(file)}
    assert [name for name in others if RANK[name] >= RANK[room(file)]] == []


@pytest.mark.parametrize("file", importers("stages"), ids=lambda file: file.stem)
def test_a_stage_knows_no_other_stage_engine_store_or_reader(file: Path) -> None:
    assert rooms_imported(file) & {"stages", "engines", "store", "readers"} == set()


@pytest.mark.parametrize("file", importers("engines"), ids=lambda file: file.stem)
def test_an_engine_knows_no_stage_store_or_prompt(file: Path) -> None:
    assert rooms_imported(file) & {"stages", "store", "readers", "prompts"} == set()


@pytest.mark.parametrize("file", importers("readers"), ids=lambda file: file.stem)
def test_a_reader_knows_no_stage_engine_or_store(file: Path) -> None:
    assert rooms_imported(file) & {"stages", "engines", "store"} == set()


def test_the_store_knows_nothing_but_records_and_errors() -> None:
    assert rooms_imported(ROOT / "store.py") == {"errors", "records"}


def test_the_pipeline_receives_its_engine() -> None:
    assert rooms_imported(ROOT / "pipeline.py") & {"engines", "config", "cli", "progress"} == set()


def test_one_file_knows_the_names_of_devices() -> None:
    named = [file for file in FILES if re.search(r"\b(cuda|mps)\b", file.read_text(encoding="utf-8"), re.IGNORECASE)]
    assert [str(file.relative_to(ROOT)) for file in named] == ["engines/device.py"]


def test_one_file_borrows_the_distributed_engine() -> None:
    named = [file for file in FILES if re.search(r"borrow\(\"ray|import ray", file.read_text(encoding="utf-8"))]
    assert [str(file.relative_to(ROOT)) for file in named] == ["engines/cluster.py"]


def test_only_the_command_line_prints() -> None:
    def prints(file: Path) -> bool:
        calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        return any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)

    assert [file.name for file in FILES if prints(file)] == ["cli.py"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{room(file)}-{file.stem}")
def test_every_module_opens_with_its_contract(file: Path) -> None:
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    if file.stem in DOORS:
        assert said
    else:
        assert [word for word in ("Takes:", "Gives:", "Never:") if word not in said] == []


# --- what is loaded when


def loaded_by(code: str) -> set[str]:
    """Return the modules outside the standard library that a fresh interpreter holds after running code."""
    tail = "import sys, json; json.dump(sorted({name.split('.')[0] for name in sys.modules}), sys.stderr)"
    done = subprocess.run([sys.executable, "-I", "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True)
    before = subprocess.run([sys.executable, "-I", "-c", tail], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr)) - set(json.loads(before.stderr)) - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", ["askback", "askback.cli", "askback.errors", "askback.records", "askback.store"])
def test_an_import_loads_the_standard_library_alone(module: str) -> None:
    assert loaded_by(f"import {module}") == {"askback"}


@pytest.mark.parametrize("module", ["askback.api", "askback.pipeline", "askback.publish", "askback.doctor"])
def test_no_room_loads_the_heavy_world_when_it_is_entered(module: str) -> None:
    heavy = {
        "torch",
        "transformers",
        "peft",
        "numpy",
        "pyarrow",
        "matplotlib",
        "trafilatura",
        "sacrebleu",
        "codecarbon",
    }
    assert loaded_by(f"import {module}") & heavy == set()


def test_a_public_name_is_there_and_an_unknown_one_is_not() -> None:
    assert all(hasattr(askback, name) for name in askback.__all__)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        askback.laod  # noqa: B018


COMMANDS = sorted(next(iter(build_parser()._subparsers._group_actions)).choices)  # type: ignore[union-attr]


def test_help_shows_an_example_for_every_command_and_loads_nothing_heavy() -> None:
    asked = [[], *([name] for name in COMMANDS)]
    code = f"""
from askback.cli import main
for words in {asked!r}:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert not end.code, words
"""
    assert loaded_by(code) == {"askback"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"] if command else ["--help"])
    shown = capsys.readouterr().out
    assert f"example: askback {command}" in shown


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "askback", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"askback {askback.__version__}\n"
