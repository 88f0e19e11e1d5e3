"""From a roster to a running engine: base, adapters, quantisation, placement.

Everything that can be wrong with a model path, an adapter or the device is found here, at start,
and is one `EngineError` that says what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.adapters import adapter_folder, attach, first_line, is_whole_model, merge
from empo_demo.engine.lease import LeasedEngine, on_zero_gpu, place
from empo_demo.engine.protocol import Engine, Lineup, Source
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from empo_demo.engine.weights import Weights

log = logging.getLogger(__name__)
SMALL = 100_000_000
"""Weights up to which one thread decodes fastest: at some 50 microseconds a layer, threads spend
their time waiting for each other, and on a busy machine a hundred times that."""


def load_engine(settings: Settings, roster: Lineup) -> Engine:
    """The engine that `EMPO_ENGINE` names: local models, a server, or a file of replies.

    Contenders whose replies are recorded are served from their file whatever the others use.
    """
    from empo_demo.engine.recorded import RecordedEngine, is_recording

    recorded = [c for c in roster.contenders if c.predictions]
    written = tuple(c for c in roster.contenders if not c.predictions)
    if not written or is_recording(settings.engine):
        return RecordedEngine(recorded)
    engine = _load_written(settings, roster, written)
    if not recorded:
        return engine
    from empo_demo.engine.routing import RoutingEngine

    file: Engine = RecordedEngine(recorded)
    return RoutingEngine({c.id: engine for c in written} | {c.id: file for c in recorded})


def _load_written(settings: Settings, roster: Lineup, written: tuple[Source, ...]) -> Engine:
    """The engine of the contenders that write: a server's, or this machine's."""
    if settings.engine != "local":
        from empo_demo.engine.remote import RemoteEngine

        return RemoteEngine(settings.engine, written)
    from empo_demo.engine.local import LocalEngine

    device = pick_device(settings.device, roster.quantization)
    loader = Loader(device, roster.quantization, settings.adapter_plan)
    copies = loader.load(written)
    engine = LocalEngine(copies, loader.notes, max_rounds=settings.max_concurrent_rounds)
    return LeasedEngine(engine, copies) if on_zero_gpu() else engine


def pick_device(wanted: str, quantization: Quantization = "none") -> str:
    """`auto` is cuda where it is there, else cpu. Raises `EngineError` on what is not there."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EngineError("EMPO_DEVICE asks for cuda, but there is no CUDA device; use cpu.")
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise EngineError(f"EMPO_DEVICE asks for {wanted}, but there are {there} CUDA devices.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise EngineError("EMPO_DEVICE asks for mps, but this machine has none; use cpu.")
    if kind == "mps" and quantization != "none":
        raise EngineError(
            f"bitsandbytes cannot hold {quantization} weights on mps; "
            "set EMPO_QUANTIZATION=none or EMPO_DEVICE=cpu."
        )
    return wanted


@dataclass
class Loader:
    """Loads each base once and each adapter by the cheaper plan; keeps notes of its choices."""

    device: str
    quantization: Quantization
    override: Any = "auto"

    def __post_init__(self) -> None:
        from transformers.utils import logging as transformers_logging

        self.notes: dict[str, str] = {"device": self.device, "quantisation": self.quantization}
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # bitsandbytes asks for an optional package on some CPUs and falls back by itself.
        for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def load(self, contenders: Sequence[Source]) -> list[Weights]:
        """One `Weights` per copy; every contender is served by exactly one of them."""
        copies: list[Weights] = []
        written = [_written(c) for c in contenders if not c.predictions]
        for base in dict.fromkeys(c.base for c in written):
            group = [c for c in written if c.base == base]
            copies += self._load_group(base, group)
        return copies

    def _load_group(self, base: str, group: list[_Written]) -> list[Weights]:
        from empo_demo.engine.plan import choose, read_shape

        check_model(base)
        model, tokenizer = self.model(base), load_tokenizer(base)
        shared: dict[str, Path] = {}
        merged: list[_Written] = []
        size = parameter_count(model)
        for adapter in dict.fromkeys(c.adapter for c in group if c.adapter):
            folder = adapter_folder(adapter)
            choice = choose(read_shape(folder), size, self.quantization, self.override)
            users = [c for c in group if c.adapter == adapter]
            self.notes[f"adapter {users[0].id}"] = f"{choice.plan}: {choice.reason}"
            log.info("Adapter %s: %s, because %s", adapter, choice.plan, choice.reason)
            if choice.plan == "shared":
                shared[adapter] = folder
            else:
                merged += users
        names = {adapter: f"a{i}" for i, adapter in enumerate(shared)}
        rest = {c.id: names.get(c.adapter or "") for c in group if c not in merged}
        copies = []
        if rest:
            copies.append(self._shared(model, tokenizer, rest, shared, names))
        for adapter in dict.fromkeys(c.adapter for c in merged if c.adapter):
            users = [c for c in merged if c.adapter == adapter]
            copies.append(self._merged(base, adapter, users))
        return copies

    def _shared(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        contenders: dict[str, str | None],
        folders: dict[str, Path],
        names: dict[str, str],
    ) -> Weights:
        from empo_demo.engine.lora import install

        rows = None
        if folders:
            wrapped = attach(model, {names[a]: folder for a, folder in folders.items()})
            place(model, self.device)
            rows = install(wrapped)
        place(model, self.device)
        return weights_of(model, tokenizer, contenders, rows)

    def _merged(self, base: str, adapter: str, users: list[_Written]) -> Weights:
        """The adapter merged into 16-bit weights, which are then quantised as a model."""
        import tempfile

        folder = adapter_folder(adapter)
        with tempfile.TemporaryDirectory(prefix="empo-merged-") as scratch:
            merge(base, folder, Path(scratch))
            model = self.model(scratch)
        own = folder if (folder / "tokenizer_config.json").is_file() else None
        tokenizer = load_tokenizer(str(own) if own else base)
        place(model, self.device)
        return weights_of(model, tokenizer, {user.id: None for user in users}, None)

    def model(self, name: str) -> PreTrainedModel:
        """The model `name`, quantised and placed."""
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        from empo_demo.engine.attention import speed_up

        options: dict[str, Any] = {
            "dtype": torch.bfloat16,
            "device_map": "cpu" if on_zero_gpu() else self.device,
        }
        if self.quantization == "nf4":
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=torch.bfloat16,
            )
        elif self.quantization == "int8":
            options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        try:
            model = AutoModelForCausalLM.from_pretrained(name, **options)
        except torch.OutOfMemoryError:
            raise EngineError(
                f"The model {name} does not fit into the memory of {self.device}; "
                "use EMPO_QUANTIZATION=nf4, a smaller model, or a larger GPU."
            ) from None
        except MemoryError:
            raise EngineError(
                f"The model {name} does not fit into this machine's memory; "
                "use EMPO_QUANTIZATION=nf4 or a smaller model."
            ) from None
        except Exception as error:
            # Whatever a library finds wrong with the files: it has many kinds of errors for that.
            log.debug("Loading failed", exc_info=True)
            raise EngineError(f"The model {name} cannot be loaded: {first_line(error)}") from None
        speed_up(model)
        return model.eval()  # type: ignore[no-any-return,no-untyped-call]


def weights_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contenders: dict[str, str | None],
    rows: Any,
) -> Weights:
    """The loaded copy with what decoding needs to know of it."""
    from empo_demo.engine.chat import opening_tags
    from empo_demo.engine.weights import Weights

    config = model.generation_config
    ends = config.eos_token_id if config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    # A role tag or padding written by the model ends its turn, as the end-of-sequence token does.
    every = {*listed, tokenizer.eos_token_id, *tokenizer.all_special_ids}
    context = _context(model)
    small = model.device.type == "cpu" and parameter_count(model) < SMALL
    return Weights(
        model=model,
        tokenizer=tokenizer,
        adapters=contenders,
        rows=rows,
        ends=frozenset(int(token) for token in every if token is not None),
        context=context,
        trained=min(context, int(tokenizer.model_max_length)),
        stops=opening_tags(tokenizer),
        hybrid=getattr(model.config, "layer_types", None) is not None,
        threads=1 if small else 0,
    )


def _context(model: PreTrainedModel) -> int:
    """The longest prompt and reply together.

    Never longer than a sliding window, within which sliding attention is plain attention: so one
    kind of cache and mask serves all layers.
    """
    config = model.config
    longest = int(getattr(config, "max_position_embeddings", None) or 4096)
    window = getattr(config, "sliding_window", None)
    if not window:
        return longest
    if getattr(config, "layer_types", None) is None:
        config.sliding_window = None
    return min(longest, int(window))


@dataclass(frozen=True, slots=True)
class _Written:
    """Whose replies are written here: its id, and its weights."""

    id: str
    base: str
    adapter: str | None


def _written(source: Source) -> _Written:
    """`source`, with an "adapter" that is a model of its own in the place of its base."""
    if source.adapter is None:
        return _Written(source.id, source.base, None)
    folder = adapter_folder(source.adapter)
    if is_whole_model(folder):
        return _Written(source.id, str(folder), None)
    return _Written(source.id, source.base, source.adapter)


def check_model(name: str) -> None:
    """A name that looks like a path must be one."""
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


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"The tokenizer of {name} cannot be loaded: {first_line(error)}"
        ) from None
    if tokenizer.chat_template is None:
        raise EngineError(
            f"The tokenizer of {name} has no chat template; use a chat model, or save a template."
        )
    return tokenizer


def parameter_count(model: PreTrainedModel) -> int:
    """Weights of the model as it would be unquantised (4-bit tensors hold two in a byte)."""
    return int(model.num_parameters())
