"""One page over scripted models, one browser; a fresh context for every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from starlette.middleware import Middleware

from empo_demo.arena.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

PATIENCE = 180_000
"""Milliseconds. Beside two trainings a round of sixty words took more than a minute."""
expect.set_options(timeout=PATIENCE)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def go_to_tab(page: Any, place: int) -> None:
    """Press the tab at `place` (Arena is 0); on a phone the last ones are in a menu."""
    in_row = page.locator("#tabs button[role=tab]")
    if place < in_row.count():
        in_row.nth(place).click()
    else:
        page.click("#tabs .overflow-menu > button")
        page.locator("#tabs .overflow-dropdown button").nth(place - in_row.count()).click()


def listen(page: Any) -> None:
    """From now on `window.heard` gets each thing that a screen reader is told."""
    page.evaluate(
        """() => {
          window.heard = [];
          const live = document.getElementById('live');
          new MutationObserver(() => window.heard.push(live.textContent))
            .observe(live, { childList: true });
        }"""
    )


def violations(page: Any, state: str = "page") -> list[str]:
    """What axe-core finds once nothing fades in any more: half-faded text lacks contrast."""
    page.evaluate(
        """() => Promise.allSettled(document.getAnimations()
            .filter(a => a.effect.getComputedTiming().iterations !== Infinity)
            .map(a => a.finished))"""
    )
    found = Axe().run(page).response["violations"]
    return [f"{state}: {v['id']} {v['nodes'][0]['html'][:120]}" for v in found]


class Recorder:
    """Every byte that the app sends but for Gradio's own scripts; outermost: nothing passes it."""

    sent = bytearray()

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def recorded(message: Any) -> None:
            if message["type"] == "http.response.body" and "/assets/" not in scope["path"]:
                Recorder.sent += message.get("body", b"")
            await send(message)

        await self._app(scope, receive, recorded)


@dataclass
class Served:
    """A running page and what is behind it; `sent` is all that left it since it was cleared."""

    url: str
    arena: Arena
    engine: ScriptedEngine
    sent: bytearray


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from empo_demo.ui.page import start

    folder = tmp_path_factory.mktemp("page")
    settings = load_settings(database=f"sqlite:///{folder}/votes.sqlite3")
    engine = ScriptedEngine(pause=0.03)
    store = Store.open(settings.database)
    arena = Arena(settings, ROSTER, store, engine=engine, sem=ScriptedSEM())
    page = start(arena, load_lexicon(), outermost=[Middleware(Recorder)], quiet=True)
    yield Served(page.local_url.rstrip("/"), arena, engine, Recorder.sent)
    page.close()
    store.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian's package chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(Path(CHROMIUM)), args=FLAGS)
        yield browser
        browser.close()


CUT = ("signal is aborted", "Connection errored out", "ERR_ABORTED", "ERR_NETWORK_CHANGED")
"""What Gradio's front end reports when its event stream ends with the page that it was for."""


class Faults(list[str]):
    """What went wrong in a visitor's browser: page and console errors, foreign requests."""

    def forgive(self, *words: str) -> None:
        """Forget the faults that the test itself brought about."""
        self[:] = [fault for fault in self if not any(word in fault for word in words)]

    def watch(self, page: Any, url: str) -> Any:
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda m: self.append(m.text) if m.type == "error" else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.append(r.url),
        )
        return page


@pytest.fixture
def faults() -> Iterator[Faults]:
    """The faults of all pages of a test; any that is left fails it."""
    found = Faults()
    yield found
    assert found == []


@pytest.fixture
def visit(chromium: Any, served: Served, faults: Faults) -> Iterator[Callable[..., Any]]:
    """Opens the page as a new visitor; the options are those of a Playwright context."""
    contexts = []

    def opened(**options: Any) -> Any:
        options.setdefault("viewport", {"width": 1400, "height": 900})
        contexts.append(chromium.new_context(**options))
        page = faults.watch(contexts[-1].new_page(), served.url)
        page.goto(served.url)
        page.wait_for_selector("#badge .badge.ready")
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def visitor(visit: Callable[..., Any]) -> Any:
    """A visitor's first look at the page."""
    return visit()
