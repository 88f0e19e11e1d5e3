"""Serves recorded replies from a file: so a Space without a GPU can show 7B models.

A predictions file (EmPO's CSV or our JSONL, gzipped or not) is one contender. The human's replies
in it are another one, with the id `human`. Only the dialogues of the file can be answered. All
sides are typed out at one pace. Nothing is generated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from empo_demo.dialogue import Dialogue, Message, Turn
from empo_demo.engine.predictions import Prediction, read_predictions, stem
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request, Source
from empo_demo.engine.servers.routing import Pacer
from empo_demo.errors import ArenaError, DataError, EngineError

HUMAN = "human"
"""The id of the contender that serves the human's replies of a file."""
CHARACTERS_PER_SECOND = 90.0
_TICK = 0.05
_UNKNOWN = (
    "These replies were recorded elsewhere, and this dialogue is not among them; "
    "choose one of the recorded dialogues."
)

Key = tuple[str, ...]
"""A dialogue as the texts of its turns, without the system message."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A dialogue that ends with the user, a recorded reply to it, and the human's reply."""

    dialogue: Dialogue
    response: str
    reference: str
    emotion: str | None = None

    @property
    def key(self) -> Key:
        return tuple(turn.content for turn in self.dialogue.turns)


def read_recordings(path: Path) -> list[Recording]:
    """The rows of `path` that can be shown: a dialogue that ends with the user, and two replies.

    Raises `DataError` (file, line, fault) if the file cannot be read or has no such row.
    """
    recordings = [p for p in map(_recording, read_predictions(path).rows) if p is not None]
    if not recordings:
        raise DataError(
            f"{path} holds no row that can be shown: each needs a dialogue that ends with the "
            "user, a response and a reference."
        )
    return recordings


def is_recording(engine: str) -> bool:
    """Whether `EMPO_ENGINE` names a file of replies."""
    return engine != "local" and "://" not in engine


class RecordedEngine:
    """Types out recorded replies. `characters_per_second` 0 shows them at once."""

    def __init__(
        self,
        contenders: Sequence[Source],
        *,
        characters_per_second: float = CHARACTERS_PER_SECOND,
    ) -> None:
        files = {c.predictions: Path(c.predictions) for c in contenders if c.predictions}
        self._rows = {name: read_recordings(path) for name, path in files.items()}
        self._replies: dict[str, dict[Key, list[str]]] = {}
        self._speed = characters_per_second
        for contender in contenders:
            if contender.predictions:
                self._replies[contender.id] = _by_dialogue(
                    self._rows[contender.predictions], human=contender.id == HUMAN
                )

    def describe(self) -> dict[str, str]:
        return {
            "engine": "recorded replies",
            "files": ", ".join(stem(Path(name)) for name in self._rows),
            "dialogues": str(len(self.dialogues())),
        }

    def dialogues(self) -> list[Dialogue]:
        """The dialogues that every contender has replies to, in the order of the first file."""
        common = set.intersection(*(set(replies) for replies in self._replies.values()))
        first = next(iter(self._rows.values()))
        unique = {p.key: p.dialogue for p in first if p.key in common}
        return list(unique.values())

    def close(self) -> None:
        """Nothing to close."""

    def reply(self, contender: str, messages: Sequence[Message], seed: int = 0) -> str:
        """The recorded reply. If the file has the dialogue more than once, `seed` chooses one."""
        if contender not in self._replies:
            known = ", ".join(self._replies)
            raise EngineError(f"No replies of {contender!r} are recorded; there are: {known}.")
        key = tuple(m["content"].strip() for m in messages if m["role"] != "system")
        reply = self._replies[contender].get(key)
        if not reply:
            raise EngineError(_UNKNOWN)
        return reply[seed % len(reply)]

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Type out all replies together. A dialogue that is not recorded fails its sides."""
        started = time.perf_counter()
        pacer = Pacer(request.side for request in requests)
        for request in requests:
            for event in self._whole(request, started):
                pacer.feed(event)
        while True:
            elapsed = time.perf_counter() - started
            yield from pacer.release(int(elapsed * self._speed) if self._speed > 0 else None)
            if pacer.done:
                return
            time.sleep(_TICK)

    def _whole(self, request: Request, started: float) -> Iterator[Event]:
        try:
            text = self.reply(request.contender, request.messages, request.seed)
        except EngineError as error:
            yield Failed(request.side, error.public)
            return
        yield Delta(request.side, text)
        elapsed = (time.perf_counter() - started) * 1000
        yield Finished(request.side, "eos", text, len(text.split()), elapsed)


def _recording(row: Prediction) -> Recording | None:
    """The prediction of a row; None for an empty reply or turns that no round may have."""
    if len(row.context) % 2 == 0 or not row.response.strip() or not row.reference.strip():
        return None
    try:
        turns = [Turn("assistant" if i % 2 else "user", t) for i, t in enumerate(row.context)]
        dialogue = Dialogue(tuple(turns))
        response, reference = Turn("assistant", row.response), Turn("assistant", row.reference)
    except ArenaError:
        return None
    return Recording(dialogue, response.content, reference.content, row.emotion)


def _by_dialogue(rows: Sequence[Recording], *, human: bool) -> dict[Key, list[str]]:
    replies: dict[Key, list[str]] = {}
    for row in rows:
        replies.setdefault(row.key, []).append(row.reference if human else row.response)
    return replies
