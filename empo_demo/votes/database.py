"""The connection to SQLite or PostgreSQL: short transactions, one writer, plain errors.

`read()` and `write()` yield a SQLAlchemy session. A write is one transaction: it is stored whole or
not at all. Every error of the driver becomes a `StorageError` of one line. Opening a database
migrates its schema up. A file system is asked whether its locks are reliable and it survives a
restart.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from empo_demo.errors import NotFound, Sentence, SettingsError, StorageError
from empo_demo.votes.migrations import HEAD, REVISIONS

BUSY_SECONDS = 30
_MIGRATION_LOCK = 0x456D504F  # any constant that all replicas share: "EmPO"


class Database:
    """One database, shared by all threads of the process."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open `url` (create it if `create`), migrate it up; raise `StorageError` or `NotFound`."""
        self.url = _parse(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.path = _path(self.url) if self.sqlite else None
        self.warnings: list[str] = []
        self._exclusive = self.path is not None and unreliable_locks(self.path)
        self._single = self.sqlite and (self.path is None or self._exclusive)
        self._lock = threading.RLock()
        self._inode: int | None = None
        self.closed = threading.Event()
        if self.path is not None:
            self._check_place(self.path, create)
        self.engine = self._engine()
        self._writer = self.engine.execution_options(begin="IMMEDIATE")
        self._prepare()

    def close(self) -> None:
        """Close all connections; a single one when no thread uses it, or SQLite would crash."""
        self.closed.set()
        with self._lock if self._single else nullcontext():
            self.engine.dispose()

    @property
    def name(self) -> str:
        """The name of the database for people, without a password."""
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading. Its objects may be used after it."""
        guard = self._lock if self._single else nullcontext()
        with guard, self._plain_errors(), Session(self.engine, expire_on_commit=False) as session:
            self._check_file()
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction: committed at the end, rolled back on any exception.

        Writers of one process wait for a lock, so that SQLite never answers "database is locked".
        The busy timeout lets them wait for writers of other processes.
        """
        guard = self._lock if self.sqlite else nullcontext()
        with guard, self._plain_errors(), Session(self._writer, expire_on_commit=False) as session:
            self._check_file()
            with session.begin():
                yield session

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """SQLite's own connection, in no transaction, while no thread of this process writes."""
        with self._lock, self._plain_errors():
            self._check_file()
            with self.engine.connect() as connection:
                yield connection.connection.driver_connection

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise self._explained(str(getattr(error, "orig", None) or error)) from error

    def _explained(self, reason: str) -> StorageError:
        known = {
            "readonly": "can only be read: make the file and its folder writable",
            "read-only": "can only be read at present",
            "disk is full": "has no space left: free some disk space",
            "disk I/O": "cannot be written: check the disk and its free space",
            "No space left": "has no space left: free some disk space",
            "malformed": "is damaged: restore a backup (votes restore FILE)",
            "not a database": "is not a database file, or is damaged: name another one in "
            "EMPO_DATABASE, or restore a backup (votes restore FILE)",
            "unable to open": "cannot be opened: check that its folder exists and is writable",
            "locked": "is in use by another process: try again in a moment",
            "password authentication": "refuses the user name or password in EMPO_DATABASE",
            "no such table": "lacks a table: restore a backup (votes restore FILE)",
        }
        for part, words in known.items():
            if part in reason:
                unsaved = "The database {what}. Nothing was saved."
                return StorageError(
                    f"The database {self.name} {words}. Nothing was saved.",
                    Sentence(unsaved, what=words),
                )
        first = reason.strip().splitlines()[0] if reason.strip() else "no answer"
        return self._error(
            f"cannot be reached ({first}). Nothing was saved.", "cannot be reached at present."
        )

    def _error(self, words: str, public: str | None = None) -> StorageError:
        """An error that names the database for the operator, but not for visitors."""
        return StorageError(f"The database {self.name} {words}", f"The database {public or words}")

    def _engine(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url,
                pool_pre_ping=True,
                pool_size=16,
                max_overflow=32,
                pool_timeout=BUSY_SECONDS,
                connect_args={"connect_timeout": 5},
            )
        options: dict[str, Any] = (
            {"poolclass": StaticPool}
            if self._single
            else {"pool_size": 16, "max_overflow": 64, "pool_timeout": BUSY_SECONDS}
        )
        return self._sqlite_engine("rw", **options)

    def _sqlite_engine(self, mode: str, *, foreign_keys: bool = True, **options: Any) -> Engine:
        # "rw" never creates a file: a database that vanished must not come back empty.
        target = f"file:{self.path}?mode={mode}&uri=true" if self.path else ":memory:"
        engine = create_engine(
            f"sqlite:///{target}",
            connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
            **options,
        )
        exclusive = self._exclusive

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # only SQLAlchemy begins and commits
            if exclusive:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            # An exclusive connection keeps its journal, so DELETE would leave erased text there.
            connection.execute(f"PRAGMA journal_mode={'TRUNCATE' if exclusive else 'WAL'}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
            connection.execute("PRAGMA secure_delete=ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            kind = connection.get_execution_options().get("begin", "DEFERRED")
            connection.exec_driver_sql(f"BEGIN {kind}")

        return engine

    def _check_place(self, path: Path, create: bool) -> None:
        if not path.parent.is_dir():
            raise StorageError(
                f"The folder of the database, {path.parent}, does not exist. Make it, or set "
                "EMPO_DATABASE to another place."
            )
        if not create and not path.exists():
            raise NotFound(f"There is no database at {path}. Set EMPO_DATABASE or --database.")
        if self._exclusive:
            self.warnings.append(
                f"{path} lies on a file system without reliable locks: only one process can use "
                "this database at a time. For several, set EMPO_DATABASE to a PostgreSQL URL."
            )

    def _check_file(self) -> None:
        """Refuse to write to a file that was deleted or moved while the connection was open."""
        if self.path is None:
            return
        try:
            inode = self.path.stat().st_ino
        except OSError:
            self.engine.dispose()
            raise self._error("is gone. Nothing was saved; put the file back.") from None
        if self._inode is not None and inode != self._inode:
            self.engine.dispose()
            self._inode = inode
            self._prepare()

    def _prepare(self) -> None:
        """Migrate the schema to the newest revision, once, even if several processes start."""
        with self._lock, self._plain_errors():
            engine = self.engine
            if self.path is not None:
                # With foreign keys on, rebuilding a table would delete the rows that refer to it.
                engine = self._sqlite_engine("rwc", foreign_keys=False, poolclass=NullPool)
            with engine.execution_options(begin="IMMEDIATE").begin() as connection:
                if not self.sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                migrate(connection, name=self.name)
            if self.path is not None:
                engine.dispose()
                self._inode = self.path.stat().st_ino


def changed(result: Any) -> int:
    """The number of rows that a statement changed."""
    return int(result.rowcount) if isinstance(result, CursorResult) else 0


def migrate(connection: Connection, *, name: str = "", to: str = HEAD) -> None:
    """Migrate the schema of `connection` up to revision `to`, inside its transaction."""
    current = _revision(connection)
    if current == to:
        return
    if current is not None and current not in REVISIONS:
        raise StorageError(
            f"The database {name} has the schema {current}, which this version does not know. "
            "Update the app; nothing was changed."
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    number = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(number) if number is not None else None


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(
            f"EMPO_DATABASE holds {url!r}; it may hold a SQLAlchemy URL "
            "(sqlite:///votes.sqlite3 or postgresql://user:password@host/name)."
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _path(url: URL) -> Path | None:
    if not url.database or url.database == ":memory:":
        return None
    return Path(url.database).expanduser().resolve()


_UNRELIABLE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"),
    *("vboxsf", "prl_fs", "davfs"),
}


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `path`; "" if the system does not say."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def unreliable_locks(path: Path, mounts: str | None = None) -> bool:
    """Whether SQLite's locks (and WAL's shared memory) are unreliable at `path`."""
    kind = filesystem_of(path, mounts)
    return kind in _UNRELIABLE or kind.startswith("fuse.") or kind == "fuse"


def lost_on_restart(path: Path, environment: Mapping[str, str] | None = None) -> bool:
    """Whether `path` is on the ephemeral disk of a Space: everywhere but on the `/data` mount."""
    environment = os.environ if environment is None else environment
    return environment.get("SYSTEM") == "spaces" and not path.is_relative_to("/data")
