"""Stop ends a round at once, also while its models say nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from empo_demo.arena.arena import Arena
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Delta, Event, Failed, Interruptible, Request
from empo_demo.engine.servers.routing import RoutingEngine
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedSEM

TEXT = "I failed my driving test again."
TWO_STEP = Roster(
    "test",
    (
        Contender("base", "base-weights", label="Base"),
        Contender("aligned", "base-weights", "adapter", label="Aligned", strategy="hef-two-step"),
    ),
)


class SilentEngine:
    """Says `words` on each side, then nothing until it is cut; then that it failed, as a server
    whose line is cut may."""

    def __init__(self, words: str = "", silent: threading.Semaphore | None = None) -> None:
        self.words = words
        self.silent = silent or threading.Semaphore(0)

    def describe(self) -> dict[str, str]:
        return {"engine": "silent"}

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        end = threading.Event()
        return Interruptible(self._say(requests, end), end.set)

    def _say(self, requests: Sequence[Request], end: threading.Event) -> Iterator[Event]:
        for request in requests:
            if self.words:
                yield Delta(request.side, self.words)
        self.silent.release()
        end.wait(60)
        for request in requests:
            yield Failed(request.side, "The line was cut.")


def stopped(store: Store, engine: Any, silent: SilentEngine, roster: Roster = ROSTER) -> Any:
    """The view of a round that was stopped in the silence, and the seconds that it took.

    It is tried three times at most: another program may have the processor for a second.
    """
    settings = load_settings(database=str(store.database.url))
    arena = Arena(settings, roster, store, engine=engine, sem=ScriptedSEM())
    for _ in range(3):
        view, seconds = _stopped_once(arena, silent)
        if seconds < 1:
            break
    return view, seconds


def _stopped_once(arena: Arena, silent: SilentEngine) -> Any:
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), TEXT)
    reader = threading.Thread(
        target=lambda: list(arena.stream(voter, opened.round_id)), daemon=True
    )
    while silent.silent.acquire(blocking=False):
        continue  # an earlier try's silence
    reader.start()
    assert silent.silent.acquire(timeout=60)
    started = time.monotonic()
    arena.stop(voter, opened.round_id)
    reader.join(30)
    assert not reader.is_alive()
    return arena.find(voter, opened.round_id), time.monotonic() - started


def routed(silent: SilentEngine) -> RoutingEngine:
    other = SilentEngine(silent.words, silent.silent)
    return RoutingEngine({"base": other, "aligned": silent})


@pytest.mark.parametrize("kind", [lambda silent: silent, routed])
@pytest.mark.parametrize("words", ["", "It was hard. I"])
def test_a_round_is_stopped_within_a_second_while_its_models_are_silent(
    store: Store, kind: Any, words: str
) -> None:
    silent = SilentEngine(words)
    view, seconds = stopped(store, kind(silent), silent)
    assert seconds < 1
    assert {reply.error for reply in view.replies.values()} == {None}
    assert {reply.reason for reply in view.replies.values()} == {"stopped"}
    if words:
        assert view.state == "votable"
        assert {reply.text for reply in view.replies.values()} == {words}
    else:
        assert view.void_reason == "It was stopped before both sides had said a sentence."


def test_a_round_is_stopped_within_a_second_while_one_side_thinks(store: Store) -> None:
    silent = SilentEngine()
    view, seconds = stopped(store, silent, silent, TWO_STEP)
    assert seconds < 1
    assert view.void_reason == "It was stopped before both sides had said a sentence."
