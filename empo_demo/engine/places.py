"""A bounded number of places, given in the order of asking, with a position that can be asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST_ROUNDS = 32
"""Rounds that run at once at most where their number is measured."""


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

    def take(self, ticket: object, claim: Callable[[], bool] = lambda: True) -> None:
        """Wait for a place. `ticket` is any object of the caller's own.

        `claim` is asked when it is the ticket's turn, one ticket at a time: whether there is room
        for it, and if so it notes that the room is taken. It is asked again at each `give_back`.
        """
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._free > 0 and self._line[0] is ticket and claim()
                )
                self._free -= 1
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()
