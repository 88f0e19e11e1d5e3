"""Guided contenders in whole rounds: what is recorded, exported, ranked, and kept from the page."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.arena.frames import Frame
from empo_demo.arena.rounds import Receipt
from empo_demo.board.ballots import ballots_of_store
from empo_demo.board.board import board
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue, Turn
from empo_demo.empathy.plugins import LIMIT, GuardedSEM
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request
from empo_demo.exchange.export import export_file
from empo_demo.settings import load_settings
from empo_demo.ui.drawing.panes import reveal as reveal_html
from empo_demo.votes.store import Store
from tests.conftest import ScriptedEngine, ScriptedSEM

TEXT = "My dog died this morning."
STRATEGIES = ["hef", "hef-two-step"]


def roster_of(strategy: Any) -> Roster:
    return Roster(
        "test",
        (
            Contender("base", "m", label="Base", revision="rev-b"),
            Contender("base+HEF", "m", None, strategy, label="Base with HEF", revision="rev-h"),
        ),
        system_prompt="Be kind.",
    )


def make(store: Store, sem: Any, strategy: Any = "hef", engine: Any = None) -> Arena:
    settings = load_settings(database=str(store.database.url), seed=3)
    return Arena(settings, roster_of(strategy), store, engine=engine or ScriptedEngine(), sem=sem)


def voted(arena: Arena, verdict: str = "a") -> Receipt:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT, consent=arena.consent_text().version)
    list(arena.stream(voter, opened.round_id))
    return arena.vote(voter, opened.round_id, verdict)


def ids(receipt: Receipt) -> set[str]:
    return {receipt.reveal.a.contender, receipt.reveal.b.contender}


@pytest.fixture
def hanging() -> Iterator[GuardedSEM]:
    """A plugin that never answers, under the limit that holds in earnest."""
    released = threading.Event()

    def read(_: Sequence[Turn]) -> Any:
        released.wait(60)

    yield GuardedSEM(SimpleNamespace(name="slow", revision="1", read=read))
    released.set()


def failing() -> GuardedSEM:
    def read(_: Sequence[Turn]) -> Any:
        raise RuntimeError("no memory")

    return GuardedSEM(SimpleNamespace(name="broken", revision="1", read=read))


def exported(store: Store, form: str, path: Path, **options: Any) -> list[dict[str, Any]]:
    export_file(str(store.database.url), form, path, **options)
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file)) if form == "csv" else [json.loads(x) for x in file]


def test_a_hanging_sem_costs_a_round_two_seconds_and_its_guidance(
    store: Store, hanging: GuardedSEM
) -> None:
    started = time.monotonic()
    receipt = voted(make(store, hanging))
    assert LIMIT == 2.0
    assert LIMIT <= time.monotonic() - started < LIMIT + 5
    assert ids(receipt) == {"base", "base+HEF~unguided"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("sem", [failing(), None], ids=["failing", "absent"])
def test_an_unguided_side_is_recorded_exported_and_shown_as_such(
    store: Store, tmp_path: Path, sem: Any, strategy: str
) -> None:
    receipt = voted(make(store, sem, strategy))
    assert ids(receipt) == {"base", "base+HEF~unguided"}
    (row,) = exported(store, "csv", tmp_path / "votes.csv")
    assert {row["a_contender"], row["b_contender"]} == {"base", "base+HEF~unguided"}
    assert row["a_guidance"] == row["b_guidance"] == ""
    (pair,) = exported(store, "trl", tmp_path / "pairs.jsonl", mixed=True)
    assert {pair["chosen_contender"], pair["rejected_contender"]} == ids(receipt)
    page = reveal_html(receipt)
    assert "Base with HEF (without guidance)" in page and "answered without" in page


def test_the_board_keeps_unguided_votes_apart_from_guided_ones(store: Store) -> None:
    for sem, times in ((ScriptedSEM(), 3), (failing(), 2)):
        arena = make(store, sem)
        for _ in range(times):
            voted(arena)
    found = board(ballots_of_store(store), arena.roster, samples=20)
    votes = {one.id: one.votes for one in found.ranking.contenders}
    assert votes == {"base": 5, "base+HEF": 3, "base+HEF~unguided": 2}
    for one in found.matrix:
        if {one.one, one.other} == {"base+HEF", "base+HEF~unguided"}:
            assert (one.wins, one.losses, one.ties, one.both_bad) == (0, 0, 0, 0)
    assert store.contender_counts() == votes, "the draw still owes the guided one its votes"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_before_the_vote_no_public_method_tells_of_guidance_or_contender(
    store: Store, strategy: str
) -> None:
    settings = load_settings(database=str(store.database.url), seed=3, exposure="after-vote")
    engine = ScriptedEngine()
    arena = Arena(settings, roster_of(strategy), store, engine=engine, sem=ScriptedSEM())
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT, consent=arena.consent_text().version)
    seen: list[Any] = [opened.as_json(), arena.find(voter, opened.round_id).as_json()]
    for frame in arena.stream(voter, opened.round_id, every=0):
        seen += [asdict(frame), arena.find(voter, opened.round_id).as_json()]
    latest = arena.latest(voter)
    assert latest is not None
    seen += [latest.as_json(), arena.my_votes(voter), asdict(arena.models.status())]
    seen.append(arena.stats().as_json())
    told = json.dumps(seen, default=str).lower()
    for secret in ("base", "hef", "rev-", "guidance", "thought", "disappointed", "strategy"):
        assert secret not in told
    assert "disappointed" in json.dumps([r.messages for rs in engine.requests for r in rs])
    after = arena.vote(voter, opened.round_id, "a").as_json()
    assert "disappointed" in json.dumps(after) and after["reading"] is not None


class Thinking:
    """Logs what it is asked; step one is slow, and every word after it is timed."""

    def __init__(self, thought: str | Exception) -> None:
        self.thought = thought
        self.thought_at = 0.0

    def describe(self) -> dict[str, str]:
        return {}

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        if len(requests) == 1:
            time.sleep(0.2)
            self.thought_at = time.monotonic()
            if isinstance(self.thought, Exception):
                raise self.thought
            yield Finished(requests[0].side, "eos", self.thought, 3, 1.0)
            return
        for request in requests:
            time.sleep(0.1)
            yield Delta(request.side, "Oh.")
        for request in requests:
            yield Finished(request.side, "eos", "Oh.", 1, 1.0)


def timed(arena: Arena) -> list[tuple[float, Frame]]:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT, consent=arena.consent_text().version)
    stream = arena.stream(voter, opened.round_id, every=0)
    return [(time.monotonic(), frame) for frame in stream]


def test_a_side_that_thinks_first_does_not_let_the_other_speak_before_it(store: Store) -> None:
    engine = Thinking('{"emotion": "lonely", "cause": ["dog"]}')
    frames = timed(make(store, ScriptedSEM(), "hef-two-step", engine))
    first_at, first = frames[0]
    assert first.texts == {"a": "Oh.", "b": "Oh."} and not first.ends
    assert first_at >= engine.thought_at > 0
    assert all(all(frame.texts.values()) for _, frame in frames), (
        "the engine was 0.1 s apart; the page must not see it"
    )


def test_an_engine_that_breaks_while_thinking_ends_the_round_in_words(store: Store) -> None:
    arena = make(store, ScriptedSEM(), "hef-two-step", Thinking(RuntimeError("CUDA error")))
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT, consent=arena.consent_text().version)
    *_, last = arena.stream(voter, opened.round_id)
    failed = [end for end in last.ends.values() if isinstance(end, Failed)]
    assert {end.side for end in failed} == {"a", "b"}
    view = arena.find(voter, opened.round_id)
    assert view.state == "void" and "broke off" in (view.void_reason or "")
