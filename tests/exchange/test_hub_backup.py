"""The private backup has every consented vote within minutes, gives all back, and forgets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.errors import SettingsError, StorageError
from empo_demo.exchange import hub_backup
from empo_demo.exchange.hub import Pusher, start_pushing
from empo_demo.exchange.hub_backup import Backup
from empo_demo.settings import load_settings
from empo_demo.votes.models import Round, Voter
from empo_demo.votes.reasons import hide
from tests.conftest import arena_at
from tests.exchange.conftest import age, cast, readable, rows
from tests.hub import Break, Hub, Repository

REPO, PUBLIC = "anna/backup", "anna/votes"


@pytest.fixture
def both(url: str) -> Arena:
    """An arena on SQLite and on PostgreSQL."""
    return arena_at(url)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Arena]:
    """Arenas on empty disks, one after the other."""
    return (arena_at(f"sqlite:///{tmp_path}/disk-{number}.sqlite3") for number in range(100))


def test_a_wiped_disk_loses_no_vote_of_the_last_day(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    voter = both.new_voter()
    mine = [cast(both, voter) for _ in range(2)]
    assert Backup(both.store, REPO).write() == 2
    assert hub.repositories[f"dataset/{REPO}"].private
    after = next(disks)
    Backup(after.store, REPO).restore()
    assert after.my_votes(voter) == both.my_votes(voter)
    assert [vote["round_id"] for vote in after.my_votes(voter)] == mine
    again = cast(after, voter)
    assert Backup(after.store, REPO).write() == 3  # at the start, all are compared
    assert sorted(rows(hub, REPO)) == sorted([*mine, again])


def test_only_votes_with_consent_enter_it(both: Arena, hub: Hub) -> None:
    kept = cast(both, both.new_voter())
    cast(both, both.new_voter(), consent=False)
    unvoted = both.new_voter()
    both.open_round(unvoted, Dialogue(), "No vote.", consent=None)
    Backup(both.store, REPO).write()
    assert rows(hub, REPO) == [kept]
    with both.store.database.read() as session:
        silent = [one.id for one in session.scalars(select(Round)) if one.id != kept]
    held = hub.repositories[f"dataset/{REPO}"]
    assert len(silent) == 2
    assert not any(name.encode() in b"".join(held.files.values()) for name in silent)


def test_nothing_is_sent_when_nothing_changed(both: Arena, hub: Hub) -> None:
    backup, voter = Backup(both.store, REPO), both.new_voter()
    first = cast(both, voter)
    assert backup.write() == 1
    asked = len(hub.requests)
    assert backup.write() == 0 and len(hub.requests) == asked
    both.store.set_ratings(voter, first, {"a_natural": 70}, "Better.")
    second = cast(both, voter)
    assert backup.write() == 2 and sorted(rows(hub, REPO)) == sorted([first, second])
    assert b"Better." in readable(hub, REPO)


def test_deleted_data_leaves_the_backup_and_its_history(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    backup, voter = Backup(both.store, REPO), both.new_voter()
    gone, kept = cast(both, voter), cast(both, both.new_voter())
    backup.write()
    assert gone.encode() in readable(hub, REPO)
    both.delete_my_data(voter)
    assert backup.write() == 1
    assert rows(hub, REPO) == [kept] and gone.encode() not in readable(hub, REPO)
    after = next(disks)
    Backup(after.store, REPO).restore()
    assert after.my_votes(voter) == [] and after.store.erasure.tombstones() == {gone}


def test_data_deleted_while_its_backup_is_under_way_leaves_it(both: Arena, hub: Hub) -> None:
    backup, voter = Backup(both.store, REPO), both.new_voter()
    gone = cast(both, voter)

    def delete() -> None:
        hub.before_commit = lambda: None
        both.delete_my_data(voter)

    hub.before_commit = delete
    backup.write()
    backup.write()
    assert rows(hub, REPO) == [] and gone.encode() not in readable(hub, REPO)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["before", "after", "error"])
def test_a_fault_at_each_step_loses_doubles_and_keeps_nothing_deleted(
    hub: Hub, disks: Iterator[Arena], monkeypatch: pytest.MonkeyPatch, kind: Break
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    step, steps = 0, 1
    while step <= steps:
        arena, repo = next(disks), f"anna/backup-{step}"
        leaving, late = arena.new_voter(), arena.new_voter()
        backup = Backup(arena.store, repo)
        kept, gone = cast(arena, arena.new_voter()), cast(arena, leaving)
        backup.write()
        kept_later, gone_later = cast(arena, arena.new_voter()), cast(arena, late)
        arena.delete_my_data(leaving)
        asked = len(hub.requests)
        left = iter([*[None] * step, kind])
        if step:
            hub.breaks = lambda *_, left=left: next(left, "before")
            with pytest.raises(StorageError, match="could not be backed up"):
                backup.write()
        else:
            left_out = backup.write()
            steps = len(hub.requests) - asked - 1
            assert left_out == 3 and steps > 8
        hub.breaks = lambda *_: None
        arena.delete_my_data(late)
        Backup(arena_at(arena.settings.database).store, repo).write()
        assert sorted(rows(hub, repo)) == sorted([kept, kept_later]), f"step {step}"
        assert gone.encode() not in readable(hub, repo), f"step {step}"
        assert gone_later.encode() not in readable(hub, repo), f"step {step}"
        step += 1


def test_a_public_backup_is_refused_before_a_vote_is_in_it(both: Arena, hub: Hub) -> None:
    held = hub.repositories[f"dataset/{REPO}"] = Repository(private=False)
    cast(both, both.new_voter())
    with pytest.raises(StorageError, match=r"Everybody can read the data set anna/backup.*private"):
        Backup(both.store, REPO).write()
    assert not held.files


def test_a_backup_and_a_data_set_give_each_voter_all_their_votes(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    """A restored vote is published once, under the voter's one published name, or not at all."""
    voter, other = both.new_voter(), both.new_voter()
    published = [cast(both, voter), cast(both, other)]
    age(both, 25)
    Pusher(both.store, PUBLIC).push()
    waiting = cast(both, voter)
    Backup(both.store, REPO).write()
    for _ in range(2):
        after = next(disks)
        settings = load_settings(hub_dataset=PUBLIC, hub_backup=REPO)
        pusher = Pusher(after.store, PUBLIC)
        backup = Backup(after.store, REPO)
        pusher.restore()
        backup.restore()
        assert settings.hub_backup == REPO
        with after.store.database.read() as session:
            assert len(session.scalars(select(Voter)).all()) == 2
        assert {v["round_id"] for v in after.my_votes(voter)} == {published[0], waiting}
        backup.write()
    age(after, 25)
    assert pusher.push().published == 1
    assert sorted(rows(hub, PUBLIC)) == sorted([*published, waiting])
    lines = [json.loads(line) for line in readable(hub, PUBLIC).decode().splitlines()]
    assert len({line["round"]["voter"] for line in lines}) == 2
    after.delete_my_data(voter)
    backup.write()
    pusher.push()
    assert rows(hub, PUBLIC) == [published[1]] == rows(hub, REPO)
    left = readable(hub, PUBLIC) + readable(hub, REPO)
    assert waiting.encode() not in left and published[0].encode() not in left


def test_a_vote_restored_from_the_backup_alone_may_be_published(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    """The data set cannot be read at the start, so nobody here knows that the vote is in it."""
    voter = both.new_voter()
    gone = cast(both, voter)
    age(both, 25)
    Pusher(both.store, PUBLIC).push()
    Backup(both.store, REPO).write()
    after = next(disks)
    Backup(after.store, REPO).restore()
    after.delete_my_data(voter)
    Pusher(after.store, PUBLIC).push()
    assert rows(hub, PUBLIC) == [] and gone.encode() not in readable(hub, PUBLIC)


def test_what_was_deleted_stays_in_the_data_set_for_no_restart(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    """The deletion reached the backup but not the data set when the disk was wiped."""
    voter = both.new_voter()
    gone = cast(both, voter)
    age(both, 25)
    Pusher(both.store, PUBLIC).push()
    backup = Backup(both.store, REPO)
    backup.write()
    both.delete_my_data(voter)
    backup.write()
    after = next(disks)
    pusher, backup = Pusher(after.store, PUBLIC), Backup(after.store, REPO)
    pusher.restore()
    backup.restore()
    assert after.my_votes(voter) == []
    pusher.push()
    assert rows(hub, PUBLIC) == [] and gone.encode() not in readable(hub, PUBLIC)


def test_hidden_rounds_and_checks_are_kept_as_they_are(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    hidden, check = cast(both, both.new_voter()), cast(both, both.new_voter())
    hide(both.store, hidden, "spam")
    with both.store.database.write() as session:
        session.execute(update(Round).where(Round.id == check).values(check_side="a"))
    Backup(both.store, REPO).write()
    after = next(disks)
    Backup(after.store, REPO).restore()
    with after.store.database.read() as session:
        there = {
            one.id: (one.hidden_reason, one.check_side) for one in session.scalars(select(Round))
        }
    assert there == {hidden: ("spam", None), check: (None, "a")}


def test_a_round_with_signs_of_a_crisis_or_personal_data_never_leaves(
    both: Arena, hub: Hub, disks: Iterator[Arena]
) -> None:
    """Not even to the private backup; a restore loses no vote that counts."""
    voter, kept = both.new_voter(), cast(both, both.new_voter())
    late = cast(both, voter)
    for text in ("Mail me at ann@example.org.", "I want to kill myself."):
        both.set_ratings(voter, cast(both, voter), {}, f"A note. {text}")
    backup = Backup(both.store, REPO)
    backup.write()
    assert sorted(rows(hub, REPO)) == sorted([kept, late])
    assert not any(part in readable(hub, REPO) for part in (b"A note", b"kill", b"ann@"))
    both.set_ratings(voter, late, {}, "Call me on 202-555-0143.")
    for asking in (backup, Backup(both.store, REPO)):
        asking.write()
        assert rows(hub, REPO) == [kept] and late.encode() not in readable(hub, REPO)
        assert backup.write() == 0
    used = both.stats().exportable
    after = next(disks)
    Backup(after.store, REPO).restore()
    assert after.stats().exportable == used == 1 and after.store.erasure.tombstones() == set()
    assert len(both.my_votes(voter)) == 3, "they stay in the database"


def test_many_votes_are_written_in_batches(
    both: Arena, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_backup, "BATCH", 3)
    mine = [cast(both, both.new_voter()) for _ in range(7)]
    assert Backup(both.store, REPO).write() == 7 and sorted(rows(hub, REPO)) == sorted(mine)


def test_the_app_restores_at_its_start_and_writes_in_the_background(
    both: Arena, hub: Hub, disks: Iterator[Arena], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empo_demo.exchange.data_set.LOOK_SECONDS", 0.05)
    voter = both.new_voter()
    mine = cast(both, voter)
    Backup(both.store, REPO).write()
    after = next(disks)
    assert start_pushing(after.store, load_settings(hub_backup=REPO)) is None
    assert [vote["round_id"] for vote in after.my_votes(voter)] == [mine]
    after.delete_my_data(voter)
    for _ in range(200):
        if mine.encode() not in readable(hub, REPO):
            break
        time.sleep(0.05)
    assert rows(hub, REPO) == [] and mine.encode() not in readable(hub, REPO)


@pytest.mark.parametrize("wrong", ["anna/votes", "backup", "a/b/c", "https://hf.co/a/b"])
def test_the_backup_is_another_repository_than_the_published_one(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"EMPO_HUB_BACKUP holds .*another dataset repository"):
        load_settings(hub_dataset="anna/votes", hub_backup=wrong)
