"""Files of full records: import, backup and restore. Each record is checked as a visitor's is.

This is the only way in: for `votes import` and `pull`, and for both kinds of backup.

A backup is an export of full records that masks nothing. Its first line says how much it holds;
tombstones follow, then the records with their voters, the oldest vote first, all of one moment. It
has no round without consent, no address and no key. A restore is an import into an emptied store,
in one transaction: each record is checked, and a bad one is named and left out.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from empo_demo import __version__
from empo_demo.errors import DataError, NotFound, StorageError
from empo_demo.files import json_lines, written_whole
from empo_demo.votes.database import changed
from empo_demo.votes.erasure import bury, mark
from empo_demo.votes.models import Reply, Round, Tombstone, Vote, Voter
from empo_demo.votes.reasons import not_stored
from empo_demo.votes.record import Record, TombstoneRecord, check, columns_of, record_of
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


_SQLITE = b"SQLite format 3\x00"


class Restored(Imported):
    """The rounds and votes that are stored now, and the rounds that were left out."""

    def __str__(self) -> str:
        said = f"{self.votes:,} votes in {self.new:,} rounds restored"
        return said + not_stored(self.withdrawn, len(self.bad), "lines")


def backup(store: Store, path: Path) -> int:
    """Write all that is stored with consent into a new file; return the number of votes."""
    if path.exists():
        raise DataError(f"{path} exists already. Name a new file.")
    if not path.parent.is_dir():
        raise DataError(f"The folder {path.parent} does not exist. Make it first.")
    with written_whole(path) as part, part.open("w", encoding="utf8") as file:
        return _write(store, file)


def _write(store: Store, file: TextIO) -> int:
    """Write one moment of the store, also while votes are cast; return the number of votes."""
    agreed = Round.ephemeral.is_(False)
    oldest_first = (Vote.id.is_(None), Vote.id, Round.created_at)
    rounds = select(Round).outerjoin(Vote).where(agreed).order_by(*oldest_first)
    with store.database.read() as session:
        if not store.database.sqlite:
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        votes = session.scalar(select(func.count(Vote.id)).join(Round).where(agreed)) or 0
        held = {
            "rounds": session.scalar(select(func.count()).select_from(Round).where(agreed)),
            "votes": votes,
            "app_version": __version__,
        }
        _line(file, {"backup": held})
        for tombstone in session.scalars(select(Tombstone)):
            _line(file, {"tombstone": columns_of(tombstone)})
        voters = {voter.id: columns_of(voter) for voter in session.scalars(select(Voter))}
        for round_ in session.scalars(rounds.execution_options(yield_per=_BATCH)):
            _line(file, {**record_of(round_), "voter": voters[round_.voter]})
    return votes


def _line(file: TextIO, value: dict[str, Any]) -> None:
    file.write(f"{json.dumps(value, ensure_ascii=False)}\n")


def restore(store: Store, path: Path) -> Restored:
    """Replace all stored rounds by the good ones of a backup; withdrawn ones stay withdrawn.

    The limits stay as they are. Raises `DataError` if the file is not a backup, is cut off, or has
    no good round; then nothing is changed.
    """
    if not path.is_file():
        raise NotFound(f"There is no backup at {path}.")
    report = Restored()
    with _current(path) as file, store.database.write() as session:
        rounds, lines = _opened(file, path)
        for table in (Vote, Reply, Round, Voter):
            mark(session, changed(session.execute(delete(table))))
        for batch in good_records(lines, report):
            add(session, batch, report)
            session.expunge_all()
        if report.bad and not report.new:
            raise DataError(
                f"{path} holds no round that can be restored; nothing was changed. The first "
                f"fault: {report.bad[0]}."
            )
        if report.total < rounds:
            raise DataError(
                f"{path} is cut off: it has {report.total:,} of {rounds:,} rounds; nothing was "
                "changed. `votes import` adds those that it has."
            )
    return report


def _opened(file: Path, path: Path) -> tuple[int, Iterator[tuple[str, Any]]]:
    """The number of rounds that a backup must have, and its other lines with their names."""
    lines = json_lines(file)
    try:
        _, first = next(lines, (0, None))
    except DataError as error:
        raise DataError(f"{path} is not a backup, or is damaged ({error})") from None
    held = first.get("backup") if isinstance(first, dict) else None
    if not isinstance(held, dict) or type(held.get("rounds")) is not int:
        raise DataError(
            f"{path} is not a backup: `votes backup` writes one. `votes import` reads a file of "
            "`votes export --format jsonl`."
        )
    return held["rounds"], ((f"line {number}", value) for number, value in lines)


@contextmanager
def _current(path: Path) -> Iterator[Path]:
    """The backup itself, or one made of an earlier version's, which was a SQLite database."""
    with path.open("rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            yield path
            return
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=path.parent) as folder:
        copy, made = Path(folder, "votes.sqlite3"), Path(folder, "votes.jsonl")
        try:
            with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(copy)) as new:
                old.execute("SELECT count(*) FROM votes")
                old.backup(new)
            store = Store.open(f"sqlite:///{copy}", create=False)
            try:
                backup(store, made)
            finally:
                store.close()
        except (sqlite3.Error, StorageError, ValueError) as error:
            raise DataError(f"{path} is not a backup, or is damaged ({error}).") from None
        yield made
