"""What trials found, kept between starts, so that a model is tried once and not at each start.

A verdict lies in the Hub's asset cache, beside the merged copies. Its key is made of all that the
numbers depend on: the contents of base and adapters, quantisation, type and device, the versions of
the libraries, and our own code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.fingerprint import fingerprint

if TYPE_CHECKING:
    from empo_demo.engine.weights.model_weights import Way

log = logging.getLogger(__name__)
_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a copy of the weights is served. `way` None: not at all, and `said` is why.

    `apart` maps the fingerprint of each adapter that may not share this copy to the reason. `said`
    says why the copy is served in another way than the fastest, else it is empty. `held` is what
    the weights are held in, where that is not what was asked for, as in "nf4; experts in bf16".
    """

    way: Way | None
    said: str = ""
    apart: dict[str, str] = field(default_factory=dict)
    held: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What one verdict is about: a base with the adapters that share it, on a device."""

    base: Path
    adapters: tuple[Path, ...]
    quantization: str
    dtype: str
    device: str

    def find(self) -> Verdict | None:
        """The kept verdict, None if there is none or it is damaged."""
        try:
            stored = json.loads(self._file.read_text(encoding="utf8"))
            return Verdict(
                stored["way"], str(stored["said"]), dict(stored["apart"]), str(stored["held"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, verdict: Verdict) -> None:
        """Keep the verdict. Where that fails, the next start tries again."""
        file = self._file
        scratch = file.with_suffix(f".{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(asdict(verdict)), encoding="utf8")
            scratch.replace(file)
        except OSError as error:
            log.warning("The result of the trial cannot be kept: %s", error)

    @property
    def _file(self) -> Path:
        parts = [
            _FORMAT,
            fingerprint(str(self.base)),
            [fingerprint(str(a)) for a in self.adapters],
            self.quantization,
            self.dtype,
            _device_name(self.device),
            _code(),
            _versions(),
        ]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
        return _root() / f"{key}.json"


def words(verdicts: Sequence[Verdict | None]) -> str:
    """Kept verdicts of one contender, as a listing says them."""
    if any(verdict is None for verdict in verdicts):
        return "not yet"
    known = [verdict for verdict in verdicts if verdict is not None]
    refused = next((verdict.said for verdict in known if verdict.way is None), None)
    if refused is not None:
        return f"refused: {refused}"
    said = dict.fromkeys(part for v in known for part in (v.held, v.said) if part)
    return f"passed: {'; '.join(said)}" if said else "passed"


def _root() -> Path:
    from huggingface_hub import cached_assets_path

    return Path(cached_assets_path("empo-arena", "trials", "verdicts"))


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(name)
    return versions


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of the code of this room, which computes what is tried."""
    total = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()


def _device_name(device: str) -> str:
    import torch

    if not device.startswith("cuda") or not torch.cuda.is_available():
        return f"{device} {torch.backends.cpu.get_cpu_capability()}"
    return str(torch.cuda.get_device_name(device))
