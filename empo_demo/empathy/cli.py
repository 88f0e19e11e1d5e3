"""The terminal's `analyze`: what the SEM reads in one text or in a file of them.

A file is read line by line, so a long file needs little memory and a bad line stops nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from empo_demo.dialogue import Turn
from empo_demo.errors import DataError, InvalidInput

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading


def analyze(
    text: Annotated[str | None, typer.Argument(help="What the visitor says.")] = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="JSONL to read (- for standard input).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSONL to write (- for standard output).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Show the emotion, how sure it is, the cause words and the valence of a text, or of a file."""
    if source is not None:
        analyze_file(source, output)
    else:
        analyze_text(text, as_json=as_json)


def analyze_text(text: str | None, *, as_json: bool) -> None:
    """Print the reading of one text: a small table, or one JSON line."""
    if text is None:
        raise InvalidInput("Nothing to analyse: give a text, or a file with --input FILE.jsonl.")
    turn = Turn("user", text)
    from empo_demo.empathy.plugins import load_sem
    from empo_demo.empathy.sem import feelings
    from empo_demo.settings import load_settings

    sem = load_sem(load_settings())
    reading = sem.read([turn])
    if hasattr(sem, "explained") and not reading.abstains:
        reading = replace(reading, feeling=feelings(sem, [turn.content], explained=True)[0])
    if as_json:
        print(json.dumps(reading.as_json(), ensure_ascii=False))
    else:
        _print(turn.content, reading)


def analyze_file(source: Path, output: Path | None) -> None:
    """Answer each line of a JSONL file with one line, in order; see `empathy.analyze`."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    with _lines(source) as lines, _writer(output) as out, console.status("Reading…") as status:
        from empo_demo.empathy.analyze import analyze_records
        from empo_demo.empathy.plugins import load_sem
        from empo_demo.settings import load_settings

        done = bad = 0
        for answer in analyze_records(load_sem(load_settings()), lines):
            out.write(json.dumps(answer, ensure_ascii=False) + "\n")
            done, bad = done + 1, bad + ("error" in answer)
            if done % 100 == 0:
                status.update(f"Reading… {done:,} lines")
    console.print(f"{done:,} lines read, {bad:,} of them could not be used.", highlight=False)


def _print(text: str, reading: Reading) -> None:
    from rich.console import Console
    from rich.text import Text

    marked = Text(text)
    for cause in reading.marks:
        marked.stylize(
            "bold underline" if cause.weight >= 0.5 else "underline", cause.start, cause.end
        )
    console = Console(markup=False)
    console.print(marked)
    console.print(reading.certainty.words, style="bold", highlight=False)
    for label, probability in () if reading.abstains else reading.emotions[:5]:
        bar = "█" * round(30 * probability)
        console.print(f"{label:>14} {probability:6.1%} {bar}", highlight=False)
    # A pipe shows no underlining, so the words are also named.
    causes = ", ".join(f"{cause.text} {cause.weight:.0%}" for cause in reading.marks)
    console.print(f"caused by: {causes or 'no word'}", highlight=False)
    console.print(_valence_line(reading), highlight=False)


def _valence_line(reading: Reading) -> str:
    """The valence with its spread, its source, and the words that move it most."""
    feeling = reading.feeling
    if feeling is None:
        return "valence: not read"
    line = f"valence {feeling.valence:+.2f}"
    if feeling.spread is not None:
        line += f" ± {feeling.spread:.2f}"
    if feeling.source == "vader":
        line += " (by the words, VADER: this SEM reads no valence)"
    moved = sorted(feeling.words, key=lambda word: -abs(word.by))[:3]
    seen = [f"{w.text} {w.by:+.2f}" for w in moved if abs(w.by) >= feeling.visible]
    return line + (f"; most by {', '.join(seen)}" if seen else "")


@contextmanager
def _lines(source: Path) -> Iterator[IO[str]]:
    if str(source) == "-":
        yield sys.stdin
        return
    try:
        with source.open(encoding="utf8", errors="replace") as file:
            yield file
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from None


@contextmanager
def _writer(output: Path | None) -> Iterator[IO[str]]:
    if output is None or str(output) == "-":
        yield sys.stdout
        return
    try:
        with output.open("w", encoding="utf8") as file:
            yield file
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from None
