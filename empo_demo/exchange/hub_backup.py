"""A private data set on the Hub with every consented vote, for a machine whose disk is wiped.

It is written every few minutes and read at the start by an empty database. It holds what an export
of full records holds, personal data masked, with the voters as the database has them. A withdrawn
vote leaves it within seconds, and its history is squashed. A vote without consent never enters it,
nor does a round with signs of a crisis or personal data: no such vote counts, so none is missed.
One in which these are noticed later, in a comment, leaves it like a withdrawn one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import or_, select

from empo_demo.errors import StorageError
from empo_demo.exchange import formats
from empo_demo.exchange.data_set import (
    DataSet,
    Snapshot,
    add,
    cut,
    plain,
    repeat,
    rows_of,
    tombstones_of,
    with_id,
)
from empo_demo.exchange.record_files import Imported, import_records
from empo_demo.votes.models import Round, Vote, now
from empo_demo.votes.store import Store

log = logging.getLogger(__name__)
EVERY_MINUTES = 3
RECENT = timedelta(days=2)
"""Votes of this age are compared each time, as ratings and comments come later. Older ones are
compared at the start."""
BATCH = 1_000


class Backup:
    """The backup of one database in the private data set `repo`."""

    def __init__(self, store: Store, repo: str) -> None:
        self._store, self._repo = store, repo
        self._turn = threading.Lock()
        self._kept: dict[str, bytes] = {}
        self._cut: set[str] = set()
        self._since: datetime | None = None
        self._to_restore = store.is_empty()

    def restore(self) -> Imported | None:
        """Import the backup once if the database was empty at the start; retried on failure."""
        if not self._to_restore:
            return None
        trouble = f"The backup in {self._repo} could not be read"
        try:
            restored = plain(self._restore, trouble)
            self._to_restore = False
        except StorageError as error:
            log.warning("%s", error)
            return None
        if restored is not None:
            log.info("%s: %s", self._repo, restored)
        return restored

    def write(self) -> int:
        """Write new and changed votes, take out withdrawn ones; return how many it was.

        Raises `StorageError` in plain words if the Hub refuses, or if `repo` is public.
        """
        with self._turn:
            return plain(self._write, f"The votes could not be backed up to {self._repo}")

    def start(self) -> threading.Thread:
        """Back up every few minutes, and soon after a vote was withdrawn."""
        return repeat("backups", self._restore_and_write, EVERY_MINUTES * 60, self._is_withdrawn)

    def _restore_and_write(self) -> None:
        self.restore()
        if written := self.write():
            log.info("%s: %d votes written or taken out", self._repo, written)

    def _is_withdrawn(self) -> bool:
        return bool(self._store.erasure.tombstones() - self._cut)

    def _restore(self) -> Imported | None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            with DataSet(self._repo, private=True).read() as there:
                self._store.erasure.bury(set(tombstones_of(there)))
                rows = rows_of(there)
                imported = import_records(self._store, map(_record, rows.values()))
        except RepositoryNotFoundError:
            log.info("%s does not exist yet; the first backup makes it", self._repo)
            return None
        self._store.adopt_restored()
        return imported

    def _write(self) -> int:
        data_set = DataSet(self._repo, private=True)
        written = self._take_out(data_set)
        began = now()
        for batch in self._batches():
            digests = {round_id: _digest(row) for round_id, row in batch.items()}
            new = [name for name in batch if self._kept.get(name) != digests[name]]
            if new:
                data_set.change("Back up votes", partial(self._with_rows, new))
                self._kept |= {name: digests[name] for name in new}
                written += len(new)
        self._since = began - RECENT
        return written

    def _take_out(self, data_set: DataSet) -> int:
        """Cut the rounds that were withdrawn since the last time, and those in which something was
        noticed that keeps them here; at the start, all of them."""
        unwanted = self._store.erasure.tombstones() | self._flagged()
        new = unwanted - self._cut
        if not new:
            return 0

        def without(there: Snapshot) -> dict[str, str]:
            withdrawn = self._store.erasure.tombstones()
            return cut(there, withdrawn | self._flagged(), withdrawn)

        data_set.change("Take out withdrawn votes", without)
        data_set.squash("Votes without the withdrawn ones")
        self._cut |= new
        for name in new:
            self._kept.pop(name, None)
        return len(new)

    def _flagged(self) -> set[str]:
        """The voted rounds with signs of a crisis or personal data."""
        query = select(Round.id).join(Vote).where(or_(Round.crisis, Round.personal))
        with self._store.database.read() as session:
            return set(session.scalars(query))

    def _with_rows(self, names: list[str], there: Snapshot) -> dict[str, str]:
        """The rows as the database has them now: without what was withdrawn meanwhile."""
        with self._store.database.read() as session:
            rounds = list(session.scalars(_wanted().where(Round.id.in_(names))))
        return add(there, map(_row, rounds), replace=True)

    def _batches(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The rows to compare, by round, oldest vote first: recent ones, at the start all."""
        last = 0
        while True:
            query = _wanted().where(Vote.id > last).limit(BATCH)
            if self._since is not None:
                query = query.where(Vote.created_at > self._since)
            with self._store.database.read() as session:
                rounds = list(session.scalars(query))
            if not rounds:
                return
            yield {round_.id: _row(round_) for round_ in rounds}
            last = max(round_.vote.id for round_ in rounds if round_.vote is not None)


def _wanted() -> Any:
    return (
        select(Round)
        .join(Vote)
        .where(Round.ephemeral.is_(False), Round.consent.is_not(None))
        .where(Round.crisis.is_(False), Round.personal.is_(False))
        .order_by(Vote.id)
    )


def _row(round_: Round) -> dict[str, Any]:
    (record,) = formats.rows_of("jsonl", round_)
    return with_id(record)


def _record(row: tuple[str, Any]) -> tuple[str, Any]:
    """A row as a record to import. A broken row stays as it is."""
    place, value = row
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if key != "round_id"}
    return place, value


def _digest(row: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
