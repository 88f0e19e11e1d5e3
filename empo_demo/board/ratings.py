"""Ratings: means per contender, comparisons, reliability, and the influence of the raters.

They come from the arena's sliders or from any study's table. Means have intervals clustered by
rater and by item. `paired` compares what one rater gave to two contenders on the same item, which
the arena has and studies of single replies have not; `comparisons` are those of everybody's means.

A win rate compares two systems by the means of each item, ties as one half, and resamples items. A
difference of means is clustered by rater and by item. The p of all pairs and scales are one family,
corrected by Holm. Where different raters judged two systems, a difference may be one between
raters. So each comparison says how many raters saw both, and gives the same figures within those
alone.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from empo_demo.board.agreement import Reliability, reliability
from empo_demo.board.ballots import Ballot, Counted
from empo_demo.board.rating_table import DIMENSIONS, Rating
from empo_demo.board.standing import clustered_rate
from empo_demo.errors import Sentence
from empo_demo.metrics import statistics
from empo_demo.metrics.statistics import (
    Estimate,
    Interval,
    Scores,
    bootstrap_interval,
    difference,
    holm,
)
from empo_demo.votes.models import RATINGS, SIDES

FEW = 5
"""With fewer raters who saw both systems, nothing is said within them."""


@dataclass(frozen=True, slots=True)
class Wins:
    """How often the first system's item mean is above the second's; ties count one half."""

    items: int
    wins: int
    ties: int
    rate: float | None
    interval: Interval | None

    def as_json(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "wins": self.wins,
            "ties": self.ties,
            "win_rate": self.rate,
            "win_rate_interval": list(self.interval) if self.interval else None,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on one scale: the first minus the second.

    `effect_size` is Cohen's d of the item means with the pooled deviation. `within` is the same
    difference among the raters who saw both; None if fewer than `FEW` did.
    """

    systems: tuple[str, str]
    scale: str
    wins: Wins
    difference: Estimate
    effect_size: float | None
    raters: tuple[int, int]
    raters_of_both: int
    within: Estimate | None
    p_holm: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "contenders": list(self.systems),
            "dimension": self.scale,
            **self.wins.as_json(),
            "difference": self.difference.value,
            "interval": _list(self.difference),
            "p": self.difference.p,
            "p_holm": self.p_holm,
            "effect_size_d": self.effect_size,
            "raters": list(self.raters),
            "raters_of_both": self.raters_of_both,
            "within_raters_of_both": None
            if self.within is None
            else {"difference": self.within.value, "interval": _list(self.within)},
        }


def compare(ratings: Sequence[Rating], scales: Sequence[str]) -> list[Comparison]:
    """Every pair of systems on every scale, with Holm's correction over all of them."""
    by: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in ratings:
        by[rating.contender, rating.dimension].append(rating)
    systems = sorted({rating.contender for rating in ratings})
    comparisons = [
        _comparison((one, other), scale, by[one, scale], by[other, scale])
        for one, other in itertools.combinations(systems, 2)
        for scale in scales
        if by[one, scale] and by[other, scale]
    ]
    tested = [i for i, comparison in enumerate(comparisons) if comparison.difference.p is not None]
    corrected = holm([comparisons[i].difference.p or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        comparisons[i] = replace(comparisons[i], p_holm=p)
    return comparisons


def confounding(comparisons: Iterable[Comparison]) -> list[str]:
    """Which comparisons are between raters, in sentences; none if every rater saw every system."""
    pairs = {comparison.systems: comparison for comparison in comparisons}
    strangers = [pair for pair, comparison in pairs.items() if not comparison.raters_of_both]
    mixed = [
        (pair, comparison)
        for pair, comparison in pairs.items()
        if 0 < comparison.raters_of_both < max(comparison.raters)
    ]
    said: list[str] = []
    if strangers:
        said.append(
            Sentence(
                "Between raters only, since nobody rated both: {pairs}. Such a difference may be "
                "one between the people.",
                pairs=_pairs(strangers),
            )
        )
    said += [
        Sentence(
            "{pair}: {both} of {all} raters rated both; the rest saw one of them only.",
            pair=_pairs([pair]),
            both=comparison.raters_of_both,
            all=sum(comparison.raters) - comparison.raters_of_both,
        )
        for pair, comparison in mixed
    ]
    return said


def _comparison(
    systems: tuple[str, str], scale: str, one: Sequence[Rating], other: Sequence[Rating]
) -> Comparison:
    seen = {r.rater for r in one}, {r.rater for r in other}
    both = seen[0] & seen[1]
    within = None
    if len(both) >= FEW:
        within = difference(*(_scores(r for r in own if r.rater in both) for own in (one, other)))
    return Comparison(
        systems,
        scale,
        _wins(_item_means(one), _item_means(other)),
        difference(_scores(one), _scores(other)),
        _effect_size(_item_means(one), _item_means(other)),
        (len(seen[0]), len(seen[1])),
        len(both),
        within,
    )


def _wins(one: dict[str, float], other: dict[str, float]) -> Wins:
    items = sorted(one.keys() & other.keys())
    # Means of the same ratings in another order may differ by rounding.
    points = [
        0.5 if math.isclose(one[i], other[i], abs_tol=1e-9) else float(one[i] > other[i])
        for i in items
    ]
    rate, interval = clustered_rate(points, items) if points else (None, None)
    return Wins(len(items), points.count(1.0), points.count(0.5), rate, interval)


def _effect_size(one: dict[str, float], other: dict[str, float]) -> float | None:
    """Difference of the means of item means over the root of their mean variance (ddof 1)."""
    a, b = (np.array(list(means.values())) for means in (one, other))
    if min(len(a), len(b)) < 2:
        return None
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    return float(a.mean() - b.mean()) / pooled if pooled > 0 else None


def _item_means(ratings: Iterable[Rating]) -> dict[str, float]:
    by: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        by[rating.item].append(rating.value)
    return {item: sum(values) / len(values) for item, values in by.items()}


def _scores(ratings: Iterable[Rating]) -> Scores:
    own = list(ratings)
    return Scores([r.value for r in own], [r.rater for r in own], [r.item for r in own])


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{one} − {other}" for one, other in pairs)


def _list(estimate: Estimate) -> list[float] | None:
    return list(estimate.interval) if estimate.interval else None


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
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "confounding": [str(sentence) for sentence in self.confounding],
            "paired": self.paired,
            "agreement": {name: trust.as_json() for name, trust in self.agreement.items()},
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
    names = sorted({rating.contender for rating in ratings})
    dimensions = list(dict.fromkeys(rating.dimension for rating in ratings))
    if set(dimensions) <= set(DIMENSIONS.values()):
        dimensions.sort(key=[*DIMENSIONS.values()].index)
    comparisons = compare(ratings, dimensions)
    by: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in ratings:
        by[rating.contender, rating.dimension].append(rating)
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
    interval = statistics.mean(
        statistics.Scores(
            [rating.value for rating in ratings],
            [rating.rater for rating in ratings],
            [rating.item for rating in ratings],
        )
    )
    return {
        "mean": interval.value,
        "interval": list(interval.interval) if interval.interval else None,
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
    for rater, step in pairs:
        own[rater].append(step)
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
            (rating.rater, (rating.contender, rating.item), rating.value)
            for rating in ratings
            if rating.dimension == dimension
        ),
        "nominal" if dimension == "checkbox" else "interval",
    )


def _rater_check(ratings: Sequence[Rating], dimension: str) -> dict[str, Any]:
    """How much the raters influence a slider.

    `rater_variance_share` is the between-rater share of the variance (η²). `adjusted_means` are
    means after each rater's own mean is subtracted, plus the grand mean. They differ from the
    plain means if different people rated the contenders.
    """
    own = [rating for rating in ratings if rating.dimension == dimension]
    values = np.array([rating.value for rating in own])
    by: dict[str, list[float]] = defaultdict(list)
    for rating in own:
        by[rating.rater].append(rating.value)
    means = {rater: sum(numbers) / len(numbers) for rater, numbers in by.items()}
    grand, total = float(values.mean()), float(((values - values.mean()) ** 2).sum())
    between = sum(len(by[rater]) * (mean - grand) ** 2 for rater, mean in means.items())
    adjusted: dict[str, list[float]] = defaultdict(list)
    for rating in own:
        adjusted[rating.contender].append(rating.value - means[rating.rater] + grand)
    return {
        "raters": len(by),
        "rater_variance_share": float(between / total) if total > 0 else None,
        "constant_raters": sorted(r for r, n in by.items() if len(n) > 1 and len(set(n)) == 1),
        "adjusted_means": {name: sum(n) / len(n) for name, n in sorted(adjusted.items())},
    }
