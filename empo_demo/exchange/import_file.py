"""Rounds from files of full records: each is checked as a visitor's is before it is stored.

This is the only way in: for `votes import` and `pull`, and for both kinds of backup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from empo_demo.errors import DataError
from empo_demo.files import json_lines
from empo_demo.votes.erasure import bury
from empo_demo.votes.models import Round, Tombstone, Vote, Voter
from empo_demo.votes.reasons import not_stored
from empo_demo.votes.record import Record, TombstoneRecord, check
from empo_demo.votes.store import Store

Named = tuple[str, Record | TombstoneRecord]
_BATCH = 500


@dataclass
class Imported:
    """The records that were new, known, withdrawn, or bad; `votes` are those of new rounds."""

    new: int = 0
    votes: int = 0
    known: int = 0
    withdrawn: int = 0
    bad: list[str] = field(default_factory=list)

    @property
    def good(self) -> int:
        return self.new + self.known + self.withdrawn

    @property
    def total(self) -> int:
        return self.good + len(self.bad)

    def __str__(self) -> str:
        said = f"{self.new:,} rounds imported, {self.known:,} were there before"
        return said + not_stored(self.withdrawn, len(self.bad), "lines")


def import_file(store: Store, path: Path) -> Imported:
    """Add the records of a file, one JSON object a line; see `import_records`."""
    return import_records(store, ((f"line {number}", value) for number, value in json_lines(path)))


def import_records(store: Store, records: Iterable[tuple[str, Any]]) -> Imported:
    """Add records, given as (name, parsed JSON or the `ValueError` of parsing it).

    Stored rounds are not changed, and withdrawn ones stay withdrawn. A bad record is reported by
    its name, and the others are imported. Each batch is one transaction.
    """
    report = Imported()
    for batch in good_records(records, report):
        with store.database.write() as session:
            add(session, batch, report)
    return report


def good_records(records: Iterable[tuple[str, Any]], report: Imported) -> Iterator[list[Named]]:
    """The good records in batches. The bad ones are reported; a backup's first line is none."""
    good = _checked(records, report)
    while batch := list(islice(good, _BATCH)):
        yield batch


def _checked(records: Iterable[tuple[str, Any]], report: Imported) -> Iterator[Named]:
    for name, value in records:
        keys = value.keys() if isinstance(value, dict) else ()
        try:
            if isinstance(value, ValueError):
                raise DataError(str(value))
            if list(keys) == ["tombstone"]:
                yield name, check(TombstoneRecord, value["tombstone"])
            elif list(keys) != ["backup"]:
                yield name, Record.check(value)
        except DataError as error:
            report.bad.append(f"{name}: {error}")


def add(session: Session, batch: Sequence[Named], report: Imported) -> None:
    """Store a batch inside the transaction of `session`, tombstones first, and count it."""
    if tombstones := [part for _, part in batch if isinstance(part, TombstoneRecord)]:
        bury(session, (Tombstone(**part.model_dump()) for part in tombstones))
    records = [(name, part) for name, part in batch if isinstance(part, Record)]
    ids = [record.round.id for _, record in records]
    buried = _stored(session, Tombstone.round_id, ids)
    known = _stored(session, Round.id, ids)
    receipts = _stored(session, Vote.receipt, [r.vote.receipt for _, r in records if r.vote])
    voters = _stored(session, Voter.id, [record.round.voter for _, record in records])
    for name, record in records:
        receipt = record.vote.receipt if record.vote else None
        if record.round.id in buried:
            report.withdrawn += 1
        elif record.round.id in known:
            report.known += 1
        elif receipt in receipts:
            report.bad.append(f"{name}: its receipt is another round's")
        else:
            if record.round.voter not in voters:
                session.add(record.as_voter())
                session.flush()
            session.add(record.as_round())
            session.flush()
            voters.add(record.round.voter)
            known.add(record.round.id)
            if receipt is not None:
                receipts.add(receipt)
            report.new += 1
            report.votes += record.vote is not None


def _stored(session: Session, column: InstrumentedAttribute[str], values: list[str]) -> set[str]:
    """Those of the values that the column has."""
    return set(session.scalars(select(column).where(column.in_(values))))
