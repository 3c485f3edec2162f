"""The command line in this process: words in, an exit code and what was said out.

Takes: words.  Gives: exit codes, lines.  Never: starts a process, or lets a refusal spill more than its sentence.
"""

from pathlib import Path

import pytest

from askback import cli
from small_run import settings

ECHO = ("--set", "engine.kind=echo")


def askback(*words: object) -> int:
    """Run a command in this process; return its exit code."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def given(inputs: Path, *more: str) -> list[str]:
    """Return the arguments of a small run on these inputs."""
    return [part for setting in settings(inputs, *more) for part in ("--set", setting)]


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """Return the last line a refused command says, having checked its code and that nothing else was spilt."""
    assert askback(*words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err.strip().splitlines()[-1]


def help_of(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """Return what a command says of itself."""
    assert askback(command, "--help") == 0
    return " ".join(capsys.readouterr().out.split())
