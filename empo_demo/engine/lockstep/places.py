"""A queue for a bounded number of places, and how many places one device should have."""

from __future__ import annotations

import logging
import statistics
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from empo_demo.engine.lockstep.own_passes import Passes
    from empo_demo.engine.weights.model_weights import Weights

log = logging.getLogger(__name__)
MOST_ROUNDS = 32
"""The most rounds at once when their number is measured."""
DEFAULT_ROUNDS = 4
"""The number where it cannot be measured."""
_STEP_SECONDS, _WORTH, _CLEARLY = 0.25, 0.95, 0.9


class Places:
    """`take` waits for one of `count` places; first come, first served."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: list[object] = []
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._line)

    def take(
        self,
        claim: Callable[[], bool] = lambda: True,
        given_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait for a place; return whether one was taken.

        `claim` is called when it is the caller's turn, for one caller at a time. It returns
        whether there is room, and if so it reserves the room. It is called again after each
        `give_back`. False, and no place taken, if `given_up` says so; it is asked after `wake`.
        """
        taken = False
        ticket = object()

        def over() -> bool:
            nonlocal taken
            if given_up():
                return True
            taken = self._free > 0 and self._line[0] is ticket and claim()
            return taken

        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(over)
                self._free -= taken
                return taken
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def wake(self) -> None:
        """Let everyone who waits look whether they have given up."""
        with self._changed:
            self._changed.notify_all()

    def give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()


class FairLock:
    """A lock that is given in the order of asking; for `with` statements, not reentrant.

    Python's own lock may go again and again to the thread that has just released it. The rounds
    of the other threads would stand still meanwhile.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._line.append(mine)
        try:
            mine.acquire()
        except BaseException:
            with self._guard:
                if mine in self._line:
                    self._line.remove(mine)
                    raise
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._held = False


def choose_threads(passes: Passes, weights: Weights) -> None:
    """Let the steps of few rows take one CPU thread, unless all threads are clearly faster.

    Our own layers start some hundred operations a step. Where another program takes a core now and
    then, each of them waits for the thread on that core.
    """
    import torch

    if weights.fused is None or weights.steady or torch.get_num_threads() == 1:
        return
    times: dict[int, list[float]] = {1: [], 0: []}
    for _ in range(3):
        for weights.few_threads in times:
            times[weights.few_threads].append(passes.time_step(2))
    one, all_ = (statistics.median(times[threads]) for threads in (1, 0))
    weights.few_threads = 0 if all_ < _CLEARLY * one else 1
    log.info("A step takes %.1f ms on one thread, %.1f ms on all", 1000 * one, 1000 * all_)


def rounds_at_once(passes: Sequence[Passes]) -> int:
    """The most rounds that do not lower the tokens per second; found by doubling.

    Whoever waits in the queue sees nothing, so more rounds are better even if each is slower. But
    a decode step of all batches may take `_STEP_SECONDS` at most.
    """
    speeds: dict[int, float] = {}
    rounds = 1
    while rounds <= MOST_ROUNDS:
        try:
            seconds = sum(way.time_step(2 * rounds) for way in passes)
        except Exception as error:
            log.info("%d rounds at once cannot be measured: %s", rounds, error)
            break
        if speeds and seconds > _STEP_SECONDS:
            break
        speeds[rounds] = rounds / seconds
        rounds *= 2
    if not speeds:
        return DEFAULT_ROUNDS
    best = max(speeds.values())
    most = max(rounds for rounds, speed in speeds.items() if speed >= _WORTH * best)
    log.info("%d rounds run at once: %.0f tokens a second", most, 2 * speeds[most])
    return most
