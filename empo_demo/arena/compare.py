"""The terminal's comparison: two contenders answer one dialogue, side by side.

Not blind and not stored: the terminal names both. Prints to stderr while the replies arrive;
stdout carries the result alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from empo_demo.contenders.load import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Delta, Engine, Event, Finished, Request
from empo_demo.errors import DataError, EngineError, InvalidInput
from empo_demo.files import parse_json, read_text
from empo_demo.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from empo_demo.empathy.sem import Reading


def compare(
    text: Annotated[str | None, typer.Argument(help="What the visitor says.")] = None,
    dialogue: Annotated[
        Path | None, typer.Option(help="A JSON file: a list of {role, content}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of both replies.")] = 0,
    left: Annotated[str, typer.Option(help="Contender on the left.")] = "base",
    right: Annotated[str, typer.Option(help="Contender on the right.")] = "aligned",
) -> None:
    """Let two models answer the same dialogue, side by side."""
    _run(text, dialogue, as_json=as_json, seed=seed, left=left, right=right)


@dataclass
class Side:
    """What one contender has said so far."""

    contender: Contender
    text: str = ""
    finished: Finished | None = None
    error: str = ""


@dataclass
class Comparison:
    """A whole comparison, as `--json` prints it."""

    dialogue: Dialogue
    seed: int
    reading: Reading
    sides: dict[str, Side] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        side = self.sides[event.side]
        if isinstance(event, Delta):
            side.text += event.text
        elif isinstance(event, Finished):
            side.text, side.finished = event.text, event
        else:
            side.error = event.error

    def as_json(self) -> dict[str, Any]:
        done = {name: side.finished for name, side in self.sides.items() if side.finished}
        return {
            "replies": {name: side.text for name, side in self.sides.items()},
            "analysis": self.reading.as_json(),
            "seed": self.seed,
            "tokens": {name: end.tokens for name, end in done.items()},
            "milliseconds": {name: end.milliseconds for name, end in done.items()},
            "finish_reasons": {name: end.reason for name, end in done.items()},
            "contenders": {
                name: {"id": side.contender.id, "revision": side.contender.revision}
                for name, side in self.sides.items()
            },
        }


def _run(
    text: str | None, dialogue_file: Path | None, *, as_json: bool, seed: int, left: str, right: str
) -> None:
    """Load, stream and print; raise an `ArenaError` for anything that a person can mend."""
    if left == right:
        raise InvalidInput(f"Both sides are {left!r}; name two different contenders.")
    dialogue = _dialogue(text, dialogue_file)
    settings = load_settings()
    roster = load_roster(settings)
    pair = [roster[left], roster[right]]

    from rich.console import Console

    console = Console(stderr=True)
    with console.status("Loading the models…"):
        from empo_demo.empathy.plugins import load_sem
        from empo_demo.engine.loading import load_engine

        sem, engine = load_sem(settings), load_engine(settings, roster)
    comparison = Comparison(dialogue, seed, sem.read(dialogue.turns))
    comparison.sides = {contender.id: Side(contender) for contender in pair}
    _stream(comparison, engine, roster, console, quiet=as_json)
    for name, side in comparison.sides.items():
        if side.error:
            raise EngineError(f"{name} could not answer: {side.error}")
    if as_json:
        print(json.dumps(comparison.as_json(), ensure_ascii=False))
    elif not sys.stderr.isatty():
        for name, side in comparison.sides.items():
            print(f"{name}: {side.text}")


def _stream(
    comparison: Comparison, engine: Engine, roster: Roster, console: Any, *, quiet: bool
) -> None:
    from rich.live import Live

    requests = [_request(side.contender, comparison, roster) for side in comparison.sides.values()]
    with Live(console=console, refresh_per_second=10, transient=quiet) as live:
        for event in engine.stream(requests):
            comparison.take(event)
            live.update(_panes(comparison))


def _request(contender: Contender, comparison: Comparison, roster: Roster) -> Request:
    from empo_demo.contenders.strategies import prepare

    prepared = prepare(contender, comparison.dialogue, comparison.reading, roster)
    return Request(
        side=contender.id,
        contender=contender.id,
        messages=prepared.messages,
        decoding=roster.decoding,
        seed=comparison.seed,
    )


def _panes(comparison: Comparison) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    panes = Table.grid(expand=True, padding=(0, 1))
    for _ in comparison.sides:
        panes.add_column(ratio=1)
    panes.add_row(
        *(
            Panel(Text(side.error or side.text or "…"), title=Text(name), title_align="left")
            for name, side in comparison.sides.items()
        )
    )
    heard = ", ".join(f"{label} {p:.0%}" for label, p in comparison.reading.emotions[:3])
    words = ", ".join(cause.text for cause in comparison.reading.causes)
    return Group(Text(f"Heard: {heard} · words: {words}"), panes)


def _dialogue(text: str | None, dialogue_file: Path | None) -> Dialogue:
    dialogue = Dialogue()
    if dialogue_file is not None:
        dialogue = Dialogue.from_messages(_read_messages(dialogue_file))
    if text is not None:
        dialogue = dialogue.plus("user", clean_text(text, limit=MAX_TEXT))
    if not dialogue.turns:
        raise InvalidInput("Nothing to answer: give a text, or a dialogue with --dialogue FILE.")
    if dialogue.turns[-1].role != "user":
        raise InvalidInput("The dialogue ends with the assistant; add what the user says next.")
    return dialogue


def _read_messages(path: Path) -> Sequence[dict[str, Any]]:
    try:
        messages = parse_json(read_text(path))
    except ValueError as error:
        raise DataError(
            f"{path} cannot be used: {error}. It must hold a list of objects with 'role' and "
            "'content'."
        ) from None
    if isinstance(messages, dict):
        messages = messages.get("turns", messages.get("messages"))
    if not isinstance(messages, list):
        raise DataError(f"{path} must hold a list of objects with 'role' and 'content'.")
    return messages
