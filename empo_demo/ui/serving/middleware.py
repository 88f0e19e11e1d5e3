"""Checks every request before Gradio sees it: its host, origin, size and route.

Refuses foreign hosts, foreign origins, bodies that are too large, and routes that the app does
not use. Believes X-Forwarded-* only of trusted proxies. Turns what Gradio would answer with a
traceback into one plain sentence. Pure ASGI, so that it never buffers a stream.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import text
from starlette.exceptions import HTTPException

from empo_demo.errors import StorageError
from empo_demo.settings import Settings, split
from empo_demo.ui.drawing.highlights import GENERAL

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 1_000_000
# Gradio's component templates need inline script and eval; no other host is ever asked.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self' data:; form-action 'self'; base-uri 'self'; object-src 'none'; "
    "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
API = "/gradio_api/"
USED = frozenset(
    {
        "api",
        "app_id",
        "call",
        "cancel",
        "config",
        "file",
        "heartbeat",
        "info",
        "login_check",
        "openapi.json",
        "queue",
        "reset",
        "run",
        "startup-events",
        "theme.css",
        "token",
        "user",
    }
)
"""What the page and its clients ask of Gradio under `API`. The rest is refused: uploads, the
conversion of videos, and links that write the state of a session to the disk."""
LOCAL = ("localhost", "127.0.0.1", "::1")
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
"""On a Space the platform's proxy connects from one of these, and nothing else can connect."""


@dataclass(frozen=True, slots=True)
class Doors:
    """`hosts` may be patterns, and None for any; `own` are further names of this page's origin."""

    hosts: tuple[str, ...] | None
    proxies: tuple[str, ...]
    own: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings, server_name: str) -> Doors:
        """A page on the loopback device takes local names only; see EMPO_ALLOWED_HOSTS."""
        space = os.environ.get("SPACE_HOST", "") if on_space() else ""
        hosts: tuple[str, ...] | None = tuple(split(settings.allowed_hosts)) or None
        if hosts is None and server_name in LOCAL:
            hosts = LOCAL
        if hosts is not None:
            hosts = (*hosts, *LOCAL, *filter(None, [space]))
        proxies = split(settings.trusted_proxies)
        if settings.trusted_proxies is None and on_space():
            proxies = list(PRIVATE)
        return cls(hosts, tuple(proxies), (space,) if space else ())


def on_space() -> bool:
    return os.environ.get("SYSTEM") == "spaces"


class Guard:
    """Wraps the app: refuses in plain text, adds headers to everything else."""

    def __init__(self, app: App, doors: Doors) -> None:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        # It takes the address and the scheme from X-Forwarded-*, of these peers only.
        self._app: Any = ProxyHeadersMiddleware(app, list(doors.proxies))  # type: ignore[arg-type]
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._believed(scope)
        headers = dict(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                return {"type": "http.disconnect"}
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                extra = [(b"retry-after", b"2")] if message["status"] in (429, 503) else []
                headers = [*message.get("headers", []), *HEADERS, *extra]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, counted, guarded)
        except Exception as error:
            if not started:
                await _refuse(send, *_explained(scope["path"], error))
            elif isinstance(error.__cause__, HTTPException):
                # The stream has told it, as for a session that is not there. It only has to end.
                await send({"type": "http.response.body"})
            else:
                raise

    def _believed(self, scope: Scope) -> Scope:
        """Without what only a trusted proxy may say, and without a foreign page's Origin."""
        peer = (scope.get("client") or ("",))[0]
        headers = scope["headers"]
        if peer not in self._app.trusted_hosts:
            forged = (b"x-forwarded-", b"x-gradio-server", b"forwarded")
            headers = [(name, value) for name, value in headers if not name.startswith(forged)]
        if scope["method"] in ("GET", "HEAD") and self._foreign(dict(headers)):
            # Without it Gradio lets no foreign page read the answer.
            headers = [(name, value) for name, value in headers if name != b"origin"]
        return {**scope, "headers": headers}

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = _hostname(_host(headers))
        if self._doors.hosts is not None and not any(
            fnmatch.fnmatchcase(host, pattern.lower()) for pattern in self._doors.hosts
        ):
            return 421, (
                f"This page is not served as {host[:100]!r}. Whoever runs it names its hosts in "
                "EMPO_ALLOWED_HOSTS."
            )
        if not _used(scope["path"]):
            return 404, "not found"
        if scope["method"] not in ("GET", "HEAD") and self._foreign(headers):
            return 403, (
                "Refused: another site's page sent this. If it was this page itself, its proxy "
                "must pass on the Host header with the port (see EMPO_TRUSTED_PROXIES)."
            )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, "The request is too large; at most 1 MB is taken."
        return None

    def _foreign(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser says that another site's page sends this."""
        origin = headers.get(b"origin")
        if origin is None:
            return False
        sender = urlsplit(origin.decode("latin-1")).netloc.lower()
        own = {_host(headers), *self._doors.own}
        return not sender or _port_free(sender) not in {_port_free(one.lower()) for one in own}


class PackedPage:
    """Wraps the app: sends the page itself compressed, which Gradio does for its assets only."""

    def __init__(self, app: App) -> None:
        from starlette.middleware.gzip import GZipMiddleware

        self._app, self._packed = app, GZipMiddleware(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope["type"] == "http" and scope["path"] == "/"
        await (self._packed if page else self._app)(scope, receive, send)


def _used(path: str) -> bool:
    """Whether the app has a use for `path`; `file=x` and `file/x` are both the route `file`."""
    if path.startswith("/monitoring"):
        return False
    _, under, rest = path.partition(API)
    return not under or rest.partition("/")[0].partition("=")[0] in USED


def _host(headers: dict[bytes, bytes]) -> str:
    """The host that the visitor asked for; what is left of X-Forwarded-Host can be believed."""
    forwarded = headers.get(b"x-forwarded-host", b"").split(b",")[0].strip()
    return (forwarded or headers.get(b"host", b"")).decode("latin-1").lower()


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _port_free(netloc: str) -> str:
    return netloc.removesuffix(":80").removesuffix(":443")


def _explained(path: str, error: Exception) -> tuple[int, str]:
    """Status and sentence for an exception of Gradio: an unknown endpoint, or a bug."""
    from gradio.route_utils import FnIndexInferError

    calls = ("/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/")
    if isinstance(error, FnIndexInferError) or (
        isinstance(error, KeyError | TypeError) and path.startswith(calls)
    ):
        return 404, (
            "There is no such endpoint, or it takes other values. /gradio_api/info lists the "
            "endpoints and what each takes."
        )
    log.error("A request to %s failed", path, exc_info=error)
    return 500, GENERAL


async def _refuse(send: Send, status: int, words: str) -> None:
    import json

    body = json.dumps({"detail": words, "error": words}).encode()
    headers = [(b"content-type", b"application/json"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


PATHS = ("/healthz", "/readyz")
PATIENCE = 2.0
"""Seconds to wait for the database: a probe gives up soon, and SQLite's lock only after 30."""
FRESH = 1.0
"""Seconds for which an answer is given again, so that many probes cost no more than one."""


class Health:
    """Wraps the app. Answers `/healthz` and `/readyz` with 200, or with 503 and what is missing.

    They tell whoever runs the app whether it lives, and whether it can serve a round. They are
    answered before everything else: a probe names the host as it likes, asks every few seconds,
    and must leave neither a cookie nor a line in the log.
    """

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
    """Whether a line of uvicorn's access log, whose third value is the path, is not a probe's."""
    values = record.args
    path = str(values[2]) if isinstance(values, tuple) and len(values) > 2 else ""
    return path.partition("?")[0] not in PATHS
