"""Which system people rated higher, and what the choice of raters has to do with it.

A win rate compares two systems by the means of each item, ties as one half, and resamples items. A
difference of means is clustered by rater and by item. The p of all pairs and scales are one family,
corrected by Holm.

Where different raters judged two systems, a difference may be one between raters. So each
comparison says how many raters saw both, and gives the same figures within those alone.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from empo_demo.board.rating_table import Rating
from empo_demo.board.standing import clustered_rate
from empo_demo.errors import Sentence
from empo_demo.metrics.statistics import Estimate, Interval, Scores, difference, holm

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
    for one in ratings:
        by[one.contender, one.dimension].append(one)
    systems = sorted({one.contender for one in ratings})
    found = [
        _comparison((one, other), scale, by[one, scale], by[other, scale])
        for one, other in itertools.combinations(systems, 2)
        for scale in scales
        if by[one, scale] and by[other, scale]
    ]
    tested = [i for i, one in enumerate(found) if one.difference.p is not None]
    corrected = holm([found[i].difference.p or 0.0 for i in tested])
    for i, p in zip(tested, corrected, strict=True):
        found[i] = replace(found[i], p_holm=p)
    return found


def confounding(comparisons: Iterable[Comparison]) -> list[str]:
    """Which comparisons are between raters, in sentences; none if every rater saw every system."""
    pairs = {one.systems: one for one in comparisons}
    strangers = [pair for pair, one in pairs.items() if not one.raters_of_both]
    mixed = [(pair, one) for pair, one in pairs.items() if 0 < one.raters_of_both < max(one.raters)]
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
            both=one.raters_of_both,
            all=sum(one.raters) - one.raters_of_both,
        )
        for pair, one in mixed
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
    for one in ratings:
        by[one.item].append(one.value)
    return {item: sum(values) / len(values) for item, values in by.items()}


def _scores(ratings: Iterable[Rating]) -> Scores:
    own = list(ratings)
    return Scores([r.value for r in own], [r.rater for r in own], [r.item for r in own])


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{one} − {other}" for one, other in pairs)


def _list(estimate: Estimate) -> list[float] | None:
    return list(estimate.interval) if estimate.interval else None
