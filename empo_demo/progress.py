"""Progress of every long loop, on stderr, because stdout is for results.

A terminal shows a bar with the remaining time. A pipe or a file gets one line every ten seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

EVERY = 10.0
"""Seconds between two lines in a pipe."""

Item = TypeVar("Item")


class Begin(Protocol):
    """Is called with the name of a step as it begins; `done` sets the count of finished steps."""

    def __call__(self, name: str, done: int | None = None) -> None: ...


class Report(Protocol):
    """Is called with what is done and the whole, in bytes or in parts."""

    def __call__(self, done: int, total: int) -> None: ...


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
def amount(title: str, *, in_bytes: bool = True) -> Iterator[Report]:
    """A function that reports how much of one long piece of work is done. The whole may be unknown
    until its first call."""
    with (
        _amount_bar(title, in_bytes)
        if sys.stderr.isatty()
        else _amount_lines(title, in_bytes) as report
    ):
        yield report


@contextmanager
def _bar(total: int) -> Iterator[Begin]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, before = bar.add_task("…", total=total), -1

        def begin(name: str, done: int | None = None) -> None:
            nonlocal before
            before = done = before + 1 if done is None else done
            bar.update(task, description=escape(name), completed=min(done, total))

        yield begin


@contextmanager
def _amount_bar(title: str, in_bytes: bool) -> Iterator[Report]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


@contextmanager
def _lines(total: int) -> Iterator[Begin]:
    before, title = -1, ""

    def begin(name: str, done: int | None = None) -> None:
        nonlocal before, title
        before, title = before + 1 if done is None else done, name

    with _speaking(lambda: f"{title}: {max(before, 0):,} of {total:,} done"):
        yield begin


@contextmanager
def _amount_lines(title: str, in_bytes: bool) -> Iterator[Report]:
    known: tuple[int, int] | None = None

    def report(done: int, total: int) -> None:
        nonlocal known
        known = done, total

    def said() -> str:
        if known is None:
            return f"{title}: begun"
        done, total = (f"{n / 1e9:.2f}" if in_bytes else f"{n:,}" for n in known)
        return f"{title}: {done} of {total}{' GB' if in_bytes else ''} done"

    started = time.monotonic()
    with _speaking(said):
        yield report
    # By the clock, not by what was printed: on a busy machine the other thread may come late.
    elapsed = time.monotonic() - started
    if elapsed >= EVERY and known is not None:
        print(f"{said()}, {elapsed:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _speaking(said: Callable[[], str]) -> Iterator[None]:
    """Print what `said` returns, with the seconds so far, at most every `EVERY` seconds."""
    ended, started = threading.Event(), time.monotonic()

    def speak() -> None:
        while not ended.wait(EVERY):
            print(f"{said()}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
