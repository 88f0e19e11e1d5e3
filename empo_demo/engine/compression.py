"""Compresses an oversized adapter to a lower rank: truncated SVD of each layer's `scale · B A`.

Layers are read, decomposed and dropped one after the other. The SVD uses the triangular factors of
B and A, so the full matrix is never formed. The result is the nearest matrix of that rank (Eckart
and Young). Modules that the adapter replaces are kept. The result is written in bf16.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message
from empo_demo.engine.device import is_out_of_memory
from empo_demo.engine.plan import obstacle_to_merge, read_config
from empo_demo.engine.tensors import Parts, Tensors, adapter_files, scale_of
from empo_demo.errors import EngineError, first_line
from empo_demo.progress import Report

if TYPE_CHECKING:
    import torch

    from empo_demo.engine.local import LocalEngine

VLLM_RANK = 512
"""The highest rank that vLLM serves."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """`kept` maps a kind of layer (q_proj, …) to the kept share of the squared singular values."""

    rank_before: int
    rank: int
    bytes_before: int
    bytes: int
    kept: dict[str, float]


def compress(adapter: Path, out: Path, rank: int, report: Report | None = None) -> Compressed:
    """Write the adapter in `adapter` with rank `rank` to the new folder `out`.

    Raises `EngineError` if the adapter is more than LoRA, if the rank is no reduction, and if
    `out` exists already or cannot be written.
    """
    config = read_config(adapter)
    obstacle = obstacle_to_merge(config)
    if obstacle:
        raise EngineError(f"{adapter} cannot be compressed: {obstacle}; only a LoRA can.")
    if out.exists():
        raise EngineError(f"{out} is there already; name a new folder.")
    tensors = Tensors.of(adapter_files(adapter))
    parts = Parts.of(tensors.files)
    largest = max((tensors.shapes[name][0] for name in parts.a.values()), default=0)
    if not 1 <= rank < largest:
        raise EngineError(f"{adapter} has rank {largest}; give a --rank from 1 to {largest - 1}.")
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir(parents=True)
        kept = _write(adapter, scratch, tensors, parts, config, rank, report)
        scratch.rename(out)
    except (OSError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise EngineError(
                f"This machine's memory is full while compressing {adapter.name}; close other "
                "programs, or give a lower rank."
            ) from None
        raise EngineError(
            f"The compressed adapter cannot be written to {out}: {first_line(error)} Free some "
            "space, or name another folder."
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Compressed(largest, rank, _size(adapter), _size(out), kept)


def likelihoods(
    engine: LocalEngine, contender: str, pairs: Sequence[tuple[Sequence[Message], str]]
) -> list[float]:
    """Mean log probability per token (natural logarithm) of each reply after its messages."""
    return [total / max(1, tokens) for total, tokens in engine.score(contender, pairs)]


def _write(
    adapter: Path,
    out: Path,
    tensors: Tensors,
    parts: Parts,
    config: dict[str, Any],
    rank: int,
    report: Report | None,
) -> dict[str, float]:
    import torch
    from safetensors.torch import save_file

    written: dict[str, torch.Tensor] = {}
    energy: dict[str, list[float]] = {}
    for number, (module, key) in enumerate(parts.a.items(), start=1):
        if module not in parts.b:
            raise EngineError(f"{adapter} lacks the matrix B of {module}; it is not whole.")
        a, b = tensors.read(key), tensors.read(parts.b[module])
        scale = scale_of(module, config, a.shape[0])
        small_b, small_a, kept, total = truncated(b, a, scale, rank)
        written[key], written[parts.b[module]] = small_a, small_b
        seen = energy.setdefault(module.rpartition(".")[2], [0.0, 0.0])
        seen[0], seen[1] = seen[0] + kept, seen[1] + total
        if report is not None:
            report(number, len(parts.a))
    for key in parts.replaced.values():
        written[key] = tensors.read(key).to(torch.bfloat16, copy=True).contiguous()
    save_file(written, out / "adapter_model.safetensors", metadata={"format": "pt"})
    changed = {
        "r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    (out / "adapter_config.json").write_text(json.dumps({**config, **changed}, indent=2), "utf8")
    for file in adapter.iterdir():
        if file.is_file() and not file.name.startswith("adapter_"):
            shutil.copyfile(file, out / file.name)
    return {kind: kept / total if total else 1.0 for kind, (kept, total) in energy.items()}


def truncated(
    b: torch.Tensor, a: torch.Tensor, scale: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """(B', A', kept, total): B' A' is the nearest matrix of rank `rank` to `scale · B A`.

    B is (outputs, r), A (r, inputs); `kept` and `total` are sums of squared singular values. B'
    and A' have exactly `rank` columns and rows; those that the layer does not need are zero.
    """
    import torch

    left, down = torch.linalg.qr(b.float())
    right, up = torch.linalg.qr(a.float().T)
    u, values, v = torch.linalg.svd(scale * down @ up.T)
    count = min(rank, len(values))
    root = values[:count].sqrt()
    small_b = torch.zeros(b.shape[0], rank, dtype=torch.bfloat16)
    small_a = torch.zeros(rank, a.shape[1], dtype=torch.bfloat16)
    small_b[:, :count] = left @ (u[:, :count] * root)
    small_a[:count] = (root[:, None] * v[:count]) @ right.T
    squares = values.double().square()
    return small_b, small_a, float(squares[:count].sum()), float(squares.sum())


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in adapter_files(folder))
