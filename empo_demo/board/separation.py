"""Strengths that the votes cannot limit: of contenders that won, or lost, everything.

A Bradley–Terry strength is limited from above only if somebody who is limited won against it
(Ford 1957): each set of contenders that beat one another stands for itself, and a set that won all
its votes against the others may be as strong as one likes. A tie limits both sides, unless every
vote is a tie. Such an end is left open; the other end is what the votes exclude at 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from empo_demo.board.ranking import Array, Fit

Kind = Literal["won", "lost", "between", "tied"]
_CHANCE = 0.025
"""How likely the votes must be at the limit of a one-sided 95 % interval's end."""


@dataclass(frozen=True, slots=True)
class Separation:
    """Why a strength has an open end, with whom, and how far its other end is from the estimate.

    `won`: it and `others` won every vote against all the rest of the group. `lost`: they lost
    every one. `between`: they won all votes against some and lost all against some. `tied`: there
    are only ties. `reach` (log odds, not negative) is None where neither end has a limit.
    """

    kind: Kind
    others: tuple[str, ...] = ()
    reach: float | None = None

    def interval(self, strength: float, interval: tuple[float, float]) -> tuple[float, float]:
        """`interval` with an open end, which is infinite, and the other end by `reach`."""
        if self.reach is None:
            return -np.inf, np.inf
        if self.kind == "won":
            return min(strength, interval[0]) - self.reach, np.inf
        return -np.inf, max(strength, interval[1]) + self.reach


def separations(estimate: Fit) -> list[Separation | None]:
    """For each of the design's contenders why it has an open end; None if both ends are limited."""
    design = estimate.design
    decided = design.outcome != 0
    if not decided.any():
        return [Separation("tied") if group >= 0 else None for group in design.groups]
    sets = _sets(estimate)
    result: list[Separation | None] = [None] * len(design.ids)
    for number in range(int(sets.max()) + 1):
        members = np.flatnonzero(sets == number)
        inside = np.isin(design.sides, members)
        crossing = inside[:, 0] != inside[:, 1]
        if not crossing.any():
            continue
        won = np.where(inside[:, 0], design.outcome, -design.outcome)[crossing] > 0
        kind: Kind = "won" if won.all() else "between" if won.any() else "lost"
        reach = None if kind == "between" else _reach(estimate, crossing, inside[:, 0], members)
        for member in members:
            others = tuple(design.ids[other] for other in members if other != member)
            result[member] = Separation(kind, others, reach)
    return result


def _sets(estimate: Fit) -> npt.NDArray[np.intp]:
    """The number of the set of each contender: within one, everybody is limited by everybody."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    design = estimate.design
    a, b = design.sides[:, 0], design.sides[:, 1]
    not_lost, not_won = design.outcome >= 0, design.outcome <= 0
    winners = np.concatenate([a[not_lost], b[not_won]])
    losers = np.concatenate([b[not_lost], a[not_won]])
    size = len(design.ids)
    graph = coo_array((np.ones(len(winners)), (winners, losers)), shape=(size, size))
    labels: npt.NDArray[np.intp] = connected_components(graph, connection="strong")[1]
    return labels


def _reach(
    estimate: Fit,
    crossing: npt.NDArray[np.bool_],
    on_side_a: npt.NDArray[np.bool_],
    members: Sequence[int] | npt.NDArray[np.intp],
) -> float:
    """How far the members' strengths may move towards the others until the votes exclude it.

    The votes across are unanimous, so their likelihood grows with the distance. Each voter counts
    as one vote, as votes of one person are not independent.
    """
    design = estimate.design
    d = design.x[crossing] @ estimate.parameters[: design.x.shape[1]]
    won = np.where(on_side_a, design.outcome, -design.outcome)[crossing][0] > 0
    towards = np.where(on_side_a[crossing] == won, d, -d)
    voters = design.clusters[crossing]
    weights = 1.0 / np.bincount(voters)[voters]
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        if weights @ _log_win(towards - middle, estimate.nu) > np.log(_CHANCE):
            low = middle
        else:
            high = middle
    group = design.groups[int(members[0])]
    share = len(members) / design.groups.count(group)
    return low * (1 - share)


def _log_win(d: Array, nu: float) -> Array:
    """Davidson's log-probability of a win at distance `d`; overflow-free."""
    half = d / 2
    logs = [half, -half] + ([np.full_like(half, np.log(nu))] if nu > 0 else [])
    total: Array = half - np.logaddexp.reduce(np.stack(logs), axis=0)
    return total
