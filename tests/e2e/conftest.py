"""One page over scripted models, one browser; a fresh context for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware import Middleware

from empo_demo.arena.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


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


@pytest.fixture
def faults() -> list[str]:
    """What went wrong in the visitor's browser: page and console errors, foreign requests."""
    return []


@pytest.fixture
def visitor(chromium: Any, served: Served, faults: list[str]) -> Iterator[Any]:
    """A visitor's first look at the page; any fault fails the test."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on(
        "request",
        lambda r: (
            None if r.url.startswith((served.url, "data:", "blob:")) else faults.append(r.url)
        ),
    )
    page.goto(served.url)
    page.wait_for_selector("#badge .badge.ready")
    yield page
    context.close()
    assert faults == []
