"""Events of two sides, gathered into pictures of what both have said so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from empo_demo.engine.protocol import Delta, Event, Failed, Finished

SECONDS = 0.1
"""Between two frames: ten a second is all that an eye and a phone want."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`texts` has both sides; `ends` those that have ended. A failed side's text is empty."""

    texts: dict[Literal["a", "b"], str]
    ends: dict[Literal["a", "b"], Finished | Failed] = field(default_factory=dict)

    @property
    def both(self) -> bool:
        """Whether each side has said something or has ended."""
        return all(text or side in self.ends for side, text in self.texts.items())


def frames(events: Iterator[Event], *, every: float = SECONDS) -> Iterator[Frame]:
    """At most one frame every `every` seconds, and the last one in any case.

    The first frame has both sides: which side was the faster must not show. Closing the iterator
    closes `events`, which stops the models.
    """
    now = Frame({"a": "", "b": ""})
    last = 0.0
    with closing(events):  # type: ignore[type-var]
        for event in events:
            side: Literal["a", "b"] = "a" if event.side == "a" else "b"
            if isinstance(event, Delta):
                now.texts[side] += event.text
            else:
                now.ends[side] = event
                now.texts[side] = event.text if isinstance(event, Finished) else ""
            if now.both and time.monotonic() - last >= every:
                last = time.monotonic()
                yield Frame(dict(now.texts), dict(now.ends))
    yield Frame(dict(now.texts), dict(now.ends))
