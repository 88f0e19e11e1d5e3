"""The terminal's comparison: two contenders answer one dialogue, side by side.

The comparison is neither blind nor stored: the terminal names both contenders. It shows the growing
replies on stderr. stdout carries only the result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Failed, Finished
from empo_demo.errors import DataError, EngineError, InvalidInput
from empo_demo.files import parse_json, read_text
from empo_demo.terminal import AsJson, ForceAdapter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from empo_demo.arena.comparison import Comparison
    from empo_demo.arena.frames import Frame
    from empo_demo.contenders.roster import Roster
    from empo_demo.empathy.reading import Reading


def compare(
    text: Annotated[str | None, typer.Argument(help="What the visitor says.")] = None,
    dialogue: Annotated[
        Path | None, typer.Option(help="A JSON file: a list of {role, content}.")
    ] = None,
    as_json: AsJson = False,
    seed: Annotated[int, typer.Option(help="Seed of both replies.")] = 0,
    left: Annotated[str, typer.Option(help="Contender on the left.")] = "base",
    right: Annotated[str, typer.Option(help="Contender on the right.")] = "aligned",
    force_adapter: ForceAdapter = False,
) -> None:
    """Let two models answer the same dialogue, side by side."""
    if left == right:
        raise InvalidInput(f"Both sides are {left!r}; name two different contenders.")
    from rich.console import Console

    from empo_demo.arena.comparison import Comparison, explore
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.settings import load_settings

    settings = load_settings(force_adapter=force_adapter or None)
    roster = load_roster(settings)
    comparison = Comparison(
        _dialogue(text, dialogue), left, right, seed, decoding=roster.decoding
    ).checked(roster)
    console = Console(stderr=True, markup=False)
    with console.status("Loading the models…"):
        from empo_demo.empathy.plugins import load_sem
        from empo_demo.engine.loading import load_engine

        sem, engine = load_sem(settings), load_engine(settings, roster.only(left, right))
    reading = sem.read(comparison.dialogue.turns)
    said = _stream(
        explore(engine, roster, comparison, reading), comparison, reading, console, quiet=as_json
    )
    for side, name in comparison.names.items():
        end = said.ends.get(side)
        if not isinstance(end, Finished):
            raise EngineError(f"{name} could not answer: {end.error if end else 'it broke off'}")
    if said.dropped:
        console.print(
            "This dialogue is longer than the models can read: exchanges left out at its "
            f"beginning, for both sides: {said.dropped}."
        )
    if as_json:
        print(json.dumps(_as_json(comparison, roster, reading, said), ensure_ascii=False))
    elif not sys.stderr.isatty():
        for side, name in comparison.names.items():
            print(f"{name}: {said.texts[side]}")


def _stream(
    frames: Iterator[Frame], comparison: Comparison, reading: Reading, console: Any, *, quiet: bool
) -> Frame:
    """Show both replies while they grow; return the last frame."""
    from rich.live import Live

    from empo_demo.arena.frames import Frame

    frame = Frame({"a": "", "b": ""})
    with Live(console=console, refresh_per_second=10, transient=quiet) as live:
        for frame in frames:
            live.update(_panes(frame, comparison, reading))
    return frame


def _as_json(
    comparison: Comparison, roster: Roster, reading: Reading, said: Frame
) -> dict[str, Any]:
    """What `--json` prints. The keys are the ids of the contenders."""
    names = comparison.names
    ends = {name: said.ends[side] for side, name in names.items()}
    done = {name: end for name, end in ends.items() if isinstance(end, Finished)}
    return {
        "replies": {name: end.text for name, end in done.items()},
        "analysis": reading.as_json(),
        "seed": comparison.seed,
        "tokens": {name: end.tokens for name, end in done.items()},
        "milliseconds": {name: end.milliseconds for name, end in done.items()},
        "finish_reasons": {name: end.reason for name, end in done.items()},
        "dropped_exchanges": said.dropped,
        "contenders": {
            name: {"id": name, "revision": roster[name].revision} for name in names.values()
        },
    }


def _panes(frame: Frame, comparison: Comparison, reading: Reading) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    panes = Table.grid(expand=True, padding=(0, 1))
    cells = []
    for side, name in comparison.names.items():
        end = frame.ends.get(side)
        said = end.error if isinstance(end, Failed) else frame.texts[side]
        cells.append(Panel(Text(said or "…"), title=Text(name), title_align="left"))
        panes.add_column(ratio=1)
    panes.add_row(*cells)
    words = ", ".join(cause.text for cause in reading.marks)
    return Group(Text(f"Heard: {reading.certainty.words} · words: {words}"), panes)


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
