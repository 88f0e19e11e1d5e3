"""The device that models are loaded on: its name, its 16-bit type, and whether it is full."""

from __future__ import annotations

import os

from empo_demo.errors import EngineError
from empo_demo.settings import Quantization

_FULL = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def on_zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space, by the same test as in `spaces`."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def pick_device(wanted: str, quantization: Quantization = "none") -> str:
    """The device to use: `auto` is cuda or cpu. Raises `EngineError` if `wanted` is missing."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineError("EMPO_DEVICE asks for cuda, but there is no CUDA device; use cpu.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise EngineError(f"EMPO_DEVICE asks for {wanted}, but there are {there} CUDA devices.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise EngineError("EMPO_DEVICE asks for mps, but this machine has none; use cpu.")
    if kind == "mps" and quantization != "none":
        raise EngineError(
            f"bitsandbytes cannot hold {quantization} weights on mps; "
            "set EMPO_QUANTIZATION=none or EMPO_DEVICE=cpu."
        )
    return wanted


def half_type(device: str) -> str:
    """The 16-bit type of a device. GPUs before compute capability 8.0 only emulate bfloat16."""
    import torch

    if not device.startswith("cuda") or on_zero_gpu() or not torch.cuda.is_available():
        return "bfloat16"
    old = torch.cuda.get_device_capability(device) < (8, 0)
    return "float16" if old else "bfloat16"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of host or device is full. PyTorch has an error class only for CUDA."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _FULL)
