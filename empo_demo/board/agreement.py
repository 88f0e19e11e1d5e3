"""Agreement between people: Krippendorff's alpha, by the `krippendorff` package.

Alpha is 1 for full agreement, 0 for chance, and None if nothing was judged twice. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from empo_demo.board.ballots import Ballot
from empo_demo.errors import Sentence
from empo_demo.votes.verdicts import VERDICTS

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
