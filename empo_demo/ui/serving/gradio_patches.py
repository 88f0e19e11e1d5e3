"""Every place where the app changes what Gradio does inside, and why.

`tests/ui/test_gradio_patches.py` lists the parts of Gradio that these changes rely on. It compares
their source with what it was when the patch was written, and fails with the name of the part.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import HTTPException
from gradio.components.api_component import Api as Api  # gradio exports no name for it
from gradio.queueing import Queue
from gradio_client import utils as client_utils
from starlette.middleware import Middleware

from empo_demo.ui.serving.lanes import LONGEST_NAME, OTHER, Lane, lanes_of
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


MOST_SESSIONS = 2_000
MOST_BYTES = 64 * 2**20
MOST_SECONDS = 50 * 60
"""How long an answer waits to be fetched."""
_OVERHEAD = 300
"""The bytes of an empty message, roughly."""


class Messages(asyncio.Queue[Any]):
    """The messages of one session. It knows how much is unread, and whether somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.readers, self.read_at = 0, 0, time.monotonic()
        self._listener: Callable[[int], None] | None = None
        self._came: deque[float] = deque()

    def on_change(self, listener: Callable[[int], None] | None) -> None:
        """Call `listener` with each change of `bytes`; None ends that."""
        self._listener = listener

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
        if self._listener is not None:
            self._listener(by)


class Unread(OrderedDict[str, Any]):
    """The messages of all sessions, in bounded memory; `forget` hears which session was given up.

    Gradio keeps the messages of 2,000 sessions until somebody reads them, however big they are.
    With one session more it forgets the oldest, even one that is being read: a client that calls
    and never fetches could end everybody's rounds, or fill the memory. Here the session goes that
    nobody reads, and what was not fetched for most of an hour: it may hold a text that may not
    stay longer.
    """

    def __init__(self, forget: Callable[[str], None]) -> None:
        super().__init__()
        self.bytes, self._forget = 0, forget

    def __setitem__(self, session: str, _: Any) -> None:
        """Begin a session without messages. Gradio's own empty queue is not used."""
        if len(self) >= MOST_SESSIONS:
            self._give_up(lambda messages: (messages.readers > 0, messages.read_at))
        messages = Messages()
        messages.on_change(self._changed)
        super().__setitem__(session, messages)
        self._look_later(session, messages)

    def _look_later(self, session: str, messages: Messages) -> None:
        """Give the session up as soon as a message of it is too old."""
        try:
            loop = asyncio.get_running_loop()
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
            self._give_up(lambda messages: -messages.bytes)

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
