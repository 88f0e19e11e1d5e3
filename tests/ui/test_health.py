"""The probes of whoever runs the app."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from empo_demo.arena.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.ui.page import start
from empo_demo.ui.serving import middleware
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM


@pytest.fixture
def loading(store: Store) -> Arena:
    """An arena whose models are still loading."""
    return Arena(load_settings(database=str(store.database.url)), ROSTER, store)


@pytest.fixture
def url(loading: Arena) -> Iterator[str]:
    page = start(loading, load_lexicon(), quiet=True)
    yield page.local_url.rstrip("/")
    page.close()


def ready(arena: Arena) -> None:
    arena.models.attach(engine=ScriptedEngine(), sem=ScriptedSEM())


def test_it_lives_from_the_start_and_is_ready_with_its_models(loading: Arena, url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"ok": True, "missing": []}
    early = httpx.get(f"{url}/readyz")
    assert early.status_code == 503 and "loading" in early.json()["missing"][0]
    ready(loading)
    middleware.FRESH, fresh = 0.0, middleware.FRESH
    try:
        answer = httpx.get(f"{url}/readyz")
    finally:
        middleware.FRESH = fresh
    assert (answer.status_code, answer.json()["ok"]) == (200, True)


@pytest.mark.parametrize("path", middleware.PATHS)
def test_a_probe_leaves_no_cookie_and_no_line_under_any_host(
    loading: Arena, url: str, path: str
) -> None:
    ready(loading)
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, kept = logging.getLogger("uvicorn.access"), Kept()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(kept)
    try:
        answer = httpx.get(f"{url}{path}?x=1", headers={"host": "10.0.0.7:7860"})
        httpx.get(f"{url}/look/mark.svg")
    finally:
        log.removeHandler(kept)
        log.setLevel(level)
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert [line for line in lines if "mark.svg" in line], "the log would have a line"
    assert not [line for line in lines if path in line]


def test_it_lives_and_is_not_ready_while_nothing_can_be_stored(
    loading: Arena, url: str, monkeypatch: Any
) -> None:
    ready(loading)
    monkeypatch.setattr(middleware, "PATIENCE", 0.5)
    other = sqlite3.connect(str(loading.store.database.path), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        answer = httpx.get(f"{url}/readyz", timeout=20)
        assert answer.status_code == 503 and "did not answer" in answer.json()["missing"][0]
        assert httpx.get(f"{url}/healthz").status_code == 200
    finally:
        other.rollback()
        other.close()
