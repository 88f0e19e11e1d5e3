"""The rounds that stream in this process.

A streaming round has an owner and a lease that a heartbeat renews. So another replica, or this app
after kill -9, can tell a running stream from an abandoned one. If the outcome of a stream cannot be
stored, it is kept, and the heartbeat stores it when the database is back.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from empo_demo.arena.frames import Replies, showable
from empo_demo.errors import SIDE_FAILED, SIDE_SILENT, Sentence, StorageError
from empo_demo.votes.store import LEASE, Store, now

log = logging.getLogger(__name__)
_SENTENCE = re.compile(r"\w[^.!?…。！？]*[.!?…。！？]")
BEAT, RETRY = LEASE.total_seconds() / 3, 5.0
"""Seconds between two heartbeats, and between two tries to store an outcome."""
_BOOT = secrets.token_hex(8)
ABANDONED = "The app was restarted while the replies were being written."


@dataclass
class Live:
    """A round that streams in this process. `find` and `stop` use it."""

    round_id: str
    voter: str = ""
    """The hash of the voter's token, who alone may stop it."""
    stop: threading.Event = field(default_factory=threading.Event)
    replies: Replies = field(default_factory=Replies)
    first_words_at: datetime | None = None
    cut: Callable[[], None] | None = None
    """Ends the engine's stream from another thread, where the engine can do that."""
    finished: bool = False

    def interrupt(self) -> None:
        """Stop the round, also while the engine says nothing."""
        self.stop.set()
        if self.cut is not None:
            self.cut()

    def watch(self, save: Callable[[Live], None]) -> None:
        """Note when the first words can be seen, and store the outcome before the last frame."""
        if self.first_words_at is None and self.replies.worded:
            self.first_words_at = now()
        if self.replies.done:
            self.finish(save)

    def finish(self, save: Callable[[Live], None]) -> None:
        """Call `save` once, when the outcome is complete."""
        if not self.finished:
            self.finished = True
            save(self)

    def void_reason(self) -> str | None:
        """Why nobody can vote on this round, as a sentence for the visitor; None if they can."""
        for side, outcome in self.replies.outcomes.items():
            if outcome.error is not None:
                return Sentence(SIDE_FAILED, side=side.upper(), error=outcome.error)
        for side, outcome in self.replies.outcomes.items():
            text = showable(outcome.text)
            if outcome.reason == "stopped" and not _SENTENCE.search(text):
                return "It was stopped before both sides had said a sentence."
            if not text:
                return Sentence(SIDE_SILENT, side=side.upper())
        return None


def owner() -> str:
    """The name of this process. An earlier process with the same process id has another name."""
    return f"{socket.gethostname()}:{os.getpid()}:{_BOOT}"


class LiveRounds:
    """All streams of one arena."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._live: dict[str, Live] = {}
        self._unsaved: dict[str, Live] = {}
        self._heart: threading.Thread | None = None

    def get(self, round_id: str) -> Live | None:
        return self._live.get(round_id)

    def add(self, live: Live) -> bool:
        """Register a stream; False if this round streams here already."""
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

    def stop(self, round_id: str) -> None:
        """Stop this round's stream, if it streams here."""
        live = self._live.get(round_id)
        if live is not None:
            live.interrupt()

    def save(self, live: Live) -> None:
        """Store the outcome of a stream. On a `StorageError`, keep it for `flush` and raise."""
        try:
            self._store.finish(
                live.round_id,
                {side: outcome.row() for side, outcome in live.replies.outcomes.items()},
                void_reason=live.void_reason(),
                first_words_at=live.first_words_at,
                dropped_exchanges=live.replies.dropped,
            )
        except StorageError:
            self._unsaved[live.round_id] = live
            raise
        self._unsaved.pop(live.round_id, None)

    def flush(self, round_id: str) -> None:
        """Store the outcome of this round if the database failed earlier."""
        live = self._unsaved.get(round_id)
        if live is not None:
            self.save(live)

    def forget(self, round_ids: set[str]) -> None:
        """Stop these rounds and drop their unsaved outcomes, because their voter erases them."""
        for round_id in round_ids:
            self._unsaved.pop(round_id, None)
            self.stop(round_id)

    def sweep(self) -> int:
        """Make void the rounds of processes that have died; return their number.

        Outcomes that are not stored yet come first: the lease of their rounds may have ended.
        """
        self._store_outcomes()
        dead = [name for name in self._store.streaming_owners() if _is_dead(name)]
        return self._store.void_abandoned(dead, ABANDONED)

    def _beat(self) -> None:
        """Renew the leases and store what is unsaved, until nothing streams. No error ends it."""
        pause = threading.Event()
        while not pause.wait(min(BEAT, RETRY) if self._unsaved else BEAT):
            with self._lock:
                rounds = list({*self._live, *self._unsaved})
                if not rounds:
                    self._heart = None
                    return
            try:
                self._store.renew(rounds, owner())
                self._store_outcomes()
            except StorageError as error:
                log.warning("Leases were not renewed, or replies not stored: %s", error)
            except Exception:
                log.exception("A heartbeat failed")

    def _store_outcomes(self) -> None:
        """Store the outcomes that could not be stored earlier, also of visitors who have left.

        One that fails again does not keep the others back; the last failure is raised.
        """
        failed: StorageError | None = None
        for round_id in list(self._unsaved):
            try:
                self.flush(round_id)
            except StorageError as error:
                failed = error
        if failed is not None:
            raise failed


def _is_dead(name: str) -> bool:
    """Whether the owner `name` ran on this host and has ended."""
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
