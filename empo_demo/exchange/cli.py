"""`votes export`, `import`, `push` and `pull`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.votes.cli import Database, database_url, say_bad


def register(app: typer.Typer) -> None:
    """Add the commands to the `votes` app."""
    app.command("export")(export)
    app.command("import")(import_records)
    app.command("push")(push)
    app.command("pull")(pull)


def export(
    output: Annotated[Path, typer.Option(help="The file to write.")],
    form: Annotated[
        str, typer.Option("--format", help="trl, kto, csv, parquet, or jsonl (full records).")
    ] = "trl",
    database: Database = None,
    mixed: Annotated[
        bool, typer.Option("--mixed-strategies", help="Keep pairs with one guided side.")
    ] = False,
) -> None:
    """Write the votes as preference pairs (trl), rated replies (kto) or a table."""
    from empo_demo.exchange.export import export_file

    report = export_file(database_url(database), form, output, mixed=mixed)
    typer.echo(f"{output}: {report}", err=True)


def import_records(
    source: Annotated[Path, typer.Argument(help="A file of `votes export --format jsonl`.")],
    database: Database = None,
) -> None:
    """Read full records from another arena; rounds that are there already are left alone."""
    from empo_demo.exchange.records import import_file
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database))
    try:
        report = import_file(store, source)
    finally:
        store.close()
    say_bad(report.bad)
    typer.echo(f"{source}: {report}.", err=True)
    if report.bad and not report.good:
        raise typer.Exit(2)


def push(
    repo: Annotated[str | None, typer.Option(help="owner/name; else EMPO_HUB_DATASET.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the files to be pushed are kept.")] = Path(
        "pushed-votes"
    ),
    database: Database = None,
) -> None:
    """Publish votes older than 24 hours to a data set on the Hub, and take out withdrawn ones."""
    from empo_demo.exchange import hub
    from empo_demo.votes.store import Store

    repo = _repository(repo)
    store = Store.open(database_url(database), create=False)
    report = hub.Pusher(store, repo, folder).push()
    store.close()
    typer.echo(f"{repo}: {report}.", err=True)


def pull(
    repo: Annotated[str | None, typer.Option(help="owner/name; else EMPO_HUB_DATASET.")] = None,
    database: Database = None,
) -> None:
    """Bring pushed votes back from a data set on the Hub; withdrawn ones stay withdrawn."""
    from empo_demo.exchange import hub
    from empo_demo.votes.store import Store

    repo = _repository(repo)
    store = Store.open(database_url(database))
    report = hub.Pusher(store, repo, Path()).pull()
    store.close()
    say_bad(report.bad)
    typer.echo(f"{repo}: {report}.", err=True)


def _repository(named: str | None) -> str:
    from empo_demo.errors import SettingsError
    from empo_demo.settings import load_settings

    repo = named or load_settings().hub_dataset
    if not repo:
        raise SettingsError("No data set is named. Use --repo owner/name, or EMPO_HUB_DATASET.")
    return repo
