"""A task that doubles numbers and strikes at one of them. In a file of its own: workers elsewhere import it.

Takes: numbers.  Gives: twice as much.  Never: loads a model.
"""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from askback.errors import DataError
from askback.ports import Engine, Work


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; strikes at some of them, each time or once."""

    marks: Path
    poison: int = -1
    how: str = ""

    def open(self, engine: Engine) -> Work:
        return self.work

    def work(self, rows: list[int]) -> Iterator[int]:
        (self.marks / f"worker-{os.getpid()}").touch()
        for row in rows:
            if row == self.poison:
                self.strike()
            yield 2 * row

    def strike(self) -> None:
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "is out of memory":
            raise MemoryError
        elif self.how == "raises":
            raise DataError("pairs.jsonl:7: this is no row")
        elif not (self.marks / "struck").exists():
            (self.marks / "struck").write_text(str(os.getpid()))
            if self.how == "dies once":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGSTOP)

    def give_up(self, row: int, reason: str, detail: str) -> Iterable[Any]:
        return [(row, reason, detail)]
