"""Means and differences of ratings whose errors hang together by rater and by item.

A rater gives many ratings and an item gets many, so neither kind of row is independent. The
variance is the two-way one of Cameron, Gelbach and Miller (2011, "Robust Inference with Multiway
Clustering", eq. 2.11): clustered by rater, plus clustered by item, minus clustered by both. The
intervals take Student's t with the smaller number of clusters less one, as the same paper advises.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from empo_demo.metrics.statistics import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Equally long columns: a value, who gave it, and what it was given to."""

    values: Sequence[float]
    raters: Sequence[Hashable]
    items: Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate with its 95 % interval and the two-sided p of 0.

    Both are None where fewer than two raters, or fewer than two items, were seen.
    """

    value: float
    interval: Interval | None
    p: float | None


def mean(scores: Scores) -> Estimate:
    """The mean of the values; `scores` has one at least."""
    import numpy as np

    values = np.asarray(scores.values, dtype=float)
    centre = float(values.mean())
    return _estimate(centre, (values - centre) / len(values), scores.raters, scores.items)


def difference(one: Scores, other: Scores) -> Estimate:
    """The mean of `one` minus the mean of `other`; a rater or an item may be in both."""
    import numpy as np

    first, second = (np.asarray(s.values, dtype=float) for s in (one, other))
    a, b = float(first.mean()), float(second.mean())
    pulls = np.concatenate([(first - a) / len(first), -(second - b) / len(second)])
    return _estimate(a - b, pulls, [*one.raters, *other.raters], [*one.items, *other.items])


def _estimate(
    value: float, pulls: Array, raters: Sequence[Hashable], items: Sequence[Hashable]
) -> Estimate:
    """`pulls` is how far each row draws the estimate from its expectation; they sum to 0."""
    from scipy.stats import t  # type: ignore[import-untyped,unused-ignore]

    counts = len(set(raters)), len(set(items))
    if min(counts) < 2:
        return Estimate(value, None, None)
    error = math.sqrt(two_way_variance(pulls, raters, items))
    reach = float(t.ppf(0.975, min(counts) - 1)) * error
    if error <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, (value, value), 1.0 if abs(value) < 1e-12 else 0.0)
    p = 2 * float(t.sf(abs(value) / error, min(counts) - 1))
    return Estimate(value, (value - reach, value + reach), p)


def two_way_variance(pulls: Array, raters: Sequence[Hashable], items: Sequence[Hashable]) -> float:
    """The variance of a sum of `pulls` whose rows hang together by rater and by item.

    It may come out below one of its one-way parts in small tables; then the larger part stands.
    """
    by_rater, by_item = _one_way(pulls, raters), _one_way(pulls, items)
    by_both = _one_way(pulls, list(zip(raters, items, strict=True)))
    return max(by_rater + by_item - by_both, by_rater, by_item)


def _one_way(pulls: Array, clusters: Sequence[Hashable]) -> float:
    import numpy as np

    numbers = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros(len(numbers))
    np.add.at(sums, [numbers[name] for name in clusters], pulls)
    return float((sums**2).sum()) * len(numbers) / max(1, len(numbers) - 1)
