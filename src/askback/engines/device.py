"""What this machine computes with: device, precision, threads, seeds. The only file with these words.

Takes: EngineOptions.  Gives: torch's own objects.  Never: knows a model.
"""

import os
from collections.abc import Callable, Sequence
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
            return _own(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(options.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"engine.device = {options.device!r} is not there: {error}; use `auto` or `cpu`") from error
    return _own(device)


def _own(device: "torch.device") -> "torch.device":
    """Return the device of this process where several work together, each on one of its own."""
    import torch

    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own


def count_devices(options: EngineOptions) -> int:
    """Return on how many devices a training is spread: as asked for, or every GPU where none is named.

    Raises:
        ConfigError: there are not so many.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() and options.device in ("auto", "cuda") else 0
    if options.devices > gpus > 0:
        raise ConfigError(f"engine.devices = {options.devices}, but there are {gpus} GPUs")
    return options.devices or max(1, gpus)


def check_sharding(device: "torch.device", processes: int) -> None:
    """Refuse to spread the weights themselves where that would be passed over in silence.

    Raises:
        ConfigError: the device is no GPU, or there is one process.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"engine.shard = true spreads the weights over GPUs (FSDP), and this is a {device.type}: "
            "transformers would pass over it in silence; leave it out"
        )
    if processes == 1:
        raise ConfigError("engine.shard = true spreads the weights over several GPUs, and there is one; leave it out")


def backends() -> str:
    """Return what processes on this machine talk to one another with."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def optimizer(device: "torch.device") -> str:
    """Return the name the Trainer has for the quickest AdamW of a device."""
    return "adamw_torch_fused" if device.type == "cuda" else "adamw_torch"


def reads_padding_mask(device: "torch.device") -> bool:
    """Whether training hands over the mask of its padding.

    Padding stands on the right, where no label looks at it. Without a mask a GPU takes its causal kernel (flash
    attention) for rows of any length.
    """
    return device.type != "cuda"


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


MOST_OF_MEMORY = 0.9
"""What a training may take of a device: the rest is for what memory loses in pieces."""


def knows_memory(device: "torch.device") -> bool:
    """Whether the memory of this device can be asked for, so that batches need not be guessed."""
    return device.type == "cuda"


def memory_bytes(device: "torch.device") -> int:
    """Return the memory that is free on a device, and what this process keeps there without using it."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def most_bytes(device: "torch.device") -> int:
    """Return the most memory this process has taken of a device of late; 0 of one that cannot be asked."""
    import torch

    return torch.cuda.max_memory_allocated(device) if knows_memory(device) else 0


def peak_bytes(device: "torch.device", call: Callable[[], object]) -> int:
    """Return how much more memory a call took at its highest; 0 on a device that cannot be asked."""
    import torch

    if not knows_memory(device):
        call()
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def largest_that_fits(
    attempt: Callable[[int], object], sizes: Sequence[int], device: "torch.device", *, reserve: int = 0
) -> int:
    """Return the largest of rising sizes whose attempt leaves a tenth of the free memory and `reserve` bytes; else 0.

    An attempt that would not fit, by how much more each took than the one before, is not made.
    """
    import torch

    room = MOST_OF_MEMORY * memory_bytes(device) - reserve
    best, taken = 0, 0
    for size in sizes:
        if best and taken * size / best > room:
            break
        try:
            taken = peak_bytes(device, lambda size=size: attempt(size))  # type: ignore[misc]
        except torch.OutOfMemoryError:
            break
        if taken > room:
            break
        best = size
    give_back()
    return best


def give_back() -> None:
    """Give memory that nothing lies in any more back to the device, for other processes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_threads(options: EngineOptions) -> int:
    """Use the CPUs this process may run on, unless told otherwise; return their number."""
    import torch

    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes of one training on this machine
    threads = options.threads or max(1, cpus_at_hand() // beside)
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
