"""Replies generated elsewhere, served from a file: a Space without a GPU can show 7B models.

A predictions file (EmPO's CSV or our JSONL, gzipped or not) is one contender, and the human's
reply in it another, by the id `human`. Only the dialogues of the file can be answered. All sides
are typed out at one pace; nothing is generated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from empo_demo.dialogue import Dialogue, Message, Turn
from empo_demo.engine.pace import Pacer
from empo_demo.engine.predictions import Row, stem
from empo_demo.engine.predictions import read_predictions as read_file
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request, Source
from empo_demo.errors import ArenaError, DataError, EngineError

HUMAN = "human"
"""The contender id that serves the human's reply of a file instead of the model's."""
CHARACTERS_PER_SECOND = 90.0
_TICK = 0.05
_UNKNOWN = (
    "These replies were recorded elsewhere, and this dialogue is not among them; "
    "choose one of the recorded dialogues."
)

Key = tuple[str, ...]
"""A dialogue as the contents of its turns, without a system message."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One recorded reply and the human's, to one dialogue that ends with the user."""

    dialogue: Dialogue
    response: str
    reference: str
    emotion: str | None = None

    @property
    def key(self) -> Key:
        return tuple(turn.content for turn in self.dialogue.turns)


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of `path` that can be shown: a dialogue that ends with the user, two replies.

    Raises `DataError` (file, line, what is wrong) where the file cannot be read, and where it
    holds nothing that can be shown.
    """
    found = [p for p in map(_prediction, read_file(path).rows) if p is not None]
    if not found:
        raise DataError(
            f"{path} holds no row that can be shown: each needs a dialogue that ends with the "
            "user, a response and a reference."
        )
    return found


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
        self._rows = {name: read_predictions(path) for name, path in files.items()}
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
        """The dialogues that every contender has a reply to, in the first file's order."""
        common = set.intersection(*(set(replies) for replies in self._replies.values()))
        first = next(iter(self._rows.values()))
        unique = {p.key: p.dialogue for p in first if p.key in common}
        return list(unique.values())

    def close(self) -> None:
        """Nothing is held but texts."""

    def reply(self, contender: str, messages: Sequence[Message], seed: int = 0) -> str:
        """The recorded reply. `seed` chooses where a file holds the same dialogue repeatedly."""
        if contender not in self._replies:
            known = ", ".join(self._replies)
            raise EngineError(f"No replies of {contender!r} are recorded; there are: {known}.")
        key = tuple(m["content"].strip() for m in messages if m["role"] != "system")
        found = self._replies[contender].get(key)
        if not found:
            raise EngineError(_UNKNOWN)
        return found[seed % len(found)]

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """All replies, typed out together; a dialogue that is not recorded fails its sides."""
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
            yield Failed(request.side, str(error))
            return
        yield Delta(request.side, text)
        elapsed = (time.perf_counter() - started) * 1000
        yield Finished(request.side, "eos", text, len(text.split()), elapsed)


def _prediction(row: Row) -> Prediction | None:
    """None where a row cannot be a round: an empty reply, or turns that no round may hold."""
    if len(row.context) % 2 == 0 or not row.response.strip() or not row.reference.strip():
        return None
    try:
        turns = [Turn("assistant" if i % 2 else "user", t) for i, t in enumerate(row.context)]
        dialogue = Dialogue(tuple(turns))
        response, reference = Turn("assistant", row.response), Turn("assistant", row.reference)
    except ArenaError:
        return None
    return Prediction(dialogue, response.content, reference.content, row.emotion)


def _by_dialogue(rows: Sequence[Prediction], *, human: bool) -> dict[Key, list[str]]:
    replies: dict[Key, list[str]] = {}
    for row in rows:
        replies.setdefault(row.key, []).append(row.reference if human else row.response)
    return replies
