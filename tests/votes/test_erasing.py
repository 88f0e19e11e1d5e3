"""What may not stay is erased in time, whoever consented, and leaves no trace in the files."""

from __future__ import annotations

import random
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed, NotFound, StorageError
from empo_demo.exchange.record_files import backup
from empo_demo.votes import janitor
from empo_demo.votes.erasure import EPHEMERAL_LIFE, is_marked, scrub
from empo_demo.votes.models import Limit, Round, Voter, now
from empo_demo.votes.store import RateLimit, Store
from tests.conftest import arena_at, away
from tests.votes.test_store import NO_LIMIT

TEXT = "I failed my driving test again."
HOME, WORK = "203.0.113.7", "2001:db8:1:2::9"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Janitors that look every 50 ms."""
    monkeypatch.setattr(janitor, "EVERY_SECONDS", 0.05)


def unkept(arena: Arena, voter: str, text: str = TEXT, address: str | None = None) -> str:
    """An answered round without consent."""
    opened = arena.open_round(voter, Dialogue(), text, address=address)
    list(arena.stream(voter, opened.round_id))
    return opened.round_id


def kept(arena: Arena, voter: str, text: str = TEXT, address: str | None = None) -> str:
    """A voted round with consent."""
    consent = arena.consent_text().version
    opened = arena.open_round(voter, Dialogue(), text, consent=consent, address=address)
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a", comment=text)
    return opened.round_id


def aged(store: Store, **by: float) -> None:
    """All that is stored becomes older."""
    since = timedelta(**by)
    with store.database.write() as session:
        for table, column in ((Round, "created_at"), (Limit, "at"), (Voter, "created_at")):
            for row in session.scalars(select(table)):
                setattr(row, column, getattr(row, column) - since)


def rows(store: Store, table: type) -> int:
    with store.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def addresses(store: Store) -> list[str]:
    with store.database.read() as session:
        return list(session.scalars(select(Limit.key).where(Limit.key.like("a:%"))))


def eventually(done: object, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


# Hashed addresses ------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_hashed_addresses_live_at_most_an_hour_whoever_consented_and_after_explore(
    url: str,
) -> None:
    arena = arena_at(url)
    kept(arena, arena.new_voter(), address=HOME)
    list(arena.explore(Comparison(Dialogue().plus("user", "Hello.")), address=WORK)[1])
    assert len(addresses(arena.store)) == 2
    aged(arena.store, minutes=50)
    time.sleep(0.3)
    assert len(addresses(arena.store)) == 2, "they are counted for a while"
    aged(arena.store, minutes=9)
    assert eventually(lambda: rows(arena.store, Limit) == 0)
    assert rows(arena.store, Round) == 1, "the vote with consent stays"
    arena.store.close()


@pytest.mark.parametrize("address", [None, HOME])
def test_deleting_ones_data_leaves_no_hashed_address_and_resets_no_limit(
    url: str, address: str | None
) -> None:
    arena = arena_at(url, limit=RateLimit(per_voter=10, per_address=3, explores_per_address=1))
    voter = arena.new_voter()
    kept(arena, voter, address=HOME)
    unkept(arena, voter, address=HOME)
    list(arena.explore(Comparison(Dialogue().plus("user", "Hi.")), address=HOME)[1])
    other = arena.new_voter()
    unkept(arena, other, address=WORK)
    theirs = arena.store.limits.address_key(WORK)
    assert arena.delete_my_data(voter, address=address) == 2
    left = addresses(arena.store)
    assert left == [theirs] if address else theirs in left and len(left) == 2
    fresh = arena.new_voter()
    unkept(arena, fresh, address=HOME)
    with pytest.raises(NotAllowed, match="3 rounds"):
        arena.open_round(fresh, Dialogue(), TEXT, address=HOME)
    with pytest.raises(NotAllowed, match="1 comparison"):
        arena.explore(Comparison(Dialogue().plus("user", "Hi.")), address=HOME)
    arena.store.close()


def test_the_memory_of_erased_addresses_lasts_no_longer_than_the_window(arena: Arena) -> None:
    voter = arena.new_voter()
    unkept(arena, voter, address=HOME)
    arena.delete_my_data(voter, address=HOME)
    (times,) = arena.store.limits._forgotten.values()
    times[:] = [at - arena.store.limits.rate.window for at in times]
    arena.delete_my_data(arena.new_voter())
    assert arena.store.limits._forgotten == {}


# Texts without consent --------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_rounds_opened_minutes_apart_each_go_in_time(url: str) -> None:
    """The first one's end may not set the pace of the others."""
    arena = arena_at(url)
    voter = arena.new_voter()
    unkept(arena, voter)
    aged(arena.store, minutes=10)
    last = unkept(arena, voter)
    kept(arena, voter)
    aged(arena.store, minutes=49)
    assert eventually(lambda: rows(arena.store, Round) == 2)
    assert arena.find(voter, last).state == "votable"
    aged(arena.store, minutes=10)
    assert eventually(lambda: rows(arena.store, Round) == 1)
    arena.store.close()


@pytest.mark.usefixtures("quick")
def test_after_a_restart_nobody_need_come_for_a_text_to_be_erased(url: str) -> None:
    arena = arena_at(url)
    unkept(arena, arena.new_voter())
    arena.store.close()
    aged(Store.open(url), minutes=30)
    again = arena_at(url)
    assert rows(again.store, Round) == 1
    aged(again.store, minutes=29)
    assert eventually(lambda: rows(again.store, Round) == 0)
    again.store.close()


@pytest.mark.usefixtures("quick")
def test_a_janitor_survives_every_error(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [RuntimeError("a bug"), StorageError("away"), KeyError("x")]
    real = arena.store.erasure.is_due

    def is_due() -> bool:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(arena.store.erasure, "is_due", is_due)
    unkept(arena, arena.new_voter())
    aged(arena.store, hours=2)
    janitor.Janitor(arena.store).start()
    assert eventually(lambda: rows(arena.store, Round) == 0) and not failures
    assert TEXT not in caplog.text


@pytest.mark.usefixtures("quick")
def test_what_aged_while_the_database_was_away_is_erased_at_its_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    unkept(arena, arena.new_voter())
    with away(arena.store):
        later = now() + timedelta(hours=3)
        monkeypatch.setattr("empo_demo.votes.erasure.now", lambda: later)
        time.sleep(0.3)
    assert eventually(lambda: rows(arena.store, Round) == 0)
    arena.store.close()


def test_no_method_serves_a_text_whose_hour_is_over(url: str) -> None:
    """Here no janitor has come yet."""
    arena = arena_at(url)
    voter = arena.new_voter()
    ids = [unkept(arena, voter), arena.open_round(voter, Dialogue(), TEXT).round_id]
    stays = kept(arena, voter, "It rained all day.")
    arena.vote(voter, ids[0], "a")
    went_on = arena.go_on(voter, ids[0])
    aged(arena.store, seconds=EPHEMERAL_LIFE.total_seconds() + 1)
    for round_id in ids:
        for call in (arena.find, arena.go_on, arena.stream, arena.retry, arena.withdraw):
            with pytest.raises(NotFound):
                call(voter, round_id)  # type: ignore[operator]
        with pytest.raises(NotFound):
            arena.vote(voter, round_id, "a")
        with pytest.raises(NotFound):
            arena.set_ratings(voter, round_id, {"natural": 3})
    assert [record["round"]["id"] for record in arena.my_data(voter)] == [stays]
    assert [vote["round_id"] for vote in arena.my_votes(voter)] == [stays]
    latest = arena.latest(voter)
    assert latest is not None and latest.round_id == stays
    assert arena.store.parent_of(voter, went_on.digest) is None
    arena.store.close()


def test_a_vote_without_consent_is_not_used_to_draw_the_next_pair(arena: Arena) -> None:
    voter = arena.new_voter()
    arena.vote(voter, unkept(arena, voter), "a")
    assert arena.store.contender_counts() == {}
    kept(arena, voter)
    assert sum(arena.store.contender_counts().values()) == 2


def test_a_backup_holds_no_text_without_consent_and_no_address(url: str, tmp_path: Path) -> None:
    arena = arena_at(url)
    one, other = f"one{uuid.uuid4().hex}", f"other{uuid.uuid4().hex}"
    kept(arena, arena.new_voter(), one, address=HOME)
    unkept(arena, arena.new_voter(), other, address=WORK)
    keys = [key.encode() for key in addresses(arena.store)]
    assert backup(arena.store, tmp_path / "backup.jsonl") == 1
    content = (tmp_path / "backup.jsonl").read_bytes()
    assert one.encode() in content and other.encode() not in content
    assert len(keys) == 2 and not any(key in content for key in keys)
    assert arena.store.limits.secret() not in content
    arena.store.close()


# The files --------------------------------------------------------------------------------------


def found_in(folder: Path, marks: list[str]) -> list[str]:
    """Which of the marks are in any file of the database."""
    contents = [path.read_bytes() for path in folder.glob("votes.sqlite3*")]
    assert contents
    return [mark for mark in marks if any(mark.encode() in content for content in contents)]


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    filler = "lorem ipsum dolor "
    return [f"mark{uuid.uuid4().hex} {filler * rng.randrange(1, 90)}" for _ in range(count)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("exclusive", [False, True])
def test_erased_text_is_in_none_of_the_databases_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    """Also the copies that SQLite makes of rows when it moves them within the file."""
    monkeypatch.setattr("empo_demo.votes.database.unreliable_locks", lambda path: exclusive)
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3", limit=NO_LIMIT)
    voters = {text: arena.new_voter() for text in texts(60, seed=1)}
    for text, voter in voters.items():
        kept(arena, voter, text, address=HOME)
    marks = {text: text.split()[0] for text in voters}
    gone, withdrawn, stay = list(marks)[:20], list(marks)[20:30], list(marks)[30:]
    for text in gone:
        arena.delete_my_data(voters[text])
    for text in withdrawn:
        arena.withdraw(voters[text], arena.my_votes(voters[text])[0]["round_id"])
    erased = [marks[text] for text in (*gone, *withdrawn)]
    assert eventually(lambda: found_in(tmp_path, erased) == [])
    assert eventually(lambda: not is_marked(arena.store.database))
    assert len(found_in(tmp_path, [marks[text] for text in stay])) == len(stay)
    assert all(arena.my_votes(voters[text])[0]["comment"] == text.strip() for text in stay)
    assert arena.stats().votes == {"a": len(stay)}
    arena.store.close()


def test_a_row_that_secure_delete_does_not_overwrite_is_overwritten(tmp_path: Path) -> None:
    """A copy in the gap of a page, as a moved row leaves it: put there by hand."""
    path = tmp_path / "votes.sqlite3"
    arena = arena_at(f"sqlite:///{path}")
    voter = arena.new_voter()
    kept(arena, voter)
    arena.delete_my_data(voter)
    scrub(arena.store.database)
    arena.store.close()
    content = bytearray(path.read_bytes())
    gap = content.rindex(b"\0" * 900) + 400
    content[gap : gap + 6] = b"gaptxt"
    path.write_bytes(content)
    arena = arena_at(f"sqlite:///{path}")
    database = arena.store.database
    assert b"gaptxt" in path.read_bytes() and not is_marked(database)
    kept(arena, voter)
    arena.delete_my_data(voter)
    assert is_marked(database) and scrub(database) and not is_marked(database)
    assert b"gaptxt" not in path.read_bytes()
    arena.store.close()


def test_who_deletes_nothing_gives_the_janitor_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a stranger with fresh tokens could have a large file rebuilt again and again."""
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    kept(arena, arena.new_voter(), address=HOME)
    for _ in range(3):
        arena.delete_my_data(arena.new_voter(), address=WORK)
        arena.end_visit(arena.new_voter())
    arena.store.erasure.purge()
    assert not is_marked(arena.store.database)
    worked: list[float] = []

    def slow(store: Store) -> None:
        # The janitors of other tests' stores may still be about.
        if threading.current_thread() is ours:
            worked.append(time.monotonic())
            time.sleep(0.2)

    monkeypatch.setattr(janitor, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(janitor, "clean", slow)
    ours = janitor.Janitor(arena.store).start()
    assert eventually(lambda: len(worked) >= 3)
    assert worked[2] - worked[1] >= 0.79
    arena.store.close()


def test_a_reader_in_the_way_delays_the_scrubbing_and_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empo_demo.votes.erasure.PATIENCE_MS", 50)
    arena = arena_at(f"sqlite:///{tmp_path}/votes.sqlite3")
    voter, (text,) = arena.new_voter(), texts(1, seed=2)
    kept(arena, voter, text)
    database = arena.store.database
    with database.read() as session:
        session.scalars(select(Round)).all()
        erased = threading.Thread(target=arena.delete_my_data, args=(voter,))
        erased.start()
        erased.join()
        assert not scrub(database) and is_marked(database)
    assert scrub(database) and found_in(tmp_path, [text.split()[0]]) == []
    arena.store.close()


def test_a_mark_outlives_the_process_that_erased(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    arena = arena_at(url)
    voter, (text,) = arena.new_voter(), texts(1, seed=3)
    kept(arena, voter, text)
    arena.delete_my_data(voter)
    arena.store.close()
    store = Store.open(url)
    assert is_marked(store.database)
    janitor.clean(store)
    assert found_in(tmp_path, [text.split()[0]]) == [] and not is_marked(store.database)
    with store.database.write() as session:
        session.execute(update(Round).values(seed=1))
    assert not is_marked(store.database), "only what erases marks"
    store.close()
