"""`votes …`: parse, call, print. The database is imported by the commands that open it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from empo_demo.terminal import group

app = group()

Database = Annotated[str | None, typer.Option(help="A SQLAlchemy URL; else EMPO_DATABASE.")]


@app.command()
def stats(
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Count rounds and votes, and what exports leave out, by reason."""
    from empo_demo.votes.stats import count
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database), create=False)
    counts = count(store).as_json()
    store.close()
    if as_json:
        typer.echo(json.dumps(counts))
        return
    for name, value in counts.items():
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
    from empo_demo.votes import reasons
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database), create=False)
    reasons.hide(store, round_id, reason)
    store.close()
    typer.echo(f"The round {round_id} is hidden.", err=True)


@app.command("list")
def list_rounds(
    database: Database = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Only the newest N rounds.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """List the newest voted rounds, with what keeps each out of exports."""
    from empo_demo.votes.reasons import newest
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database), create=False)
    rounds = newest(store, limit)
    store.close()
    if as_json:
        typer.echo(json.dumps(rounds, ensure_ascii=False))
        return
    for row in rounds:
        left = f"  ({row['left_out']})" if row["left_out"] else ""
        typer.echo(f"{row['round_id']}  {row['time'][:16]}  {row['verdict']:8}{left}")


def say_bad(bad: Sequence[str]) -> None:
    """Print what the import left out: one line each, at most twenty."""
    for line in bad[:20]:
        typer.echo(line, err=True)
    if len(bad) > 20:
        typer.echo(f"… and {len(bad) - 20:,} more.", err=True)


def database_url(database: str | None) -> str:
    from empo_demo.settings import load_settings

    return load_settings(database=database).database
