"""How far ratings can be trusted: Krippendorff's alpha, and the intraclass correlation of means.

ICC(1, 1) and ICC(1, k) are those of Shrout and Fleiss (1979, case 1): each unit has raters of its
own. They come from a one-way analysis of variance; where units have unequal numbers of raters, k is
the number that Donner (1986, eq. 2.3) puts in its place. The intervals are McGraw and Wong's (1996,
table 7). No metric can correlate with the means above the root of ICC(1, k).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from empo_demo.board.agreement import Agreement, Level, alpha
from empo_demo.metrics.statistics import Interval


@dataclass(frozen=True, slots=True)
class Reliability:
    """Agreement, and the ICC of one rating (`icc_1`) and of the mean of `k` ratings (`icc_k`).

    The ICCs are None where no unit has two raters, or nothing varies.
    """

    agreement: Agreement
    k: float | None = None
    icc_1: float | None = None
    icc_k: float | None = None
    icc_k_interval: Interval | None = None

    @property
    def ceiling(self) -> float | None:
        """The highest correlation that a perfect metric can be expected to have with the means."""
        return None if self.icc_k is None else math.sqrt(max(0.0, self.icc_k))

    def as_json(self) -> dict[str, Any]:
        return {
            **self.agreement.as_json(),
            "raters_per_unit": self.k,
            "icc_1": self.icc_1,
            "icc_k": self.icc_k,
            "icc_k_interval": list(self.icc_k_interval) if self.icc_k_interval else None,
            "ceiling": self.ceiling,
        }


def reliability(
    judgements: Iterable[tuple[Hashable, Hashable, float]], level: Level = "interval"
) -> Reliability:
    """The reliability of (rater, unit, value) triples."""
    rows = list(judgements)
    units: dict[Hashable, list[float]] = defaultdict(list)
    for _, unit, value in rows:
        units[unit].append(value)
    agreed = alpha(rows, level)
    shared = [np.array(values) for values in units.values() if len(values) > 1]
    if len(shared) < 2:
        return Reliability(agreed)
    sizes = np.array([len(values) for values in shared])
    means = np.array([values.mean() for values in shared])
    n, total = len(shared), int(sizes.sum())
    k = float(total - (sizes**2).sum() / total) / (n - 1)
    grand = float((sizes * means).sum()) / total
    between = float((sizes * (means - grand) ** 2).sum()) / (n - 1)
    inside = sum(float(((v - m) ** 2).sum()) for v, m in zip(shared, means, strict=True))
    within = inside / (total - n)
    if between == 0:
        return Reliability(agreed, k)
    return Reliability(
        agreed,
        k,
        (between - within) / (between + (k - 1) * within),
        1 - within / between,
        _interval(between, within, n - 1, total - n),
    )


def _interval(between: float, within: float, above: int, below: int) -> Interval:
    """McGraw and Wong's 95 % interval of ICC(1, k); (1, 1) where raters never differ."""
    from scipy.stats import f  # type: ignore[import-untyped,unused-ignore]

    if within == 0:
        return 1.0, 1.0
    ratio = between / within
    low, high = f.ppf(0.975, above, below), f.ppf(0.975, below, above)
    return float(1 - low / ratio), float(1 - 1 / (ratio * high))
