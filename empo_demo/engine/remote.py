"""Contenders served by any OpenAI-compatible server: vLLM, TGI, `transformers serve`.

Every side is asked for at once, each in its own thread, and released at one pace. Closing the
stream closes the responses, which is how such servers are told to stop. Role tags in messages are
broken here, since the server's tokenizer would take them for its own.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from empo_demo.engine.chat import defuse, fold_system
from empo_demo.engine.pace import Pacer
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request, Source
from empo_demo.engine.sampling import check_decoding
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
CONNECT, READ = 5.0, 60.0
"""Seconds to wait for a connection, and for the next piece of a reply."""


class RemoteEngine:
    """Streams from the server at `url` (with or without its `/v1`)."""

    def __init__(self, url: str, contenders: Sequence[Source], *, read: float = READ) -> None:
        import httpx

        root = url.rstrip("/")
        self._url = root if root.endswith("/v1") else f"{root}/v1"
        key = os.environ.get("OPENAI_API_KEY")
        self._client = httpx.Client(
            timeout=httpx.Timeout(read, connect=CONNECT),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # A new connection for each reply, so that each can be cut by itself.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._read = read
        self._open_streams: set[_Stop] = set()
        self._penalty = True
        served = self._served()
        self._models = {c.id: _model_of(c, served, self._url) for c in contenders}
        self._adapted = {c.id for c in contenders if c.adapter}

    def describe(self) -> dict[str, str]:
        notes = {"engine": f"server {self._url}"}
        notes |= {f"model {c}": model for c, model in self._models.items()}
        if not self._penalty:
            notes["repetition penalty"] = "not supported by the server; left out"
        return notes

    def close(self) -> None:
        """End what is being asked at once, also where the server is silent."""
        for stop in tuple(self._open_streams):
            stop.set()
        self._client.close()

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Events of all `requests`, released together; close to make the server stop."""
        for request in requests:
            check_decoding(request.decoding)
            if request.contender not in self._models:
                known = ", ".join(self._models)
                raise EngineError(
                    f"The contender {request.contender!r} is not loaded; there are: {known}."
                )
        return self._stream(requests)

    def _stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        arrived: queue.SimpleQueue[Event] = queue.SimpleQueue()
        stop = _Stop()
        self._open_streams.add(stop)
        pacer = Pacer(request.side for request in requests)
        for request in requests:
            threading.Thread(
                target=self._run, args=(request, arrived, stop), name="remote", daemon=True
            ).start()
        try:
            while not pacer.done:
                try:
                    pacer.feed(arrived.get(timeout=self._read + CONNECT))
                except queue.Empty:
                    pacer.fail_open("The model server stopped answering; try again.")
                yield from pacer.release()
        finally:
            stop.set()
            self._open_streams.discard(stop)

    def _run(self, request: Request, arrived: queue.SimpleQueue[Event], stop: _Stop) -> None:
        """One side, from asking to its end; whatever goes wrong becomes a `Failed`."""
        import httpx

        try:
            for event in self._reply(request, stop):
                if stop.is_set():
                    return
                arrived.put(event)
        except EngineError as error:
            arrived.put(Failed(request.side, str(error)))
        except httpx.TimeoutException:
            arrived.put(Failed(request.side, "The model server did not answer in time; try again."))
        except httpx.HTTPError:
            if not stop.is_set():
                log.warning("The server's answer broke off", exc_info=True)
            arrived.put(Failed(request.side, "The model server cannot be reached; try again."))
        except Exception:
            log.exception("A reply could not be read")
            arrived.put(Failed(request.side, "The model server's answer could not be read."))

    def _reply(self, request: Request, stop: _Stop) -> Iterator[Event]:
        started = time.perf_counter()
        text, pieces, reason = "", 0, "length"
        with closing(self._open(request, stop)) as response:
            for chunk in _chunks(response):
                usage = chunk.get("usage") or {}
                for choice in chunk.get("choices") or ():
                    piece = (choice.get("delta") or {}).get("content") or ""
                    reason = choice.get("finish_reason") or reason
                    if not text:
                        piece = piece.lstrip()
                    if piece:
                        text, pieces = text + piece, pieces + 1
                        yield Delta(request.side, piece)
                pieces = usage.get("completion_tokens") or pieces
        elapsed = (time.perf_counter() - started) * 1000
        yield Finished(request.side, _reason(reason, request), text, pieces, elapsed)

    def _open(self, request: Request, stop: _Stop) -> httpx.Response:
        """The streaming response, asked for once more where the server knows less than vLLM."""
        body = self._body(request, request.messages)
        response = self._ask(body, stop)
        if response.status_code in (400, 422):
            simpler = self._simpler(request, body, _drain(response))
            response = self._ask(simpler, stop)
        if response.status_code != 200:
            status = response.status_code
            raise EngineError(f"The model server answered {status}: {_short(_drain(response))}")
        return response

    def _simpler(self, request: Request, body: dict[str, Any], complaint: str) -> dict[str, Any]:
        """`body` without what the server complains of; raises where that is something else."""
        # OpenAI's own interface has no repetition penalty, and some templates no system role.
        if "repetition_penalty" in complaint and "repetition_penalty" in body:
            self._penalty = False
            return self._body(request, request.messages)
        if "system" in complaint.lower() and request.messages[0]["role"] == "system":
            return self._body(request, fold_system(request.messages))
        raise EngineError(f"The model server refused the request: {_short(complaint)}")

    def _ask(self, body: dict[str, Any], stop: _Stop) -> httpx.Response:
        url = f"{self._url}/chat/completions"
        asked = self._client.build_request(
            "POST", url, json=body, extensions={"trace": stop.connected}
        )
        return self._client.send(asked, stream=True)

    def _body(self, request: Request, messages: Sequence[dict[str, str]]) -> dict[str, Any]:
        decoding = request.decoding
        body: dict[str, Any] = {
            "model": self._model(request),
            "messages": [{**m, "content": defuse(m["content"], ())} for m in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_new_tokens,
            "seed": request.seed % 2**31,
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        if self._penalty and decoding.repetition_penalty != 1.0:
            body["repetition_penalty"] = decoding.repetition_penalty
        return body

    def _model(self, request: Request) -> str:
        if request.contender in self._adapted and request.adapter_scale != 1.0:
            raise EngineError("A model server cannot turn the alignment dial; set it to 1.")
        return self._models[request.contender]

    def _served(self) -> list[str]:
        import httpx

        try:
            answer = self._client.get(f"{self._url}/models")
            answer.raise_for_status()
            return [str(model["id"]) for model in answer.json()["data"]]
        except httpx.HTTPStatusError as error:
            raise EngineError(
                f"The server at {self._url} answered {error.response.status_code} to /models; "
                "EMPO_ENGINE must be the URL of an OpenAI-compatible server "
                "(its key goes into OPENAI_API_KEY)."
            ) from None
        except httpx.HTTPError:
            raise EngineError(
                f"No server answers at {self._url}; start it, or correct EMPO_ENGINE."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise EngineError(
                f"What answers at {self._url} is no OpenAI-compatible server; correct EMPO_ENGINE."
            ) from None


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
        """httpx's trace of a request: its events that open a connection return the stream."""
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


def _model_of(contender: Source, served: Sequence[str], url: str) -> str:
    """The name under which the server knows a contender's weights."""
    source = contender.adapter or contender.base
    names = [source, PurePosixPath(source).name, contender.id]
    for name in names:
        if name in served:
            return name
    raise EngineError(
        f"The server at {url} serves {', '.join(served) or 'nothing'}, but not the contender "
        f"{contender.id!r}; serve its weights under one of the names {', '.join(names)}."
    )


def _chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream, to its `[DONE]`."""
    for line in response.iter_lines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or not data:
            continue
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise EngineError(f"The model server broke off: {_short(json.dumps(chunk['error']))}")
        yield chunk


def _drain(response: httpx.Response) -> str:
    """What a refusing response says; closes it."""
    with closing(response):
        return response.read().decode("utf8", "replace")


def _reason(reason: str, request: Request) -> FinishReason:
    """OpenAI's `stop` is an end token or a stop string; which one, it does not say."""
    if reason == "length":
        return "length"
    return "stop" if request.decoding.stop else "eos"


def _short(text: str) -> str:
    line = " ".join(text.split())[:200]
    return line if line.endswith((".", "!", "?")) else f"{line}."
