"""The terminal: `python -m empo_demo …`.

Commands only parse, call and print. Results go to stdout, all else to stderr. An `ArenaError` is
one line on stderr and exit code 2. Models and databases are imported inside the commands that need
them, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from empo_demo import __version__
from empo_demo.arena.cli import compare
from empo_demo.board import cli as board
from empo_demo.contenders import cli as contenders
from empo_demo.empathy.cli import analyze
from empo_demo.evaluation import cli as evaluation
from empo_demo.exchange import cli as exchange
from empo_demo.terminal import Command, configure_logging, group, run
from empo_demo.training import cli as training
from empo_demo.training.loop import loop
from empo_demo.ui.cli import page_app, serve
from empo_demo.votes.cli import app as votes_app


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"empo-demo {__version__}")
        raise typer.Exit


app = group()
exchange.register(votes_app)
board.register(votes_app)
app.add_typer(votes_app, name="votes", help="Export, import, count, rank and back up votes.")
app.add_typer(exchange.space_app, name="space", help="Put the arena on a Hugging Face Space.")
app.add_typer(contenders.app, name="contenders")
app.add_typer(training.train_app, name="train", help="Train contenders: SFT, DPO, KTO.")
app.add_typer(training.preferences_app, name="preferences", help="Build EmPO preference pairs.")
app.add_typer(
    evaluation.evaluate_app, name="evaluate", help="Generate, retention, word counts, agreement."
)
app.add_typer(page_app, name="page", help="Record what the page shows at first.")
app.command("serve")(serve)
app.command("compare")(compare)
app.command("analyze")(analyze)
app.command("score")(evaluation.score)
app.command("report")(evaluation.report)
app.command("loop", cls=Command)(loop)


@app.command("settings")
def list_settings() -> None:
    """List every variable: its name, what it holds now, and what it may hold."""
    import re

    from empo_demo.settings import Settings, load_settings

    values = load_settings().model_dump()
    values["secret"] = "(set)" if values["secret"] else None
    values["database"] = re.sub(r"://([^:@/]+):[^@]*@", r"://\1:***@", values["database"])
    for name, field in Settings.model_fields.items():
        value = values[name]
        typer.echo(f"EMPO_{name.upper()}={'' if value is None else value}\n    {field.description}")


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the notes of libraries, too.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say the version."),
    ] = False,
) -> None:
    """Compare a base and an aligned empathetic language model, see why, and vote."""
    configure_logging(verbose=verbose)


def main() -> None:
    """Run a command, after a note on each variable that no setting has."""
    from empo_demo.settings import unknown_variables

    for line in unknown_variables():
        print(f"Note: {line}", file=sys.stderr)
    run(app)
