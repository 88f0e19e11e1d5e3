"""A round is claimed last, and its outcome is stored whatever happens to database or visitor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from empo_demo.arena import live, streaming
from empo_demo.arena.arena import Arena
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.errors import EngineError, StorageError
from empo_demo.votes.models import Round, now
from empo_demo.votes.store import Store
from tests.conftest import ScriptedEngine, ScriptedSEM, away

TEXT = "I failed my driving test again."


def unsaved(arena: Arena, voter: str) -> str:
    """A round whose replies were written while the database was away, and whose visitor left."""
    opened = arena.open_round(voter, Dialogue(), TEXT)
    events = arena.stream(voter, opened.round_id)
    next(events)
    with away(arena.store), pytest.raises(StorageError):
        list(events)
    return opened.round_id


def state(store: Store, round_id: str) -> str:
    with store.database.read() as session:
        return session.get_one(Round, round_id).state


def test_stop_stops_while_the_database_is_away_and_only_for_its_voter(arena: Arena) -> None:
    voter, thief = arena.new_voter(), arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    events = arena.stream(voter, opened.round_id)
    next(events)
    live = arena._rounds.get(opened.round_id)
    assert live is not None
    with away(arena.store):
        with pytest.raises(StorageError):
            arena.stop(thief, opened.round_id)
        assert not live.stop.is_set()
        arena.stop(voter, opened.round_id)
        assert live.stop.is_set()
        with pytest.raises(StorageError):
            list(events)
    assert arena.find(voter, opened.round_id).state in ("votable", "void"), "its end is not lost"


@pytest.mark.parametrize("broken", ["jobs_of", "describe", "RoundStream"])
def test_what_fails_before_the_first_word_leaves_the_round_unclaimed(
    arena: Arena, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)

    def fails(*_: Any, **__: Any) -> Any:
        raise EngineError("It is broken.")

    with monkeypatch.context() as patched:
        patched.setattr(engine if broken == "describe" else streaming, broken, fails)
        with pytest.raises(EngineError):
            list(arena.stream(voter, opened.round_id))
    assert arena.find(voter, opened.round_id).state == "pending"
    list(arena.stream(voter, opened.round_id))
    assert arena.vote(voter, opened.round_id, "a").created


def test_a_round_of_contenders_that_left_is_answered_by_those_who_are_here(
    arena: Arena, engine: ScriptedEngine
) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    roster = Roster("new", (Contender("other", "m"), Contender("another", "m")))
    later = Arena(arena.settings, roster, arena.store, engine=engine, sem=ScriptedSEM())
    before = later.store.round_of(voter, opened.round_id)
    list(later.stream(voter, opened.round_id))
    after = later.store.round_of(voter, opened.round_id)
    assert after.roster == "new" and after.state == "votable"
    (asked,) = engine.requests
    assert {request.contender for request in asked} == {"other", "another"}
    assert {reply.contender for reply in after.replies} == {"other", "another"}
    assert [reply.seed for reply in after.replies] == [reply.seed for reply in before.replies]
    assert (after.show_chips, after.show_plots) == (before.show_chips, before.show_plots)
    assert later.vote(voter, opened.round_id, "a").created


def test_an_attention_check_stays_one_when_the_other_side_is_drawn_again(
    arena: Arena, engine: ScriptedEngine
) -> None:
    settings = arena.settings.model_copy(update={"check_rate": 1.0})
    checked = Arena(settings, arena.roster, arena.store, engine=engine, sem=ScriptedSEM())
    voter = arena.new_voter()
    opened = checked.open_round(voter, Dialogue(), TEXT)
    roster = Roster("new", (Contender("other", "m"), Contender("another", "m")))
    later = Arena(settings, roster, arena.store, engine=engine, sem=ScriptedSEM())
    before = later.store.round_of(voter, opened.round_id)
    list(later.stream(voter, opened.round_id))
    after = later.store.round_of(voter, opened.round_id)
    bad = after.reply(str(before.check_side))
    other = after.reply("b" if bad.side == "a" else "a")
    assert bad.strategy == "check" and bad.revision == before.reply(bad.side).revision
    assert other.contender in ("other", "another")


def test_the_heartbeat_stores_an_outcome_when_the_database_is_back(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BEAT", 0.05)
    voter = arena.new_voter()
    round_id = unsaved(arena, voter)
    until = time.monotonic() + 10
    while state(arena.store, round_id) != "votable" and time.monotonic() < until:
        time.sleep(0.05)
    assert state(arena.store, round_id) == "votable", "nobody asked for the round"
    assert arena.vote(voter, round_id, "b").created


def test_a_heartbeat_survives_every_error(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEAT", 0.05)
    failures = [RuntimeError("a bug"), StorageError("away")] * 3
    real = arena.store.renew

    def renew(*values: Any) -> None:
        if failures:
            raise failures.pop()
        real(*values)

    monkeypatch.setattr(arena.store, "renew", renew)
    round_id = unsaved(arena, arena.new_voter())
    until = time.monotonic() + 10
    while state(arena.store, round_id) != "votable" and time.monotonic() < until:
        time.sleep(0.05)
    assert state(arena.store, round_id) == "votable" and not failures


def test_a_sweep_makes_no_unstored_outcome_void(arena: Arena) -> None:
    """While the database was away, the lease of the round ended."""
    voter = arena.new_voter()
    round_id = unsaved(arena, voter)
    with arena.store.database.write() as session:
        session.execute(update(Round).values(lease_until=now()))
    assert arena._rounds.sweep() == 0
    assert state(arena.store, round_id) == "votable"


def test_one_outcome_that_cannot_be_stored_keeps_no_other_back(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    voter = arena.new_voter()
    bad, good = unsaved(arena, voter), unsaved(arena, voter)
    real = arena.store.finish

    def finish(round_id: str, *values: Any, **more: Any) -> None:
        if round_id == bad:
            raise StorageError("refused")
        real(round_id, *values, **more)

    monkeypatch.setattr(arena.store, "finish", finish)
    with pytest.raises(StorageError, match="refused"):
        arena._rounds._store_outcomes()
    assert state(arena.store, good) == "votable"
