"""`votes …`: parse, call, print. The database is imported by the commands that open it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.votes import ranking_cli

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

Database = Annotated[str | None, typer.Option(help="A SQLAlchemy URL; else EMPO_DATABASE.")]


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[str, typer.Option("--format", help="trl, kto, csv or parquet.")] = "trl",
    database: Database = None,
    mixed: Annotated[
        bool, typer.Option("--mixed-strategies", help="Keep pairs with one guided side.")
    ] = False,
) -> None:
    """Write the votes as preference pairs (trl), rated replies (kto) or a table."""
    from empo_demo.votes.export import export_file

    report = export_file(_url(database), form, output, mixed=mixed)
    typer.echo(f"{output}: {report}", err=True)


@app.command()
def stats(
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Count rounds and votes, and what exports leave out, by reason."""
    import json

    from empo_demo.votes.stats import count
    from empo_demo.votes.store import Store

    store = Store.open(_url(database), create=False)
    found = count(store).as_json()
    store.close()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} {number}" for key, number in value.items() if number)
            typer.echo(f"{name}: {inner or 'none'}")
        else:
            typer.echo(f"{name}: {value}")


@app.command()
def hide(
    round_id: Annotated[str, typer.Argument(help="The id of a round.")],
    reason: Annotated[str, typer.Option(help="Why; is stored with the round.")],
    database: Database = None,
) -> None:
    """Hide a round: it is never exported or counted."""
    from empo_demo.votes.store import Store

    store = Store.open(_url(database), create=False)
    store.hide(round_id, reason)
    store.close()
    typer.echo(f"The round {round_id} is hidden.", err=True)


ranking_cli.register(app)


def _url(database: str | None) -> str:
    from empo_demo.settings import load_settings

    return load_settings(database=database).database
