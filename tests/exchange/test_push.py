"""A vote is in the data set once, or, if it was withdrawn, nowhere, whatever breaks on the way."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from empo_demo.arena.arena import Arena
from empo_demo.errors import StorageError
from empo_demo.exchange import data_set, outbox
from empo_demo.exchange.hub import Pusher
from empo_demo.exchange.record_files import backup, restore
from empo_demo.votes.models import Round, Tombstone, Vote, now
from empo_demo.votes.store import Store
from tests.conftest import arena_at
from tests.exchange.conftest import age, cast, readable, rows
from tests.hub import Break, Hub

REPO = "anna/votes"


@pytest.fixture
def both(url: str) -> Arena:
    """An arena on SQLite and on PostgreSQL."""
    return arena_at(url)


def states(store: Store) -> dict[str, str]:
    """How far each round is on its way to the data set."""
    with store.database.read() as session:
        return {
            one.id: "published"
            if one.pushed_at
            else "handed over"
            if one.handed_over_until
            else "waiting"
            for one in session.scalars(select(Round))
        }


def once(method: str, part: str, kind: Break, hub: Hub) -> None:
    """Break the next such request off."""

    def breaks(asked: str, path: str) -> Break | None:
        if asked == method and part in path:
            hub.breaks = lambda *_: None
            return kind
        return None

    hub.breaks = breaks


def test_a_vote_waits_a_day_and_is_published_once(both: Arena, hub: Hub) -> None:
    voter, pusher = both.new_voter(), Pusher(both.store, REPO)
    round_id = cast(both, voter)
    age(both, 23)
    assert pusher.push().published == 0 and not hub.repositories
    age(both, 25)
    assert states(both.store) == {round_id: "waiting"}
    assert pusher.push().published == 1 and pusher.push().published == 0
    assert states(both.store) == {round_id: "published"} and rows(hub, REPO) == [round_id]
    with both.store.database.read() as session:
        stored = session.scalars(select(Round)).one()
    assert voter.encode() not in readable(hub, REPO)
    assert stored.voter.encode() not in readable(hub, REPO)


@pytest.mark.parametrize("kind", ["before", "after", "error"])
def test_a_push_that_failed_here_is_repeated_and_doubles_nothing(
    both: Arena, hub: Hub, kind: Break
) -> None:
    """After `after`, the push has arrived there, and nobody here knows."""
    mine = cast(both, both.new_voter())
    age(both, 25)
    once("POST", "/commit/", kind, hub)
    with pytest.raises(StorageError, match=r"could not be pushed to anna/votes .* Nothing is lost"):
        Pusher(both.store, REPO).push()
    assert states(both.store) == {mine: "handed over"}
    assert rows(hub, REPO) == ([mine] if kind == "after" else [])
    other = cast(both, both.new_voter())
    age(both, 26)
    assert Pusher(both.store, REPO).push().published == 2
    assert sorted(rows(hub, REPO)) == sorted([mine, other])
    assert set(states(both.store).values()) == {"published"}


@pytest.mark.parametrize("kind", ["before", "after", "error"])
def test_a_vote_withdrawn_after_a_failed_push_is_nowhere(
    both: Arena, hub: Hub, kind: Break
) -> None:
    voter = both.new_voter()
    gone = cast(both, voter)
    kept = cast(both, both.new_voter())
    age(both, 25)
    once("POST", "/commit/", kind, hub)
    with pytest.raises(StorageError):
        Pusher(both.store, REPO).push()
    both.delete_my_data(voter)
    assert Pusher(both.store, REPO).push().withdrawn == 1
    assert rows(hub, REPO) == [kept] and gone.encode() not in readable(hub, REPO)
    assert not both.store.erasure.tombstones(published=True)


@pytest.mark.parametrize("one_round", [True, False])
def test_a_vote_withdrawn_while_its_commit_is_under_way_is_nowhere(
    both: Arena, hub: Hub, one_round: bool
) -> None:
    voter = both.new_voter()
    gone = cast(both, voter)
    kept = cast(both, both.new_voter())
    age(both, 25)

    def withdraw() -> None:
        hub.before_commit = lambda: None
        if one_round:
            both.store.erasure.erase_round(voter, gone)
        else:
            both.delete_my_data(voter)

    hub.before_commit = withdraw
    pushed = Pusher(both.store, REPO).push()
    assert (pushed.published, pushed.withdrawn) == (1, 1)
    assert rows(hub, REPO) == [kept] and gone.encode() not in readable(hub, REPO)


def test_a_comment_added_while_its_commit_is_under_way_waits_a_day(both: Arena, hub: Hub) -> None:
    """Neither the commit that is repeated nor the next push has it, and no vote is lost."""
    voter = both.new_voter()
    late, kept = cast(both, voter), cast(both, both.new_voter())
    age(both, 25)
    once("POST", "/commit/", "before", hub)
    with pytest.raises(StorageError):
        Pusher(both.store, REPO).push()
    both.set_ratings(voter, late, {}, "I said this later.")
    assert Pusher(both.store, REPO).push().published == 1 and rows(hub, REPO) == [kept]
    with both.store.database.write() as session:
        session.execute(update(Vote).values(comment_at=now() - timedelta(hours=25)))

    def comment() -> None:
        hub.before_commit = lambda: None
        both.set_ratings(voter, late, {}, "And this now.")

    hub.before_commit = comment
    Pusher(both.store, REPO).push()
    assert sorted(rows(hub, REPO)) == sorted([late, kept]) and states(both.store)[late] != "waiting"
    assert b"And this now." not in readable(hub, REPO)
    with both.store.database.write() as session:
        session.execute(update(Vote).values(comment_at=now() - timedelta(hours=25)))
    Pusher(both.store, REPO).push()
    assert sorted(rows(hub, REPO)) == sorted([late, kept])
    assert states(both.store) == {late: "published", kept: "published"}


def test_another_process_that_takes_out_first_wins(both: Arena, hub: Hub) -> None:
    """Its commit comes while ours is under way, so ours is refused and built anew without it."""
    cast(both, both.new_voter())
    age(both, 25)
    Pusher(both.store, REPO).push()
    voter = both.new_voter()
    gone = cast(both, voter)
    age(both, 25)
    replica = arena_at(both.settings.database)

    def withdraw_there() -> None:
        hub.before_commit = lambda: None
        replica.delete_my_data(voter)
        assert Pusher(replica.store, REPO).push().withdrawn == 1

    hub.before_commit = withdraw_there
    assert Pusher(both.store, REPO).push().published == 0
    assert gone not in rows(hub, REPO) and gone.encode() not in readable(hub, REPO)
    assert not both.store.erasure.tombstones(published=True)


def test_two_processes_push_each_vote_once(both: Arena, hub: Hub) -> None:
    mine = {cast(both, both.new_voter()) for _ in range(3)}
    age(both, 25)
    there = outbox.Outbox(both.store)
    taken = there.hand_over()
    assert set(taken) == mine and set(states(both.store).values()) == {"handed over"}
    replica = arena_at(both.settings.database)
    assert Pusher(replica.store, REPO).push().published == 0
    with both.store.database.write() as session:  # the first process died, and its lease ends
        session.execute(update(Round).values(handed_over_until=now() - timedelta(seconds=1)))
    assert Pusher(replica.store, REPO).push().published == 3
    assert sorted(rows(hub, REPO)) == sorted(mine)


@pytest.fixture
def busy(tmp_path: Path, hub: Hub) -> tuple[Path, dict[str, str], dict[str, str]]:
    """A database and its data set: a vote is published, one of the published ones was withdrawn,
    two are due. The rounds by name, and the voters."""
    url = f"sqlite:///{tmp_path}/busy.sqlite3"
    arena = arena_at(url)
    voters = {name: arena.new_voter() for name in ("old", "gone", "due", "leaving")}
    named = {name: cast(arena, voters[name]) for name in ("old", "gone")}
    age(arena, 30)
    Pusher(arena.store, REPO).push()
    named |= {name: cast(arena, voters[name]) for name in ("due", "leaving")}
    age(arena, 30)
    arena.delete_my_data(voters["gone"])
    arena.store.close()
    return tmp_path / "busy.sqlite3", named, voters


def worlds(hub: Hub, file: Path) -> Iterator[tuple[str, Arena]]:
    """Copies of the database and the data set as they were, with the name of the data set."""
    first = hub.repositories[f"dataset/{REPO}"]
    for number in itertools.count():
        copy = file.with_name(f"copy-{number}.sqlite3")
        shutil.copy(file, copy)
        repo = f"anna/votes-{number}"
        held = type(first)(dict(first.files), head=first.head, history=dict(first.history))
        hub.repositories[f"dataset/{repo}"] = held
        hub.breaks = lambda *_: None
        yield repo, arena_at(f"sqlite:///{copy}")


def count_requests(hub: Hub, repo: str, arena: Arena) -> int:
    before = len(hub.requests)
    Pusher(arena.store, repo).push()
    return len(hub.requests) - before


@pytest.mark.slow
@pytest.mark.parametrize("then", ["restart", "another disk"])
@pytest.mark.parametrize("kind", ["before", "after", "error"])
def test_a_fault_at_each_step_loses_doubles_and_reveals_nothing(
    busy: tuple[Path, dict[str, str], dict[str, str]],
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Break,
    then: str,
) -> None:
    """The Hub breaks off at one request and is away until the app was started again; a voter whose
    vote was on its way withdraws it meanwhile."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    file, named, voters = busy
    world = worlds(hub, file)
    steps = count_requests(hub, *next(world))
    assert steps > 10
    for step in range(steps):
        repo, arena = next(world)
        left = iter([*[None] * step, kind])
        hub.breaks = lambda *_, left=left: next(left, "before")
        with pytest.raises(StorageError, match="could not be pushed"):
            Pusher(arena.store, repo).push()
        hub.breaks = lambda *_: None
        if then == "restart":
            arena.delete_my_data(voters["leaving"])
            expected = {named["old"], named["due"]}
        else:
            # What had not arrived is lost with the disk; EMPO_HUB_BACKUP is against that.
            expected = {named["old"], named["due"]} & set(rows(hub, repo))
            withdrawn = arena.store.erasure.tombstones(published=True)
            arena.store.close()
            arena = arena_at(f"sqlite:///{tmp_path}/{repo.replace('/', '-')}.sqlite3")
            Pusher(arena.store, repo).restore()
            arena.delete_my_data(voters["leaving"])
            if withdrawn:
                arena.delete_my_data(voters["gone"])
        Pusher(arena.store, repo).push()
        assert sorted(rows(hub, repo)) == sorted(expected), f"step {step}"
        left_over = readable(hub, repo)
        assert named["leaving"].encode() not in left_over, f"step {step}"
        assert named["gone"].encode() not in left_over, f"step {step}"
        assert not arena.store.erasure.tombstones(published=True)
        assert set(states(arena.store).values()) == {"published"}
        arena.store.close()


def test_a_round_withdrawn_before_an_old_backup_came_back_leaves_the_data_set(
    hub: Hub, tmp_path: Path
) -> None:
    """A pull finds a row that the database names as withdrawn, and the next push takes it out."""
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    gone = cast(arena, arena.new_voter())
    age(arena, 25)
    Pusher(arena.store, REPO).push()
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite3")
    other.erasure.bury({gone})
    assert not other.erasure.tombstones(published=True)
    assert Pusher(other, REPO).pull().withdrawn == 1
    assert Pusher(other, REPO).push().withdrawn == 1
    assert rows(hub, REPO) == [] and gone.encode() not in readable(hub, REPO)


def test_rows_that_earlier_versions_pushed_are_found_in_their_files(both: Arena, hub: Hub) -> None:
    """A file of another name has a round whose push this database never saw confirmed."""
    cast(both, both.new_voter())
    age(both, 25)
    Pusher(both.store, REPO).push()
    held = hub.repositories[f"dataset/{REPO}"]
    (name,) = (name for name in held.files if name.startswith("data/"))
    held.files["data/votes-0123456789abcdef0123456789abcdef.jsonl"] = held.files.pop(name)
    with both.store.database.write() as session:
        session.execute(update(Round).values(pushed_at=None))
    before = dict(held.files)
    assert Pusher(both.store, REPO).push().published == 1
    assert held.files == before


def test_what_exports_leave_out_is_never_pushed_and_blocks_nothing(
    both: Arena, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    voter = both.new_voter()
    checks = [cast(both, voter) for _ in range(5)]
    silent = cast(both, both.new_voter(), consent=False)
    due = [cast(both, voter) for _ in range(3)]
    age(both, 25)
    with both.store.database.write() as session:
        session.execute(update(Round).where(Round.id.in_(checks)).values(check_side="a"))
    assert Pusher(both.store, REPO).push().published == 3
    assert sorted(rows(hub, REPO)) == sorted(due)
    assert {states(both.store)[one] for one in (*checks, silent)} == {"waiting"}


def test_a_full_file_is_continued_in_a_second_one(
    both: Arena, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_set, "MAX_FILE", 6_000)
    voter = both.new_voter()
    mine = [cast(both, voter) for _ in range(7)]
    with both.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=30)))
    Pusher(both.store, REPO).push()
    held = hub.repositories[f"dataset/{REPO}"]
    files = [name for name in held.files if name.startswith("data/")]
    assert len(files) > 1 and all(len(held.files[name]) < 7_000 for name in files)
    assert sorted(rows(hub, REPO)) == sorted(mine)
    with both.store.database.write() as session:
        session.execute(update(Round).values(pushed_at=None))
    Pusher(both.store, REPO).push()
    assert sorted(rows(hub, REPO)) == sorted(mine)


def test_a_round_that_a_backup_brings_back_may_have_been_pushed(
    both: Arena, hub: Hub, tmp_path: Path
) -> None:
    """The backup is older than the push, the withdrawal younger than both."""
    voter = both.new_voter()
    gone = cast(both, voter)
    age(both, 25)
    backup(both.store, tmp_path / "old.jsonl")
    Pusher(both.store, REPO).push()
    restore(both.store, tmp_path / "old.jsonl")
    both.delete_my_data(voter)
    Pusher(both.store, REPO).push()
    assert rows(hub, REPO) == [] and gone.encode() not in readable(hub, REPO)


def test_tombstones_of_two_databases_are_kept_together(hub: Hub, tmp_path: Path) -> None:
    arenas = [arena_at(f"sqlite:///{tmp_path}/{name}.sqlite3") for name in ("one", "two")]
    withdrawn = []
    for arena in arenas:
        voter = arena.new_voter()
        withdrawn.append(cast(arena, voter))
        age(arena, 25)
        Pusher(arena.store, REPO).push()
        arena.delete_my_data(voter)
        Pusher(arena.store, REPO).push()
    said = hub.repositories[f"dataset/{REPO}"].files[data_set.TOMBSTONES]
    assert all(name.encode() in said for name in withdrawn)
    with arenas[0].store.database.read() as session:
        assert not session.scalars(select(Tombstone).where(Tombstone.published)).all()
