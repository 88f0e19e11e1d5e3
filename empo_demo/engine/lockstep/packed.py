"""Packs the weights of a small model's linear layers for oneDNN, once at start, on a CPU.

Without this, torch packs the weights again for each product, and the NF4 kernel of bitsandbytes
unpacks them each time. For a small model that is most of a decode step. The results are those of
the plain layer in 16 bits, and NF4 weights keep their NF4 values. It takes two bytes per weight.
"""

from __future__ import annotations

import logging
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)
_DONE = "_empo_packed"


def pack(weights: Weights) -> None:
    """Pack the layers of a copy that decodes with one thread. Other copies stay unchanged."""
    if weights.threads != 1 or weights.device.type != "cpu":
        return
    if weights.like.dtype != torch.bfloat16 or not torch._C._has_mkldnn:
        return
    try:
        for layer in weights.model.modules():
            matrix = None if hasattr(layer, _DONE) else _matrix(layer)
            if matrix is not None:
                _pack(layer, matrix)
    except (RuntimeError, AttributeError) as error:
        log.info("Linear layers stay as they are: %s", error)


def _matrix(layer: Any) -> torch.Tensor | None:
    """The bf16 weights (outputs, inputs) of a plain or an NF4 layer; None for other layers."""
    if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.bfloat16:
        return layer.weight.detach()
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    # PEFT has a class of the same name that wraps this layer.
    kind = type(layer)
    if state is None or kind.__name__ != "Linear4bit" or "bitsandbytes" not in kind.__module__:
        return None
    if getattr(state, "packing_format_for_cpu", False):
        return None
    from bitsandbytes.functional import dequantize_4bit

    found: torch.Tensor = dequantize_4bit(layer.weight.data, state).to(torch.bfloat16)
    return found


def _pack(layer: Any, matrix: torch.Tensor) -> None:
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), 2)
    linear = torch.ops.mkldnn._linear_pointwise.default
    bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(_self: Any, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = linear(x, packed, bias, "none", [], "")
        return found

    setattr(layer, _DONE, True)
    layer.forward = MethodType(forward, layer)
