"""What is kept of models between starts: merged copies, and what trials found.

A copy lies in the Hub's asset cache. Its key is made of base, adapter, quantisation and 16-bit
type. It is written to a scratch folder and then renamed, so it exists completely or not at all. A
list of its file sizes shows whether it is damaged; a damaged copy is made again.

A verdict lies beside the merged copies, so that a model is tried once and not at each start. Its
key is made of all that the numbers depend on: the contents of base and adapters, quantisation, type
and device, the versions of the libraries, and our own code.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.assembly.merging import merge, recast
from empo_demo.engine.weights.downloads import adapter_files, weight_files
from empo_demo.errors import EngineError, first_line
from empo_demo.files import fingerprint
from empo_demo.progress import Report
from empo_demo.settings import Quantization

if TYPE_CHECKING:
    from empo_demo.engine.weights.model_weights import Way

log = logging.getLogger(__name__)
MANIFEST = "empo-copy.json"
_FORMAT = 2
_COMPARED_BYTES = 3e9
"""The most bytes of base and adapter whose merge is compared with PEFT, on the CPU."""
Load = Callable[[str], Any]
"""Loads and quantises the model in a folder."""


@dataclass(frozen=True, slots=True)
class MergedCopy:
    """The merged copy of one adapter. `folder` is its place, whether it exists yet or not."""

    base: Path
    adapter: Path
    quantization: Quantization
    dtype: str = "bfloat16"

    @property
    def folder(self) -> Path:
        parts = [
            _FORMAT,
            fingerprint(str(self.base)),
            fingerprint(str(self.adapter)),
            self.quantization,
            self.dtype,
        ]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        return root() / f"{self.adapter.name[:40]}-{self.quantization}-{key}"

    def find(self) -> Path | None:
        """The folder of the copy if it exists and is whole, else None."""
        folder = self.folder
        try:
            sizes = json.loads((folder / MANIFEST).read_text(encoding="utf8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        for name, size in sizes.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != size:
                log.warning("The merged copy %s is damaged (%s); it is made again.", folder, name)
                return None
        return folder

    def disk_bytes(self) -> int:
        """The most bytes of disk in use while it is made: 16-bit weights and the copy itself."""
        whole = sum(file.stat().st_size for file in weight_files(self.base))
        exact = 2.0 * whole if self._is_small else 0.0
        return round(exact + whole * (1.0 if self.quantization == "none" else 1.6))

    def make(self, load: Load, report: Report | None = None) -> Path:
        """The folder of the copy; makes the copy if it does not exist."""
        earlier = self.find()
        if earlier is not None:
            return earlier
        folder = self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        self._check_disk(folder.parent)
        scratch = folder.parent / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        try:
            whole, ready = scratch / "16-bit", scratch / "ready"
            compared = self._merge(whole, report)
            if self.quantization == "none" or not _quantise(load, whole, ready):
                ready = whole
            sizes = {file.name: file.stat().st_size for file in ready.iterdir() if file.is_file()}
            (ready / MANIFEST).write_text(
                json.dumps({"files": sizes, "compared": compared}), encoding="utf8"
            )
            if self.find() is None:
                _replace(ready, folder)
        except OSError as error:
            raise EngineError(
                f"The merged copy of {self.adapter.name} cannot be written to {folder.parent}: "
                f"{error.strerror or error}. Free some space, or set HF_ASSETS_CACHE to a larger "
                "disk."
            ) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return folder

    @property
    def compared(self) -> bool:
        """Whether the copy that exists was compared with PEFT when it was made."""
        manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf8"))
        return bool(manifest.get("compared"))

    @property
    def _is_small(self) -> bool:
        files = [*weight_files(self.base), *adapter_files(self.adapter)]
        return sum(file.stat().st_size for file in files) <= _COMPARED_BYTES

    def _merge(self, out: Path, report: Report | None) -> bool:
        """Merge into `out`, and compare the merge with PEFT; False if it is too large for that.

        The comparison is made in fp32, where rounding hides nothing. If our merge differs, PEFT
        merges. Raises `EngineError` if that differs from PEFT's own forward pass, too.
        """
        from empo_demo.engine.assembly.trial import merge_differs

        if not self._is_small:
            merge(self.base, self.adapter, out, dtype=self.dtype, report=report)
            return False
        exact, said = out.with_name("exact"), None
        for by_peft in (False, True):
            merge(self.base, self.adapter, exact, dtype="float32", report=report, by_peft=by_peft)
            said = merge_differs(self.base, self.adapter, exact)
            if said is None:
                recast(exact, out, self.dtype)
            shutil.rmtree(exact)
            if said is None:
                return True
            log.warning("The merge of %s differs from PEFT: %s", self.adapter, said)
        raise EngineError(
            f"The adapter {self.adapter} cannot be merged into its base: the merged model's "
            f"logits differ from PEFT's {said}. Merge it where it was trained, and give the "
            "result as EMPO_ALIGNED."
        )

    def _check_disk(self, folder: Path) -> None:
        needed, free = self.disk_bytes(), shutil.disk_usage(folder).free
        if free < needed:
            raise EngineError(
                f"The merged copy of {self.adapter.name} needs {needed / 1e9:.1f} GB of disk while "
                f"it is made, but {folder} has {free / 1e9:.1f} GB free; free some space, or set "
                "HF_ASSETS_CACHE to a larger disk."
            )


def root() -> Path:
    """The folder of all copies: the Hub's cache for data that programs derive from its files."""
    from huggingface_hub import cached_assets_path

    return Path(cached_assets_path("empo-arena", "merged", "copies"))


def _quantise(load: Load, whole: Path, ready: Path) -> bool:
    """Save the quantised model to `ready`; False if transformers cannot save such a model."""
    from safetensors import SafetensorError

    try:
        load(str(whole)).save_pretrained(ready)
    except SafetensorError as error:
        raise OSError(first_line(error)) from None
    except (NotImplementedError, ValueError, TypeError) as error:
        log.warning("The quantised copy cannot be saved, so it is kept unquantised: %s", error)
        shutil.rmtree(ready, ignore_errors=True)
        return False
    finally:
        # References inside the model keep it in memory until now, and the copy needs this memory.
        gc.collect()
    for file in whole.iterdir():
        if not file.name.startswith(("model", "config.json", "generation_config")):
            shutil.copyfile(file, ready / file.name)
    return True


def _replace(ready: Path, folder: Path) -> None:
    """Replace `folder`, which is missing or damaged, by `ready`."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        ready.rename(folder)
    except OSError:
        # Another process may have finished the same copy in the meantime.
        if not (folder / MANIFEST).is_file():
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove the scratch folders of processes that have died."""
    for scratch in folder.glob(".*.*.*"):
        process = scratch.name.rsplit(".", 2)[1]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(scratch, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


_LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "safetensors")
_TRIALS_FORMAT = 1


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
            _TRIALS_FORMAT,
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
