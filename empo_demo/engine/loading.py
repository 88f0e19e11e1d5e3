"""Loads a roster into a running engine: base, adapters, quantisation, placement.

It checks model paths, adapters and the device at start. Each fault is one `EngineError` that says
what to do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.assembly.copies import MergedCopy
from empo_demo.engine.assembly.kept_trials import words
from empo_demo.engine.assembly.served_copy import Assembly, set_apart
from empo_demo.engine.device import half_type, is_out_of_memory, on_zero_gpu
from empo_demo.engine.lease import LeasedEngine
from empo_demo.engine.protocol import Engine, Lineup, Source
from empo_demo.engine.weights.adapter_plan import Override, Plan, choose, read_shape, size
from empo_demo.engine.weights.adapters import Written, check_base, check_kind, written_by
from empo_demo.engine.weights.downloads import (
    adapter_folder,
    adapter_here,
    model_download,
    model_folder,
    model_here,
)
from empo_demo.engine.weights.shapes import model_shape
from empo_demo.errors import EngineError, first_line
from empo_demo.settings import Quantization, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)


def load_engine(settings: Settings, roster: Lineup) -> Engine:
    """The engine that `EMPO_ENGINE` names: local models, a server, or a file of replies.

    Contenders with recorded replies are always served from their file.
    """
    from empo_demo.engine.recorded import RecordedEngine, is_recording

    recorded = [c for c in roster.contenders if c.predictions]
    written = tuple(c for c in roster.contenders if not c.predictions)
    if not written or is_recording(settings.engine):
        return RecordedEngine(recorded)
    engine = _load_written(settings, roster, written)
    if not recorded:
        return engine
    from empo_demo.engine.servers.routing import RoutingEngine

    file: Engine = RecordedEngine(recorded)
    return RoutingEngine({c.id: engine for c in written} | {c.id: file for c in recorded})


def _load_written(settings: Settings, lineup: Lineup, written: Sequence[Source]) -> Engine:
    """The engine of the contenders that generate: a server, or models on this machine."""
    if settings.engine != "local":
        from empo_demo.engine.servers.remote import RemoteEngine

        return RemoteEngine(settings.engine, written)
    from empo_demo.engine.lockstep.local import LocalEngine
    from empo_demo.engine.planning.budget import plan_of
    from empo_demo.engine.planning.fits import check, free_memory, table
    from empo_demo.smollm2.obtain import provide

    provide({source.base for source in written})
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
    """Loads each base once and each adapter by the cheaper plan. `notes` says what it chose."""

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
        """One `Weights` per copy. Exactly one copy serves each contender."""
        copies: list[Weights] = []
        written = [written_by(c) for c in contenders if not c.predictions]
        for base in dict.fromkeys(c.base for c in written):
            copies += self._load_group(base, [c for c in written if c.base == base])
        return copies

    def trials(self, contenders: Sequence[Source]) -> dict[str, str]:
        """What the kept trials say of each contender, by id. Nothing is loaded or downloaded."""
        written = [written_by(c) for c in contenders if not c.predictions]
        found: dict[str, str] = {}
        for base in dict.fromkeys(one.base for one in written):
            group = [one for one in written if one.base == base]
            try:
                found |= self._trials(base, group)
            except EngineError as error:
                found |= {one.id: f"refused: {error}" for one in group}
        return found

    def _trials(self, base: str, group: list[Written]) -> dict[str, str]:
        names = dict.fromkeys(one.adapter for one in group if one.adapter)
        if model_here(base) is None or not all(adapter_here(adapter) for adapter in names):
            return {one.id: words([None]) for one in group}
        merged = [adapter for _, adapter in self.merged_adapters(group)]
        shared = self._assembly.tried(base, [a for a in names if a not in merged]).find()
        found = {}
        for one in group:
            verdicts = [] if one.adapter in merged else [shared]
            apart = shared is not None and set_apart(one.adapter, shared)
            if one.adapter is not None and (one.adapter in merged or apart):
                copy = self.merged_copy(base, one.adapter).find()
                verdicts.append(
                    None if copy is None else self._assembly.tried(str(copy), ()).find()
                )
            said = words(verdicts)
            found[one.id] = f"{said} (merged, because {apart})" if apart else said
        return found

    def merged_copy(self, base: str, adapter: str) -> MergedCopy:
        """The merged copy of base and adapter, which may exist or not. Downloads both."""
        return MergedCopy(
            model_folder(base), adapter_folder(adapter), self.quantization, self.dtype
        )

    def merged_adapters(self, written: Sequence[Written]) -> list[tuple[str, str]]:
        """(base, adapter) of each adapter that is merged into a copy of its own."""
        pairs = dict.fromkeys((w.base, w.adapter) for w in written if w.adapter)
        return [(b, a) for b, a in pairs if a and self._plan(b, a, written) == "merged"]

    def _load_group(self, base: str, group: list[Written]) -> list[Weights]:
        """The base with the adapters that share it, if a contender uses it, and merged copies."""
        check_model(base)
        merged = [adapter for _, adapter in self.merged_adapters(group)]
        sharing = [one for one in group if one.adapter not in merged]
        copies = []
        if sharing:
            weights, verdict = self._assembly.make(base, sharing)
            copies += [] if weights is None else [weights]
            self._note_trial(base, verdict.said)
            apart = {one.adapter: set_apart(one.adapter, verdict) for one in sharing}
            for adapter, reason in apart.items():
                if adapter is not None and reason is not None:
                    self._note_apart(adapter, reason, group)
                    merged.append(adapter)
        for adapter in merged:
            users = [one for one in group if one.adapter == adapter]
            copies.append(self._merged(base, adapter, users))
        return copies

    def _plan(self, base: str, adapter: str, written: Sequence[Written]) -> Plan:
        """Whether `adapter` is shared or merged. Raises if it belongs to another base."""
        folder = adapter_folder(adapter)
        check_kind(folder)
        check_base(folder, base, force=self.force_adapter)
        merged = model_shape(base).held(self.quantization)
        choice = choose(read_shape(folder), merged, self.quantization, self.override)
        user = next(one.id for one in written if one.adapter == adapter)
        self.notes[f"adapter {user}"] = f"{choice.plan}: {choice.reason}"
        log.info("Adapter %s: %s, because %s", adapter, choice.plan, choice.reason)
        return choice.plan

    def _note_apart(self, adapter: str, reason: str, group: list[Written]) -> None:
        """Say why an adapter that was to be shared is merged instead."""
        if self.override == "shared":
            raise EngineError(
                f"EMPO_ADAPTER_PLAN holds 'shared', but with the adapter {adapter}, {reason}; "
                "use 'merged' or 'auto'."
            )
        user = next(one.id for one in group if one.adapter == adapter)
        self.notes[f"adapter {user}"] = f"merged: {reason}"
        log.warning("The adapter %s is merged: %s", adapter, reason)

    def _note_trial(self, name: str, said: str) -> None:
        if said:
            self.notes[f"trial of {Path(name).name}"] = said

    def _merged(self, base: str, adapter: str, users: list[Written]) -> Weights:
        """Merge the adapter into the 16-bit weights, then load the result quantised."""
        copy = self.merged_copy(base, adapter)
        folder = str(copy.make(self.model))
        own = [Written(one.id, folder, None) for one in users]
        weights, verdict = self._assembly.make(folder, own, shown=adapter)
        left_out = "" if copy.compared else "the merge is too large to be compared with PEFT"
        self._note_trial(adapter, verdict.said or left_out)
        assert weights is not None, "a copy without adapters has all its users"
        return weights

    @property
    def _assembly(self) -> Assembly:
        return Assembly(self.model, self.device, self.quantization, self.dtype, self.force_adapter)

    def model(self, name: str) -> PreTrainedModel:
        """Load `name`, quantised, on the device. A model that was saved quantised is kept so."""
        import torch
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {
            "dtype": getattr(torch, self.dtype),
            "device_map": "cpu" if on_zero_gpu() else self.device,
        }
        if not _is_quantised(Path(name)):
            options |= self._quantised()
        if model_download(name):
            # transformers would download it too, but without a word about it.
            model_folder(name)
        try:
            model = AutoModelForCausalLM.from_pretrained(name, **options)
        except Exception as error:
            # The libraries raise many kinds of errors for faulty files.
            log.debug("Loading failed", exc_info=True)
            if is_out_of_memory(error):
                where = "this machine" if self.device == "cpu" else self.device
                raise EngineError(
                    f"The model {name} does not fit into the memory of {where}; use "
                    "EMPO_QUANTIZATION=nf4, a smaller model, fewer contenders, or a larger machine."
                ) from None
            raise EngineError(f"The model {name} cannot be loaded: {first_line(error)}") from None
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
        config = json.loads((folder / "config.json").read_text("utf8"))
    except (OSError, ValueError):
        return False
    # Some files hold `"quantization_config": null`.
    return bool(config.get("quantization_config"))


def check_model(name: str) -> None:
    """Raise if `name` looks like a path and is no model's folder, or is an adapter."""
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
