"""`votes export`, `import`, `push` and `pull`, and `space deploy`: parse, call, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from empo_demo.errors import SettingsError
from empo_demo.terminal import OutputFile, named_output
from empo_demo.votes.cli import Database, database_url, say_bad

if TYPE_CHECKING:
    from empo_demo.exchange.record_files import Imported

space_app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@space_app.callback()
def _space() -> None:
    """Keeps `deploy` a subcommand, although it is the only one."""


@space_app.command()
def deploy(
    to: Annotated[str, typer.Option(help="The Space: owner/name.")],
    hardware: Annotated[
        str | None, typer.Option(help="zero-a10g, cpu-basic, t4-small, …; else as it is.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The data set that the Space pushes its votes to.")
    ] = None,
    backup: Annotated[
        str | None, typer.Option(help="A private data set that keeps a copy of every vote.")
    ] = None,
    variable: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a variable of the Space.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new Space private.")] = False,
) -> None:
    """Put this checkout on a Hugging Face Space and wait until it runs; prints its address."""
    from empo_demo.exchange import space

    pairs = [text.partition("=") for text in variable or ()]
    wrong = [name for name, equals, _ in pairs if not name or not equals]
    if wrong:
        raise SettingsError(f"--set holds {wrong[0]!r}; it may hold NAME=VALUE.")
    variables = {name: value for name, _, value in pairs}
    typer.echo(f"Uploading to the Space {to}, then waiting until it runs…", err=True)
    address = space.deploy(
        to,
        hardware=hardware,
        dataset=dataset,
        backup=backup,
        private=private,
        variables=variables,
    )
    written = " and ".join(filter(None, (dataset, backup)))
    if written and not os.environ.get(space.TOKEN):
        typer.echo(
            f"The Space needs a secret HF_TOKEN that may write to {written}: set it at "
            f"{address}/settings, or in {space.TOKEN} here and deploy again.",
            err=True,
        )
    typer.echo(address)


def register(app: typer.Typer) -> None:
    """Add the commands to the `votes` app."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("export")(export)
    app.command("import")(import_records)
    app.command("push")(push)
    app.command("pull")(pull)


def export(
    output: OutputFile,
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
    from empo_demo.exchange.record_files import import_file
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database))
    try:
        report = import_file(store, source)
    finally:
        store.close()
    _say_imported(str(source), report)


def backup(
    file: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file of full records (JSONL).")
    ] = None,
    database: Database = None,
) -> None:
    """Write all that is stored with consent into one file, unmasked, while the app runs."""
    from empo_demo.exchange import record_files
    from empo_demo.votes.store import Store

    output = named_output(output, file)
    store = Store.open(database_url(database), create=False)
    votes = record_files.backup(store, output)
    store.close()
    typer.echo(f"{output}: {votes:,} votes.", err=True)


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `votes backup` made.")],
    database: Database = None,
) -> None:
    """Replace the database's content by a backup's; withdrawn votes stay withdrawn."""
    from empo_demo.exchange import record_files
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database))
    try:
        report = record_files.restore(store, source)
    finally:
        store.close()
    say_bad(report.bad)
    typer.echo(f"{source}: {report}.", err=True)


def push(
    repo: Annotated[str | None, typer.Option(help="owner/name; else EMPO_HUB_DATASET.")] = None,
    database: Database = None,
) -> None:
    """Publish votes older than 24 hours to a data set on the Hub, and take out withdrawn ones."""
    from empo_demo.exchange import hub
    from empo_demo.votes.store import Store

    repo = _repository(repo)
    store = Store.open(database_url(database), create=False)
    report = hub.Pusher(store, repo).push()
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
    report = hub.Pusher(store, repo).pull()
    store.close()
    _say_imported(repo, report)


def _say_imported(source: str, report: Imported) -> None:
    """Name the bad lines and count the rest; end with code 2 if no line was good."""
    say_bad(report.bad)
    typer.echo(f"{source}: {report}.", err=True)
    if report.bad and not report.good:
        raise typer.Exit(2)


def _repository(named: str | None) -> str:
    from empo_demo.settings import load_settings

    repo = named or load_settings().hub_dataset
    if not repo:
        raise SettingsError("No data set is named. Use --repo owner/name, or EMPO_HUB_DATASET.")
    return repo
