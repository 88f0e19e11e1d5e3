"""The memory and disk that a line-up needs, before anything is loaded, and whether it fits.

GPU: weights, adapters, the KV cache of the rounds that run together, the activations of one
prefill, and CUDA's own memory. Host: what loading needs. Disk: downloads, and merged copies that do
not exist yet. On a CPU the memory of the device is that of the host.

A budget is compared with the free memory of the device and the host, and with the free disk. What
does not fit is refused with the settings that would.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.dialogue import MAX_TEXT, MAX_TURNS
from empo_demo.engine.assembly.copies import root
from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.planning.members import Member, Terms
from empo_demo.engine.weights.adapter_plan import size
from empo_demo.engine.weights.downloads import adapter_download, cache_disk, model_download
from empo_demo.engine.weights.shapes import ModelShape, model_shape
from empo_demo.errors import EngineError
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
    for base in dict.fromkeys(member.base for member in members):
        shape = model_shape(base)
        held = shape.held(terms.quantization)
        group = [member for member in members if member.base == base]
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
    bases = dict.fromkeys(member.base for member in members)
    adapters = dict.fromkeys(member.adapter for member in members if member.adapter)
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


Replan = Callable[..., Budget]
"""The budget with other settings: `quantization`, `override`, or only the `first` n sources."""


@dataclass(frozen=True, slots=True)
class Free:
    """Free bytes; None if unknown (a GPU that is leased for each call)."""

    device: float | None
    host: float
    disk: float
    hub: float | None = None
    """Of the disk of the Hub's cache, if that is another one than the disk of merged copies."""


def free_memory(device: str) -> Free:
    """The free bytes now. On a CPU the memory of the device is that of the host."""
    import psutil

    host = float(psutil.virtual_memory().available)
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        host = min(host, limit - used + (_cgroup("memory.stat", "inactive_file") or 0.0))
    disk = float(shutil.disk_usage(root()).free)
    cache = cache_disk()
    one = cache.stat().st_dev == root().stat().st_dev
    hub = None if one else float(shutil.disk_usage(cache).free)
    if device.startswith("cuda"):
        if on_zero_gpu():
            return Free(None, host, disk, hub)
        import torch

        return Free(float(torch.cuda.mem_get_info(device)[0]), host, disk, hub)
    return Free(host, host, disk, hub)


def _cgroup(file: str, key: str = "") -> float | None:
    """A figure of the container's memory accounting (cgroup v2), in bytes."""
    try:
        text = Path("/sys/fs/cgroup", file).read_text()
        if key:
            text = next(line.split()[1] for line in text.splitlines() if line.split()[0] == key)
        return float(text)
    except (OSError, ValueError, StopIteration, IndexError):
        return None


def check(budget: Budget, free: Free, replan: Replan | None = None) -> None:
    """Raise an `EngineError` with the numbers and with remedies if the budget does not fit.

    `replan` computes the budget of other settings, to find the remedies.
    """
    lacks = []
    if free.device is not None and budget.least > free.device:
        lacks.append(
            f"{size(budget.least)} on {budget.device} (weights {size(budget.weights)}, adapters "
            f"{size(budget.adapters)}, a first round {size(budget.kv_first + budget.activations)}, "
            f"CUDA {size(budget.own)}), of which {size(free.device)} are free"
        )
    if budget.host > free.host:
        lacks.append(
            f"{size(budget.host)} of this machine's memory, of which {size(free.host)} are free"
        )
    lacks += [
        f"{size(needed)} of disk for {purpose}, of which {size(there)} are free ({variable} may "
        "name a larger disk)"
        for purpose, variable, needed, there in _disks(budget, free)
        if needed > there
    ]
    if not lacks:
        return
    known = list(_remedies(budget, free, replan)) if replan else []
    advice = (
        f"What would fit: {'; '.join(known)}"
        if known
        else "No setting makes these models fit; use a larger machine, or EMPO_PRESET=tiny"
    )
    raise EngineError(f"These contenders need {'; and '.join(lacks)}. {advice}.")


def fits(budget: Budget, free: Free) -> bool:
    """Whether `check` would raise no error."""
    return (
        (free.device is None or budget.least <= free.device)
        and budget.host <= free.host
        and all(needed <= there for _, _, needed, there in _disks(budget, free))
    )


def _disks(budget: Budget, free: Free) -> list[tuple[str, str, float, float]]:
    """(purpose, variable that moves it, bytes needed, bytes free) of each disk."""
    download = budget.download or 0.0
    copies = ("merged copies", "HF_ASSETS_CACHE", budget.copies_disk, free.disk)
    if free.hub is not None:
        return [("downloads", "HF_HUB_CACHE", download, free.hub), copies]
    if not download:
        return [copies]
    if not budget.copies_disk:
        return [("downloads", "HF_HUB_CACHE", download, free.disk)]
    return [("downloads and merged copies", "HF_HOME", budget.disk, free.disk)]


def table(budget: Budget, free: Free) -> str:
    """The plan as lines of text, for the log and the terminal."""
    lines = [f"{'contender':<18} {'plan':<7} {'shared adds':>12} {'merged adds':>12}"]
    for m in budget.members:
        costs = ("-", "-") if m.adapter is None else (size(m.shared), size(m.merged))
        lines.append(f"{m.id[:18]:<18} {m.plan:<7} {costs[0]:>12} {costs[1]:>12}")
    held = [
        ("weights", budget.weights),
        ("adapters", budget.adapters),
        ("activations", budget.activations),
        ("CUDA itself", budget.own),
        (f"KV, {budget.rounds} rounds", budget.rounds * budget.kv_round),
    ]
    lines.append(f"On {budget.device}: " + ", ".join(f"{name} {size(n)}" for name, n in held))
    kv = budget.kv_bytes(free.device)
    there = "unknown" if free.device is None else size(free.device)
    lines.append(
        f"needed at least {size(budget.least)}, for all rounds {size(budget.most)}, free {there}; "
        f"the KV cache may take {size(kv)}"
    )
    lines.append(
        f"Host memory {size(budget.host)} of {size(free.host)} free; "
        f"to download: {downloaded(budget.download)}"
    )
    lines += [
        f"Disk for {purpose} {size(needed)} of {size(there)} free"
        for purpose, _, needed, there in _disks(budget, free)
    ]
    return "\n".join(lines)


def downloaded(count: float | None) -> str:
    """Bytes to download as text."""
    return "unknown (offline)" if count is None else size(count) if count else "0"


def as_json(budget: Budget, free: Free) -> dict[str, Any]:
    """The plan in bytes, for `contenders --json`."""
    names = ("weights", "adapters", "activations", "own", "least", "most", "host", "disk")
    return {
        "device": budget.device,
        **{name: round(getattr(budget, name)) for name in names},
        "download": budget.download,
        "kv_bytes": budget.kv_bytes(free.device),
        "free": {
            "device": free.device,
            "host": free.host,
            "disk": free.disk,
            "hub": free.disk if free.hub is None else free.hub,
        },
        "fits": fits(budget, free),
        "contenders": [
            {
                "id": m.id,
                "plan": m.plan,
                "reason": m.reason,
                "prepared": m.prepared,
                "shared_bytes": round(m.shared),
                "merged_bytes": round(m.merged),
            }
            for m in budget.members
        ],
    }


def _remedies(budget: Budget, free: Free, replan: Replan) -> Iterator[str]:
    """Yield settings under which the plan would fit, as parts of a sentence."""
    tries: list[tuple[str, dict[str, Any]]] = [
        ("EMPO_QUANTIZATION=nf4", {"quantization": "nf4"}),
        ("EMPO_ADAPTER_PLAN=shared", {"override": "shared"}),
        ("EMPO_ADAPTER_PLAN=merged", {"override": "merged"}),
        ("only the first two contenders", {"first": 2}),
        (
            "only the first two contenders with EMPO_QUANTIZATION=nf4",
            {"first": 2, "quantization": "nf4"},
        ),
    ]
    for words, change in tries:
        try:
            other = replan(**change)
        except EngineError:
            continue
        if fits(other, free):
            yield f"{words} ({size(other.least)})"
