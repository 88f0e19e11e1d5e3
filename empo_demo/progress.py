"""Progress of every long loop, on stderr, because stdout is for results.

A terminal shows a bar with the remaining time. A pipe or a file gets one line every ten seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    task, begun = _Task("", total=total), False

    def begin(name: str, done: int | None = None) -> None:
        nonlocal begun
        if done is None:
            done = task.done + begun
        begun = True
        task.update(done, total, name)

    with _bar(task) if sys.stderr.isatty() else _lines(task):
        yield begin


@contextmanager
def amount(title: str, *, in_bytes: bool = True) -> Iterator[Report]:
    """A function that reports how much of one long piece of work is done. The whole may be unknown
    until its first call."""
    task = _Task(title, in_bytes=in_bytes)
    if sys.stderr.isatty():
        with _bar(task):
            yield task.update
        return
    started = time.monotonic()
    with _lines(task):
        yield task.update
    # By the clock, not by what was printed: on a busy machine the other thread may come late.
    elapsed = time.monotonic() - started
    if elapsed >= EVERY and task.total is not None:
        print(f"{task.line()}, {elapsed:.0f} s", file=sys.stderr, flush=True)


@dataclass
class _Task:
    """What is done of a whole. `shown` is called after every change."""

    title: str
    total: int | None = None
    in_bytes: bool = False
    done: int = 0
    shown: Callable[[], None] = lambda: None

    def update(self, done: int, total: int, title: str | None = None) -> None:
        self.done, self.total = done, total
        self.title = self.title if title is None else title
        self.shown()

    def line(self) -> str:
        """The state in words, for a pipe or a file."""
        if self.total is None:
            return f"{self.title}: begun"
        done, total = (
            f"{n / 1e9:.2f}" if self.in_bytes else f"{n:,}" for n in (self.done, self.total)
        )
        return f"{self.title}: {done} of {total}{' GB' if self.in_bytes else ''} done"


@contextmanager
def _bar(task: _Task) -> Iterator[None]:
    """Show `task` as a bar of rich with the remaining time."""
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

    count = DownloadColumn() if task.in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(escape(task.title) or "…", total=task.total)

        def show() -> None:
            bar.update(
                row,
                description=escape(task.title),
                completed=min(task.done, task.total or 0),
                total=task.total,
            )

        task.shown = show
        yield


@contextmanager
def _lines(task: _Task) -> Iterator[None]:
    """Print the line of `task`, with the seconds so far, at most every `EVERY` seconds."""
    ended, started = threading.Event(), time.monotonic()

    def speak() -> None:
        while not ended.wait(EVERY):
            # Before its first step a task has no name, so there is nothing to say.
            if task.title:
                print(
                    f"{task.line()}, {time.monotonic() - started:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )

    thread = threading.Thread(target=speak, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
