"""PEFT adapters: found, fitted to a base, merged. What does not fit is one `EngineError`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


def adapter_folder(name: str) -> Path:
    """The folder of an adapter, fetched from the Hub where it is a Hub id."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or name.count("/") != 1:
        raise EngineError(f"There is no adapter at {name}: give a PEFT folder, or a Hub id.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:
        raise EngineError(
            f"The adapter {name} is neither a folder here nor to be had from the Hub: "
            f"{first_line(error)} Check the name and the connection, or download it first."
        ) from None


def is_whole_model(folder: Path) -> bool:
    """Whether what is given as an adapter is a model of its own."""
    return not (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file()


def attach(model: PreTrainedModel, folders: dict[str, Path]) -> Any:
    """`model` with the adapters in `folders` by name, loaded by PEFT in the type they have."""
    from peft import PeftModel

    wrapped: Any = None
    # Left to itself, PEFT reads onto the GPU wherever one is.
    where: dict[str, Any] = {"torch_device": str(model.device), "autocast_adapter_dtype": False}
    for name, folder in folders.items():
        with _fitting(folder, str(model.name_or_path)):
            if wrapped is None:
                wrapped = PeftModel.from_pretrained(model, str(folder), adapter_name=name, **where)
            else:
                found = wrapped.load_adapter(str(folder), adapter_name=name, **where)
                if found.missing_keys:
                    raise ValueError(f"it lacks weights for {found.missing_keys[0]}")
    return wrapped.eval()


def merge(base: str, folder: Path, out: Path) -> None:
    """Write base plus adapter as one 16-bit model to `out`; resizes the vocabulary first.

    Merging before quantising keeps what merging into 4-bit weights would round away.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    rows = _vocabulary(folder)
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows)
    with _fitting(folder, base):
        wrapped = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    try:
        merged = wrapped.merge_and_unload()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise EngineError(
            f"The adapter {folder} cannot be merged into its base: {first_line(error)} "
            "Train it without that, or merge it where it was trained."
        ) from None
    try:
        merged.save_pretrained(out)
    except OSError as error:
        raise EngineError(
            f"The merged copy of {folder.name} cannot be written to {out.parent}: "
            f"{error.strerror or error}. Free some space, or set TMPDIR to a larger disk."
        ) from None


def first_line(error: BaseException) -> str:
    """What an error of a library says in its first line, as a sentence."""
    line = " ".join(str(error).strip().split("\n")[0].split())[:300]
    return line if line.endswith((".", "!", "?")) else f"{line}."


@contextmanager
def _fitting(folder: Path, base: str) -> Iterator[None]:
    """Turn PEFT's complaints and its warning of missing weights into one `EngineError`."""
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
        # PEFT only warns, and would serve untrained weights in their place.
        for warning in heard:
            if "missing adapter keys" in str(warning.message):
                raise ValueError("it lacks weights for some of its layers")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = _shapes(str(error)) or first_line(error)
        raise EngineError(
            f"The adapter {folder} does not fit the base model {base}: {reason} "
            "Give the adapter that was trained on this base."
        ) from None


def _shapes(message: str) -> str | None:
    """The first mismatch of PyTorch's list of mismatches."""
    lines = [line.strip() for line in message.split("\n") if "size mismatch" in line]
    return f"{lines[0][:300].rstrip('.')}." if lines else None


def _vocabulary(folder: Path) -> int | None:
    """Rows of the adapter's own embedding, where it replaces it."""
    from safetensors import safe_open

    for file in sorted(folder.glob("adapter_model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                if "embed_tokens" in name and "lora_" not in name:
                    return int(tensors.get_slice(name).get_shape()[0])
    return None
