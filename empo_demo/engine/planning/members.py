"""Which plan each adapter has: shared with its base, or merged into a copy of its own.

The sizes decide, then the trial: an adapter that its trial sets apart from the base is merged. What
a trial found is known from the next start on, so the budget counts it before anything is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from empo_demo.engine.assembly.copies import MergedCopy, Tried, Verdict, words
from empo_demo.engine.assembly.served_copy import set_apart
from empo_demo.engine.device import half_type, on_zero_gpu
from empo_demo.engine.protocol import Source
from empo_demo.engine.weights.adapter_plan import Choice, Override, Plan, choose
from empo_demo.engine.weights.adapters import Written, check_base, check_kind, written_by
from empo_demo.engine.weights.downloads import adapter_here, check_model, model_here
from empo_demo.engine.weights.shapes import ModelShape, adapter_shape, config_folder, model_shape
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms models are loaded: where, in which types, and what the settings demand."""

    device: str
    quantization: Quantization
    override: Override = "auto"
    force_adapter: bool = False
    dtype: str = ""
    """The 16-bit type of the weights; by default the device's."""

    def __post_init__(self) -> None:
        if not self.dtype:
            object.__setattr__(self, "dtype", half_type(self.device))

    def verdict(self, base: Path, adapters: Sequence[Path] = ()) -> Verdict | None:
        """The kept verdict on a model with the adapters that share it. ZeroGPU makes no trial."""
        if on_zero_gpu():
            return None
        return Tried(base, tuple(adapters), self.quantization, self.dtype, self.device).find()

    def merged_copy(self, base: Path, adapter: Path) -> MergedCopy:
        """The merged copy of base and adapter, which may exist or not."""
        return MergedCopy(base, adapter, self.quantization, self.dtype)


@dataclass(frozen=True, slots=True)
class Member:
    """One contender that is loaded here, and the plan of its adapter ("base": it has none).

    `shared` and `merged` are the bytes that its adapter adds by either plan.
    """

    id: str
    base: str
    adapter: str | None
    plan: Plan | Literal["base"] = "base"
    reason: str = ""
    shared: float = 0.0
    merged: float = 0.0
    prepared: bool | None = None
    """Whether its merged copy exists already; None if it needs none."""
    apart: bool = False
    """Whether it was to be shared, and is merged because of its trial."""
    trial: str = words([None])
    """What the kept trials say of it."""
    held: str = ""
    """What its weights are held in, which need not be what was asked for; "" until it is tried."""

    def set_apart(self, reason: str, terms: Terms) -> Member:
        """The member after its trial set its adapter apart. Raises where it may not be merged."""
        if terms.override == "shared":
            raise EngineError(
                f"EMPO_ADAPTER_PLAN holds 'shared', but with the adapter {self.adapter}, {reason}; "
                "use 'merged' or 'auto'."
            )
        prepared = copy_here(self.base, str(self.adapter), terms) is not None
        return replace(self, plan="merged", reason=reason, apart=True, prepared=prepared)


def members_of(sources: Sequence[Source], terms: Terms) -> tuple[Member, ...]:
    """The plans of all `sources`, base by base; recorded ones are not loaded and left out.

    Raises `EngineError` if a model or an adapter cannot be found, or if the two do not belong
    together. Only the configurations of Hub models are downloaded.
    """
    written = [written_by(source) for source in sources if not source.predictions]
    members: list[Member] = []
    for base in dict.fromkeys(member.base for member in written):
        check_model(base)
        shape = model_shape(base)
        group = [_by_size(member, shape, terms) for member in written if member.base == base]
        members += _by_trial(group, terms)
    return tuple(members)


def _by_size(contender: Written, shape: ModelShape, terms: Terms) -> Member:
    if contender.adapter is None:
        return Member(contender.id, contender.base, None)
    folder = config_folder(contender.adapter)
    check_kind(folder)
    check_base(folder, contender.base, force=terms.force_adapter)
    held = shape.held(terms.quantization)
    choice: Choice = choose(
        adapter_shape(contender.adapter, shape), held, terms.quantization, terms.override
    )
    return Member(
        contender.id,
        contender.base,
        contender.adapter,
        choice.plan,
        choice.reason,
        choice.shared_bytes,
        held,
    )


def _by_trial(group: Sequence[Member], terms: Terms) -> list[Member]:
    """The members of one base with what the kept trials found, and with their copies."""
    shared = _kept_verdict(group, terms)
    members = []
    for member in group:
        verdicts: list[Verdict | None] = [] if member.plan == "merged" else [shared]
        reason = set_apart(member.adapter, shared) if shared and member.plan == "shared" else None
        if reason is not None:
            member = member.set_apart(reason, terms)
        if member.plan == "merged":
            folder = copy_here(member.base, str(member.adapter), terms)
            verdicts.append(terms.verdict(folder) if folder is not None else None)
            member = replace(member, prepared=folder is not None)
        said = words(verdicts)
        merged = f" (merged, because {reason})" if reason is not None else ""
        serving = verdicts[-1]
        held = (serving.held or terms.quantization) if serving is not None else ""
        members.append(replace(member, trial=said + merged, held=held))
    return members


def _kept_verdict(group: Sequence[Member], terms: Terms) -> Verdict | None:
    """What the trial of the base with the adapters that share it found, if there was one."""
    named = dict.fromkeys(str(member.adapter) for member in group if member.plan == "shared")
    base, adapters = model_here(group[0].base), [adapter_here(adapter) for adapter in named]
    here = [adapter for adapter in adapters if adapter is not None]
    if base is None or len(here) < len(adapters):
        return None
    return terms.verdict(base, here)


def copy_here(base: str, adapter: str, terms: Terms) -> Path | None:
    """The merged copy of base and adapter, if it exists."""
    folders = model_here(base), adapter_here(adapter)
    if folders[0] is None or folders[1] is None:
        return None
    return terms.merged_copy(folders[0], folders[1]).find()
