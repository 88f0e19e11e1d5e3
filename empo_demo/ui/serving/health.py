"""`/healthz` and `/readyz`, for whoever runs the app: does it live, and can it serve a round?

They are answered before everything else: a probe names the host as it likes, asks every few
seconds, and must leave neither a cookie nor a line in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from sqlalchemy import text

from empo_demo.errors import StorageError

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.ui.serving.middleware import App, Receive, Scope, Send

PATHS = ("/healthz", "/readyz")
PATIENCE = 2.0
"""Seconds to wait for the database: a probe gives up soon, and SQLite's lock only after 30."""
FRESH = 1.0
"""Seconds for which an answer is given again, so that many probes cost no more than one."""


class Health:
    """Wraps the app. Answers the probes with 200, or with 503 and what is missing."""

    def __init__(self, app: App, arena: Arena) -> None:
        self._app, self._arena = app, arena
        self._thread = ThreadPoolExecutor(1, "ready")
        self._asked: Future[list[str]] | None = None
        self._since = 0.0
        logging.getLogger("uvicorn.access").addFilter(_no_probe)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
            return
        missing = await self._missing() if scope["path"] == "/readyz" else []
        body = json.dumps({"ok": not missing, "missing": missing}).encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        status = 503 if missing else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _missing(self) -> list[str]:
        """What keeps a round from being served. Only one thread asks at a time."""
        now = time.monotonic()
        if self._asked is None or (self._asked.done() and now - self._since > FRESH):
            self._asked, self._since = self._thread.submit(self._look), now
        try:
            waiting = asyncio.shield(asyncio.wrap_future(self._asked))
            return await asyncio.wait_for(waiting, PATIENCE)
        except TimeoutError:
            return [f"The database did not answer within {PATIENCE:g} s."]

    def _look(self) -> list[str]:
        status = self._arena.models.status()
        missing = [] if status.state == "ready" else [status.message]
        try:
            # A transaction for writing: a database that can only be read keeps no vote.
            with self._arena.store.database.write() as session:
                session.execute(text("SELECT 1"))
        except StorageError as error:
            missing.append(error.public)
        return missing


def _no_probe(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's access log, whose third value is the path, is no probe's."""
    values = record.args
    path = str(values[2]) if isinstance(values, tuple) and len(values) > 2 else ""
    return path.partition("?")[0] not in PATHS
