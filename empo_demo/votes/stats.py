"""Counts of what is stored, and of the votes that are left out, each under one reason.

What is stored without consent is not counted, as nothing of it may be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from empo_demo.dialogue import Dialogue
from empo_demo.votes.models import DECISIVE, VERDICTS, Reply, Round, Vote, now
from empo_demo.votes.reasons import (
    REASONS,
    WAIT,
    may_be_used,
    mixed_strategies,
    passed,
    reason_left_out,
)
from empo_demo.votes.store import Store

ENOUGH = 30
"""By fewer votes than this nothing is told of other people."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts for the Data tab: rounds by state, votes by verdict, votes that exports leave out
    by reason, and the warnings of the storage."""

    rounds: dict[str, int]
    votes: dict[str, int]
    exportable: int
    left_out: dict[str, int]
    voters: int
    fast: int
    withdrawn: int
    checks: dict[str, int]
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def count(store: Store) -> Stats:
    """All counts at one moment."""
    agreed = Round.ephemeral.is_(False)
    with store.database.read() as session:
        by_state = select(Round.state, func.count()).where(agreed).group_by(Round.state)
        rounds = dict(iter(session.execute(by_state).tuples()))
        rounds_voted = list(session.scalars(select(Round).join(Vote).where(agreed)))
    verdicts = Counter(round_.vote.verdict for round_ in rounds_voted if round_.vote)
    reasons = Counter(reason_left_out(round_) for round_ in rounds_voted)
    checks = [round_ for round_ in rounds_voted if round_.check_side]
    hits = sum(map(passed, checks))
    return Stats(
        rounds=rounds,
        votes=dict(verdicts),
        exportable=reasons[None],
        left_out={reason: reasons[reason] for reason in REASONS},
        voters=len({round_.voter for round_ in rounds_voted}),
        fast=sum(bool(round_.vote and round_.vote.fast) for round_ in rounds_voted),
        withdrawn=len(store.erasure.tombstones()),
        checks={"asked": len(checks), "passed": hits},
        warnings=store.warnings,
    )


@dataclass(frozen=True, slots=True)
class PairVotes:
    """The kept votes between two contenders: how many preferred `one`, `other`, or neither."""

    one: int
    other: int
    neither: int

    @property
    def votes(self) -> int:
        return self.one + self.other + self.neither


def situation_votes(
    store: Store, dialogue: Dialogue, pair: tuple[str, str], revisions: Collection[str] = ()
) -> PairVotes:
    """The votes between `pair` on exactly this dialogue as an example, older than a day.

    Younger ones are told to nobody: they are not public yet, and could be traced to who voted just
    before. What the ranking leaves out is left out here. With `revisions`, only votes on these
    models count, not on others that had their names.
    """
    one, other = pair
    left, right = aliased(Reply), aliased(Reply)
    query = (
        select(left.contender, Vote.verdict, Round.dialogue)
        .join(Round, Round.id == Vote.round_id)
        .join(left, (left.round_id == Round.id) & (left.side == "a"))
        .join(right, (right.round_id == Round.id) & (right.side == "b"))
        .where(left.contender.in_(pair), right.contender.in_(pair))
        .where(left.contender != right.contender, *may_be_used())
        .where(Round.origin == "example", Vote.created_at < now() - WAIT)
    )
    if revisions:
        query = query.where(left.revision.in_(revisions), right.revision.in_(revisions))
    counts: Counter[str | None] = Counter()
    with store.database.read() as session:
        for on_a, verdict, said in session.execute(query).tuples():
            if said == dialogue.messages():
                preferred = VERDICTS[verdict].preferred if verdict in VERDICTS else None
                on_b = other if on_a == one else one
                counts[{"a": on_a, "b": on_b}.get(preferred or "")] += 1
    return PairVotes(counts[one], counts[other], counts[None])


def pairs_of(store: Store, token: str) -> int:
    """How many preference pairs the votes of a voter have made: those that an export trains on."""
    return sum(map(_makes_a_pair, store.rounds_of(token)))


def _makes_a_pair(round_: Round) -> bool:
    return (
        round_.vote is not None
        and round_.vote.verdict in DECISIVE
        and reason_left_out(round_) is None
        and not mixed_strategies(round_)
    )
