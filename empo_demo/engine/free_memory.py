"""The free memory of the device and the host, and the free disk for merged copies."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from empo_demo.engine.device import on_zero_gpu


@dataclass(frozen=True, slots=True)
class Free:
    """Free bytes; None if unknown (a GPU that is leased for each call)."""

    device: float | None
    host: float
    disk: float


def free_memory(device: str) -> Free:
    """The free bytes now. On a CPU the memory of the device is that of the host."""
    import psutil

    from empo_demo.engine.copies import root

    host = float(psutil.virtual_memory().available)
    limit, used = (_cgroup(name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        host = min(host, limit - used + (_cgroup("memory.stat", "inactive_file") or 0.0))
    disk = float(shutil.disk_usage(root()).free)
    if device.startswith("cuda"):
        if on_zero_gpu():
            return Free(None, host, disk)
        import torch

        return Free(float(torch.cuda.mem_get_info(device)[0]), host, disk)
    return Free(host, host, disk)


def _cgroup(file: str, key: str = "") -> float | None:
    """A figure of the container's memory accounting (cgroup v2), in bytes."""
    try:
        text = Path("/sys/fs/cgroup", file).read_text()
        if key:
            text = next(line.split()[1] for line in text.splitlines() if line.split()[0] == key)
        return float(text)
    except (OSError, ValueError, StopIteration, IndexError):
        return None
