"""Import, backup, restore and withdrawal: what was given comes back, what was taken does not."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.errors import DataError, NotFound
from empo_demo.exchange import hub
from empo_demo.exchange.export import export_file
from empo_demo.exchange.record_files import backup, import_file, restore
from empo_demo.settings import load_settings
from empo_demo.votes.migrations import REVISIONS
from empo_demo.votes.models import Round, Tombstone, Vote, Voter
from empo_demo.votes.reasons import hide
from empo_demo.votes.record import columns_of, record_of
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM, arena_at
from tests.votes.test_migrations import old_database


@pytest.fixture
def both(url: str) -> Arena:
    """An arena on SQLite and on PostgreSQL."""
    return arena_at(url)


def cast(arena: Arena, voter: str, text: str = "It rained all day.", verdict: str = "a") -> str:
    consent = arena.consent_text().version
    opened = arena.open_round(voter, Dialogue(), text, consent=consent)
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, verdict)
    return opened.round_id


def test_full_records_come_back_through_an_import_once(both: Arena, tmp_path: Path) -> None:
    voter = both.new_voter()
    ids = [cast(both, voter, verdict=verdict) for verdict in ("a", "tie", "both_bad")]
    file = tmp_path / "records.jsonl"
    assert export_file(both.settings.database, "jsonl", file).rows == 3
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite3")
    assert import_file(other, file).new == 3
    again = import_file(other, file)
    assert (again.new, again.known) == (0, 3)
    settings = load_settings(database=f"sqlite:///{tmp_path}/other.sqlite3")
    there = Arena(settings, ROSTER, other, engine=ScriptedEngine(), sem=ScriptedSEM())
    assert there.my_votes(voter) == both.my_votes(voter)
    assert [vote["round_id"] for vote in there.my_votes(voter)] == ids
    for form in ("trl", "kto"):
        export_file(both.settings.database, form, tmp_path / "one")
        export_file(settings.database, form, tmp_path / "two")
        assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() != ""


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda r: r.pop("round"), "round is missing"),
        (lambda r: r["replies"].pop(), "sides a and b"),
        (lambda r: r["round"].update(seed=None), "round.seed"),
        (lambda r: r["round"].update(created_at="yesterday"), "not a time"),
        (lambda r: r["vote"].update(verdict="c"), "verdict"),
        (lambda r: r.update(vote=None), "do not fit"),
        (lambda r: r["round"].update(extra=1), "not a column"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_goes_on(
    arena: Arena, tmp_path: Path, damage: Any, words: str
) -> None:
    voter = arena.new_voter()
    cast(arena, voter)
    cast(arena, voter)
    file = tmp_path / "records.jsonl"
    export_file(arena.settings.database, "jsonl", file)
    first, second = file.read_text().splitlines()
    record = json.loads(first)
    damage(record)
    file.write_text(f"{json.dumps(record)}\n\n{second}\nnot json\n")
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite3")
    report = import_file(other, file)
    assert report.new == 1 and len(report.bad) == 2
    assert report.bad[0].startswith("line 1: ") and words in report.bad[0]


def test_withdrawn_votes_do_not_come_back(both: Arena, tmp_path: Path) -> None:
    voter, other = both.new_voter(), both.new_voter()
    cast(both, voter)
    kept = cast(both, other)
    export_file(both.settings.database, "jsonl", tmp_path / "records.jsonl")
    assert backup(both.store, tmp_path / "backup.jsonl") == 2
    assert both.delete_my_data(voter) == 1
    report = import_file(both.store, tmp_path / "records.jsonl")
    assert (report.new, report.known, report.withdrawn) == (0, 1, 1)
    assert restore(both.store, tmp_path / "backup.jsonl").votes == 1
    assert both.my_votes(voter) == [] and both.my_votes(other)[0]["round_id"] == kept
    assert both.stats().withdrawn == 1


def everything(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All that a backup holds, without what a new database counts anew."""
    with store.database.read() as session:
        oldest_first = select(Round.id).outerjoin(Vote).order_by(Vote.id.is_(None), Vote.id)
        ids = list(session.scalars(oldest_first))
        voters = session.scalars(select(Voter).order_by(Voter.id))
        found = {
            "rounds": [record_of(session.get_one(Round, name)) for name in ids],
            "voters": [columns_of(one) for one in voters],
            "tombstones": [columns_of(one) for one in session.scalars(select(Tombstone))],
        }
    for record in found["rounds"]:
        record["round"].pop("handed_over_until")
        (record["vote"] or {}).pop("id", None)
    return found


def test_a_backup_gives_back_every_column_unmasked(both: Arena, tmp_path: Path) -> None:
    """In the order of the votes, with who logged in, what has no vote, and the withdrawn ids."""
    consent = both.consent_text().version
    voter, leaving = both.new_voter(), both.new_voter()
    for text in ("Mail me at ann@example.org.", "It rained all day."):
        opened = both.open_round(voter, Dialogue(), text, consent=consent, user="anna")
        list(both.stream(voter, opened.round_id))
        both.vote(voter, opened.round_id, "a", ratings={"natural": 3}, comment="Warm.")
    both.open_round(both.new_voter(), Dialogue(), "Not answered yet.", consent=consent)
    cast(both, leaving)
    both.delete_my_data(leaving)
    before = everything(both.store)
    assert backup(both.store, tmp_path / "backup.jsonl") == 2
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite3")
    restored = restore(other, tmp_path / "backup.jsonl")
    assert (restored.votes, restored.new, restored.bad) == (2, 3, [])
    assert everything(other) == before
    assert "ann@example.org" in (tmp_path / "backup.jsonl").read_text()
    other.close()


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_an_earlier_version_is_restored(
    arena: Arena, tmp_path: Path, revision: str
) -> None:
    """It was a copy of a SQLite database, of any schema so far."""
    old_database(f"sqlite:///{tmp_path}/old.sqlite3", revision)
    with closing(sqlite3.connect(tmp_path / "old.sqlite3")) as old:
        for table, column in (("rounds", "id"), ("replies", "round_id"), ("votes", "round_id")):
            old.execute(f"UPDATE {table} SET {column} = ?", ("0" * 32,))
        old.execute("UPDATE voters SET id = ?", ("1" * 64,))
        old.execute("UPDATE rounds SET voter = ?, consent = ?", ("1" * 64, "2" * 64))
        old.execute("UPDATE votes SET continued = ?", ("3" * 64,))
        old.commit()
    content = (tmp_path / "old.sqlite3").read_bytes()
    cast(arena, arena.new_voter())
    restored = restore(arena.store, tmp_path / "old.sqlite3")
    assert (restored.votes, restored.bad) == (1, []) and arena.stats().votes == {"a": 1}
    assert (tmp_path / "old.sqlite3").read_bytes() == content
    assert not list(tmp_path.glob(".restore-*"))


def test_a_backup_is_taken_and_restored_while_votes_are_cast(both: Arena, tmp_path: Path) -> None:
    before = both.new_voter()
    for _ in range(5):
        cast(both, before)
    stop, errors = threading.Event(), []

    def visitor() -> None:
        while not stop.is_set():
            try:
                cast(both, both.new_voter())
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=visitor)
    thread.start()
    try:
        assert backup(both.store, tmp_path / "backup.jsonl") >= 5
    finally:
        stop.set()
        thread.join()
    assert errors == []
    hide(both.store, both.my_votes(before)[0]["round_id"], "spam")
    late = both.new_voter()
    cast(both, late)
    restore(both.store, tmp_path / "backup.jsonl")
    assert len(both.my_votes(before)) == 5 and both.my_votes(late) == []
    assert both.stats().left_out["hidden by a moderator"] == 0
    cast(both, late)
    assert len(both.my_votes(late)) == 1


def test_what_is_no_backup_is_refused_and_nothing_changes(arena: Arena, tmp_path: Path) -> None:
    voter = arena.new_voter()
    cast(arena, voter)
    (tmp_path / "text").write_text("no database" * 100)
    sqlite3.connect(tmp_path / "empty.sqlite3").execute("CREATE TABLE x (y)").connection.close()
    for name in ("text", "empty.sqlite3"):
        with pytest.raises(DataError, match="not a backup"):
            restore(arena.store, tmp_path / name)
    with pytest.raises(NotFound):
        restore(arena.store, tmp_path / "absent")
    with pytest.raises(DataError, match="exists already"):
        backup(arena.store, tmp_path / "text")
    assert len(arena.my_votes(voter)) == 1


def test_nothing_is_pushed_unless_a_data_set_is_named(arena: Arena) -> None:
    assert arena.settings.hub_dataset is None
    assert hub.start_pushing(arena.store, arena.settings) is None


def test_the_settings_name_the_key_and_the_push_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEM", "spaces")
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    with_key = Store.of(load_settings(database=url, secret="mine", hub_dataset="owner/votes"))
    assert with_key.limits.secret() == b"mine" and with_key.warnings == ()
    assert Store.of(load_settings(database=url)).warnings
