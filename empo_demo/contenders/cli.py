"""`contenders` lists who can be drawn for a side, and prepares their models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from empo_demo.progress import amount
from empo_demo.terminal import AsJson, ForceAdapter

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.settings import Settings

app = typer.Typer(invoke_without_command=True, help="Who can be drawn for a side, and their plan.")


@app.callback()
def contenders(context: typer.Context, as_json: AsJson = False) -> None:
    """List who can be drawn for a side, with the revision that enters each vote, and the plan.

    The plan says what loading them takes of GPU, memory and disk, and what must be downloaded;
    nothing is loaded for it. The trial says whether a model computed here what it computes by
    itself, when it was loaded last.
    """
    if context.invoked_subcommand is not None:
        return
    import json

    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.contenders.roster import as_json as contenders_json
    from empo_demo.engine.planning.fits import downloaded
    from empo_demo.settings import load_settings

    settings = load_settings()
    roster = load_roster(settings, fitting=True)
    listing = contenders_json(roster)
    lines, listing["plan"] = _plan(settings, roster)
    trials = _trials(settings, roster)
    prepared = {row["id"]: row["prepared"] for row in listing["plan"].get("contenders", ())}
    for contender, row in zip(roster.contenders, listing["contenders"], strict=True):
        row["prepared"] = prepared.get(row["id"])
        row["download"] = _download(settings, contender)
        row["trial"] = trials.get(row["id"])
    if as_json:
        typer.echo(json.dumps(listing, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "strategy", "weight", "revision", "merged copy", "to download", "trial")
    words = {True: "prepared", False: "not yet", None: "-"}
    for row in listing["contenders"]:
        table.add_row(
            row["id"],
            row["strategy"],
            f"{row['weight']:g}",
            row["revision"],
            words[row["prepared"]],
            downloaded(row["download"]),
            row["trial"] or "-",
        )
    Console(markup=False).print(table)
    typer.echo(lines)


@app.command()
def prepare(as_json: AsJson = False, force_adapter: ForceAdapter = False) -> None:
    """Make the merged copies of models ahead of time, so that the app starts at once."""
    import json

    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.engine.device import pick_device
    from empo_demo.engine.loading import Loader
    from empo_demo.engine.weights.adapters import written_by
    from empo_demo.settings import load_settings

    settings = load_settings(force_adapter=force_adapter or None)
    roster = load_roster(settings, fitting=True)
    device = pick_device(settings.device, roster.quantization)
    loader = Loader(
        device, roster.quantization, settings.adapter_plan, force_adapter=settings.force_adapter
    )
    written = [written_by(c) for c in roster.contenders if not c.predictions]
    made = {}
    for base, adapter in loader.merged_adapters(written):
        copy = loader.merged_copy(base, adapter)
        found = copy.find()
        with amount(f"Merging {copy.adapter.name[:40]}") as report:
            folder = found or copy.make(loader.model, report)
        made[adapter] = str(folder)
        typer.echo(f"{adapter}: {'was there' if found else 'made'}, {folder}", err=as_json)
    if as_json:
        typer.echo(json.dumps({"copies": made}, ensure_ascii=False))
    elif not made:
        typer.echo("There is nothing to prepare: no adapter is merged into a copy of its own.")


def _download(settings: Settings, contender: Contender) -> int | None:
    """The bytes to download before the contender can answer; None if that is not known."""
    from empo_demo.engine.planning.budget import download_of
    from empo_demo.engine.weights.adapters import written_by
    from empo_demo.errors import ArenaError

    if settings.engine != "local" or contender.predictions:
        return 0
    try:
        return download_of(written_by(contender))
    except ArenaError:
        return None  # the plan says what is wrong


def _trials(settings: Settings, roster: Roster) -> dict[str, str]:
    """What the kept trials say of each contender that is loaded here."""
    from empo_demo.engine.device import pick_device
    from empo_demo.engine.loading import Loader
    from empo_demo.engine.recorded import is_recording

    if settings.engine != "local" or is_recording(settings.engine):
        return {}
    device = pick_device(settings.device, roster.quantization)
    loader = Loader(
        device, roster.quantization, settings.adapter_plan, force_adapter=settings.force_adapter
    )
    return loader.trials(roster.contenders)


def _plan(settings: Settings, roster: Roster) -> tuple[str, dict[str, Any]]:
    """The plan of what would be loaded on this machine, as lines and as JSON."""
    from empo_demo.engine.recorded import is_recording
    from empo_demo.errors import ArenaError

    written = [c for c in roster.contenders if not c.predictions]
    if settings.engine != "local" or is_recording(settings.engine) or not written:
        return "Nothing is loaded here.", {}
    from rich.console import Console

    try:
        with Console(stderr=True, markup=False).status("Planning…"):
            from empo_demo.engine.planning.budget import plan_of
            from empo_demo.engine.planning.fits import as_json, free_memory, table

            budget = plan_of(settings, roster, written)
            free = free_memory(budget.device)
    except ArenaError as error:
        return f"There is no plan: {error}", {"error": str(error)}
    return table(budget, free), as_json(budget, free)
