"""Checks PEFT adapters and attaches them to a base. What does not fit raises an `EngineError`."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.device import is_out_of_memory
from empo_demo.engine.protocol import Source
from empo_demo.engine.weights.adapter_plan import read_config
from empo_demo.engine.weights.downloads import adapter_here
from empo_demo.errors import EngineError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def is_whole_model(folder: Path) -> bool:
    """Whether a folder that was given as an adapter holds a whole model."""
    return not (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file()


@dataclass(frozen=True, slots=True)
class Written:
    """A contender that generates its replies: its id and its weights."""

    id: str
    base: str
    adapter: str | None


def written_by(source: Source) -> Written:
    """The weights of `source`. An "adapter" that is a whole model replaces the base."""
    if source.adapter is None:
        return Written(source.id, source.base, None)
    folder = adapter_here(source.adapter)
    if folder is not None and is_whole_model(folder):
        return Written(source.id, str(folder), None)
    return Written(source.id, source.base, source.adapter)


def attach(
    model: PreTrainedModel,
    folders: dict[str, Path],
    after: Callable[[Any, str], None] = lambda _wrapped, _name: None,
) -> Any:
    """Load the adapters in `folders` (name to folder) onto `model`, with PEFT.

    They keep their own type and go to the model's device. `after` is called with PEFT's model and
    the name of each adapter that was just loaded.
    """
    from peft import PeftModel

    wrapped: Any = None
    # By default, PEFT loads onto the first GPU that it finds.
    where: dict[str, Any] = {"torch_device": str(model.device), "autocast_adapter_dtype": False}
    for name, folder in folders.items():
        with fitting(folder, str(model.name_or_path)):
            if wrapped is None:
                wrapped = PeftModel.from_pretrained(model, str(folder), adapter_name=name, **where)
            else:
                result = wrapped.load_adapter(str(folder), adapter_name=name, **where)
                if result.missing_keys:
                    raise ValueError(f"it lacks weights for {result.missing_keys[0]}")
        after(wrapped.eval(), name)
    return wrapped.eval()


def release(wrapped: Any) -> None:
    """Remove PEFT's LoRA weights from memory. The layers have their own copies of them by now."""
    from peft.tuners.lora import LoraLayer

    for layer in wrapped.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_A.clear()
            layer.lora_B.clear()


def check_base(folder: Path, base: str, *, force: bool = False) -> None:
    """Refuse an adapter whose configuration names another base than `base`, unless `force`.

    Only the last parts of the names are compared, because the same model may be in a folder or on
    the Hub.
    """
    trained_on = str(read_config(folder).get("base_model_name_or_path") or "")
    if force or not trained_on or is_named(base, trained_on):
        return
    raise EngineError(
        f"The adapter {folder} was trained on {trained_on}, not on {base}. Give the base that it "
        "was trained on; if this is the same model under another name, set EMPO_FORCE_ADAPTER=1 "
        "(--force-adapter)."
    )


def check_kind(folder: Path) -> None:
    """Refuse an adapter that is not a LoRA and that PEFT cannot merge: it changes the prompt."""
    kind = str(read_config(folder).get("peft_type") or "LORA")
    if kind == "LORA":
        return
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as TUNERS

    known = {str(one.value): tuner for one, tuner in TUNERS.items()}
    if kind not in known:
        raise EngineError(
            f"The adapter {folder} is of the kind {kind}, which this version of PEFT does not "
            "know; update PEFT, or merge the adapter where it was trained."
        )
    if not hasattr(known[kind], "merge_and_unload"):
        raise EngineError(
            f"The adapter {folder} is of the kind {kind}, which adds to the prompt or between the "
            "layers instead of changing weights, and that cannot be served here; train a LoRA, "
            "or serve it elsewhere and give that server as EMPO_ENGINE."
        )


def is_named(base: str, name: str) -> bool:
    """Whether `base` is the model `name`, by the last part of its name, or by its configuration."""
    return _last_part(name) in _names_of(base)


def _names_of(base: str) -> set[str]:
    """The possible names of `base`: its own name, and the name in its configuration."""
    names = {_last_part(base)}
    try:
        config = json.loads((Path(base).expanduser() / "config.json").read_text(encoding="utf8"))
        names.add(_last_part(str(config.get("_name_or_path") or base)))
    except (OSError, ValueError):
        pass
    return names


def _last_part(name: str) -> str:
    r"""The last part: `owner/Model`, `/a/Model/`, `C:\a\Model` and the Hub's cache give `model`."""
    name = name.replace("\\", "/").rstrip("/")
    cached = re.search(r"models--[^/]*?--([^/]+)/snapshots/", f"{name}/")
    return (cached[1] if cached else name.rpartition("/")[2]).lower()


def check_tokens(adapter: Path, tokenizer: PreTrainedTokenizerBase, *, force: bool) -> None:
    """Refuse an adapter whose tokenizer gives other ids to the tokens of its base.

    Additional tokens are allowed: the arena uses only the tokenizer of the base.
    """
    if force or not (adapter / "tokenizer_config.json").is_file():
        return
    from transformers import AutoTokenizer

    try:
        own = AutoTokenizer.from_pretrained(adapter).get_vocab()
    except (OSError, ValueError) as error:
        log.warning("The tokenizer beside %s cannot be read: %s", adapter, first_line(error))
        return
    known = tokenizer.get_vocab()
    other = next((t for t, number in own.items() if known.get(t, number) != number), None)
    if other is not None:
        raise EngineError(
            f"The adapter {adapter} was saved with another tokenizer than its base's: the token "
            f"{other!r} is {own[other]} there and {known[other]} here. Give the adapter that was "
            "trained on this base, or set EMPO_FORCE_ADAPTER=1 (--force-adapter) to use the "
            "base's tokenizer."
        )


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with token ids that have no row in the model's embeddings."""
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    if max(tokenizer.get_vocab().values(), default=0) >= rows:
        raise EngineError(
            f"The tokenizer of {tokenizer.name_or_path} has tokens beyond the model's {rows} "
            "embeddings; give the model that it was made for, or resize the embeddings."
        )


@contextmanager
def fitting(folder: Path, base: str) -> Iterator[None]:
    """Turn PEFT's errors, and its warning of missing weights, into one `EngineError`."""
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
        # PEFT only warns of missing weights and would use random ones.
        for warning in heard:
            if "missing adapter keys" in str(warning.message):
                raise ValueError("it lacks weights for some of its layers")
    except (
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as error:
        if is_out_of_memory(error):
            raise EngineError(
                f"The memory is full while loading the adapter {folder}: {first_line(error)} "
                "Use EMPO_QUANTIZATION=nf4, EMPO_ADAPTER_PLAN=merged, or fewer contenders."
            ) from None
        reason = _shapes(str(error)) or first_line(error)
        raise EngineError(
            f"The adapter {folder} does not fit the base model {base}: {reason} "
            "Give the adapter that was trained on this base."
        ) from None


def _shapes(message: str) -> str | None:
    """The first line of PyTorch's list of size mismatches."""
    lines = [line.strip() for line in message.split("\n") if "size mismatch" in line]
    return f"{lines[0][:300].rstrip('.')}." if lines else None
