"""What `contenders`, `contenders prepare` and `contenders compare` print.

Who can be drawn and what they take, and whether a server generates what the same weights generate
here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from huggingface_hub import try_to_load_from_cache

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import as_json as roster_json
from empo_demo.engine.loading import Decision, decide
from empo_demo.engine.planning import fits
from empo_demo.engine.planning.fits import Budget, download_of
from empo_demo.engine.protocol import Decoding, Engine, Failed, Finished, Request, Source
from empo_demo.engine.servers.who_answers import PROMPTS
from empo_demo.errors import ArenaError, EngineError, InvalidInput
from empo_demo.settings import load_settings

_PREPARED = {True: "prepared", False: "not yet", None: "-"}


def show(*, as_json: bool) -> None:
    """List who can be drawn for a side, with revisions and the budget; nothing is loaded for it."""
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
        return None, f"There is no budget: {error}", {"error": str(error)}
    return budget, fits.table(budget, free), fits.as_json(budget, free)


def _unplanned(decision: Decision, contender_id: str) -> int | None:
    """The download of a contender without a budget: unknown for one that would be loaded here."""
    loaded = decision.is_local and contender_id in {member.id for member in decision.written}
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


_GREEDY = Decoding(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=24)
_SHOWN = 40
"""The characters that are shown of two replies where they part."""


@dataclass(frozen=True)
class Difference:
    """How many of a contender's replies are the same, and where the first other ones part."""

    prompts: int
    same: int
    after: str = ""
    server: str = ""
    here: str = ""

    @classmethod
    def between(cls, server: Sequence[str], here: Sequence[str]) -> Difference:
        pairs = list(zip(server, here, strict=True))
        same = sum(a == b for a, b in pairs)
        for a, b in pairs:
            if a != b:
                chars = (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
                at = next(chars, min(len(a), len(b)))
                parts = (a[max(at - _SHOWN, 0) : at], a[at : at + _SHOWN], b[at : at + _SHOWN])
                return cls(len(pairs), same, *parts)
        return cls(len(pairs), same)

    def __str__(self) -> str:
        words = f"{self.same} of {self.prompts} replies are the same on the server and here"
        if self.same < self.prompts:
            words += (
                f"; one goes on after {self.after!r} with {self.server!r} on the server and with "
                f"{self.here!r} here"
            )
        return words


def compare(*, as_json: bool) -> None:
    """Ask servers and the same weights loaded here the same prompts, and print the difference."""
    settings = load_settings()
    roster = load_roster(settings)
    decision = decide(settings, roster)
    if not decision.is_served:
        raise InvalidInput("There is no server to compare with; set EMPO_ENGINE to its URL.")
    here = [c for c in decision.written if _is_here(c)]
    away = {c.id: "its weights are not here" for c in decision.written if c not in here}
    rows: dict[str, Difference] = {}
    if here:
        left_out = decision.left_out | away
        local = decide(settings.model_copy(update={"engine": "local"}), roster.without(left_out))
        typer.echo("Loading the models of this machine…", err=True)
        server_engine, local_engine = decision.load(), local.load()
        for contender in here:
            theirs, ours = (_greedy(e, contender.id) for e in (server_engine, local_engine))
            rows[contender.id] = Difference.between(theirs, ours)
    if as_json:
        same = {name: asdict(row) for name, row in rows.items()}
        typer.echo(json.dumps({"same_as_here": same, "not_here": away}, ensure_ascii=False))
        return
    for name, words in {**rows, **away}.items():
        typer.echo(f"{name}: {words}.")


def _is_here(contender: Source) -> bool:
    """Whether a contender's model and adapter are folders, or in the cache."""
    sources = {contender.base: "config.json"}
    if contender.adapter:
        sources[contender.adapter] = "adapter_config.json"
    return all(
        Path(source).is_dir() or _is_cached(source, file) for source, file in sources.items()
    )


def _is_cached(source: str, file: str) -> bool:
    try:
        return isinstance(try_to_load_from_cache(source, file), str)
    except ValueError:  # a path is not a Hub id
        return False


def _greedy(engine: Engine, contender_id: str) -> list[str]:
    """The greedy replies of one contender to the fixed prompts."""
    replies = []
    for prompt in PROMPTS:
        for event in engine.stream([Request("a", contender_id, prompt, _GREEDY)]):
            if isinstance(event, Failed):
                raise EngineError(event.error)
            if isinstance(event, Finished):
                replies.append(event.text)
    return replies
