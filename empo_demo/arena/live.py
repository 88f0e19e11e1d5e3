"""The rounds that stream in this process: claimed, kept alive, and never left half done.

A streaming round carries its owner and a lease that a heartbeat renews, so that another replica,
or this app after kill -9, tells a running stream from an abandoned one. What could not be stored
when a stream ended is kept and stored at the next chance.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading

from empo_demo.arena.streaming import Live
from empo_demo.errors import StorageError
from empo_demo.votes.store import LEASE, Store

log = logging.getLogger(__name__)
_BOOT = secrets.token_hex(8)
ABANDONED = "The app was restarted while the replies were being written."


def owner() -> str:
    """This process, told from an earlier one with the same host name and number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_BOOT}"


class LiveRounds:
    """The registry of one arena's streams."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}
        self._unsaved: dict[str, Live] = {}
        self._heart: threading.Thread | None = None

    def get(self, round_id: str) -> Live | None:
        return self._live.get(round_id)

    def add(self, live: Live) -> bool:
        """Register a stream; False where the round streams here already."""
        with self._lock:
            if live.round_id in self._live:
                return False
            self._live[live.round_id] = live
            if self._heart is None or not self._heart.is_alive():
                self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._heart.start()
            return True

    def remove(self, live: Live) -> None:
        with self._lock:
            self._live.pop(live.round_id, None)

    def save(self, live: Live) -> None:
        """Store a stream's outcome; on a `StorageError` keep it for `flush` and raise on."""
        try:
            self._store.finish(
                live.round_id,
                {side: outcome.row() for side, outcome in live.outcomes.items()},
                void_reason=live.void_reason(),
                first_words_at=live.first_words_at,
            )
        except StorageError:
            self._unsaved[live.round_id] = live
            raise
        self._unsaved.pop(live.round_id, None)

    def flush(self, round_id: str) -> None:
        """Store what an earlier failure of the database left unsaved for this round."""
        live = self._unsaved.get(round_id)
        if live is not None:
            self.save(live)

    def forget(self, round_ids: set[str]) -> None:
        """Stop these rounds and drop what is unsaved of them: their voter has them erased."""
        for round_id in round_ids:
            self._unsaved.pop(round_id, None)
            live = self._live.get(round_id)
            if live is not None:
                live.stop.set()

    def sweep(self) -> int:
        """Make rounds void whose stream died with its process; return how many."""
        dead = [name for name in self._store.streaming_owners() if _is_dead(name)]
        return self._store.void_abandoned(dead, ABANDONED)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(LEASE.total_seconds() / 3):
            with self._lock:
                rounds = list({*self._live, *self._unsaved})
                if not rounds:
                    self._heart = None
                    return
            try:
                self._store.renew(rounds, owner())
            except StorageError as error:
                log.warning("Leases were not renewed: %s", error)


def _is_dead(name: str) -> bool:
    """Whether the owner `name` ran on this host and does so no more."""
    host, _, rest = name.partition(":")
    number = rest.partition(":")[0]
    if host != socket.gethostname() or not number.isdigit() or name == owner():
        return False
    if int(number) == os.getpid():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
