"""What goes to a model server and comes from it: clean and bounded bytes, and turns.

`Line` is the httpx transport under the `openai` client. That client reads a stream without any
bound, and closing it does not wake a thread that waits for a silent server.

`Turns` asks one model of a server at a time, for servers that confuse the models of one batch.
"""

from __future__ import annotations

import codecs
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from ssl import SSLContext
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import httpx2

from empo_demo.errors import EngineError

CHECK = 5.0
"""Seconds to wait for a connection, for the list of models, and for the words of a refusal."""
_MOST_STREAM = 8 * 2**20
"""The most bytes of a reply's stream. A reply of 4096 tokens has about one million."""
_MOST_MODELS = 4 * 2**20
"""The most bytes of a list of models."""
_MOST_WORDS = 10_000
"""How many bytes of a refusal are read."""
_LEFT_OUT = {0: None, 0xFEFF: None}
"""Some servers write a byte-order mark before the stream or an event, whose beginning would then be
unknown. No database stores a NUL."""


_EMPTY = re.compile(r"(?<![^\r\n])data:[ \t]*(?:null[ \t]*)?(?=[\r\n])")
_DONE = re.compile(r"(?<![^\r\n])data:[ \t]*\"?\[DONE\]\"?[ \t]*(?=[\r\n])")
"""Events without a content, and the last event, in all the ways in which servers write them."""


class Ended(Exception):
    """The server ended its stream of events without `[DONE]`."""


class Line(httpx2.BaseTransport):
    """The connections of one stream of replies. Each request has its own connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._cut = threading.Event()

    @property
    def is_cut(self) -> bool:
        return self._cut.is_set()

    def cut(self) -> None:
        """End all requests, also those that wait for a silent server, and all later ones."""
        with self._lock:
            self._cut.set()
            for line in self._sockets:
                _shut(line)

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the line was cut meanwhile."""
        return self._cut.wait(seconds)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions = {**request.extensions, "trace": self._connected}
        answer = _transport(request.url).handle_request(request)
        if answer.status_code >= 300:
            body = _beginning(answer)
        else:
            body = _events(answer) if request.method == "POST" else _whole(answer)
        headers = [(k, v) for k, v in answer.headers.multi_items() if k != "content-encoding"]
        return httpx2.Response(
            answer.status_code,
            headers=headers,
            stream=_Body(answer, body),
            extensions=answer.extensions,
        )

    def _connected(self, _event: str, info: dict[str, Any]) -> None:
        """httpx's trace of a request. The events of a new connection carry its network stream."""
        find = getattr(info.get("return_value"), "get_extra_info", None)
        if find is not None:
            line = find("socket")
            with self._lock:
                still_open = [sock for sock in self._sockets if sock.fileno() >= 0]
                self._sockets = [*still_open, line]
                if self.is_cut:
                    _shut(line)


class _Body(httpx2.SyncByteStream):
    """A body that is already decoded, and closes the `answer` that it comes from."""

    def __init__(self, answer: httpx2.Response, parts: Iterator[bytes]) -> None:
        self._answer, self._parts = answer, parts

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        self._answer.close()


def _events(answer: httpx2.Response) -> Iterator[bytes]:
    """A stream of events. A reader that has met `[DONE]` never comes to its end.

    Halves of characters, which are not UTF-8, become escapes of JSON.
    """
    decode = codecs.getincrementaldecoder("utf8")("surrogatepass").decode
    size, begun = 0, list[str]()
    for part in answer.iter_bytes():
        size += len(part)
        if size > _MOST_STREAM:
            raise ValueError(f"it is longer than {_MOST_STREAM:,} bytes")
        text = decode(part).translate(_LEFT_OUT)
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if end:
            yield _cleaned("".join(begun) + text[:end])
            begun.clear()
        begun.append(text[end:])
    # An empty line completes the last event, which some servers leave out.
    yield _cleaned("".join(begun) + "\n\n")
    raise Ended


def _cleaned(lines: str) -> bytes:
    """Whole lines of a stream, each event in the form that the `openai` library reads."""
    lines = _DONE.sub("data: [DONE]", _EMPTY.sub(":", lines))
    return lines.encode("utf8", "backslashreplace")


def _whole(answer: httpx2.Response) -> Iterator[bytes]:
    size, until = 0, time.monotonic() + CHECK
    for part in answer.iter_bytes():
        size += len(part)
        if size > _MOST_MODELS:
            raise ValueError(f"it is longer than {_MOST_MODELS:,} bytes")
        if time.monotonic() > until:
            raise httpx2.ReadTimeout("the body did not end in time")
        yield part


def _beginning(answer: httpx2.Response) -> Iterator[bytes]:
    """The first bytes of a refusal, as many as come in time."""
    left, until = _MOST_WORDS, time.monotonic() + CHECK
    with suppress(httpx2.HTTPError):
        for part in answer.iter_bytes():
            yield part[:left]
            left -= len(part)
            if left <= 0 or time.monotonic() > until:
                return


def _transport(url: httpx2.URL) -> httpx2.HTTPTransport:
    """httpx's transport to `url`, through the proxy of the environment if there is one."""
    proxies = {} if proxy_bypass(url.host) else getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    once = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.HTTPTransport(verify=_tls(), proxy=proxy, limits=once)


@cache
def _tls() -> SSLContext:
    """One context for all lines, as making it takes about 20 ms."""
    return httpx2.create_ssl_context()


def _shut(line: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself
        line.shutdown(socket.SHUT_RDWR)


_BEAT = 0.2
"""Seconds between two signs of life of a reply that waits."""


class Waiting(Protocol):
    """A reply that waits: it is told so from time to time, and may be cut off."""

    def wait(self) -> None: ...
    @property
    def is_cut(self) -> bool: ...


class Turns:
    """Lets any number of requests of one model run together, and never those of two models.

    Who came first goes first: a model that is running does not overtake another that waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[tuple[object, str]] = []
        self._model, self._running = "", 0

    @contextmanager
    def take(self, model: str, reply: Waiting) -> Iterator[None]:
        """Hold a turn of `model`. Without a name, everybody runs at once.

        Raises `EngineError` if the reply is cut off while it waits.
        """
        if not model:
            yield
            return
        ticket = object()
        with self._changed:
            self._tickets.append((ticket, model))
            try:
                while not self._may_run(ticket):
                    if reply.is_cut:
                        raise EngineError("The reply was stopped.")
                    reply.wait()
                    self._changed.wait(_BEAT)
                self._model = model
                self._running += 1
            finally:
                self._tickets = [place for place in self._tickets if place[0] is not ticket]
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _may_run(self, ticket: object) -> bool:
        """Whether all before `ticket`, waiting and running, are of its model."""
        model = self._model if self._running else None
        for place, wanted in self._tickets:
            if model is not None and wanted != model:
                return False
            if place is ticket:
                return True
            model = wanted
        return False
