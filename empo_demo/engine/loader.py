"""Loads the members of a decision: each base once, each adapter by its plan, after its trial.

Each fault of a model, an adapter or the device is one `EngineError` that says what to do.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.assembly.copies import MergedCopy, Verdict
from empo_demo.engine.assembly.precision import saved_quantised
from empo_demo.engine.assembly.served_copy import Assembly, set_apart
from empo_demo.engine.device import half_type, is_out_of_memory, on_zero_gpu
from empo_demo.engine.planning.members import Member, Terms, members_of
from empo_demo.engine.protocol import Source
from empo_demo.engine.weights.adapter_plan import Override, size
from empo_demo.engine.weights.adapters import Written
from empo_demo.engine.weights.downloads import (
    adapter_folder,
    model_download,
    model_folder,
    model_here,
)
from empo_demo.engine.weights.shapes import model_shape
from empo_demo.errors import EngineError
from empo_demo.files import why_not
from empo_demo.progress import amount
from empo_demo.settings import Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)
_SMALL = 1_000_000_000
"""Weights under which the rounding of NF4 is heard."""


@dataclass(frozen=True, slots=True)
class MadeCopy:
    """The merged copy of an adapter, and whether it existed before."""

    adapter: str
    folder: Path
    was_there: bool


@dataclass
class Loader:
    """Loads members on one device. `notes` says what was chosen, for the page and the log.

    `falls_back` is called with all members of a base, before the adapters that their trial set
    apart are merged. It may raise: what is merged needs more memory and disk.
    """

    device: str
    quantization: Quantization
    override: Override = "auto"
    force_adapter: bool = False
    falls_back: Callable[[Sequence[Member]], None] = lambda _members: None

    def __post_init__(self) -> None:
        from transformers.utils import logging as transformers_logging

        self.notes: dict[str, str] = {"device": self.device, "quantisation": self.quantization}
        self._held: dict[str, str] = {}
        self.dtype = half_type(self.device)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # bitsandbytes asks for an optional package on some CPUs and falls back by itself.
        for name in ("bitsandbytes", "bitsandbytes.backends.cpu.ops"):
            logging.getLogger(name).setLevel(logging.ERROR)

    @property
    def terms(self) -> Terms:
        return Terms(self.device, self.quantization, self.override, self.force_adapter, self.dtype)

    def load(self, contenders: Sequence[Source]) -> list[Weights]:
        """One `Weights` per copy. Exactly one copy serves each contender."""
        return self.load_members(members_of(contenders, self.terms))

    def load_members(self, members: Sequence[Member]) -> list[Weights]:
        """As `load`, with plans that are decided already."""
        copies: list[Weights] = []
        for group in _by_base(members):
            copies += self._load_group(group)
        return copies

    def prepare(self, members: Sequence[Member]) -> Iterator[MadeCopy]:
        """Make each merged copy and try each model that was not tried yet; keep none in memory."""
        for group in _by_base(members):
            verdict = None
            sharing = _sharing(group)
            if sharing:
                verdict = self._tried(sharing[0].base, _users(sharing))
            for merged in self._after_trial(group, verdict):
                yield self._prepare_copy(merged)

    def _prepare_copy(self, member: Member) -> MadeCopy:
        copy = self._copy(member)
        was_there = copy.find() is not None
        folder = self._make(copy)
        self._tried(str(folder), [Written(member.id, str(folder), None)], shown=str(member.adapter))
        return MadeCopy(str(member.adapter), folder, was_there)

    def _tried(self, name: str, users: Sequence[Written], shown: str = "") -> Verdict:
        """The verdict on a model with the adapters that share it; tries it if there is none."""
        adapters = list(dict.fromkeys(member.adapter for member in users if member.adapter))
        verdict = self._assembly.tried(name, adapters).find()
        if verdict is None or verdict.way is None:
            _, verdict = self._assembly.make(name, users, shown)
            gc.collect()
        return verdict

    def _load_group(self, group: list[Member]) -> list[Weights]:
        """The base with the adapters that share it, if a contender uses it, and merged copies."""
        sharing = _sharing(group)
        copies: list[Weights] = []
        verdict = None
        if sharing:
            weights, verdict = self._assembly.make(group[0].base, _users(sharing))
            copies += [] if weights is None else [weights]
            self._note_trial(group[0].base, verdict)
            if weights is not None and self.device != "cpu":
                self._note_cost(group[0].base, weights)
        for merged in self._after_trial(group, verdict):
            copies.append(self._merged(merged, [m for m in group if m.adapter == merged.adapter]))
        return copies

    def _after_trial(self, group: list[Member], verdict: Verdict | None) -> list[Member]:
        """One member for each adapter that is merged, by its plan or because of the trial."""
        members = []
        for member in group:
            reason = None
            if verdict is not None and member.plan == "shared":
                reason = set_apart(member.adapter, verdict)
            members.append(member if reason is None else member.set_apart(reason, self.terms))
        if members != group:
            self.falls_back(members)
        firsts = {
            member.adapter: member for member in reversed(members) if member.adapter is not None
        }
        for member in reversed(firsts.values()):
            self.notes[f"adapter {member.id}"] = f"{member.plan}: {member.reason}"
            level = logging.WARNING if member.apart else logging.INFO
            log.log(level, "Adapter %s: %s, because %s", member.adapter, member.plan, member.reason)
        return [member for member in reversed(firsts.values()) if member.plan == "merged"]

    def _note_trial(self, name: str, verdict: Verdict, otherwise: str = "") -> None:
        """Note how the copy `name` is served, and what its weights are held in."""
        shown = Path(name).name
        said = verdict.said or otherwise
        if said:
            self.notes[f"trial of {shown}"] = said
        self._held[shown] = verdict.held or self.quantization
        kinds = dict.fromkeys(self._held.values())
        each = (f"{held} ({copy})" for copy, held in self._held.items())
        self.notes["quantisation"] = next(iter(kinds)) if len(kinds) == 1 else ", ".join(each)

    def _note_cost(self, name: str, weights: Weights) -> None:
        """Note what NF4 costs a small model; a large one hardly suffers, and saves much memory."""
        shape = model_shape(name)
        if self.quantization != "nf4" or shape.weights >= _SMALL:
            return
        from empo_demo.engine.assembly.trial import perplexity_of

        exact = replace(self, quantization="none").model(name)
        tokenizer = weights.tokenizer
        if weights.rows is not None:
            weights.rows.clear()
        before, after = perplexity_of(exact, tokenizer), perplexity_of(weights.model, tokenizer)
        saved = shape.held("none") - shape.held("nf4")
        said = (
            f"saves {size(saved)} and takes the perplexity of a sample text from "
            f"{before:.1f} to {after:.1f}; EMPO_QUANTIZATION=none keeps 16 bits"
        )
        self.notes[f"nf4 of {Path(name).name}"] = said
        log.warning("NF4 of %s %s", name, said)

    def _merged(self, member: Member, users: Sequence[Member]) -> Weights:
        """Merge the adapter into the 16-bit weights, then load the result quantised."""
        copy = self._copy(member)
        folder = str(self._make(copy))
        own = [Written(user.id, folder, None) for user in users]
        adapter = str(member.adapter)
        weights, verdict = self._assembly.make(folder, own, shown=adapter)
        left_out = "" if copy.compared else "the merge is too large to be compared with PEFT"
        self._note_trial(adapter, verdict, left_out)
        assert weights is not None, "a copy without adapters has all its users"
        return weights

    def _copy(self, member: Member) -> MergedCopy:
        """The merged copy of a member's adapter, made or not. Downloads base and adapter."""
        return self.terms.merged_copy(
            model_folder(member.base), adapter_folder(str(member.adapter))
        )

    def _make(self, copy: MergedCopy) -> Path:
        with amount(f"Merging {copy.adapter.name[:40]}") as report:
            return copy.make(self.model, report)

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
        if model_download(name):
            # transformers would download it too, but without a word about it.
            model_folder(name)
        folder = model_here(name)
        if folder is None or not saved_quantised(folder):
            options |= self._quantised()
        try:
            options |= {"trust_remote_code": False, "output_loading_info": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(name, **options)
        except Exception as error:
            # The libraries raise many kinds of errors for faulty files.
            log.debug("Loading failed", exc_info=True)
            if is_out_of_memory(error):
                where = "this machine" if self.device == "cpu" else self.device
                raise EngineError(
                    f"The model {name} does not fit into the memory of {where}; use "
                    "EMPO_QUANTIZATION=nf4, a smaller model, fewer contenders, or a larger machine."
                ) from None
            raise EngineError(
                f"The model {name} cannot be loaded: {why_not(error, name)}"
            ) from None
        model, found = loaded
        if missing := sorted(found["missing_keys"]):
            raise EngineError(
                f"The model {name} cannot be loaded: its files lack {len(missing):,} of its "
                f"weights, such as {missing[0]}, which would be random numbers. Get it again, or "
                "correct its config.json."
            )
        return model.eval()  # type: ignore[no-any-return]

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


def _by_base(members: Sequence[Member]) -> list[list[Member]]:
    bases = dict.fromkeys(member.base for member in members)
    return [[member for member in members if member.base == base] for base in bases]


def _sharing(group: Sequence[Member]) -> list[Member]:
    """Those that the trial of the base is about: all but those that are merged by their size."""
    return [member for member in group if member.plan != "merged" or member.apart]


def _users(members: Sequence[Member]) -> list[Written]:
    return [Written(member.id, member.base, member.adapter) for member in members]
