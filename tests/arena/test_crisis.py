"""In a crisis the way to help is alone: the arena refuses, whoever asks, and keeps nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.arena.guards import HelpFirst
from empo_demo.dialogue import MAX_TEXT, Dialogue
from empo_demo.empathy import safety
from empo_demo.errors import NotAllowed
from empo_demo.ui.examples import examples
from empo_demo.votes.limits import RateLimit
from empo_demo.votes.models import Base, Round
from empo_demo.votes.record import Record
from empo_demo.votes.store import Store

TEXT = "I do not want to live any more and I have the pills here."
CALM = "I failed my driving test again."
EARLIER = Dialogue().plus("user", TEXT).plus("assistant", "Oh.")


def rows(store: Store) -> int:
    """All rows of all tables, so that no table of a later version is forgotten."""
    with store.database.read() as session:
        return sum(
            len(session.execute(select(table)).all()) for table in Base.metadata.sorted_tables
        )


REFUSED: dict[str, Callable[[Arena, str], Any]] = {
    "a text": lambda a, v: a.open_round(v, Dialogue(), TEXT, address="192.0.2.1"),
    "a text with consent": lambda a, v: a.open_round(
        v, Dialogue(), TEXT, consent=a.consent_text().version, address="192.0.2.1", user="ada"
    ),
    "a text after an old consent": lambda a, v: a.open_round(v, Dialogue(), TEXT, consent="0" * 64),
    "a text that is too long": lambda a, v: a.open_round(
        v, Dialogue(), "It rains. " * (MAX_TEXT // 10) + TEXT
    ),
    "an earlier turn": lambda a, v: a.open_round(v, EARLIER, "It rains."),
    "a comparison": lambda a, v: a.explore(
        Comparison(Dialogue().plus("user", TEXT)), address="192.0.2.1"
    ),
    "an earlier turn of a comparison": lambda a, v: a.explore(
        Comparison(EARLIER.plus("user", "It rains."))
    ),
    "a reading": lambda a, v: a.analyze(TEXT),
    "a reading of a dialogue": lambda a, v: a.analyze(EARLIER.plus("user", "It rains.")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_help_comes_instead_of_an_answer_and_nothing_is_kept(
    arena: Arena, store: Store, engine: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = rows(store)
    with pytest.raises(HelpFirst) as caught:
        REFUSED[what](arena, arena.new_voter())
    assert caught.value.notice.kind == "crisis" and caught.value.notice.links
    assert "findahelpline.com" in caught.value.public and "call" in caught.value.public
    assert "pills" not in caught.value.public and "pills" not in caplog.text
    assert engine.requests == [] and rows(store) == before


def test_help_comes_before_every_limit(arena: Arena, store: Store) -> None:
    store.limits.rate = RateLimit(per_address=1, explores_per_address=1)
    voter = arena.new_voter()
    for _ in range(3):
        with pytest.raises(HelpFirst):
            arena.open_round(voter, Dialogue(), TEXT, address="192.0.2.1")
    assert arena.open_round(voter, Dialogue(), CALM, address="192.0.2.1"), "and it costs none"


def test_a_round_of_an_earlier_version_shows_help_and_takes_no_vote(
    arena: Arena, store: Store, engine: Any
) -> None:
    voter = arena.new_voter()
    waiting = arena.open_round(voter, Dialogue(), CALM).round_id
    answered = arena.open_round(voter, Dialogue(), CALM).round_id
    list(arena.stream(voter, answered))
    asked = len(engine.requests)
    with store.database.write() as session:
        session.execute(update(Round).values(crisis=True))
    for call in (
        lambda: arena.find(voter, answered),
        lambda: arena.latest(voter),
        lambda: list(arena.stream(voter, answered)),
        lambda: list(arena.stream(voter, waiting)),
        lambda: arena.vote(voter, answered, "a"),
        lambda: arena.retry(voter, answered),
    ):
        with pytest.raises(HelpFirst):
            call()
    assert len(engine.requests) == asked and arena.stats().votes == {}
    assert len(arena.my_data(voter)) == 2 and arena.delete_my_data(voter) == 2


def test_a_dialogue_that_turns_into_a_crisis_is_not_tried_again(arena: Arena, store: Store) -> None:
    """The flag of an earlier version may be missing: what the dialogue says decides."""
    voter = arena.new_voter()
    round_id = arena.open_round(voter, Dialogue(), CALM).round_id
    with store.database.write() as session:
        session.execute(update(Round).values(dialogue=Dialogue().plus("user", TEXT).messages()))
    before = rows(store)
    with pytest.raises(HelpFirst):
        arena.retry(voter, round_id)
    assert rows(store) == before


def test_a_check_that_fails_lets_the_patterns_decide(
    arena: Arena, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.empathy import safety

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"could not read {TEXT}")

    for name in ("find_personal", "is_english"):
        monkeypatch.setattr(safety, name, broken)
    with pytest.raises(HelpFirst):
        arena.open_round(arena.new_voter(), Dialogue(), TEXT)
    assert "pills" not in caplog.text


def test_no_example_and_no_recorded_round_is_refused(arena: Arena) -> None:
    for one in examples():
        said = one.before.plus("user", one.text)
        arena.heed([turn.content for turn in said.turns if turn.role == "user"])


def test_a_refusal_is_an_error_for_people() -> None:
    assert issubclass(HelpFirst, NotAllowed)


def test_a_text_is_judged_once_on_its_way_to_the_vote(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the box over the round to the receipt and a reload; its notices are kept as kinds."""
    said = "Mail me at ann@example.org, ich bin so traurig, weil mein Hund gestorben ist."
    asked: list[tuple[str, Any]] = []
    for name in ("assess", "crisis_in"):
        real = getattr(safety, name)

        def spy(text: Any, *more: Any, name: str = name, real: Any = real) -> Any:
            asked.append((name, text))
            return real(text, *more)

        monkeypatch.setattr(safety, name, spy)
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), arena.judge(said))
    list(arena.stream(voter, opened.round_id))
    found = arena.find(voter, opened.round_id)
    voted = arena.vote(voter, opened.round_id, "a").view
    assert [one for one in asked if one[1]] == [("crisis_in", [said]), ("assess", said)]
    shown = [notice.kind for notice in opened.notices]
    assert shown == ["personal", "english"]
    for view in (found, voted, arena.find(voter, opened.round_id)):
        assert guards.notices_of(view.notices) == opened.notices
    (mine,) = arena.my_data(voter)
    assert Record.check(mine).as_round().notices == ["email", "english"]


def test_the_receipt_of_a_vote_holds_the_round_that_the_page_shows(arena: Arena) -> None:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), CALM)
    list(arena.stream(voter, opened.round_id))
    for _ in range(2):
        receipt = arena.vote(voter, opened.round_id, "b")
        found = arena.find(voter, opened.round_id)
        assert receipt.view.as_json() | {"receipt": None} == found.as_json() | {"receipt": None}
        assert receipt.view.receipt is receipt and "round" not in receipt.as_json()
