"""How many votes it takes to tell a share from one half, simulated as the Board counts.

People differ in taste, so votes of one person resemble each other. Each simulated person has a win
rate of their own, drawn from a beta distribution whose mean is the share and whose intraclass
correlation is `correlation` (Ridout, Demétrio and Firth 1999, "Estimating Intraclass Correlation
for Binary Data"), and casts a geometric number of votes. A share is told from one half if the
Board's clustered interval lies above it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from empo_demo.board.ballots import Ballot
from empo_demo.board.standing import wilson
from empo_demo.errors import InvalidInput, Sentence
from empo_demo.votes.models import DECISIVE

if TYPE_CHECKING:
    from numpy.typing import NDArray

CORRELATION = 0.07
"""303 judges of 15 pairs each (CEMS; Dittrich, Hatzinger and Katzenbeisser 1998) make the standard
error 30 to 53 % larger than that of independent votes: correlations of .05 to .10."""
PER_PERSON = 5.0
ENOUGH_VOTES, ENOUGH_PEOPLE = 300, 30
"""From so many votes on, a board's own correlation and votes per person are taken."""
SIMULATIONS = 1_000
MOST_VOTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is to be told from one half, how surely, and how people vote."""

    share: float = 0.55
    power: float = 0.8
    per_person: float = PER_PERSON
    correlation: float = CORRELATION

    def check(self) -> None:
        """Raises `InvalidInput` for numbers that no votes can have."""
        spans = {"share": (0.5, 1.0), "power": (0.0, 1.0), "correlation": (-1e-9, 1.0)}
        for name, (low, high) in spans.items():
            if not low < getattr(self, name) < high:
                raise InvalidInput(
                    f"The {name} is {getattr(self, name):g}; a number between "
                    f"{max(0.0, low):g} and {high:g} is expected."
                )
        if self.per_person < 1:
            raise InvalidInput(f"{self.per_person:g} votes per person are fewer than one.")


@dataclass(frozen=True, slots=True)
class Needed:
    """The votes, of so many people, and the share of simulated boards that told it."""

    setting: Setting
    votes: int
    people: int
    reached: float

    def as_json(self) -> dict[str, Any]:
        found = {"votes": self.votes, "people": self.people, "reached": self.reached}
        return {**asdict(self.setting), **found}

    def sentence(self, votes: int, voters: int) -> str:
        """For a board of `votes` decided votes by `voters` people."""
        return Sentence(
            "To tell {share} from 50%, about {votes} votes by {people} people are needed; {so_far} "
            "votes by {voters} are here.",
            share=f"{self.setting.share:.0%}",
            votes=f"{rounded(self.votes):,}",
            people=f"{rounded(self.people):,}",
            so_far=f"{votes:,}",
            voters=f"{voters:,}",
        )


@cache
def needed(setting: Setting, *, simulations: int = SIMULATIONS, seed: int = 0) -> Needed:
    """The fewest votes at which the share is told from one half with the power wanted.

    Raises `InvalidInput` for impossible settings, and for more than `MOST_VOTES` votes.
    """
    setting.check()
    low, high = 2, 4
    while power_at(high, setting, simulations, seed) < setting.power:
        low, high = high, 2 * high
        if high * setting.per_person > MOST_VOTES:
            raise InvalidInput(f"More than {MOST_VOTES:,} votes would be needed.")
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if power_at(middle, setting, simulations, seed) < setting.power:
            low = middle
        else:
            high = middle
    reached = power_at(high, setting, simulations, seed)
    return Needed(setting, round(high * setting.per_person), high, reached)


def power_at(people: int, setting: Setting, simulations: int = SIMULATIONS, seed: int = 0) -> float:
    """The share of simulated boards of so many people whose interval lies above one half."""
    draw = np.random.default_rng((seed, people))
    detections = 0
    for begin in range(0, simulations, _block(people)):
        size = (min(_block(people), simulations - begin), people)
        votes = draw.geometric(1 / setting.per_person, size)
        if setting.correlation:
            both = 1 / setting.correlation - 1
            shares = draw.beta(setting.share * both, (1 - setting.share) * both, size)
        else:
            shares = np.full(size, setting.share)
        low, _ = _intervals(draw.binomial(votes, shares), votes)
        detections += int((low > 0.5).sum())
    return detections / simulations


def setting_of(ballots: Sequence[Ballot], setting: Setting) -> Setting:
    """`setting` with a board's own votes per person and correlation, if it has enough votes."""
    decided = [ballot for ballot in ballots if ballot.verdict in DECISIVE]
    votes = np.array(list(Counter(ballot.voter for ballot in decided).values()), dtype=float)
    if len(decided) < ENOUGH_VOTES or len(votes) < ENOUGH_PEOPLE:
        return setting
    # Of two sides it does not matter whose wins are counted, but it must be the same one.
    first = min(min(ballot.a, ballot.b) for ballot in decided)
    wins: Counter[str] = Counter()
    for ballot in decided:
        wins[ballot.voter] += (ballot.a if ballot.verdict == "a" else ballot.b) == first
    effect = float(_design_effect(np.array([list(wins.values())], dtype=float), votes[None])[0])
    excess = float((votes**2).sum() / votes.sum()) - 1
    correlation = min(0.9, max(0.0, (effect - 1) / excess)) if excess > 0 else 0.0
    return replace(
        setting, per_person=round(float(votes.mean()), 1), correlation=round(correlation, 2)
    )


def rounded(number: int) -> int:
    """Two significant digits: a simulation knows no more."""
    digits = max(0, len(str(number)) - 2)
    unit: int = 10**digits
    return math.ceil(number / unit) * unit


def _block(people: int) -> int:
    return max(1, 2_000_000 // people)


def _intervals(
    wins: NDArray[np.int64], votes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Board's interval of each row: a simulated board, its people in the columns."""
    total = votes.sum(axis=1)
    return wilson(wins.sum(axis=1) / total, total / _design_effect(wins, votes))


def _design_effect(wins: NDArray[Any], votes: NDArray[Any]) -> NDArray[np.float64]:
    """The clustered variance of the mean over the unclustered one, at least 1, by row."""
    total = votes.sum(axis=1)
    mean = wins.sum(axis=1) / total
    plain = mean * (1 - mean) / total
    people = votes.shape[1]
    clustered = ((wins - votes * mean[:, None]) ** 2).sum(axis=1) / total**2 * people / (people - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.maximum(1.0, clustered / plain)
    # Where nobody differs, the people count and not their votes.
    return np.asarray(np.where(plain > 0, effect, total / people), dtype=float)
