"""`votes import`: rounds from a file of full records. Each is checked before it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from empo_demo.errors import DataError
from empo_demo.files import json_lines
from empo_demo.votes.keeping import now
from empo_demo.votes.models import Round, Tombstone, Vote, Voter
from empo_demo.votes.reasons import not_stored
from empo_demo.votes.record import Record
from empo_demo.votes.store import Store

_BATCH = 500


@dataclass
class Imported:
    """The records that were new, known, withdrawn, or bad."""

    new: int = 0
    known: int = 0
    withdrawn: int = 0
    bad: list[str] = field(default_factory=list)

    @property
    def good(self) -> int:
        return self.new + self.known + self.withdrawn

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
    batch: list[tuple[str, Round]] = []
    for name, value in records:
        try:
            if isinstance(value, ValueError):
                raise DataError(str(value))
            batch.append((name, Record.check(value).as_round()))
        except DataError as error:
            report.bad.append(f"{name}: {error}")
        if len(batch) >= _BATCH:
            _add(store, batch, report)
            batch = []
    _add(store, batch, report)
    return report


def _add(store: Store, batch: Iterable[tuple[str, Round]], report: Imported) -> None:
    new = known = withdrawn = 0
    with store.database.write() as session:
        for name, round_ in batch:
            if session.get(Tombstone, round_.id) is not None:
                withdrawn += 1
            elif session.get(Round, round_.id) is not None:
                known += 1
            elif _receipt_taken(session, round_):
                report.bad.append(f"{name}: its receipt is another round's")
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
