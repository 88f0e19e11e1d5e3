"""Today's page beside an older one, as ratios: `python -m tests.bench.page [--old REV]`.

Both pages run at once over scripted models, each from its own worktree in its own process, and one
Chromium visits them in turn. Measured, each as the median of the visits:

- the time from Send to the first word, where consent was given before,
- the same for a first visit, with the choice about consent that comes in between,
- the main thread's processor time for one answer (scripts, style, layout and paint),
- the bytes and the time to first paint, and until the page stands and is ready.

A ratio below 1 is better than the old page. An older page asks for consent before Send, today's
after it: the whole first visit is measured from whichever click comes first. Bytes are those of
the wire, compressed. Nothing polls inside the page, so that a slow machine adds no work to it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as Late

from tests.conftest import REPOSITORY
from tests.e2e.conftest import CHROMIUM, FLAGS

OLD = "d72a6a3"
"""The page before its last redesign."""
PATIENCE = 90
"""Seconds that a step may take on a busy machine."""
TEXT = "I failed my driving test again."
REPLY = " ".join(["word"] * 40)
SERVE = """
import sys, tempfile
try:
    from empo_demo.arena.arena import Arena
except ImportError:  # Before it was a room.
    from empo_demo.arena import Arena
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import load_settings
from empo_demo.ui import page as module
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

engine = ScriptedEngine(pause=0.02)
say = engine._say
engine._say = lambda requests, replies: say(requests, (sys.argv[1], sys.argv[1]))
settings = load_settings(database=f"sqlite:///{tempfile.mkdtemp()}/votes.sqlite3")
arena = Arena(settings, ROSTER, Store.open(settings.database), engine=engine, sem=ScriptedSEM())
if hasattr(module, "start"):
    url = module.start(arena, load_lexicon(), quiet=True).local_url
else:
    page = module.build(arena, load_lexicon())
    page.queue(max_size=64, default_concurrency_limit=16, api_open=True)
    _, url, _ = page.launch(**module.launch_options(), prevent_thread_lock=True, quiet=True)
print("url", url, flush=True)
sys.stdin.read()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", default=OLD, help="the commit to compare with")
    parser.add_argument("--visits", type=int, default=5)
    wanted = parser.parse_args()
    with (
        worktree(wanted.old) as old,
        served(old) as before,
        served(REPOSITORY) as after,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        found: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
        for number in range(wanted.visits + 1):
            for name, url in (("old", before), ("new", after)):
                one = visited(browser, url)
                print(name, json.dumps(one), file=sys.stderr, flush=True)
                if number:  # The first visit warms both up.
                    found[name].append(one)
        browser.close()
    print(json.dumps(table(found, wanted.old), indent=1))


def table(found: dict[str, list[dict[str, float]]], old: str) -> dict[str, Any]:
    rows = {}
    for key in found["new"][0]:
        one, other = (statistics.median(visit[key] for visit in found[n]) for n in ("old", "new"))
        rows[key] = {"old": round(one, 3), "new": round(other, 3), "ratio": round(other / one, 2)}
    return {"old": old, "visits": len(found["new"]), **rows}


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The repository as it was at `revision`."""
    place = Path(tempfile.mkdtemp()) / "old"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--detach", str(place), revision], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


@contextmanager
def served(where: Path) -> Iterator[str]:
    """The page of the worktree `where`; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, REPLY],
        cwd=where,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("url "):
                yield line.split()[1]
                break
        else:
            raise SystemExit(f"The page of {where} did not start.")
    finally:
        process.terminate()
        process.wait(timeout=30)


STANDS = """
  new MutationObserver((_, watch) => {
    if (!document.querySelector('#box textarea')) return;
    watch.disconnect();
    requestAnimationFrame(() => { window.stands = performance.now(); });
  }).observe(document, { childList: true, subtree: true });
"""
"""Notes when the page's own content is laid out; Gradio paints "Loading" long before."""
LOOK = """() => {
  window.seen = window.sent = 0;
  const look = new MutationObserver(() => {
    const pane = document.querySelector('#pane_a');
    if (!window.sent || !pane || !pane.textContent.includes('word')) return;
    look.disconnect();
    requestAnimationFrame(() => { window.seen = performance.now(); });
  });
  document.addEventListener('click', () => {
    window.sent = performance.now();
    look.observe(document.body, { childList: true, subtree: true, characterData: true });
  }, { capture: true, once: true });
}"""
"""Notes when the first word after the next click is in pane A, in time for the next frame."""


def visited(browser: Any, url: str, tries: int = 3) -> dict[str, float]:
    """A visit that came to its end; on a busy machine one may not, and another takes its place."""
    for _ in range(tries):
        try:
            return visit(browser, url)
        except (TimeoutError, Late) as error:
            print(f"A visit to {url} is left out: {error}", file=sys.stderr, flush=True)
            for context in browser.contexts:
                context.close()
    raise SystemExit(f"{tries} visits to {url} did not come to an end.")


def visit(browser: Any, url: str) -> dict[str, float]:
    """One visitor: the first paint, a first round with consent, a second without."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.add_init_script(STANDS)
    session = context.new_cdp_session(page)
    # The thread's own clock: what else the machine does is not counted.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    traffic = Traffic(session)
    page.goto(url)
    until(page, "window.stands && !!document.querySelector('#badge .badge.ready')")
    painted, stands = page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint')[0].startTime, window.stands]"
    )
    found = {
        "bytes_to_first_paint": traffic.until(painted / 1000),
        "bytes_until_ready": traffic.until(float("inf")),
        "first_paint_s": painted / 1000,
        "stands_s": stands / 1000,
        "main_thread_until_ready_s": busy(session),
    }
    found["first_word_of_a_first_visit_s"] = first_word(page, first=True)
    finished(page)
    page.click("#vote_b")
    page.wait_for_selector(".reveal")
    page.click("#new")
    page.wait_for_timeout(500)
    before = busy(session)
    found["first_word_after_send_s"] = first_word(page)
    finished(page)
    page.wait_for_timeout(500)
    found["main_thread_s"] = busy(session) - before
    context.close()
    return found


class Traffic:
    """What a page receives, in bytes on the wire, with the time of each."""

    def __init__(self, session: Any) -> None:
        self._began: float | None = None
        self._streamed: dict[str, list[tuple[float, float]]] = {}
        self._whole: dict[str, tuple[float, float]] = {}
        session.on("Network.requestWillBeSent", self._begin)
        session.on("Network.dataReceived", self._receive)
        session.on("Network.loadingFinished", self._finish)
        session.send("Network.enable")

    def until(self, seconds: float) -> float:
        """Bytes until so long after the first request; of what still streams, its parts so far."""
        parts = [
            part
            for name, some in self._streamed.items()
            if name not in self._whole
            for part in some
        ]
        at = (self._began or 0.0) + seconds
        return sum(size for when, size in [*self._whole.values(), *parts] if when <= at)

    def _begin(self, event: dict[str, Any]) -> None:
        self._began = self._began or event["timestamp"]

    def _receive(self, event: dict[str, Any]) -> None:
        part = (event["timestamp"], event["encodedDataLength"])
        self._streamed.setdefault(event["requestId"], []).append(part)

    def _finish(self, event: dict[str, Any]) -> None:
        self._whole[event["requestId"]] = (event["timestamp"], event["encodedDataLength"])


def first_word(page: Page, *, first: bool = False) -> float:
    """Seconds from the first click to the first word in pane A, seen by the browser itself.

    On a first visit the clicks are Send and the consent, in whichever order the page asks.
    """
    page.evaluate(LOOK)
    page.fill("#box textarea", TEXT)
    asked = first and page.locator("#agree").is_visible()
    if asked:
        page.click("#agree")
        page.wait_for_selector("#agree", state="hidden")
    page.click("#send")
    if first and not asked:
        page.click("#agree")
    until(page, "window.seen > 0")
    return float(page.evaluate("(window.seen - window.sent) / 1000"))


def finished(page: Page) -> None:
    until(
        page,
        """!document.querySelector('.caret')
        && !!document.querySelector('#vote_b')?.checkVisibility()""",
    )


def until(page: Page, condition: str) -> None:
    """Wait for `condition`, asked from outside: Playwright's own waiting runs at every frame."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(f"!!({condition})"):
        if time.monotonic() > end:
            raise TimeoutError(f"In vain waited {PATIENCE} s for: {condition}")
        page.wait_for_timeout(250)


def busy(session: Any) -> float:
    """Seconds of the main thread so far."""
    time.sleep(0.1)
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


if __name__ == "__main__":
    main()
