"""Erases rounds without consent in time, also when no visitor comes any more."""

from __future__ import annotations

import logging
import threading

from empo_demo.errors import StorageError
from empo_demo.votes.keeping import EPHEMERAL_LIFE
from empo_demo.votes.store import Store

log = logging.getLogger(__name__)


class Janitor:
    """One timer over one store. It runs only while there are rounds to erase."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timer: threading.Timer | None = None

    def schedule(self) -> None:
        """Start the timer: it erases rounds as soon as the newest one is old enough."""
        if self._timer is not None and self._timer.is_alive():
            return
        self._timer = threading.Timer(EPHEMERAL_LIFE.total_seconds() + 60, self._erase)
        self._timer.daemon = True
        self._timer.start()

    def _erase(self) -> None:
        try:
            self._store.purge()
        except StorageError as error:
            log.warning("Rounds without consent were not erased: %s", error)
        self._timer = None
        if self._store.has_ephemeral():
            self.schedule()
