"""The plan of an adapter: shared with its base, or merged into a copy of its own.

This is arithmetic over the sizes in an adapter's files. A decode step reads all weights once, so
the bytes per step decide the speed. Memory decides whether the models fit at all.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empo_demo.engine.weights.downloads import Tensors, adapter_files, whole_module
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization

Plan = Literal["shared", "merged"]
Override = Literal["auto", "shared", "merged"]
_REPLACES = "the adapter replaces whole modules"
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""How a LoRA may be made without a change of its base."""
_PLAIN = frozenset(
    (
        "task_type",
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "target_modules",
        "exclude_modules",
        "lora_alpha",
        "lora_dropout",
        "fan_in_fan_out",
        "bias",
        "use_rslora",
        "modules_to_save",
        "init_lora_weights",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "megatron_config",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    )
)
"""The settings of a LoRA that leave it `B A x`, or that only matter while it is trained."""


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """The weights that an adapter adds: LoRA, and whole modules that replace those of the base.

    `obstacle` says what else makes it impossible to apply the adapter row by row.
    """

    lora: int
    replaced: int
    obstacle: str | None = None

    @property
    def shareable(self) -> bool:
        """Whether it can be applied row by row. Modules that are replaced as a whole cannot."""
        return self.replaced == 0 and self.obstacle is None


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan of one adapter, with the reason in one sentence."""

    plan: Plan
    reason: str
    shared_bytes: float


def read_shape(folder: Path) -> AdapterShape:
    """Count the weights of an adapter; reads only the headers of its safetensors files."""
    config = read_config(folder)
    lora = 0
    replaced: dict[str, int] = {}
    for name, shape in Tensors.of(adapter_files(folder)).shapes.items():
        if "lora_" in name:
            lora += math.prod(shape)
        elif ".original_module." not in name:
            replaced[whole_module(name)] = math.prod(shape)
    if not lora and not replaced:
        if list(folder.glob("adapter_model*.bin")):
            raise EngineError(
                f"The adapter {folder} is saved as a pickle (.bin), which can run code when it is "
                "read; convert it: load it and save it with PEFT 0.7 or newer, which writes "
                "safetensors."
            )
        raise EngineError(
            f"The adapter {folder} holds no adapter_model.safetensors; save it with PEFT."
        )
    return AdapterShape(lora, sum(replaced.values()), obstacle_to_share(config))


def obstacle_to_share(config: dict[str, Any]) -> str | None:
    """Why an adapter cannot be applied per row: it is more than `B A x`. None if it can."""
    beyond = obstacle_to_merge(config)
    if beyond is not None:
        return beyond
    if config.get("bias", "none") != "none":
        return "the adapter trains biases"
    targets = config.get("target_modules") or ()
    named = [targets] if isinstance(targets, str) else targets
    if any(part in str(name) for name in named for part in ("embed", "wte")):
        return "the adapter changes embeddings"
    return None


def obstacle_to_merge(config: dict[str, Any]) -> str | None:
    """Why only PEFT can merge an adapter: it is more than `B A` on single weights. Else None.

    A setting that is not known here counts as an obstacle: it may change what is computed.
    """
    if config.get("peft_type", "LORA") != "LORA":
        return f"the adapter is of the kind {config['peft_type']}"
    if config.get("use_dora"):
        return "the adapter is a DoRA"
    start = config.get("init_lora_weights", True)
    if not (isinstance(start, bool) or start is None or start in _PLAIN_STARTS):
        return f"the adapter starts as {start}, which rewrites the base"
    unknown = next((name for name, value in config.items() if value and name not in _PLAIN), None)
    return f"the adapter uses {unknown}" if unknown else None


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError):
        raise EngineError(
            f"{folder} holds no readable adapter_config.json; give the folder of a PEFT adapter."
        ) from None
    return config


def choose(
    shape: AdapterShape,
    merged: float,
    quantization: Quantization,
    override: Override = "auto",
) -> Choice:
    """The plan that reads fewer bytes per decode step, unless `override` names one.

    A shared adapter adds its own 16-bit weights to the base. A merged copy adds `merged` bytes:
    the base a second time, quantised. Raises `EngineError` if `override` is "shared" and the
    adapter cannot be shared.
    """
    shared = 2.0 * (shape.lora + shape.replaced)
    if override == "shared" and not shape.shareable:
        raise EngineError(
            f"EMPO_ADAPTER_PLAN holds 'shared', but {shape.obstacle or _REPLACES}, "
            "which cannot be applied row by row; use 'merged' or 'auto'."
        )
    if override != "auto":
        return Choice(override, "EMPO_ADAPTER_PLAN says so", shared)
    if not shape.shareable:
        return Choice("merged", shape.obstacle or _REPLACES, shared)
    if shared <= merged:
        reason = f"the adapter adds {size(shared)}, a copy would add {size(merged)}"
        return Choice("shared", reason, shared)
    reason = f"a {quantization} copy adds {size(merged)}, the adapter {size(shared)}"
    return Choice("merged", reason, shared)


def size(count: float) -> str:
    """Bytes as text, in MB of 10^6 or GB of 10^9 bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
