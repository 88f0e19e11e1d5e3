"""Makes one copy of the weights and lets it pass its trial before anything is served from it.

What does not hold is served in the next slower way: an adapter in a merged copy of its own, a model
by its own code instead of ours, one row at a time. A model that holds in no way is refused.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from empo_demo.engine.assembly.copies import Tried, Verdict
from empo_demo.engine.assembly.precision import held_in, kind_of, saved_quantised, spare_odd_layers
from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.lease import place
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.weights.adapters import (
    Written,
    attach,
    check_tokens,
    check_vocabulary,
    release,
)
from empo_demo.engine.weights.downloads import adapter_folder, model_folder
from empo_demo.engine.weights.shapes import model_shape
from empo_demo.errors import EngineError, first_line
from empo_demo.files import fingerprint
from empo_demo.settings import Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from empo_demo.engine.assembly.trial import Reference
    from empo_demo.engine.weights.model_weights import Way, Weights

log = logging.getLogger(__name__)
LEFT_OUT = "left out, because ZeroGPU has no GPU at the start"
_FUSED = 200_000_000
"""Up to this many weights, our own layers may serve a model: their packed weights take memory."""
_SLOWER = {
    "batch": "is computed by the model's own layers, because with ours ",
    "own": "answers one row at a time by the model's own code, because with ours ",
    "anew": "answers one row at a time and without a cache, because otherwise ",
}


class _Apart(Exception):
    """An adapter that may not share the base: (its name in the copy, why)."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """Makes copies on one device. `load` loads a model, quantised, on the device."""

    load: Callable[[str], PreTrainedModel]
    device: str
    quantization: Quantization
    dtype: str
    force_adapter: bool = False

    def tried(self, name: str, adapters: Sequence[str]) -> Tried:
        """What the verdict on `name` with the adapters that share it is kept under."""
        folders = tuple(adapter_folder(adapter) for adapter in adapters)
        return Tried(model_folder(name), folders, self.quantization, self.dtype, self.device)

    def make(
        self, name: str, users: Sequence[Written], shown: str = ""
    ) -> tuple[Weights | None, Verdict]:
        """The copy that serves `users`, but for the adapters that its verdict sets apart.

        None if no user is left. `shown` is the model's name in sentences. Raises `EngineError` if
        the model can be served in no way.
        """
        adapters = list(dict.fromkeys(member.adapter for member in users if member.adapter))
        tried = self.tried(name, adapters)
        kept = Verdict("batch", LEFT_OUT) if on_zero_gpu() else tried.find()
        verdict = kept or Verdict(self._fastest(name))
        tokenizer = load_tokenizer(name)
        while verdict.way is not None:
            staying = [member for member in users if not set_apart(member.adapter, verdict)]
            if not staying:
                break
            weights, found = None, verdict
            if kept is None:
                found = self._exactly(name, tokenizer, staying, verdict)
            if found == verdict:
                weights, found = self._once(name, tokenizer, staying, verdict, trial=kept is None)
            if found == verdict:
                break
            weights, verdict = None, found
            gc.collect()
        else:
            weights = None
        if weights is not None:
            held = held_in(weights.model, self.quantization)
            verdict = replace(verdict, held="" if held == self.quantization else held)
        if kept is None:
            tried.keep(verdict)
        if verdict.way is None:
            raise EngineError(
                f"The model {shown or name} cannot be served here: {verdict.said}. Serve it with "
                "another server (vLLM, llama.cpp, Ollama), and give that as EMPO_ENGINE."
            )
        return (weights if staying else None), verdict

    def _fastest(self, name: str) -> Way:
        """The fastest way that may hold for a model."""
        from empo_demo.engine.lockstep.own_passes import KINDS

        if self.device != "cpu" or self.quantization != "none":
            return "batch"
        folder = model_folder(name)
        if kind_of(folder) not in KINDS or saved_quantised(folder):
            return "batch"
        return "fused" if model_shape(name).weights <= _FUSED else "batch"

    def _once(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        users: Sequence[Written],
        verdict: Verdict,
        *,
        trial: bool,
    ) -> tuple[Weights | None, Verdict]:
        """The copy as `verdict` has it, and `verdict` again if the copy holds, else the next."""
        from empo_demo.engine.weights.lora import install
        from empo_demo.engine.weights.model_weights import weights_of

        adapters = list(dict.fromkeys(member.adapter for member in users if member.adapter))
        names = {adapter: f"a{i}" for i, adapter in enumerate(adapters)}
        folders = {name: adapter_folder(adapter) for adapter, name in names.items()}
        for folder in folders.values():
            check_tokens(folder, tokenizer, force=self.force_adapter)
        model, reference = self._loaded(name), None
        check_vocabulary(model, tokenizer)
        wrapped = None
        if self.quantization != "none" and held_in(model, self.quantization) == "none":
            said = (
                f"none of its layers can be held in {self.quantization}; with "
                "EMPO_QUANTIZATION=none it may be served in 16 bits"
            )
            return None, replace(verdict, way=None, said=said)
        if trial:
            try:
                reference, wrapped = self._reference(name, model, tokenizer, folders)
            except _Apart as apart:
                found, why = apart.args
                adapter = next(a for a, name in names.items() if name == found)
                return None, _without(verdict, {adapter: why})
            except EngineError:
                raise
            except Exception as error:
                log.debug("The model's own forward pass fails", exc_info=True)
                said = f"its own code fails ({type(error).__name__}: {first_line(error)})"
                return None, replace(verdict, way=None, said=said)
            if self._packs_on_use:
                model, wrapped = self._loaded(name), None
        if folders and wrapped is None:
            wrapped = attach(model, folders)
        rows = None
        if wrapped is not None:
            place(model, self.device)
            rows = install(wrapped)
            release(wrapped)
        place(model, self.device)
        served = {member.id: names.get(member.adapter or "") for member in users}
        try:
            weights = weights_of(model, tokenizer, served, rows, cast(Any, verdict.way))
        except EngineError:
            raise
        except Exception as error:
            log.debug("The copy cannot be described", exc_info=True)
            said = f"its configuration is another than expected ({type(error).__name__}: "
            return None, replace(verdict, way=None, said=f"{said}{first_line(error)})")
        return weights, verdict if reference is None else _judged(
            weights, reference, verdict, names
        )

    def _exactly(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        users: Sequence[Written],
        verdict: Verdict,
    ) -> Verdict:
        """`verdict` unless a copy in fp32 shows that it does not hold; else the next one to try.

        In 16 bits, rounding can hide a fault: a rotary factor of 1.1, say, moves SmolLM2's logits
        by half of what rounding may. A large model is cut to its first layers, as such a fault is
        one of code or configuration and so in every layer. What cannot be tried in fp32 is left to
        the trial of the copy that is served. It comes first, so that both copies are never in
        memory together.
        """
        if self.dtype == "float32" or saved_quantised(model_folder(name)):
            return verdict
        exact = replace(self, load=self._load_exact, quantization="none", dtype="float32")
        try:
            weights, found = exact._once(name, tokenizer, users, verdict, trial=True)
        except Exception:
            log.debug("%s is not tried in fp32", name, exc_info=True)
            return verdict
        # Without a copy nothing was compared: PEFT or the model's own code failed in fp32.
        return found if weights is not None else verdict

    def _load_exact(self, name: str) -> PreTrainedModel:
        from empo_demo.engine.assembly.trial import load_exact

        return load_exact(name, self.device, self.quantization)

    def _loaded(self, name: str) -> PreTrainedModel:
        model = self.load(name)
        if self._packs_on_use:
            spare_odd_layers(model)
        return model

    @property
    def _packs_on_use(self) -> bool:
        """Whether the first forward pass changes the layers: bitsandbytes then packs them.

        Such layers take no adapter any more, and the engine cannot pack them in its own way.
        """
        return self.device == "cpu" and self.quantization != "none"

    def _reference(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        folders: dict[str, Path],
    ) -> tuple[Reference, Any]:
        """The reference of a base and of its adapters by PEFT, and PEFT's model.

        Raises `_Apart` for the first adapter that rewrites the base or that PEFT cannot run.
        """
        from empo_demo.engine.assembly.trial import reference_of

        reference = reference_of(model, tokenizer)

        def after(wrapped: Any, name: str) -> None:
            try:
                reference.add(wrapped, name)
                rewritten = reference.is_rewritten(wrapped)
            except Exception as error:
                raise _Apart(name, f"PEFT fails ({first_line(error).rstrip('.')})") from None
            if rewritten:
                raise _Apart(name, "loading it changes what the base computes")

        if not folders:
            return reference, None
        if not self._packs_on_use:
            return reference, attach(model, folders, after)
        for adapter, folder in folders.items():
            # Each needs layers that were not used yet.
            attach(self._loaded(name), {adapter: folder}, after)
        return reference, None


def set_apart(adapter: str | None, verdict: Verdict) -> str | None:
    """Why `adapter` may not share the copy; None if it may."""
    if adapter is None:
        return None
    return verdict.apart.get(_mark(adapter))


def _mark(adapter: str) -> str:
    return str(fingerprint(str(adapter_folder(adapter))))


def _without(verdict: Verdict, reasons: dict[str, str]) -> Verdict:
    """`verdict` with more adapters set apart: adapter to reason."""
    return replace(verdict, apart={**verdict.apart, **{_mark(a): w for a, w in reasons.items()}})


def _judged(
    weights: Weights, reference: Reference, verdict: Verdict, names: dict[str, str]
) -> Verdict:
    """`verdict` if the copy computes what it should, else the next one to try."""
    from empo_demo.engine.assembly.trial import judge
    from empo_demo.engine.weights.model_weights import Way

    found = judge(weights, reference)
    problem = found.pop("")
    if verdict.way == "fused":
        problem = problem or next(filter(None, found.values()), None)
    if problem is not None:
        log.warning("%s: %s", weights.model.name_or_path, problem)
        ways = get_args(Way)
        following = ways[ways.index(verdict.way) + 1 :]
        if not following:
            return replace(verdict, way=None, said=problem)
        slower = replace(verdict, way=following[0], said=_SLOWER[following[0]] + problem)
        if following[0] == "batch":
            return slower
        return _without(slower, dict.fromkeys(names, "its base does not hold in a batch"))
    reasons = {a: str(found[n]) for a, n in names.items() if found.get(n) is not None}
    return _without(verdict, reasons) if reasons else verdict
