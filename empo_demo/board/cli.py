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
    from empo_demo.board.ballots import Ballot, Counted
    from empo_demo.board.ratings import Comparison, Summary
    from empo_demo.board.standing import Effect, Ranking, Standing
    from empo_demo.metrics.statistics import Interval

Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help="Instead of the database: a file of `votes export --format jsonl`, csv or parquet, or "
        "a CSV with the columns round, voter, a, b, verdict[, len_a, len_b, time, ratings].",
    ),
]
RatingsInput = Annotated[
    Path | None,
    typer.Option(
        "--input",
        help="Instead of the database: a study's table (CSV, .xlsx, JSONL) of item, system, rater "
        "and scales, or a file of votes.",
    ),
]
Samples = Annotated[int, typer.Option(help="How often voters are resampled.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands to the `votes` app."""
    app.command("rank")(rank)
    app.command("ratings")(ratings)
    app.command("attention")(attention)
    app.command("needed")(needed)


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
        whole = {**result.as_json(), "agreement": agreed.as_json()}
        typer.echo(json.dumps({**whole, "left_out": dict(counted.left_out)}))
        return
    _print(result)
    Console(markup=False).print(agreed.sentence(), highlight=False)
    _say_left_out(counted.left_out)


def ratings(
    source: RatingsInput = None,
    database: Database = None,
    item: Annotated[str | None, typer.Option(help="The column of what was rated.")] = None,
    system: Annotated[str | None, typer.Option(help="The column of who wrote it.")] = None,
    rater: Annotated[str | None, typer.Option(help="The column of who rated it.")] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="A column of ratings; may be repeated.")
    ] = None,
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """What raters said: means, win rates, effects, reliability, and who rated whom.

    Reads the arena's own sliders, or the table of any study.
    """
    from empo_demo.board import ratings as sliders
    from empo_demo.board.rating_table import Columns, RatingTable

    if source is not None:
        from empo_demo.board.ballot_file import read_ratings

        judged = read_ratings(source, Columns(item, system, rater, tuple(scale or ())))
    else:
        counted = _counted(None, database)
        judged = RatingTable(
            sliders.of_ballots(counted.ballots), (), left_out=sliders.left_out_of(counted)
        )
    result = sliders.summarise(judged.ratings, seed=seed)
    if as_json:
        record = {**result.as_json(), "no_scales": judged.no_scales}
        typer.echo(json.dumps({**record, "left_out": dict(judged.left_out)}))
        return
    if judged.scales:
        typer.echo(judged.sentence())
    _print_ratings(result)
    _say_left_out(judged.left_out)


def needed(
    share: Annotated[
        list[float] | None, typer.Option(help="A share to tell from 0.5; may be repeated.")
    ] = None,
    power: Annotated[float, typer.Option(help="How surely: a share of such boards.")] = 0.8,
    per_person: Annotated[
        float | None, typer.Option(help="Mean votes of a person; default: as the board has it.")
    ] = None,
    correlation: Annotated[
        float | None, typer.Option(help="How alike one person's votes are; default: likewise.")
    ] = None,
    source: Input = None,
    database: Database = None,
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """How many votes of how many people tell a share from one half, by simulation."""
    from dataclasses import replace

    from empo_demo.board import power as simulated

    setting = simulated.Setting(power=power)
    if per_person is None or correlation is None:
        setting = simulated.setting_of(_known_ballots(source, database), setting)
    given = {"per_person": per_person, "correlation": correlation}
    setting = replace(
        setting, **{name: value for name, value in given.items() if value is not None}
    )
    shares = share or [0.52, 0.55, 0.6, 0.65, 0.7]
    needs = [
        simulated.needed(replace(setting, share=preference), seed=seed) for preference in shares
    ]
    if as_json:
        typer.echo(json.dumps({"needed": [need.as_json() for need in needs]}))
        return
    typer.echo(
        f"{setting.per_person:g} votes per person, votes of a person alike by "
        f"{setting.correlation:g}, power {setting.power:g}:"
    )
    for need in needs:
        votes, people = simulated.rounded(need.votes), simulated.rounded(need.people)
        typer.echo(f"{need.setting.share:.0%} from 50 %: {votes:,} votes by {people:,} people")


def _known_ballots(source: Path | None, database: str | None) -> list[Ballot]:
    """The ballots here; none in an installation without a database."""
    from empo_demo.errors import NotFound

    try:
        return _counted(source, database).ballots
    except NotFound:
        if source is None and database is None:
            return []
        raise


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
    for before, place in zip((None, *result.contenders), result.contenders, strict=False):
        if before is not None and before.group != place.group:
            table.add_section()
        shown = place.status != "hidden" and place.win_rate is not None
        table.add_row(
            place.id,
            f"{place.win_rate:.1%}" if shown else "–",
            _span(place.win_rate_interval, "{:.1%}") if shown else "–",
            f"{place.strength:+.2f}" if shown and place.separation is None else "–",
            _span(place.strength_interval_bootstrap, "{:+.2f}") if shown else "–",
            str(place.votes),
            _note(place),
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


def _print_ratings(result: Summary) -> None:
    """The means, the comparisons and the reliability as tables, then who rated whom."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    scales = list(result.agreement)
    means = Table("contender", *scales, "ratings")
    for name, cells in result.contenders.items():
        shown = [
            f"{cells[d]['mean']:.2f}\n{_ends(cells[d]['interval'], '.2f')}" if d in cells else "–"
            for d in scales
        ]
        means.add_row(name, *shown, str(max(cell["n"] for cell in cells.values())))
    console.print(means)
    trust = Table("reliability", *scales)
    for title, name in (
        ("Krippendorff's α", "krippendorff_alpha"),
        ("ICC(1, k)", "icc_k"),
        ("raters of a reply, k", "raters_per_unit"),
        ("ceiling for a metric", "ceiling"),
    ):
        values = [result.agreement[d].as_json()[name] for d in scales]
        trust.add_row(title, *("–" if value is None else f"{value:.3f}" for value in values))
    console.print(trust)
    if result.comparisons:
        pairs = Table("first − second", "scale", "win rate", "difference", "95 %", "d", "p (Holm)")
        for comparison in result.comparisons:
            pairs.add_row(
                " − ".join(comparison.systems), comparison.scale, *_comparison_cells(comparison)
            )
        console.print(pairs)
    for row in result.paired:
        console.print(
            f"By the same rater on the same item: {' − '.join(row['contenders'])}, "
            f"{row['dimension']}: {row['difference']:+.1f} ({_ends(row['interval'], '+.1f')}, "
            f"n = {row['n']})",
            highlight=False,
        )
    console.print("\n".join(result.confounding), highlight=False)
    for comparison in result.comparisons:
        if comparison.within is not None and comparison.raters_of_both < max(comparison.raters):
            within, ends = comparison.within, _ends(comparison.within.interval, "+.2f")
            console.print(
                f"Within the {comparison.raters_of_both} raters of both: "
                f"{' − '.join(comparison.systems)}, {comparison.scale}: {within.value:+.2f} "
                f"({ends})",
                highlight=False,
            )


def _comparison_cells(comparison: Comparison) -> tuple[str, ...]:
    return (
        "–" if comparison.wins.rate is None else f"{comparison.wins.rate:.3f}",
        f"{comparison.difference.value:+.2f}",
        _ends(comparison.difference.interval, "+.2f"),
        "–" if comparison.effect_size is None else f"{comparison.effect_size:.2f}",
        "–" if comparison.p_holm is None else f"{comparison.p_holm:.3f}",
    )


def _ends(interval: Interval | None, form: str) -> str:
    if interval is None:
        return "–"
    low, high = interval
    return f"{low:{form}} … {high:{form}}"


def _note(contender: Standing) -> str:
    from empo_demo.board.sentences import separation_note

    if contender.status == "hidden":
        return "fewer than 30 decided votes"
    status = "preliminary" if contender.status == "preliminary" else ""
    return ", ".join(filter(None, [separation_note(contender), status]))


def _span(interval: tuple[float, float] | None, form: str) -> str:
    from empo_demo.board.sentences import span

    return span(interval, form, "{low} … {high}")


def _share(name: str, rate: float | None, interval: tuple[float, float] | None) -> str:
    return f"{name}: –" if rate is None else f"{name}: {rate:.1%} ({_span(interval, '{:.1%}')})"


def _effect(name: str, effect: Effect | None) -> str:
    if effect is None:
        return f"{name}: cannot be estimated from these votes."
    return f"{name}: {effect.estimate:+.2f} log odds ({_span(effect.interval, '{:+.2f}')})"
