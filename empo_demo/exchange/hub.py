"""Pushes votes to a data set on the Hub one day after they were cast, and takes out withdrawn ones.

What a push that broke off has left is repeated by the next one, from any process and any disk:
where a row stands follows from its round, and the data set itself says what it has. An empty
database, as after the restart of a Space, is first restored from the data set.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from empo_demo.errors import Sentence, StorageError
from empo_demo.exchange.data_set import (
    DataSet,
    Snapshot,
    add,
    card,
    cut,
    plain,
    repeat,
    rows_of,
    tombstones_of,
)
from empo_demo.exchange.hub_backup import Backup
from empo_demo.exchange.outbox import Outbox
from empo_demo.exchange.record_files import Imported, import_records
from empo_demo.votes.models import Round, Tombstone, now
from empo_demo.votes.reasons import WAIT
from empo_demo.votes.store import Store

if TYPE_CHECKING:
    from empo_demo.settings import Settings

log = logging.getLogger(__name__)
EVERY_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many rounds were published, and how many were taken out."""

    published: int
    withdrawn: int

    def __str__(self) -> str:
        return f"{self.published:,} votes published, {self.withdrawn:,} taken out"


class Pusher:
    """The pushes of one process to the data set `repo`."""

    def __init__(self, store: Store, repo: str) -> None:
        self._store, self._repo = store, repo
        self._outbox = Outbox(store)
        self._turn = threading.Lock()
        self._to_restore = store.is_empty()

    def push(self) -> Pushed:
        """Push once and wait. Raises `StorageError` in plain words if the Hub refuses."""
        with self._turn:
            return plain(self._push, f"The votes could not be pushed to {self._repo}")

    def pull(self) -> Imported:
        """Import the data set. Raises `StorageError` if it cannot be read."""
        trouble = f"The votes in {self._repo} could not be read"
        return plain(lambda: pull(self._store, DataSet(self._repo)), trouble)

    def restore(self) -> None:
        """Import the data set once if the database was empty at the start; retried on failure."""
        if not self._to_restore:
            return
        try:
            log.info("%s: %s", self._repo, self.pull())
            self._to_restore = False
        except StorageError as error:
            log.warning("%s", error)

    def start(self) -> threading.Thread:
        """Push every quarter of an hour, and soon after a published vote was withdrawn."""
        return repeat("pushes", self._restore_and_push, EVERY_MINUTES * 60, self._is_withdrawn)

    def _restore_and_push(self) -> None:
        self.restore()
        log.info("%s: %s", self._repo, self.push())

    def _is_withdrawn(self) -> bool:
        return bool(self._store.erasure.tombstones(published=True))

    def _push(self) -> Pushed:
        data_set = DataSet(self._repo)
        withdrawn = take_out(self._store, data_set)
        published = 0
        while taken := self._outbox.hand_over():
            try:
                data_set.change("Publish votes", partial(self._with_rows, taken))
                published += self._outbox.confirm(taken)
            finally:
                self._outbox.end_lease(taken)
        # Whoever withdrew a vote during the push finds it taken out with the push, not later.
        return Pushed(published, withdrawn + take_out(self._store, data_set))

    def _with_rows(self, taken: list[str], there: Snapshot) -> dict[str, str]:
        rows = list(self._outbox.rows(taken))
        return card(there, rows) | add(there, rows)


def take_out(store: Store, data_set: DataSet) -> int:
    """Remove withdrawn rounds from the data set and squash its history; return their number.

    A tombstone is settled only after the squash, so that a break before it is repeated.
    """
    withdrawn = store.erasure.tombstones(published=True)
    if not withdrawn:
        return 0

    def without(there: Snapshot) -> dict[str, str]:
        every = store.erasure.tombstones()
        return cut(there, every, every)

    data_set.change("Take out withdrawn votes", without)
    data_set.squash("Votes without the withdrawn ones")
    with store.database.write() as session:
        session.execute(
            update(Tombstone).where(Tombstone.round_id.in_(withdrawn)).values(published=False)
        )
    return len(withdrawn)


def pull(store: Store, data_set: DataSet) -> Imported:
    """Import the rounds of the data set that are neither stored nor withdrawn.

    Its voters are hashes of the stored ones. `Store.adopt` gives a returning voter their rounds.
    Stored rounds are not changed, so a pull may be repeated. A withdrawn round that the data set
    has or names is marked to be taken out: nobody can tell whether its history was squashed.
    """
    with data_set.read() as there:
        buried = set(tombstones_of(there))
        store.erasure.bury(buried)
        rows = rows_of(there)
        _mark(store, store.erasure.tombstones() & (rows.keys() | buried))
        return import_records(store, _as_pushed(rows.values()))


def last_push(store: Store) -> datetime | None:
    """The time of the last push. For restored votes it is the earliest possible time."""
    with store.database.read() as session:
        return session.scalar(select(func.max(Round.pushed_at)))


def age_of_push(store: Store, settings: Settings) -> str:
    """A sentence for the page on the last push; "" if votes are not pushed."""
    if settings.hub_dataset is None:
        return ""
    last = last_push(store)
    if last is None:
        return Sentence(
            "Nothing was pushed to {place} yet: votes go there after a day.",
            place=settings.hub_dataset,
        )
    minutes = max(0, int((now() - last).total_seconds() // 60))
    return Sentence(
        "The last push to {place} was {age} ago; votes go there after a day.",
        place=settings.hub_dataset,
        age=_age(minutes),
    )


def _age(minutes: int) -> Sentence:
    if minutes >= 2880:
        return Sentence("{n} days", n=minutes // 1440)
    if minutes >= 120:
        return Sentence("{n} hours", n=minutes // 60)
    return Sentence("{n} minutes", n=minutes)


def start_pushing(store: Store, settings: Settings) -> Pusher | None:
    """Restore an empty database, then push and back up in the background, as far as it is set.

    The data set is read before the backup: it says which of the votes are published.
    """
    backup = Backup(store, settings.hub_backup) if settings.hub_backup else None
    pusher = Pusher(store, settings.hub_dataset) if settings.hub_dataset else None
    if pusher is not None:
        pusher.restore()
    if backup is not None:
        backup.restore()
        backup.start()
    if pusher is not None:
        pusher.start()
    return pusher


def _mark(store: Store, round_ids: set[str]) -> None:
    """Mark tombstones whose rounds are in the data set."""
    if round_ids:
        with store.database.write() as session:
            session.execute(
                update(Tombstone).where(Tombstone.round_id.in_(round_ids)).values(published=True)
            )


def _as_pushed(rows: Any) -> Iterator[tuple[str, Any]]:
    """Published rows as records to import, marked as pushed. A broken row stays as it is."""
    for place, value in rows:
        try:
            record = {key: part for key, part in value.items() if key != "round_id"}
            vote_time = datetime.fromisoformat(record["vote"]["created_at"])
            pushed = (vote_time + WAIT).isoformat()
            yield place, {**record, "round": {**record["round"], "pushed_at": pushed}}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            yield place, value
