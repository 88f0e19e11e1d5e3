"""Holds the engine and the SEM. The page starts before they are loaded, and waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from empo_demo.arena.rounds import Status
from empo_demo.engine.protocol import Engine
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    from empo_demo.empathy.sem import SEM

ENGINE_PATIENCE = 900.0
SEM_PATIENCE = 30.0


class Backend:
    """Holds the models. `engine()` and `sem()` wait for them, up to a number of seconds."""

    def __init__(self, engine: Engine | None, sem: SEM | None, *, tiny: bool) -> None:
        self._arrival = threading.Condition()
        self._engine, self._sem, self._tiny = engine, sem, tiny
        self._failure: str | None = None
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

    def status(self) -> Status:
        if self._engine is not None:
            details = self._engine.describe()
            return Status("ready", "Both models are ready.", details, self._tiny)
        if self._failure is not None:
            return Status("failed", self._failure, {}, self._tiny)
        seconds = round(time.monotonic() - self._since)
        return Status("loading", f"The models are loading ({seconds} s).", {}, self._tiny)

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
                        f"The models are still loading after {patience:.0f} s. Your text is kept: "
                        "press Retry in a minute."
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
