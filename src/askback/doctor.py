"""What is installed, what device there is, and what a run would use.

Takes: Options.  Gives: lines of text.  Never: loads weights, or goes to the network.
"""

import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path

from askback import __version__
from askback.options import Options

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "pyarrow", "trafilatura", "sacrebleu", "rouge-score")
EXTRAS = {
    "datasets": "hub: seed pairs from a hub data set",
    "bitsandbytes": "qlora: training on a four-bit base",
    "openai": "server: models behind an OpenAI-compatible endpoint",
}


def examine(options: Options) -> str:
    """Return the findings, one a line."""
    from askback.engines import device
    from askback.readers.seed import FORMATS

    lines = [f"askback {__version__}, Python {platform.python_version()} on {platform.platform()}"]
    lines += [f"  {name:<14} {importlib.metadata.version(name)}" for name in LIBRARIES]
    for name, use in EXTRAS.items():
        there = importlib.util.find_spec(name) is not None
        lines.append(f"  {name:<14} {importlib.metadata.version(name) if there else 'absent'} ({use})")
    found = device.describe(options.engine)
    lines.append(f"device: {found['device']}, precision {found['precision']}, {found['threads']} threads")
    lines.append(f"base: {options.engine.base} ({_base(options)})")
    lines.append(f"free disk here: {shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB")
    lines.append(f"seed formats: {', '.join(FORMATS)}")
    lines.append("document formats: .txt .md .html .jsonl .parquet .csv, rows also .gz and .zst")
    return "\n".join(lines)


def _base(options: Options) -> str:
    from askback.engines.bases import EMBEDDED

    if options.engine.kind == "server":
        return f"a name at {options.engine.server.url}, which is asked when a run needs it"
    if options.engine.base == "tiny":
        return "embedded" if (EMBEDDED / "config.json").exists() else "embedded, but its files are missing"
    if Path(options.engine.base).is_dir():
        return "a folder"
    return "a hub name: it is fetched when a run needs it"
