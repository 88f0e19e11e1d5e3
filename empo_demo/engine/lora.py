"""Several LoRA adapters in one batch, each row with its own and at its own strength.

PEFT loads the adapters; this applies them: the base layer runs once over the whole batch, then
each run of neighbouring rows with the same adapter gets `x Aᵀ Bᵀ` added in place. That is two
small products per layer where PEFT's `adapter_names` gathers and scatters (2.5 times the
operations), and no hook can leak, because the rows are plain state that each step sets anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `start` to `stop` use `adapter`, each scaled by its entry of `scale` (n, 1, 1)."""

    start: int
    stop: int
    adapter: str
    scale: torch.Tensor | None


@dataclass(slots=True)
class Rows:
    """Which rows of the next forward pass use which adapter; shared by all layers of a model."""

    segments: tuple[Segment, ...] = ()
    _key: tuple[tuple[str | None, ...], tuple[float, ...]] = ((), ())

    def assign(
        self, adapters: Sequence[str | None], scales: Sequence[float], like: torch.Tensor
    ) -> None:
        """Set the rows: one adapter name (or None) and one dial value each, adapters grouped."""
        key = (tuple(adapters), tuple(scales))
        if key != self._key:
            self.segments, self._key = tuple(_segments(adapters, scales, like)), key


@dataclass(slots=True)
class _Weights:
    """One layer's adapters: (A, Bᵀ · alpha/r) by name."""

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


def install(model: PeftModel) -> Rows:
    """Make every LoRA layer of `model` read its rows from the returned object."""
    from peft.tuners.lora import LoraLayer

    rows = Rows()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            _patch(module, rows)
    return rows


def _patch(layer: Any, rows: Rows) -> None:
    weights = _Weights()
    for name in layer.lora_A:
        a = layer.lora_A[name].weight.detach()
        b = layer.lora_B[name].weight.detach()
        weights.pairs[name] = (a.contiguous(), (b.T * layer.scaling[name]).contiguous())
    base = layer.base_layer

    def forward(_self: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        y: torch.Tensor = base(x)
        for segment in rows.segments:
            pair = weights.pairs.get(segment.adapter)
            if pair is None:
                continue
            a, bt = pair
            down = torch.nn.functional.linear(x[segment.start : segment.stop].to(a.dtype), a)
            if segment.scale is not None:
                down = down * segment.scale
            part = y[segment.start : segment.stop]
            part.view(-1, part.shape[-1]).addmm_(down.view(-1, down.shape[-1]).to(y.dtype), bt)
        return y

    layer.forward = MethodType(forward, layer)


def _segments(
    adapters: Sequence[str | None], scales: Sequence[float], like: torch.Tensor
) -> Iterator[Segment]:
    position = 0
    for name, group in itertools.groupby(adapters):
        count = len(list(group))
        dials = scales[position : position + count]
        if name is not None:
            scale = None
            if any(dial != 1.0 for dial in dials):
                scale = torch.tensor(dials, dtype=like.dtype, device=like.device).view(-1, 1, 1)
            yield Segment(position, position + count, name, scale)
        position += count
