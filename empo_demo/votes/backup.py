"""Backups of a running system: one SQLite file, also if the votes are in PostgreSQL.

A backup has the content of one moment, without what may not be kept: rounds without consent, and
the counts of addresses.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, Table, insert, select, text

from empo_demo.errors import DataError
from empo_demo.votes.database import Database
from empo_demo.votes.models import Base
from empo_demo.votes.store import Store

_TABLES: tuple[Table, ...] = tuple(Base.metadata.sorted_tables)
_BATCH = 500


def backup(store: Store, path: Path) -> int:
    """Copy the whole database into a new SQLite file; return the number of its votes."""
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
        _leave_out(part)
        votes = check_file(part)
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


def _copy_sqlite(database: Database, part: Path) -> None:
    """SQLite's own online backup. It is consistent while votes are being cast."""
    with database.read() as session, closing(sqlite3.connect(part)) as target:
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")


def _copy_rows(database: Database, part: Path) -> None:
    """Copy all rows of one moment through SQLAlchemy into a new SQLite file."""
    target = Database(f"sqlite:///{part}")
    try:
        with database.read() as source:
            source.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            with target.write() as sink:
                _copy(source.connection(), sink.connection())
    finally:
        target.close()
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _copy(source: Connection, sink: Connection) -> None:
    for table in _TABLES:
        found = source.execution_options(yield_per=_BATCH).execute(select(table)).mappings()
        for part in found.partitions(_BATCH):
            sink.execute(insert(table), [dict(row) for row in part])


def _leave_out(part: Path) -> None:
    """Erase what may not outlive its hour, with every trace of it."""
    with closing(sqlite3.connect(part, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("DELETE FROM rounds WHERE ephemeral")
        connection.execute("DELETE FROM voters WHERE id NOT IN (SELECT voter FROM rounds)")
        connection.execute("DELETE FROM limits")
        connection.execute("VACUUM")


def check_file(path: Path) -> int:
    """The number of votes in a SQLite file. Raises `sqlite3.Error` if it is damaged."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        (votes,) = connection.execute("SELECT count(*) FROM votes").fetchone()
    return int(votes)
