"""The passes that a copy of the weights is served by: ours over the KV cache, or the model's own.

The model's own code serves models that our attention cannot compute: other forms of attention,
other caches, or layers without attention. It computes one row at a time, so a reply is the same in
any company, but two rows take twice the time of one.

A small model's linear layers are packed for oneDNN, once at start, on a CPU. Without this, torch
packs the weights again for each product, and the NF4 kernel of bitsandbytes unpacks them each
time; that is most of a decode step. The results are those of the plain layer in 16 bits, and NF4
weights keep their NF4 values. It takes two bytes per weight.

`FusedLlama` computes a small Llama on a CPU in few operations a layer, as most of a decode step
goes into starting small ones: one product for Q, K and V and one for gate and up, one product with
all A matrices of an adapter that share their input, RoPE as a product of complex numbers, and
activations in fp32, which no operation has to convert. It computes what the model's own code
computes; the trial at load compares the two.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import embedding, pad, silu

from empo_demo.engine.lockstep.attention import use_cached_attention
from empo_demo.engine.lockstep.forward import ForwardPasses, few_threads
from empo_demo.engine.lockstep.kv_cache import Prefixes, bytes_per_token, rounded
from empo_demo.engine.lockstep.row import Row
from empo_demo.engine.weights.lora import LEAST, Linear, Segment, joined
from empo_demo.engine.weights.model_weights import Weights

if TYPE_CHECKING:
    from empo_demo.engine.lockstep.attention import Decode, Prefill

KINDS = ("llama", "mistral", "qwen2")
"""Model types whose layers are those of Llama; Qwen2 adds a bias to Q, K and V."""


class FusedLlama:
    """The forward pass of one copy of the weights. Raises `ValueError` if its layers are others."""

    def __init__(self, weights: Weights) -> None:
        model: Any = weights.model
        steady = weights.steady
        self.rows = weights.rows
        self._inner = model.model
        self._dtype = weights.like.dtype
        adapted = dict(self.rows.layers) if self.rows is not None else {}
        self._layers = [_Layer(layer, adapted, steady) for layer in self._inner.layers]
        if adapted:
            raise ValueError("an adapter changes other layers than those of attention and MLP")
        self._norm = _Norm(self._inner.norm)
        self._head = Linear([model.get_output_embeddings()], steady=steady)

    def __call__(
        self,
        ids: torch.Tensor,
        places: torch.Tensor,
        heads: torch.Tensor,
        cached: Decode | Prefill,
    ) -> torch.Tensor:
        """Logits (len(heads), vocabulary) of the packed tokens at the indices in `heads`.

        `ids` and `places` are (1, tokens). The rows were assigned before.
        """
        hidden = embedding(ids[0], self._inner.embed_tokens.weight).float()
        cos, sin = self._inner.rotary_emb(hidden, places)
        half = cos.shape[-1] // 2
        turn = torch.complex(cos[0, :, None, :half].float(), sin[0, :, None, :half].float())
        segments = self.rows.segments if self.rows is not None else ()
        for index, layer in enumerate(self._layers):
            layer.attend(hidden, turn, segments, cached, index)
            layer.think(hidden, segments)
        return self._head(self._norm(hidden[heads]).to(self._dtype))


class _Norm:
    """RMSNorm in fp32."""

    __slots__ = ("_eps", "_shape", "_weight")

    def __init__(self, norm: Any) -> None:
        self._weight = norm.weight.detach().float()
        self._shape = tuple(self._weight.shape)
        self._eps = float(norm.variance_epsilon)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rms_norm(x, self._shape, self._weight, self._eps)


class _Layer:
    """One layer. Its methods add to the residuals `hidden` (tokens, width), fp32, in place."""

    def __init__(self, layer: Any, adapted: dict[Any, Any], steady: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._before = _Norm(layer.input_layernorm)
        self._between = _Norm(layer.post_attention_layernorm)
        self._size, self._scale = int(attention.head_dim), float(attention.scaling)
        asking = (attention.q_proj, attention.k_proj, attention.v_proj)
        outputs = [layer.out_features for layer in asking]
        self._turned, self._groups = outputs[0] + outputs[1], outputs[2] // self._size
        order = _order(self._turned, outputs[2], self._size)
        self._asking = _Adapted(asking, adapted, steady, order)
        self._out = _Adapted((attention.o_proj,), adapted, steady)
        self._wide = _Adapted((mlp.gate_proj, mlp.up_proj), adapted, steady)
        self._down = _Adapted((mlp.down_proj,), adapted, steady)

    def attend(
        self,
        hidden: torch.Tensor,
        turn: torch.Tensor,
        segments: Sequence[Segment],
        cached: Decode | Prefill,
        index: int,
    ) -> None:
        found = self._asking(self._before(hidden), segments)
        count, size, groups = len(found), self._size, self._groups
        pairs = found[:, : self._turned].view(count, -1, size // 2, 2)
        torch.view_as_complex(pairs).mul_(turn)
        heads = found.view(count, -1, size)
        query, key, value = heads.split_with_sizes([heads.shape[1] - 2 * groups, groups, groups], 1)
        seen = cached.attend(index, query, key, value, self._scale)
        self._out.add(hidden, seen.view(count, -1), segments)

    def think(self, hidden: torch.Tensor, segments: Sequence[Segment]) -> None:
        gate, up = self._wide(self._between(hidden), segments).chunk(2, -1)
        self._down.add(hidden, silu(gate).mul_(up), segments)


def _order(turned: int, values: int, size: int) -> torch.Tensor:
    """The outputs of Q, K and V in the order in which each layer computes them.

    The two numbers that RoPE turns together lie in the two halves of a head. Here they lie side by
    side, in queries and keys alike, which changes no product of the two.
    """
    heads = torch.arange(turned).view(-1, 2, size // 2).transpose(1, 2).reshape(-1)
    return torch.cat([heads, torch.arange(turned, turned + values)])


class _Adapted:
    """Layers with one input and what adapters add to them."""

    __slots__ = ("_dtype", "_parts", "_steady", "base")

    def __init__(
        self,
        layers: Sequence[Any],
        adapted: dict[Any, Any],
        steady: bool,
        order: torch.Tensor | None = None,
    ) -> None:
        plain = [getattr(layer, "base_layer", layer) for layer in layers]
        if any(type(layer) is not torch.nn.Linear for layer in plain):
            raise ValueError("its layers are not plain linear ones")
        self.base = Linear(plain, steady=steady, order=order)
        self._dtype, self._steady = plain[0].weight.dtype, steady
        changed = [adapted.pop(layer, None) for layer in layers]
        outputs = [layer.out_features for layer in plain]
        self._parts = {n: (a.T, b) for n, (a, b) in joined(changed, outputs, order).items()}

    def __call__(self, x: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
        """(tokens, outputs) of x (tokens, inputs), both in fp32."""
        found = self.base(x.to(self._dtype)).float()
        self._adapt(found, x, segments)
        return found

    def add(self, to: torch.Tensor, x: torch.Tensor, segments: Sequence[Segment]) -> None:
        """Add the outputs to the residuals `to`."""
        to.add_(self.base(x.to(self._dtype)))
        self._adapt(to, x, segments)

    def _adapt(self, to: torch.Tensor, x: torch.Tensor, segments: Sequence[Segment]) -> None:
        for segment in segments:
            part = self._parts.get(segment.adapter)
            if part is None:
                continue
            a, b = part
            mine, count = x[segment.start : segment.stop], segment.stop - segment.start
            few = self._steady and count < LEAST
            if few:
                mine = pad(mine, (0, 0, 0, LEAST - count))
            down = mine @ a
            if segment.scale is not None:
                down[:count] *= segment.scale
            out = to[segment.start : segment.stop]
            if few:
                out += (down @ b)[:count]
            else:
                out.addmm_(down, b)


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
    prefix_bytes = kv_bytes // 4
    return ForwardPasses(weights, Prefixes(prefix_bytes), kv_bytes - prefix_bytes)


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
        product: torch.Tensor = linear(x, packed, bias, "none", [], "")
        return product

    setattr(layer, _DONE, True)
    layer.forward = MethodType(forward, layer)
