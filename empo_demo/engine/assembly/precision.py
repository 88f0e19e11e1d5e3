"""What the weights of a loaded model really are held in.

bitsandbytes quantises linear layers only. In many models the experts are one parameter of three
dimensions, which it leaves in 16 bits, and it says nothing of that. A model that was saved
quantised stays as it was saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from empo_demo.settings import Quantization

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel


_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_LITTLE = 0.01
"""The share of the layers' weights up to which it does not matter what they are held in."""
_LORA = "lora_"


def held_in(model: PreTrainedModel, asked: Quantization) -> str:
    """What the layers of `model` are held in, such as "nf4" or "nf4; experts in bf16".

    Embeddings and head stay in 16 bits by design and are not counted, nor are vectors (norms,
    biases). Parts of at most `_LITTLE` of the weights (routers) are not named.
    """
    sizes: dict[tuple[str, str], int] = {}
    for path, module, weight in _matrices(model):
        kind, part = _kind(module, weight), _part(path)
        sizes[kind, part] = sizes.get((kind, part), 0) + _count(module, weight)
    total = sum(sizes.values())
    large = {key: size for key, size in sizes.items() if size > _LITTLE * total}
    method = _saved_by_others(model)
    if method:
        return f"{method}, as it was saved"
    plain = _SHORT.values()
    quantised = sorted({kind for kind, _ in sizes if kind not in plain})
    if not quantised:
        return "none"
    left = sorted({(part, kind) for kind, part in large if kind in plain})
    form = " and ".join(quantised) + ("" if quantised == [asked] else ", as it was saved")
    return "; ".join([form, *(f"{part} in {kind}" for part, kind in left)])


def saved_quantised(folder: Path) -> bool:
    """Whether the model in `folder` was saved quantised."""
    # Some files hold `"quantization_config": null`.
    return bool(_config(folder).get("quantization_config"))


def kind_of(folder: Path) -> str:
    """The architecture of the model in `folder`, as transformers names it; "" if it says none."""
    return str(_config(folder).get("model_type") or "")


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text("utf8")))
    except (OSError, ValueError, TypeError):
        return {}


def spare_odd_layers(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing NF4 layers that its packed kernel for CPUs cannot compute.

    That kernel takes multiples of 32 outputs and fails at others (the gate of a shared expert has
    one output). The plain kernel computes all.
    """
    layers: Iterable[Any] = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu") and getattr(layer, "out_features", 0) % 32:
            layer.support_avx512bf16_for_cpu = False


def _matrices(model: PreTrainedModel) -> list[tuple[str, Any, torch.Tensor]]:
    """(path, module, weight) of all that multiplies: neither embeddings, nor head, nor LoRA."""
    import torch

    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    matrices: list[tuple[str, Any, torch.Tensor]] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) or module is head:
            continue
        matrices += [
            (f"{name}.{own}", module, weight)
            for own, weight in module.named_parameters(recurse=False)
            if (weight.dim() > 1 or _is_packed(weight)) and _LORA not in f"{name}.{own}"
        ]
    return matrices


def _is_packed(weight: Any) -> bool:
    return type(weight).__name__ in ("Params4bit", "Int8Params")


def _kind(module: Any, weight: Any) -> str:
    if type(weight).__name__ == "Params4bit":
        return str(weight.quant_type)
    if type(weight).__name__ == "Int8Params" or type(module).__name__ == "Linear8bitLt":
        return "int8"
    name = str(weight.dtype).removeprefix("torch.")
    return _SHORT.get(name, name)


def _count(module: Any, weight: torch.Tensor) -> int:
    """How many weights there are; of a packed layer, its parameter has fewer numbers."""
    if _is_packed(weight):
        return int(module.in_features * module.out_features)
    return weight.numel()


def _part(path: str) -> str:
    """What a person calls the part of a model at `path`: "experts", or its last name."""
    names = [name for name in path.split(".") if not name.isdigit() and name != "base_layer"]
    if "experts" in names:
        return "experts"
    return names[-2] if names[-1] == "weight" else names[-1]


def _saved_by_others(model: PreTrainedModel) -> str | None:
    """The method by which the model was saved quantised, if it was not by bitsandbytes."""
    config: Any = getattr(model.config, "quantization_config", None)
    given = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    method = str(getattr(given.get("quant_method"), "value", given.get("quant_method") or ""))
    return None if not method or "bitsandbytes" in method else method
