"""Shared adapter or merged copy: what each plan costs, and which is chosen.

Pure arithmetic over an adapter's files. Decoding reads all weights once a step, so bytes per step
decide the speed; memory decides whether the models fit at all.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empo_demo.engine.tensors import Tensors, adapter_files, whole_module
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization

Plan = Literal["shared", "merged"]
Override = Literal["auto", "shared", "merged"]
_REPLACES = "the adapter replaces whole modules"


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What an adapter adds: LoRA weights, and whole modules that replace the base's.

    `obstacle` says what else of it cannot be applied row by row.
    """

    lora: int
    replaced: int
    base_model: str | None
    obstacle: str | None = None

    @property
    def shareable(self) -> bool:
        """Whole embeddings cannot be applied per row."""
        return self.replaced == 0 and self.obstacle is None


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan of one adapter, and in one sentence why."""

    plan: Plan
    reason: str
    shared_bytes: float
    merged_bytes: float


def read_shape(folder: Path) -> AdapterShape:
    """Count the weights in an adapter's safetensors files, from their headers alone."""
    config = read_config(folder)
    lora = 0
    replaced: dict[str, int] = {}
    for name, shape in Tensors.of(adapter_files(folder)).shapes.items():
        if "lora_" in name:
            lora += math.prod(shape)
        elif ".original_module." not in name:
            replaced[whole_module(name)] = math.prod(shape)
    if not lora and not replaced:
        raise EngineError(
            f"The adapter {folder} holds no adapter_model.safetensors; save it with PEFT."
        )
    return AdapterShape(
        lora,
        sum(replaced.values()),
        config.get("base_model_name_or_path"),
        obstacle_to_share(config),
    )


def obstacle_to_share(config: dict[str, Any]) -> str | None:
    """What makes an adapter more than `B A x`, which is all that is applied per row."""
    if config.get("peft_type", "LORA") != "LORA":
        return f"the adapter is of the kind {config['peft_type']}"
    if config.get("use_dora"):
        return "the adapter is a DoRA"
    if config.get("lora_bias") or config.get("bias", "none") != "none":
        return "the adapter trains biases"
    targets = config.get("target_modules") or ()
    named = [targets] if isinstance(targets, str) else targets
    if config.get("target_parameters") or any("embed" in str(name) for name in named):
        return "the adapter changes embeddings or bare parameters"
    if config.get("trainable_token_indices"):
        return "the adapter trains single tokens"
    return None


def obstacle_to_merge(config: dict[str, Any]) -> str | None:
    """What makes an adapter more than `B A` over single weights: only PEFT can merge it then."""
    if config.get("peft_type", "LORA") != "LORA":
        return f"the adapter is of the kind {config['peft_type']}"
    marks = ("use_dora", "lora_bias", "use_qalora", "target_parameters", "layer_replication",
             "trainable_token_indices", "alora_invocation_tokens", "arrow_config")  # fmt: skip
    found = [mark for mark in marks if config.get(mark)]
    return f"the adapter uses {found[0]}" if found else None


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        raise EngineError(
            f"{folder} holds no readable adapter_config.json; give the folder of a PEFT adapter."
        ) from None
    return dict(config)


def choose(
    shape: AdapterShape,
    merged: float,
    quantization: Quantization,
    override: Override = "auto",
) -> Choice:
    """The plan with fewer bytes read per step, unless `override` says otherwise.

    Shared: base once and the adapter's 16-bit weights beside it. Merged: the base a second time,
    quantised, which takes `merged` bytes. Raises `EngineError` where `override` asks for what
    cannot be.
    """
    shared = 2.0 * (shape.lora + shape.replaced)
    if override == "shared" and not shape.shareable:
        raise EngineError(
            f"EMPO_ADAPTER_PLAN holds 'shared', but {shape.obstacle or _REPLACES}, "
            "which cannot be applied row by row; use 'merged' or 'auto'."
        )
    if override != "auto":
        return Choice(override, "EMPO_ADAPTER_PLAN says so", shared, merged)
    if not shape.shareable:
        return Choice("merged", shape.obstacle or _REPLACES, shared, merged)
    if shared <= merged:
        reason = f"the adapter adds {size(shared)}, a copy would add {size(merged)}"
        return Choice("shared", reason, shared, merged)
    reason = f"a {quantization} copy adds {size(merged)}, the adapter {size(shared)}"
    return Choice("merged", reason, shared, merged)


def size(count: float) -> str:
    """Bytes in words: GB of 10^9."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
