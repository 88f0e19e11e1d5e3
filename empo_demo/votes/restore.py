"""`votes restore`: replaces all stored rounds by the content of a backup, in one transaction.

Rounds that were withdrawn after the backup stay withdrawn. Every round of the backup is checked
before it is stored; a bad one is named and left out.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Boolean, delete, inspect, select, text

from empo_demo.errors import DataError, NotFound
from empo_demo.files import parse_json
from empo_demo.votes.backup import check_file
from empo_demo.votes.database import Database
from empo_demo.votes.keeping import changed
from empo_demo.votes.models import Base, Moment, Reply, Round, Secret, Tombstone, Vote, Voter
from empo_demo.votes.reasons import not_stored
from empo_demo.votes.record import Part, Record, TombstoneRecord, VoterRecord, check
from empo_demo.votes.scrub import mark
from empo_demo.votes.store import Store

_BATCH = 500


@dataclass
class Restored:
    """The number of rounds and votes that are stored now, and the rounds that were left out."""

    rounds: int = 0
    votes: int = 0
    withdrawn: int = 0
    bad: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.votes:,} votes in {self.rounds:,} rounds restored"
        return said + not_stored(self.withdrawn, len(self.bad), "rows")


def restore(store: Store, path: Path) -> Restored:
    """Replace the content of the store by the good rows of a backup.

    A backup of an older version is migrated in a copy; the file itself is not changed. Raises
    `DataError` if the backup has no usable content; then nothing is changed.
    """
    if not path.is_file():
        raise NotFound(f"There is no backup at {path}.")
    try:
        check_file(path)
    except sqlite3.Error as error:
        raise DataError(f"{path} is not a backup, or is damaged ({error}).") from None
    copy = path.with_name(f"{path.name}.restoring")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        Database(f"sqlite:///{copy}", create=False).close()
        with closing(sqlite3.connect(copy)) as source:
            return _replace_all(store.database, source, path)
    except sqlite3.Error as error:
        raise DataError(f"{path} is not a backup, or is damaged ({error}).") from None
    finally:
        for left in (copy, Path(f"{copy}-wal"), Path(f"{copy}-shm")):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _replace_all(database: Database, source: sqlite3.Connection, path: Path) -> Restored:
    """Replace everything in one transaction. The rate limits stay as they are."""
    source.row_factory = sqlite3.Row
    source.text_factory = _text
    report = Restored()
    with database.write() as sink:
        withdrawn = set(sink.scalars(select(Tombstone.round_id)))
        for table in (Vote, Reply, Round, Voter, Secret):
            mark(sink, changed(sink.execute(delete(table))))
        for row in _rows(source, Secret):
            if isinstance(row["name"], str) and isinstance(row["value"], str):
                sink.add(Secret(name=row["name"], value=row["value"]))
        for tombstone in _checked(source, Tombstone, TombstoneRecord, report):
            if tombstone.round_id not in withdrawn:
                sink.add(Tombstone(**tombstone.model_dump()))
                withdrawn.add(tombstone.round_id)
        voters = set()
        for voter in _checked(source, Voter, VoterRecord, report):
            sink.add(Voter(**voter.model_dump()))
            voters.add(voter.id)
        sink.flush()
        for number, (name, value) in enumerate(_records(source), start=1):
            if value["round"].get("id") in withdrawn:
                report.withdrawn += 1
                continue
            try:
                round_ = Record.check(value).as_round(vote_id=True)
            except DataError as error:
                report.bad.append(f"{name}: {error}")
                continue
            if round_.voter not in voters:
                voters.add(round_.voter)
                sink.add(Voter(id=round_.voter, created_at=round_.created_at))
                sink.flush()
            sink.add(round_)
            report.rounds += 1
            report.votes += round_.vote is not None
            if number % _BATCH == 0:
                sink.flush()
                sink.expunge_all()
        if report.bad and not report.rounds:
            raise DataError(
                f"{path} holds no round that can be restored; nothing was changed. The first "
                f"fault: {report.bad[0]}."
            )
        sink.flush()
        if not database.sqlite:
            sink.execute(
                text("SELECT setval(pg_get_serial_sequence('votes', 'id'), "
                     "(SELECT coalesce(max(id), 0) + 1 FROM votes), false)")
            )  # fmt: skip
    return report


def _records(source: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each round of a backup as (name, record), unchecked, the oldest vote first."""
    votes = {row["round_id"]: row for row in _rows(source, Vote)}
    replies: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(source, Reply):
        replies[row["round_id"]].append(row)
    for row in _rows(source, Round):
        own = row.get("id")
        yield (
            f"round {str(own)[:40]}",
            {"round": row, "replies": replies.get(own, []), "vote": votes.get(own)},
        )


def _rows(source: sqlite3.Connection, table: type[Base]) -> Iterator[dict[str, Any]]:
    """The rows of a table as JSON values. SQLite keeps JSON and times as text, booleans as 0 and 1.

    A value that does not fit the type of its column stays as it is; the check names it later.
    """
    kinds = {column.key: column.type for column in inspect(table).columns}
    query = f"SELECT {', '.join(kinds)} FROM {table.__tablename__}"
    for row in source.execute(query):
        yield {key: _value(kind, row[key]) for key, kind in kinds.items()}


def _value(kind: Any, value: Any) -> Any:
    if isinstance(kind, JSON) and isinstance(value, str):
        with suppress(ValueError):
            return parse_json(value)
    if isinstance(kind, Boolean) and value in (0, 1):
        return bool(value)
    if isinstance(kind, Moment) and isinstance(value, str):
        with suppress(ValueError):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return value


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _checked(
    source: sqlite3.Connection, table: type[Base], model: type[Part], report: Restored
) -> Iterator[Part]:
    for row in _rows(source, table):
        try:
            yield check(model, row)
        except DataError as error:
            report.bad.append(f"{table.__tablename__}: {error}")
