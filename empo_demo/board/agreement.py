"""How far votes and ratings can be trusted: voters' agreement and attention, raters' reliability.

Agreement is Krippendorff's alpha, by the `krippendorff` package: 1 for full agreement, 0 for
chance, and None if nothing was judged twice.

Attention is how often a voter rejects a known bad reply. It is a report for the maintainer; no
vote is dropped because of it. Some voters fail by chance, so a voter is marked only if the
interval of the hit rate is below the rate of guessing.

ICC(1, 1) and ICC(1, k) are those of Shrout and Fleiss (1979, case 1): each unit has raters of its
own. They come from a one-way analysis of variance; where units have unequal numbers of raters, k is
the number that Donner (1986, eq. 2.3) puts in its place. The intervals are McGraw and Wong's (1996,
table 7). No metric can correlate with the means above the root of ICC(1, k).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import select

from empo_demo.board.ballots import Ballot
from empo_demo.errors import Sentence
from empo_demo.metrics.statistics import Interval
from empo_demo.votes.models import KINDS, VERDICTS, Round, Vote
from empo_demo.votes.reasons import passed, passes
from empo_demo.votes.store import Store

Level = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """`alpha` over `units` that two or more `raters` judged; None if it is undefined."""

    alpha: float | None
    units: int
    raters: int

    def as_json(self) -> dict[str, Any]:
        return {"krippendorff_alpha": self.alpha, "shared_units": self.units, "raters": self.raters}

    def sentence(self) -> str:
        if self.units == 0:
            return "Agreement between voters: no round was judged by more than one."
        shown = "–" if self.alpha is None else f"{self.alpha:.2f}"
        return Sentence(
            "Agreement between voters (Krippendorff's alpha): {alpha} on {n} rounds.",
            alpha=shown,
            n=self.units,
        )


def alpha(judgements: Iterable[tuple[Hashable, Hashable, float]], level: Level) -> Agreement:
    """Agreement of (rater, unit, value) triples. Later values of a rater replace earlier ones."""
    cells = {(rater, unit): value for rater, unit, value in judgements}
    raters = {rater: i for i, rater in enumerate(dict.fromkeys(rater for rater, _ in cells))}
    counts: dict[Hashable, int] = {}
    for _, unit in cells:
        counts[unit] = counts.get(unit, 0) + 1
    shared = {u: i for i, u in enumerate(unit for unit, n in counts.items() if n > 1)}
    if not shared:
        return Agreement(None, 0, len(raters))
    table = np.full((len(raters), len(shared)), np.nan)
    for (rater, unit), value in cells.items():
        if unit in shared:
            table[raters[rater], shared[unit]] = value
    return Agreement(_alpha(table, level), len(shared), len(raters))


def of_ballots(ballots: Sequence[Ballot]) -> Agreement:
    """Agreement on the verdict of rounds that several voters judged (nominal)."""
    code = {name: float(number) for number, name in enumerate(VERDICTS)}
    return alpha(
        ((ballot.voter, ballot.round, code[ballot.verdict]) for ballot in ballots), "nominal"
    )


def _alpha(table: np.ndarray[Any, np.dtype[np.float64]], level: Level) -> float | None:
    if len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    import krippendorff

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))
    return value if np.isfinite(value) else None


GUESSING = sum(passes(kind, "a") for kind in KINDS) / len(KINDS)
"""Share of the verdicts that reject the bad side: 2 of 4, the other side and both bad."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The checks of one voter. `rate` in [0, 1] has Wilson's 95 % interval; `votes` are all votes.

    `careless` means that even the upper end of the interval is below guessing.
    """

    voter: str
    votes: int
    asked: int
    passed: int
    rate: float
    interval: tuple[float, float]
    careless: bool


def attention_of_voters(store: Store) -> list[Attention]:
    """All voters with checks, the lowest rates first, named by the start of their hash."""
    rounds: dict[str, list[Round]] = defaultdict(list)
    with store.database.read() as session:
        for round_ in session.scalars(select(Round).join(Vote)):
            rounds[round_.voter].append(round_)
    voters = [_attention(voter, own) for voter, own in rounds.items()]
    return sorted(
        (voter for voter in voters if voter.asked), key=lambda voter: (voter.rate, -voter.asked)
    )


def _attention(voter: str, rounds: list[Round]) -> Attention:
    from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

    checks = [round_ for round_ in rounds if round_.check_side]
    hits = sum(map(passed, checks))
    if not checks:
        return Attention(voter[:12], len(rounds), 0, 0, 0.0, (0.0, 1.0), False)
    low, high = binomtest(hits, len(checks)).proportion_ci(method="wilson")
    return Attention(
        voter[:12],
        len(rounds),
        len(checks),
        hits,
        hits / len(checks),
        (float(low), float(high)),
        bool(high < GUESSING),
    )


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
