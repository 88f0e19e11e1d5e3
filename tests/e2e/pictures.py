"""`python -m tests.e2e.pictures`: every picture of the page, from the real app and its models.

The models are those that the app serves by default; `--preset tiny` takes those of the tests.
Writes stills of each state and tab (1400, 768, 390 and 320 px, light and dark, English and German)
to `--output`, and the README's two: `arena.png`, and `arena.webp`, one round as it happens.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.conftest import REPOSITORY
from tests.e2e.conftest import CHROMIUM, FLAGS, go_to_tab

MOST_BYTES = 300_000
"""Of each of the README's pictures."""
SEED = 4
LOOKS = (
    ("1400-light-en", {"width": 1400, "height": 900}, "light", "en-GB"),
    ("1400-dark-en", {"width": 1400, "height": 900}, "dark", "en-GB"),
    ("768-light-en", {"width": 768, "height": 1024}, "light", "en-GB"),
    ("320-dark-de", {"width": 320, "height": 568}, "dark", "de-DE"),
    ("390-light-de", {"width": 390, "height": 844}, "light", "de-DE"),
    ("390-dark-en", {"width": 390, "height": 844}, "dark", "en-GB"),
)
TEXT = "I burnt the dinner for my parents' anniversary, and everybody pretended to like it."
TABS = ("explore", "board", "results", "data", "about")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build" / "pictures")
    parser.add_argument("--only", choices=("stills", "moving"), default=None)
    parser.add_argument("--preset", default="smollm2", help="the pair that answers")
    parser.add_argument("--cache", type=Path, help="HF_ASSETS_CACHE with the base of the pair")
    names = [name for name, *_ in LOOKS]
    parser.add_argument("--look", choices=names, action="append", help="only these stills")
    wanted = parser.parse_args()
    wanted.output.mkdir(parents=True, exist_ok=True)
    if wanted.cache is not None:
        os.environ["HF_ASSETS_CACHE"] = str(wanted.cache)
    url, close = serve(wanted.preset)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            if wanted.only != "stills":
                moving(browser, url)
            if wanted.only != "moving":
                stills(browser, url, wanted.output, wanted.look)
            browser.close()
    finally:
        close()


def serve(preset: str) -> tuple[str, Any]:
    """The app as `python app.py` starts it, over a fresh database; waits until it can answer."""
    from empo_demo.settings import load_settings
    from empo_demo.ui.page import launch

    folder = tempfile.TemporaryDirectory()
    page = launch(
        load_settings(preset=preset, database=f"sqlite:///{folder.name}/votes.sqlite3", seed=SEED),
        block=False,
    )

    def close() -> None:
        page.close()
        folder.cleanup()

    return str(page.local_url), close


def visit(browser: Any, url: str, size: Any, theme: str, language: str) -> Any:
    page = browser.new_context(viewport=size, color_scheme=theme, locale=language).new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.wait_for_selector("#badge .badge.ready")
    return page


def finished(page: Any) -> None:
    """Until the round can be voted on."""
    page.wait_for_selector(".tag", state="detached")
    page.wait_for_selector("#vote_b:visible")


def stills(browser: Any, url: str, folder: Path, looks: list[str] | None) -> None:
    for name, size, theme, language in LOOKS:
        if looks and name not in looks:
            continue
        page = visit(browser, url, size, theme, language)

        def shot(state: str, page: Any = page, name: str = name) -> None:
            page.wait_for_timeout(600)
            page.screenshot(path=folder / f"{name}-{state}.png", full_page=True)

        shot("1-first")
        page.fill("#box textarea", TEXT)
        page.click("#send")
        page.wait_for_selector("#agree:visible")
        shot("2-consent")
        page.click("#agree")
        page.wait_for_selector("[aria-busy=true]")
        page.screenshot(path=folder / f"{name}-3-streaming.png")
        finished(page)
        shot("4-votable")
        page.click("#vote_b")
        page.wait_for_selector(".reveal")
        shot("5-voted")
        page.click("#share")
        page.wait_for_selector(".share img")
        shot("5-card")
        page.fill("#box textarea", "A bell\u0007 rang.")
        page.click("#send")
        page.wait_for_selector(".message.error")
        shot("5-error")
        page.fill("#box textarea", "My mother even asked for more.")
        page.click("#send")
        page.wait_for_selector(".reveal", state="detached")
        page.wait_for_selector("#vote_b:visible")
        shot("6-second-turn")
        rare(page, shot)
        ten(page, shot)
        for place, tab in enumerate(TABS, start=1):
            go_to_tab(page, place)
            if tab == "explore":
                page.wait_for_selector("#x-pane-b .facts")
            page.wait_for_timeout(3000)
            shot(f"7-{tab}")
        page.context.close()


def rare(page: Any, shot: Callable[[str], None]) -> None:
    """What is seldom seen: help in a crisis, a full queue, a lost connection."""
    page.click("#vote_a")
    page.wait_for_selector(".reveal")
    page.fill("#box textarea", "I cannot go on. I want to end my life.")
    page.click("#send")
    page.wait_for_selector(".notice.crisis")
    shot("6-crisis")
    page.click("#new")
    page.fill("#box textarea", "Nobody came to my birthday party. I had baked two cakes.")
    page.click("#send")
    page.wait_for_selector("#stop:visible")
    page.wait_for_function("document.querySelector('#pane_a .text')?.innerText.length > 9")
    page.click("#stop")
    page.wait_for_selector("#stop", state="hidden")
    shot("6-stopped")
    page.click("#new")
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, body="{}"))
    page.locator(".example").nth(1).click()
    page.wait_for_selector("#told")
    shot("6-queue-full")
    page.unroute("**/queue/join*")
    page.wait_for_selector(".reveal", state="detached")
    page.wait_for_selector("#votebar:not([inert]) #vote_b:visible")
    page.context.set_offline(True)
    page.click("#vote_a")
    page.wait_for_selector("#told")
    shot("6-lost")
    page.context.set_offline(False)
    page.wait_for_selector(".reveal")


def ten(page: Any, shot: Callable[[str], None]) -> None:
    """Ten situations in a row: one on the way, and the end."""
    page.click("#new")
    page.click("#ten")
    for number in range(1, 11):
        page.wait_for_selector(f".turns:has-text('{number}')")
        finished(page)
        if number == 3:
            shot("6-ten")
        page.click("#vote_a" if number % 2 else "#vote_tie")
        page.wait_for_selector(".reveal")
        if number < 10:
            page.click("#next")
            page.wait_for_selector(".reveal", state="detached")
    page.wait_for_selector(".ten-results")
    shot("6-ten-end")


def moving(browser: Any, url: str) -> None:
    """The README's pictures: one round, from the click on an example to who was who."""
    from PIL import Image

    page = visit(browser, url, {"width": 1100, "height": 760}, "light", "en-GB")
    frames: list[tuple[Image.Image, int]] = []

    def take(milliseconds: int) -> None:
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        frames.append((picture.resize((880, 608), Image.Resampling.LANCZOS), milliseconds))

    take(1800)
    page.locator(".example", has_text="Grandmother").click()
    page.wait_for_selector("[aria-busy=true]")
    began = time.monotonic()
    while time.monotonic() - began < 60 and not page.locator("#vote_b").is_visible():
        take(140)
    take(1600)
    page.click("#vote_b")
    page.wait_for_selector(".reveal")
    page.wait_for_timeout(700)
    take(3500)
    pictures = REPOSITORY / "assets" / "pictures"
    page.screenshot(path=pictures / "arena.png")
    stream, kept = pictures / "arena.webp", [frames[0]]
    for frame in frames[1:]:
        if frame[0].tobytes() == kept[-1][0].tobytes():
            kept[-1] = (kept[-1][0], kept[-1][1] + frame[1])
        else:
            kept.append(frame)
    first, *rest = [picture for picture, _ in kept]
    first.save(
        stream,
        save_all=True,
        append_images=rest,
        duration=[time for _, time in kept],
        loop=0,
        quality=35,
        method=4,
    )
    print(f"{stream.name}: {len(kept)} pictures")
    for path in (stream, pictures / "arena.png"):
        size = path.stat().st_size
        assert size <= MOST_BYTES, f"{path.name} has {size:,} bytes; at most {MOST_BYTES:,}"
    page.context.close()


if __name__ == "__main__":
    main()
