"""Hearing the servers: each one must prove who answers before it answers a visitor's round.

A server is heard when the engine opens, and again after it has failed, since another model may
answer under the old name then. `who_answers` compares what is heard.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from empo_demo.dialogue import Message
from empo_demo.engine.protocol import Decoding, Request, Source
from empo_demo.engine.servers import who_answers
from empo_demo.engine.servers.manners import weights_of
from empo_demo.engine.servers.server import ModelServer, Unavailable
from empo_demo.engine.servers.transport import CHECK, Line
from empo_demo.engine.servers.who_answers import Answer, Confused, Voice
from empo_demo.errors import EngineError

log = logging.getLogger(__name__)
_COMPANY = 64
"""The tokens that other models write while one is heard in company. They are cut off before."""


class Hearing:
    """Hears servers that have some of `contenders`. `line` ends all that is asked when it is cut.

    Without `company`, models are heard alone only: the server is never asked for two at once.
    """

    def __init__(self, contenders: Sequence[Source], line: Line, *, company: bool) -> None:
        self._contenders, self._line, self._company = contenders, line, company
        self._voices: dict[str, Voice] = {}
        """The voice of each model when it was first heard, by its weights."""
        self._lock = threading.Lock()

    def first(self, server: ModelServer) -> None:
        """Hear a server before it is used. One that cannot be heard now is heard before it answers.

        Raises `EngineError` if it answers with the wrong weights.
        """
        try:
            self._listen(server)
        except Unavailable as error:
            server.doubted = True
            server.heard = "not heard yet"
            log.warning("%s: who answers could not be heard. %s", server.url, error)

    def trust(self, server: ModelServer) -> None:
        """Hear a server that is in doubt. Raises `Unavailable` if it may not answer."""
        if not (server.doubted or server.refused):
            return
        with self._lock:
            if not (server.doubted or server.refused):
                return
            try:
                self._listen(server)
                server.refused = ""
            except Unavailable:
                raise
            except EngineError as error:
                if server.refused != str(error):
                    log.error("%s", error)
                server.refused = server.heard = str(error)
                raise Unavailable(
                    "No model server answers at present; try again in a minute."
                ) from None

    def _listen(self, server: ModelServer) -> None:
        """Raise `EngineError` unless all models of a server answer with their own weights."""
        names = {weights_of(c): server.model_of(c) for c in self._contenders}
        models = {weights: name for weights, name in names.items() if name is not None}

        def ask(weights: str, prompt: tuple[Message, ...], tokens: int) -> Answer:
            return server.ask(models[weights], prompt, tokens, self._line)

        @contextmanager
        def accompany(others: Iterable[str]) -> Iterator[None]:
            with _writing(server, [models[weights] for weights in others]):
                yield

        try:
            verdict = who_answers.check(models, ask, accompany, self._voices, company=self._company)
        except Confused as confused:
            raise EngineError(self._sentence(server, confused)) from None
        for weights, voice in verdict.voices.items():
            self._voices.setdefault(weights, voice)
        server.doubted = False
        server.heard = verdict.words(company=self._company)
        for one, other in verdict.alike:
            log.warning(
                "%s: %s and %s could not be told apart, so whether each answers for itself is not "
                "known.",
                server.url,
                self._ids(one),
                self._ids(other),
            )

    def _sentence(self, server: ModelServer, confused: Confused) -> str:
        asked, where = self._ids(confused.model), f"The server at {server.url}"
        if confused.in_company:
            adapters = {c.adapter for c in self._contenders if c.adapter}
            return (
                f"{where} answers for {asked} with the weights of {self._ids(confused.other)} when "
                "both are asked at once, so no vote would be worth anything; give vLLM --max-loras "
                f"{len(adapters) + 1} or more (one more than it has adapters), serve each model by "
                "a server of its own, or set EMPO_SERVER_TURNS=true."
            )
        if confused.other is not None:
            return (
                f"{where} answers for {asked} with the weights of {self._ids(confused.other)}; "
                "serve each contender's weights under a name of its own, and start the app again."
            )
        return (
            f"{where} answers for {asked} with other weights than at first; serve the first ones "
            "under this name, or start the app again to begin with the new ones."
        )

    def _ids(self, weights: str | None) -> str:
        """The contenders that have these weights."""
        return ", ".join(c.id for c in self._contenders if weights_of(c) == weights)


@contextmanager
def _writing(server: ModelServer, models: Sequence[str]) -> Iterator[None]:
    """Let models of a server write while the context is open. It opens when all have begun."""
    line, begun = Line(), threading.Semaphore(0)
    decoding = replace(Decoding(), max_new_tokens=_COMPANY)

    def write(model: str) -> None:
        request = Request("", "", who_answers.PROMPTS[0], decoding)
        try:
            for _ in server.reply(request, model, line):
                begun.release()
        except EngineError:
            begun.release()

    for model in models:
        threading.Thread(target=write, args=(model,), name="company", daemon=True).start()
    try:
        for _ in models:
            begun.acquire(timeout=CHECK)
        yield
    finally:
        line.cut()
