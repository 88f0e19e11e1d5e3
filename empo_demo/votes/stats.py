"""Counts of what is stored, and of why a vote is left out: each vote under one reason."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select

from empo_demo.rounds import Stats
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import REASONS, reason_left_out
from empo_demo.votes.store import Store


def count(store: Store) -> Stats:
    """All counts at one moment."""
    with store.database.read() as session:
        states = session.execute(select(Round.state, func.count()).group_by(Round.state)).tuples()
        rounds = dict(iter(states))
        voters = session.scalar(select(func.count(func.distinct(Round.voter))).join(Vote)) or 0
        voted = list(session.scalars(select(Round).join(Vote)))
    verdicts = Counter(round_.vote.verdict for round_ in voted if round_.vote)
    reasons = Counter(reason_left_out(round_) for round_ in voted)
    checks = [round_ for round_ in voted if round_.check_side]
    passed = sum(
        round_.vote is not None and round_.vote.verdict not in (round_.check_side, "tie")
        for round_ in checks
    )
    return Stats(
        rounds=rounds,
        votes=dict(verdicts),
        exportable=reasons[None],
        left_out={reason: reasons[reason] for reason in REASONS},
        voters=voters,
        fast=sum(bool(round_.vote and round_.vote.fast) for round_ in voted),
        withdrawn=0,
        checks={"asked": len(checks), "passed": passed},
        warnings=store.warnings,
    )
