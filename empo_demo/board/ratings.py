"""Ratings: means per contender, comparisons, reliability, and the influence of the raters.

They come from the arena's sliders or from any study's table. Means have intervals clustered by
rater and by item. `paired` compares what one rater gave to two contenders on the same item, which
the arena has and studies of single replies have not; `comparisons` are those of everybody's means.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from empo_demo.board.agreement import Reliability, reliability
from empo_demo.board.ballots import Ballot, Counted
from empo_demo.board.rating_comparisons import Comparison, compare, confounding
from empo_demo.board.rating_table import DIMENSIONS, Rating
from empo_demo.metrics import statistics
from empo_demo.metrics.statistics import bootstrap_interval
from empo_demo.votes.models import RATINGS, SIDES

UNTOUCHED = "sliders that nobody touched (all at 50)"
"""Why ratings are left out: until version 0.2 the four sliders stood at 50 when they were sent."""
_MIDDLE = 50


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of `votes ratings` as plain data, for JSON and for the Board.

    `agreement` has the reliability of each dimension, and `confounding` says in sentences which
    comparisons are between raters only.
    """

    contenders: dict[str, dict[str, dict[str, Any]]]
    comparisons: list[Comparison]
    confounding: list[str]
    paired: list[dict[str, Any]]
    agreement: dict[str, Reliability]
    raters: dict[str, dict[str, Any]]
    ratings: int

    def as_json(self) -> dict[str, Any]:
        return {
            "contenders": self.contenders,
            "comparisons": [one.as_json() for one in self.comparisons],
            "confounding": [str(one) for one in self.confounding],
            "paired": self.paired,
            "agreement": {name: one.as_json() for name, one in self.agreement.items()},
            "raters": self.raters,
            "ratings": self.ratings,
        }


def of_ballots(ballots: Iterable[Ballot]) -> list[Rating]:
    """Ratings of votes, from the keys `a_natural`, `b_emotion`, …; not of `untouched` sides."""
    ratings = []
    for ballot in ballots:
        idle = untouched(ballot)
        for key, value in (ballot.ratings or {}).items():
            side, _, dimension = key.partition("_")
            if side in ("a", "b") and side not in idle and isinstance(value, int | float):
                name = ballot.a if side == "a" else ballot.b
                ratings.append(Rating(name, ballot.voter, ballot.round, dimension, float(value)))
    return ratings


def untouched(ballot: Ballot) -> set[str]:
    """The sides whose four sliders were all stored at 50: nobody can tell them from no answer."""
    given = ballot.ratings or {}
    return {s for s in SIDES if all(given.get(f"{s}_{name}") == _MIDDLE for name in RATINGS)}


def left_out_of(counted: Counted) -> Counter[str]:
    """The votes that are left out, and those whose sliders are, by reason."""
    idle = sum(bool(untouched(ballot)) for ballot in counted.ballots)
    return counted.left_out + Counter({UNTOUCHED: idle})


def summarise(ratings: Sequence[Rating], *, samples: int = 1000, seed: int = 0) -> Summary:
    """All that ratings say. `samples` and `seed` are for the resampled intervals of `paired`."""
    names = sorted({one.contender for one in ratings})
    dimensions = list(dict.fromkeys(one.dimension for one in ratings))
    if set(dimensions) <= set(DIMENSIONS.values()):
        dimensions.sort(key=[*DIMENSIONS.values()].index)
    comparisons = compare(ratings, dimensions)
    by: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for one in ratings:
        by[one.contender, one.dimension].append(one)
    means = {name: {d: _mean(by[name, d]) for d in dimensions if by[name, d]} for name in names}
    paired = [
        _paired(one, other, dimension, by, seed, samples)
        for one, other in itertools.combinations(names, 2)
        for dimension in dimensions
    ]
    return Summary(
        contenders=means,
        comparisons=comparisons,
        confounding=confounding(comparisons),
        paired=[row for row in paired if row["n"]],
        agreement={d: _reliability(ratings, d) for d in dimensions},
        raters={d: _rater_check(ratings, d) for d in dimensions},
        ratings=len(ratings),
    )


def _mean(ratings: list[Rating]) -> dict[str, Any]:
    found = statistics.mean(
        statistics.Scores(
            [rating.value for rating in ratings],
            [rating.rater for rating in ratings],
            [rating.item for rating in ratings],
        )
    )
    return {
        "mean": found.value,
        "interval": list(found.interval) if found.interval else None,
        "n": len(ratings),
        "raters": len({rating.rater for rating in ratings}),
        "items": len({rating.item for rating in ratings}),
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


def _reliability(ratings: Sequence[Rating], dimension: str) -> Reliability:
    return reliability(
        (
            (one.rater, (one.contender, one.item), one.value)
            for one in ratings
            if one.dimension == dimension
        ),
        "nominal" if dimension == "checkbox" else "interval",
    )


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
