"""Sentences as vectors: the mean of a model's last hidden states over a text's tokens, at length one.

Takes: the folder or hub name of any encoder or decoder that transformers loads, texts.  Gives: vectors, in order.
Never: runs code that comes with a model, reads pickled weights, or fills missing weights with chance.

The pooling is that of Reimers and Gurevych (2019), without the prefixes some encoders were trained with. A text that
is longer than the encoder reads is cut at its end; one without any token is the zero vector, like nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askback.engines import batches, device
from askback.engines.bases import Base, looks_like_path
from askback.errors import ConfigError
from askback.options import EngineOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNUSED = ("pooler.", "lm_head.", "cls.")
"""Parts of a network that a mean over hidden states does not read: they may be missing."""


class Encoder:
    """A sentence encoder; the weights are read by the first call. Always float32, since a cosine needs its digits."""

    def __init__(self, name: str, options: EngineOptions) -> None:
        """Find the encoder and read its config and tokenizer.

        Raises:
            ConfigError: there is no such folder or hub name, or what is there is no model.
        """
        self.options = options
        self.base = _find(name)
        self.device = device.pick_device(options)
        self._tokenizer = _load("AutoTokenizer", self.base)
        self._network: Any = None

    def __call__(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return one row per text, in order [texts, width], each of length one (or zero, for a text without tokens).

        Raises:
            ConfigError: the weights cannot be read, or some that are needed are missing.
        """
        import numpy as np

        rows = self._ids(texts)
        places = [place for place, ids in enumerate(rows) if ids]
        found = np.zeros((len(texts), self._width), dtype=np.float32)
        for batch in batches.by_token_budget([len(rows[place]) for place in places], self.options.batch_tokens):
            chosen = [places[k] for k in batch]
            found[chosen] = self._encode_batch([rows[place] for place in chosen])
        return found

    def describe(self) -> dict[str, Any]:
        """Return what a result depends on: the encoder and the hash of its weights."""
        return {"encoder": self.base.name, "hash": self.base.hash, "type": str(self.base.config.model_type)}

    @property
    def _width(self) -> int:
        return int(self._loaded.config.hidden_size)

    @property
    def _loaded(self) -> Any:
        if self._network is None:
            self._network = _load_network(self.base).to(self.device).eval()
        return self._network

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, cut to what the encoder reads; control tokens in it stay plain text."""
        if not texts:
            return []
        most = min(self.base.max_tokens, self._tokenizer.model_max_length)
        made = self._tokenizer(list(texts), truncation=True, max_length=most, split_special_tokens=True)
        return [list(ids) for ids in made["input_ids"]]

    def _encode_batch(self, rows: Sequence[Sequence[int]]) -> "NDArray[np.float32]":
        import torch

        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.long)  # any id will do for padding: the mask hides it
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            hidden = self._loaded(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            seen = mask.unsqueeze(-1)
            mean = hidden.masked_fill(seen == 0, 0.0).sum(dim=1) / seen.sum(dim=1)
            unit = torch.nn.functional.normalize(mean, dim=-1)
        found: NDArray[np.float32] = unit.cpu().numpy()
        return found


def _find(name: str) -> Base:
    if looks_like_path(name) and not Path(name).is_dir():
        raise ConfigError(f"evaluate.encoder = {name!r}: there is no such folder; want a folder or a hub name")
    path = str(Path(name).resolve()) if Path(name).is_dir() else name
    return Base(name, path, None, _load("AutoConfig", Base(name, path, None, None)))


def _load_network(base: Base) -> Any:
    """Return the network; weights it reads must all be in the folder."""
    network, report = _load("AutoModel", base, dtype="float32", use_safetensors=True, output_loading_info=True)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise ConfigError(
            f"evaluate.encoder = {base.name!r}: {len(missing)} weights are missing, such as {missing[0]}; "
            "want a whole model, not an adapter or a part of one"
        )
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _load(kind: str, base: Base, **more: Any) -> Any:
    """Load a part of the encoder by the name of its Auto class, or say what is wrong and what would do."""
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(base.path, trust_remote_code=False, **more)
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"evaluate.encoder = {base.name!r} cannot be loaded ({why}); want a folder or hub name that holds a "
            "model with its tokenizer and weights in safetensors"
        ) from error
