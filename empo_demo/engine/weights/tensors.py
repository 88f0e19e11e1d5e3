"""The tensors of models and adapters as they lie on the disk, in safetensors files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import EngineError, first_line

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."


@dataclass(slots=True)
class Tensors:
    """The tensors of several safetensors files, by name.

    `read` opens a new memory map for each tensor and closes it again, so that the pages that were
    read leave the memory.
    """

    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, files: list[Path]) -> Tensors:
        from safetensors import safe_open

        where: dict[str, Path] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118 - it is not a mapping
                        where[name] = file
                        shapes[name] = tuple(tensors.get_slice(name).get_shape())
            except Exception as error:
                raise EngineError(f"The file {file} cannot be read: {first_line(error)}") from None
        return cls(where, shapes)

    def read(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
            return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model in `folder`; `EngineError` if there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf8"))["weight_map"].values()
        return [folder / name for name in dict.fromkeys(named)]
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(
            f"{folder} holds no safetensors weights; save the model with save_pretrained first."
        )
    return files


def adapter_files(folder: Path) -> list[Path]:
    """The safetensors files of the PEFT adapter in `folder`."""
    return sorted(folder.glob("adapter_model*.safetensors"))


@dataclass(slots=True)
class Parts:
    """The names of an adapter's tensors: A and B by module, and replaced weights by weight."""

    a: dict[str, str] = field(default_factory=dict)
    b: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> Parts:
        parts = cls()
        for name in names:
            stem = name.removeprefix(_PREFIX).replace(".base_layer", "")
            module, mark, kind = stem.partition(".lora_")
            if mark and kind in ("A.weight", "embedding_A"):
                parts.a[module] = name
            elif mark and kind in ("B.weight", "embedding_B"):
                parts.b[module] = name
            elif mark:
                raise ValueError(f"it holds {name}, which is neither A nor B of a LoRA")
            elif ".original_module." not in stem:
                # PEFT may also save the original of a module that the adapter replaces.
                parts.replaced[whole_module(stem)] = name
        return parts


def whole_module(name: str) -> str:
    """The weight of the base that a tensor replaces; PEFT may save one tensor under two names."""
    return re.sub(r"\.modules_to_save(\.\w+)?\.", ".", name)


def scale_of(module: str, config: Mapping[str, Any], rank: int) -> float:
    """The factor of `B A` as PEFT computes it: alpha / r, with rsLoRA alpha / sqrt(r)."""
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    own = patterns.get(get_pattern_key(list(patterns), module))
    alpha = own or config.get("lora_alpha") or rank
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
