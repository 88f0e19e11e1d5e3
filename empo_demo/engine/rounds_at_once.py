"""How many rounds one device should run at once, by measurement at start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from empo_demo.engine.places import MOST_ROUNDS

if TYPE_CHECKING:
    from empo_demo.engine.batch import Batch

log = logging.getLogger(__name__)
DEFAULT_ROUNDS = 4
"""The number where it cannot be measured."""
_STEP_SECONDS, _GAIN = 0.25, 1.1


def rounds_at_once(batches: Sequence[Batch]) -> int:
    """Double the rounds as long as that adds a tenth to the tokens per second.

    A decode step of all batches may take `_STEP_SECONDS` at most.
    """
    best, rounds, most = 0.0, 1, 0
    while rounds <= MOST_ROUNDS:
        try:
            seconds = sum(batch.time_step(2 * rounds) for batch in batches)
        except Exception as error:
            log.info("%d rounds at once cannot be measured: %s", rounds, error)
            break
        if rounds > 1 and (rounds / seconds < _GAIN * best or seconds > _STEP_SECONDS):
            break
        best, most, rounds = rounds / seconds, rounds, 2 * rounds
    most = most or DEFAULT_ROUNDS
    log.info("%d rounds run at once: %.0f tokens a second", most, 2 * best)
    return most
