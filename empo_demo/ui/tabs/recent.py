"""Keeps a figure that is expensive and often asked for, and computes it again only now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
cost = time.thread_time
SHARE = 0.1
"""The largest share of one processor for one figure: what takes 1 s is kept for 10 s."""


class Recent(Generic[Value]):
    """The last value of `make`, which runs in one thread at a time and for `SHARE` of the time.

    So visitors who ask for it cannot slow others down, however many they are. An exception of
    `make` is raised again, and is not kept.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._turn = threading.Lock()
        self._kept: tuple[Value] | None = None
        self._until = 0.0

    def __call__(self) -> Value:
        last = self._kept
        if last is not None and (time.monotonic() < self._until or self._turn.locked()):
            return last[0]
        with self._turn:
            # Another thread may have made it while this one waited.
            if self._kept is None or time.monotonic() >= self._until:
                began = cost()
                self._kept = (self._make(),)
                self._until = time.monotonic() + (cost() - began) / SHARE
            return self._kept[0]
