"""One OpenAI-compatible server: what it serves, whether it answers, and its replies as events.

This module knows the HTTP of the protocol, but not that sides wait for each other. `Unavailable` is
raised if another server may do better, a plain `EngineError` if every server would fail.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from empo_demo.engine.chat_template import fold_system
from empo_demo.engine.control_tokens import defuse
from empo_demo.engine.event_stream import event_stream, first_bytes, json_body
from empo_demo.engine.protocol import Delta, Event, Finished, FinishReason, Request, Source
from empo_demo.errors import EngineError, first_line

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
CHECK = 5.0
"""Seconds to wait for a connection, and for the list of models."""
_NOT_OPENAI = (
    "The model server sent something that is no OpenAI-style stream; check that EMPO_ENGINE names "
    "a server that streams /v1/chat/completions."
)
_NO_SERVER = "What answers at {0} is no OpenAI-compatible server; correct EMPO_ENGINE."
_ENDLESS = "The model server did not end its reply where it should; try again."
_MOST_MODELS = 4 * 2**20
"""The most bytes of a list of models."""
_MOST_TEXT = 40_000
"""The most characters of a reply; no longer text can be stored."""
_TRY = "try again, or tell who runs this app: the log has the server's words."
Trace = Callable[[str, dict[str, Any]], None]


class Unavailable(EngineError):
    """The server did not answer, or its answer is unusable. Another server may do better."""


class ModelServer:
    """The server at `url` (with or without its `/v1`), asked through `client`."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        root = url.strip().rstrip("/")
        self.url = root if root.endswith("/v1") else f"{root}/v1"
        self.models: list[str] = []
        self.healthy = True
        self.busy = 0
        self.penalty = True
        self._client = client

    def look(self) -> None:
        """Read the list of models. Without one, the server is unhealthy and this raises."""
        import httpx

        self.healthy = False
        try:
            with self._client.stream("GET", f"{self.url}/models", timeout=CHECK) as answer:
                answer.raise_for_status()
                listed = json_body(answer, most=_MOST_MODELS, seconds=CHECK)
            self.models = [str(model["id"]) for model in listed["data"]]
        except httpx.HTTPStatusError as error:
            raise EngineError(
                f"The server at {self.url} answered {error.response.status_code} to /models; "
                "EMPO_ENGINE must be the URL of an OpenAI-compatible server "
                "(its key goes into OPENAI_API_KEY)."
            ) from None
        except httpx.TimeoutException:
            raise EngineError(
                f"The server at {self.url} did not answer to /models within {CHECK:.0f} s; wait "
                "until it has loaded its model, or restart it."
            ) from None
        except httpx.DecodingError:
            raise EngineError(_NO_SERVER.format(self.url)) from None
        except httpx.HTTPError:
            raise EngineError(
                f"No server answers at {self.url}; start it, or correct EMPO_ENGINE."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise EngineError(_NO_SERVER.format(self.url)) from None
        self.healthy = True

    def model_of(self, contender: Source) -> str | None:
        """The server's name for a contender's weights; None if it does not have them."""
        return next((name for name in names_of(contender) if name in self.models), None)

    def reply(self, request: Request, model: str, trace: Trace) -> Iterator[Event]:
        """Yield `Delta`s and a `Finished`. `trace` gets the connection, so that it can be cut."""
        import httpx

        self.busy += 1
        try:
            yield from self._reply(request, model, trace)
        except httpx.TimeoutException:
            raise Unavailable("The model server did not answer in time; try again.") from None
        except (ValueError, httpx.DecodingError) as error:
            self._note(f"sent no OpenAI-style stream: {first_line(error)}")
            raise Unavailable(_NOT_OPENAI) from None
        except httpx.RemoteProtocolError:
            raise Unavailable("The model server broke off in mid-reply; try again.") from None
        except httpx.HTTPError:
            raise Unavailable("The model server cannot be reached; try again.") from None
        finally:
            self.busy -= 1

    def _reply(self, request: Request, model: str, trace: Trace) -> Iterator[Event]:
        started = time.perf_counter()
        text, pieces, reason = "", 0, ""
        with closing(self._open(request, model, trace)) as response:
            for chunk in event_stream(response):
                if chunk.get("error"):
                    self._note(f"broke off: {json.dumps(chunk['error'])}")
                    raise Unavailable("The model server broke off with an error; try again.")
                self._check_model(model, chunk.get("model"))
                piece, reason = _content(chunk, reason)
                piece = piece if text else piece.lstrip()
                if piece:
                    text, pieces = text + piece, pieces + 1
                    yield Delta(request.side, piece)
                if len(text) > _MOST_TEXT:
                    raise Unavailable(_ENDLESS)
                pieces = _tokens(chunk) or pieces
        if not reason:
            raise Unavailable("The model server broke off in mid-reply; try again.")
        elapsed = (time.perf_counter() - started) * 1000
        yield Finished(request.side, _reason(reason, request), text, pieces, elapsed)

    def _check_model(self, asked: str, said: object) -> None:
        """Raise if another model answers: its reply would count for the wrong contender."""
        if not isinstance(said, str) or said in ("", asked):
            return
        alike = said.startswith(asked) or PurePosixPath(said).name == PurePosixPath(asked).name
        if said in self.models or not alike:
            # The names stay in the log: a visitor must not learn which model a side is.
            log.error("%s: %r was asked, %r answered", self.url, asked, said)
            raise Unavailable(
                "Another model than the one asked for answered; serve each contender's weights "
                "under a name of its own (the log has the names)."
            )

    def _open(self, request: Request, model: str, trace: Trace) -> httpx.Response:
        """The streaming response. A server that supports less than vLLM gets a simpler request."""
        body = self._body(request, model, request.messages)
        response = self._ask(body, trace)
        if response.status_code in (400, 422):
            simpler = self._simpler(request, body, first_bytes(response))
            response = self._ask(simpler, trace)
        if response.status_code != 200:
            status = response.status_code
            self._note(f"answered {status}: {first_bytes(response)}")
            kind = Unavailable if status >= 500 or status in (404, 408, 429) else EngineError
            raise kind(f"The model server answered with an error ({status}); {_TRY}")
        return response

    def _simpler(self, request: Request, body: dict[str, Any], complaint: str) -> dict[str, Any]:
        """`body` without the part that the server refuses. Raises if it refuses something else."""
        # OpenAI's own interface has no repetition penalty, and some templates no system role.
        if "repetition_penalty" in complaint and "repetition_penalty" in body:
            self.penalty = False
            return self._body(request, body["model"], request.messages)
        if "system" in complaint.lower() and request.messages[0]["role"] == "system":
            return self._body(request, body["model"], fold_system(request.messages))
        self._note(f"refused: {complaint}")
        if "context length" in complaint.lower() or "max_tokens" in complaint:
            raise EngineError(
                "The dialogue is too long for the model on the server; shorten the message or the "
                "reply."
            )
        raise EngineError(f"The model server refused the request; {_TRY}")

    def _note(self, words: str) -> None:
        """Log what a server says. It may name a model, so no visitor of a blind round reads it."""
        log.error("%s %s", self.url, _short(words))

    def _ask(self, body: dict[str, Any], trace: Trace) -> httpx.Response:
        url = f"{self.url}/chat/completions"
        asked = self._client.build_request("POST", url, json=body, extensions={"trace": trace})
        return self._client.send(asked, stream=True)

    def _body(
        self, request: Request, model: str, messages: Sequence[dict[str, str]]
    ) -> dict[str, Any]:
        decoding = request.decoding
        body: dict[str, Any] = {
            "model": model,
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
        if self.penalty:
            # Even 1.0 is sent: without it, vLLM takes the value of the model's generation config.
            body["repetition_penalty"] = decoding.repetition_penalty
        return body


def names_of(contender: Source) -> list[str]:
    """The names that a server may have for a contender's weights."""
    source = contender.adapter or contender.base
    return [source, PurePosixPath(source).name, contender.id]


def _content(chunk: dict[str, Any], reason: str) -> tuple[str, str]:
    """The text that a chunk adds, and why the reply ended ("" if it has not)."""
    text = ""
    try:
        for choice in chunk.get("choices") or ():
            text += (choice.get("delta") or {}).get("content") or ""
            reason = str(choice.get("finish_reason") or reason)
    except (AttributeError, TypeError):
        raise ValueError("its choices have another form") from None
    return text, reason


def _tokens(chunk: dict[str, Any]) -> int | None:
    """The number of tokens of the whole reply, if the chunk tells it."""
    usage = chunk.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and 0 <= count < 10**7 else None


def _reason(reason: str, request: Request) -> FinishReason:
    """Our reason for OpenAI's reason. OpenAI's `stop` is an end token or a stop string."""
    if reason == "length":
        return "length"
    return "stop" if request.decoding.stop else "eos"


def _short(text: str) -> str:
    return " ".join(text.split())[:500]
