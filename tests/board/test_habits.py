"""What people prefer: counts of one's own votes, shares of everybody's old ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from empo_demo.arena.arena import Arena
from empo_demo.board import habits
from empo_demo.board.habits import Answer, Counts, Everybody, count, measure, preferences
from empo_demo.dialogue import Dialogue
from empo_demo.votes.models import Round, Vote, now
from tests.conftest import ScriptedEngine

ALIGNED = Answer("aligned+HEF", "I am so sorry to hear that. What happened then?")
BASE = Answer("base", "That is sad.")


def test_a_vote_is_told_in_each_respect_in_which_the_replies_differ() -> None:
    assert preferences(ALIGNED, BASE, "a") == {"alignment": 1, "length": 1, "question": 1}
    assert preferences(BASE, ALIGNED, "a") == {"alignment": -1, "length": -1, "question": -1}
    assert preferences(BASE, ALIGNED, "both_bad") == {"alignment": 0, "length": 0, "question": 0}


@pytest.mark.parametrize("other", ["sft", "aligned", "human"])
def test_only_aligned_beside_base_says_something_about_alignment(other: str) -> None:
    found = preferences(ALIGNED, Answer(other, ALIGNED.text), "a")
    assert "alignment" not in found


def test_a_guided_side_without_guidance_is_still_its_model() -> None:
    assert preferences(ALIGNED, Answer("base+HEF~unguided", ALIGNED.text), "b") == {"alignment": -1}


def test_own_votes_are_counted_and_not_estimated() -> None:
    votes = [(ALIGNED, BASE, "a"), (BASE, ALIGNED, "a"), (BASE, ALIGNED, "tie")]
    assert count(votes)["alignment"] == Counts(1, 1, 1)
    assert count([])["length"] == Counts()


def cast(arena: Arena, engine: ScriptedEngine, times: int, age: timedelta, verdict: str) -> None:
    """`times` votes of as many people, on a long question beside a short statement."""
    for _ in range(times):
        engine.enqueue(ALIGNED.text, BASE.text)
        voter, consent = arena.new_voter(), arena.consent_text().version
        opened = arena.open_round(voter, Dialogue(), "I failed.", consent=consent)
        list(arena.stream(voter, opened.round_id))
        arena.vote(voter, opened.round_id, verdict)
        with arena.store.database.write() as session:
            session.execute(
                update(Vote).where(Vote.round_id == opened.round_id).values(created_at=now() - age)
            )


DAY = timedelta(days=1, minutes=1)


def test_everybody_is_told_of_only_by_thirty_votes_that_are_older_than_a_day(
    arena: Arena, engine: ScriptedEngine
) -> None:
    cast(arena, engine, 29, DAY, "a")
    cast(arena, engine, 9, timedelta(hours=23), "b")
    cast(arena, engine, 5, DAY, "tie")
    assert measure(arena.store)["length"] is None
    cast(arena, engine, 1, DAY, "b")
    found = measure(arena.store)["length"]
    assert found is not None and found.votes == 30 and found.one == pytest.approx(29 / 30)
    assert 0.8 < found.interval[0] < found.one <= found.interval[1] <= 1


def test_a_check_and_a_vote_without_consent_are_nobodys_habit(
    arena: Arena, engine: ScriptedEngine
) -> None:
    cast(arena, engine, 30, DAY, "a")
    with arena.store.database.write() as session:
        session.execute(update(Round).values(check_side="b"))
    assert measure(arena.store) == dict.fromkeys(["alignment", "length", "question"])


def test_everybodys_shares_are_measured_once_an_hour(
    arena: Arena, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = Everybody(arena.store)
    assert everybody.shares()["length"] is None
    monkeypatch.setattr(habits, "measure", lambda store: {"length": "anew"})
    assert everybody.shares()["length"] is None
    monkeypatch.setattr(everybody, "_until", 0.0)
    assert everybody.shares() == {"length": "anew"}
