"""One bar for every long loop, on stderr: stdout belongs to what a command answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """`items`, one by one, under a bar with the time that is left."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, title, console=Console(stderr=True))
