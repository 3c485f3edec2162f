"""What this machine computes with: device, precision, threads, seeds. The only file with these words.

Takes: EngineOptions.  Gives: torch's own objects.  Never: knows a model.
"""

import os
from typing import TYPE_CHECKING, Any

from askback.errors import ConfigError
from askback.options import EngineOptions

if TYPE_CHECKING:
    import torch


def pick_device(options: EngineOptions) -> "torch.device":
    """Return the device asked for, or the fastest one at hand.

    Raises:
        ConfigError: the device asked for is not there.
    """
    import torch

    if options.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(options.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"engine.device = {options.device!r} is not there: {error}; use `auto` or `cpu`") from error
    return device


def pick_dtype(options: EngineOptions, device: "torch.device") -> "torch.dtype":
    """Return the precision asked for; `auto` is bfloat16 where the device has it natively, else float32."""
    import torch

    if options.precision != "auto":
        return getattr(torch, options.precision)  # type: ignore[no-any-return]
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def has_native_bf16(device: "torch.device") -> bool:
    """Whether bfloat16 products run in hardware on this device."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))
    return False


def full_training_dtype(dtype: "torch.dtype") -> "torch.dtype":
    """Return the precision weights are kept in while all of them are trained: float32, products in `dtype`."""
    import torch

    return torch.float32 if dtype == torch.bfloat16 else dtype


def autocasts(dtype: "torch.dtype", device: "torch.device") -> bool:
    """Whether training runs its products in bfloat16."""
    import torch

    return dtype == torch.bfloat16 and has_native_bf16(device)


def cpus_at_hand() -> int:
    """Return how many CPUs this process may run on, where the system can tell, or else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_to_one(arguments: Any) -> None:
    """Keep a Trainer on the one device its model lies on: several visible ones would each get a part of the batch."""
    _ = arguments.device  # looks for devices first, and sets the number that is overruled here
    arguments._n_gpu = min(1, arguments.n_gpu)


def set_threads(options: EngineOptions) -> int:
    """Use the CPUs this process may run on, unless told otherwise; return their number."""
    import torch

    threads = options.threads or cpus_at_hand()
    torch.set_num_threads(threads)
    return threads


def seed_everything(seed: int) -> None:
    """Seed every generator a trainer may draw from."""
    from transformers import set_seed

    set_seed(seed)


def describe(options: EngineOptions) -> dict[str, str]:
    """Return what would be used, in words."""
    import torch

    device = pick_device(options)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "precision": str(pick_dtype(options, device)).removeprefix("torch."),
        "threads": str(options.threads or cpus_at_hand()),
    }
