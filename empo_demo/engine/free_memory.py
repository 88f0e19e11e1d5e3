"""The free memory of the device and the host, and the free disk for downloads and merged copies."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.downloads import cache_disk


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

    from empo_demo.engine.copies import root

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
