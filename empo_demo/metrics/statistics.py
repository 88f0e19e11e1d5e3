"""Paired comparison, and means whose errors hang together: permutation, bootstrap, clusters, Holm.

Plain numpy over lists of numbers. The same seed gives the same result. No function returns NaN:
a value that is not defined (no spread, one row) is None.

A rater gives many ratings and an item gets many, so neither kind of row is independent. The
variance of `Scores` is the two-way one of Cameron, Gelbach and Miller (2011, "Robust Inference
with Multiway Clustering", eq. 2.11): clustered by rater, plus clustered by item, minus clustered
by both. The intervals take Student's t with the smaller number of clusters less one, as the same
paper advises.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Interval = tuple[float, float]
RESAMPLES = 10_000
_BLOCK = 500


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second system minus the first, over the rows for which both have a value."""

    n: int
    mean_a: float
    mean_b: float
    difference: float
    deviation: float | None
    interval: tuple[float, float]
    p: float
    effect_size: float | None


def compare(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two equally long, non-empty series row by row.

    With `groups`, one for each row, whole groups are drawn for the interval, and a group's rows
    keep one sign for p, because they are not independent.
    """
    import numpy as np

    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    differences = second - first
    return Comparison(
        n=len(differences),
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=float(differences.mean()),
        deviation=float(differences.std(ddof=1)) if len(differences) > 1 else None,
        interval=bootstrap_interval(
            differences.tolist(), groups=groups, resamples=resamples, seed=seed
        ),
        p=sign_flip_p(
            [float(differences[rows].sum()) for rows in _members(groups)]
            if groups is not None
            else differences.tolist(),
            resamples=resamples,
            seed=seed,
        ),
        effect_size=cohens_dz(differences.tolist()),
    )


def sign_flip_p(
    differences: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p of mean = 0 under random signs (Fisher 1935; Dror et al. 2018 for NLP).

    It is exact if there are at most `resamples` sign patterns. Otherwise patterns are drawn, and
    the observed one is counted too, so that p is never 0.
    """
    import numpy as np

    values = np.asarray(differences, dtype=float)
    n = len(values)
    # Sums that differ only by rounding count as equal.
    threshold = abs(values.sum()) - 1e-9 * max(1.0, float(np.abs(values).sum()))
    if 2**n <= resamples:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
        return float(np.mean(np.abs(signs @ values) >= threshold))
    draw = np.random.default_rng(seed)
    hits = 0
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        signs = draw.integers(0, 2, size=(size, n), dtype=np.int8) * 2.0 - 1.0
        hits += int(np.sum(np.abs(signs @ values) >= threshold))
    return (hits + 1) / (resamples + 1)


def bootstrap_interval(
    values: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean over resampled rows (Efron & Tibshirani 1993).

    With `groups`, one for each value, whole groups are drawn: the values of one person or one
    dialogue are not independent.
    """
    import numpy as np

    totals = np.asarray(values, dtype=float)
    sizes = np.ones(len(totals))
    if groups is not None:
        members = _members(groups)
        totals = np.array([totals[rows].sum() for rows in members])
        sizes = np.array([float(len(rows)) for rows in members])
    means = [
        totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        for drawn in _draws(len(totals), resamples, seed)
    ]
    return percentiles(np.concatenate(means), level)


def interval_of(
    statistic: Callable[[NDArray[np.intp]], float | None],
    groups: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Like `bootstrap_interval`, of any `statistic` of row numbers.

    Draws whose statistic is None are left out; the interval is None if all are.
    """
    import numpy as np

    members = _members(groups)
    bounds = [
        statistic(np.concatenate([members[i] for i in drawn]))
        for block in _draws(len(members), resamples, seed)
        for drawn in block
    ]
    known = [value for value in bounds if value is not None]
    return percentiles(known, level) if known else None


def percentiles(values: Sequence[float] | Array, level: float = 0.95) -> Interval:
    """The ends between which the middle `level` of `values` lie."""
    import numpy as np

    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Blocks (at most `_BLOCK` × count) of row numbers, each row of a block one resample."""
    import numpy as np

    draw = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        yield draw.integers(0, count, size=(size, count), dtype=np.int32)


def _members(groups: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """The row numbers of each group, in the order in which the groups first come."""
    import numpy as np

    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return [np.array(rows, dtype=np.intp) for rows in members.values()]


def cohens_dz(differences: Sequence[float]) -> float | None:
    """Mean difference over its standard deviation (ddof 1); None without spread."""
    import numpy as np

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return 0.0 if not values.any() else None
    return float(values.mean()) / spread


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down corrected p-values of Holm 1979, in the order given, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


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
