"""The one stream of a round: what both sides have said so far, frame by frame.

Page, endpoint and terminal take `frames`. `Replies` keeps the rule of the blind round that no
side's first words are seen before the other's; nothing else has to.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from empo_demo.dialogue import is_blank, with_plain_breaks
from empo_demo.engine.protocol import Delta, Event, Failed, Finished
from empo_demo.votes.models import SIDES, Side

SECONDS = 0.1
"""Seconds between two frames. Ten frames a second are enough for people and phones."""
WITHHELD = "This reply was withheld, because it could encourage harm."


@dataclass(frozen=True, slots=True)
class Frame:
    """The texts of both sides, and the ends of those that ended. A failed side has no text."""

    texts: dict[Side, str]
    ends: dict[Side, Finished | Failed] = field(default_factory=dict)
    dropped: int = 0
    """How many of the dialogue's first exchanges were too long for the models."""


@dataclass
class Outcome:
    """The state of one side so far."""

    text: str = ""
    tokens: int = 0
    milliseconds: float = 0.0
    reason: str | None = None
    error: str | None = None
    guidance: str | None = None
    thought: str | None = None
    dropped: int = 0
    """How many of the dialogue's first exchanges the models did not read."""
    end: Finished | Failed | None = None

    @property
    def done(self) -> bool:
        return self.reason is not None or self.error is not None

    def row(self) -> dict[str, Any]:
        """Return the columns of the stored reply."""
        return {
            "text": showable(self.text),
            "tokens": self.tokens,
            "milliseconds": self.milliseconds,
            "reason": self.reason,
            "error": self.error,
            "guidance": self.guidance,
            "thought": self.thought,
        }


class Replies:
    """Both replies while they are written.

    `screen` says of a text so far why it must not be shown, or None. A side fails with `WITHHELD`
    at the word with which its text must not be shown, and nothing of it is kept.
    """

    def __init__(self, screen: Callable[[str], str | None] = lambda text: None) -> None:
        self.outcomes: dict[Side, Outcome] = {side: Outcome() for side in SIDES}
        self._screen = screen
        self._begun = False
        self.withheld = False
        """Whether a side was withheld."""

    @property
    def begun(self) -> bool:
        """Whether each side has words or has ended, so that neither is seen before the other."""
        if not self._begun:
            self._begun = all(outcome.text or outcome.done for outcome in self.outcomes.values())
        return self._begun

    @property
    def worded(self) -> bool:
        """Whether words can be seen."""
        return self.begun and any(outcome.text for outcome in self.outcomes.values())

    @property
    def done(self) -> bool:
        """Whether both sides have ended."""
        return self.outcomes["a"].done and self.outcomes["b"].done

    @property
    def dropped(self) -> int:
        """How many exchanges the models did not read; a known bad side has no model, hence 0."""
        return max(outcome.dropped for outcome in self.outcomes.values())

    def take(self, event: Event) -> None:
        """Add an event. What a side says after its end is not a reply."""
        outcome = self.outcomes["a" if event.side == "a" else "b"]
        if outcome.done:
            return
        if not isinstance(event, Failed):
            outcome.dropped = event.dropped
            text = outcome.text + event.text if isinstance(event, Delta) else event.text
            if self._screen(text) is None:
                outcome.text = text
            else:
                outcome.text, self.withheld = "", True
                event = Failed(event.side, WITHHELD)
        if isinstance(event, Delta):
            outcome.tokens += 1
            return
        outcome.end = event
        if isinstance(event, Failed):
            outcome.error = event.error
        else:
            outcome.reason = event.reason
            outcome.tokens, outcome.milliseconds = event.tokens, event.milliseconds

    def frame(self) -> Frame:
        """Return what may be seen now: no words at all until both sides have begun."""
        begun = self.begun
        return Frame(
            {
                side: outcome.text if begun and outcome.error is None else ""
                for side, outcome in self.outcomes.items()
            },
            {
                side: outcome.end
                for side, outcome in self.outcomes.items()
                if outcome.end is not None
            },
            self.dropped,
        )


def frames(
    events: Iterator[Event],
    replies: Replies | None = None,
    *,
    watch: Callable[[], None] = lambda: None,
    every: float = SECONDS,
) -> Generator[Frame, None, None]:
    """Yield at most one frame per `every` seconds, and always the last one.

    `watch` is called after each event, before it is seen, and may raise. Closing the iterator
    closes `events`, which stops the models.
    """
    replies = replies or Replies()
    last = -math.inf
    try:
        for event in events:
            replies.take(event)
            watch()
            if replies.begun and (replies.done or time.monotonic() - last >= every):
                last = time.monotonic()
                yield replies.frame()
            if replies.done and replies.withheld:
                break
        if not replies.done:
            yield replies.frame()
    finally:
        close(events)


def close(events: Iterator[Event]) -> None:
    """Close an engine's stream, which stops its work; a plain iterator has nothing to close."""
    closing = getattr(events, "close", None)
    if closing is not None:
        closing()


def showable(text: str) -> str:
    """A model's text without control characters and surrogates, which databases refuse.

    It is empty where nothing of it can be seen, so that nobody votes on a blank reply.
    """
    plain = with_plain_breaks(text)
    visible = "".join(
        c for c in plain if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs")
    )
    return "" if is_blank(visible) else visible.strip()
