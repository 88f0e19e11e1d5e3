"""Contenders served by OpenAI-compatible servers: vLLM, TGI, `transformers serve`.

All sides are requested at once, each in its own thread, and released at one pace. Of several
servers, the least busy healthy one that has the contender answers. If it fails before the first
word, the next one answers. Closing the stream closes the responses, which makes such servers stop.

Who answers is heard when the engine opens, and again after a server has failed (`who_answers`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Sequence

from empo_demo.engine.lockstep.sampling import check_decoding
from empo_demo.engine.protocol import (
    Delta,
    Event,
    Failed,
    Interruptible,
    Request,
    Source,
    not_loaded,
)
from empo_demo.engine.servers.hearing import Hearing
from empo_demo.engine.servers.manners import names_of
from empo_demo.engine.servers.routing import Pacer
from empo_demo.engine.servers.server import Busy, ModelServer, Unavailable
from empo_demo.engine.servers.transport import CHECK, Line
from empo_demo.engine.text.marks import defuse
from empo_demo.errors import EngineError

log = logging.getLogger(__name__)
READ = 60.0
"""Seconds to wait for the next piece of a reply."""
LOOK = 5.0
"""Seconds between two looks at the servers."""
MOST_PAUSE = 20.0
"""The most seconds that a reply waits for busy servers, all in all."""


class RemoteEngine:
    """Streams from the servers at `urls`, one or several with commas between them.

    `left_out` are the optional contenders that no server has. With `check`, each server is heard
    before it answers a round; a server that answers with the wrong weights is an `EngineError`.
    With `in_turn`, a server is never asked for two models at once.
    """

    def __init__(
        self,
        urls: str,
        contenders: Sequence[Source],
        *,
        read: float = READ,
        look: float = LOOK,
        check: bool = False,
        in_turn: bool = False,
    ) -> None:
        self._servers = [
            ModelServer(url, contenders, read=read) for url in urls.split(",") if url.strip()
        ]
        self._patience = (read + CHECK) * len(self._servers) + MOST_PAUSE
        self._look = look
        self._looking = Line()
        self._streams: set[_Replies] = set()
        self._closed = threading.Event()
        self._contenders = {c.id: c for c in contenders}
        self.left_out: list[str] = []
        self._in_turn = in_turn
        self._first_look()
        self._hearing = None
        if check:
            known = tuple(self._contenders.values())
            self._hearing = Hearing(known, self._looking, company=not in_turn)
            for server in self._servers:
                if server.healthy:
                    self._hearing.first(server)
        if len(self._servers) > 1 or check:
            threading.Thread(target=self._watch, name="servers", daemon=True).start()

    def as_read(self, _contender: str, texts: Sequence[str]) -> list[str]:
        """Typed `texts` as the servers get them. Their tokenizers are not known here."""
        return [defuse(text, ()) for text in texts]

    def describe(self) -> dict[str, str]:
        notes = {"engine": ", ".join(f"server {server.url}" for server in self._servers)}
        for contender in self._contenders.values():
            names = {s.model_of(contender): None for s in self._servers if s.model_of(contender)}
            notes[f"model {contender.id}"] = ", ".join(str(name) for name in names)
        away = [server.url for server in self._servers if not server.healthy]
        if away:
            notes["do not answer"] = ", ".join(away)
        notes["replies in company"] = "may differ from alone by rounding"
        for server in self._servers:
            notes |= server.describe()
        notes |= {f"who answers at {url}": words for url, words in self.heard.items()}
        if self._in_turn:
            notes["models of one server"] = "are asked one after the other"
        return notes

    @property
    def heard(self) -> dict[str, str]:
        """What was heard of who answers, by the URL of the server."""
        return {server.url: server.heard for server in self._servers if server.heard}

    @property
    def repeatable(self) -> bool:
        """False: a server chooses its batches, and may ignore the seed."""
        return False

    def close(self) -> None:
        """End all requests at once, also those to a silent server."""
        self._closed.set()
        self._looking.cut()
        for replies in tuple(self._streams):
            replies.fail("The reply was stopped.")

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Yield the events of all `requests` at one pace; close to make the server stop."""
        for request in requests:
            check_decoding(request.decoding)
            if request.contender not in self._contenders:
                raise not_loaded(request.contender, self._contenders)
        replies = _Replies(requests)
        return Interruptible(self._stream(replies), replies.cut)

    def _stream(self, replies: _Replies) -> Iterator[Event]:
        self._streams.add(replies)
        for request in replies.requests:
            threading.Thread(
                target=self._run, args=(request, replies), name="remote", daemon=True
            ).start()
        try:
            yield from replies.events(self._patience)
        finally:
            replies.cut()
            self._streams.discard(replies)

    def _run(self, request: Request, replies: _Replies) -> None:
        """Run one side from its request to its end. Every error becomes a `Failed`."""
        try:
            contender = self._contenders[request.contender]
            if contender.adapter and request.adapter_scale != 1.0:
                raise EngineError("A model server cannot turn the alignment dial; set it to 1.")
            left = MOST_PAUSE
            while (pause := self._try_each(request, contender, replies, left)) is not None:
                left -= pause
                if replies.line.wait(pause):
                    raise EngineError("The reply was stopped.")
        except EngineError as error:
            replies.put(Failed(request.side, error.public))
        except Exception:
            log.exception("A reply could not be read")
            replies.put(Failed(request.side, "The model server's answer could not be read."))

    def _try_each(
        self, request: Request, contender: Source, replies: _Replies, left: float
    ) -> float | None:
        """Let the best server answer; another one if it fails before its first word.

        Returns None when one has answered, or for how long to wait for a busy one, at most `left`
        seconds. Raises the last server's error.
        """
        failure: EngineError = EngineError(
            "No model server answers at present; try again in a minute."
        )
        pauses = []
        for server, model in self._able(contender):
            said = False
            try:
                if self._hearing is not None:
                    self._hearing.trust(server)
                with server.turns.take(model if self._in_turn else "", replies):
                    for event in server.reply(request, model, replies.line):
                        said = said or isinstance(event, Delta)
                        replies.put(event)
                return None
            except Unavailable as error:
                failure = error
                if replies.line.is_cut:
                    break
                log.warning("%s: %s", server.url, error)
                if isinstance(error, Busy):
                    pauses.append(max(error.seconds, 0.5))
                else:
                    server.healthy = len(self._servers) == 1
                    server.doubted = True
                if said:
                    raise
        if not pauses or min(pauses) > left:
            raise failure
        return min(pauses)

    def _able(self, contender: Source) -> list[tuple[ModelServer, str]]:
        """The servers that have the contender, with its name there, the best server first."""
        trusted = [server for server in self._servers if not server.refused]
        able = [(server, server.model_of(contender)) for server in trusted]
        able.sort(key=lambda pair: (not pair[0].healthy, pair[0].busy))
        return [(server, model) for server, model in able if model is not None]

    def _first_look(self) -> None:
        """Find a server for every contender. Servers that are not needed may be away."""
        failures: list[EngineError] = []
        for server in self._servers:
            try:
                server.look(self._looking)
            except EngineError as error:
                failures.append(error)
        for contender in tuple(self._contenders.values()):
            if self._able(contender):
                continue
            if contender.optional:
                self.left_out.append(contender.id)
                del self._contenders[contender.id]
                continue
            if failures:
                raise failures[0]
            models = ", ".join(name for server in self._servers for name in server.models)
            names = list(dict.fromkeys(names_of(contender)))
            named = f"{'one of the names' if names[1:] else 'the name'} {', '.join(names)}"
            raise EngineError(
                f"The server at {', '.join(server.url for server in self._servers)} serves "
                f"{models or 'nothing'}, but not the contender {contender.id!r}; serve its weights "
                f"under {named}."
            )
        for failure in failures:
            log.warning("%s The other servers answer meanwhile.", failure)

    def _watch(self) -> None:
        """Look at each server from time to time; log changes, and hear who is back."""
        while not self._closed.wait(self._look):
            for server in self._servers:
                was = server.healthy
                try:
                    server.look(self._looking)
                    if self._hearing is not None:
                        self._hearing.trust(server)
                except EngineError:
                    server.doubted = True
                if server.healthy != was and not self._closed.is_set():
                    log.warning("%s %s", server.url, "is back" if server.healthy else "is away")


class _Replies:
    """What the threads of one stream share: the line to the servers, and what has arrived."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests, self.line = tuple(requests), Line()
        self._arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        self._arrived.put(event)

    @property
    def is_cut(self) -> bool:
        return self.line.is_cut

    def wait(self) -> None:
        """Say that a side waits for its turn, so that nobody takes the server for silent."""
        for request in self.requests[:1]:
            self._arrived.put(Delta(request.side, ""))

    def events(self, patience: float) -> Iterator[Event]:
        """The events of all sides at one pace, until all have ended or the stream is cut."""
        pacer = Pacer(request.side for request in self.requests)
        while not pacer.done:
            try:
                event = self._arrived.get(timeout=patience)
                if event is None:
                    return
                pacer.feed(event)
            except queue.Empty:
                pacer.fail_open("The model server stopped answering; try again.")
            yield from pacer.release()

    def cut(self) -> None:
        """Free the reader first, so that it does not get the failures of the cut line."""
        self._arrived.put(None)
        self.line.cut()

    def fail(self, error: str) -> None:
        """Cut the line; the sides that are still open fail with `error`."""
        for request in self.requests:
            self._arrived.put(Failed(request.side, error))
        self.line.cut()
