"""Erases withdrawn rounds and visits without consent, and then the bytes in SQLite's files.

A withdrawn round leaves a tombstone, which is only its id.

`secure_delete` overwrites a deleted row, but not the copies of it that SQLite leaves in the gaps of
a page when it moves rows, and not those in the write-ahead log. So whoever erases marks the file in
the same transaction, and the janitor rebuilds a marked file and empties its log. The mark is in the
file itself: it outlives a crash, and every process sees it.

PostgreSQL reuses the places of erased rows itself, and its operator decides on its log.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, or_, select, text
from sqlalchemy.orm import Session

from empo_demo.votes.database import Database, changed
from empo_demo.votes.models import (
    Limit,
    Round,
    Tombstone,
    Voter,
    now,
    published_voter,
    voter_id,
)

EPHEMERAL_LIFE = timedelta(hours=1)
"""What is stored without consent, and hashed addresses, are nowhere longer than this."""
DUE, ERASED = timedelta(minutes=55), timedelta(minutes=50)
"""At the first age the janitor begins, and erases all that has the second, and so not too often."""
MAY_BE_PUBLISHED = or_(Round.pushed_at.is_not(None), Round.handed_over_until.is_not(None))
"""Also of a push that failed here some rows may have arrived."""


def may_be_shown() -> ColumnElement[bool]:
    """No round without consent that should be erased: while the database was away, nobody could."""
    return or_(Round.ephemeral.is_(False), Round.created_at > now() - EPHEMERAL_LIFE)


def bury(session: Session, tombstones: Iterable[Tombstone]) -> None:
    """Store tombstones that are new, and erase their rounds. One that was pushed from here is
    marked as published."""
    known = set(session.scalars(select(Tombstone.round_id)))
    new = {stone.round_id: stone for stone in tombstones if stone.round_id not in known}
    there = select(Round.id).where(Round.id.in_(new), MAY_BE_PUBLISHED).with_for_update()
    for name in session.scalars(there):
        new[name].published = True
    mark(session, changed(session.execute(delete(Round).where(Round.id.in_(new)))))
    session.add_all(new.values())
    session.flush()


class Erasure:
    """Erases from one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bury(self, round_ids: set[str]) -> None:
        """Store tombstones of rounds that were withdrawn elsewhere, so that no import adds them."""
        with self._database.write() as session:
            bury(session, (Tombstone(round_id=n, at=now(), published=False) for n in round_ids))

    def erase_voter(self, token: str) -> int:
        """Erase everything of a voter; return the number of rounds.

        The count for the rate limit stays until its window ends, so that erasing does not reset it.
        """
        voter, at = voter_id(token), now()
        names = (voter, published_voter(voter))  # The second has what came back from a data set.
        with self._database.write() as session:
            query = select(Round.id, MAY_BE_PUBLISHED, Round.ephemeral)
            # A push that takes one of these rounds now waits, so it is marked or not taken.
            rounds = session.execute(query.where(Round.voter.in_(names)).with_for_update()).all()
            for round_id, published, ephemeral in rounds:
                if not ephemeral:
                    session.add(Tombstone(round_id=round_id, at=at, published=published))
            session.execute(delete(Round).where(Round.voter.in_(names)))
            mark(session, changed(session.execute(delete(Voter).where(Voter.id.in_(names)))))
            return len(rounds)

    def erase_round(self, token: str, round_id: str) -> bool:
        """Erase one round of a voter with its vote; return whether it existed.

        As in `erase_voter`, a round with consent leaves a tombstone. Rounds that continue it stay:
        they have the dialogue in themselves.
        """
        own = (Round.id == round_id, Round.voter == voter_id(token))
        with self._database.write() as session:
            query = select(MAY_BE_PUBLISHED, Round.ephemeral).where(*own).with_for_update()
            row = session.execute(query).first()
            if row is None:
                return False
            published, ephemeral = row
            if not ephemeral:
                session.add(Tombstone(round_id=round_id, at=now(), published=published))
            mark(session, changed(session.execute(delete(Round).where(*own))))
            return True

    def purge(self, *, token: str | None = None) -> int:
        """Erase rounds without consent: all of the voter `token`, else those near an hour's age.

        Hashed addresses, and voters without a round, go with the latter.
        """
        before = now() - ERASED
        stale = Round.created_at < before if token is None else Round.voter == voter_id(token)
        idle = Voter.created_at < before if token is None else Voter.id == voter_id(token)
        with self._database.write() as session:
            gone = session.execute(delete(Round).where(stale, Round.ephemeral.is_(True)))
            limits = session.execute(delete(Limit).where(Limit.at < before))
            rounds = select(Round.id).where(Round.voter == Voter.id).exists()
            voters = session.execute(delete(Voter).where(idle, ~rounds))
            mark(session, changed(gone) + changed(limits) + changed(voters))
            return changed(gone)

    def is_due(self) -> bool:
        """Whether something must be erased now, so that nothing outlives `EPHEMERAL_LIFE`."""
        before = now() - DUE
        stale = select(Round.id).where(Round.ephemeral.is_(True), Round.created_at < before)
        counted = select(Limit.id).where(Limit.at < before)
        with self._database.read() as session:
            return any(session.scalar(query.limit(1)) is not None for query in (stale, counted))

    def tombstones(self, *, published: bool | None = None) -> set[str]:
        """The ids of withdrawn rounds; with `published`, only those (not) in the data set."""
        query = select(Tombstone.round_id)
        if published is not None:
            query = query.where(Tombstone.published.is_(published))
        with self._database.read() as session:
            return set(session.scalars(query))


PATIENCE_MS = 1_000
"""How long to wait for other processes: writers wait meanwhile. The janitor tries again."""


def mark(session: Session, erased: int) -> None:
    """Say, in the transaction that erased so many rows, that the file may still hold them."""
    if erased and session.get_bind().dialect.name == "sqlite":
        erasures = session.scalar(text("PRAGMA user_version")) or 0
        session.execute(text(f"PRAGMA user_version = {erasures % 2**30 + 1}"))


def is_marked(database: Database) -> bool:
    """Whether a file may still hold what was erased. Always false for PostgreSQL."""
    if database.path is None:
        return False
    with database.read() as session:
        return bool(session.scalar(text("PRAGMA user_version")))


def scrub(database: Database) -> bool:
    """Rebuild a marked file and empty its log; False if a reader is in the way.

    Nobody can write meanwhile: 100 MB took 1.7 s on two busy cores. Raises `StorageError`.
    """
    if database.path is None:
        return True
    with database.alone() as connection:
        (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
        (mark_before,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA busy_timeout={PATIENCE_MS}")
        try:
            if mark_before:
                connection.execute("VACUUM")
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute(f"PRAGMA busy_timeout={patience}")
        if busy:
            return False
        if mark_before:
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Another process may have erased more since.
                if connection.execute("PRAGMA user_version").fetchone() == (mark_before,):
                    connection.execute("PRAGMA user_version = 0")
            finally:
                connection.execute("COMMIT")
    return True
