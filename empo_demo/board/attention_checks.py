"""Attention checks: how often each voter rejects a known bad reply.

This is a report for the maintainer; no vote is dropped because of it. Some voters fail by chance,
so a voter is marked only if the interval of the hit rate is below the rate of guessing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import passed, passes
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import KINDS

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


def report(store: Store) -> list[Attention]:
    """All voters with checks, the lowest rates first, named by the start of their hash."""
    rounds: dict[str, list[Round]] = defaultdict(list)
    with store.database.read() as session:
        for round_ in session.scalars(select(Round).join(Vote)):
            rounds[round_.voter].append(round_)
    found = [_attention(voter, own) for voter, own in rounds.items()]
    return sorted((one for one in found if one.asked), key=lambda one: (one.rate, -one.asked))


def as_json(found: list[Attention]) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


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
