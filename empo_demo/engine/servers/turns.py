"""One model of a server at a time, for servers that confuse the models of one batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from empo_demo.errors import EngineError

_BEAT = 0.2
"""Seconds between two signs of life of a reply that waits."""


class Waiting(Protocol):
    """A reply that waits: it is told so from time to time, and may be cut off."""

    def wait(self) -> None: ...
    @property
    def is_cut(self) -> bool: ...


class Turns:
    """Lets any number of requests of one model run together, and never those of two models.

    Who came first goes first: a model that is running does not overtake another that waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[tuple[object, str]] = []
        self._model, self._running = "", 0

    @contextmanager
    def take(self, model: str, reply: Waiting) -> Iterator[None]:
        """Hold a turn of `model`. Without a name, everybody runs at once.

        Raises `EngineError` if the reply is cut off while it waits.
        """
        if not model:
            yield
            return
        ticket = object()
        with self._changed:
            self._tickets.append((ticket, model))
            try:
                while not self._may_run(ticket):
                    if reply.is_cut:
                        raise EngineError("The reply was stopped.")
                    reply.wait()
                    self._changed.wait(_BEAT)
                self._model = model
                self._running += 1
            finally:
                self._tickets = [place for place in self._tickets if place[0] is not ticket]
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _may_run(self, ticket: object) -> bool:
        """Whether all before `ticket`, waiting and running, are of its model."""
        model = self._model if self._running else None
        for place, wanted in self._tickets:
            if model is not None and wanted != model:
                return False
            if place is ticket:
                return True
            model = wanted
        return False
