"""The votes of this installation that say which reply is better.

It reads the database and changes nothing. Votes that are left out are counted by reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from empo_demo.evaluation.metric_agreement import ORDER, VotePair
from empo_demo.settings import Settings
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store


def read_vote_pairs(settings: Settings) -> tuple[list[VotePair], dict[str, int]]:
    """The pairs in order of time, and the number of votes that were left out, by reason.

    An installation without a database has no votes. Raises `StorageError` if it is broken.
    """
    from sqlalchemy import select
    from sqlalchemy.engine import make_url

    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not _exists(url.database):
        return [], {}
    store = Store.open(settings.database, create=False)
    pairs: list[VotePair] = []
    left_out: Counter[str] = Counter()
    try:
        with store.database.read() as session:
            for round_ in session.scalars(select(Round).join(Vote).order_by(Vote.id)):
                reason = _left_out(round_)
                if reason:
                    left_out[reason] += 1
                else:
                    pairs.append(_pair(round_))
    finally:
        store.close()
    return pairs, dict(left_out)


def _left_out(round_: Round) -> str | None:
    """Why a vote says nothing about the metrics; None if it does."""

    reason = reason_left_out(round_)
    if reason is not None:
        return reason
    if round_.vote is None or round_.vote.verdict not in ORDER:
        return "both bad"
    return "no text" if any(not reply.text for reply in round_.replies) else None


def _pair(round_: Round) -> VotePair:
    user = next(turn for turn in reversed(round_.dialogue) if turn["role"] == "user")
    assert round_.vote is not None
    return VotePair(
        voter=round_.voter,
        user=str(user["content"]),
        a=round_.reply("a").text or "",
        b=round_.reply("b").text or "",
        verdict=round_.vote.verdict,
    )


def _exists(path: str | None) -> bool:
    return path is not None and path != ":memory:" and Path(path).exists()
