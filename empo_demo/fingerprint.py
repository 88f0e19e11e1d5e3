"""Fingerprints of models: a hash of the contents of local files, or an unchanged Hub id."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

WHOLE_FILE = 256 * 2**20
"""Files up to this many bytes are hashed completely, longer ones by samples; see `_digest`."""
BLOCK = 2**20
SAMPLES = 64
_KINDS = (".safetensors", ".bin", ".gguf", ".model", ".jinja")
_NAMES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def fingerprint(model: str | None) -> str | None:
    """The hash of the content of a local model or file, or an unchanged Hub id."""
    if not model:
        return None
    path = Path(model)
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        return model
    total = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and (file.suffix in _KINDS or file.name in _NAMES):
            total.update(f"{file.name}\0{_file(file)}\0".encode())
    return total.hexdigest()


def _file(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file. Above `WHOLE_FILE`, of its size and of evenly spaced blocks.

    Reading a whole adapter of 12 GB would delay the page by half a minute. Training changes every
    weight, so the blocks differ between two checkpoints. `modified` is only part of the cache key.
    """
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256(str(size).encode())
        for number in range(SAMPLES):
            file.seek((size - BLOCK) * number // (SAMPLES - 1))
            total.update(file.read(BLOCK))
        return total.hexdigest()
