"""Sizes of models and adapters, computed from their configuration; weights are not downloaded.

The model is built on PyTorch's meta device, where tensors have a shape but no bytes. So the count
is exact for every architecture that transformers knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.engine.weights.adapter_plan import (
    AdapterShape,
    obstacle_to_share,
    read_config,
    read_shape,
)
from empo_demo.engine.weights.downloads import adapter_here
from empo_demo.errors import EngineError, first_line
from empo_demo.files import why_not
from empo_demo.settings import Quantization

BYTES = {"nf4": 0.5625, "int8": 1.0, "none": 2.0}
"""Bytes per weight of a linear layer in memory. NF4 has four bits per weight and an fp32 scale per
64 weights. Embeddings, head and norms keep 2 bytes."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Counts of one model. Quantisation shrinks the `linear` weights; `rest` stays 16-bit.

    `kv` is the bytes of 16-bit keys and values per token and row. `context` is the most tokens of
    a row. `modules` maps each linear or embedding module to (inputs, outputs).
    """

    linear: int
    rest: int
    kv: int
    context: int
    hidden: int
    intermediate: int
    vocabulary: int
    modules: dict[str, tuple[int, int]]

    @property
    def weights(self) -> int:
        return self.linear + self.rest

    def held(self, quantization: Quantization) -> float:
        """Bytes of the weights in memory."""
        return self.linear * BYTES[quantization] + 2.0 * self.rest

    def activations(self, rows: int, tokens: int) -> float:
        """The most bytes of activations in a prefill: residuals, the MLP's two products, one layer
        of dequantised weights, and the fp32 logits of the last token."""
        wide = 2.0 * rows * tokens * (4 * self.hidden + 3 * self.intermediate)
        layer = 2.0 * max((a * b for a, b in self.modules.values()), default=0)
        return wide + layer + 8.0 * rows * self.vocabulary


def model_shape(name: str) -> ModelShape:
    """The shape of the model in a folder or on the Hub; downloads only config.json.

    Raises `EngineError` if there is no configuration.
    """
    from transformers import AutoConfig

    try:
        # Without the `False`, transformers would ask at the terminal whether to run foreign code.
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise EngineError(f"The model {name} cannot be loaded: {why_not(error, name)}") from None
    return shape_of(config)


def shape_of(config: Any) -> ModelShape:
    """The shape of the model that a transformers configuration describes.

    Raises `EngineError` if transformers makes no model of it, or if it lacks what every other has.
    """
    key = str(config.to_json_string(use_diff=False))
    if key not in _SHAPES:
        try:
            _SHAPES[key] = _measure(config)
        except Exception as error:
            raise EngineError(
                f"The model {config.name_or_path or config.model_type} cannot be served here: its "
                f"configuration is of no use ({first_line(error).rstrip('.')}). Serve it with "
                "another server (vLLM, llama.cpp, Ollama), and give that as EMPO_ENGINE."
            ) from None
    return _SHAPES[key]


def context_of(config: Any) -> int:
    """The most tokens of prompt and reply together.

    It is never more than a window of the attention. Within the window sliding attention equals
    plain attention, so one kind of cache and mask serves all layers. Nor is it more than the length
    from which LongRoPE takes other frequencies: for all rows of a batch, and in mid-reply.
    """
    limits = [
        getattr(layer, name, None)
        for layer in layers_of(config)
        for name in ("max_position_embeddings", "sliding_window", "attention_chunk_size")
    ]
    rope = getattr(config, "rope_parameters", None) or {}
    for scaling in (rope, *rope.values()):
        if isinstance(scaling, dict) and scaling.get("rope_type") == "longrope":
            limits.append(scaling.get("original_max_position_embeddings"))
    given = [int(limit) for limit in limits if isinstance(limit, int) and limit > 0]
    return min(given, default=4096)


def kv_values(config: Any) -> int:
    """Keys and values of one token of one row, over all layers.

    Models without attention keep a state instead, which is counted as if it were the width of one
    layer's input for each token.
    """
    return sum(_kv_values(layer) for layer in layers_of(config))


def layers_of(config: Any) -> list[Any]:
    """The configuration of each layer. In some models the layers differ in their sizes."""
    if hasattr(config, "_heterogeneity_spec"):
        return list(config.per_layer_config)
    return [config] * int(config.num_hidden_layers)


def _kv_values(layer: Any) -> int:
    hidden = int(layer.hidden_size)
    heads = int(getattr(layer, "num_attention_heads", None) or 1)
    groups = int(getattr(layer, "num_key_value_heads", None) or heads)
    width = int(getattr(layer, "head_dim", None) or hidden // heads)
    return 2 * groups * width


def adapter_shape(name: str, base: ModelShape) -> AdapterShape:
    """The shape of an adapter, from its files if they are on this machine.

    Otherwise it is computed from adapter_config.json, the only file that is downloaded.
    """
    folder = adapter_here(name)
    if folder is not None:
        return read_shape(folder)
    return shape_from_config(read_config(config_folder(name)), base)


def config_folder(name: str) -> Path:
    """The folder with at least an adapter's adapter_config.json, which is downloaded for it."""
    folder = adapter_here(name)
    if folder is not None:
        return folder
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "adapter_config.json")).parent
    except Exception as error:
        raise EngineError(
            f"The adapter {name} is neither a folder here nor to be had from the Hub: "
            f"{first_line(error)} Check the name and the connection, or download it first."
        ) from None


def shape_from_config(config: dict[str, Any], base: ModelShape) -> AdapterShape:
    """Compute an adapter's weights from its configuration and the layers of its base."""
    targets, whole = config.get("target_modules") or (), config.get("modules_to_save") or ()
    rank = int(config.get("r") or 8)
    lora = sum(rank * sum(sides) for path, sides in base.modules.items() if named(path, targets))
    replaced = sum(a * b for path, (a, b) in base.modules.items() if named(path, whole))
    return AdapterShape(lora, replaced, obstacle_to_share(config))


def named(module: str, targets: Any) -> bool:
    """Whether PEFT adapts `module`: `targets` is a regular expression, or ends of names."""
    if isinstance(targets, str):
        return targets != "all-linear" and re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


_SHAPES: dict[str, ModelShape] = {}


def _measure(config: Any) -> ModelShape:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    head = model.get_output_embeddings()
    linear, modules = 0, {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        modules[path] = (int(weight.shape[1]), int(weight.shape[0]))
        if isinstance(module, torch.nn.Linear) and module is not head:
            linear += weight.numel()
    text = config.get_text_config()
    return ModelShape(
        linear=linear,
        rest=sum(parameter.numel() for parameter in model.parameters()) - linear,
        kv=2 * kv_values(text),
        context=context_of(text),
        hidden=int(text.hidden_size),
        intermediate=max(map(_intermediate, layers_of(text))),
        vocabulary=int(text.vocab_size),
        modules=modules,
    )


def _intermediate(layer: Any) -> int:
    """The width of a layer's MLP. Some configurations list that of every layer."""
    given = getattr(layer, "intermediate_size", None) or 4 * int(layer.hidden_size)
    return int(max(given) if isinstance(given, (list, tuple)) else given)
