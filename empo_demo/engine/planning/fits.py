"""Compares a budget with the free memory and disk: does it fit, and which settings would?

The free memory is the device's and the host's; the free disk is for downloads and merged copies.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.engine.assembly.copies import root
from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.planning.budget import Budget
from empo_demo.engine.weights.adapter_plan import size
from empo_demo.engine.weights.downloads import cache_disk
from empo_demo.errors import EngineError

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
