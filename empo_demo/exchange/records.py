"""A round as one JSON object with all its columns, and back: what `votes import` reads.

A record is `{"round": {…}, "replies": [{…}, {…}], "vote": {…} | null}`; times are ISO 8601.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, inspect, select
from sqlalchemy.orm import Session

from empo_demo.errors import DataError
from empo_demo.votes.keeping import now
from empo_demo.votes.models import (
    SIDES,
    Base,
    Moment,
    Reply,
    Round,
    Tombstone,
    Vote,
    Voter,
)
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import VERDICTS

_BATCH = 500


@dataclass
class Imported:
    """How many records came in, were there before, were withdrawn, and which lines are bad."""

    new: int = 0
    known: int = 0
    withdrawn: int = 0
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.new:,} rounds imported, {self.known:,} were there before"
        if self.withdrawn:
            said += f", {self.withdrawn:,} had been withdrawn"
        return said + (f", {len(self.bad):,} bad lines left out" if self.bad else "")


def record_of(round_: Round) -> dict[str, Any]:
    """All that is stored of a round."""
    return {
        "round": _columns(round_),
        "replies": [_columns(reply) for reply in round_.replies],
        "vote": _columns(round_.vote) if round_.vote is not None else None,
    }


def _columns(row: Base) -> dict[str, Any]:
    values = {column.key: getattr(row, column.key) for column in inspect(type(row)).columns}
    return {
        key: value.isoformat() if isinstance(value, datetime) else value
        for key, value in values.items()
    }


def round_of(record: Any) -> Round:
    """The rows of a record; raise `DataError` saying what is wrong with it."""
    if not isinstance(record, dict) or not isinstance(record.get("round"), dict):
        raise DataError("a record must be an object with the keys round, replies and vote")
    replies, vote = record.get("replies"), record.get("vote")
    if not isinstance(replies, list) or not isinstance(vote, dict | None):
        raise DataError("its replies must be a list and its vote an object or null")
    made: Round = _row(Round, record["round"])
    made.replies = [_row(Reply, reply) for reply in replies]
    made.vote = _row(Vote, {**vote, "id": None}) if vote is not None else None
    if sorted(str(reply.side) for reply in made.replies) != list(SIDES):
        raise DataError("a round must have the replies of the sides a and b")
    if (made.state == "voted") != (made.vote is not None):
        raise DataError("its state and its vote do not fit")
    if made.vote is not None and (made.vote.verdict not in VERDICTS or not made.vote.receipt):
        raise DataError("its vote lacks a verdict or a receipt")
    return made


def _row(table: type[Any], values: Any) -> Any:
    if not isinstance(values, dict):
        raise DataError(f"its {table.__tablename__} must be objects")
    columns = {column.key: column for column in inspect(table).columns}
    strange = sorted(set(values) - set(columns))
    if strange:
        raise DataError(f"{strange[0]!r} is no column of {table.__tablename__}")
    row = {}
    for key, column in columns.items():
        value = values.get(key)
        if value is None and not column.nullable and not column.primary_key:
            raise DataError(f"{table.__tablename__}.{key} is missing")
        if isinstance(column.type, Moment | DateTime) and value is not None:
            value = _moment(value)
        row[key] = value
    return table(**row)


def _moment(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise DataError(f"{str(value)[:40]!r} is no time (ISO 8601)") from None
    if found.tzinfo is None:
        raise DataError(f"the time {value!r} lacks its zone")
    return found


def import_file(store: Store, path: Path) -> Imported:
    """Read full records, one JSON object a line. Rounds that are there are left as they are.

    A bad line is reported with its number and the rest goes on; each batch is one transaction.
    """
    try:
        text = path.open(encoding="utf8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    report = Imported()
    batch: list[tuple[int, Round]] = []
    with text as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                batch.append((number, round_of(json.loads(line))))
            except (DataError, ValueError) as error:
                report.bad.append(f"line {number}: {error}")
            if len(batch) >= _BATCH:
                _add(store, batch, report)
                batch = []
    _add(store, batch, report)
    return report


def _add(store: Store, batch: Iterable[tuple[int, Round]], report: Imported) -> None:
    new = known = withdrawn = 0
    with store.database.write() as session:
        for number, round_ in batch:
            if session.get(Tombstone, round_.id) is not None:
                withdrawn += 1
            elif session.get(Round, round_.id) is not None:
                known += 1
            elif _receipt_taken(session, round_):
                report.bad.append(f"line {number}: its receipt is another round's")
            else:
                if session.get(Voter, round_.voter) is None:
                    session.add(Voter(id=round_.voter, created_at=now()))
                    session.flush()
                session.add(round_)
                session.flush()
                new += 1
    report.new += new
    report.known += known
    report.withdrawn += withdrawn


def _receipt_taken(session: Session, round_: Round) -> bool:
    if round_.vote is None:
        return False
    query = select(Vote.id).where(Vote.receipt == round_.vote.receipt)
    return session.scalar(query) is not None
