"""Files of predictions: EmPO's CSV and our JSONL, read into one shape, and served as replies.

There is one `Prediction` per row, in the order of the file. No row is dropped: a row that cannot
be read is an error that names its line. Repeated contexts and empty replies are counted.

So a Space without a GPU can show 7B models. A predictions file is one contender. The human's
replies in it are another one, with the id `human`. Only the dialogues of the file can be answered.
All sides are typed out at one pace. Nothing is generated.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from empo_demo.csv_table import decimal, read_table, trimmed
from empo_demo.dialogue import Dialogue, Message, Turn, plain_commas
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, Request, Source, not_loaded
from empo_demo.engine.servers.routing import Pacer
from empo_demo.engine.text.marks import spoken
from empo_demo.errors import ArenaError, DataError, EngineError
from empo_demo.files import json_rows, read_text
from empo_demo.metrics.diff_epitome import LEVELS, MECHANISMS

COLUMNS = ("gens", "gen_targets", "prevs")
"""The columns that EmPO's CSV must have: reply, human's reply, last user turn."""
FIELDS = ("context", "reference", "response")
"""The keys that a line of our JSONL must have."""
_LEVEL_COLUMNS = {
    prefix: {mechanism: f"{prefix}_{mechanism.upper()}_scores" for mechanism in MECHANISMS}
    for prefix in ("pred", "gt")
}
_KNOWN = (
    *COLUMNS,
    "emotions",
    "chat_templates",
    *(name for names in _LEVEL_COLUMNS.values() for name in names.values()),
)
_TURN = re.compile(r"<\|(user|assistant)\|>\n(.*?)</s>", re.DOTALL)
LevelsOf = dict[str, int]
"""EPITOME levels 0-2 by mechanism: er, ex, ip."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One dialogue and the reply to it. Only `response` may be empty.

    `dialogue` names the dialogue that several rows are from, which are then not independent.
    """

    context: tuple[str, ...]
    user: str
    reference: str
    response: str
    emotion: str | None = None
    generated_levels: LevelsOf | None = None
    reference_levels: LevelsOf | None = None
    dialogue: str | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """All rows of one file. `name` is the file name without .csv, .jsonl or .gz."""

    name: str
    path: Path
    rows: tuple[Prediction, ...]

    @property
    def responses(self) -> list[str]:
        return [row.response for row in self.rows]

    @property
    def references(self) -> list[str]:
        return [row.reference for row in self.rows]

    @property
    def empty_replies(self) -> int:
        return sum(not row.response.strip() for row in self.rows)

    @property
    def repeated_contexts(self) -> int:
        """How many rows have a context that an earlier row has too."""
        return len(self.rows) - len({row.context for row in self.rows})

    @property
    def dialogues(self) -> list[str | int]:
        """What rows belong together: the dialogue's name, or the row's number."""
        return [row.dialogue or number for number, row in enumerate(self.rows)]

    @property
    def has_levels(self) -> bool:
        return all(row.generated_levels and row.reference_levels for row in self.rows)


def read_predictions(path: Path) -> Predictions:
    """Read either format, gzipped or not. Raises `DataError` in one line."""
    text = read_text(path)
    is_json = text.lstrip()[:1] in ("{", "[")
    rows = tuple(map(_with_commas, _jsonl(path, text) if is_json else _csv(path, text)))
    if not rows:
        raise DataError(f"{path} holds no row of predictions.")
    return Predictions(stem(path), path, rows)


def _with_commas(row: Prediction) -> Prediction:
    """`row` without `_comma_`: votes on recorded replies become pairs, too."""
    return replace(
        row,
        context=tuple(map(plain_commas, row.context)),
        user=plain_commas(row.user),
        reference=plain_commas(row.reference),
        response=plain_commas(row.response),
    )


def stem(path: Path) -> str:
    """The name of a file without its endings: `preds_x.csv.gz` gives `preds_x`."""
    name = path.name
    for suffix in (".gz", ".csv", ".tsv", ".txt", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return name or path.name


def _csv(path: Path, text: str) -> Iterator[Prediction]:
    table = read_table(text, path, _KNOWN)
    if missing := table.lacks(COLUMNS):
        raise DataError(
            f"{path} has no column {', '.join(missing)}: {table.described()}. Expected is EmPO's "
            f"CSV with the columns {', '.join(COLUMNS)}, or JSONL with {', '.join(FIELDS)}."
        )
    for line, cells in table.rows():
        yield _csv_row(path, line, cells)


def _csv_row(path: Path, line: int, cells: Mapping[str, str]) -> Prediction:
    return Prediction(
        context=_whole_dialogue(cells),
        user=cells["prevs"],
        reference=cells["gen_targets"],
        response=_reply(cells["gens"]),
        emotion=trimmed(cells.get("emotions", "")) or None,
        generated_levels=_levels(path, line, cells, "pred"),
        reference_levels=_levels(path, line, cells, "gt"),
    )


def _reply(text: str) -> str:
    """`text` without thoughts: some tools record all that a thinking model writes."""
    reply = spoken(text)
    return text if reply == text.strip() else reply


def _whole_dialogue(cells: Mapping[str, str]) -> tuple[str, ...]:
    """The turns in the column of prompts if there is one, else only the last user turn.

    EmPO's published files hold the whole prompt in Zephyr's template.
    """
    turns = _TURN.findall(cells.get("chat_templates") or "")
    roles = [role for role, _ in turns]
    texts = tuple(text.strip() for _, text in turns)
    alternate = roles == ["user" if i % 2 == 0 else "assistant" for i in range(len(roles))]
    if alternate and texts and texts[-1] == cells["prevs"].strip():
        return texts
    return (cells["prevs"],)


def _levels(path: Path, line: int, cells: Mapping[str, str], prefix: str) -> LevelsOf | None:
    names = _LEVEL_COLUMNS[prefix]
    if any(name not in cells for name in names.values()):
        return None
    levels = {}
    for mechanism, name in names.items():
        try:
            levels[mechanism] = LEVELS[
                [float(level) for level in LEVELS].index(decimal(cells[name]))
            ]
        except ValueError:
            raise DataError(
                f"{path}, line {line}: {name} is {cells[name]!r}; a level is 0, 1 or 2."
            ) from None
    return levels


def _jsonl(path: Path, text: str) -> Iterator[Prediction]:
    for number, record in json_rows(text):
        yield _json_row(f"{path}, line {number}", record)


def _json_row(where: str, record: Any) -> Prediction:
    if isinstance(record, ValueError):
        raise DataError(f"{where}: this is not a complete JSON object: {record}.")
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object was expected.")
    missing = [name for name in FIELDS if name not in record]
    if missing:
        raise DataError(f"{where}: the object has no {', '.join(missing)}.")
    if not isinstance(record["reference"], str) or not isinstance(record["response"], str):
        raise DataError(f"{where}: reference and response must be texts.")
    context, user = _context(where, record["context"])
    emotion = record.get("emotion")
    return Prediction(
        context=context,
        user=user,
        reference=record["reference"],
        response=_reply(record["response"]),
        emotion=emotion if isinstance(emotion, str) else None,
    )


def _context(where: str, turns: Any) -> tuple[tuple[str, ...], str]:
    """The texts of the turns, and the last user turn (without roles: the last turn)."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"{where}: context must be a list of turns, at least one.")
    texts, user = [], ""
    for turn in turns:
        role, text = ("user", turn) if isinstance(turn, str) else _turn(where, turn)
        texts.append(text)
        if role == "user":
            user = text
    return tuple(texts), user or texts[-1]


def _turn(where: str, turn: Any) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
        raise DataError(f"{where}: a turn must be a text, or an object with role and content.")
    return str(turn.get("role")), turn["content"]


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
            raise not_loaded(contender, self._replies)
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
