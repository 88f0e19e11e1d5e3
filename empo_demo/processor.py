"""The abilities of this machine's processor that faster code depends on."""

from __future__ import annotations

from typing import Any


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; others emulate it, many times slower."""
    import torch

    cpu: Any = torch.cpu
    if hasattr(cpu, "get_capabilities"):
        able = cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    # Older ones, down to the 2.8 of ZeroGPU Spaces, have a question for each instruction set.
    asked = getattr(cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())
