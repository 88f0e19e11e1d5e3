"""How many rounds one device should run at once, by measurement at start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from empo_demo.engine.lockstep.places import MOST_ROUNDS

if TYPE_CHECKING:
    from empo_demo.engine.lockstep.own_passes import Passes

log = logging.getLogger(__name__)
DEFAULT_ROUNDS = 4
"""The number where it cannot be measured."""
_STEP_SECONDS, _WORTH = 0.25, 0.95


def rounds_at_once(passes: Sequence[Passes]) -> int:
    """The most rounds that do not lower the tokens per second; found by doubling.

    Whoever waits in the queue sees nothing, so more rounds are better even if each is slower. But
    a decode step of all batches may take `_STEP_SECONDS` at most.
    """
    speeds: dict[int, float] = {}
    rounds = 1
    while rounds <= MOST_ROUNDS:
        try:
            seconds = sum(one.time_step(2 * rounds) for one in passes)
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
