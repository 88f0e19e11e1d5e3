"""What a visitor does, how time passes, and all that is then stored or can be downloaded."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.exchange.export import write_export
from empo_demo.votes.models import Base, Limit, Round, Vote, Voter
from empo_demo.votes.store import Store

TEXT = "I failed my driving test again."


def opened(arena: Arena, voter: str, said: str = TEXT, *, agreed: bool = True, **more: Any) -> str:
    """An answered round."""
    version = arena.consent_text().version if agreed else None
    round_id = arena.open_round(voter, Dialogue(), said, consent=version, **more).round_id
    list(arena.stream(voter, round_id))
    return round_id


def cast(
    arena: Arena,
    voter: str,
    said: str = TEXT,
    comment: str = "",
    *,
    agreed: bool = True,
    **more: Any,
) -> str:
    round_id = opened(arena, voter, said, agreed=agreed, **more)
    arena.vote(voter, round_id, "a", ratings={"natural": 70}, comment=comment)
    return round_id


def later(store: Store, **by: float) -> None:
    """Time passes for all that is stored."""
    since = timedelta(**by)
    with store.database.write() as session:
        for table, name in (
            (Round, "created_at"),
            (Vote, "created_at"),
            (Vote, "comment_at"),
            (Limit, "at"),
            (Voter, "created_at"),
        ):
            for row in session.scalars(select(table)):
                if getattr(row, name) is not None:
                    setattr(row, name, getattr(row, name) - since)


def published(arena: Arena, folder: Path) -> str:
    """All that a stranger can download."""
    whole = ""
    for form in ("trl", "kto", "csv"):
        write_export(arena.store, form, folder / form, public=True)
        whole += (folder / form).read_text(encoding="utf8")
    return whole


def everything(store: Store) -> str:
    """Every value of every table, as text."""
    with store.database.read() as session:
        return json.dumps(
            [
                [list(row) for row in session.execute(select(table))]
                for table in Base.metadata.sorted_tables
            ],
            default=str,
            ensure_ascii=False,
        )
