"""No vote is lost, doubled or half written: on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Finished
from empo_demo.errors import NotAllowed
from empo_demo.settings import load_settings
from empo_demo.votes.models import Limit, Reply, Round, Vote, Voter
from empo_demo.votes.store import RateLimit, Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM, arena_at

NO_LIMIT = RateLimit(per_voter=10**6, per_address=10**6)


def rounds_ready(arena: Arena, voter: str, count: int) -> list[str]:
    consent = arena.consent_text().version
    ids = []
    for number in range(count):
        opened = arena.open_round(voter, Dialogue(), f"Story {number}.", consent=consent)
        *_, last = arena.stream(voter, opened.round_id)
        assert [type(end) for end in last.ends.values()] == [Finished, Finished]
        ids.append(opened.round_id)
    return ids


def counts(store: Store) -> Counter[str]:
    with store.database.read() as session:
        found = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table))
            for table in (Voter, Round, Reply, Vote, Limit)
        }
    return Counter(found)


@pytest.mark.slow
def test_many_clients_with_double_clicks_lose_and_double_nothing(url: str) -> None:
    """8 clients x 12 rounds at once, each vote sent twice at the same moment."""
    arena = arena_at(url, limit=NO_LIMIT)

    def client(_: int) -> list[str]:
        voter = arena.new_voter()
        receipts = []
        for round_id in rounds_ready(arena, voter, 12):
            barrier = threading.Barrier(2)

            def click(verdict: str, round_id: str = round_id, gate: Any = barrier) -> Any:
                gate.wait()
                return arena.vote(voter, round_id, verdict)

            with ThreadPoolExecutor(2) as clicks:
                first, second = clicks.map(click, ("a", "b"))
            assert first.receipt == second.receipt and first.verdict == second.verdict
            assert first.created != second.created
            receipts.append(first.receipt)
        return receipts

    with ThreadPoolExecutor(8) as pool:
        receipts = [receipt for some in pool.map(client, range(8)) for receipt in some]
    assert len(set(receipts)) == 96
    with arena.store.database.read() as session:
        assert set(session.scalars(select(Vote.receipt))) == set(receipts)
    assert arena.stats().rounds == {"voted": 96}
    arena.store.close()


def test_a_whole_round_survives_closing_and_opening_the_database(url: str) -> None:
    arena = arena_at(url)
    voter = arena.new_voter()
    (round_id,) = rounds_ready(arena, voter, 1)
    receipt = arena.vote(voter, round_id, "b", ratings={"natural": 70}, comment="Kind. 🙂")
    arena.store.close()
    again = arena_at(url)
    view = again.find(voter, round_id)
    assert view.state == "voted" and view.receipt is not None
    assert view.receipt.receipt == receipt.receipt
    assert again.my_votes(voter)[0]["ratings"] == {"b_natural": 70}
    assert view.reading is not None and view.reading.sem == "scripted@1"
    again.store.close()


def test_too_many_rounds_are_refused_with_the_time_to_wait(url: str) -> None:
    arena = arena_at(url, limit=RateLimit(per_voter=3, per_address=5, window=timedelta(minutes=5)))
    voter = arena.new_voter()
    for _ in range(3):
        arena.open_round(voter, Dialogue(), "It rained.", address="192.0.2.7")
    limit = (
        r"You have opened 3 rounds in 5 minutes, which is the limit\. "
        r"Your text is not lost: go on in [45] minutes\.\Z"
    )
    with pytest.raises(NotAllowed, match=limit):
        arena.open_round(voter, Dialogue(), "It rained.", address="192.0.2.7")
    for _ in range(2):
        arena.open_round(arena.new_voter(), Dialogue(), "It rained.", address="192.0.2.7")
    with pytest.raises(NotAllowed, match="Your network has opened 5 rounds in 5 minutes"):
        arena.open_round(arena.new_voter(), Dialogue(), "It rained.", address="192.0.2.7")
    assert counts(arena.store)["rounds"] == 5
    arena.store.close()


def test_no_address_is_stored_but_as_a_keyed_hash(url: str) -> None:
    arena = arena_at(url, secret="one")
    arena.open_round(arena.new_voter(), Dialogue(), "It rained.", address="192.0.2.77")
    with arena.store.database.read() as session:
        keys = list(session.scalars(select(Limit.key)))
    other = Store(arena.store.database, secret="two")
    assert any(key.startswith("a:") for key in keys)
    assert not any("192.0.2.77" in key for key in keys)
    assert arena.store.limits.keyed_hash("address", "x") != other.limits.keyed_hash("address", "x")
    arena.store.close()


def test_replicas_share_the_key_that_was_made(url: str) -> None:
    one, two = Store.open(url), Store.open(url)
    assert one.limits.secret() == two.limits.secret() and len(one.limits.secret()) >= 32
    one.close()
    two.close()


def test_one_vote_per_round_is_the_databases_own_rule(url: str) -> None:
    from sqlalchemy.exc import IntegrityError

    arena = arena_at(url)
    voter = arena.new_voter()
    (round_id,) = rounds_ready(arena, voter, 1)
    arena.vote(voter, round_id, "a")
    copy = text(
        "INSERT INTO votes (id, round_id, receipt, verdict, chosen, created_at, seconds, "
        "seconds_shown, fast, comment, continued) SELECT 9999, round_id, 'X', verdict, chosen, "
        "created_at, seconds, seconds_shown, fast, comment, continued FROM votes"
    )
    with pytest.raises(IntegrityError), arena.store.database.engine.begin() as connection:
        connection.execute(copy)
    arena.store.close()


def test_a_vote_faster_than_reading_is_kept_and_marked(url: str) -> None:
    engine = ScriptedEngine()
    engine.enqueue("word " * 300 + "end", "word " * 300 + "end")
    store = Store.open(url)
    arena = Arena(load_settings(database=url), ROSTER, store, engine=engine, sem=ScriptedSEM())
    voter = arena.new_voter()
    (round_id,) = rounds_ready(arena, voter, 1)
    arena.vote(voter, round_id, "a")
    assert arena.stats().fast == 1 and arena.stats().exportable == 1
    arena.store.close()


def test_without_consent_no_row_is_left_after_the_visit(url: str) -> None:
    arena = arena_at(url)
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "It rained.", consent=None, user="someone")
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a", comment="gone soon")
    assert arena.end_visit(voter) == 1
    left = counts(arena.store)
    assert (left["voters"], left["rounds"], left["replies"], left["votes"]) == (0, 0, 0, 0)
    arena.store.close()


def test_an_abandoned_stream_is_void_after_a_restart_and_can_be_tried_again(url: str) -> None:
    arena = arena_at(url)
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "It rained.")
    import socket

    gone = f"{socket.gethostname()}:999999999:earlier"
    assert arena.store.claim(voter, opened.round_id, gone, {})
    arena.store.close()
    again = arena_at(url)
    assert again.find(voter, opened.round_id).state == "void"
    with pytest.raises(NotAllowed, match="restarted"):
        again.vote(voter, opened.round_id, "a")
    assert again.retry(voter, opened.round_id).dialogue == opened.dialogue
    again.store.close()


def test_a_stream_of_a_living_replica_is_left_alone(url: str) -> None:
    arena = arena_at(url)
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), "It rained.")
    assert arena.store.claim(voter, opened.round_id, "elsewhere:1:boot", {})
    other = arena_at(url)
    assert other.find(voter, opened.round_id).state == "streaming"
    with pytest.raises(NotAllowed, match="being answered already"):
        other.stream(voter, opened.round_id)
    arena.store.close()
    other.store.close()
