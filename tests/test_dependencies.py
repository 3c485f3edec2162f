"""Laws of packaging: what the code imports is declared, and what is declared is pinned."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import askback

PACKAGE = Path(askback.__file__).parent
ROOT = Path(__file__).parent.parent
NAMED_OTHERWISE = {"sklearn": "scikit-learn"}
"""Libraries whose package has another name."""


def imported(file: Path) -> Iterator[str]:
    """Yield the libraries a file imports, at its head, inside a function, or by `borrow`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "borrow":
            yield ast.literal_eval(node.args[0]).split(".")[0]


def plain(requirement: str) -> str:
    """Return the name of a requirement as package indexes compare names."""
    return re.split(r"[<>=!~\[; ]", requirement)[0].replace("_", "-").lower()


def declared(*, tools: bool) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if tools or name != "test"]
    more = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {plain(line) for line in [*project["dependencies"], *more]} - {"askback"}  # an extra made of others


def test_every_library_that_is_imported_is_declared() -> None:
    names = {name for file in PACKAGE.rglob("*.py") for name in imported(file)}
    found = {plain(NAMED_OTHERWISE.get(name, name)) for name in names}
    standard = {plain(name) for name in sys.stdlib_module_names}
    assert found - standard - {"askback"} - declared(tools=False) == set()


def test_every_library_that_is_needed_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line) for line in lines if not line.startswith("#")}
    assert declared(tools=True) - pinned <= {
        "datasets",
        "bitsandbytes",
        "lm-eval",
        "vllm",
    }  # extras nobody needs for the tests
