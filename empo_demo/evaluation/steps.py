"""A bar over the steps of a measurement, on stderr: how many there are is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def steps(console: Console, systems: int, metrics: int) -> Iterator[Callable[[str], None]]:
    """A function that is told the name of each step as it begins.

    Each of `systems` is measured by each of `metrics`, then each pair of systems is compared.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        total = systems * metrics + systems * (systems - 1) // 2
        task = progress.add_task("…", total=total)
        done = -1

        def begin(name: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=name, completed=min(done, total))

        yield begin
        progress.update(task, description="done", completed=total)
