"""What this machine's processor can do, where a faster way depends on it."""

from __future__ import annotations


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; others emulate it, many times slower."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
