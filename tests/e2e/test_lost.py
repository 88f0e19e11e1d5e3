"""A server that dies and comes back, and a connection that is lost: told, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.conftest import REPOSITORY
from tests.e2e.conftest import CUT, Faults, Served
from tests.e2e.test_page import TEXT, send

pytestmark = pytest.mark.browser
APP = """
import sys
from empo_demo.arena.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.ui.page import start
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

engine = ScriptedEngine(pause=0.1)
if sys.argv[2] == "long":
    engine.enqueue(*[" ".join(f"word{n}." for n in range(400))] * 2)
settings = load_settings(database=f"sqlite:///{sys.argv[1]}/votes.sqlite3")
arena = Arena(settings, ROSTER, Store.open(settings.database), engine=engine, sem=ScriptedSEM())
page = start(arena, load_lexicon(), quiet=True)
print("url", page.local_url, flush=True)
page.block_thread()
"""
LOST = ("Failed to fetch", "ERR_", "Connection", "network error", "Load failed")
"""What a browser reports of a server that is not there."""


def app(folder: Path, kind: str, port: str = "") -> tuple[subprocess.Popen[str], str]:
    """The page as a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", APP, str(folder), kind],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **({"GRADIO_SERVER_PORT": port} if port else {})},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("url "):
            return process, line.split()[1].rstrip("/")
    raise AssertionError("the page did not start")


def test_a_killed_server_that_comes_back_finds_the_round_and_goes_on(
    chromium: Any, faults: Faults, tmp_path: Path
) -> None:
    process, url = app(tmp_path, "long")
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    page = faults.watch(context.new_page(), url)
    try:
        page.goto(url)
        page.wait_for_selector("#badge .badge.ready")
        send(page)
        expect(page.locator("#pane_a .text")).to_contain_text("word3")
        process.kill()
        process.wait()
        expect(page.locator("#told")).to_contain_text("connection is lost")
        process, url = app(tmp_path, "short", url.rsplit(":", 1)[1])
        expect(page.locator("#message")).to_contain_text("The app was restarted")
        expect(page.locator(".thread")).to_contain_text(TEXT)
        page.click("#retry")
        expect(page.locator("#vote_b")).to_be_visible()
        page.click("#vote_b")
        expect(page.locator(".reveal")).to_be_visible()
    finally:
        context.close()
        process.kill()
        process.wait()
    faults.forgive(*LOST)


def test_a_lost_connection_is_told_and_the_text_goes_out_when_it_is_back(
    visitor: Any, served: Served, faults: Faults
) -> None:
    visitor.fill("#box textarea", TEXT)
    visitor.click("#send")
    expect(visitor.locator("#agree")).to_be_visible()
    visitor.context.set_offline(True)
    visitor.click("#refuse")
    expect(visitor.locator("#told")).to_contain_text("connection is lost")
    assert visitor.input_value("#box textarea") == TEXT
    visitor.context.set_offline(False)
    expect(visitor.locator("#vote_b")).to_be_visible()
    expect(visitor.locator(".thread")).to_contain_text(TEXT)
    expect(visitor.locator("#pane_a .pane .text")).to_have_text(
        "I am sorry to hear that.", timeout=40000
    )
    faults.forgive(*LOST)


def test_what_stood_in_the_box_outlives_a_reload(visitor: Any, faults: Faults) -> None:
    visitor.fill("#box textarea", "Half a sentence, not")
    visitor.reload()
    expect(visitor.locator("#box textarea")).to_have_value("Half a sentence, not")
    visitor.reload()
    expect(visitor.locator("#box textarea")).to_have_value("Half a sentence, not")
    faults.forgive(*CUT)
