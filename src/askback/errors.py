"""Everything that can go wrong for a user, as a tree; each class carries its exit code.

Takes: nothing.  Gives: exceptions whose message names place, expectation and remedy.  Never: a bare message.

    AskbackError
    ├── ConfigError         2  the command line or the run file asks for something impossible
    │   └── MissingExtra    2  a library is needed that an extra brings
    ├── DataError           3  a row, file or result is not what the step needs
    ├── RunInUse            4  another process holds the run folder
    ├── Stopped             5  interrupted or out of room; the same command goes on
    └── IntegrityError      6  a finished file is not what its manifest says, or a number is not finite
"""

from importlib import import_module
from types import ModuleType


class AskbackError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 2


class ConfigError(AskbackError, ValueError):
    """The command line or the run file asks for something impossible."""


class MissingExtra(ConfigError, ImportError):
    """An optional library is needed and absent."""


class DataError(AskbackError, ValueError):
    """A row, a file or the result of a step is not what the next step needs."""

    exit_code = 3


class RunInUse(AskbackError):
    """Another process holds the lock of the run folder."""

    exit_code = 4


class Stopped(AskbackError):
    """The work was stopped cleanly; the same command goes on from there."""

    exit_code = 5


class IntegrityError(AskbackError):
    """Something finished is damaged, or a number that must be finite is not."""

    exit_code = 6


def borrow(library: str, extra: str = "") -> ModuleType:
    """Import an optional library late, or say what brings it.

    Raises:
        MissingExtra: the library is absent; the message holds the pip command.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.split(".")[0]:
            raise  # installed but broken: not ours to explain away
        target = f"askback[{extra}]" if extra else library
        raise MissingExtra(f"{library} is not installed; run: pip install '{target}'") from error
