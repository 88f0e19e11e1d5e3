"""The file system of a database: whether its locks are reliable and it survives a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_UNRELIABLE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"),
    *("vboxsf", "prl_fs", "davfs"),
}


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `path`; "" if the system does not say."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def unreliable_locks(path: Path, mounts: str | None = None) -> bool:
    """Whether SQLite's locks (and WAL's shared memory) are unreliable at `path`."""
    kind = filesystem_of(path, mounts)
    return kind in _UNRELIABLE or kind.startswith("fuse.") or kind == "fuse"


def lost_on_restart(path: Path, environment: Mapping[str, str] | None = None) -> bool:
    """Whether `path` is on the ephemeral disk of a Space: everywhere but on the `/data` mount."""
    environment = os.environ if environment is None else environment
    return environment.get("SYSTEM") == "spaces" and not path.is_relative_to("/data")
