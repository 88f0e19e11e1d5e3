"""Bradley–Terry with Davidson's ties: fit, clustered sandwich, bootstrap over voters.

Pure functions on arrays. With d = s_a − s_b + side + length·log2(len_a/len_b), the probabilities of
a, b and a tie are proportional to exp(d/2) : exp(−d/2) : ν (Davidson 1970; side term: Davidson &
Beaver 1977). So strengths are natural-log odds among decided rounds. Both-bad votes are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from empo_demo.board.ballots import Ballot
from empo_demo.votes.models import VERDICTS

Array = npt.NDArray[np.float64]
PHANTOM = 1.0
"""The weak prior: this many games in all, half won, half lost, against an average contender."""
_LIMIT = 30.0
_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class Design:
    """Rows as arrays. `x` (n × p) has the columns of d; `outcome` is 1 (a), −1 (b) or 0 (tie).

    `sides` (n × 2) are the places of a and b in `ids`. `groups` has the number of each contender's
    group, the one with the most votes first: contenders of two groups never met, not even over
    others. It is −1 for one without a vote that compares.
    """

    ids: tuple[str, ...]
    groups: tuple[int, ...]
    sides: npt.NDArray[np.intp]
    basis: Array
    x: Array
    outcome: Array
    clusters: npt.NDArray[np.intp]
    position: int | None
    length: int | None
    ties: bool

    @property
    def size(self) -> int:
        """The number of parameters: the columns of `x`, and log ν if there are ties."""
        return int(self.x.shape[1]) + int(self.ties)

    @property
    def voters(self) -> int:
        return int(self.clusters.max()) + 1 if len(self.clusters) else 0


@dataclass(frozen=True, slots=True)
class Fit:
    """Estimates with their clustered covariance. `strengths` are in the order of `design.ids`.

    Their mean is zero within each group.
    """

    design: Design
    parameters: Array
    covariance: Array
    prior: float

    @property
    def strengths(self) -> Array:
        return self.design.basis @ self.parameters[: self.design.basis.shape[1]]

    @property
    def strength_errors(self) -> Array:
        """Standard errors of the strengths."""
        k = self.design.basis.shape[1]
        spread = self.design.basis @ self.covariance[:k, :k] @ self.design.basis.T
        return np.sqrt(np.maximum(np.diag(spread), 0.0))

    def effect(self, column: int | None) -> tuple[float, float] | None:
        """Estimate and standard error of a column, or None if it cannot be estimated."""
        if column is None:
            return None
        return float(self.parameters[column]), float(np.sqrt(self.covariance[column, column]))

    @property
    def nu(self) -> float:
        """Davidson's ν: chance of a tie relative to a win between equals; 0 without ties."""
        return float(np.exp(self.parameters[-1])) if self.design.ties else 0.0


def design_of(
    ballots: Sequence[Ballot],
    *,
    position: bool = True,
    length: bool = True,
    clusters: Sequence[Hashable] | None = None,
) -> Design:
    """Arrays of the ballots whose verdict compares. Clusters are the voters unless given.

    The side and length columns are left out if the data cannot separate them from the others.
    """
    places = [i for i, ballot in enumerate(ballots) if VERDICTS[ballot.verdict].outcome is not None]
    rows = [ballots[i] for i in places]
    names = [rows[j].voter if clusters is None else clusters[i] for j, i in enumerate(places)]
    ids = tuple(sorted({side for ballot in ballots for side in (ballot.a, ballot.b)}))
    where = {name: i for i, name in enumerate(ids)}
    sides = np.array([(where[row.a], where[row.b]) for row in rows], dtype=np.intp).reshape(-1, 2)
    groups = _groups(sides, len(ids))
    basis = _centred_basis(groups)
    x = _differences(sides, len(ids)) @ basis
    at_side = at_length = None
    lengths = _log_lengths(rows)
    if position and _adds(x, np.ones(len(rows))):
        at_side, x = x.shape[1], np.column_stack([x, np.ones(len(rows))])
    if length and lengths is not None and _adds(x, lengths):
        at_length, x = x.shape[1], np.column_stack([x, lengths])
    outcome = np.array([VERDICTS[row.verdict].outcome for row in rows], dtype=np.float64)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    members = np.array([numbers[name] for name in names], dtype=np.intp)
    ties = bool((outcome == 0).any())
    return Design(ids, groups, sides, basis, x, outcome, members, at_side, at_length, ties)


def fit(design: Design, prior: float = PHANTOM) -> Fit:
    """Maximise the penalised likelihood. The covariance is the sandwich clustered by `clusters`."""
    ones = np.ones((1, len(design.outcome)))
    start = np.zeros((1, design.size))
    parameters = _newton(design, ones, start, prior)[0]
    return Fit(design, parameters, _sandwich(design, parameters, prior), prior)


def information(design: Design, parameters: Array, prior: float = PHANTOM) -> Array:
    """The negative Hessian at `parameters`. Its inverse is the model-based covariance."""
    ones = np.ones((1, len(design.outcome)))
    hessian: Array = _gradient_hessian(design, ones, parameters[None], prior)[1][0]
    return hessian


def bootstrap(estimate: Fit, samples: int = 1000, seed: int = 0) -> Array:
    """Parameters (samples × p) of refits on voters drawn with replacement.

    With a single voter, the votes are drawn instead.
    """
    design = estimate.design
    rng = np.random.default_rng(seed)
    groups = design.clusters if design.voters > 1 else np.arange(len(design.outcome))
    count = int(groups.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)
    step = max(1, _CHUNK // max(1, len(design.outcome)))
    results = []
    for low in range(0, samples, step):
        weights = drawn[low : low + step][:, groups]
        start = np.repeat(estimate.parameters[None], len(weights), axis=0)
        results.append(_newton(design, weights, start, estimate.prior))
    return np.concatenate(results)


def _groups(sides: npt.NDArray[np.intp], count: int) -> tuple[int, ...]:
    """Each contender's group, numbered by votes, the most first; −1 without any vote."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    votes = Counter(labels[sides[:, 0]].tolist())
    numbers = {label: number for number, (label, _) in enumerate(votes.most_common())}
    return tuple(numbers.get(label, -1) for label in labels.tolist())


def _centred_basis(groups: Sequence[int]) -> Array:
    """Orthonormal columns that span the vectors with mean zero within each group."""
    columns = [np.zeros((len(groups), 0))]
    for group in sorted(set(groups) - {-1}):
        members = np.flatnonzero(np.array(groups) == group)
        size = len(members)
        block: Array = np.linalg.svd(np.eye(size) - 1.0 / size)[0][:, : size - 1]
        spread = np.zeros((len(groups), size - 1))
        spread[members] = block
        columns.append(spread)
    return np.column_stack(columns)


def _differences(sides: npt.NDArray[np.intp], count: int) -> Array:
    x = np.zeros((len(sides), count))
    numbers = np.arange(len(sides))
    x[numbers, sides[:, 0]] = 1.0
    x[numbers, sides[:, 1]] = -1.0
    return x


def _log_lengths(rows: Sequence[Ballot]) -> Array | None:
    if any(row.len_a is None or row.len_b is None for row in rows):
        return None
    pairs = np.array([(row.len_a, row.len_b) for row in rows], dtype=np.float64).reshape(-1, 2)
    logs: Array = np.log2(np.maximum(pairs, 1.0))
    return logs[:, 0] - logs[:, 1]


def _adds(x: Array, column: Array) -> bool:
    """Whether `column` is linearly independent of the columns of `x`."""
    if len(column) == 0 or not np.any(column):
        return False
    rest = column - x @ np.linalg.lstsq(x, column, rcond=None)[0]
    return bool(np.linalg.norm(rest) > 1e-6 * np.linalg.norm(column))


def _chances(design: Design, parameters: Array) -> tuple[Array, Array]:
    """P(a) − P(b) and P(tie), each (B × n); overflow-free."""
    columns = design.x.shape[1]
    d = parameters[:, :columns] @ design.x.T / 2
    top = np.abs(d)
    plus, minus = np.exp(d - top), np.exp(-d - top)
    if not design.ties:
        return (plus - minus) / (plus + minus), np.zeros_like(d)
    tie = np.exp(np.minimum(parameters[:, -1:] - top, 2 * _LIMIT))
    total = plus + minus + tie
    return (plus - minus) / total, tie / total


def _scores(design: Design, parameters: Array) -> Array:
    """Each row's gradient (n × p) at one parameter vector, without the prior."""
    lead, tie = _chances(design, parameters[None])
    by_d = (design.outcome - lead[0]) / 2
    rows: Array = design.x * by_d[:, None]
    if not design.ties:
        return rows
    return np.column_stack([rows, (design.outcome == 0) - tie[0]])


def _gradient_hessian(
    design: Design, weights: Array, parameters: Array, prior: float
) -> tuple[Array, Array]:
    """Gradients (B × p) and negative Hessians (B × p × p) of weighted fits, prior included."""
    x, p = design.x, design.x.shape[1]
    lead, tie = _chances(design, parameters)
    gradient = np.zeros((len(parameters), design.size))
    hessian = np.zeros((len(parameters), design.size, design.size))
    gradient[:, :p] = (weights * (design.outcome - lead) / 2) @ x
    curve = weights * ((1 - tie) - lead**2) / 4
    hessian[:, :p, :p] = (curve @ (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)).reshape(
        -1, p, p
    )
    if design.ties:
        gradient[:, p] = (weights * ((design.outcome == 0) - tie)).sum(axis=1)
        cross = -(weights * lead * tie / 2) @ x
        hessian[:, :p, p] = hessian[:, p, :p] = cross
        hessian[:, p, p] = (weights * tie * (1 - tie)).sum(axis=1)
    _add_prior(design, parameters, prior, gradient, hessian)
    return gradient, hessian


def _add_prior(
    design: Design, parameters: Array, prior: float, gradient: Array, hessian: Array
) -> None:
    """Phantom games: `prior` in all over the contenders, and an equally weak one per effect."""
    k = design.basis.shape[1]
    share = prior / max(1, len(design.ids))
    strengths = parameters[:, :k] @ design.basis.T
    half = np.tanh(strengths / 2) / 2
    gradient[:, :k] -= share * half @ design.basis
    curve = share * (0.25 - half**2)
    hessian[:, :k, :k] += np.einsum("bi,ij,ik->bjk", curve, design.basis, design.basis)
    for column in range(k, design.size):
        half = np.tanh(parameters[:, column] / 2) / 2
        gradient[:, column] -= share * half
        hessian[:, column, column] += share * (0.25 - half**2)


def _newton(design: Design, weights: Array, start: Array, prior: float) -> Array:
    """Newton steps for all weightings at once. A step is at most 2 per parameter."""
    parameters = start.copy()
    ridge = 1e-10 * np.eye(design.size)
    for _ in range(100):
        gradient, hessian = _gradient_hessian(design, weights, parameters, prior)
        step = np.linalg.solve(hessian + ridge, gradient[..., None])[..., 0]
        largest = np.abs(step).max(axis=1, keepdims=True, initial=0.0)
        parameters += step * np.minimum(1.0, 2.0 / np.maximum(largest, 1e-300))
        np.clip(parameters, -_LIMIT, _LIMIT, out=parameters)
        if largest.max(initial=0.0) < 1e-9:
            break
    return parameters


def _sandwich(design: Design, parameters: Array, prior: float) -> Array:
    """H⁻¹ (Σ_voters u uᵀ) H⁻¹ · G/(G−1). With a single voter the votes are the clusters."""
    groups = design.clusters if design.voters > 1 else np.arange(len(design.outcome))
    count = int(groups.max()) + 1 if len(groups) else 0
    sums = np.zeros((count, design.size))
    np.add.at(sums, groups, _scores(design, parameters))
    bread = np.linalg.pinv(information(design, parameters, prior))
    return bread @ (sums.T @ sums) @ bread * count / max(1, count - 1)
