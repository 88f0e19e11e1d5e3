"""Merges an adapter into its base, tensor by tensor: neither is ever in memory as a whole.

Each base tensor is read through a memory map, `scale · B A` is added in fp32, and the result is
cast to 16 bits and written with its shard. The peak of memory is one shard and one layer in fp32,
whatever the model's size. This module merges LoRA on linear layers and embeddings, and modules
that the adapter replaces as a whole. PEFT merges the other kinds, with the whole model in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.device import is_out_of_memory
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.weights.adapter_plan import obstacle_to_merge, read_config
from empo_demo.engine.weights.adapters import fitting
from empo_demo.engine.weights.downloads import (
    Parts,
    Tensors,
    adapter_files,
    scale_of,
    weight_files,
    whole_module,
)
from empo_demo.engine.weights.shapes import named
from empo_demo.errors import EngineError, first_line
from empo_demo.progress import Report

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 500_000_000
_ROWS = 1024
"""How many rows of a weight are merged at a time. It bounds the size of the fp32 copies."""
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEAD = "lm_head.weight"
_FLOAT_BYTES = 4e9
"""The largest base that PEFT merges in fp32; larger ones are merged in the type they get."""
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    dtype: str = "bfloat16",
    shard_bytes: int = SHARD_BYTES,
    report: Report | None = None,
    by_peft: bool = False,
) -> None:
    """Merge an adapter into a base, both given as folders; write safetensors of `dtype` to `out`.

    An adapter may bring more rows of embeddings than the base has. Embeddings and head of the base
    that the adapter does not replace then get the mean row for each new token. Raises
    `EngineError` if the two do not fit together, and if the disk or the memory is full. `report` is
    called with (bytes written, bytes in all). `by_peft` leaves the merge to PEFT in any case.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        if by_peft or obstacle_to_merge(read_config(adapter)):
            _merge_with_peft(base, adapter, out, dtype)
        else:
            _Merge(base, adapter, dtype).write(out, shard_bytes, report)
        _copy_tokenizer(base, adapter, out)
    except EngineError:
        raise
    except Exception as error:
        raise _explained(error, adapter, out) from None


def recast(source: Path, out: Path, dtype: str) -> None:
    """Write the merged model in `source` to `out` again, in another type."""
    import torch
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            kind = getattr(torch, dtype)
            tensors = {
                name: tensor.to(kind) if tensor.is_floating_point() else tensor
                for name, tensor in load_file(file).items()
            }
            save_file(tensors, out / file.name, metadata={"format": "pt"})
        else:
            shutil.copyfile(file, out / file.name)
    config = json.loads((source / "config.json").read_text(encoding="utf8"))
    config["dtype"] = dtype
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf8")


def _explained(error: Exception, adapter: Path, out: Path) -> EngineError:
    if is_out_of_memory(error):
        return EngineError(
            f"This machine's memory is full while merging {adapter.name}: {first_line(error)} "
            "Close other programs, or merge on a machine with more memory and give the result "
            "as EMPO_ALIGNED."
        )
    if isinstance(error, OSError) or "os error" in str(error).lower():
        return EngineError(
            f"The merged copy of {adapter.name} cannot be written to {out.parent}: "
            f"{first_line(error)} Free some space, or set HF_ASSETS_CACHE to a larger disk."
        )
    return EngineError(
        f"The adapter {adapter} cannot be merged into its base: {first_line(error)} "
        "Train it without that, or merge it where it was trained."
    )


class _Merge:
    """One merge. It holds what all tensors of the merged model must agree on."""

    def __init__(self, source: Path, folder: Path, dtype: str) -> None:
        import torch

        self.source, self.folder = source, folder
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.config = read_config(folder)
        self.model_config = json.loads((source / "config.json").read_text(encoding="utf8"))
        self.base = Tensors.of(weight_files(source))
        self.adapter = Tensors.of(adapter_files(folder))
        with fitting(folder, str(source)):
            self.parts = Parts.of(self.adapter.files)
            self.modules = self._modules()
            self._check_complete()
        self.embedding = next((n for n in self.base.files if n.endswith(_EMBEDDINGS)), None)
        self.rows = self._vocabulary()

    def write(self, out: Path, shard_bytes: int, report: Report | None) -> None:
        """Write shards of at most `shard_bytes` (or one tensor), their index and the config."""
        import torch
        from huggingface_hub import split_torch_state_dict_into_shards

        names = dict.fromkeys(self.base.files)
        if self._untied():
            names[_HEAD] = None
            self.model_config["tie_word_embeddings"] = False
        shapes = {_HEAD: self.base.shapes.get(self.embedding or "", ()), **self.base.shapes}
        sizes = {n: torch.empty(shapes[n], dtype=self.dtype, device="meta") for n in names}
        shards = split_torch_state_dict_into_shards(sizes, max_shard_size=shard_bytes)
        written = 0
        for file, inside in shards.filename_to_tensors.items():
            written += self._write_shard(out / file, inside)
            if report is not None:
                report(written, shards.metadata["total_size"])
        index = {"metadata": {"total_size": written}, "weight_map": shards.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf8")
        self._write_config(out)

    def _write_shard(self, file: Path, names: Iterable[str]) -> int:
        """Merge and write the tensors of one file; return their bytes."""
        from safetensors.torch import save_file

        tensors = {name: self._tensor(name) for name in names}
        save_file(tensors, file, metadata={"format": "pt"})
        return sum(tensor.nbytes for tensor in tensors.values())

    def _modules(self) -> dict[str, str]:
        """The base's weight for each module of the adapter; raises if the base lacks it."""
        replaced = {self._in_base(name): key for name, key in self.parts.replaced.items()}
        self.parts.replaced = replaced
        return {m: self._in_base(f"{m}.weight") for m in {**self.parts.a, **self.parts.b}}

    def _in_base(self, name: str) -> str:
        """The name of a weight in the base: some checkpoints leave out the prefix `model.`."""
        short = name.partition(".")[2]
        if name in self.base.files or name == _HEAD:
            return name
        if short in self.base.files:
            return short
        raise ValueError(f"the base has no weight {name}.")

    def _check_complete(self) -> None:
        """Raise unless every layer that the configuration names has both its A and its B."""
        lacking = set(self.parts.a) ^ set(self.parts.b)
        weights = set(self.modules.values())
        expected = {
            name
            for name, shape in self.base.shapes.items()
            if len(shape) == 2 and name.endswith(".weight") and self._targeted(name[:-7])
        }
        lacking |= expected - weights
        for whole in self.config.get("modules_to_save") or ():
            if not any(n.removesuffix(".weight").endswith(whole) for n in self.parts.replaced):
                lacking.add(whole)
        if lacking:
            raise ValueError(f"it lacks weights for {min(lacking)}.")

    def _targeted(self, module: str) -> bool:
        if self.config.get("layers_to_transform") is not None:
            return False
        excluded = self.config.get("exclude_modules")
        if excluded and named(module, excluded):
            return False
        return named(module, self.config.get("target_modules") or ())

    def _vocabulary(self) -> int | None:
        """How many rows embeddings and head must have; None if the adapter replaces neither."""
        rows = [
            self.adapter.shapes[key][0]
            for name, key in self.parts.replaced.items()
            if name == _HEAD or name.endswith(_EMBEDDINGS)
        ]
        return max(rows) if rows else None

    def _untied(self) -> bool:
        """Whether the head, which the base shares with its embeddings, gets weights of its own.

        It does if PEFT trained only one of the two and was not told to keep them tied.
        """
        if _HEAD in self.base.files or self.config.get("ensure_weight_tying"):
            return False
        changed = {*self.parts.replaced, *self.modules.values()}
        return _HEAD in changed or self.embedding in changed

    def _tensor(self, name: str) -> torch.Tensor:
        replaced = self.parts.replaced.get(name)
        if replaced is not None:
            tensor = self.adapter.read(replaced)
        else:
            source = name if name in self.base.files else self.embedding
            if source is None:
                raise ValueError(f"the base has no {name}")
            tensor = self.base.read(source)
        if not tensor.is_floating_point():
            return tensor.clone()
        if self.rows and (name == _HEAD or name.endswith(_EMBEDDINGS)):
            tensor = _padded(tensor, self.rows)
        module = next((m for m, weight in self.modules.items() if weight == name), None)
        if module is not None:
            with fitting(self.folder, self.source.name):
                return self._with_lora(tensor, module)
        # Copy the tensor, because the memory map of its file is closed after the read.
        return tensor.to(self.dtype, copy=True).contiguous()

    def _with_lora(self, weight: torch.Tensor, module: str) -> torch.Tensor:
        import torch

        a, b = (self.adapter.read(part[module]) for part in (self.parts.a, self.parts.b))
        scale = scale_of(module, self.config, a.shape[0])
        embedding = "lora_embedding" in self.parts.a[module]
        # The layer becomes `W + scale * left @ right`; embeddings are stored transposed.
        left, right = (a.T, b.T) if embedding or self.config.get("fan_in_fan_out") else (b, a)
        if tuple(weight.shape) != (left.shape[0], right.shape[1]):
            raise ValueError(
                f"the layer {module} is {tuple(weight.shape)} in the base and "
                f"{(left.shape[0], right.shape[1])} in the adapter."
            )
        merged = torch.empty(weight.shape, dtype=self.dtype)
        right = right.float()
        for start in range(0, len(weight), _ROWS):
            rows = slice(start, start + _ROWS)
            merged[rows] = torch.addmm(weight[rows].float(), left[rows].float(), right, alpha=scale)
        return merged

    def _write_config(self, out: Path) -> None:
        config = self.model_config
        if self.rows is not None:
            for table in (config, config.get("text_config")):
                if isinstance(table, dict) and "vocab_size" in table:
                    table["vocab_size"] = self.rows
        config["dtype"] = str(self.dtype).removeprefix("torch.")
        config.pop("torch_dtype", None)
        (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf8")
        generation = self.source / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, out / generation.name)


def _padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """`tensor` with the mean row appended until it has `rows` rows.

    The mean row hardly changes the probabilities of the other tokens. The `mean_resizing` of
    transformers also draws from the covariance of the rows, which takes minutes.
    """
    import torch

    if len(tensor) >= rows:
        return tensor
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows - len(tensor), -1)])


def with_peft(base: Path, adapter: Path, dtype: torch.dtype) -> Any:
    """PEFT's model of base and adapter on the CPU, with as many embeddings as the adapter has."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shapes = Tensors.of(adapter_files(adapter)).shapes
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    tables = (*_EMBEDDINGS, _HEAD)
    rows = [
        shape[0]
        for name, shape in shapes.items()
        if whole_module(name).replace(".base_layer", "").endswith(tables)
    ]
    if rows and rows[0] != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows[0], mean_resizing=False)
    with fitting(adapter, str(base)):
        return PeftModel.from_pretrained(
            model, str(adapter), autocast_adapter_dtype=False, torch_device="cpu"
        ).eval()


def _merge_with_peft(base: Path, adapter: Path, out: Path, dtype: str) -> None:
    """Merge adapters that are more than `B A`, with the whole model in memory on the CPU.

    Some adapters first take their start out of the base and put it back when they are merged. In
    16 bits that rounds twice, so models up to `_FLOAT_BYTES` are merged in fp32.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    small = sum(file.stat().st_size for file in weight_files(base)) <= _FLOAT_BYTES
    wrapped = with_peft(base, adapter, torch.float32 if small else kind)
    wrapped.merge_and_unload().to(kind).save_pretrained(out)


def _copy_tokenizer(base: Path, adapter: Path, out: Path) -> None:
    """Copy the adapter's tokenizer if it has one, else the base's.

    A tokenizer of the adapter that has no chat template gets the base's.
    """
    own = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for file in (file for pattern in _TOKENIZER for file in own.glob(pattern)):
        shutil.copyfile(file, out / file.name)
    if own is base:
        return
    config = json.loads((own / "tokenizer_config.json").read_text(encoding="utf8"))
    if not config.get("chat_template") and not list(out.glob("chat_template*")):
        template = load_tokenizer(str(base)).chat_template
        (out / "chat_template.jinja").write_text(str(template), encoding="utf8")
