"""One pace for all sides: whatever arrives first waits, so that speed tells nobody apart.

Takes the events of each side as they come and hands out text only as far as every side that is
still being written has come. Knows nothing of models, servers or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from empo_demo.engine.protocol import Delta, Event, Failed, Finished


@dataclass(slots=True)
class _Side:
    text: str = ""
    shown: int = 0
    end: Finished | Failed | None = None
    told: bool = False


class Pacer:
    """Buffers the events of `sides`; `release` gives what may be shown by now."""

    def __init__(self, sides: Iterable[str]) -> None:
        self._sides = {side: _Side() for side in sides}

    @property
    def done(self) -> bool:
        """Whether every side's end has been handed out."""
        return all(side.told for side in self._sides.values())

    @property
    def complete(self) -> bool:
        """Whether every side's end has been fed."""
        return all(side.end is not None for side in self._sides.values())

    def feed(self, event: Event) -> None:
        side = self._sides[event.side]
        if isinstance(event, Delta):
            side.text += event.text
        else:
            side.end = side.end or event

    def fail_open(self, error: str) -> None:
        """End every side that has no end yet."""
        for name, side in self._sides.items():
            side.end = side.end or Failed(name, error)

    def release(self, limit: int | None = None) -> Iterator[Event]:
        """Text up to `limit` characters of each side, never beyond an open side; then ends."""
        writing = [len(side.text) for side in self._sides.values() if side.end is None]
        reach = min([*writing, *([] if limit is None else [limit])], default=None)
        for name, side in self._sides.items():
            until = len(side.text) if reach is None else min(reach, len(side.text))
            if until > side.shown:
                text, side.shown = side.text[side.shown : until], until
                yield Delta(name, text)
        for side in self._sides.values():
            if side.end is not None and not side.told and side.shown == len(side.text):
                side.told = True
                yield side.end
