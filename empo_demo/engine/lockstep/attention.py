"""Attention over the KV cache. The tokens of many rows are packed into one forward pass.

The module registers its attention with transformers. A forward pass with a `Decode` or a `Prefill`
reads and writes the cache. All other passes (scoring, `generate()`) compute plain SDPA. On a CPU
they compute it in fp32 for 16-bit models, which is three times as fast as in bf16.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from empo_demo.engine.lockstep.kv_cache import BLOCK, KVCache, rounded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "empo_cached"
_STRETCH = (32, 64)
"""A decode step reads a multiple of this many positions of the cache: on a CPU, elsewhere."""


def use_cached_attention(model: PreTrainedModel) -> None:
    """Make `model` use this attention. Raises `ValueError` where its code does not allow it."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)


@dataclass(slots=True)
class Run:
    """Neighbouring slots whose rows read the same number of positions.

    `bias` (slots, 1, 1, positions) is 0 up to each row's position and the lowest number of the
    type after it.
    """

    first: int
    stop: int
    bias: torch.Tensor


@dataclass(slots=True)
class Decode:
    """The attention of a decode step: one new token for each slot in `slots`.

    `places` (rows,) holds the position of each token.
    """

    cache: KVCache
    slots: torch.Tensor
    places: torch.Tensor
    runs: list[Run]

    @classmethod
    def at(
        cls, cache: KVCache, slots: torch.Tensor, places: torch.Tensor, lengths: Sequence[int]
    ) -> Decode:
        """A step in which each slot reads the number of positions in `lengths`; see `looked_at`."""
        runs, first = [], 0
        for length, group in itertools.groupby(lengths):
            stop = first + len(list(group))
            there = torch.arange(length, device=places.device)
            outside = there > places[first:stop].view(-1, 1, 1, 1)
            runs.append(Run(first, stop, _bias(outside, cache.dtype)))
            first = stop
        return cls(cache, slots, places, runs)

    def attend(
        self, index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """(tokens, heads, size) from tensors of this shape."""
        count, groups = len(self.slots), key.shape[1]
        keys, values = self.cache.layer(index, key.unsqueeze(2))
        keys[self.slots, :, self.places] = key.to(keys.dtype)
        values[self.slots, :, self.places] = value.to(keys.dtype)
        # Query heads that share a key head become several queries of that head.
        asked = query.reshape(count, groups, -1, query.shape[-1]).to(keys.dtype)
        outputs = []
        for run in self.runs:
            seen = self.cache.window(index, run.first, run.stop, run.bias.shape[-1])
            rows = asked if len(self.runs) == 1 else asked[run.first : run.stop]
            outputs.append(
                scaled_dot_product_attention(rows, *seen, attn_mask=run.bias, scale=scale)
            )
        whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return whole.reshape(query.shape).to(query.dtype)


def looked_at(lengths: Sequence[int], device: torch.device) -> tuple[int, ...]:
    """How many positions of the cache a decode step reads for rows of `lengths` tokens.

    On a CPU the number depends on the row alone. If several heads share keys, this number changes
    the order in which a row's numbers are added, so it must not depend on the other rows. On a GPU
    all rows read the same number of positions, in one call.
    """
    own = [-(-length // _STRETCH[0]) * _STRETCH[0] for length in lengths]
    if device.type == "cpu":
        return tuple(own)
    return (-(-max(own) // _STRETCH[1]) * _STRETCH[1],) * len(own)


@dataclass(slots=True)
class Prompt:
    """Tokens `start` to `stop` of one prompt. In the packed pass they begin at index `first`.

    `bias` (blocks, 1, queries of a block, length) is the causal mask over the cache.
    """

    slot: int
    start: int
    stop: int
    first: int
    bias: torch.Tensor


@dataclass(slots=True)
class Prefill:
    """The attention of a prefill: several prompts in one pass, each as if it were alone."""

    cache: KVCache
    prompts: list[Prompt]
    block: int

    @classmethod
    def of(cls, cache: KVCache, spans: Sequence[tuple[int, int, int]]) -> Prefill:
        """A prefill of `spans`: (slot, start, stop) of each prompt, in the order of the tokens.

        On a CPU the queries are computed in blocks of BLOCK that begin at multiples of BLOCK. So
        the sums of a token do not depend on where the prefill began. `start` must be a multiple.
        """
        prompts, first = [], 0
        longest = max(stop - start for _, start, stop in spans)
        block = BLOCK if cache.device.type == "cpu" else longest
        for slot, start, stop in spans:
            width = -(-(stop - start) // block) * block
            asked = torch.arange(start, start + width, device=cache.device)
            length = min(rounded(stop), cache.positions)
            there = torch.arange(length, device=cache.device)
            outside = (there > asked.unsqueeze(1)).view(-1, 1, block, length)
            prompts.append(Prompt(slot, start, stop, first, _bias(outside, cache.dtype)))
            first += stop - start
        return cls(cache, prompts, block)

    def attend(
        self, index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """(tokens, heads, size) from tensors of this shape. Tokens of no prompt stay zero."""
        keys, values = self.cache.layer(index, key.transpose(0, 1))
        out = torch.zeros_like(query)
        for prompt in self.prompts:
            part = slice(prompt.first, prompt.first + prompt.stop - prompt.start)
            keys[prompt.slot, :, prompt.start : prompt.stop] = key[part].transpose(0, 1)
            values[prompt.slot, :, prompt.start : prompt.stop] = value[part].transpose(0, 1)
            asked = query[part].transpose(0, 1).to(keys.dtype)
            out[part] = self._attend(prompt, asked, keys[prompt.slot], values[prompt.slot], scale)
        return out

    def _attend(
        self,
        prompt: Prompt,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """(tokens, heads, size) of one row from (heads, tokens, size)."""
        heads, tokens, size = query.shape
        blocks, length, groups = prompt.bias.shape[0], prompt.bias.shape[-1], keys.shape[0]
        asked = pad(query, (0, 0, 0, blocks * self.block - tokens))
        asked = asked.view(heads, blocks, self.block, size).transpose(0, 1)
        asked = asked.reshape(blocks, groups, -1, size)
        bias = prompt.bias if heads == groups else prompt.bias.repeat(1, 1, heads // groups, 1)
        output = scaled_dot_product_attention(
            asked,
            keys[:, :length].expand(blocks, -1, -1, -1),
            values[:, :length].expand(blocks, -1, -1, -1),
            attn_mask=bias,
            scale=scale,
        )
        output = output.reshape(blocks, heads, self.block, size).transpose(1, 2)
        return output.reshape(-1, heads, size)[:tokens]


def _bias(outside: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What attention adds to its scores: the lowest number of the type where `outside`, else 0."""
    zeros = torch.zeros(outside.shape, dtype=dtype, device=outside.device)
    return zeros.masked_fill_(outside, torch.finfo(dtype).min)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cached: Decode | Prefill | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if cached is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        asked, keys, values = (one[0].transpose(0, 1) for one in (query, key, value))
        attended = cached.attend(cast(int, module.layer_idx), asked, keys, values, scale)
        return attended.unsqueeze(0), None
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    wide = (query.float(), key.float(), value.float())
    out, weights = sdpa_attention_forward(module, *wide, attention_mask, scaling=scaling, **options)
    return out.to(query.dtype), weights
