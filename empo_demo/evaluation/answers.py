"""Ask an engine for many replies, and keep them in a file that a killed run continues.

Whatever answers dialogues by the hundred does it here: `evaluate generate` and the studies. A line
is appended as its batch finishes, so that a run that is killed loses one batch at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from empo_demo.engine.protocol import Engine, Failed, Finished, Request
from empo_demo.errors import DataError, EngineError
from empo_demo.evaluation.dialogues import Item
from empo_demo.files import parse_json, written_whole
from empo_demo.progress import progress

Row = TypeVar("Row")
Job = TypeVar("Job")


def ends(engine: Engine, requests: Sequence[Request]) -> dict[str, Finished | Failed]:
    """The end of each request by its side, in the order of the requests."""
    ends: dict[str, Finished | Failed] = {
        request.side: Failed(request.side, "The engine ended without an answer.")
        for request in requests
    }
    if requests:
        for event in engine.stream(requests):
            if isinstance(event, Finished | Failed):
                ends[event.side] = event
    return ends


def reply_texts(engine: Engine, requests: Sequence[Request]) -> list[str]:
    """The replies in the order of the requests. Raises `EngineError` if one failed."""
    texts = []
    for request, event in zip(requests, ends(engine, requests).values(), strict=True):
        if isinstance(event, Failed):
            raise EngineError(f"{request.contender} failed on {request.side}: {event.error}")
        texts.append(event.text)
    return texts


def seed_of(seed: int, conv_id: str) -> int:
    """The seed of one dialogue, in [0, 2³¹). It does not depend on the batch."""
    digest = hashlib.sha256(f"{seed}:{conv_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def batches(jobs: Sequence[Job], size: int, item_of: Callable[[Job], Item]) -> list[list[Job]]:
    """Jobs of similar length together, the longest first, so that a lack of memory shows early."""

    def length(job: Job) -> tuple[int, str]:
        item = item_of(job)
        return sum(len(turn.content) for turn in item.context.turns), item.conv_id

    ordered = sorted(jobs, key=length, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


@dataclass(frozen=True)
class AnswerFile(Generic[Row]):
    """A JSONL file of answers. Each line is an object whose first key is `first_key`.

    `read` makes a row of an object; it may raise `KeyError`, `TypeError` or `ValueError`. `refusal`
    says what a file with another content is not, and what to do.
    """

    path: Path
    first_key: str
    read: Callable[[Any], Row]
    refusal: str

    def rows(self) -> list[Row]:
        """What the file answers already. A torn last line of a killed run is removed.

        Raises `DataError` if the file cannot be written, or has another content; then it stays.
        """
        try:
            self.path.touch()
            raw = self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}.") from None
        *whole, torn = raw.split(b"\n")
        rows = [self._row(number, line) for number, line in enumerate(whole, start=1)]
        if torn:
            beginning = f'{{"{self.first_key}": '.encode()
            if not (torn.startswith(beginning) or beginning.startswith(torn)):
                raise self._refused(len(whole) + 1)
            self._replace(raw[: -len(torn)])
        return rows

    def fill(
        self,
        batches: Sequence[Job],
        answer: Callable[[Job], Iterable[Mapping[str, Any]]],
        title: str,
    ) -> None:
        """Answer the batches and append one line per record, batch by batch."""
        with self.path.open("a", encoding="utf8") as file:
            for batch in progress(batches, title):
                for record in answer(batch):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()

    def put_in_order(self, position: Callable[[Any], int]) -> None:
        """Sort the lines by the position of their objects."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        lines.sort(key=lambda line: position(json.loads(line)))
        self._replace(b"".join(lines))

    def _row(self, number: int, line: bytes) -> Row:
        try:
            return self.read(parse_json(line))
        except (ValueError, KeyError, TypeError):
            raise self._refused(number) from None

    def _refused(self, number: int) -> DataError:
        return DataError(f"{self.path}, line {number}: {self.refusal}")

    def _replace(self, content: bytes) -> None:
        with written_whole(self.path) as part:
            part.write_bytes(content)
