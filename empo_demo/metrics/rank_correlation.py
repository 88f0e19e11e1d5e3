"""Spearman's correlation: overall, within groups, and with a third number held.

Within groups the ranks are taken inside each group and centred there, and all groups count
together. With a number held, the ranks of the others are freed of its ranks by least squares: the
partial rank correlation (Conover 1999, "Practical Nonparametric Statistics", 5.4). Rows of one
cluster (a dialogue) depend on each other: intervals resample clusters, with the ranks of the whole
sample, and p flips the sign of each cluster's contribution (Dror et al. 2018).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from empo_demo.metrics.statistics import Interval, percentiles, sign_flip_p

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """`rho` over `n` rows, its 95 % interval, and the two-sided p of no relation.

    All but `n` are None where one of the two does not vary.
    """

    n: int
    rho: float | None
    interval: Interval | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Frame:
    """What the rows belong to: the cluster that is resampled, perhaps the group in which ranks are
    taken, and perhaps a number that is held."""

    clusters: Sequence[Hashable]
    groups: Sequence[Hashable] | None = None
    held: Sequence[float] | None = None


def spearman(
    x: Sequence[float],
    y: Sequence[float],
    frame: Frame,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RankCorrelation:
    """Spearman's rho of two equally long columns; ties have their mean rank."""
    import numpy as np

    groups = _numbered(frame.groups or [0] * len(x))
    first, second = _centred_ranks(x, groups), _centred_ranks(y, groups)
    if frame.held is not None:
        held = _centred_ranks(frame.held, groups)
        first, second = _freed(first, held), _freed(second, held)
    # What is left of a column that the held one explains wholly is rounding.
    if min(_norm(first), _norm(second)) < 1e-9 * max(1, len(x)):
        return RankCorrelation(len(x), None, None, None)
    clusters = _numbered(frame.clusters)
    sums = [_sums(column, clusters) for column in _moments(first, second)]
    whole = float(_pearson([total.sum() for total in sums]))
    drawn = np.random.default_rng(seed).integers(0, len(sums[0]), (resamples, len(sums[0])))
    with np.errstate(invalid="ignore", divide="ignore"):
        rhos = _pearson([total[drawn].sum(axis=1) for total in sums])
    known = rhos[np.isfinite(rhos)]
    interval = percentiles(known) if len(known) and len(sums[0]) > 1 else None
    p = sign_flip_p(_sums(first * second, clusters).tolist(), resamples=resamples, seed=seed)
    return RankCorrelation(len(x), whole, interval, p)


def _numbered(names: Sequence[Hashable]) -> NDArray[np.intp]:
    import numpy as np

    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.intp)


def _centred_ranks(values: Sequence[float], groups: NDArray[np.intp]) -> Array:
    """The ranks inside each group, less the group's mean rank."""
    import numpy as np
    from scipy.stats import rankdata  # type: ignore[import-untyped,unused-ignore]

    numbers = np.asarray(values, dtype=float)
    ranks = np.empty(len(numbers))
    for group in range(int(groups.max(initial=-1)) + 1):
        own = groups == group
        ranks[own] = rankdata(numbers[own])
        ranks[own] -= ranks[own].mean()
    return ranks


def _freed(column: Array, held: Array) -> Array:
    """`column` less its least-squares fit by `held`; both are centred."""
    square = float(held @ held)
    return column if square == 0 else column - held * (float(column @ held) / square)


def _norm(column: Array) -> float:
    return float(column @ column)


def _moments(x: Array, y: Array) -> list[Array]:
    import numpy as np

    return [np.ones(len(x)), x, y, x * x, y * y, x * y]


def _sums(column: Array, clusters: NDArray[np.intp]) -> Array:
    import numpy as np

    return np.asarray(np.bincount(clusters, weights=column), dtype=float)


def _pearson(sums: Sequence[Array]) -> Array:
    """Pearson's r of the sums of 1, x, y, x², y² and xy."""
    import numpy as np

    n, x, y, xx, yy, xy = sums
    return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y)))
