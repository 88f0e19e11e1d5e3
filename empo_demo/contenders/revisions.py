"""Revisions: a short stable hash of exactly what answers for a contender.

Two contenders with the same revision give the same distribution over replies to the same
messages and decoding. Hub models enter by their id, local ones by their files. Imports no model.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster

WHOLE_FILE = 256 * 2**20
"""Files up to this size, in bytes, are hashed whole; of longer ones, samples (see `_digest`)."""
BLOCK = 2**20
SAMPLES = 64
_KINDS = (".safetensors", ".bin", ".gguf", ".model", ".jinja")
_NAMES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def revision(contender: Contender, roster: Roster) -> str:
    """12 hexadecimal digits over model, adapter, strategy, prompt text and quantisation.

    A guided contender's prompt also depends on HEF's wording, on its top k and on which SEM
    reads, so these enter too. The SEM's own revision is stored with each reading.
    """
    parts: dict[str, object] = {
        "base": fingerprint(contender.base),
        "adapter": fingerprint(contender.adapter),
        "predictions": fingerprint(contender.predictions),
        "strategy": contender.strategy,
        "prompt": roster.system_prompt,
        "quantization": roster.quantization,
    }
    if contender.guided:
        from empo_demo.empathy.hef import wording

        parts["guidance"] = wording(contender.strategy, tiny=roster.tiny)
        parts["top_k"] = 1 if roster.tiny else roster.hef_top_k
        parts["sem"] = roster.sem
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def fingerprint(model: str | None) -> str | None:
    """The hash of a local model's or file's content, wherever it lies; a Hub id as it is."""
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
    """SHA-256 of a file; over `WHOLE_FILE`, of its size and of evenly spaced blocks.

    Twelve gigabytes of adapter would delay the page by half a minute. Training moves every
    weight, so the blocks tell two checkpoints apart. `modified` only keys the cache.
    """
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256(str(size).encode())
        for number in range(SAMPLES):
            file.seek((size - BLOCK) * number // (SAMPLES - 1))
            total.update(file.read(BLOCK))
        return total.hexdigest()
