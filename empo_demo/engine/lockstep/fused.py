"""A Llama's forward pass in few operations a layer, for small models on a CPU.

There, most of a decode step goes into starting small operations. So each layer has one product for
Q, K and V and one for gate and up, one product with all A matrices of an adapter that share their
input, RoPE as a product of complex numbers, and activations in fp32, which no operation has to
convert. It computes what the model's own code computes; the trial at load compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import embedding, pad, silu

from empo_demo.engine.weights.lora import LEAST, Segment, joined
from empo_demo.engine.weights.products import Linear

if TYPE_CHECKING:
    from empo_demo.engine.lockstep.attention import Decode, Prefill
    from empo_demo.engine.weights.model_weights import Weights

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
        found = [adapted.pop(layer, None) for layer in layers]
        outputs = [layer.out_features for layer in plain]
        self._parts = {n: (a.T, b) for n, (a, b) in joined(found, outputs, order).items()}

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
