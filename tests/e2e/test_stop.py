"""Stop and New dialogue in a real browser, while the models say nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import expect

from empo_demo.engine.lockstep.places import Places
from empo_demo.engine.protocol import Event, Interruptible, Request
from empo_demo.engine.servers.remote import RemoteEngine
from tests.conftest import ScriptedEngine
from tests.e2e.conftest import Served
from tests.e2e.test_box import leave, plays_on
from tests.e2e.test_page import send, voted
from tests.engine.test_remote import CONTENDERS, FIRST_WORDS, SilentServer

pytestmark = pytest.mark.browser


class OneAtATime(ScriptedEngine):
    """One place, as a small device has: the other rounds wait in line."""

    def __init__(self) -> None:
        super().__init__()
        self.places = Places(1)

    @property
    def waiting(self) -> int:
        return self.places.waiting

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        gone = threading.Event()

        def cut() -> None:
            gone.set()
            self.places.wake()

        return Interruptible(self._in_line(requests, gone), cut)

    def _in_line(self, requests: Sequence[Request], gone: threading.Event) -> Iterator[Event]:
        if not self.places.take(given_up=gone.is_set):
            return
        try:
            yield from super().stream(requests)
        finally:
            self.places.give_back()


@pytest.fixture
def answered_by(served: Served) -> Iterator[Callable[[Any], None]]:
    """Lets another engine answer for this test."""
    yield lambda engine: served.arena.models.attach(engine=engine)
    served.arena.models.attach(engine=served.engine)


def is_stopped(page: Any) -> float:
    """Press Stop; the seconds until the page says what became of the round."""
    started = time.monotonic()
    page.click("#stop")
    expect(page.locator("#message")).to_contain_text("It was stopped before both")
    seconds = time.monotonic() - started
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#retry")).to_be_visible()
    expect(page.locator("#message")).not_to_contain_text("Stopping")
    return seconds


def test_stop_takes_a_round_out_of_the_line_at_once(visitor: Any, answered_by: Any) -> None:
    engine = OneAtATime()
    engine.places.take()  # another visitor's round
    answered_by(engine)
    send(visitor)
    expect(visitor.locator("#message")).to_contain_text("Both models are reading")
    expect(visitor.locator("#stop")).to_be_visible()
    assert engine.waiting == 1
    assert is_stopped(visitor) < 5  # the browser's seconds on a busy machine, not the arena's
    assert engine.waiting == 0
    engine.places.give_back()
    visitor.click("#retry")
    voted(visitor)


@pytest.mark.parametrize("words", [b"", FIRST_WORDS])
def test_stop_leaves_a_silent_server(visitor: Any, answered_by: Any, words: bytes) -> None:
    server = SilentServer(words)
    answered_by(RemoteEngine(server.url, CONTENDERS))
    send(visitor)
    assert all(server.asked.acquire(timeout=60) for _ in "ab")
    if words:
        expect(visitor.locator("#pane_a .pane .text")).to_contain_text("so sorry")
        visitor.click("#stop")
        expect(visitor.locator("#vote_a")).to_be_visible()
        expect(visitor.locator("#message")).to_contain_text("Read both, then vote.")
    else:
        is_stopped(visitor)
    assert all(server.left.acquire(timeout=60) for _ in "ab")


def test_new_dialogue_leaves_the_line(visitor: Any, answered_by: Any) -> None:
    engine = OneAtATime()
    engine.places.take()  # another visitor's round
    answered_by(engine)
    send(visitor)
    expect(visitor.locator("#stop")).to_be_visible()
    leave(visitor)
    expect(visitor.locator(".tag")).to_be_visible()
    assert engine.waiting == 0
    engine.places.give_back()
    plays_on(visitor)
