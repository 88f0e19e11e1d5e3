"""`evaluate agreement`: which metric goes with people's judgement, in ratings and in votes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.board.rating_table import Columns
from empo_demo.errors import InvalidInput
from empo_demo.evaluation import rated_replies
from empo_demo.evaluation.metric_agreement import (
    PEOPLE_AGREE,
    agreements,
    people_agree,
    read_vote_pairs,
    vote_scores,
)
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console


def run(
    ratings: Path | None,
    texts: Path | None,
    *,
    human: str,
    scales: tuple[str, ...],
    likelihoods: Sequence[Path],
    database: str | None,
    as_json: bool,
    seed: int,
) -> None:
    """Compare and print. Raises `InvalidInput` for ratings without their texts, or the reverse."""
    from rich.console import Console

    if (ratings is None) != (texts is None):
        raise InvalidInput(
            "Ratings and texts belong together: give --ratings (who rated what how) and --texts "
            "(what was rated), or neither for the votes alone."
        )
    settings = load_settings(database=database)
    figures: dict[str, Any] = {"ratings": None}
    with Console(stderr=True, markup=False).status("Judging the replies…"):
        if ratings is not None and texts is not None:
            figures["ratings"] = rated_replies.study(
                ratings,
                texts,
                Tools(settings),
                named=Columns(scales=scales),
                human=human,
                likelihoods=likelihoods,
                seed=seed,
            )
        figures["votes"] = of_votes(settings, likelihoods=likelihoods, seed=seed)
    if as_json:
        print(json.dumps(figures, allow_nan=False))
        return
    console = Console(markup=False)
    if figures["ratings"] is not None:
        print_ratings(figures["ratings"], console)
    print_votes(figures["votes"], console)


def of_votes(
    settings: Settings, *, likelihoods: Sequence[Path] = (), seed: int = 0
) -> dict[str, Any]:
    """Each metric against the votes of the database, beside how often two people agree."""
    pairs, left_out = read_vote_pairs(settings)
    scores = vote_scores(pairs, Tools(settings), likelihoods=likelihoods)
    agreed = people_agree(pairs)
    return {
        "votes": len(pairs),
        "left_out": left_out,
        "people": {**asdict(agreed), "elsewhere": PEOPLE_AGREE},
        "metrics": [asdict(row) for row in agreements(pairs, scores, seed=seed)],
    }


def print_ratings(figures: dict[str, Any], console: Console) -> None:
    """The correlations as a table, the strongest first, under the ceiling."""
    from rich.table import Table

    people = figures["people"]
    console.print(
        f"{figures['replies']} replies to {figures['items']} dialogues, {people['raters']} raters; "
        f"the mean of {', '.join(figures['scales'])}.\n"
        f"Reliability of a reply's score: {_plain(people['icc_k'])} (ICC(1, k)); no metric can be "
        f"expected to correlate above {_plain(people['ceiling'])}.",
        highlight=False,
    )
    table = Table(
        *("metric", "n", "Spearman", "95 %", "p (Holm)"),
        *("within dialogues", "within systems", "length held", "better is"),
    )
    ordered = sorted(figures["metrics"], key=lambda row: -(row["rho"] or -9.0))
    for row in ordered:
        table.add_row(
            row["metric"],
            str(row["n"]),
            _signed(row["rho"]),
            _ends(row["interval"]),
            _plain(row["p_holm"], 3),
            *(_signed(row[part]["rho"]) for part in _PARTS),
            row["better"],
        )
    console.print(table)


_PARTS = ("within_dialogues", "within_systems", "length_held")


def print_votes(figures: dict[str, Any], console: Console) -> None:
    """The share of votes whose winner each metric picks, the best first."""
    from rich.table import Table

    agreed = figures["people"]
    said = (
        f"Two people who judged the same replies agreed in {agreed['share']:.0%} of "
        f"{agreed['pairs']:,} pairs."
        if agreed["share"] is not None
        else "No two people judged the same replies yet."
    )
    console.print(
        f"{figures['votes']:,} votes compare two replies. {said} Elsewhere: about "
        f"{agreed['elsewhere']:.0%} (HEART, arXiv 2601.19922).",
        highlight=False,
    )
    if not figures["metrics"]:
        return
    table = Table("metric", "votes", "picks the winner", "95 %", "p (Holm)", "better is")
    for row in sorted(figures["metrics"], key=lambda row: -(row["accuracy"] or 0.0)):
        table.add_row(
            row["metric"],
            str(row["n"]),
            _plain(row["accuracy"], 3),
            _ends(row["accuracy_interval"], ".3f"),
            _plain(row["p_holm"], 3),
            row["better"],
        )
    console.print(table)


def _plain(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _ends(interval: Sequence[float] | None, form: str = "+.2f") -> str:
    return "–" if interval is None else f"{interval[0]:{form}} … {interval[1]:{form}}"
