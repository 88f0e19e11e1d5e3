"""`votes rank`, `votes ratings`, `votes attention`: parse, call, print."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from empo_demo.terminal import AsJson, Seed
from empo_demo.votes.cli import Database, database_url

if TYPE_CHECKING:
    from empo_demo.board.ballots import Counted
    from empo_demo.board.standing import Effect, Ranking, Standing

Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help="Instead of the database: a file of `votes export --format jsonl`, csv or parquet, or "
        "a CSV with the columns round, voter, a, b, verdict[, len_a, len_b, time, ratings].",
    ),
]
Samples = Annotated[int, typer.Option(help="How often voters are resampled.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands to the `votes` app."""
    app.command("rank")(rank)
    app.command("ratings")(ratings)
    app.command("attention")(attention)


def rank(
    source: Input = None,
    database: Database = None,
    as_json: AsJson = False,
    samples: Samples = 1000,
    seed: Seed = 0,
) -> None:
    """Rank the contenders: win rates, strengths, side and length effects, with intervals."""
    from rich.console import Console

    from empo_demo.board import agreement, standing

    with Console(stderr=True, markup=False).status("Ranking…"):
        counted = _counted(source, database)
        result = standing.rank(counted.ballots, samples=samples, seed=seed)
        agreed = agreement.of_ballots(counted.ballots)
    if as_json:
        found = {**result.as_json(), "agreement": agreed.as_json()}
        typer.echo(json.dumps({**found, "left_out": dict(counted.left_out)}))
        return
    _print(result)
    Console(markup=False).print(agreed.sentence(), highlight=False)
    _say_left_out(counted.left_out)


def ratings(
    source: Input = None, database: Database = None, as_json: AsJson = False, seed: Seed = 0
) -> None:
    """Summarise the sliders: means per contender, paired effects, agreement between raters."""
    from empo_demo.board import ratings as sliders

    if source is not None:
        from empo_demo.board.ballot_file import read_ratings

        found, left_out = read_ratings(source)
    else:
        counted = _counted(None, database)
        found, left_out = sliders.of_ballots(counted.ballots), counted.left_out
    result = sliders.summarise(found, seed=seed)
    if as_json:
        typer.echo(json.dumps({**result.as_json(), "left_out": dict(left_out)}))
        return
    sliders.show(result)
    _say_left_out(left_out)


def attention(
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Each voter's hits on attention checks; nobody is left out because of them."""
    from empo_demo.board.agreement import attention_of_voters
    from empo_demo.votes.store import Store

    store = Store.open(database_url(database), create=False)
    voters = attention_of_voters(store)
    store.close()
    if as_json:
        typer.echo(json.dumps({"voters": [asdict(voter) for voter in voters]}))
        return
    for voter in voters:
        low, high = voter.interval
        typer.echo(
            f"{voter.voter}  {voter.passed} of {voter.asked} checks ({voter.rate:.0%}, "
            f"{low:.0%} to {high:.0%})  {voter.votes} votes"
            f"{'  careless' if voter.careless else ''}"
        )
    typer.echo(f"{len(voters)} voters were asked.", err=True)


def _counted(source: Path | None, database: str | None) -> Counted:
    from empo_demo.board.ballot_file import read_ballots
    from empo_demo.board.ballots import ballots_of_database

    return read_ballots(source) if source is not None else ballots_of_database(database)


def _say_left_out(left_out: Counter[str]) -> None:
    """The votes that the figures leave out, with the reasons of `votes stats`."""
    from empo_demo.votes.reasons import left_out_line

    if line := left_out_line(left_out):
        typer.echo(f"{left_out.total():,} votes {line}.")


def _print(result: Ranking) -> None:
    from rich.console import Console
    from rich.table import Table

    from empo_demo.board.sentences import limits

    table = Table("contender", "win rate", "95 %", "strength (log odds)", "95 %", "votes", "")
    for before, one in zip((None, *result.contenders), result.contenders, strict=False):
        if before is not None and before.group != one.group:
            table.add_section()
        shown = one.status != "hidden" and one.win_rate is not None
        table.add_row(
            one.id,
            f"{one.win_rate:.1%}" if shown else "–",
            _span(one.win_rate_interval, "{:.1%}") if shown else "–",
            f"{one.strength:+.2f}" if shown and one.separation is None else "–",
            _span(one.strength_interval_bootstrap, "{:+.2f}") if shown else "–",
            str(one.votes),
            _note(one),
        )
    console = Console(markup=False)
    console.print(table)
    lines = [
        *limits(result, {}),
        _share("Ties", result.ties.rate, result.ties.interval),
        _share("Both bad", result.both_bad.rate, result.both_bad.interval),
        _effect("Being on side A", result.position),
        _effect("Twice as many words", result.length),
        f"{result.votes} votes by {result.voters} voters.",
    ]
    console.print("\n".join(lines), highlight=False)


def _note(one: Standing) -> str:
    from empo_demo.board.sentences import separation_note

    if one.status == "hidden":
        return "fewer than 30 decided votes"
    status = "preliminary" if one.status == "preliminary" else ""
    return ", ".join(filter(None, [separation_note(one), status]))


def _span(interval: tuple[float, float] | None, form: str) -> str:
    from empo_demo.board.sentences import span

    return span(interval, form, "{low} … {high}")


def _share(name: str, rate: float | None, interval: tuple[float, float] | None) -> str:
    return f"{name}: –" if rate is None else f"{name}: {rate:.1%} ({_span(interval, '{:.1%}')})"


def _effect(name: str, effect: Effect | None) -> str:
    if effect is None:
        return f"{name}: cannot be estimated from these votes."
    return f"{name}: {effect.estimate:+.2f} log odds ({_span(effect.interval, '{:+.2f}')})"
