"""Contenders served by OpenAI-compatible servers: vLLM, TGI, `transformers serve`.

All sides are requested at once, each in its own thread, and released at one pace. Of several
servers, the least busy healthy one that has the contender answers. If it fails before the first
word, the next one answers. Closing the stream closes the responses, which makes such servers stop.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from empo_demo.engine.pace import Pacer
from empo_demo.engine.protocol import Delta, Event, Failed, Request, Source
from empo_demo.engine.sampling import check_decoding
from empo_demo.engine.server import CHECK, ModelServer, Unavailable, names_of
from empo_demo.errors import EngineError

log = logging.getLogger(__name__)
READ = 60.0
"""Seconds to wait for the next piece of a reply."""
LOOK = 15.0
"""Seconds between two health checks of several servers."""


class RemoteEngine:
    """Streams from the servers at `urls`, one or several with commas between them."""

    def __init__(
        self, urls: str, contenders: Sequence[Source], *, read: float = READ, look: float = LOOK
    ) -> None:
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        self._client = httpx.Client(
            timeout=httpx.Timeout(read, connect=CHECK),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # Each reply has its own connection, so that it can be cut alone.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._servers = [ModelServer(u, self._client) for u in urls.split(",") if u.strip()]
        self._read, self._look = read, look
        self._open_streams: set[_Stop] = set()
        self._closed = threading.Event()
        self._contenders = {c.id: c for c in contenders}
        self._first_look()
        if len(self._servers) > 1:
            threading.Thread(target=self._watch, name="servers", daemon=True).start()

    def describe(self) -> dict[str, str]:
        notes = {"engine": ", ".join(f"server {server.url}" for server in self._servers)}
        for contender in self._contenders.values():
            names = {s.model_of(contender): None for s in self._servers if s.model_of(contender)}
            notes[f"model {contender.id}"] = ", ".join(str(name) for name in names)
        away = [server.url for server in self._servers if not server.healthy]
        if away:
            notes["do not answer"] = ", ".join(away)
        notes["replies in company"] = "may differ from alone by rounding"
        if not all(server.penalty for server in self._servers):
            notes["repetition penalty"] = "not supported by the server; left out"
        return notes

    def serves(self, contender: Source) -> bool:
        """Whether a server has the contender."""
        return bool(self._able(contender))

    @property
    def repeatable(self) -> bool:
        """False: a server chooses its batches, and may ignore the seed."""
        return False

    def close(self) -> None:
        """End all requests at once, also those to a silent server."""
        self._closed.set()
        for stop in tuple(self._open_streams):
            stop.set()
        self._client.close()

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Yield the events of all `requests` at one pace; close to make the server stop."""
        for request in requests:
            check_decoding(request.decoding)
            if request.contender not in self._contenders:
                known = ", ".join(self._contenders)
                raise EngineError(
                    f"The contender {request.contender!r} is not loaded; there are: {known}."
                )
        return self._stream(requests)

    def _stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        arrived: queue.SimpleQueue[Event] = queue.SimpleQueue()
        stop = _Stop()
        self._open_streams.add(stop)
        pacer = Pacer(request.side for request in requests)
        patience = (self._read + CHECK) * len(self._servers)
        for request in requests:
            threading.Thread(
                target=self._run, args=(request, arrived, stop), name="remote", daemon=True
            ).start()
        try:
            while not pacer.done:
                try:
                    pacer.feed(arrived.get(timeout=patience))
                except queue.Empty:
                    pacer.fail_open("The model server stopped answering; try again.")
                yield from pacer.release()
        finally:
            stop.set()
            self._open_streams.discard(stop)

    def _run(self, request: Request, arrived: queue.SimpleQueue[Event], stop: _Stop) -> None:
        """Run one side from its request to its end. Every error becomes a `Failed`."""
        failure = "No model server answers at present; try again in a minute."
        contender, said = self._contenders[request.contender], False
        try:
            if contender.adapter and request.adapter_scale != 1.0:
                raise EngineError("A model server cannot turn the alignment dial; set it to 1.")
            for server, model in self._able(contender):
                try:
                    for event in server.reply(request, model, stop.connected):
                        if stop.is_set():
                            raise EngineError("The reply was stopped.")
                        said = said or isinstance(event, Delta)
                        arrived.put(event)
                    return
                except Unavailable as error:
                    failure = str(error)
                    if stop.is_set():
                        break
                    log.warning("%s: %s", server.url, error)
                    server.healthy = len(self._servers) == 1
                    if said:
                        break
        except EngineError as error:
            failure = str(error)
        except Exception:
            log.exception("A reply could not be read")
            failure = "The model server's answer could not be read."
        arrived.put(Failed(request.side, failure))

    def _able(self, contender: Source) -> list[tuple[ModelServer, str]]:
        """The servers that have the contender, with its name there, the best server first."""
        able = [(server, server.model_of(contender)) for server in self._servers]
        able.sort(key=lambda pair: (not pair[0].healthy, pair[0].busy))
        return [(server, model) for server, model in able if model is not None]

    def _first_look(self) -> None:
        """Check that every contender has a server. Servers that are not needed may be away."""
        failures: list[EngineError] = []
        for server in self._servers:
            try:
                server.look()
            except EngineError as error:
                failures.append(error)
        for contender in self._contenders.values():
            if self._able(contender):
                continue
            if failures:
                raise failures[0]
            served = ", ".join(name for server in self._servers for name in server.models)
            raise EngineError(
                f"The server at {', '.join(server.url for server in self._servers)} serves "
                f"{served or 'nothing'}, but not the contender {contender.id!r}; serve its weights "
                f"under one of the names {', '.join(names_of(contender))}."
            )
        for failure in failures:
            log.warning("%s The other servers answer meanwhile.", failure)

    def _watch(self) -> None:
        """Check the health of each server from time to time; log changes."""
        while not self._closed.wait(self._look):
            for server in self._servers:
                was = server.healthy
                with suppress(EngineError, RuntimeError):  # RuntimeError: closed meanwhile
                    server.look()
                if server.healthy != was and not self._closed.is_set():
                    log.warning("%s %s", server.url, "is back" if server.healthy else "is away")


class _Stop:
    """Ends the requests of one stream at once, also those that wait for a silent server.

    Closing a response does not wake the thread that reads it; shutting its socket down does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._sockets: list[socket.socket] = []

    def is_set(self) -> bool:
        return self._stopped

    def set(self) -> None:
        with self._lock:
            self._stopped = True
            for line in self._sockets:
                _shut(line)

    def connected(self, _event: str, info: dict[str, Any]) -> None:
        """httpx's trace of a request. The events of a new connection carry its network stream."""
        find = getattr(info.get("return_value"), "get_extra_info", None)
        if find is not None:
            line = find("socket")
            with self._lock:
                self._sockets.append(line)
                if self._stopped:
                    _shut(line)


def _shut(line: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself
        line.shutdown(socket.SHUT_RDWR)
