"""Gradio's queue in lanes: what generates text never stands in the way of a vote.

Each handler belongs to one lane (its `concurrency_id`). A lane has its own workers and its own
waiting places, and one address takes only some of these. Gradio's own queue counts the places of
all handlers together, so that a few clients can lock everyone else out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import HTTPException
from gradio.queueing import Queue

from empo_demo.ui.serving.unread import Unread
from empo_demo.ui.visitors import address_of

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


class LaneQueue(Queue):
    """Gradio's queue, with places per lane and per address."""

    lanes: Mapping[str, Lane] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pending_messages_per_session: Any = Unread(self._given_up)
        self.ANALYTICS_MAX_EVENTS = 0

    def compute_analytics_summary(self, records: Any) -> dict[str, Any]:
        """Nothing. Gradio makes a table of the last 10,000 calls after each call, for a monitor
        that is not served."""
        return {"functions": {}}

    def _given_up(self, session: str) -> None:
        """End what still runs for a session whose messages nobody reads."""
        for name in self.pending_event_ids_session.pop(session, ()):
            if (event := self.event_ids_to_events.get(name)) is not None:
                event.alive = False

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Queue a call as Gradio does. Refuse with 404, 422, 429 (address) or 503 (lane)."""
        fn = self._function(body)
        lane = self.lanes.get(fn.concurrency_id, OTHER)
        queue = self.event_queue_per_concurrency_id.get(fn.concurrency_id)
        waiting = queue.queue if queue is not None else []
        sender = address_of(request)
        if sum(address_of(event.request) == sender for event in waiting) >= lane.per_address:
            raise HTTPException(429, "Too many of your requests are waiting; try again shortly.")
        if len(waiting) >= lane.places:
            raise HTTPException(503, "Too many visitors are waiting; try again in a moment.")
        return await super().push(body, request, username)

    def _function(self, body: Any) -> Any:
        fn = self.blocks.fns.get(body.fn_index)
        if fn is None or fn.fn is None or not fn.queue:
            raise HTTPException(404, "There is no such function; /gradio_api/info lists them.")
        if len(body.session_hash or "") > LONGEST_NAME:
            raise HTTPException(422, f"A session's name has at most {LONGEST_NAME} characters.")
        if len(body.data) != len(fn.inputs):
            raise HTTPException(
                422, f"This takes {len(fn.inputs)} values, and {len(body.data)} were sent."
            )
        return fn


def install(page: gr.Blocks, settings: Settings) -> int:
    """Give `page` the lanes. Return the number of threads that all workers need.

    With fewer threads one lane's workers would take another's.
    """
    lanes = lanes_of(settings)
    # `api_open`: a direct POST to /run would bypass every lane.
    page.queue(max_size=None, default_concurrency_limit=OTHER.workers, api_open=False)
    queue = LaneQueue(
        live_updates=page._queue.live_updates, concurrency_count=page.max_threads,
        update_intervals=page._queue.update_intervals, max_size=None, blocks=page,
        default_concurrency_limit=OTHER.workers,
    )  # fmt: skip
    queue.lanes = lanes
    page._queue = queue
    for fn in page.fns.values():
        if fn.concurrency_id in lanes:
            fn.concurrency_limit = lanes[fn.concurrency_id].workers
    others = {fn.concurrency_id for fn in page.fns.values()} - set(lanes)
    return sum(lane.workers for lane in lanes.values()) + OTHER.workers * len(others)
