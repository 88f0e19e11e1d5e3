"""One OpenAI-compatible server: what it serves, whether it answers, and its replies as events.

The `openai` library speaks the protocol, over our own transport. This module does not know that
sides wait for each other. `Unavailable` is raised if another server may do better, a plain
`EngineError` if every server would fail.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice

from empo_demo.dialogue import Message
from empo_demo.engine.protocol import (
    Decoding,
    Delta,
    Event,
    Finished,
    FinishReason,
    Request,
    Source,
)
from empo_demo.engine.servers.manners import (
    DECODING,
    Manner,
    ReplyText,
    is_same,
    is_too_long,
    served_name,
)
from empo_demo.engine.servers.transport import CHECK, Ended, Line, Turns
from empo_demo.engine.servers.who_answers import Answer, Token
from empo_demo.engine.text.marks import ALL_THOUGHT
from empo_demo.errors import SERVER_ERROR, EngineError, Sentence, first_line

log = logging.getLogger(__name__)
_NOT_OPENAI = (
    "The model server sent something that is no OpenAI-style stream; check that EMPO_ENGINE names "
    "a server that streams /v1/chat/completions."
)
_NO_SERVER = "What answers at {0} is not an OpenAI-compatible server; correct EMPO_ENGINE."
_BROKE_OFF = "The model server broke off in mid-reply; try again."
_ERROR = "The model server broke off with an error; try again."
_MOST_TEXT = 40_000
"""The most characters of a reply; no longer text can be stored."""
_TRY = "try again, or tell who runs this app: the log has the server's words."
_ENDS: dict[str, FinishReason] = {
    "stop": "eos",
    "eos": "eos",
    "eos_token": "eos",
    "eos_token_id": "eos",
    "stop_token": "eos",
    "end_turn": "eos",
    "complete": "eos",
    "completed": "eos",
    "finished": "eos",
    "stop_sequence": "stop",
    "stop_string": "stop",
    "length": "length",
    "max_length": "length",
    "max_tokens": "length",
    "max_new_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
}
"""Our reason for a server's. OpenAI's `stop` is an end token or a stop string."""


_LIKELY = {"logprobs": True, "top_logprobs": 5}
"""The fields that ask for the log-probabilities of the likeliest tokens."""
_ERROR_KEYS = {"message", "detail", "error_type", "error_message"}
"""The keys of an error that is sent as an event of its own."""


class Unavailable(EngineError):
    """The server did not answer, or its answer is unusable. Another server may do better."""


class Busy(Unavailable):
    """The server asks to be asked again in `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ModelServer:
    """The server at `url` (with or without its `/v1`), which may have some of `contenders`.

    `read` is how many seconds it may be silent.
    """

    def __init__(self, url: str, contenders: Sequence[Source], *, read: float) -> None:
        root = url.strip().rstrip("/")
        self.url = root if root.endswith("/v1") else f"{root}/v1"
        self.models: list[str] = []
        self.healthy = True
        self.busy = 0
        self.doubted = False
        """Whether it failed since its models were last heard: it may be another server now."""
        self.heard, self.refused = "", ""
        """What was heard of who answers, and why the server may not answer."""
        self.turns = Turns()
        self._contenders = contenders
        self._timeout = httpx2.Timeout(read, connect=CHECK)
        self._manners: defaultdict[str, Manner] = defaultdict(Manner)
        self._key = os.environ.get("OPENAI_API_KEY")
        self._headers: Any = {} if self._key else {"Authorization": openai.omit}

    def describe(self) -> dict[str, str]:
        """What the server does not take for some of its models, of what changes the replies."""
        manners = tuple(self._manners.values())
        left_out = set[str]().union(*(manner.left_out for manner in manners))
        notes = {
            name.replace("_", " "): "not supported by the server; left out"
            for name in DECODING
            if name in left_out
        }
        if any(manner.folded for manner in manners):
            notes["system text"] = "put before the first message; the server takes no system role"
        return notes

    def look(self, line: Line) -> None:
        """Read the list of models. Without one, the server is unhealthy and this raises."""
        self.healthy = False
        try:
            models = self._client(line).with_options(timeout=CHECK).models
            answer = models.with_raw_response.list(extra_headers=self._headers)
            listed = json.loads(answer.content)
            rows = listed if isinstance(listed, list) else listed["data"] or ()
            self.models = [str(model["id"]) for model in rows]
        except openai.APIStatusError as error:
            raise EngineError(
                f"The server at {self.url} answered {error.status_code} to /models; "
                "EMPO_ENGINE must be the URL of an OpenAI-compatible server "
                "(its key goes into OPENAI_API_KEY)."
            ) from None
        except openai.APITimeoutError:
            raise EngineError(
                f"The server at {self.url} did not answer to /models within {CHECK:.0f} s; wait "
                "until it has loaded its model, or restart it."
            ) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.DecodingError):
                raise EngineError(_NO_SERVER.format(self.url)) from None
            raise EngineError(
                f"No server answers at {self.url}; start it, or correct EMPO_ENGINE."
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise EngineError(_NO_SERVER.format(self.url)) from None
        self.healthy = True

    def model_of(self, contender: Source) -> str | None:
        """The server's name for a contender's weights; None if it does not have them."""
        return served_name(contender, self.models)

    def ask(self, model: str, prompt: tuple[Message, ...], tokens: int, line: Line) -> Answer:
        """The greedy answer to one prompt, with log-probabilities where the server gives them."""
        decoding = Decoding(temperature=0.0, top_p=1.0, repetition_penalty=1.0)
        request = Request("", "", prompt, replace(decoding, max_new_tokens=tokens))
        text, heard = "", list[Token]()
        with (
            self._failures(),
            suppress(Ended),
            self._open(request, model, line, _LIKELY) as stream,
        ):
            for chunk in stream:
                self._check_error(chunk)
                for choice in chunk.choices[:1]:
                    text += choice.delta.content or ""
                    text += (choice.delta.model_extra or {}).get("reasoning_content") or ""
                    heard += _tokens_of(choice)
        return Answer(text, tuple(heard))

    def reply(self, request: Request, model: str, line: Line) -> Iterator[Event]:
        """Yield `Delta`s and a `Finished`. Cutting the line ends the reply with an error."""
        self.busy += 1
        try:
            with self._failures(), self._open(request, model, line) as stream:
                yield from self._read(request, model, stream)
        finally:
            self.busy -= 1

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise every failure of a request as an `EngineError`."""
        try:
            yield
        except openai.APITimeoutError:
            raise Unavailable("The model server did not answer in time; try again.") from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.DecodingError):
                raise self._not_openai(error.__cause__) from None
            if isinstance(error.__cause__, httpx2.RemoteProtocolError):
                raise Unavailable(_BROKE_OFF) from None
            raise Unavailable("The model server cannot be reached; try again.") from None
        except openai.APIError as error:
            self._note(f"broke off: {json.dumps(error.body)}")
            raise Unavailable(_ERROR) from None
        except (ValueError, RecursionError) as error:
            raise self._not_openai(error) from None

    def _client(self, line: Line) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=self._timeout,
            http_client=httpx2.Client(transport=line, headers={"Accept-Encoding": "identity"}),
        )

    def _open(
        self, request: Request, model: str, line: Line, more: Mapping[str, Any] | None = None
    ) -> openai.Stream[ChatCompletionChunk]:
        """The stream of a reply. What the server refuses is left out, one thing after another.

        `more` are fields beside those of the request.
        """
        completions, manner = self._client(line).chat.completions, self._manners[model].copy()
        while True:
            messages: Any = manner.messages(request)
            fields = manner.fields(request, more)
            try:
                stream = completions.create(
                    model=model,
                    messages=messages,
                    stream=True,
                    extra_body=fields,
                    extra_headers=self._headers,
                )
                # Only what has helped is kept: a refusal may have been misread.
                self._manners[model] = manner
                return stream
            except openai.APIStatusError as error:
                words, status = error.response.text, error.status_code
                system = messages[0]["role"] == "system"
                if (
                    status not in (400, 422, 500)
                    or is_too_long(words)
                    or not manner.simplify(fields, words, system=system)
                ):
                    raise self._refusal(error) from None

    def _refusal(self, error: openai.APIStatusError) -> EngineError:
        """What a refusal means. Its words may name a model, so only the log gets them."""
        status, words = error.status_code, error.response.text
        self._note(f"answered {status}: {words}")
        if status in (400, 413, 422) and is_too_long(words):
            return EngineError(
                "The dialogue is too long for the model on the server; shorten the message or the "
                "reply."
            )
        if status in (400, 422):
            return EngineError(f"The model server refused the request; {_TRY}")
        message = Sentence(SERVER_ERROR, status=status)
        if status < 500 and status not in (404, 408, 429):
            return EngineError(message)
        pause = _pause(error.response.headers.get("retry-after", ""))
        return Unavailable(message) if pause is None else Busy(message, pause)

    def _read(
        self, request: Request, model: str, stream: openai.Stream[ChatCompletionChunk]
    ) -> Iterator[Event]:
        started = time.perf_counter()
        said = ReplyText(opened=self._manners[model].opened)
        try:
            for chunk in stream:
                if not isinstance(chunk, ChatCompletionChunk):
                    raise ValueError("an event holds something else than a JSON object")
                self._check_error(chunk)
                self._check_model(model, chunk.model)
                piece = said.push(chunk)
                if piece:
                    yield Delta(request.side, piece)
                if len(said.text) > _MOST_TEXT:
                    raise Unavailable(
                        "The model server did not end its reply where it should; try again."
                    )
                self._check_thoughts(model, said)
        except openai.APIConnectionError:
            if not said.reason:  # else it has said all before it was lost
                raise
        except Ended:
            if not said.chunks:
                raise ValueError("there is no event in it") from None
            if not said.reason:
                raise Unavailable(_BROKE_OFF) from None
        piece = said.flush()
        reason = self._end(said, model)
        if piece:
            yield Delta(request.side, piece)
        if reason == "eos" and said.reason == "stop" and request.decoding.stop:
            reason = "stop"
        elapsed = (time.perf_counter() - started) * 1000
        yield Finished(request.side, reason, said.text, said.tokens or said.pieces, elapsed)

    def _end(self, said: ReplyText, model: str) -> FinishReason:
        """Why a reply ended; an error if it is not a whole reply."""
        named = said.reason.casefold()
        if said.all_thought and (not named or named in _ENDS):
            self._manners[model].opened = False
            raise EngineError(ALL_THOUGHT)
        if not named and not said.text.strip("\ufffd"):
            if said.odd:
                raise ValueError("it holds no text, and something odd")
            raise Unavailable(_BROKE_OFF)
        if named == "content_filter":
            raise EngineError("The model server's filter cut the reply off; try again.")
        tools = named in ("tool_calls", "function_call") and said.text
        if named and not tools and named not in _ENDS:
            self._note(f"ended its reply with {said.reason!r}")
            raise Unavailable(_ERROR)
        return _ENDS.get(named, "eos")

    def _check_error(self, chunk: ChatCompletionChunk) -> None:
        """Raise if a chunk is an error in a form that the library does not know."""
        unchecked: Any = chunk  # the library does not check what it reads
        extra = unchecked.model_extra or {}
        if unchecked.object == "error" or (
            unchecked.choices is None and _ERROR_KEYS & extra.keys()
        ):
            self._note(f"broke off: {json.dumps(extra, default=str)}")
            raise Unavailable(_ERROR)

    def _check_thoughts(self, model: str, said: ReplyText) -> None:
        """Raise if the text so far was a thought that the model's template had opened."""
        if said.stray:
            self._manners[model].opened = True
            raise EngineError("The model thought aloud; try again, its thoughts are now left out.")

    def _check_model(self, asked: str, answered: object) -> None:
        """Raise if another model answers: its reply would count for the wrong contender."""
        if not isinstance(answered, str) or not answered:
            return
        taken = {self.model_of(contender) for contender in self._contenders}
        if not is_same(asked, answered, self.models, {name for name in taken if name}):
            # The names stay in the log: a visitor must not learn which model a side is.
            log.error("%s: %r was asked, %r answered", self.url, asked, answered)
            raise Unavailable(
                "Another model than the one asked for answered; serve each contender's weights "
                "under a name of its own (the log has the names)."
            )

    def _not_openai(self, error: BaseException) -> Unavailable:
        self._note(f"sent no OpenAI-style stream: {first_line(error)}")
        return Unavailable(_NOT_OPENAI)

    def _note(self, words: str) -> None:
        """Log what a server says. It may name a model, so no visitor of a blind round reads it."""
        log.error("%s %s", self.url, " ".join(words.split())[:500])


def _tokens_of(choice: Choice) -> list[Token]:
    """The tokens of a chunk, with their log-probabilities; none where a server gives none."""
    if choice.logprobs is None or not choice.logprobs.content:
        return []
    return [
        Token(place.token, {candidate.token: candidate.logprob for candidate in place.top_logprobs})
        for place in choice.logprobs.content
        if place.top_logprobs
    ]


def _pause(retry_after: str) -> float | None:
    """The seconds of a `Retry-After` header, which is a number or a date; None if it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
