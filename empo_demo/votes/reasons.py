"""Why a vote is left out of exports and of the ranking: the first reason that applies.

A moderator lists the newest voted rounds with their reasons, and gives one: the round is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, select, update

from empo_demo.errors import NotFound
from empo_demo.votes.database import changed
from empo_demo.votes.models import VERDICTS, Reply, Round, VerdictKind, Vote
from empo_demo.votes.store import Store

REASONS = (
    "no consent",
    "void",
    "hidden by a moderator",
    "crisis language",
    "personal data",
    "identity question",
    "attention check",
    "a stopped reply",
)
NO_PREFERENCE = "no preference (tie or both bad)"
NO_LABEL = "no label (about equal)"
ONE_CONTENDER = "both sides by one contender"
OTHER_STRATEGY = "sides of different strategies"
TOO_YOUNG = "younger than 24 hours"
WAIT = timedelta(hours=24)
"""Nothing of a vote is published, or told to other people, before its newest text has this age."""


def reason_left_out(round_: Round) -> str | None:
    """The first of `REASONS` that applies to a voted round; None if the vote may be used."""
    holds = {
        "no consent": round_.ephemeral or round_.consent is None,
        "void": round_.void_reason is not None,
        "hidden by a moderator": round_.hidden_reason is not None,
        "crisis language": round_.crisis,
        "personal data": round_.personal,
        "identity question": round_.identity,
        "attention check": round_.check_side is not None,
        "a stopped reply": any(reply.reason == "stopped" for reply in round_.replies),
    }
    return next((reason for reason in REASONS if holds[reason]), None)


def may_be_used() -> tuple[ColumnElement[bool], ...]:
    """`reason_left_out(round_) is None` as conditions of a query."""
    stopped = select(Reply.side).where(Reply.round_id == Round.id, Reply.reason == "stopped")
    return (
        Round.ephemeral.is_(False),
        Round.consent.is_not(None),
        Round.void_reason.is_(None),
        Round.hidden_reason.is_(None),
        Round.crisis.is_(False),
        Round.personal.is_(False),
        Round.identity.is_(False),
        Round.check_side.is_(None),
        ~stopped.exists(),
    )


def left_out_line(counts: Mapping[str, int]) -> str:
    """The number of votes that were left out, by reason, in words; empty if there are none."""
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"left out: {reasons}" if reasons else ""


def not_stored(withdrawn: int, bad: int, unit: str) -> str:
    """The end of a sentence about an import: what was not stored; empty if all was stored."""
    said = f", {withdrawn:,} had been withdrawn" if withdrawn else ""
    return said + (f", {bad:,} bad {unit} left out" if bad else "")


def mixed_strategies(round_: Round) -> bool:
    """Whether only one side was guided. Then the pair compares prompts, not only models."""
    return round_.reply("a").strategy != round_.reply("b").strategy


def passes(kind: VerdictKind, bad_side: str | None) -> bool:
    """Whether a verdict finds the bad side of a check neither better nor equal."""
    return kind.outcome != 0 and kind.preferred != bad_side


def passed(round_: Round) -> bool:
    """Whether the vote of a check round rejected its bad side."""
    kind = VERDICTS.get(round_.vote.verdict) if round_.vote is not None else None
    return kind is not None and passes(kind, round_.check_side)


def newest(store: Store, limit: int) -> list[dict[str, Any]]:
    """The newest voted rounds, for a moderator: id, time, verdict, and why they are left out."""
    query = select(Round).join(Vote).order_by(Vote.id.desc()).limit(limit)
    with store.database.read() as session:
        rounds = list(session.scalars(query))
    return [
        {
            "round_id": round_.id,
            "time": round_.vote.created_at.isoformat(),
            "verdict": round_.vote.verdict,
            "left_out": reason_left_out(round_),
            "hidden_reason": round_.hidden_reason,
        }
        for round_ in rounds
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
