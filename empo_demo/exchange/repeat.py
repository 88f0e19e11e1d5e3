"""Repeats an exchange with the Hub in the background, sooner when there is something urgent."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from empo_demo.errors import StorageError

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
RETRY_SECONDS = 60.0


def repeat(
    name: str, act: Callable[[], None], every: float, urgent: Callable[[], bool]
) -> threading.Thread:
    """Start a daemon thread that calls `act` now and every `every` seconds.

    It calls `act` within ten seconds once `urgent()` holds. An `act` that failed is repeated after
    a minute; no error ends the thread.
    """

    def run() -> None:
        pause = threading.Event()
        while True:
            wait = every if _done(name, act) else RETRY_SECONDS
            until = time.monotonic() + wait
            while time.monotonic() < until:
                pause.wait(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
                if wait == every and _holds(urgent):
                    break

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _done(name: str, act: Callable[[], None]) -> bool:
    """Whether `act` came to its end."""
    try:
        act()
    except StorageError as error:
        log.warning("%s", error)
    except Exception:
        log.exception("The %s failed; they are tried again in a minute", name)
    else:
        return True
    return False


def _holds(urgent: Callable[[], bool]) -> bool:
    """Whether it is urgent; while the database is away, it is not known and counts as no."""
    try:
        return urgent()
    except StorageError:
        return False
