"""Holds the engine and the SEM. The page starts before they are loaded, and waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from empo_demo.arena.rounds import Status
from empo_demo.empathy import sem as sems
from empo_demo.engine.protocol import Engine
from empo_demo.errors import EngineError, NotAllowed, Sentence

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Roster
    from empo_demo.dialogue import Dialogue
    from empo_demo.empathy.feeling import Feeling
    from empo_demo.empathy.reading import Epitome
    from empo_demo.empathy.sem import SEM

ENGINE_PATIENCE = 900.0
SEM_PATIENCE = 30.0


class Models:
    """The models of an arena. `engine()` and `sem()` wait for them, up to a number of seconds.

    `roster` is who they are: another one where the pair that was meant cannot be had.
    """

    def __init__(self, roster: Roster, engine: Engine | None = None, sem: SEM | None = None):
        self._arrival = threading.Condition()
        self.roster, self._engine, self._sem = roster, engine, sem
        self._failure: str | None = None
        self._note = Sentence("")
        self._since = time.monotonic()

    def attach(
        self,
        *,
        engine: Engine | None = None,
        sem: SEM | None = None,
        failure: str | None = None,
    ) -> None:
        """Add models that have been loaded, or one plain sentence that says why they cannot be."""
        with self._arrival:
            self._engine = engine or self._engine
            self._sem = sem or self._sem
            self._failure = failure if self._engine is None else None
            self._arrival.notify_all()

    def begin(self, step: Sentence) -> None:
        """Say what the loading does now, in one sentence, shown until the models are there."""
        self._note = step

    def replace(self, roster: Roster, reason: Sentence) -> None:
        """Take note that `roster` is loaded instead of the one that was meant, and of the reason.

        Only before an engine is attached.
        """
        self.roster, self._note = roster, reason

    def status(self) -> Status:
        """Whether the models can answer, with a sentence for the page."""
        about = (self.roster.pair, self._note)
        if self._engine is not None:
            return Status("ready", "Both models are ready.", self._engine.describe(), *about)
        if self._failure is not None:
            return Status("failed", self._failure, {}, *about)
        seconds = round(time.monotonic() - self._since)
        step = self._note or Sentence("The models are loading ({n} s).", n=seconds)
        return Status("loading", step, {}, *about)

    def engine(
        self, *, patience: float = ENGINE_PATIENCE, given_up: Callable[[], bool] = lambda: False
    ) -> Engine | None:
        """Wait for the engine; None if `given_up` returns true; `EngineError` if loading failed."""
        until = time.monotonic() + patience
        with self._arrival:
            while self._engine is None:
                if given_up():
                    return None
                if self._failure is not None:
                    raise EngineError(self._failure)
                if time.monotonic() > until:
                    raise EngineError(
                        "The models are still loading after {n} s. Your text is kept: press Retry "
                        "in a minute.",
                        n=f"{patience:.0f}",
                    )
                self._arrival.wait(0.2)
            return self._engine

    def sem(self, *, patience: float = SEM_PATIENCE) -> SEM | None:
        """Wait for the SEM while the models load; None if there is none."""
        until = time.monotonic() + patience
        with self._arrival:
            while self._sem is None and self._engine is None and self._failure is None:
                if time.monotonic() > until:
                    break
                self._arrival.wait(0.2)
            return self._sem

    # Without waiting ----------------------------------------------------------------------------

    def engine_now(self) -> Engine:
        """The engine, for what is not a vote; `NotAllowed` while it loads."""
        engine = self.engine(patience=0.0)
        if engine is None:
            raise NotAllowed("The models are not loaded yet; try again in a moment.")
        return engine

    @property
    def repeatable(self) -> bool:
        """Whether the engine gives the same words again for the same seed; False while it loads."""
        engine = self.engine(patience=0.0)
        return engine is not None and bool(getattr(engine, "repeatable", True))

    def ahead(self) -> int:
        """How many rounds are in the engine's queue."""
        return int(getattr(self.engine(patience=0.0), "waiting", 0))

    def recorded_dialogues(self) -> list[Dialogue]:
        """The dialogues that recorded replies can answer; empty if replies are generated."""
        listed = getattr(self.engine_now(), "dialogues", None) if self.roster.recorded else None
        return list(listed()) if listed is not None else []

    def feelings(self, texts: Sequence[str], *, explained: bool = False) -> list[Feeling]:
        """The valence of each text, by the SEM if it is loaded, else by VADER.

        With `explained`, what each word adds is measured and not estimated.
        """
        return sems.feelings(self.sem(patience=0.0), texts, explained=explained)

    def epitome(self, pairs: Sequence[tuple[str, str]]) -> list[Epitome]:
        """The EPITOME levels of each (context, reply); empty if the SEM has no such head."""
        judge = getattr(self.sem(), "epitome", None)
        return list(judge(pairs)) if judge is not None else []
