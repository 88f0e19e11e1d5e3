"""Backups of a running system: one SQLite file, whichever database the votes are in.

A backup is one moment's whole content. Restoring replaces all rows in one transaction, and what
was withdrawn since the backup stays withdrawn.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, Table, delete, insert, select, text

from empo_demo.errors import DataError, NotFound
from empo_demo.votes.database import Database
from empo_demo.votes.models import Base, Reply, Round, Tombstone, Vote
from empo_demo.votes.store import Store

_TABLES: tuple[Table, ...] = tuple(Base.metadata.sorted_tables)
_BATCH = 500


def backup(store: Store, path: Path) -> int:
    """Copy the whole database into a new SQLite file; return how many votes it holds."""
    if path.exists():
        raise DataError(f"{path} exists already. Name a new file.")
    if not path.parent.is_dir():
        raise DataError(f"The folder {path.parent} does not exist. Make it first.")
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        if store.database.path is not None:
            _copy_sqlite(store.database, part)
        else:
            _copy_rows(store.database, part)
        votes = _check(part)
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be written: {error}.") from None
    finally:
        for left in (part, Path(f"{part}-wal"), Path(f"{part}-shm")):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    return votes


def restore(store: Store, path: Path) -> int:
    """Replace the store's content by a backup's; return how many votes it holds now.

    A backup of an older version is migrated in a copy first; the file itself is not touched.
    """
    if not path.is_file():
        raise NotFound(f"There is no backup at {path}.")
    try:
        _check(path)
    except sqlite3.Error as error:
        raise DataError(f"{path} is not a backup, or is damaged ({error}).") from None
    copy = path.with_name(f"{path.name}.restoring")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        source_database = Database(f"sqlite:///{copy}", create=False)
        try:
            return _replace_all(store.database, source_database)
        finally:
            source_database.close()
    finally:
        for left in (copy, Path(f"{copy}-wal"), Path(f"{copy}-shm")):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _copy_sqlite(database: Database, part: Path) -> None:
    """SQLite's own online backup: consistent, while votes go on being cast."""
    with database.read() as session, closing(sqlite3.connect(part)) as target:
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")


def _copy_rows(database: Database, part: Path) -> None:
    """All rows of one moment, through SQLAlchemy, into a fresh SQLite file."""
    target = Database(f"sqlite:///{part}")
    try:
        with database.read() as source:
            source.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            with target.write() as sink:
                _copy(source.connection(), sink.connection(), set())
    finally:
        target.close()
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _replace_all(database: Database, backup: Database) -> int:
    with backup.read() as source, database.write() as sink:
        withdrawn = set(sink.scalars(select(Tombstone.round_id)))
        for table in reversed(_TABLES):
            if table.name != Tombstone.__tablename__:
                sink.execute(delete(table))
        _copy(source.connection(), sink.connection(), withdrawn)
        if not database.sqlite:
            sink.execute(
                text("SELECT setval(pg_get_serial_sequence('votes', 'id'), "
                     "(SELECT coalesce(max(id), 0) + 1 FROM votes), false)")
            )  # fmt: skip
            sink.execute(
                text("SELECT setval(pg_get_serial_sequence('limits', 'id'), "
                     "(SELECT coalesce(max(id), 0) + 1 FROM limits), false)")
            )  # fmt: skip
        return len(sink.scalars(select(Vote.id)).all())


def _copy(source: Connection, sink: Connection, withdrawn: set[str]) -> None:
    keys = {Round.__tablename__: "id", Reply.__tablename__: "round_id"}
    keys |= {Vote.__tablename__: "round_id", Tombstone.__tablename__: "round_id"}
    for table in _TABLES:
        key = keys.get(table.name)
        found = source.execution_options(yield_per=_BATCH).execute(select(table)).mappings()
        for part in found.partitions(_BATCH):
            rows = [dict(row) for row in part if key is None or row[key] not in withdrawn]
            if rows:
                sink.execute(insert(table), rows)


def _check(path: Path) -> int:
    """The votes in a SQLite file; raise `sqlite3.Error` where it is damaged or something else."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        (votes,) = connection.execute("SELECT count(*) FROM votes").fetchone()
    return int(votes)
