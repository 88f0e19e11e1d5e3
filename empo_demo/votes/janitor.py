"""Erases in time what may not stay, also when no visitor comes any more, and scrubs the files.

It looks every few seconds, so that nothing depends on who started what when: rounds opened minutes
apart, a restart, a database that was away, and erasures of other processes are all the same to it.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref

from empo_demo.errors import StorageError
from empo_demo.votes.erasure import is_marked, scrub
from empo_demo.votes.store import Store

log = logging.getLogger(__name__)
EVERY_SECONDS = 20.0
REST = 3
"""How many times as long as it worked the janitor rests at least: a stranger who deletes again and
again may not keep a large database busy."""


class Janitor:
    """One thread over one store, until the store is closed or forgotten. No error ends it."""

    def __init__(self, store: Store) -> None:
        # A reference would keep the store, and this thread, for ever.
        self._store = weakref.ref(store)
        self._closed = store.database.closed

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="janitor", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        pause = EVERY_SECONDS
        while not self._closed.wait(pause):
            began = time.monotonic()
            store = self._store()
            if store is None:
                return
            try:
                clean(store)
            except StorageError as error:
                log.warning("What may not stay was not erased yet: %s", error)
            except Exception:
                log.exception("What may not stay was not erased yet")
            del store
            pause = max(EVERY_SECONDS, REST * (time.monotonic() - began))


def clean(store: Store) -> None:
    """Erase what is due, and overwrite what was erased."""
    if store.erasure.is_due():
        log.info("Rounds without consent erased: %d", store.erasure.purge())
    if is_marked(store.database) and not scrub(store.database):
        log.info("The files still hold what was erased, as somebody reads them; tried again soon")
