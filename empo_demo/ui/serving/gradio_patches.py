"""Every place where the app changes what Gradio does inside, and why.

`tests/ui/test_gradio_patches.py` lists the parts of Gradio that these changes rely on. It compares
their source with what it was when the patch was written, and fails with the name of the part.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import HTTPException
from gradio.queueing import Queue
from gradio_client import utils as client_utils
from starlette.middleware import Middleware

from empo_demo.ui.serving.lanes import LONGEST_NAME, OTHER, Lane, lanes_of
from empo_demo.ui.serving.unread import Unread
from empo_demo.ui.visitors import address_of

if TYPE_CHECKING:
    from empo_demo.settings import Settings


class Page(gr.Blocks):
    """Blocks that answers values of a wrong kind in one sentence, as a stranger may send them.

    A value that names a file is of a wrong kind, wherever it stands: no handler takes files, and
    Gradio would fetch the address that a stranger gives, keep what it finds, and serve it.
    """

    async def preprocess_data(self, block_fn: Any, inputs: Any, *values: Any, **more: Any) -> Any:
        try:
            client_utils.traverse(inputs, _refuse_file, client_utils.is_file_obj_with_meta)
            return await super().preprocess_data(block_fn, inputs, *values, **more)
        except Exception:
            words = "One of the values is of a kind that cannot be used here."
            raise gr.Error(words, print_exception=False) from None


def _refuse_file(value: Any) -> None:
    raise ValueError(f"No file is taken here: {str(value)[:80]}")


class LaneQueue(Queue):
    """Gradio's queue, with places per lane and per address.

    Gradio's own counts the places of all handlers together, so that a few clients can lock everyone
    else out.
    """

    lanes: Mapping[str, Lane] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pending_messages_per_session: Any = Unread(self._given_up)
        self.ANALYTICS_MAX_EVENTS = 0

    def compute_analytics_summary(self, records: Any) -> dict[str, Any]:
        """Return nothing: Gradio makes a table of the last 10,000 calls after each call, for a
        monitor that is not served."""
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


def install_lanes(page: gr.Blocks, settings: Settings) -> int:
    """Give `page` the lanes. Return the number of threads that all workers need.

    With fewer threads one lane's workers would take another's.
    """
    lanes = lanes_of(settings)
    # `api_open`: a direct POST to /run would bypass every lane.
    page.queue(max_size=None, default_concurrency_limit=OTHER.workers, api_open=False)
    queue = LaneQueue(
        live_updates=page._queue.live_updates,
        concurrency_count=page.max_threads,
        update_intervals=page._queue.update_intervals,
        max_size=None,
        blocks=page,
        default_concurrency_limit=OTHER.workers,
    )
    queue.lanes = lanes
    page._queue = queue
    for fn in page.fns.values():
        if fn.concurrency_id in lanes:
            fn.concurrency_limit = lanes[fn.concurrency_id].workers
    others = {fn.concurrency_id for fn in page.fns.values()} - set(lanes)
    return sum(lane.workers for lane in lanes.values()) + OTHER.workers * len(others)


def walled(middlewares: Sequence[Middleware]) -> Any:
    """A lifespan that puts `middlewares` around the app before it takes its first request.

    Those of FastAPI's own option lie inside Gradio's, which answers other sites' preflights.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.user_middleware[:0] = middlewares
        app.middleware_stack = app.build_middleware_stack()
        yield

    return lifespan


def progress_only_on(place: gr.HTML, page: gr.Blocks) -> None:
    """Name `place` as the only component that may show the progress of calls that show none.

    Otherwise Gradio's script copies all properties of all outputs at each frame of a stream, also
    for earlier calls. That is more work for the browser than all the rest of an answer.
    """
    for fn in page.fns.values():
        if fn.show_progress == "hidden":
            fn.show_progress_on = [place]
