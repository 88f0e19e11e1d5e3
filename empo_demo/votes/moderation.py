"""What a moderator does at the terminal: list the newest voted rounds, and hide one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from empo_demo.errors import NotFound
from empo_demo.votes.database import changed
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store


def newest(store: Store, limit: int) -> list[dict[str, Any]]:
    """The newest voted rounds, for a moderator: id, time, verdict, and why they are left out."""
    query = select(Round).join(Vote).order_by(Vote.id.desc()).limit(limit)
    with store.database.read() as session:
        found = list(session.scalars(query))
    return [
        {
            "round_id": round_.id,
            "time": round_.vote.created_at.isoformat(),
            "verdict": round_.vote.verdict,
            "left_out": reason_left_out(round_),
            "hidden_reason": round_.hidden_reason,
        }
        for round_ in found
        if round_.vote is not None
    ]


def hide(store: Store, round_id: str, reason: str) -> None:
    """Hide a round: it stays stored, but leaves every export and ranking."""
    with store.database.write() as session:
        done = session.execute(
            update(Round).where(Round.id == round_id).values(hidden_reason=reason)
        )
        if changed(done) != 1:
            raise NotFound(f"There is no round {round_id!r}. `votes list` shows them.")
