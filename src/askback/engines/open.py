"""`engine.kind` -> an engine: one table, each entry imported only when it is asked for.

Takes: EngineOptions.  Gives: an Engine.  Never: imports an engine that nobody asked for.
"""

import warnings

from askback.options import EngineOptions
from askback.ports import Engine


def open_engine(options: EngineOptions) -> Engine:
    """Open the engine of a run file; weights are read when the first call needs them."""
    if options.kind == "echo":
        from askback.engines.echo import EchoEngine

        return EchoEngine(options)
    if options.kind == "server":
        from askback.engines.server import ServerEngine

        return ServerEngine(options)
    quieten()
    if options.kind == "vllm":
        from askback.engines.vllm import VllmEngine

        return VllmEngine(options)
    from askback.engines.local import LocalEngine

    return LocalEngine(options)


def quieten() -> None:
    """Keep the progress bars and advice of the libraries off the terminal: ours says what is happening."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
