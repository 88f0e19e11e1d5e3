"""The memory and disk that a line-up needs, compared with what is free, before anything is loaded.

GPU: weights, adapters, the KV cache of the rounds that run together, the activations of one
prefill, and CUDA's own memory. Host: what loading needs. Disk: merged copies that do not exist yet
(downloads are not counted). On a CPU the memory of the device is that of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from empo_demo.dialogue import MAX_TEXT, MAX_TURNS
from empo_demo.engine.adapters import Written, written_by
from empo_demo.engine.copies import is_prepared
from empo_demo.engine.device import pick_device
from empo_demo.engine.free_memory import Free
from empo_demo.engine.places import MOST_ROUNDS
from empo_demo.engine.plan import Override, choose, size
from empo_demo.engine.protocol import Lineup, Source
from empo_demo.engine.shapes import ModelShape, adapter_shape, model_shape
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization, Settings

CUDA_BYTES = 0.6e9
"""CUDA's context, cuBLAS workspaces and the allocator's rounding. An assumption, not measured."""
HOST_BYTES = 2.5e9
"""The process itself beside a GPU: Python, torch with CUDA, the SEM and the page. Assumed."""
MERGE_BYTES = 1.5e9
"""The shards of a merge and one layer in fp32; measured by tests/engine/test_merging.py."""
CPU_LOAD = {"nf4": 1.6, "int8": 1.6, "none": 1.1}
"""Peak of loading on a CPU as a multiple of the 16-bit weights: quantising passes through them.
Measured at 0.6 billion weights: 1,829 MB for 1,128 MB."""
FIRST_ROUND = 4096
"""There must always be room for one round with this many tokens per side."""
ROWS = 2
"""Rows of a round: its two sides."""

Plan = Literal["base", "shared", "merged"]
Replan = Callable[..., "Budget"]
"""The budget with other settings: `quantization`, `override`, or only the `first` n sources."""


@dataclass(frozen=True, slots=True)
class Member:
    """One contender. `shared` and `merged` are what its adapter adds by either plan."""

    id: str
    base: str
    adapter: str | None
    plan: Plan
    reason: str = ""
    shared: float = 0.0
    merged: float = 0.0
    prepared: bool | None = None
    """Whether its merged copy exists already; None if it needs none."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of weights on the device, in bytes."""

    name: str
    weights: float
    adapters: float
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class Budget:
    """All figures are bytes. `fixed` is needed even when nothing is generated."""

    members: tuple[Member, ...]
    copies: tuple[Copy, ...]
    device: str
    quantization: Quantization
    rounds: int
    disk: float
    kv_round: float = 0.0
    kv_first: float = 0.0
    activations: float = 0.0
    host: float = 0.0

    @property
    def weights(self) -> float:
        return sum(copy.weights for copy in self.copies)

    @property
    def adapters(self) -> float:
        return sum(copy.adapters for copy in self.copies)

    @property
    def own(self) -> float:
        """CUDA's own memory."""
        return CUDA_BYTES if self.device.startswith("cuda") else 0.0

    @property
    def fixed(self) -> float:
        return self.weights + self.adapters + self.activations + self.own

    @property
    def least(self) -> float:
        """The need with one round of `FIRST_ROUND` tokens per side."""
        return self.fixed + self.kv_first

    @property
    def most(self) -> float:
        """The need with all rounds at their longest."""
        return self.fixed + self.rounds * self.kv_round

    def kv_bytes(self, free: float | None) -> int:
        """The bound of the KV cache: what is left, but not more than all rounds can fill."""
        wanted = self.rounds * self.kv_round
        return int(wanted if free is None else max(0.0, min(wanted, free - self.fixed)))


def make_budget(
    sources: Sequence[Source],
    quantization: Quantization,
    *,
    device: str,
    rounds: int,
    override: Override = "auto",
    new_tokens: int = 512,
) -> Budget:
    """The budget of `sources`; recorded ones cost nothing.

    `new_tokens` is the longest reply. Raises `EngineError` if a model or adapter cannot be found.
    Only the configurations of Hub models are downloaded.
    """
    written = [written_by(source) for source in sources if not source.predictions]
    members: list[Member] = []
    copies: list[Copy] = []
    disk = scratch = 0.0
    for base in dict.fromkeys(one.base for one in written):
        shape = model_shape(base)
        held = shape.held(quantization)
        group = [
            _member(one, shape, quantization, override, device)
            for one in written
            if one.base == base
        ]
        members += group
        shared = {m.adapter: m.shared for m in group if m.plan == "shared"}
        if any(member.plan != "merged" for member in group):
            copies.append(Copy(base, held, sum(shared.values()), shape))
        merged = {m.adapter: m for m in group if m.plan == "merged"}
        copies += [Copy(str(adapter), held, 0.0, shape) for adapter in merged]
        for adapter in merged:
            if not merged[adapter].prepared:
                disk += held
                scratch = max(scratch, 2.0 * shape.weights * (quantization != "none"))
    shapes = [(copy.shape, _tokens(copy.shape, new_tokens)) for copy in copies]
    return Budget(
        tuple(members),
        tuple(copies),
        device,
        quantization,
        rounds,
        disk=disk + scratch,
        kv_round=max((ROWS * s.kv * t for s, t in shapes), default=0.0),
        kv_first=max((ROWS * s.kv * min(t, FIRST_ROUND) for s, t in shapes), default=0.0),
        activations=max((s.activations(ROWS, min(t, FIRST_ROUND)) for s, t in shapes), default=0.0),
        host=_host(copies, quantization, device, merging=disk > 0),
    )


def plan_of(
    settings: Settings,
    lineup: Lineup,
    written: Sequence[Source],
    *,
    quantization: Quantization | None = None,
    override: Override | None = None,
    first: int | None = None,
) -> Budget:
    """The budget of `written` under `settings`, with other values where given."""
    quantization = quantization or lineup.quantization
    return make_budget(
        written[:first],
        quantization,
        device=pick_device(settings.device, quantization),
        rounds=settings.max_concurrent_rounds or MOST_ROUNDS,
        override=override or settings.adapter_plan,
        new_tokens=lineup.decoding.max_new_tokens,
    )


def check(budget: Budget, free: Free, replan: Replan | None = None) -> None:
    """Raise an `EngineError` with the numbers and with remedies if the budget does not fit.

    `replan` computes the budget of other settings, to find the remedies.
    """
    lacks = []
    if free.device is not None and budget.least > free.device:
        lacks.append(
            f"{size(budget.least)} on {budget.device} (weights {size(budget.weights)}, adapters "
            f"{size(budget.adapters)}, one round {size(budget.kv_first + budget.activations)}, "
            f"CUDA {size(budget.own)}), of which {size(free.device)} are free"
        )
    if budget.host > free.host:
        lacks.append(f"{size(budget.host)} of this machine's memory, of which {size(free.host)} "
                     "are free")  # fmt: skip
    if budget.disk > free.disk:
        lacks.append(
            f"{size(budget.disk)} of disk for merged copies, of which {size(free.disk)} are free "
            "(HF_ASSETS_CACHE may name a larger disk)"
        )
    if not lacks:
        return
    known = list(_remedies(budget, free, replan)) if replan else []
    advice = f"What would fit: {'; '.join(known)}" if known else (
        "No setting makes these models fit; use a larger machine, or EMPO_PRESET=small"
    )  # fmt: skip
    raise EngineError(f"These contenders need {'; and '.join(lacks)}. {advice}.")


def fits(budget: Budget, free: Free) -> bool:
    """Whether `check` would raise no error."""
    return (
        (free.device is None or budget.least <= free.device)
        and budget.host <= free.host
        and budget.disk <= free.disk
    )


def table(budget: Budget, free: Free) -> str:
    """The plan as lines of text, for the log and the terminal."""
    lines = [f"{'contender':<18} {'plan':<7} {'shared adds':>12} {'merged adds':>12}"]
    for m in budget.members:
        costs = ("-", "-") if m.adapter is None else (size(m.shared), size(m.merged))
        lines.append(f"{m.id[:18]:<18} {m.plan:<7} {costs[0]:>12} {costs[1]:>12}")
    held = [
        ("weights", budget.weights), ("adapters", budget.adapters),
        ("activations", budget.activations), ("CUDA itself", budget.own),
        (f"KV, {budget.rounds} rounds", budget.rounds * budget.kv_round),
    ]  # fmt: skip
    lines.append(f"On {budget.device}: " + ", ".join(f"{name} {size(n)}" for name, n in held))
    kv = budget.kv_bytes(free.device)
    there = "unknown" if free.device is None else size(free.device)
    lines.append(
        f"needed at least {size(budget.least)}, for all rounds {size(budget.most)}, free {there}; "
        f"the KV cache may take {size(kv)}"
    )
    lines.append(f"Host memory {size(budget.host)} of {size(free.host)} free; "
                 f"disk {size(budget.disk)} of {size(free.disk)} free")  # fmt: skip
    return "\n".join(lines)


def as_json(budget: Budget, free: Free) -> dict[str, Any]:
    """The plan in bytes, for `contenders --json`."""
    names = ("weights", "adapters", "activations", "own", "least", "most", "host", "disk")
    return {
        "device": budget.device,
        **{name: round(getattr(budget, name)) for name in names},
        "kv_bytes": budget.kv_bytes(free.device),
        "free": {"device": free.device, "host": free.host, "disk": free.disk},
        "fits": fits(budget, free),
        "contenders": [
            {
                "id": m.id, "plan": m.plan, "reason": m.reason, "prepared": m.prepared,
                "shared_bytes": round(m.shared), "merged_bytes": round(m.merged),
            }
            for m in budget.members
        ],
    }  # fmt: skip


def _member(
    one: Written, shape: ModelShape, quantization: Quantization, override: Override, device: str
) -> Member:
    if one.adapter is None:
        return Member(one.id, one.base, None, "base")
    merged = shape.held(quantization)
    choice = choose(adapter_shape(one.adapter, shape), merged, quantization, override)
    prepared = None
    if choice.plan == "merged":
        prepared = is_prepared(one.base, one.adapter, quantization, device)
    return Member(
        one.id, one.base, one.adapter, choice.plan, choice.reason, choice.shared_bytes, merged,
        prepared,
    )  # fmt: skip


def _tokens(shape: ModelShape, new_tokens: int) -> int:
    """The most tokens of a row: a dialogue at its longest, with four characters per token."""
    return min(shape.context, MAX_TURNS * MAX_TEXT // 4 + new_tokens)


def _host(
    copies: Sequence[Copy], quantization: Quantization, device: str, *, merging: bool
) -> float:
    merge = MERGE_BYTES if merging and _large(copies) else 0.0
    if device != "cpu":
        return HOST_BYTES + merge
    held = sum(copy.weights + copy.adapters for copy in copies)
    passed = max((CPU_LOAD[quantization] * 2.0 * copy.shape.weights for copy in copies), default=0)
    return held + max(passed, merge)


def _large(copies: Sequence[Copy]) -> bool:
    return any(2.0 * copy.shape.weights > MERGE_BYTES for copy in copies)


def _remedies(budget: Budget, free: Free, replan: Replan) -> Iterator[str]:
    """Yield settings under which the plan would fit, as parts of a sentence."""
    tries: list[tuple[str, dict[str, Any]]] = [
        ("EMPO_QUANTIZATION=nf4", {"quantization": "nf4"}),
        ("EMPO_ADAPTER_PLAN=shared", {"override": "shared"}),
        ("EMPO_ADAPTER_PLAN=merged", {"override": "merged"}),
        ("only the first two contenders", {"first": 2}),
        ("only the first two contenders with EMPO_QUANTIZATION=nf4",
         {"first": 2, "quantization": "nf4"}),
    ]  # fmt: skip
    for words, change in tries:
        try:
            other = replan(**change)
        except EngineError:
            continue
        if fits(other, free):
            yield f"{words} ({size(other.least)})"
