"""The sliders: means per contender, paired effects, agreement, and the influence of raters.

In the paper, Dim1–Dim4 are 0–100 sliders and Dim5 is a checkbox (0 or 1). Every interval is
clustered by rater.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from empo_demo.board import agreement
from empo_demo.board.ballots import Ballot
from empo_demo.metrics.statistics import bootstrap_interval

DIMENSIONS = {
    "Dim1": "appropriate",
    "Dim2": "emotion",
    "Dim3": "natural",
    "Dim4": "continue",
    "Dim5": "checkbox",
}
"""The paper's columns and the arena's names for them."""


@dataclass(frozen=True, slots=True)
class Rating:
    """One number that `rater` gave `contender`'s reply to `item` on one dimension."""

    contender: str
    rater: str
    item: str
    dimension: str
    value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of `votes ratings` as plain data, for JSON and for the Board."""

    contenders: dict[str, dict[str, dict[str, Any]]]
    paired: list[dict[str, Any]]
    agreement: dict[str, dict[str, Any]]
    raters: dict[str, dict[str, Any]]
    ratings: int

    def as_json(self) -> dict[str, Any]:
        return {
            "contenders": self.contenders,
            "paired": self.paired,
            "agreement": self.agreement,
            "raters": self.raters,
            "ratings": self.ratings,
        }


def of_ballots(ballots: Iterable[Ballot]) -> list[Rating]:
    """The ratings of votes, from the keys `a_natural`, `b_emotion`, …"""
    found = []
    for ballot in ballots:
        for key, value in (ballot.ratings or {}).items():
            side, _, dimension = key.partition("_")
            if side in ("a", "b") and isinstance(value, int | float):
                name = ballot.a if side == "a" else ballot.b
                found.append(Rating(name, ballot.voter, ballot.round, dimension, float(value)))
    return found


def summarise(ratings: Sequence[Rating], *, samples: int = 1000, seed: int = 0) -> Summary:
    """Means with intervals, paired differences, alpha and rater checks, per dimension."""
    names = sorted({one.contender for one in ratings})
    dimensions = list(dict.fromkeys(one.dimension for one in ratings))
    dimensions.sort(key=lambda name: [*DIMENSIONS.values(), name].index(name))
    by: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for one in ratings:
        by[one.contender, one.dimension].append(one)
    means = {
        name: {d: _mean(by[name, d], seed, samples) for d in dimensions if by[name, d]}
        for name in names
    }
    paired = [
        _paired(one, other, dimension, by, seed, samples)
        for one, other in itertools.combinations(names, 2)
        for dimension in dimensions
    ]
    return Summary(
        contenders=means,
        paired=[row for row in paired if row["n"]],
        agreement={d: _agreement(ratings, d) for d in dimensions},
        raters={d: _rater_check(ratings, d) for d in dimensions},
        ratings=len(ratings),
    )


def _mean(ratings: list[Rating], seed: int, samples: int) -> dict[str, Any]:
    values = [one.value for one in ratings]
    interval = _interval(values, [one.rater for one in ratings], seed, samples)
    return {
        "mean": float(np.mean(values)),
        "interval": interval,
        "n": len(values),
        "raters": len({one.rater for one in ratings}),
    }


def _paired(
    one: str,
    other: str,
    dimension: str,
    by: dict[tuple[str, str], list[Rating]],
    seed: int,
    samples: int,
) -> dict[str, Any]:
    """Differences `one` − `other` of the same rater on the same item."""
    theirs = {(r.rater, r.item): r.value for r in by[other, dimension]}
    pairs = [
        (r.rater, r.value - theirs[r.rater, r.item])
        for r in by[one, dimension]
        if (r.rater, r.item) in theirs
    ]
    values = np.array([difference for _, difference in pairs])
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {
        "contenders": [one, other],
        "dimension": dimension,
        "n": len(pairs),
        "difference": float(values.mean()) if pairs else None,
        "interval": _interval(list(values), [rater for rater, _ in pairs], seed, samples),
        "effect_size_dz": float(values.mean()) / spread if spread > 0 else None,
        "raters_in_favour": _in_favour(pairs),
    }


def _in_favour(pairs: list[tuple[str, float]]) -> dict[str, int]:
    """How many raters prefer the first, the second, or neither, by the mean of each rater."""
    own: dict[str, list[float]] = defaultdict(list)
    for rater, difference in pairs:
        own[rater].append(difference)
    means = [sum(values) / len(values) for values in own.values()]
    return {
        "first": sum(mean > 0 for mean in means),
        "second": sum(mean < 0 for mean in means),
        "neither": sum(mean == 0 for mean in means),
    }


def _interval(
    values: Sequence[float], raters: Sequence[str], seed: int, samples: int
) -> list[float] | None:
    """95 % interval of the mean, bootstrapped over raters; None for a single rater."""
    if len(set(raters)) < 2:
        return None
    return list(bootstrap_interval(values, groups=raters, resamples=samples, seed=seed))


def _agreement(ratings: Sequence[Rating], dimension: str) -> dict[str, Any]:
    level: agreement.Level = "nominal" if dimension == "checkbox" else "interval"
    return agreement.alpha(
        (
            (one.rater, (one.contender, one.item), one.value)
            for one in ratings
            if one.dimension == dimension
        ),
        level,
    ).as_json()


def _rater_check(ratings: Sequence[Rating], dimension: str) -> dict[str, Any]:
    """How much the raters influence a slider.

    `rater_variance_share` is the between-rater share of the variance (η²). `adjusted_means` are
    means after each rater's own mean is subtracted, plus the grand mean. They differ from the
    plain means if different people rated the contenders.
    """
    own = [one for one in ratings if one.dimension == dimension]
    values = np.array([one.value for one in own])
    by: dict[str, list[float]] = defaultdict(list)
    for one in own:
        by[one.rater].append(one.value)
    means = {rater: sum(numbers) / len(numbers) for rater, numbers in by.items()}
    grand, total = float(values.mean()), float(((values - values.mean()) ** 2).sum())
    between = sum(len(by[rater]) * (mean - grand) ** 2 for rater, mean in means.items())
    adjusted: dict[str, list[float]] = defaultdict(list)
    for one in own:
        adjusted[one.contender].append(one.value - means[one.rater] + grand)
    return {
        "raters": len(by),
        "rater_variance_share": float(between / total) if total > 0 else None,
        "constant_raters": sorted(r for r, n in by.items() if len(n) > 1 and len(set(n)) == 1),
        "adjusted_means": {name: sum(n) / len(n) for name, n in sorted(adjusted.items())},
    }


def show(summary: Summary) -> None:
    """Print the means and the paired differences as tables."""
    from rich.console import Console
    from rich.table import Table

    dimensions = list(summary.agreement)
    table = Table("contender", *dimensions, "ratings")
    for name, means in summary.contenders.items():
        cells = [f"{means[d]['mean']:.1f}" if d in means else "–" for d in dimensions]
        table.add_row(name, *cells, str(max(cell["n"] for cell in means.values())))
    alphas = [summary.agreement[d]["krippendorff_alpha"] for d in dimensions]
    table.add_row("agreement α", *["–" if a is None else f"{a:.2f}" for a in alphas], "")
    console = Console(markup=False)
    console.print(table)
    for row in summary.paired:
        console.print(
            f"{' − '.join(row['contenders'])}, {row['dimension']}: {row['difference']:+.1f} "
            f"(95 % {json.dumps(row['interval'])}, n = {row['n']})",
            highlight=False,
        )
