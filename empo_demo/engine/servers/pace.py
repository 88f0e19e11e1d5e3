"""One pace for all sides, so that their speed does not tell them apart.

The events of each side are buffered. Text is released only up to the length that every unfinished
side has reached. This module knows no models, servers or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from empo_demo.engine.protocol import Delta, Event, Failed, Finished


@dataclass(slots=True)
class _Side:
    text: str = ""
    dropped: int = 0
    shown: int = 0
    end: Finished | Failed | None = None
    told: bool = False


class Pacer:
    """Buffers the events of `sides`. `release` yields what may be shown now."""

    def __init__(self, sides: Iterable[str]) -> None:
        self._sides = {side: _Side() for side in sides}

    @property
    def done(self) -> bool:
        """Whether the end of every side has been released."""
        return all(side.told for side in self._sides.values())

    @property
    def complete(self) -> bool:
        """Whether the end of every side has been fed."""
        return all(side.end is not None for side in self._sides.values())

    def feed(self, event: Event) -> None:
        side = self._sides[event.side]
        if isinstance(event, Delta):
            side.text += event.text
            side.dropped = event.dropped
        else:
            side.end = side.end or event

    def fail_open(self, error: str) -> None:
        """Fail every side that has no end yet."""
        for name, side in self._sides.items():
            side.end = side.end or Failed(name, error)

    def release(self, limit: int | None = None) -> Iterator[Event]:
        """Yield text up to `limit` characters, never beyond an unfinished side; then the ends."""
        writing = [len(side.text) for side in self._sides.values() if side.end is None]
        reach = min([*writing, *([] if limit is None else [limit])], default=None)
        for name, side in self._sides.items():
            until = len(side.text) if reach is None else min(reach, len(side.text))
            if until > side.shown:
                text, side.shown = side.text[side.shown : until], until
                yield Delta(name, text, side.dropped)
        for side in self._sides.values():
            if side.end is not None and not side.told and side.shown == len(side.text):
                side.told = True
                yield side.end
