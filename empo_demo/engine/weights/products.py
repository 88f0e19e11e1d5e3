"""Matrix products of layers that share their input, by the kernel that suits the number of rows.

A decode step of a small model multiplies few rows, so it takes as long as reading the weights does.
Weights that were made of four bits are packed as those bits again. Nothing is rounded anew: a
matrix is packed only if each group of 32 weights lies on 16 levels at equal distances, which no
other matrix does. For many rows (prompts, many rounds) the product of the 16-bit weights is faster.
Other weights in bf16 are packed for oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

FEW = 12
"""Up to this number of rows the four bits are faster, measured on a CPU with AVX-512."""
GROUP = 32
_LEVELS, _TILE = 16, 64
_NEAR = 0.125
"""How far from its level a weight may lie, in distances of levels: bf16 alone moves it by 0.04."""
Product = Callable[[torch.Tensor], torch.Tensor]
"""(rows, outputs) of (rows, inputs)."""


@dataclass(frozen=True, slots=True)
class FourBits:
    """A matrix (outputs, inputs) as weight = (integer - 8) * scale + zero, by groups of GROUP.

    `packed` holds the integers as torch's kernel wants them, `scales` (groups, outputs, 2) the
    scale and the zero of each group.
    """

    packed: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def of(cls, matrix: torch.Tensor) -> FourBits | None:
        """The four bits that `matrix` was made of; None if it was made otherwise."""
        outputs, inputs = matrix.shape
        if inputs % GROUP or outputs % _TILE:
            return None
        if outputs > _TILE and cls.of(matrix[:_TILE]) is None:
            # Most matrices are told from four bits by their first rows.
            return None
        groups = matrix.float().view(outputs, inputs // GROUP, GROUP)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        scale = (high - low).div_(_LEVELS - 1).clamp_(min=torch.finfo(torch.float32).tiny)
        place = groups.sub_(low).div_(scale)
        integers = place.round()
        if place.sub_(integers).abs_().amax() > _NEAR:
            return None
        zero = low + _LEVELS // 2 * scale
        scales = torch.cat([scale, zero], -1).transpose(0, 1).to(matrix.dtype).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            integers.view(outputs, inputs).int(), 1
        )
        return cls(packed, scales)

    def product(self, bias: torch.Tensor | None) -> Product:
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu.default
        packed, scales = self.packed, self.scales
        if bias is None:
            return lambda x: multiply(x, packed, GROUP, scales)
        return lambda x: multiply(x, packed, GROUP, scales) + bias


class Linear:
    """The product of linear layers with one input: their outputs, side by side.

    The layers afterwards look into one joined matrix, so that it takes no memory of its own.
    `steady` asks for one kernel for all numbers of rows, so that a row gets the same numbers in
    any company. `order` (outputs,) rearranges the outputs.
    """

    __slots__ = ("_few", "_many", "outputs")

    def __init__(
        self, layers: Sequence[Any], *, steady: bool, order: torch.Tensor | None = None
    ) -> None:
        matrix, bias = _joined([layer.weight for layer in layers]), _biases(layers)
        self.outputs = int(matrix.shape[0])
        self._many = self._few = _plain(matrix, bias, order)
        if matrix.dtype != torch.bfloat16 or not _packs():
            return
        if order is not None:
            matrix, bias = matrix[order], None if bias is None else bias[order]
        bits = None if steady else FourBits.of(matrix)
        self._few = _packed(matrix, bias) if bits is None else bits.product(bias)
        if bits is None:
            self._many = self._few

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._few(x) if len(x) <= FEW else self._many(x)


def _packs() -> bool:
    """Whether this CPU has the kernels: without vector instructions they are slower than none."""
    if not torch._C._has_mkldnn or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _joined(parts: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0].detach()
    whole = torch.cat([part.detach() for part in parts])
    start = 0
    for part in parts:
        part.data = whole[start : start + len(part)]
        start += len(part)
    return whole


def _biases(layers: Sequence[Any]) -> torch.Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [
            torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias.detach()
            for layer in layers
        ]
    )


def _plain(matrix: torch.Tensor, bias: torch.Tensor | None, order: torch.Tensor | None) -> Product:
    if order is None:
        return lambda x: torch.nn.functional.linear(x, matrix, bias)
    return lambda x: torch.nn.functional.linear(x, matrix, bias)[:, order]


def _packed(matrix: torch.Tensor, bias: torch.Tensor | None) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), 2)
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x, packed, bias, "none", [], "")
