"""What people prefer: aligned or base, longer or shorter, with a question or without.

A voter's own votes come as counts, because ten votes are too few for an estimate. Everybody's come
as shares with intervals, and only from votes older than a day, so that they sway nobody who is
voting now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import select

from empo_demo.contenders.roster import UNGUIDED
from empo_demo.metrics.lexical import asks, words
from empo_demo.metrics.statistics import Interval, bootstrap_interval
from empo_demo.votes.models import VERDICTS, Round, Vote, now
from empo_demo.votes.reasons import WAIT, may_be_used
from empo_demo.votes.stats import ENOUGH
from empo_demo.votes.store import Store

REMEMBERED = 3_600.0
"""Seconds for which everybody's shares are kept: they change once a day."""
_RESAMPLES = 2_000


class Answer(NamedTuple):
    """What is known of a reply: the id of its contender, and its text."""

    contender: str
    text: str


@dataclass(frozen=True, slots=True)
class Habit:
    """A respect in which two replies may differ: what it is called to have it, and to have it not.

    `has` says whether the first of two replies has it and the second has it not.
    """

    name: str
    one: str
    other: str

    def has(self, first: Answer, second: Answer) -> bool:
        if self.name == "alignment":
            return (family(first.contender), family(second.contender)) == ("aligned", "base")
        if self.name == "length":
            return len(words(first.text)) > len(words(second.text))
        return asks(first.text) and not asks(second.text)


HABITS = (
    Habit("alignment", "aligned", "base"),
    Habit("length", "longer", "shorter"),
    Habit("question", "asking", "telling"),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Votes on replies that differ in a habit: how many preferred `one`, `other`, or neither."""

    one: int = 0
    other: int = 0
    neither: int = 0

    def plus(self, preferred: int) -> Counts:
        """With one more vote: 1 for `one`, -1 for `other`, 0 for neither."""
        return Counts(
            self.one + (preferred > 0),
            self.other + (preferred < 0),
            self.neither + (preferred == 0),
        )


@dataclass(frozen=True, slots=True)
class Share:
    """Of `votes` that preferred one of the two, the share in [0, 1] that preferred `one`, with its
    95 % interval, which counts a voter as one."""

    votes: int
    one: float
    interval: Interval


def family(contender: str) -> str:
    """The model of a contender, whatever its prompt strategy: `aligned` for `aligned+HEF`."""
    return contender.removesuffix(UNGUIDED).partition("+")[0]


def preferences(a: Answer, b: Answer, verdict: str) -> dict[str, int]:
    """By the name of each habit in which the sides differ, what the verdict preferred: 1 the side
    that has it, -1 the other, 0 neither."""
    preferred = VERDICTS[verdict].preferred
    shares = {}
    for habit in HABITS:
        holder = "a" if habit.has(a, b) else "b" if habit.has(b, a) else None
        if holder is not None:
            shares[habit.name] = 0 if preferred is None else 1 if preferred == holder else -1
    return shares


def count(votes: Iterable[tuple[Answer, Answer, str]]) -> dict[str, Counts]:
    """The counts of each habit over votes, each with its sides a and b and its verdict."""
    counts = {habit.name: Counts() for habit in HABITS}
    for a, b, verdict in votes:
        for name, preferred in preferences(a, b, verdict).items():
            counts[name] = counts[name].plus(preferred)
    return counts


@dataclass
class Everybody:
    """Everybody's shares over one store. They are measured once an hour, when somebody asks."""

    store: Store
    _found: Mapping[str, Share | None] = field(default_factory=dict)
    _until: float = 0.0

    def shares(self) -> Mapping[str, Share | None]:
        """By the name of each habit; None where fewer than `ENOUGH` votes preferred a side."""
        if time.monotonic() >= self._until:
            self._found = measure(self.store)
            self._until = time.monotonic() + REMEMBERED
        return self._found


def measure(store: Store) -> dict[str, Share | None]:
    """The shares over all votes that may be used and are older than a day."""
    query = select(Round).join(Vote).where(*may_be_used(), Vote.created_at < now() - WAIT)
    decided: dict[str, list[tuple[bool, str]]] = {habit.name: [] for habit in HABITS}
    with store.database.read() as session:
        for round_ in session.scalars(query.execution_options(yield_per=1_000)):
            assert round_.vote is not None, "the query joins the votes"
            a, b = (Answer(one.contender, one.text or "") for one in map(round_.reply, "ab"))
            for name, preferred in preferences(a, b, round_.vote.verdict).items():
                if preferred:
                    decided[name].append((preferred > 0, round_.voter))
    return {name: _share(votes) for name, votes in decided.items()}


def _share(votes: list[tuple[bool, str]]) -> Share | None:
    if len(votes) < ENOUGH:
        return None
    values, voters = [float(vote) for vote, _ in votes], [voter for _, voter in votes]
    interval = bootstrap_interval(values, groups=voters, resamples=_RESAMPLES)
    return Share(len(votes), sum(values) / len(values), interval)
