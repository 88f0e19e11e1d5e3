"""Collects the events of two sides into frames: what both have said so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from empo_demo.engine.protocol import Delta, Event, Failed, Finished

SECONDS = 0.1
"""Seconds between two frames. Ten frames a second are enough for people and phones."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The texts of both sides, and the ends of those that ended. A failed side has no text."""

    texts: dict[Literal["a", "b"], str]
    ends: dict[Literal["a", "b"], Finished | Failed] = field(default_factory=dict)
    dropped: int = 0
    """How many of the dialogue's first exchanges were too long for the models."""

    @property
    def both(self) -> bool:
        """Whether each side has text or has ended."""
        return all(text or side in self.ends for side, text in self.texts.items())


def frames(events: Iterator[Event], *, every: float = SECONDS) -> Iterator[Frame]:
    """Yield at most one frame per `every` seconds, and always the last one.

    The first frame has both sides, because it must not show which side was faster. Closing the
    iterator closes `events`, which stops the models.
    """
    now = Frame({"a": "", "b": ""})
    last, dropped = 0.0, 0
    with closing(events):  # type: ignore[type-var]
        for event in events:
            side: Literal["a", "b"] = "a" if event.side == "a" else "b"
            if not isinstance(event, Failed):
                dropped = max(dropped, event.dropped)
            if isinstance(event, Delta):
                now.texts[side] += event.text
            else:
                now.ends[side] = event
                now.texts[side] = event.text if isinstance(event, Finished) else ""
            if now.both and time.monotonic() - last >= every:
                last = time.monotonic()
                yield Frame(dict(now.texts), dict(now.ends), dropped)
    yield Frame(dict(now.texts), dict(now.ends), dropped)
