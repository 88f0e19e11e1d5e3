"""From a line-up to a running engine: one decision, then one load.

`decide` says who takes part, by which plan, and what it needs. Whoever lists, prepares or serves
contenders asks it, so the list says what the page does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from empo_demo.engine.device import on_zero_gpu, pick_device
from empo_demo.engine.lease import LeasedEngine
from empo_demo.engine.loader import Loader, MadeCopy
from empo_demo.engine.lockstep.places import MOST_ROUNDS
from empo_demo.engine.planning import fits
from empo_demo.engine.planning.fits import Budget, budget_of
from empo_demo.engine.planning.members import Member, Terms, members_of
from empo_demo.engine.predictions import RecordedEngine, is_recording
from empo_demo.engine.protocol import Engine, Lineup, Source
from empo_demo.engine.servers.routing import RoutingEngine
from empo_demo.engine.text.chat_template import check_without_system
from empo_demo.engine.weights.adapter_plan import Override, size
from empo_demo.engine.weights.downloads import adapter_folder, adapter_here
from empo_demo.errors import EngineError
from empo_demo.settings import Quantization, Settings
from empo_demo.smollm2.obtain import provide

if TYPE_CHECKING:
    from empo_demo.engine.servers.remote import RemoteEngine

log = logging.getLogger(__name__)


def load_engine(settings: Settings, lineup: Lineup) -> Engine:
    """The engine of all who can be served: local models, servers, or a file of replies.

    Raises `EngineError` if they do not fit, or cannot be loaded or reached.
    """
    return decide(settings, lineup).load()


def decide(settings: Settings, lineup: Lineup) -> Decision:
    """Who of `lineup` is served under `settings`, and how.

    An optional contender is left out if its model does not fit this machine, or no server has it.
    Where that cannot be known (offline, on a leased GPU), all stay. Without optional contenders
    nothing is measured yet, so torch is not imported.
    """
    return Decision(settings, lineup)


class Decision:
    """Who takes part, by which plan each adapter is served, and what all of it needs.

    `left_out` maps the id of each optional contender that does not take part to the reason. The
    plans and the budget are computed when they are first asked for, and then they stay.
    """

    def __init__(self, settings: Settings, lineup: Lineup) -> None:
        self._settings, self._lineup = settings, lineup
        self._servers: RemoteEngine | None = None
        self.left_out: dict[str, str] = {}
        try:
            if self.is_served:
                self._leave_out_unserved()
            elif self.is_local and not lineup.tiny and not on_zero_gpu():
                self._leave_out_what_does_not_fit()
        except EngineError as error:
            log.warning("Whether all contenders fit is not known: %s", error)

    @property
    def contenders(self) -> tuple[Source, ...]:
        """Those who take part."""
        return tuple(c for c in self._lineup.contenders if c.id not in self.left_out)

    @property
    def written(self) -> tuple[Source, ...]:
        """Those of them whose replies are generated, not recorded."""
        return tuple(c for c in self.contenders if not c.predictions)

    @property
    def is_served(self) -> bool:
        """Whether servers generate the replies."""
        return "://" in self._settings.engine and bool(self._generating)

    @property
    def is_local(self) -> bool:
        """Whether models are loaded here."""
        return self._settings.engine == "local" and bool(self._generating)

    @cached_property
    def budget(self) -> Budget:
        """What all that is loaded here needs. Raises `EngineError` if a model cannot be found."""
        return self._budget(self.written)

    @cached_property
    def free(self) -> fits.Free:
        """What was free when it was first asked for."""
        return fits.free_memory(self.terms().device)

    def terms(
        self, quantization: Quantization | None = None, override: Override | None = None
    ) -> Terms:
        """On what terms models are loaded, with other values where given."""
        settings = self._settings
        quantization = quantization or self._lineup.quantization
        return Terms(
            pick_device(settings.device, quantization),
            quantization,
            override or settings.adapter_plan,
            settings.force_adapter,
        )

    def load(self) -> Engine:
        """The engine that serves all who take part."""
        recorded = [c for c in self.contenders if c.predictions]
        written = self.written
        if not written or is_recording(self._settings.engine):
            return RecordedEngine(recorded)
        engine = self._load_local() if self.is_local else self._reach_servers()
        if not recorded:
            return engine
        file: Engine = RecordedEngine(recorded)
        return RoutingEngine({c.id: engine for c in written} | {c.id: file for c in recorded})

    def prepare(self) -> Iterator[MadeCopy]:
        """Make the merged copies that serving needs, one at a time, and yield each.

        Models are tried as at load, because a trial may ask for one more copy. Not all of them need
        to fit at once.
        """
        if self.is_local:
            provide({source.base for source in self.written})
            yield from self._loader().prepare(self.budget.members)

    def close(self) -> None:
        """Free what was opened for the decision, if it is not loaded."""
        if self._servers is not None:
            self._servers.close()
            self._servers = None

    @property
    def _generating(self) -> list[Source]:
        return [c for c in self._lineup.contenders if not c.predictions]

    def _leave_out_what_does_not_fit(self) -> None:
        """Leave out optional contenders, the last ones first, until the others fit."""
        optional = [c for c in self._generating if c.optional]
        while optional:
            budget = self._budget(self.written)
            if fits.fits(budget, self.free):
                self.budget = budget
                return
            self._leave_out(optional.pop(), "its model does not fit")

    def _leave_out_unserved(self) -> None:
        """Leave out optional contenders that no server has."""
        if any(c.optional for c in self._generating):
            self._servers = self._reach_servers()
            for contender in self._generating:
                if contender.id in self._servers.left_out:
                    self._leave_out(contender, "no server has its model")

    def _leave_out(self, contender: Source, reason: str) -> None:
        self.left_out[contender.id] = reason
        log.warning("The contender %s is left out: %s.", contender.id, reason)

    def _budget(
        self,
        sources: Sequence[Source],
        *,
        quantization: Quantization | None = None,
        override: Override | None = None,
        first: int | None = None,
    ) -> Budget:
        """The budget of `sources`, or of the `first` of them, with other values where given."""
        terms = self.terms(quantization, override)
        return self._sum(members_of(sources[:first], terms), terms)

    def _sum(self, members: Sequence[Member], terms: Terms) -> Budget:
        rounds = self._settings.max_concurrent_rounds or MOST_ROUNDS
        new_tokens = self._lineup.decoding.max_new_tokens
        return budget_of(members, terms, rounds=rounds, new_tokens=new_tokens)

    def who_answers(self) -> dict[str, str]:
        """What was heard at each server, by its URL; nothing where models are loaded here.

        Raises `EngineError` if a server cannot be reached, or answers with the wrong weights.
        """
        if not self.is_served:
            return {}
        servers = self._reach_servers()
        servers.close()
        return servers.heard

    def _reach_servers(self) -> RemoteEngine:
        from empo_demo.engine.servers.remote import RemoteEngine

        servers, self._servers = self._servers, None
        if servers is not None:
            return servers
        settings = self._settings
        wanted = settings.server_check
        return RemoteEngine(
            settings.engine,
            self.written,
            check=wanted == "always" or (wanted == "auto" and not os.environ.get("OPENAI_API_KEY")),
            in_turn=settings.server_turns,
        )

    def _load_local(self) -> Engine:
        from empo_demo.engine.lockstep.local import LocalEngine

        provide({source.base for source in self.written})
        log.info("The plan of what is loaded:\n%s", fits.table(self.budget, self.free))
        self._check()
        self._fetch_adapters()
        loader = self._loader()
        loader.falls_back = self._fall_back
        copies = loader.load_members(self.budget.members)
        if not self._lineup.system_prompt:
            for copy in copies:
                check_without_system(copy.tokenizer)
        kv_bytes = None
        if self.free.device is not None and self.budget.device.startswith("cuda"):
            kv_bytes = self.budget.kv_bytes(self.free.device)
            loader.notes["KV cache"] = size(kv_bytes)
        rounds = self._settings.max_concurrent_rounds
        engine = LocalEngine(copies, loader.notes, max_rounds=rounds, kv_bytes=kv_bytes)
        return LeasedEngine(engine, copies) if on_zero_gpu() else engine

    def _loader(self) -> Loader:
        terms = self.terms()
        return Loader(terms.device, terms.quantization, terms.override, terms.force_adapter)

    def _check(self) -> None:
        """Raise where what is loaded does not fit, with what would."""

        def replan(**change: object) -> Budget:
            return self._budget(self.written, **change)  # type: ignore[arg-type]

        fits.check(self.budget, self.free, replan)

    def _fetch_adapters(self) -> None:
        """Download adapters, and decide on their plans by their files instead of their settings."""
        adapters = {member.adapter for member in self.budget.members if member.adapter}
        missing = [adapter for adapter in adapters if adapter_here(adapter) is None]
        for adapter in missing:
            adapter_folder(adapter)
        if missing:
            self.budget = self._budget(self.written)
            self._check()

    def _fall_back(self, members: Sequence[Member]) -> None:
        """Count the copies of adapters that a trial set apart, before they are made."""
        changed = {member.id: member for member in members}
        self.budget = self._sum(
            [changed.get(member.id, member) for member in self.budget.members], self.terms()
        )
        self._check()
