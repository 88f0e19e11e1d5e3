"""Progress of every long loop, on stderr, because stdout is for results.

A terminal shows a bar with the remaining time. A pipe or a file gets one line every ten seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

EVERY = 10.0
"""Seconds between two lines in a pipe."""

Item = TypeVar("Item")


class Begin(Protocol):
    """Is called with the name of a step as it begins; `done` sets the count of finished steps."""

    def __call__(self, name: str, done: int | None = None) -> None: ...


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """Yield `items`, and count each one as it begins."""
    with steps(len(items)) as begin:
        for item in items:
            begin(title)
            yield item


@contextmanager
def steps(total: int) -> Iterator[Begin]:
    """A function to call with the name of each of `total` steps as it begins.

    At the end the bar disappears, so that an error stands alone.
    """
    with _bar(total) if sys.stderr.isatty() else _lines(total) as begin:
        yield begin


@contextmanager
def _bar(total: int) -> Iterator[Begin]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, before = bar.add_task("…", total=total), -1

        def begin(name: str, done: int | None = None) -> None:
            nonlocal before
            before = done = before + 1 if done is None else done
            bar.update(task, description=name, completed=min(done, total))

        yield begin


@contextmanager
def _lines(total: int) -> Iterator[Begin]:
    before, title, ended, started = -1, "", threading.Event(), time.monotonic()

    def begin(name: str, done: int | None = None) -> None:
        nonlocal before, title
        before, title = before + 1 if done is None else done, name

    def speak() -> None:
        while not ended.wait(EVERY):
            seconds = time.monotonic() - started
            said = f"{title}: {max(before, 0):,} of {total:,} done, {seconds:.0f} s"
            print(said, file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, name="progress", daemon=True)
    thread.start()
    try:
        yield begin
    finally:
        ended.set()
        thread.join()
