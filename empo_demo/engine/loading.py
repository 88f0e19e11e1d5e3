"""From a roster to a running engine: base, adapters, quantisation, placement.

Everything that can be wrong with a model path, an adapter or the device is found here, at start,
and is one `EngineError` that says what to do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.adapters import (
    Written,
    adapter_folder,
    attach,
    check_base,
    check_tokens,
    check_vocabulary,
    first_line,
    model_folder,
    release,
    written_by,
)
from empo_demo.engine.copies import MergedCopy
from empo_demo.engine.device import half_type, is_out_of_memory
from empo_demo.engine.lease import LeasedEngine, on_zero_gpu, place
from empo_demo.engine.plan import Override, Plan, choose, read_shape, size
from empo_demo.engine.protocol import Engine, Lineup, Source
from empo_demo.engine.shapes import context_of, model_shape
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


def _load_written(settings: Settings, lineup: Lineup, written: Sequence[Source]) -> Engine:
    """The engine of the contenders that write: a server's, or this machine's."""
    if settings.engine != "local":
        from empo_demo.engine.remote import RemoteEngine

        return RemoteEngine(settings.engine, written)
    from empo_demo.engine.budget import check, free_memory, plan_of, table
    from empo_demo.engine.local import LocalEngine

    replan = partial(plan_of, settings, lineup, written)
    budget = replan()
    free = free_memory(budget.device)
    log.info("The plan of what is loaded:\n%s", table(budget, free))
    check(budget, free, replan)
    loader = Loader(
        budget.device, lineup.quantization, settings.adapter_plan,
        force_adapter=settings.force_adapter,
    )  # fmt: skip
    copies = loader.load(written)
    kv_bytes = None
    if free.device is not None and budget.device.startswith("cuda"):
        kv_bytes = budget.kv_bytes(free.device)
        loader.notes["KV cache"] = size(kv_bytes)
    rounds = settings.max_concurrent_rounds
    engine = LocalEngine(copies, loader.notes, max_rounds=rounds, kv_bytes=kv_bytes)
    return LeasedEngine(engine, copies) if on_zero_gpu() else engine


@dataclass
class Loader:
    """Loads each base once and each adapter by the cheaper plan; keeps notes of its choices."""

    device: str
    quantization: Quantization
    override: Override = "auto"
    force_adapter: bool = False

    def __post_init__(self) -> None:
        from transformers.utils import logging as transformers_logging

        self.notes: dict[str, str] = {"device": self.device, "quantisation": self.quantization}
        self.dtype = half_type(self.device)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # bitsandbytes asks for an optional package on some CPUs and falls back by itself.
        for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def load(self, contenders: Sequence[Source]) -> list[Weights]:
        """One `Weights` per copy; every contender is served by exactly one of them."""
        copies: list[Weights] = []
        written = [written_by(c) for c in contenders if not c.predictions]
        for base in dict.fromkeys(c.base for c in written):
            copies += self._load_group(base, [c for c in written if c.base == base])
        return copies

    def merged_copy(self, base: str, adapter: str) -> MergedCopy:
        """The kept copy of base and adapter, made or not. Fetches both from the Hub."""
        return MergedCopy(
            model_folder(base), adapter_folder(adapter), self.quantization, self.dtype
        )

    def merged_adapters(self, written: Sequence[Written]) -> list[tuple[str, str]]:
        """(base, adapter) of those that are merged into copies of their own."""
        pairs = dict.fromkeys((w.base, w.adapter) for w in written if w.adapter)
        return [(b, a) for b, a in pairs if a and self._plan(b, a, written) == "merged"]

    def _load_group(self, base: str, group: list[Written]) -> list[Weights]:
        """The base with the adapters that share it, if anyone needs it, and the merged copies."""
        check_model(base)
        merged = [adapter for _, adapter in self.merged_adapters(group)]
        sharing = [one for one in group if one.adapter not in merged]
        copies = []
        if sharing:
            copies.append(self._shared(base, sharing))
        for adapter in merged:
            users = [one.id for one in group if one.adapter == adapter]
            copies.append(self._merged(base, adapter, users))
        return copies

    def _plan(self, base: str, adapter: str, written: Sequence[Written]) -> Plan:
        """Shared or merged; raises on an adapter of another base."""
        folder = adapter_folder(adapter)
        check_base(folder, base, force=self.force_adapter)
        merged = model_shape(base).held(self.quantization)
        choice = choose(read_shape(folder), merged, self.quantization, self.override)
        user = next(one.id for one in written if one.adapter == adapter)
        self.notes[f"adapter {user}"] = f"{choice.plan}: {choice.reason}"
        log.info("Adapter %s: %s, because %s", adapter, choice.plan, choice.reason)
        return choice.plan

    def _shared(self, base: str, users: list[Written]) -> Weights:
        from empo_demo.engine.lora import install

        adapters = dict.fromkeys(one.adapter for one in users if one.adapter)
        names = {adapter: f"a{i}" for i, adapter in enumerate(adapters)}
        model, tokenizer = self.model(base), load_tokenizer(base)
        rows = None
        if names:
            folders = {name: adapter_folder(adapter) for adapter, name in names.items()}
            for folder in folders.values():
                check_tokens(folder, tokenizer, force=self.force_adapter)
            wrapped = attach(model, folders)
            place(model, self.device)
            rows = install(wrapped)
            release(wrapped)
        place(model, self.device)
        served = {one.id: names.get(one.adapter or "") for one in users}
        return weights_of(model, tokenizer, served, rows)

    def _merged(self, base: str, adapter: str, users: list[str]) -> Weights:
        """The adapter merged into 16-bit weights, which are then quantised as a model."""
        folder = self.merged_copy(base, adapter).make(self.model)
        model = self.model(str(folder))
        place(model, self.device)
        return weights_of(model, load_tokenizer(str(folder)), dict.fromkeys(users), None)

    def model(self, name: str) -> PreTrainedModel:
        """The model `name`, quantised and placed; one that was saved quantised stays as it is."""
        import torch
        from transformers import AutoModelForCausalLM

        from empo_demo.engine.attention import speed_up

        options: dict[str, Any] = {
            "dtype": getattr(torch, self.dtype),
            "device_map": "cpu" if on_zero_gpu() else self.device,
        }
        if not _is_quantised(Path(name)):
            options |= self._quantised()
        try:
            model = AutoModelForCausalLM.from_pretrained(name, **options)
        except Exception as error:
            # Libraries have many kinds of errors for what is wrong with the files.
            log.debug("Loading failed", exc_info=True)
            if is_out_of_memory(error):
                place = (
                    "this machine's memory" if self.device == "cpu" else f"{self.device}'s memory"
                )
                raise EngineError(
                    f"The model {name} does not fit into the memory of {place}; use "
                    "EMPO_QUANTIZATION=nf4, a smaller model, fewer contenders, or a larger machine."
                ) from None
            raise EngineError(f"The model {name} cannot be loaded: {first_line(error)}") from None
        speed_up(model)
        return model.eval()  # type: ignore[no-any-return,no-untyped-call]

    def _quantised(self) -> dict[str, Any]:
        import torch
        from transformers import BitsAndBytesConfig

        if self.quantization == "nf4":
            config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=getattr(torch, self.dtype),
            )
        elif self.quantization == "int8":
            config = BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        else:
            return {}
        return {"quantization_config": config}


def _is_quantised(folder: Path) -> bool:
    try:
        return "quantization_config" in json.loads((folder / "config.json").read_text("utf8"))
    except (OSError, ValueError):
        return False


def weights_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contenders: dict[str, str | None],
    rows: Any,
) -> Weights:
    """The loaded copy with what decoding needs to know of it."""
    from empo_demo.engine.chat import opening_tags
    from empo_demo.engine.weights import Weights

    check_vocabulary(model, tokenizer)
    config = model.generation_config
    ends = config.eos_token_id if config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    # A role tag or padding written by the model ends its turn, as the end-of-sequence token does.
    every = {*listed, tokenizer.eos_token_id, *tokenizer.all_special_ids}
    context = context_of(model.config)
    if getattr(model.config, "layer_types", None) is None:
        # Within its window, sliding attention is plain attention.
        model.config.sliding_window = None
    small = model.device.type == "cpu" and model.num_parameters() < SMALL
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
