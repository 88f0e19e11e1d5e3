"""The memory and disk that a line-up needs, computed before anything is loaded.

GPU: weights, adapters, the KV cache of the rounds that run together, the activations of one
prefill, and CUDA's own memory. Host: what loading needs. Disk: downloads, and merged copies that do
not exist yet. On a CPU the memory of the device is that of the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from empo_demo.dialogue import MAX_TEXT, MAX_TURNS
from empo_demo.engine.planning.members import Member, Terms
from empo_demo.engine.weights.downloads import adapter_download, model_download
from empo_demo.engine.weights.shapes import ModelShape, model_shape
from empo_demo.settings import Quantization

CUDA_BYTES = 0.6e9
"""CUDA's context, cuBLAS workspaces and the allocator's rounding. An assumption, not measured."""
HOST_BYTES = 2.5e9
"""The process itself beside a GPU: Python, torch with CUDA, the SEM and the page. Assumed."""
MERGE_BYTES = 1.5e9
"""The shards of a merge and one layer in fp32; measured by tests/engine/test_merging.py."""
CPU_LOAD = {"nf4": 1.6, "int8": 1.6, "none": 1.1}
"""Peak of loading on a CPU as a multiple of the 16-bit weights: quantising passes through them.
Measured at 0.6 billion weights: 1,829 MB for 1,128 MB."""
FIRST_ROUND = 4096
"""There must always be room for one round with this many tokens per side."""
SIDES = 2
"""Rows of a round. Both may be on the same copy of the weights."""
PREFIXES = 4 / 3
"""A quarter of the KV cache keeps the prefixes of earlier prompts (engine/lockstep/batch.py)."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of weights on the device, in bytes."""

    name: str
    weights: float
    adapters: float
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class Budget:
    """All figures are bytes. `fixed` is needed even when nothing is generated."""

    members: tuple[Member, ...]
    copies: tuple[Copy, ...]
    device: str
    quantization: Quantization
    rounds: int
    copies_disk: float
    """For merged copies that do not exist yet."""
    download: float | None = 0.0
    """What is not in the Hub's cache yet; None if it is not known for some model or adapter."""
    kv_round: float = 0.0
    kv_first: float = 0.0
    activations: float = 0.0
    host: float = 0.0

    @property
    def weights(self) -> float:
        return sum(copy.weights for copy in self.copies)

    @property
    def adapters(self) -> float:
        return sum(copy.adapters for copy in self.copies)

    @property
    def disk(self) -> float:
        return self.copies_disk + (self.download or 0.0)

    @property
    def own(self) -> float:
        """CUDA's own memory."""
        return CUDA_BYTES if self.device.startswith("cuda") else 0.0

    @property
    def fixed(self) -> float:
        return self.weights + self.adapters + self.activations + self.own

    @property
    def least(self) -> float:
        """The need with one round of `FIRST_ROUND` tokens per side."""
        return self.fixed + self.kv_first

    @property
    def most(self) -> float:
        """The need with all rounds at their longest."""
        return self.fixed + self.rounds * self.kv_round

    def kv_bytes(self, free: float | None) -> int:
        """The bound of the KV cache: what is left, but not more than all rounds can fill."""
        wanted = self.rounds * self.kv_round
        return int(wanted if free is None else max(0.0, min(wanted, free - self.fixed)))


def budget_of(members: Sequence[Member], terms: Terms, *, rounds: int, new_tokens: int) -> Budget:
    """The budget of `members`. `rounds` run at once; `new_tokens` is the longest reply."""
    copies: list[Copy] = []
    disk = scratch = 0.0
    for base in dict.fromkeys(one.base for one in members):
        shape = model_shape(base)
        held = shape.held(terms.quantization)
        group = [one for one in members if one.base == base]
        shared = {m.adapter: m.shared for m in group if m.plan == "shared"}
        if any(member.plan != "merged" for member in group):
            copies.append(Copy(base, held, sum(shared.values()), shape))
        merged = {m.adapter: m for m in group if m.plan == "merged"}
        copies += [Copy(str(adapter), held, 0.0, shape) for adapter in merged]
        for adapter in merged:
            if not merged[adapter].prepared:
                disk += held
                scratch = max(scratch, 2.0 * shape.weights * (terms.quantization != "none"))
    shapes = [(copy.shape, _tokens(copy.shape, new_tokens)) for copy in copies]
    first = [(shape, min(tokens, FIRST_ROUND)) for shape, tokens in shapes]
    # Each copy has the same share of the KV cache, and a round may be on any of them.
    shares = PREFIXES * len(shapes)
    return Budget(
        tuple(members),
        tuple(copies),
        terms.device,
        terms.quantization,
        rounds,
        copies_disk=disk + scratch,
        download=download_of(members),
        kv_round=max((shares * SIDES * s.kv * t for s, t in shapes), default=0.0),
        kv_first=max((shares * SIDES * s.kv * t for s, t in first), default=0.0),
        activations=max((s.activations(SIDES, t) for s, t in first), default=0.0),
        host=_host(copies, terms.quantization, terms.device, merging=disk > 0),
    )


def download_of(members: Sequence[Member]) -> int | None:
    """The bytes to download; weights that several members use count once.

    None if the Hub cannot be asked.
    """
    bases = dict.fromkeys(one.base for one in members)
    adapters = dict.fromkeys(one.adapter for one in members if one.adapter)
    parts = [*map(model_download, bases), *map(adapter_download, adapters)]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _tokens(shape: ModelShape, new_tokens: int) -> int:
    """The most tokens of a row: a dialogue at its longest, with four characters per token."""
    return min(shape.context, MAX_TURNS * MAX_TEXT // 4 + new_tokens)


def _host(
    copies: Sequence[Copy], quantization: Quantization, device: str, *, merging: bool
) -> float:
    merge = MERGE_BYTES if merging and _large(copies) else 0.0
    if device != "cpu":
        return HOST_BYTES + merge
    held = sum(copy.weights + copy.adapters for copy in copies)
    passed = max((CPU_LOAD[quantization] * 2.0 * copy.shape.weights for copy in copies), default=0)
    return held + max(passed, merge)


def _large(copies: Sequence[Copy]) -> bool:
    return any(2.0 * copy.shape.weights > MERGE_BYTES for copy in copies)
