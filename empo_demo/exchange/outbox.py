"""Hands votes over to the data set: each waits, is handed over under a lease, then is published.

A round counts as handed over before the first byte of it leaves, so whoever withdraws it then
leaves a tombstone by which it is taken out of the data set. The lease keeps other processes from
pushing the same rounds at once; a hand-over whose lease has ended is repeated. Repeating it
changes nothing in the data set (`data_set.add`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update

from empo_demo.exchange.data_set import published
from empo_demo.exchange.formats import rows_of
from empo_demo.votes.models import Round, Vote, now
from empo_demo.votes.reasons import WAIT, may_be_used
from empo_demo.votes.store import Store

LEASE = timedelta(minutes=10)
BATCH = 1_000
"""Rounds of one commit: a few megabytes."""


def is_too_young(vote: Vote) -> bool:
    """Whether nobody may see the vote yet. A comment that is added later begins the wait anew."""
    return max(vote.created_at, vote.comment_at or vote.created_at) >= now() - WAIT


def _has_waited(at: datetime) -> tuple[ColumnElement[bool], ...]:
    """`not is_too_young(vote)` at a time, as conditions of a query."""
    return (
        Vote.created_at < at - WAIT,
        or_(Vote.comment_at.is_(None), Vote.comment_at < at - WAIT),
    )


class Outbox:
    """The votes of one database that a data set does not have yet."""

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def hand_over(self) -> list[str]:
        """Take the next votes that are due, oldest first, under a lease; return their rounds."""
        at = now()
        due = (
            select(Round.id)
            .join(Vote)
            .where(*_has_waited(at), Round.pushed_at.is_(None), *may_be_used())
            .where(or_(Round.handed_over_until.is_(None), Round.handed_over_until <= at))
            .order_by(Vote.id)
            .limit(BATCH)
            .with_for_update(of=Round, skip_locked=True)
        )
        with self._database.write() as session:
            taken = list(session.scalars(due))
            session.execute(_these(taken).values(handed_over_until=at + LEASE))
        return taken

    def rows(self, taken: Sequence[str]) -> list[dict[str, Any]]:
        """The rows to publish, as the database has them now: without what was withdrawn since, and
        without those that were commented on since."""
        may_leave = (Round.id.in_(taken), *_has_waited(now()), *may_be_used())
        query = select(Round).join(Vote).where(*may_leave).order_by(Vote.id)
        with self._database.read() as session:
            rounds = list(session.scalars(query))
        return [published(row) for round_ in rounds for row in rows_of("jsonl", round_)]

    def confirm(self, taken: Sequence[str]) -> int:
        """Mark the rounds as published; return how many there are still.

        One that was commented on meanwhile may have been left out. It stays handed over, and is
        handed over again when its comment has waited.
        """
        at = now()
        waited = select(Vote.round_id).where(*_has_waited(at))
        with self._database.write() as session:
            done = session.execute(
                _these(taken)
                .where(Round.id.in_(waited))
                .values(pushed_at=at, handed_over_until=None)
                .returning(Round.id)
            )
            return len(done.all())

    def end_lease(self, taken: Sequence[str]) -> None:
        """Let anyone repeat the hand-over. The rounds stay handed over, as they may be there."""
        with self._database.write() as session:
            session.execute(
                _these(taken).where(Round.pushed_at.is_(None)).values(handed_over_until=now())
            )


def _these(taken: Sequence[str]) -> Any:
    return update(Round).where(Round.id.in_(taken))
