"""LoRA per row, and the matrix products of layers that share their input.

PEFT loads and holds the adapters, this module applies them. PEFT's own mixed batches
(`adapter_names`) cost up to 2.5 times the operations of a plain step and leave hooks behind when a
call fails. Here each LoRA layer adds its product in place to the rows that use the adapter. Layers
with the same input (q, k, v; gate, up) share one product with A. This is for inference only. There
are no hooks, and one step leaves no state for the next.

A decode step of a small model multiplies few rows, so it takes as long as reading the weights does.
Weights that were made of four bits are packed as those bits again. Nothing is rounded anew: a
matrix is packed only if each group of 32 weights lies on 16 levels at equal distances, which no
other matrix does. For many rows (prompts, many rounds) the product of the 16-bit weights is faster.
Other weights in bf16 are packed for oneDNN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel

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


LEAST = 8
"""From this number of tokens on, an fp32 product on a CPU gives a token always the same sums."""
_SIBLINGS = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gu", "up_proj": "gu"}


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `start` to `stop` use `adapter`. `scale` (n, 1) holds the dial of each token."""

    start: int
    stop: int
    adapter: str
    scale: torch.Tensor | None


@dataclass(slots=True)
class AdapterRows:
    """Which rows of the next forward pass use which adapter. All layers of a model share it."""

    segments: tuple[Segment, ...] = ()
    layers: dict[Any, Part] = field(default_factory=dict)
    """What the adapters add to each adapted layer."""
    _key: tuple[Any, ...] = ()

    def assign(
        self,
        adapters: Sequence[str | None],
        scales: Sequence[float],
        like: torch.Tensor,
        counts: Sequence[int] | None = None,
    ) -> None:
        """Set the rows: one adapter name (or None) and one dial value each, grouped by adapter.

        `counts` is the number of tokens of each row, by default 1. With inputs of shape
        (rows, tokens, …), all rows have the same number.
        """
        counts = [1] * len(adapters) if counts is None else counts
        key = (tuple(adapters), tuple(scales), tuple(counts))
        if key != self._key:
            self.segments, self._key = tuple(_segments(adapters, scales, counts, like)), key

    def clear(self) -> None:
        """Use no adapter for any row."""
        self.segments, self._key = (), ()


@dataclass(slots=True, eq=False)
class _Group:
    """Layers with the same input. Their A matrices are stacked.

    `a` maps adapter to (sum of ranks, inputs); `_seen` is the input of the last product.
    """

    rows: AdapterRows
    a: dict[str, torch.Tensor] = field(default_factory=dict)
    _seen: torch.Tensor | None = None
    _for: tuple[Segment, ...] = ()
    _down: list[torch.Tensor | None] = field(default_factory=list)
    _few: torch.Tensor | None = None

    def add(self, adapter: str, a: torch.Tensor) -> slice:
        """Append the A of a layer; return the columns of the product that belong to this layer."""
        old = self.a.get(adapter)
        start = 0 if old is None else old.shape[0]
        self.a[adapter] = a if old is None else torch.cat([old, a])
        return slice(start, start + a.shape[0])

    def down(self, x: torch.Tensor) -> list[torch.Tensor | None]:
        """x Aᵀ of each segment, scaled, as (tokens, ranks); None if the layers are not adapted.

        On a CPU the result has at least LEAST rows. The rows beyond the tokens are meaningless.
        """
        if x is not self._seen or self._for is not self.rows.segments:
            self._down = [self._product(x, segment) for segment in self.rows.segments]
            self._seen, self._for = x, self.rows.segments
        return self._down

    def _product(self, x: torch.Tensor, segment: Segment) -> torch.Tensor | None:
        a = self.a.get(segment.adapter)
        if a is None:
            return None
        part = x.view(-1, x.shape[-1])[segment.start : segment.stop]
        count = len(part)
        if count < LEAST and part.device.type == "cpu":
            if self._few is None or self._few.dtype != a.dtype:
                self._few = torch.zeros(LEAST, a.shape[1], dtype=a.dtype)
            self._few[:count] = part
            part = self._few
        down = torch.nn.functional.linear(part.to(a.dtype), a)
        if segment.scale is not None:
            down[:count] *= segment.scale.to(a.dtype)
        return down


@dataclass(frozen=True, slots=True)
class Part:
    """A layer's part of its group: for each adapter the columns of the group's product with A, and
    the transposed, scaled B (rank, outputs)."""

    group: _Group
    of: dict[str, tuple[slice, torch.Tensor]]


def joined(
    parts: Sequence[Part | None], outputs: Sequence[int], order: torch.Tensor | None = None
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each adapter one A (ranks, inputs) and one scaled B (ranks, outputs) of several layers.

    The layers share their input, and their `outputs` lie side by side, rearranged by `order`. None
    is a layer without adapters.
    """
    groups = {id(part.group): part.group for part in parts if part is not None}
    if len(groups) > 1:
        raise ValueError("an adapter sees layers with one input as layers with several")
    products: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for group in groups.values():
        for adapter, a in group.a.items():
            b = torch.zeros(a.shape[0], sum(outputs), dtype=a.dtype, device=a.device)
            start = 0
            for part, width in zip(parts, outputs, strict=True):
                if part is not None and adapter in part.of:
                    columns, own = part.of[adapter]
                    b[columns, start : start + width] = own
                start += width
            products[adapter] = (a, b if order is None else b[:, order].contiguous())
    return products


def install(model: PeftModel) -> AdapterRows:
    """Make every LoRA layer of `model` read its rows from the returned object."""
    from peft.tuners.lora import LoraLayer

    rows = AdapterRows()
    groups: dict[str, _Group] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            parent, _, last = name.rpartition(".")
            group = groups.setdefault(f"{parent}.{_SIBLINGS.get(last, last)}", _Group(rows))
            rows.layers[module] = Part(group, _patch(module, group))
    return rows


def _patch(layer: Any, group: _Group) -> dict[str, tuple[slice, torch.Tensor]]:
    """Make `layer` add its adapters' products; return its part of them."""
    parts: dict[str, tuple[slice, torch.Tensor]] = {}
    for name in layer.lora_A:
        a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
        if a.device.type == "cpu":
            # On a CPU, small products take four times as long in bf16 as in fp32.
            a, b = a.float(), b.float()
        columns = group.add(name, a.contiguous())
        parts[name] = columns, (b.T * layer.scaling[name]).contiguous()
    base, rows = layer.base_layer, group.rows

    def forward(_self: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        y: torch.Tensor = base(x)
        if not rows.segments:
            return y
        flat = y.view(-1, y.shape[-1])
        for segment, down in zip(rows.segments, group.down(x), strict=True):
            part = parts.get(segment.adapter)
            if down is None or part is None:
                continue
            columns, bt = part
            out = flat[segment.start : segment.stop]
            if out.dtype == bt.dtype and out.device.type != "cpu":
                out.addmm_(down[:, columns], bt)
            else:
                out.add_((down[:, columns] @ bt)[: len(out)])
        return y

    layer.forward = MethodType(forward, layer)
    return parts


def _segments(
    adapters: Sequence[str | None],
    scales: Sequence[float],
    counts: Sequence[int],
    like: torch.Tensor,
) -> Iterator[Segment]:
    row = position = 0
    for name, group in itertools.groupby(adapters):
        rows = len(list(group))
        dials, tokens = scales[row : row + rows], counts[row : row + rows]
        if name is not None:
            scale = None
            if any(dial != 1.0 for dial in dials):
                each = [dial for dial, n in zip(dials, tokens, strict=True) for _ in range(n)]
                scale = torch.tensor(each, dtype=torch.float32, device=like.device).view(-1, 1)
            yield Segment(position, position + sum(tokens), name, scale)
        row, position = row + rows, position + sum(tokens)
