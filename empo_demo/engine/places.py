"""A bounded number of places, given in the order of asking, with a position that can be asked."""

from __future__ import annotations

import threading


class Places:
    """`take` waits for one of `count` places; first come, first served."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: list[object] = []
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait at present."""
        return len(self._line)

    def position(self, ticket: object) -> int:
        """How many places must come free before `ticket` has one; 0 once it does not wait."""
        with self._changed:
            return self._line.index(ticket) + 1 if ticket in self._line else 0

    def take(self, ticket: object) -> None:
        """Wait for a place. `ticket` is any object of the caller's own."""
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._free > 0 and self._line[0] is ticket)
                self._free -= 1
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()
