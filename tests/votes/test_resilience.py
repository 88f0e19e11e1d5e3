"""Killed processes, full disks, damaged and vanished databases: told, and nothing half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from empo_demo.dialogue import Dialogue
from empo_demo.errors import ArenaError, NotFound, SettingsError, StorageError
from empo_demo.votes.database import Database, lost_on_restart, unreliable_locks
from empo_demo.votes.store import Store
from tests.conftest import REPOSITORY, arena_at
from tests.votes.test_store import counts, rounds_ready


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_no_acknowledged_vote(url: str) -> None:
    """A short run of `python -m tests.bench.votes_kill`, which the full one repeats 1,000 times."""
    command = [sys.executable, "-m", "tests.bench.votes_kill", "--rounds", "20", "--seed", "3"]
    done = subprocess.run(
        [*command, "--url", url], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["acknowledged"] >= 20 and found["kills"] >= 1
    assert (found["lost"], found["doubled"], found["half_rows"]) == (0, 0, 0)
    assert found["starts_failed"] == 0


def test_a_full_disk_is_told_and_the_vote_can_be_cast_when_there_is_room(tmp_path: Path) -> None:
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    voter = arena.new_voter()
    ready = iter(rounds_ready(arena, voter, 25))
    database = arena.store.database
    limit = {"pages": 1}

    @event.listens_for(database.engine, "begin")
    def shrink(connection: Any) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={limit['pages']}")

    before = counts(arena.store)
    with pytest.raises(StorageError, match=r"no space left.*vote was not counted"):
        for round_id in ready:  # the free pages of the file take a few rows yet
            arena.vote(voter, round_id, "a", comment="x" * 2000)
            before = counts(arena.store)
    assert counts(arena.store)["votes"] == before["votes"]
    assert arena.find(voter, round_id).state == "votable"
    limit["pages"] = 1_000_000
    assert arena.vote(voter, round_id, "a").created
    arena.store.close()


def test_replies_that_could_not_be_stored_are_stored_when_the_database_is_back(
    tmp_path: Path,
) -> None:
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "It rained all day.")
    path = arena.store.database.path
    assert path is not None
    events = arena.stream(voter, opened.round_id)
    next(events)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(StorageError, match="is gone"):
        list(events)
    assert not path.exists(), "a vanished database must not come back empty"
    path.with_suffix(".away").rename(path)
    view = arena.find(voter, opened.round_id)
    assert view.state == "votable" and view.replies["a"].text
    assert arena.vote(voter, opened.round_id, "b").created
    arena.store.close()


def test_a_database_server_that_stops_is_told_and_works_again_when_it_is_back() -> None:
    from tests import postgres

    for server in postgres.server():
        arena = arena_at(server.new_database())
        voter = arena.new_voter()
        (round_id,) = rounds_ready(arena, voter, 1)
        server.stop()
        with pytest.raises(StorageError, match="vote was not counted") as caught:
            arena.vote(voter, round_id, "a")
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError):
            arena.open_round(voter, Dialogue(), "It rained.")
        server.start()
        assert arena.vote(voter, round_id, "a").created
        assert counts(arena.store)["votes"] == 1
        arena.store.close()


@pytest.mark.parametrize(
    "content", [b"this is no database" * 99, b"SQLite format 3\0" + b"x" * 999]
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "votes.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"damaged|not a database") as caught:
        Store.open(f"sqlite:///{path}")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_file_damaged_while_running_is_told(tmp_path: Path) -> None:
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    voter = arena.new_voter()
    (round_id,) = rounds_ready(arena, voter, 1)
    arena.store.close()
    path = tmp_path / "votes.sqlite3"
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096))
    with pytest.raises(StorageError, match="damaged") as caught:
        arena.vote(voter, round_id, "a")
    assert "not counted" in str(caught.value)


READ_ONLY = """
import os, sys
from empo_demo.errors import StorageError
from empo_demo.votes.store import Store
Store.open("sqlite://").close()  # imports all while still allowed to
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Store.open(sys.argv[1])
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("existing", [False, True])
def test_a_read_only_folder_is_told_in_one_line(tmp_path: Path, existing: bool) -> None:
    folder = Path("/var/tmp") / f"empo-read-only-{os.getpid()}-{existing}"
    folder.mkdir()
    url = f"sqlite:///{folder}/votes.sqlite3"
    try:
        if existing:
            Store.open(url).close()
            (folder / "votes.sqlite3").chmod(0o444)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, url], capture_output=True, text=True, cwd=REPOSITORY
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1
        assert "writable" in done.stdout and "Nothing was saved" in done.stdout
    finally:
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_two_processes_write_at_once_without_database_is_locked(tmp_path: Path) -> None:
    """Two stores on one file have two locks, as two processes do."""
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    arenas = [arena_at(url), arena_at(url)]
    errors: list[Exception] = []

    def visitor(number: int) -> None:
        arena = arenas[number % 2]
        try:
            voter = arena.new_voter()
            for round_id in rounds_ready(arena, voter, 6):
                arena.vote(voter, round_id, "tie")
        except ArenaError as error:
            errors.append(error)

    threads = [threading.Thread(target=visitor, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and counts(arenas[0].store)["votes"] == 24


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("sqlite:////no/such/folder/votes.sqlite3", StorageError, "does not exist"),
        ("nonsense", SettingsError, "SQLAlchemy URL"),
        ("postgresql://nobody@127.0.0.1:9/none", StorageError, "cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(
    url: str, error: type[ArenaError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        Store.open(url)
    assert "\n" not in str(caught.value)


def test_reading_a_database_that_does_not_exist_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no database"):
        Store.open(f"sqlite:///{tmp_path}/typo.sqlite3", create=False)
    assert list(tmp_path.iterdir()) == []


MOUNTS = """/dev/sda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
bucket /data fuse.hf-mount rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "unreliable"),
    [("/srv/votes", False), ("/home/me/votes", True), ("/data/votes", True), ("/database", False)],
)
def test_network_mounts_are_known_by_their_type(path: str, unreliable: bool) -> None:
    assert unreliable_locks(Path(path), MOUNTS) is unreliable


def test_without_reliable_locks_the_journal_is_plain_and_everyone_is_warned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empo_demo.votes.database.unreliable_locks", lambda path: True)
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    voter = arena.new_voter()
    for round_id in rounds_ready(arena, voter, 2):
        arena.vote(voter, round_id, "a")
    with arena.store.database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "truncate"
        assert session.execute(text("PRAGMA locking_mode")).scalar() == "exclusive"
    assert "reliable locks" in arena.stats().warnings[0]
    arena.store.close()


def test_a_spaces_ephemeral_disk_is_warned_of_unless_votes_are_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not lost_on_restart(Path("/data/votes"), {"SYSTEM": "spaces"})
    monkeypatch.setenv("SYSTEM", "spaces")
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    warned, pushed = Store.open(url), Store.open(url, push_target=True)
    assert "ephemeral disk" in warned.warnings[0] and pushed.warnings == ()


def test_a_single_connection_is_closed_when_no_thread_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite crashes the process if a connection is closed under a running statement."""
    monkeypatch.setattr("empo_demo.votes.database.unreliable_locks", lambda path: True)
    database = Database(f"sqlite:///{tmp_path}/votes.sqlite3")
    with database.read() as session:
        closing = threading.Thread(target=database.close)
        closing.start()
        closing.join(0.5)
        assert closing.is_alive() and session.execute(text("SELECT 1")).scalar() == 1
    closing.join(30)
    assert not closing.is_alive()
