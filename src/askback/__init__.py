"""Instruction backtranslation: documents in, instruction-tuning data and tuned models out.

    model = askback.load("models/backward")
    model.instructions(["Wash the rice until the water runs clear. ..."])

Names are loaded when they are used: importing the package loads the standard library alone.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from askback.api import BackwardModel, load, run

_FROM_API = ("BackwardModel", "load", "run")

__all__ = ["BackwardModel", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in _FROM_API:
        from askback import api

        return getattr(api, name)
    raise AttributeError(f"module 'askback' has no attribute {name!r}")
