"""Several engines behind one, and one pace for all sides, so that speed does not tell them apart.

Each contender is answered by the engine that has it. The events of each side are buffered, and
text is released only up to the length that every unfinished side has reached: the pace of the
slowest. The pace knows no models, servers or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import (
    Delta,
    Engine,
    Event,
    Failed,
    Finished,
    Interruptible,
    Request,
    not_loaded,
)
from empo_demo.errors import EngineError


class RoutingEngine:
    """Sends each contender to its engine in `routes`."""

    def __init__(self, routes: Mapping[str, Engine]) -> None:
        self._routes = dict(routes)

    @property
    def engines(self) -> list[Engine]:
        return list({id(engine): engine for engine in self._routes.values()}.values())

    def describe(self) -> dict[str, str]:
        notes: dict[str, str] = {}
        for engine in self.engines:
            notes |= {k: v for k, v in engine.describe().items() if k not in notes}
        return notes

    def close(self) -> None:
        for engine in self.engines:
            close = getattr(engine, "close", None)
            if close is not None:
                close()

    def dialogues(self) -> list[Dialogue]:
        """The dialogues of the recorded replies. Only these can be answered by every contender."""
        listed = [e.dialogues() for e in self.engines if hasattr(e, "dialogues")]
        return listed[0] if listed else []

    @property
    def repeatable(self) -> bool:
        """Whether every engine gives the same reply again; see `LocalEngine.repeatable`."""
        return all(getattr(engine, "repeatable", True) for engine in self.engines)

    @property
    def waiting(self) -> int:
        return max(int(getattr(engine, "waiting", 0)) for engine in self.engines)

    def engine_of(self, contender: str) -> Engine:
        if contender not in self._routes:
            raise not_loaded(contender, self._routes)
        return self._routes[contender]

    def score(self, contender: str, pairs: Any, **options: Any) -> list[tuple[float, int]]:
        """See `LocalEngine.score`. Recorded replies and servers have no probabilities."""
        engine: Any = self.engine_of(contender)
        if not hasattr(engine, "score"):
            raise EngineError(f"The replies of {contender!r} come without probabilities.")
        return list(engine.score(contender, pairs, **options))

    def as_read(self, contender: str, texts: Sequence[str]) -> list[str]:
        """See `LocalEngine.as_read`. Nobody reads the texts of recorded replies."""
        read = getattr(self.engine_of(contender), "as_read", None)
        return list(texts) if read is None else list(read(contender, texts))

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        groups: dict[int, list[Request]] = {}
        for request in requests:
            groups.setdefault(id(self.engine_of(request.contender)), []).append(request)
        streams = [self.engine_of(g[0].contender).stream(g) for g in groups.values()]
        if len(streams) == 1:
            return streams[0]
        events = _in_pace(streams, Pacer(request.side for request in requests))
        return Interruptible(events, partial(_cut, streams))


def _cut(streams: Sequence[Iterator[Event]]) -> None:
    for stream in streams:
        if isinstance(stream, Interruptible):
            stream.cut()


def _in_pace(streams: list[Iterator[Event]], pacer: Pacer) -> Iterator[Event]:
    running = list(streams)
    try:
        while running:
            for stream in list(running):
                event = next(stream, None)
                if event is None:
                    running.remove(stream)
                else:
                    pacer.feed(event)
            yield from pacer.release()
        pacer.fail_open("The model ended without an answer.")
        yield from pacer.release()
    finally:
        for stream in streams:
            with suppress(Exception):
                stream.close()  # type: ignore[attr-defined]


@dataclass(slots=True)
class _Side:
    text: str = ""
    dropped: int = 0
    shown: int = 0
    end: Finished | Failed | None = None
    told: bool = False


class Pacer:
    """Buffers the events of `sides`. `release` yields what may be shown now."""

    def __init__(self, sides: Iterable[str]) -> None:
        self._sides = {side: _Side() for side in sides}

    @property
    def done(self) -> bool:
        """Whether the end of every side has been released."""
        return all(side.told for side in self._sides.values())

    def feed(self, event: Event) -> None:
        side = self._sides[event.side]
        if isinstance(event, Delta):
            side.text += event.text
            side.dropped = event.dropped
        else:
            side.end = side.end or event

    def fail_open(self, error: str) -> None:
        """Fail every side that has no end yet."""
        for name, side in self._sides.items():
            side.end = side.end or Failed(name, error)

    def release(self, limit: int | None = None) -> Iterator[Event]:
        """Yield text up to `limit` characters, never beyond an unfinished side; then the ends."""
        writing = [len(side.text) for side in self._sides.values() if side.end is None]
        reach = min([*writing, *([] if limit is None else [limit])], default=None)
        for name, side in self._sides.items():
            until = len(side.text) if reach is None else min(reach, len(side.text))
            if until > side.shown:
                text, side.shown = side.text[side.shown : until], until
                yield Delta(name, text, side.dropped)
        for side in self._sides.values():
            if side.end is not None and not side.told and side.shown == len(side.text):
                side.told = True
                yield side.end
