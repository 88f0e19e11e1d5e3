"""An adapter merged into its base, tensor by tensor: neither is ever in memory as a whole.

Each base tensor is read through a memory map, `scale · B A` is added in fp32, and the result is
cast and put into the shard being written. Peak memory is two shards and one layer, whatever the
model's size. LoRA on linear layers and embeddings, and whole replaced modules, are merged here;
other kinds of adapters go through PEFT, which needs the whole model in memory.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.adapters import first_line, fitting
from empo_demo.engine.device import is_out_of_memory
from empo_demo.engine.plan import obstacle_to_merge, read_config, whole_module
from empo_demo.engine.shapes import named
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 500_000_000
_ROWS = 1024
"""Rows of a weight that are merged at a time: bounds the fp32 copies."""
_PREFIX = "base_model.model."
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEAD = "lm_head.weight"
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
              "*.model", "chat_template*")  # fmt: skip
Report = Callable[[int, int], None]
"""Called with (bytes written, bytes in all)."""


def merge(
    base: Path, adapter: Path, out: Path, *, shard_bytes: int = SHARD_BYTES,
    report: Report | None = None,
) -> None:  # fmt: skip
    """Write the model in `base` with the adapter in `adapter` to `out`, in bf16 safetensors.

    Where the adapter brings more rows of embeddings than the base has, the base's other
    embeddings get the mean row for each new token. Raises `EngineError` where the two do not
    fit, and where the disk or the memory is full.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        if obstacle_to_merge(read_config(adapter)):
            _merge_with_peft(base, adapter, out)
        else:
            _Merge(base, adapter, out, shard_bytes, report or _silent).run()
        _copy_tokenizer(base, adapter, out)
    except EngineError:
        raise
    except Exception as error:
        raise _sentence(error, adapter, out) from None


def _sentence(error: Exception, adapter: Path, out: Path) -> EngineError:
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


@dataclass(slots=True)
class Tensors:
    """Tensors of several safetensors files by name; each is read alone, from a fresh map.

    A map is closed after each read, so that the pages of what was read leave the memory.
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
                    for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                        where[name] = file
                        shapes[name] = tuple(tensors.get_slice(name).get_shape())
            except Exception as error:
                raise EngineError(f"The file {file} cannot be read: {first_line(error)}") from None
        return cls(where, shapes)

    def read(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
            return tensor


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf8"))["weight_map"].values()
        return [folder / name for name in dict.fromkeys(named)]
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if not found:
        raise EngineError(
            f"{folder} holds no safetensors weights; save the model with save_pretrained first."
        )
    return found


@dataclass(slots=True)
class Parts:
    """An adapter's tensors, sorted: A and B by module, and whole weights by name."""

    a: dict[str, str] = field(default_factory=dict)
    b: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Mapping[str, Path]) -> Parts:
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
                # PEFT may save what a whole module replaced beside it.
                parts.replaced[whole_module(stem)] = name
        return parts


def scale_of(module: str, config: Mapping[str, Any], rank: int) -> float:
    """The factor of `B A` as PEFT computes it: alpha / r, with rsLoRA alpha / sqrt(r)."""
    alpha = float(_pattern(config.get("alpha_pattern"), module) or config.get("lora_alpha") or rank)
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(patterns: Any, module: str) -> Any:
    """PEFT's own rule: a pattern names a module by its whole path or by its end."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return None


class _Merge:
    """One merge; its state is what all tensors of the model must agree on."""

    def __init__(self, base: Path, folder: Path, out: Path, shard: int, report: Report) -> None:
        self.folder, self.out, self.shard, self.report = folder, out, shard, report
        self.base_name = base.name
        self.config = read_config(folder)
        self.model_config = json.loads((base / "config.json").read_text(encoding="utf8"))
        self.source = base
        self.base = Tensors.of(weight_files(base))
        self.adapter = Tensors.of(sorted(folder.glob("adapter_model*.safetensors")))
        with fitting(folder, str(base)):
            self.parts = Parts.of(self.adapter.files)
            self.modules = self._modules()
            self._check_complete()
        self.embedding = next((n for n in self.base.files if n.endswith(_EMBEDDINGS)), None)
        self.rows = self._vocabulary()

    def run(self) -> None:
        names = dict.fromkeys(self.base.files)
        if self._untied():
            names[_HEAD] = None
            self.model_config["tie_word_embeddings"] = False
        writer = _Shards(self.out, self.shard, self._bytes(names), self.report)
        for name in names:
            writer.add(name, self._tensor(name))
        writer.close()
        self._write_config()

    def _modules(self) -> dict[str, str]:
        """Module of the adapter to weight of the base. Raises where the base has none."""
        replaced = {self._in_base(name): key for name, key in self.parts.replaced.items()}
        self.parts.replaced = replaced
        return {m: self._in_base(f"{m}.weight") for m in {**self.parts.a, **self.parts.b}}

    def _in_base(self, name: str) -> str:
        """The base's name of a weight: some checkpoints leave the model's prefix out."""
        short = name.partition(".")[2]
        if name in self.base.files or name == _HEAD:
            return name
        if short in self.base.files:
            return short
        raise ValueError(f"the base has no weight {name}.")

    def _check_complete(self) -> None:
        """Every layer that the configuration names must have both its A and its B."""
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
        """Rows that embeddings and head must have; None where the adapter replaces neither."""
        rows = [
            self.adapter.shapes[key][0]
            for name, key in self.parts.replaced.items()
            if name == _HEAD or name.endswith(_EMBEDDINGS)
        ]
        return max(rows) if rows else None

    def _untied(self) -> bool:
        """Whether a head that the base shares with its embeddings becomes one of its own.

        PEFT trains one of the two apart from the other, unless it was told to keep them tied.
        """
        if _HEAD in self.base.files or self.config.get("ensure_weight_tying"):
            return False
        changed = {*self.parts.replaced, *self.modules.values()}
        return _HEAD in changed or self.embedding in changed

    def _tensor(self, name: str) -> torch.Tensor:
        import torch

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
            with fitting(self.folder, self.base_name):
                return self._with_lora(tensor, module)
        # A copy: the map of the file is to be closed.
        return tensor.to(torch.bfloat16, copy=True).contiguous()

    def _with_lora(self, weight: torch.Tensor, module: str) -> torch.Tensor:
        import torch

        a, b = (self.adapter.read(part[module]) for part in (self.parts.a, self.parts.b))
        scale = scale_of(module, self.config, a.shape[0])
        embedding = "lora_embedding" in self.parts.a[module]
        # `W + scale * left @ right`, whatever the orientation of the layer.
        left, right = (a.T, b.T) if embedding or self.config.get("fan_in_fan_out") else (b, a)
        if tuple(weight.shape) != (left.shape[0], right.shape[1]):
            raise ValueError(
                f"the layer {module} is {tuple(weight.shape)} in the base and "
                f"{(left.shape[0], right.shape[1])} in the adapter."
            )
        merged = torch.empty(weight.shape, dtype=torch.bfloat16)
        right = right.float()
        for start in range(0, len(weight), _ROWS):
            rows = slice(start, start + _ROWS)
            merged[rows] = torch.addmm(weight[rows].float(), left[rows].float(), right, alpha=scale)
        return merged

    def _bytes(self, names: Mapping[str, None]) -> int:
        shapes = {_HEAD: self.base.shapes.get(self.embedding or "", ()), **self.base.shapes}
        return 2 * sum(math.prod(shapes[name]) for name in names)

    def _write_config(self) -> None:
        config = self.model_config
        if self.rows is not None:
            for table in (config, config.get("text_config")):
                if isinstance(table, dict) and "vocab_size" in table:
                    table["vocab_size"] = self.rows
        config["dtype"] = "bfloat16"
        config.pop("torch_dtype", None)
        (self.out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf8")
        generation = self.source / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, self.out / generation.name)


@dataclass(slots=True)
class _Shards:
    """Writes tensors to numbered files of at most `limit` bytes (or one tensor)."""

    folder: Path
    limit: int
    total: int
    report: Report
    where: dict[str, str] = field(default_factory=dict)
    written: int = 0
    _open: dict[str, torch.Tensor] = field(default_factory=dict)
    _size: int = 0
    _count: int = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._open and self._size + size > self.limit:
            self._flush()
        self._open[name], self._size = tensor, self._size + size

    def close(self) -> None:
        self._flush()
        index = {"metadata": {"total_size": self.written}, "weight_map": self.where}
        path = self.folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index), encoding="utf8")

    def _flush(self) -> None:
        from safetensors.torch import save_file

        self._count += 1
        file = f"model-{self._count:05}.safetensors"
        save_file(self._open, self.folder / file, metadata={"format": "pt"})
        self.where |= dict.fromkeys(self._open, file)
        self.written += self._size
        self._open, self._size = {}, 0
        self.report(self.written, self.total)


def _padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """`tensor` with the mean row for each missing row; the mean changes no other probability much.

    transformers' `mean_resizing` also draws from the rows' covariance, which takes minutes.
    """
    import torch

    if len(tensor) >= rows:
        return tensor
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    return torch.cat([tensor, mean.expand(rows - len(tensor), -1)])


def _merge_with_peft(base: Path, adapter: Path, out: Path) -> None:
    """For kinds of adapters that are more than `B A`: the whole model in memory, on the CPU."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tensors = Tensors.of(sorted(adapter.glob("adapter_model*.safetensors")))
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    rows = [s[0] for n, s in tensors.shapes.items() if "embed_tokens" in n and "lora_" not in n]
    if rows and rows[0] != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows[0], mean_resizing=False)
    with fitting(adapter, str(base)):
        wrapped = PeftModel.from_pretrained(
            model, str(adapter), autocast_adapter_dtype=False, torch_device="cpu"
        )
    wrapped.merge_and_unload().save_pretrained(out)


def _copy_tokenizer(base: Path, adapter: Path, out: Path) -> None:
    """The adapter's tokenizer where it has one, else the base's; the base's template if need be."""
    own = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for file in _matching(own, _TOKENIZER):
        shutil.copyfile(file, out / file.name)
    if own is base:
        return
    config = json.loads((own / "tokenizer_config.json").read_text(encoding="utf8"))
    if not config.get("chat_template") and not list(out.glob("chat_template*")):
        from empo_demo.engine.loading import load_tokenizer

        template = load_tokenizer(str(base)).chat_template
        (out / "chat_template.jinja").write_text(str(template), encoding="utf8")


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.is_file() and any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns):
            yield file


def _silent(_done: int, _total: int) -> None:
    """No report is wanted."""
