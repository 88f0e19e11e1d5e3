"""`contenders` lists who can be drawn for a side, and prepares their models."""

from __future__ import annotations

import typer

from empo_demo.terminal import AsJson, ForceAdapter

app = typer.Typer(
    invoke_without_command=True, help="Who can be drawn for a side, and their budget."
)


@app.callback()
def contenders(context: typer.Context, as_json: AsJson = False) -> None:
    """List who can be drawn for a side, with the revision that enters each vote, and the budget.

    The budget is what loading them takes of GPU, memory and disk, and what must be downloaded;
    nothing is loaded for it. The trial says whether a model computed here what it computes by
    itself, when it was loaded last. An optional contender that cannot be served here is left out.
    """
    if context.invoked_subcommand is None:
        from empo_demo.contenders import listing

        listing.show(as_json=as_json)


@app.command()
def prepare(as_json: AsJson = False, force_adapter: ForceAdapter = False) -> None:
    """Make the merged copies of models ahead of time, so that the app starts at once.

    Models that were not tried here yet are tried, because a trial may ask for one more copy.
    """
    from empo_demo.contenders import listing

    listing.prepare(as_json=as_json, force_adapter=force_adapter)


@app.command()
def compare(as_json: AsJson = False) -> None:
    """Compare the servers' greedy replies with those of the same weights loaded here.

    For EMPO_ENGINE with servers. Contenders whose weights are not on this machine are named.
    """
    from empo_demo.contenders import listing

    listing.compare(as_json=as_json)
