"""What `contenders` and `contenders prepare` print: who can be drawn, and what they take."""

from __future__ import annotations

import json
from typing import Any

import typer

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import as_json as roster_json
from empo_demo.engine.loading import Decision, decide
from empo_demo.engine.planning import fits
from empo_demo.engine.planning.fits import Budget, download_of
from empo_demo.errors import ArenaError
from empo_demo.settings import load_settings

_PREPARED = {True: "prepared", False: "not yet", None: "-"}


def show(*, as_json: bool) -> None:
    """List who can be drawn for a side, with revisions and the plan; nothing is loaded for it."""
    settings = load_settings()
    roster = load_roster(settings)
    decision = decide(settings, roster)
    heard = _who_answers(decision)
    decision.close()
    listing = roster_json(roster.without(decision.left_out))
    listing["quantization_asked"] = listing.pop("quantization")
    budget, lines, listing["plan"] = _plan(decision)
    listing["left_out"], listing["who_answers"] = decision.left_out, heard
    members = {} if budget is None else {one.id: one for one in budget.members}
    for row in listing["contenders"]:
        member = members.get(row["id"])
        row["prepared"] = member and member.prepared
        row["download"] = download_of([member]) if member else _unplanned(decision, row["id"])
        row["trial"] = member and member.trial
        # What was asked for says nothing about weights that are elsewhere, or were not tried yet.
        row["quantization"] = (member and member.held) or None
    if as_json:
        typer.echo(json.dumps(listing, ensure_ascii=False))
    else:
        _print(listing, lines)


def prepare(*, as_json: bool, force_adapter: bool) -> None:
    """Make the merged copies, and say where each is."""
    settings = load_settings(force_adapter=force_adapter or None)
    decision = decide(settings, load_roster(settings))
    decision.close()
    made = {}
    for copy in decision.prepare():
        made[copy.adapter] = str(copy.folder)
        state = "was there" if copy.was_there else "made"
        typer.echo(f"{copy.adapter}: {state}, {copy.folder}", err=as_json)
    if as_json:
        typer.echo(json.dumps({"copies": made}, ensure_ascii=False))
    elif not made:
        typer.echo("There is nothing to prepare: no adapter is merged into a copy of its own.")


def _who_answers(decision: Decision) -> dict[str, str]:
    """What was heard at each server, or why it cannot be used."""
    try:
        return decision.who_answers()
    except ArenaError as error:
        return {"error": str(error)}


def _plan(decision: Decision) -> tuple[Budget | None, str, dict[str, Any]]:
    """What would be loaded on this machine: its budget, in lines and as JSON."""
    from rich.console import Console

    if not decision.is_local:
        return None, "Nothing is loaded here.", {}
    try:
        with Console(stderr=True, markup=False).status("Planning…"):
            budget, free = decision.budget, decision.free
    except ArenaError as error:
        return None, f"There is no plan: {error}", {"error": str(error)}
    return budget, fits.table(budget, free), fits.as_json(budget, free)


def _unplanned(decision: Decision, contender_id: str) -> int | None:
    """The download of a contender without a plan: unknown for one that would be loaded here."""
    loaded = decision.is_local and contender_id in {one.id for one in decision.written}
    return None if loaded else 0


def _print(listing: dict[str, Any], lines: str) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("id", "strategy", "weight", "revision", "merged copy", "to download")
    table = Table(*columns, "held in", "trial")
    for row in listing["contenders"]:
        table.add_row(
            row["id"],
            row["strategy"],
            f"{row['weight']:g}",
            row["revision"],
            _PREPARED[row["prepared"]],
            fits.downloaded(row["download"]),
            row["quantization"] or "-",
            row["trial"] or "-",
        )
    Console(markup=False).print(table)
    for contender_id, reason in listing["left_out"].items():
        typer.echo(f"Left out is {contender_id}: {reason}.")
    for url, words in listing["who_answers"].items():
        typer.echo(words if url == "error" else f"Who answers at {url}: {words}.")
    typer.echo(lines)
