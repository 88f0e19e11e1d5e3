"""The terminal: `python -m empo_demo …`.

Commands only parse, call and print. stdout carries results, stderr everything else. An
`ArenaError` is one line on stderr and exit code 2; models and databases are imported inside the
commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from empo_demo.errors import ArenaError
from empo_demo.evaluation import cli as evaluation
from empo_demo.training import cli as training
from empo_demo.training.loop import loop
from empo_demo.votes.cli import app as votes_app

app = typer.Typer(
    name="empo_demo",
    help="Compare a base and an aligned empathetic language model, see why, and vote.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(votes_app, name="votes", help="Export, import, count, rank and back up votes.")
app.add_typer(training.train_app, name="train", help="Train the models: base, SFT, DPO, SEM.")
app.add_typer(training.preferences_app, name="preferences", help="Build EmPO preference pairs.")
app.add_typer(evaluation.evaluate_app, name="evaluate", help="Generate, retention, HEF.")
app.command("score")(evaluation.score)
app.command("report")(evaluation.report)
app.command("loop")(loop)

Text = Annotated[str | None, typer.Argument(help="What the visitor says.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]
Seed = Annotated[int, typer.Option(help="Seed of both replies.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="As GRADIO_SERVER_NAME.")] = None,
    port: Annotated[int | None, typer.Option(help="As GRADIO_SERVER_PORT.")] = None,
) -> None:
    """Start the page, as `python app.py` does."""
    import os

    if host is not None:
        os.environ["GRADIO_SERVER_NAME"] = host
    if port is not None:
        os.environ["GRADIO_SERVER_PORT"] = str(port)
    from empo_demo.settings import load_settings
    from empo_demo.ui.page import launch

    launch(load_settings())


@app.command()
def compare(
    text: Text = None,
    dialogue: Annotated[
        Path | None, typer.Option(help="A JSON file: a list of {role, content}.")
    ] = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    left: Annotated[str, typer.Option(help="Contender on the left.")] = "base",
    right: Annotated[str, typer.Option(help="Contender on the right.")] = "aligned",
) -> None:
    """Let two models answer the same dialogue, side by side."""
    from empo_demo.arena import compare as comparison

    comparison.run(text, dialogue, as_json=as_json, seed=seed, left=left, right=right)


@app.command()
def analyze(
    text: Text = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="JSONL to read (- for standard input).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="JSONL to write (- for standard output).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which emotions and cause words the SEM finds in a text, or in a file of them."""
    from empo_demo.empathy import cli as reading

    if source is not None:
        reading.analyze_file(source, output)
    else:
        reading.analyze_text(text, as_json=as_json)


@app.command()
def contenders(as_json: AsJson = False) -> None:
    """List who can be drawn for a side, with the exact revision that enters each vote."""
    import json

    from empo_demo.contenders.load import load_roster
    from empo_demo.contenders.roster import as_json as contenders_json
    from empo_demo.settings import load_settings

    listing = contenders_json(load_roster(load_settings()))
    if as_json:
        typer.echo(json.dumps(listing, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "strategy", "weight", "revision")
    for row in listing["contenders"]:
        table.add_row(row["id"], row["strategy"], f"{row['weight']:g}", row["revision"])
    Console().print(table)


def main() -> None:
    """Run a command; show an `ArenaError` as one line and end with code 2."""
    from empo_demo.settings import unknown_variables

    for line in unknown_variables():
        print(f"Note: {line}", file=sys.stderr)
    try:
        app()
    except ArenaError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
