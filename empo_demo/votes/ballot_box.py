"""The ballots of a database: every vote that no reason keeps out of the ranking.

Attention checks, hidden rounds and the like are left out by `reasons.py`, the one place that says
so; how many, and why, is what `votes stats` prints.
"""

from __future__ import annotations

from sqlalchemy import select

from empo_demo.settings import load_settings
from empo_demo.votes.ballots import Ballot
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.store import Store


def ballots_of_database(url: str | None = None) -> list[Ballot]:
    """Open `url` (or EMPO_DATABASE), read, close."""
    store = Store.open(url or load_settings().database, create=False)
    try:
        return ballots_of_store(store)
    finally:
        store.close()


def ballots_of_store(store: Store) -> list[Ballot]:
    """All ballots that count, in the order of the votes."""
    with store.database.read() as session:
        rounds = session.scalars(select(Round).join(Vote).order_by(Vote.id)).all()
        return [ballot_of_round(round_) for round_ in rounds if _counts(round_)]


def ballot_of_round(round_: Round) -> Ballot:
    """One voted round without its texts; lengths are in words."""
    assert round_.vote is not None, "only a voted round is a ballot"
    a, b = round_.reply("a"), round_.reply("b")
    return Ballot(
        round=round_.id,
        voter=round_.voter,
        a=a.contender,
        b=b.contender,
        verdict=round_.vote.verdict,
        len_a=float(len((a.text or "").split())),
        len_b=float(len((b.text or "").split())),
        time=round_.vote.created_at,
        exposure=_exposure(round_),
        ratings=round_.vote.ratings,
    )


def _counts(round_: Round) -> bool:
    from empo_demo.votes.reasons import reason_left_out

    a, b = round_.reply("a").contender, round_.reply("b").contender
    return a != b and reason_left_out(round_) is None


def _exposure(round_: Round) -> str:
    shown = [
        name for name, flag in (("chips", round_.show_chips), ("plots", round_.show_plots)) if flag
    ]
    return "+".join(shown) or "nothing"
