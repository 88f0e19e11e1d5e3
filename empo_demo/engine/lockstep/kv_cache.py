"""The KV cache: preallocated keys and values in slots, and kept prefixes of earlier prompts.

Every row owns a slot, and position 0 of the slot is position 0 of the prompt. So the place of a
row's numbers does not depend on other rows, a row that joins copies nothing, and a decode step
writes one position. `Prefixes` keeps what a prefill computed, in blocks of BLOCK tokens, so that
the next turn of a dialogue prefills only the new tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from empo_demo.engine.weights.shapes import kv_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 16
"""Tokens of a kept block, and queries that attention computes together on a CPU."""
_CPU_LENGTHS = (64, 128, 192)
_CHUNK = 512
_WINDOWS = 4096
"""The most windows that are kept: to cut one takes as long as other small operations do."""


def cache_dtype(model: PreTrainedModel) -> torch.dtype:
    """fp32 on a CPU, where 16-bit attention is slower; else the type of the activations."""
    if model.device.type == "cpu":
        return torch.float32
    return cast(torch.dtype, model.get_input_embeddings().weight.dtype)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Bytes of keys and values of one token of one row, over all layers."""
    return kv_values(model.config.get_text_config()) * cache_dtype(model).itemsize


def rounded(length: int) -> int:
    """How many positions attention reads for a row of `length`.

    On a CPU, matrix products add up to 192 positions in one fixed order, and longer ones in chunks
    of 512. With these lengths the sums of a row do not depend on the positions behind it.
    """
    for limit in _CPU_LENGTHS:
        if length <= limit:
            return limit
    return -(-length // _CHUNK) * _CHUNK


class KVCache:
    """Keys and values per layer, each (slots, heads, positions, head size).

    The cache grows by doubling; each layer grows when it is used next. It stays within `limit`
    bytes if the callers of `reserve` do. Only one thread may use it at a time.
    """

    def __init__(
        self, dtype: torch.dtype, device: torch.device, per_token: int, limit: int
    ) -> None:
        self.dtype, self.device, self.limit = dtype, device, limit
        self.per_token = per_token
        self.slots = self.positions = 0
        self.version = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._windows: dict[tuple[int, int, int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def bytes_of(self, slots: int, positions: int) -> int:
        return slots * rounded(positions) * self.per_token

    def reserve(self, slots: int, positions: int) -> None:
        """Make room for `slots` rows of `positions` tokens. The contents are kept."""
        positions = rounded(positions)
        if slots <= self.slots and positions <= self.positions:
            return
        wanted = (
            max(slots, 2 * self.slots) if slots > self.slots else self.slots,
            max(positions, min(2 * self.positions, rounded(4 * positions // 3)))
            if positions > self.positions
            else self.positions,
        )
        if wanted[0] * wanted[1] * self.per_token > self.limit:
            wanted = (slots, positions)
        self.slots, self.positions = wanted
        self.version += 1

    def layer(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer. `like` (…, heads, tokens, head size) gives its shape."""
        layer = self._layers.get(index)
        if layer is None:
            shape = (self.slots, like.shape[-3], self.positions, like.shape[-1])
            layer = (self._zeros(shape), self._zeros(shape))
        elif layer[0].shape[0] != self.slots or layer[0].shape[2] != self.positions:
            layer = (self._resized(layer[0]), self._resized(layer[1]))
        else:
            return layer
        self._layers[index] = layer
        self._windows.clear()
        return layer

    def window(
        self, index: int, first: int, stop: int, length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `length` positions of slots `first` to `stop` of a layer that was used."""
        key = (index, first, stop, length)
        found = self._windows.get(key)
        if found is None:
            if len(self._windows) >= _WINDOWS:
                self._windows.clear()
            keys, values = self._layers[index]
            rows = slice(first, stop)
            found = self._windows[key] = (keys[rows, :, :length], values[rows, :, :length])
        return found

    def _parts(self) -> list[torch.Tensor]:
        """Keys and values of all layers, at the reserved size."""
        pairs = [self.layer(i, self._layers[i][0]) for i in sorted(self._layers)]
        return [part for pair in pairs for part in pair]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions to another slot."""
        for part in self._parts():
            part[target, :, :length] = part[source, :, :length]

    def wipe(self, slot: int) -> None:
        """Write zeros to a slot. NaNs would spread to other rows even where they are masked."""
        for part in self._parts():
            part[slot].zero_()

    def read(self, slot: int, start: int, stop: int) -> torch.Tensor:
        """A copy of positions `start` to `stop`: (2 × layers, heads, tokens, head size)."""
        return torch.stack([part[slot, :, start:stop] for part in self._parts()])

    def write(self, slot: int, start: int, kept: torch.Tensor) -> None:
        """Write to a slot what `read` returned."""
        for part, values in zip(self._parts(), kept, strict=True):
            part[slot, :, start : start + kept.shape[2]] = values

    def _zeros(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _resized(self, old: torch.Tensor) -> torch.Tensor:
        new = self._zeros((self.slots, old.shape[1], self.positions, old.shape[3]))
        slots, positions = min(self.slots, old.shape[0]), min(self.positions, old.shape[2])
        new[:slots, :, :positions] = old[:slots, :, :positions]
        return new


@dataclass(slots=True)
class _Block:
    """One block of a prefix. The key of the next block begins with `name`."""

    name: int
    values: torch.Tensor


class Prefixes:
    """Keys and values of earlier prompts: an LRU cache of at most `limit` bytes.

    The key of a block holds all tokens before it, the adapter and the dial, so the aligned model
    never reads numbers of the base. Only results of a prefill are kept. The same tokens give the
    same numbers, so a reply does not depend on what was kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.hits = self.asked = 0
        self._names = 0
        self._blocks: OrderedDict[Any, _Block] = OrderedDict()

    def find(self, kind: tuple[Any, ...], ids: Sequence[int]) -> list[torch.Tensor]:
        """The kept blocks that `ids` begins with. At least one token is left to prefill."""
        candidates: list[tuple[Any, _Block]] = []
        parent: Any = kind
        for start in range(0, len(ids) - BLOCK, BLOCK):
            key = (parent, tuple(ids[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            candidates.append((key, block))
            parent = block.name
        # A block is useless without the blocks before it, so the first counts as used last.
        for key, _ in reversed(candidates):
            self._blocks.move_to_end(key)
        self.hits += BLOCK * len(candidates)
        self.asked += len(ids)
        return [block.values for _, block in candidates]

    def keep(self, kind: tuple[Any, ...], ids: Sequence[int], cache: KVCache, slot: int) -> None:
        """Keep the complete blocks of the prompt that was just prefilled into `slot`."""
        parent: Any = kind
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key = (parent, tuple(ids[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                size = BLOCK * cache.per_token
                if size > self.limit:
                    return
                self._names += 1
                block = _Block(self._names, cache.read(slot, start, start + BLOCK))
                self._blocks[key] = block
                self.bytes += size
            parent = block.name
        while self.bytes > self.limit:
            self._blocks.popitem(last=False)
            self.bytes -= BLOCK * cache.per_token

    def clear(self) -> None:
        self._blocks.clear()
        self.bytes = 0
