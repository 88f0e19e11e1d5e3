"""What was answered and not fetched yet, in bounded memory.

Gradio keeps the messages of 2,000 sessions until somebody reads them, however big they are. With
one session more it forgets the oldest, even one that is being read: a client that calls and never
fetches could end everybody's rounds, or fill the memory. Here the session goes that nobody reads,
and what was not fetched for most of an hour: it may hold a text that may not stay longer.
"""

from __future__ import annotations

import time
from asyncio import Queue, get_running_loop
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

MOST_SESSIONS = 2_000
MOST_BYTES = 64 * 2**20
MOST_SECONDS = 50 * 60
"""How long an answer waits to be fetched."""
_OVERHEAD = 300
"""The bytes of an empty message, roughly."""


class Messages(Queue[Any]):
    """The messages of one session. It knows how much is unread, and whether somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.readers, self.read_at = 0, 0, time.monotonic()
        self._told: Callable[[int], None] | None = None
        self._came: deque[float] = deque()

    def on_change(self, told: Callable[[int], None] | None) -> None:
        """Call `told` with each change of `bytes`, or nobody."""
        self._told = told

    async def get(self) -> Any:
        self.readers += 1
        try:
            return await super().get()
        finally:
            self.readers -= 1
            self.read_at = time.monotonic()

    def age(self) -> float:
        """Seconds since the oldest message came that nobody has read; 0 if there is none."""
        return time.monotonic() - self._came[0] if self._came else 0.0

    def _put(self, item: Any) -> None:
        size = _OVERHEAD + size_of(getattr(item, "output", None))
        super()._put((size, item))
        self._came.append(time.monotonic())
        self._change(size)

    def _get(self) -> Any:
        size, item = super()._get()
        self._came.popleft()
        self._change(-size)
        return item

    def _change(self, by: int) -> None:
        self.bytes += by
        if self._told is not None:
            self._told(by)


class Unread(OrderedDict[str, Any]):
    """The messages of all sessions; `forget` is told which session was given up."""

    def __init__(self, forget: Callable[[str], None]) -> None:
        super().__init__()
        self.bytes, self._forget = 0, forget

    def __setitem__(self, session: str, _: Any) -> None:
        """Begin a session without messages. Gradio's own empty queue is not used."""
        if len(self) >= MOST_SESSIONS:
            self._give_up(lambda one: (one.readers > 0, one.read_at))
        messages = Messages()
        messages.on_change(self._changed)
        super().__setitem__(session, messages)
        self._look_later(session, messages)

    def _look_later(self, session: str, messages: Messages) -> None:
        """Give the session up as soon as a message of it is too old."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            return  # Without a server nobody can fetch anything.
        wait = max(0.0, MOST_SECONDS - messages.age())
        loop.call_later(wait, self._look, session, messages)

    def _look(self, session: str, messages: Messages) -> None:
        if self.get(session) is not messages:
            return
        if messages.age() >= MOST_SECONDS:
            del self[session]
            self._forget(session)
        else:
            self._look_later(session, messages)

    def __delitem__(self, session: str) -> None:
        gone = self[session]
        super().__delitem__(session)
        self.bytes -= gone.bytes
        gone.on_change(None)

    def _changed(self, by: int) -> None:
        self.bytes += by
        while self.bytes > MOST_BYTES:
            self._give_up(lambda one: -one.bytes)

    def _give_up(self, order: Callable[[Messages], Any]) -> None:
        session = min(self, key=lambda name: order(self[name]))
        del self[session]
        self._forget(session)


def size_of(value: Any) -> int:
    """The characters of all texts in a JSON value, and eight for each other part."""
    size, parts = 0, [value]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.keys()
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
        size += len(part) if isinstance(part, str) else 8
    return size
