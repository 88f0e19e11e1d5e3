"""How far people's votes can be trusted: their agreement, and their attention.

Agreement is Krippendorff's alpha, by the `krippendorff` package: 1 for full agreement, 0 for
chance, and None if nothing was judged twice.

Attention is how often a voter rejects a known bad reply. It is a report for the maintainer; no
vote is dropped because of it. Some voters fail by chance, so a voter is marked only if the
interval of the hit rate is below the rate of guessing.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import select

from empo_demo.board.ballots import Ballot
from empo_demo.errors import Sentence
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import passed, passes
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import KINDS, VERDICTS

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
    return sorted((one for one in voters if one.asked), key=lambda one: (one.rate, -one.asked))


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
