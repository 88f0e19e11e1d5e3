"""Replies by the hundred, through the arena's own engine, in a file that a killed run continues.

`evaluate generate` asks for one reply of a contender per dialogue; the studies use the same parts.
Each dialogue has its own seed. With one CPU thread its reply does not depend on the other replies
of the batch (int8, several threads and a GPU may round differently and change a word). A line is
appended as its batch finishes, so a killed run loses one batch at most. At the end the file is put
into the order of the data, so that files of two contenders can be compared row by row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from empo_demo.contenders import strategies
from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import Message
from empo_demo.empathy.plugins import load_sem
from empo_demo.engine.protocol import Engine, Failed, Finished, Request
from empo_demo.errors import DataError, EngineError
from empo_demo.evaluation.dialogues import Item, read_items
from empo_demo.files import parse_json, written_whole
from empo_demo.progress import progress
from empo_demo.settings import Settings, load_settings

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading
    from empo_demo.empathy.sem import SEM

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


@dataclass
class Generator:
    """Answers batches of items with one contender. Without a SEM only plain prompts work."""

    engine: Engine
    roster: Roster
    contender: Contender
    seed: int
    sem: SEM | None = None

    def answer(self, items: Sequence[Item]) -> Iterator[tuple[Item, str | Failed]]:
        """Yield each item with its reply (may be empty), or with the failure of its side."""
        prompts = self._prompts(items)
        ended = self._run({item.conv_id: (item, prompts[item.conv_id]) for item in items})
        for item in items:
            event = ended[item.conv_id]
            yield item, event if isinstance(event, Failed) else event.text.strip()

    def _prompts(self, items: Sequence[Item]) -> dict[str, tuple[Message, ...]]:
        """The messages of each item; for a two-step strategy those of its second step."""

        readings = self._readings(items)
        prepared = {
            item.conv_id: strategies.prepare(
                self.contender, item.context, readings[item.conv_id], self.roster
            )
            for item in items
        }
        thinking = {
            item.conv_id: (item, think)
            for item in items
            if (think := prepared[item.conv_id].think) is not None
        }
        prompts = {key: prompt.messages for key, prompt in prepared.items()}
        for key, event in self._run(thinking).items():
            if isinstance(event, Finished):
                prompts[key] = strategies.after_thinking(
                    self.contender, thinking[key][0].context, readings[key], self.roster, event.text
                ).messages
        return prompts

    def _readings(self, items: Sequence[Item]) -> dict[str, Reading | None]:
        if self.sem is None:
            return {item.conv_id: None for item in items}
        return {item.conv_id: self.sem.read(item.context.turns) for item in items}

    def _run(
        self, jobs: Mapping[str, tuple[Item, tuple[Message, ...]]]
    ) -> dict[str, Finished | Failed]:
        requests = [
            Request(
                side=key,
                contender=self.contender.id,
                messages=messages,
                decoding=self.roster.decoding,
                seed=seed_of(self.seed, item.conv_id),
                round=key,
            )
            for key, (item, messages) in jobs.items()
        ]
        return ends(self.engine, requests)


def run(
    contender_id: str,
    data: Path,
    output: Path,
    *,
    limit: int | None,
    seed: int,
    batch: int,
    force_adapter: bool = False,
) -> None:
    """The command: generate what is missing in `output`. Raises `EngineError` if a reply failed."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    settings = load_settings(force_adapter=force_adapter or None)
    roster = load_roster(settings)
    contender = roster[contender_id]
    asked = read_items(data, limit)
    for line in asked.skipped:
        console.print(f"Skipped: {line}", highlight=False, soft_wrap=True)
    done = read_done(output, contender.id, seed)
    missing = [item for item in asked.items if item.conv_id not in done]
    console.print(
        f"{len(asked.items):,} dialogues, {len(asked.items) - len(missing):,} answered already.",
        highlight=False,
    )
    failed: list[Failed] = []
    if missing:
        from empo_demo.engine.loading import load_engine

        with console.status("Loading the models…"):
            engine = load_engine(settings, roster.only(contender.id))
        try:
            sem = _sem_for(contender, settings)
            generator = Generator(engine, roster, contender, seed, sem)
            failed = fill(generator, missing, output, batch)
        finally:
            close = getattr(engine, "close", None)
            if close is not None:
                close()
    put_in_order(output, [item.conv_id for item in asked.items])
    if failed:
        raise EngineError(
            f"{len(failed)} of {len(missing)} replies failed (the first: {failed[0].error}) and "
            "are not in the file; run the same command again to try them again."
        )


def fill(generator: Generator, missing: Sequence[Item], output: Path, batch: int) -> list[Failed]:
    """Append a line per answered item, batch by batch; return the failures."""
    failed: list[Failed] = []
    name = generator.contender.id

    def answer(items: Sequence[Item]) -> Iterator[dict[str, Any]]:
        for item, reply in generator.answer(items):
            if isinstance(reply, Failed):
                failed.append(reply)
            else:
                yield record_of(item, reply, name, generator.seed)

    in_batches = batches(missing, batch, lambda item: item)
    _file(output).fill(in_batches, answer, f"{name}, batches")
    return failed


def _sem_for(contender: Contender, settings: Settings) -> SEM | None:
    if not contender.guided:
        return None

    return load_sem(settings)


def record_of(item: Item, reply: str, contender: str, seed: int) -> dict[str, Any]:
    """One line of the output. `seed` is that of the run; the dialogue's seed follows from it."""
    record: dict[str, Any] = {
        "conv_id": item.conv_id,
        "context": item.context.messages(),
        "reference": item.reference,
        "response": reply,
        "contender": contender,
        "seed": seed,
    }
    if item.emotion is not None:
        record["emotion"] = item.emotion
    return record


def read_done(output: Path, contender: str, seed: int) -> set[str]:
    """The conv_ids that `output` answers already. A torn last line of a killed run is removed.

    Raises `DataError` if the file has other contents, or replies of another contender or seed.
    """
    done = set()
    for conv_id, made_by, made_with in _file(output).rows():
        if (made_by, made_with) != (contender, seed):
            raise DataError(
                f"{output} holds replies of {made_by!r} with seed {made_with}; "
                "give another --output."
            )
        done.add(conv_id)
    return done


def put_in_order(output: Path, order: Sequence[str]) -> None:
    """Sort the lines of `output` by `order`. Lines that are not in it go to the end."""
    position = {conv_id: place for place, conv_id in enumerate(order)}
    _file(output).put_in_order(lambda record: position.get(record["conv_id"], len(order)))


def _file(output: Path) -> AnswerFile[tuple[str, str, int]]:
    return AnswerFile(
        output,
        "conv_id",
        lambda record: (record["conv_id"], record["contender"], record["seed"]),
        "this is not a file that `evaluate generate` wrote; give another --output.",
    )
