"""The ranking of a set of ballots: rates, strengths and effects, all with intervals.

`rank` hides nothing. `Standing.status` says what a page may show: "hidden" below 30 decided votes,
"preliminary" below 300. Every interval is clustered by voter.

A Bradley–Terry strength is limited from above only if somebody who is limited won against it
(Ford 1957): each set of contenders that beat one another stands for itself, and a set that won all
its votes against the others may be as strong as one likes. A tie limits both sides, unless every
vote is a tie. Such an end (`Separation`) is left open; the other end is what the votes exclude at
95 %.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from empo_demo.board.ballots import Ballot
from empo_demo.board.ranking import PHANTOM, Array, Design, Fit, bootstrap, design_of, fit
from empo_demo.metrics.statistics import percentiles
from empo_demo.votes.models import DECISIVE, VERDICTS

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


Interval = tuple[float, float]
Status = Literal["hidden", "preliminary", "settled"]
HIDDEN_BELOW, PRELIMINARY_BELOW = 30, 300
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of votes, with its 95 % interval clustered by voter (None without any vote)."""

    count: int
    total: int
    rate: float | None
    interval: Interval | None

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "rate": self.rate, "interval": _list(self.interval)}


@dataclass(frozen=True, slots=True)
class Effect:
    """A coefficient in natural-log odds, with its 95 % interval from the bootstrap."""

    estimate: float
    interval: Interval

    def as_json(self) -> dict[str, Any]:
        return {"estimate": self.estimate, "interval": _list(self.interval)}


@dataclass(frozen=True, slots=True)
class Standing:
    """One contender. `decided` counts its votes for one of the sides; a tie is half a win.

    An end of a strength's interval that the votes do not limit is infinite (null in JSON), and
    `separation` says why; then only the weak prior keeps `strength` finite. Strengths compare
    within a `group` only; it is None for a contender without a vote that compares.
    """

    id: str
    votes: int
    decided: int
    win_rate: float | None
    win_rate_interval: Interval | None
    strength: float | None
    strength_interval_bootstrap: Interval | None
    strength_interval_sandwich: Interval | None
    group: int | None = None
    separation: Separation | None = None

    @property
    def status(self) -> Status:
        if self.decided < HIDDEN_BELOW:
            return "hidden"
        return "preliminary" if self.decided < PRELIMINARY_BELOW else "settled"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "win_rate": self.win_rate,
            "win_rate_interval": _list(self.win_rate_interval),
            "strength": self.strength,
            "strength_interval_bootstrap": _list(self.strength_interval_bootstrap),
            "strength_interval_sandwich": _list(self.strength_interval_sandwich),
            "votes": self.votes,
            "decided": self.decided,
            "status": self.status,
            "group": self.group,
            "separated": self.separation.kind if self.separation else None,
            "separated_with": list(self.separation.others) if self.separation else [],
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """The whole ranking. `position` > 0 favours side a; `length` is per doubling of the words."""

    contenders: tuple[Standing, ...]
    ties: Rate
    nu: float | None
    both_bad: Rate
    position: Effect | None
    length: Effect | None
    votes: int
    decided: int
    voters: int

    @property
    def groups(self) -> tuple[tuple[Standing, ...], ...]:
        """The contenders by group. Those without a vote that compares are left out."""
        numbers = sorted(
            {standing.group for standing in self.contenders if standing.group is not None}
        )
        return tuple(
            tuple(standing for standing in self.contenders if standing.group == number)
            for number in numbers
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "groups": [[member.id for member in group] for group in self.groups],
            "contenders": [standing.as_json() for standing in self.contenders],
            "ties": {**self.ties.as_json(), "davidson_nu": self.nu},
            "both_bad": self.both_bad.as_json(),
            "position_effect": self.position.as_json() if self.position else None,
            "length_effect": self.length.as_json() if self.length else None,
            "votes": self.votes,
            "decided": self.decided,
            "voters": self.voters,
        }


def rank(
    ballots: Sequence[Ballot], *, samples: int = 1000, seed: int = 0, prior: float = PHANTOM
) -> Ranking:
    """Rank the contenders of `ballots`, group by group, the strongest of each first.

    No ballots give an empty ranking.
    """
    design = design_of(ballots)
    estimate = fit(design, prior) if len(design.outcome) else None
    drawn = bootstrap(estimate, samples, seed) if estimate is not None and samples else None
    open_ends = separations(estimate) if estimate else [None] * len(design.ids)
    standings = [
        _standing(number, ballots, design, estimate, drawn, open_ends[number])
        for number in range(len(design.ids))
    ]
    standings.sort(
        key=lambda standing: (
            len(design.ids) if standing.group is None else standing.group,
            -(standing.strength or 0.0),
            standing.id,
        )
    )
    return Ranking(
        contenders=tuple(standings),
        ties=_rate([VERDICTS[ballot.verdict].outcome == 0 for ballot in ballots], ballots),
        nu=estimate.nu if estimate else None,
        both_bad=_rate([ballot.verdict == "both_bad" for ballot in ballots], ballots),
        position=_effect(estimate, drawn, design.position),
        length=_effect(estimate, drawn, design.length),
        votes=len(ballots),
        decided=sum(ballot.verdict in DECISIVE for ballot in ballots),
        voters=len({ballot.voter for ballot in ballots}),
    )


def clustered_rate(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, Interval]:
    """Mean of 0/½/1 values and its 95 % interval, which always lies inside [0, 1].

    It is Wilson's interval for the effective number of votes: n divided by the design effect (the
    clustered variance of the mean over the unclustered one, at least 1).
    """
    y = np.asarray(values, dtype=np.float64)
    n, mean = len(y), float(y.mean())
    plain = float(((y - mean) ** 2).sum()) / n**2
    groups = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros(len(groups))
    np.add.at(sums, [groups[name] for name in clusters], y - mean)
    clustered = float((sums**2).sum()) / n**2 * len(groups) / max(1, len(groups) - 1)
    effect = max(1.0, clustered / plain) if plain > 0 and len(groups) > 1 else 1.0
    if plain == 0:
        effect = n / len(groups)
    low, high = wilson(np.array([mean]), np.array([n / effect]))
    return mean, (float(low[0]), float(high[0]))


def wilson(mean: Array, size: Array) -> tuple[Array, Array]:
    """The ends of Wilson's (1927) 95 % interval of shares, each of `size` independent votes."""
    centre = (mean + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = np.sqrt(mean * (1 - mean) / size + _Z**2 / (4 * size**2)) * _Z / (1 + _Z**2 / size)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def _standing(
    number: int,
    ballots: Sequence[Ballot],
    design: Design,
    estimate: Fit | None,
    drawn: Array | None,
    separation: Separation | None,
) -> Standing:
    name = design.ids[number]
    own = [ballot for ballot in ballots if name in (ballot.a, ballot.b)]
    judged = [ballot for ballot in own if VERDICTS[ballot.verdict].outcome is not None]
    wins = [_points(ballot, name) for ballot in judged]
    rate, interval = (
        clustered_rate(wins, [ballot.voter for ballot in judged]) if judged else (None, None)
    )
    strength = sandwich = boot = None
    if estimate is not None and judged:
        strength = float(estimate.strengths[number])
        error = float(estimate.strength_errors[number])
        sandwich = (strength - _Z * error, strength + _Z * error)
        if drawn is not None:
            boot = percentiles(_strengths(estimate.design, drawn)[:, number])
        if separation is not None:
            sandwich = separation.interval(strength, sandwich)
            boot = separation.interval(strength, boot) if boot is not None else None
    decided = sum(ballot.verdict in DECISIVE for ballot in own)
    group = design.groups[number] if design.groups[number] >= 0 else None
    return Standing(
        name, len(own), decided, rate, interval, strength, boot, sandwich, group, separation
    )


def _points(ballot: Ballot, name: str) -> float:
    outcome = VERDICTS[ballot.verdict].outcome or 0.0
    return (1 + (outcome if name == ballot.a else -outcome)) / 2


def _strengths(design: Design, drawn: Array) -> Array:
    return drawn[:, : design.basis.shape[1]] @ design.basis.T


def _effect(fitted: Fit | None, drawn: Array | None, column: int | None) -> Effect | None:
    if fitted is None or column is None:
        return None
    estimate, error = fitted.effect(column) or (0.0, 0.0)
    interval = (estimate - _Z * error, estimate + _Z * error)
    if drawn is not None:
        interval = percentiles(drawn[:, column])
    outcome = fitted.design.outcome
    if column == fitted.design.position and abs(outcome.sum()) == len(outcome):
        # One side won every vote, so its effect has no limit on that side.
        _, (low, _) = clustered_rate([1.0] * len(outcome), fitted.design.clusters.tolist())
        least = math.log(low / (1 - low))
        interval = (least, math.inf) if outcome[0] > 0 else (-math.inf, -least)
    return Effect(estimate, interval)


def _rate(hits: Sequence[bool], ballots: Sequence[Ballot]) -> Rate:
    if not hits:
        return Rate(0, 0, None, None)
    rate, interval = clustered_rate(
        [float(hit) for hit in hits], [ballot.voter for ballot in ballots]
    )
    return Rate(int(sum(hits)), len(hits), rate, interval)


def _list(interval: Interval | None) -> list[float | None] | None:
    """An interval for JSON, which has no word for infinity: null at an end without a limit."""
    if interval is None:
        return None
    return [end if math.isfinite(end) else None for end in interval]
