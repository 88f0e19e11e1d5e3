"""What costs much is made now and then, by one thread, and never hides an error."""

from __future__ import annotations

import threading
import time

import pytest

from empo_demo.ui.tabs.recent import Recent


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_it_takes_no_more_than_its_share_however_often_it_is_asked_for() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        burn(0.02)
        return made[-1]

    recent, until = Recent(make), time.monotonic() + 1.0
    while time.monotonic() < until:
        recent()
        time.sleep(0.001)
    assert 2 <= len(made) <= 7, "a tenth of a second of work in a second, and the first"
    time.sleep(0.3)
    assert recent() == len(made) - 1 > 0, "it is made anew"


def test_many_who_ask_at_once_have_it_made_once() -> None:
    made: list[int] = []
    threads = 8
    together = threading.Barrier(threads)

    def make() -> int:
        burn(0.05)
        made.append(1)
        return 1

    recent = Recent(make)

    def ask() -> None:
        together.wait()
        recent()

    running = [threading.Thread(target=ask) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert made == [1]


def test_an_error_is_raised_and_not_kept() -> None:
    answers: list[int | Exception] = [ValueError("gone"), 7]

    def make() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    recent = Recent(make)
    with pytest.raises(ValueError, match="gone"):
        recent()
    assert recent() == 7
