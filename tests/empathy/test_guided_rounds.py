"""HEF in whole rounds: guidance is seen after the vote only, and a bad SEM costs no round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue, Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.plugins import GuardedSEM
from empo_demo.empathy.reading import Cause, Reading
from empo_demo.engine.protocol import Delta, Event, Finished, Request
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store

TEXT = "My dog died this morning."


class Scripted:
    """Keeps the requests; says the first step in JSON and everything else in words."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        self.requests += requests
        for request in requests:
            asked = "one line of JSON" in request.messages[-1]["content"]
            text = '{"emotion": "lonely", "cause": ["dog"]}' if asked else "I am sorry."
            yield Delta(request.side, text)
            yield Finished(request.side, "eos", text, 3, 1.0)

    def describe(self) -> dict[str, str]:
        return {}


def good(turns: Sequence[Turn]) -> Reading:
    odds = {e: (0.69 if e == "sad" else 0.01) for e in EMOTIONS}
    ranked = tuple(sorted(odds.items(), key=lambda pair: -pair[1]))
    return Reading(ranked, (Cause(3, 6, "dog", 1.0),), "", 0.0)


def raises(_: Sequence[Turn]) -> Reading:
    raise RuntimeError("no memory")


def hangs(_: Sequence[Turn]) -> Reading:
    time.sleep(5)
    raise AssertionError("nobody waits for this")


def nonsense(turns: Sequence[Turn]) -> Any:
    return {"emotions": "many"}


def play(tmp_path: Path, read: Any, strategy: Any) -> tuple[Any, Any, Scripted]:
    """One whole round of `base` against a guided contender: (opened, reveal, engine)."""
    roster = Roster(
        "test",
        (Contender("base", "m", revision="1"), Contender("guided", "m", None, strategy, 1.0)),
        system_prompt="Be kind.",
    )
    settings = load_settings(database=f"sqlite:///{tmp_path / 'votes.sqlite3'}", seed=3)
    engine = Scripted()
    sem = GuardedSEM(SimpleNamespace(name="other", revision="1", read=read), limit=0.1)  # type: ignore[arg-type]
    arena = Arena(settings, roster, Store.open(settings.database), engine=engine, sem=sem)
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT, consent=arena.consent_text().version)
    list(arena.stream(voter, opened.round_id))
    return opened, arena.vote(voter, opened.round_id, "a").reveal, engine


def guided_side(reveal: Any) -> Any:
    return next(side for side in (reveal.a, reveal.b) if side.strategy != "plain")


def test_guidance_reaches_the_guided_side_alone_and_is_shown_after_the_vote(
    tmp_path: Path,
) -> None:
    opened, reveal, engine = play(tmp_path, good, "hef")
    systems = {r.contender: r.messages[0]["content"] for r in engine.requests}
    assert systems["base"] == "Be kind."
    assert systems["guided"] == f"Be kind.\n\n{guided_side(reveal).guidance}"
    assert "sad" in guided_side(reveal).guidance and '"dog"' in guided_side(reveal).guidance
    assert "guidance" not in repr(opened) and not guided_side(reveal).guidance_absent


def test_a_two_step_side_thinks_first_and_answers_by_its_own_conclusion(tmp_path: Path) -> None:
    _, reveal, engine = play(tmp_path, good, "hef-two-step")
    assert len(engine.requests) == 3
    assert "they feel lonely" in guided_side(reveal).guidance


@pytest.mark.parametrize("read", [raises, hangs, nonsense])
@pytest.mark.parametrize("strategy", ["hef", "hef-two-step"])
def test_with_a_bad_sem_the_round_goes_on_without_guidance_and_says_so(
    tmp_path: Path, read: Any, strategy: str
) -> None:
    opened, reveal, engine = play(tmp_path, read, strategy)
    assert opened.reading is None
    assert {r.messages[0]["content"] for r in engine.requests} == {"Be kind."}
    side = guided_side(reveal)
    assert side.guidance is None and side.guidance_absent
    assert side.contender == "guided~unguided", "the vote must not count for the guided contender"
    assert side.label == "guided (without guidance)"
