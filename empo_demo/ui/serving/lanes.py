"""The lanes of the queue: what generates text never stands in the way of a vote.

Each handler belongs to one lane (its `concurrency_id`). A lane has its own workers and its own
waiting places, and one address takes only some of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from empo_demo.settings import Settings


@dataclass(frozen=True, slots=True)
class Lane:
    """`workers` run at once; `places` may wait, `per_address` of them from one address."""

    workers: int
    places: int = 64
    per_address: int = 32


VOTES, CALLS, ROUNDS, EXPLORE, READING = "votes", "calls", "rounds", "explore", "reading"
LONGEST_NAME = 100
"""The most characters of a `session_hash`: the server remembers those of thousands of visits."""
UNLISTED: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For handlers that only the page calls, and that draw no progress over it."""
OTHER = Lane(workers=4)
"""The lane of each handler that names none."""


def lanes_of(settings: Settings) -> dict[str, Lane]:
    """Return the lanes. Explore gets a quarter of the engine's places; READING is /analyze's."""
    return {
        VOTES: Lane(16, places=256, per_address=64),
        CALLS: Lane(8),
        ROUNDS: Lane(32),
        READING: Lane(2, places=16, per_address=4),
        EXPLORE: Lane(max(1, (settings.max_concurrent_rounds or 4) // 4), places=16, per_address=3),
    }
