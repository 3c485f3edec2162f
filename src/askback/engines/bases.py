"""From a name to a base model: the embedded one, a folder, or the hub.

Takes: `engine.base`.  Gives: a checked `Base`, its tokenizer, its weights.
Never: runs code that comes with a model, or goes to the network for a folder.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from askback.errors import ConfigError
from askback.options import EngineOptions

EMBEDDED = Path(__file__).parents[1] / "data" / "tiny_base"


@dataclass(frozen=True)
class Base:
    """A base that was found, before its weights are read."""

    name: str
    """What the user asked for."""
    path: str
    """What transformers loads: a folder, or the hub name."""
    revision: str | None
    config: Any

    @property
    def max_tokens(self) -> int:
        """The longest row the base was made for."""
        return int(getattr(self.config, "max_position_embeddings", 0) or 2048)

    @cached_property
    def hash(self) -> str:
        """The sha256 of a folder's weights, or the commit of a hub base."""
        if Path(self.path).is_dir():
            weights = sorted(Path(self.path).glob("*.safetensors"))
            return "+".join(_sha256(file)[:16] for file in weights)
        return str(getattr(self.config, "_commit_hash", None) or self.revision or "unknown")

    def describe(self) -> dict[str, Any]:
        """Return what a fingerprint or a card needs."""
        return {"base": self.name, "hash": self.hash, "type": str(self.config.model_type), "licence": self.licence}

    @property
    def licence(self) -> str:
        """The licence of the base as its own card names it, or "unknown"."""
        from huggingface_hub import ModelCard

        card = Path(self.path) / "README.md"
        if Path(self.path).is_dir() and not card.exists():
            return "unknown"
        try:
            found = ModelCard.load(card if card.exists() else self.path, ignore_metadata_errors=True)
        except (OSError, ValueError):
            return "unknown"  # the card of a hub base that is cached may be out of reach
        return str(found.data.license or "unknown")


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def open_base(options: EngineOptions) -> Base:
    """Find the base and read its config.

    Raises:
        ConfigError: no such folder or name, a gated base, or no network; the message says the ways out.
    """
    from transformers import AutoConfig

    path = str(EMBEDDED) if options.base == "tiny" else options.base
    if looks_like_path(path) and not Path(path).is_dir():
        raise ConfigError(
            f"engine.base = {options.base!r}: there is no such folder; want a folder, a hub name or `tiny`"
        )
    revision = options.revision or None
    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(_why_not(options.base, error)) from error
    return Base(options.base, str(Path(path).resolve()) if Path(path).is_dir() else path, revision, config)


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a folder."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or Path(name).exists()


def _why_not(name: str, error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "gated" in str(error).lower() or "401" in str(error) or "403" in str(error):
        return (
            f"{name} is gated: accept its licence on its page and run `hf auth login`, or give a folder, or --base tiny"
        )
    return (
        f"the base {name!r} cannot be loaded ({text}); "
        "give a folder with the model, check the name and the network, log in with `hf auth login`, or use --base tiny"
    )


def load_tokenizer(base: Base) -> Any:
    """Load the tokenizer of a base; it must have a stop token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, revision=base.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base.name}: its tokenizer cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{base.name}: its tokenizer has no stop token (eos_token); a model could not learn to stop")
    return tokenizer


def load_base(base: Base, dtype: Any, *, four_bit: bool = False) -> Any:
    """Load the weights of a base in the given precision, or in four bits; safetensors only."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype) if four_bit else None
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.path,
            revision=base.revision,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=quantization,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(_why_not(base.name, error)) from error
    model.generation_config = GenerationConfig()  # a base's own habits (penalties, sampling) are not ours
    return model


def adapter_base(adapter: Path) -> str:
    """Return the base that an adapter folder names, or "" for a full model's folder.

    Raises:
        ConfigError: the folder holds neither.
    """
    config = adapter / "adapter_config.json"
    if config.exists():
        return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    if (adapter / "config.json").exists():
        return ""
    raise ConfigError(f"{adapter}: neither an adapter (adapter_config.json) nor a model (config.json) is here")
