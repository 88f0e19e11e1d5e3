"""The passes that a copy of the weights is served by: ours over the KV cache, or the model's own.

The model's own code serves models that our attention cannot compute: other forms of attention,
other caches, or layers without attention. It computes one row at a time, so a reply is the same in
any company, but two rows take twice the time of one.

A small model's linear layers are packed for oneDNN, once at start, on a CPU. Without this, torch
packs the weights again for each product, and the NF4 kernel of bitsandbytes unpacks them each
time; that is most of a decode step. The results are those of the plain layer in 16 bits, and NF4
weights keep their NF4 values. It takes two bytes per weight.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Sequence
from types import MethodType
from typing import Any, Protocol

import torch

from empo_demo.engine.lockstep.attention import use_cached_attention
from empo_demo.engine.lockstep.forward import ForwardPasses, few_threads
from empo_demo.engine.lockstep.fused import FusedLlama
from empo_demo.engine.lockstep.kv_cache import Prefixes, bytes_per_token, rounded
from empo_demo.engine.lockstep.row import Row
from empo_demo.engine.weights.model_weights import Weights

_STATES = ("past_key_values", "cache_params", "state")
"""Under which names models return what the next token needs of those before it."""


log = logging.getLogger(__name__)
_DONE = "_empo_packed"


class Passes(Protocol):
    """What a batch needs of the forward passes of its copy of the weights."""

    device: torch.device

    def bytes_of(self, rows: int, longest: int) -> int: ...
    def reserve(self, rows: int, longest: int) -> None: ...
    def settle(self, rows: Sequence[Row]) -> None: ...
    def prefill(self, rows: Sequence[Row], slots: Sequence[int]) -> torch.Tensor: ...
    def decode(self, rows: Sequence[Row], last: torch.Tensor) -> torch.Tensor: ...
    def keep(self, row: Row, slot: int) -> None: ...
    def move(self, source: int, target: int, length: int) -> None: ...
    def wipe(self, slot: int) -> None: ...
    def renewed(self) -> Passes: ...
    def time_step(self, rows: int) -> float: ...


def passes_of(weights: Weights, kv_bytes: int) -> Passes:
    """The passes by which `weights` are served, with at most `kv_bytes` of keys and values."""
    if not weights.together:
        return OwnPasses(weights)
    use_cached_attention(weights.model)
    if weights.way == "batch":
        pack(weights)
    elif weights.fused is None:
        weights.fused = FusedLlama(weights)
    kept = kv_bytes // 4
    return ForwardPasses(weights, Prefixes(kept), kv_bytes - kept)


class OwnPasses:
    """The passes of a copy whose way is `own` (the model's own cache) or `anew` (no cache)."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.device = weights.device
        self._states: dict[Row, dict[str, Any]] = {}
        accepted = inspect.signature(weights.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def bytes_of(self, rows: int, longest: int) -> int:
        """Bytes of keys and values for `rows` rows of `longest` tokens."""
        return rows * rounded(longest) * bytes_per_token(self.weights.model)

    def settle(self, rows: Sequence[Row]) -> None:
        """Drop the states of the rows that have left."""
        self._states = {row: self._states[row] for row in rows if row in self._states}

    def prefill(self, rows: Sequence[Row], slots: Sequence[int]) -> torch.Tensor:
        """Logits (rows, vocabulary) after each prompt."""
        return torch.stack([self._next(row, row.prompt) for row in rows])

    def decode(self, rows: Sequence[Row], last: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) after each row's `last` token."""
        if self.weights.way == "anew":
            return torch.stack([self._next(row, [*row.prompt, *row.produced]) for row in rows])
        tokens: list[int] = last.view(-1).tolist()
        return torch.stack(
            [self._next(row, [token]) for row, token in zip(rows, tokens, strict=True)]
        )

    def reserve(self, rows: int, longest: int) -> None:
        """The model's own cache makes room by itself."""

    def keep(self, row: Row, slot: int) -> None:
        """Prefixes are not kept, as the form of the model's cache is not known."""

    def move(self, source: int, target: int, length: int) -> None:
        """States belong to rows and not to slots, so there is nothing to move."""

    def wipe(self, slot: int) -> None:
        """No row reads the state of another, so a broken one harms nobody."""

    def renewed(self) -> OwnPasses:
        return OwnPasses(self.weights)

    @torch.inference_mode()
    def time_step(self, rows: int, length: int = 96) -> float:
        """Seconds of one step of `rows` rows with `length` tokens: the faster of two."""
        best = float("inf")
        ids = torch.zeros(1, length, dtype=torch.long, device=self.device)
        with few_threads(self.weights.threads):
            state = self._call(ids)[1] if self.weights.way == "own" else {}
            for _ in range(2):
                started = time.perf_counter()
                output = self._call(ids[:, :1] if state else ids, **state)
                output[0].argmax(-1).tolist()
                best = min(best, time.perf_counter() - started)
        return rows * best

    def _next(self, row: Row, ids: list[int]) -> torch.Tensor:
        """Logits (vocabulary,) after `ids`, which follow the tokens in the row's state."""
        tokens = torch.tensor([ids], device=self.device)
        logits, state = self._call(tokens, **self._states.pop(row, {}))
        self._states[row] = state
        return logits

    def _call(self, ids: torch.Tensor, **state: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """The logits after the last token, and the state with which to go on."""
        caching = self.weights.way == "own"
        output = self.weights.model(
            input_ids=ids, use_cache=caching, return_dict=True, **self._last_only, **state
        )
        states = {name: output[name] for name in _STATES if output.get(name) is not None}
        if caching and not states:
            raise TypeError("the model returns no cache under a known name")
        return output.logits[0, -1], states if caching else {}


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

    matrix: torch.Tensor = dequantize_4bit(layer.weight.data, state).to(torch.bfloat16)
    return matrix


def _pack(layer: Any, matrix: torch.Tensor) -> None:
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), 2)
    linear = torch.ops.mkldnn._linear_pointwise.default
    bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)

    def forward(_self: Any, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = linear(x, packed, bias, "none", [], "")
        return found

    setattr(layer, _DONE, True)
    layer.forward = MethodType(forward, layer)
