"""Models and adapters on this machine, and what must still be downloaded from the Hub for them.

The Hub is asked once per process for the list of a repository's files with their sizes, so a plan
can say the bytes before the first one is loaded. The tensors of what is here are read off their
safetensors files.
"""

from __future__ import annotations

import io
import json
import logging
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import EngineError, first_line
from empo_demo.files import why_not
from empo_demo.progress import Report, amount

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
_OTHERS = ["*/*", "consolidated*"]
"""Other copies of the same weights: in subfolders, or in the format of a trainer."""
_PICKLED = "*.bin"
"""The weights of a repository that has no safetensors."""
_PATIENCE = 10.0
"""Seconds to wait for the list of a repository's files."""


def check_model(name: str) -> None:
    """Raise if `name` looks like a path but is not a model's folder, or is an adapter."""
    path = Path(name).expanduser()
    looks_local = path.is_absolute() or name.startswith(".") or name.count("/") > 1
    is_adapter = (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()
    if is_adapter:
        raise EngineError(
            f"{name} is an adapter, not a model: name it in EMPO_ALIGNED and its base in EMPO_BASE."
        )
    if looks_local and not (path / "config.json").is_file():
        raise EngineError(
            f"There is no model at {name}: give a folder with a config.json, or a Hub id."
        )


def adapter_here(name: str) -> Path | None:
    """The folder of an adapter on this machine; None if it must be downloaded from the Hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.count("/") != 1:
        raise EngineError(f"There is no adapter at {name}: give a PEFT folder, or a Hub id.")
    from huggingface_hub import try_to_load_from_cache

    for file in ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"):
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached).parent
    return None


def adapter_folder(name: str) -> Path:
    """The folder of an adapter; downloads it if it is not on this machine."""
    return adapter_here(name) or _fetch(name, "adapter")


def model_here(name: str) -> Path | None:
    """The folder of a model on this machine, else None."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import try_to_load_from_cache

    if name.count("/") > 1 or path.is_absolute():
        return None
    cached = try_to_load_from_cache(name, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def model_folder(name: str) -> Path:
    """The folder of a model; downloads it if it is not on this machine."""
    path = Path(name).expanduser()
    return path if path.is_dir() else _fetch(name, "model")


def model_download(name: str) -> int | None:
    """The bytes to download before the model can be loaded; None if the Hub cannot be asked."""
    folder = model_here(name)
    if folder is not None and Path(name).expanduser().is_dir():
        return 0
    repository = _repository(name)
    if repository is not None:
        return repository.missing()
    return 0 if folder is not None and _has_weights(folder) else None


def adapter_download(name: str) -> int | None:
    """The bytes to download before the adapter can be loaded; None if the Hub cannot be asked."""
    if adapter_here(name) is not None:
        return 0
    repository = _repository(name)
    return None if repository is None else repository.missing()


@dataclass(frozen=True, slots=True)
class _Repository:
    """The files of a repository that the arena uses: name, bytes, and name in the Hub's cache."""

    name: str
    commit: str
    files: tuple[tuple[str, int, str], ...]

    def missing(self) -> int:
        """The bytes of the files that are not in the Hub's cache."""
        from huggingface_hub import try_to_load_from_cache

        def here(file: str, blob: str) -> bool:
            cached = try_to_load_from_cache(self.name, file, revision=self.commit)
            return isinstance(cached, str) or (_cache(self.name) / "blobs" / blob).is_file()

        return sum(size for file, size, blob in self.files if not here(file, blob))


@lru_cache(maxsize=64)
def _repository(name: str) -> _Repository | None:
    """The repository on the Hub; None if the Hub cannot be asked for it."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils._paths import filter_repo_objects

    try:
        repository = HfApi().model_info(name, files_metadata=True, timeout=_PATIENCE)
    except Exception as error:
        log.info("The size of %s is not known: %s", name, first_line(error))
        return None
    files = {file.rfilename: file for file in repository.siblings or ()}
    wanted = filter_repo_objects(
        files, allow_patterns=_patterns(list(files)), ignore_patterns=_OTHERS
    )
    listed = []
    for one in wanted:
        file = files[one]
        blob = file.lfs.sha256 if file.lfs is not None else file.blob_id or ""
        listed.append((one, int(file.size or 0), blob))
    return _Repository(name, str(repository.sha), tuple(listed))


def _patterns(files: Sequence[str]) -> list[str]:
    """Which files to download: weights as safetensors, and as pickles only if there are none."""
    tensors = [file for file in files if file.endswith(".safetensors") and "/" not in file]
    return _FILES if tensors or not files else [*_FILES, _PICKLED]


def _has_weights(folder: Path) -> bool:
    try:
        return all(file.is_file() for file in weight_files(folder))
    except (EngineError, OSError, ValueError, KeyError):
        return any(folder.glob("pytorch_model*.bin"))


def _cache(name: str) -> Path:
    """The folder of a repository in the Hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")


def cache_disk() -> Path:
    """The folder of the Hub's cache, or the nearest one above it that exists."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _fetch(name: str, kind: str) -> Path:
    from huggingface_hub import snapshot_download

    repository = _repository(name)
    missing = repository.missing() if repository is not None else 0
    free = shutil.disk_usage(cache_disk()).free
    if missing > free:
        raise EngineError(
            f"The {kind} {name} needs {missing / 1e9:.1f} GB more on the disk, and {cache_disk()} "
            f"has {free / 1e9:.1f} GB free; free some space, or set HF_HUB_CACHE to a larger disk."
        )
    files = [file for file, _, _ in repository.files] if repository is not None else []
    try:
        with amount(f"Downloading {name}") as report:
            return Path(
                snapshot_download(
                    name,
                    allow_patterns=_patterns(files),
                    ignore_patterns=_OTHERS,
                    tqdm_class=_bar_for(report, missing),
                )
            )
    except Exception as error:
        raise EngineError(
            f"The {kind} {name} is neither a folder here nor to be had from the Hub: "
            f"{first_line(error)} Check the name and the connection, or download it first."
        ) from None


def _bar_for(report: Report, whole: int) -> Any:
    """A class of tqdm bars that draws nothing and tells `report` the bytes that have arrived."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    most = 0.0

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **{**options, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> None:
            nonlocal most
            self.n += n or 0
            # Two bars count bytes (those that arrive, those that are written), one counts files.
            if self.unit == "B":
                most = max(most, self.n)
                report(round(most), max(whole, round(most)))

    return Silent


_PREFIX = "base_model.model."


@dataclass(slots=True)
class Tensors:
    """The tensors of several safetensors files, by name.

    `read` opens a new memory map for each tensor and closes it again, so that the pages that were
    read leave the memory.
    """

    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, files: list[Path]) -> Tensors:
        from safetensors import safe_open

        where: dict[str, Path] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118 - it is not a mapping
                        where[name] = file
                        shapes[name] = tuple(tensors.get_slice(name).get_shape())
            except Exception as error:
                said = why_not(error, file.parent)
                raise EngineError(f"The file {file} cannot be read: {said}") from None
        return cls(where, shapes)

    def read(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
            return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model in `folder`; `EngineError` if there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf8"))["weight_map"].values()
        return [folder / name for name in dict.fromkeys(named)]
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(
            f"{folder} holds no safetensors weights; save the model with save_pretrained first."
        )
    return files


def adapter_files(folder: Path) -> list[Path]:
    """The safetensors files of the PEFT adapter in `folder`."""
    return sorted(folder.glob("adapter_model*.safetensors"))


@dataclass(slots=True)
class Parts:
    """The names of an adapter's tensors: A and B by module, and replaced weights by weight."""

    a: dict[str, str] = field(default_factory=dict)
    b: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str]) -> Parts:
        parts = cls()
        for name in names:
            stem = name.removeprefix(_PREFIX).replace(".base_layer", "")
            module, mark, kind = stem.partition(".lora_")
            if mark and kind in ("A.weight", "embedding_A"):
                parts.a[module] = name
            elif mark and kind in ("B.weight", "embedding_B"):
                parts.b[module] = name
            elif mark:
                raise ValueError(f"it holds {name}, which is neither A nor B of a LoRA")
            elif ".original_module." not in stem:
                # PEFT may also save the original of a module that the adapter replaces.
                parts.replaced[whole_module(stem)] = name
        return parts


def whole_module(name: str) -> str:
    """The weight of the base that a tensor replaces; PEFT may save one tensor under two names."""
    return re.sub(r"\.modules_to_save(\.\w+)?\.", ".", name)


def scale_of(module: str, config: Mapping[str, Any], rank: int) -> float:
    """The factor of `B A` as PEFT computes it: alpha / r, with rsLoRA alpha / sqrt(r)."""
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    own = patterns.get(get_pattern_key(list(patterns), module))
    alpha = own or config.get("lora_alpha") or rank
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
