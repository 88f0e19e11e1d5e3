"""`contenders`: list who can be drawn for a side."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")]


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
