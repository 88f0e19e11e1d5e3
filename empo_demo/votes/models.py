"""The tables: voters, rounds, replies, votes, and the tables that protect them; and the verdicts.

A row of `rounds` is written before anything is shown, its two `replies` before anybody can vote.
There is at most one row of `votes` per round (`UNIQUE(round_id)`). Times are UTC. A voter is stored
as the SHA-256 of the token. Addresses are never stored, only keyed hashes in `limits`, for minutes.

`KINDS` is the only place that defines a verdict: what a visitor may say of two replies, and the
consequences. Buttons and keys, the check of a vote, the ranking, the exports and all counts read
it. A new verdict is a new row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Side = Literal["a", "b"]
State = Literal["pending", "streaming", "votable", "voted", "void"]

SIDES: tuple[Side, ...] = ("a", "b")
RATINGS: tuple[str, ...] = ("appropriate", "emotion", "natural", "continue")
"""The paper's four sliders, 0–100: appropriate to the situation, addresses the emotion, natural
in the context, would like to continue. The key of a rating is `a_natural` or `b_natural`. A bare
`natural` means the side that the dialogue continues with."""
MAX_COMMENT = 2_000


def now() -> datetime:
    return datetime.now(UTC)


def voter_id(token: str) -> str:
    """The hash under which a voter is stored. A leaked database lets nobody vote as another."""
    return hashlib.sha256(token.encode()).hexdigest()


def published_voter(voter: str) -> str:
    """The hash under which the rounds of a stored voter are published and restored."""
    return hashlib.sha256(f"export {voter}".encode()).hexdigest()


class Moment(TypeDecorator[datetime]):
    """A point in time: always aware and in UTC, also in SQLite, which knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: Moment(),
        dict[str, Any]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
    }


class Voter(Base):
    """One browser. `user` is the name on the Hub, only if the voter logged in and agreed."""

    __tablename__ = "voters"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime]
    user: Mapped[str | None] = mapped_column(String(200))


class Round(Base):
    """One dialogue answered by two contenders. `dialogue` ends with the user's new turn.

    For the data set on the Hub a round waits (`handed_over_until` and `pushed_at` are None), is
    handed over (it may be there, and until that time one process tries), or is published.
    """

    __tablename__ = "rounds"
    __table_args__ = (
        Index("ix_rounds_voter_created_at", "voter", "created_at"),
        Index("ix_rounds_ephemeral_created_at", "ephemeral", "created_at"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    voter: Mapped[str] = mapped_column(ForeignKey("voters.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[datetime]
    first_words_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    ephemeral: Mapped[bool]
    consent: Mapped[str | None] = mapped_column(String(64))

    dialogue: Mapped[list[dict[str, Any]]]
    origin: Mapped[str] = mapped_column(String(16))
    example: Mapped[str | None] = mapped_column(String(200))
    parent: Mapped[str | None] = mapped_column(String(32))
    retry_of: Mapped[str | None] = mapped_column(String(32))

    seed: Mapped[int] = mapped_column(BigInteger)
    decoding: Mapped[dict[str, Any]]
    system_prompt: Mapped[str] = mapped_column(Text)
    roster: Mapped[str] = mapped_column(String(200))
    engine: Mapped[dict[str, Any] | None]
    app_version: Mapped[str] = mapped_column(String(32))

    reading: Mapped[dict[str, Any] | None]
    sem_error: Mapped[str | None] = mapped_column(Text)
    exposure: Mapped[str] = mapped_column(String(16))
    show_chips: Mapped[bool]
    show_plots: Mapped[bool]

    crisis: Mapped[bool]
    personal: Mapped[bool]
    identity: Mapped[bool]
    english: Mapped[bool]
    check_side: Mapped[str | None] = mapped_column(String(1))
    void_reason: Mapped[str | None] = mapped_column(Text)
    dropped_exchanges: Mapped[int | None]
    """How many of the dialogue's first exchanges neither model read, as it was too long; None
    before the replies, and in rounds of earlier versions."""
    notices: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The kinds of the notices that the newest text got; None in rounds of earlier versions."""
    hidden_reason: Mapped[str | None] = mapped_column(Text)

    owner: Mapped[str | None] = mapped_column(String(200))
    lease_until: Mapped[datetime | None]
    handed_over_until: Mapped[datetime | None]
    pushed_at: Mapped[datetime | None] = mapped_column(index=True)

    replies: Mapped[list[Reply]] = relationship(
        lazy="selectin", order_by="Reply.side", cascade="all, delete-orphan", passive_deletes=True
    )
    vote: Mapped[Vote | None] = relationship(
        lazy="selectin", cascade="all, delete-orphan", passive_deletes=True
    )

    def reply(self, side: str) -> Reply:
        return next(reply for reply in self.replies if reply.side == side)


class Reply(Base):
    """One side of a round: the contender, its seed and guidance, and its reply."""

    __tablename__ = "replies"
    round_id: Mapped[str] = mapped_column(
        ForeignKey("rounds.id", ondelete="CASCADE"), primary_key=True
    )
    side: Mapped[str] = mapped_column(String(1), primary_key=True)
    contender: Mapped[str] = mapped_column(String(200), index=True)
    revision: Mapped[str] = mapped_column(Text)
    strategy: Mapped[str] = mapped_column(String(32))
    seed: Mapped[int] = mapped_column(BigInteger)
    guidance: Mapped[str | None] = mapped_column(Text)
    thought: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
    tokens: Mapped[int | None]
    milliseconds: Mapped[float | None]
    reason: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)


class Vote(Base):
    """The one vote on a round. `chosen` is the side that the dialogue continues with."""

    __tablename__ = "votes"
    __table_args__ = (UniqueConstraint("round_id"), UniqueConstraint("receipt"))
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"))
    receipt: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str] = mapped_column(String(16))
    chosen: Mapped[str] = mapped_column(String(1))
    created_at: Mapped[datetime] = mapped_column(index=True)
    seconds: Mapped[float]
    seconds_shown: Mapped[float]
    fast: Mapped[bool]
    ratings: Mapped[dict[str, Any] | None]
    comment: Mapped[str] = mapped_column(Text, default="")
    comment_at: Mapped[datetime | None]
    """When the comment was last changed; None if it came with the vote."""
    continued: Mapped[str] = mapped_column(String(64), index=True)


class Limit(Base):
    """One opened round, for the rate limits. `key` is a hash. Rows are deleted after the window."""

    __tablename__ = "limits"
    __table_args__ = (Index("ix_limits_key_at", "key", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(80))
    at: Mapped[datetime]


class Tombstone(Base):
    """A withdrawn round: only its id, so that no import or backup brings it back.

    `published` means that it is or may be in the data set and must still be removed from there.
    """

    __tablename__ = "tombstones"
    round_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]
    published: Mapped[bool]


class Secret(Base):
    """Keys that all replicas share, such as the key of the address hashes."""

    __tablename__ = "secrets"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


Verdict = str
"""The name of a verdict, a key of `VERDICTS`."""


@dataclass(frozen=True, slots=True)
class VerdictKind:
    """One verdict. `name` is stored and exported.

    `outcome` is what the ranking counts: 1 (a won), -1 (b won), 0 (a draw), or None if the verdict
    does not compare. `labels` are the KTO labels of the sides; a side without a label makes no row.
    `button`, `said` and `noun` are the words on the button, to the voter and in a table.
    """

    name: Verdict
    button: str
    said: str
    noun: str
    outcome: float | None
    labels: Mapping[Side, bool] = field(default_factory=dict)

    @property
    def preferred(self) -> Side | None:
        """The side that the verdict prefers; None if it prefers neither."""
        return {1.0: "a", -1.0: "b"}.get(self.outcome or 0.0)  # type: ignore[return-value]


KINDS = (
    VerdictKind("a", "A is better", "You chose A", "A better", 1.0, {"a": True, "b": False}),
    VerdictKind("tie", "About equal", "You found them about equal", "about equal", 0.0),
    VerdictKind(
        "both_bad", "Both bad", "You found both bad", "both bad", None, {"a": False, "b": False}
    ),
    VerdictKind("b", "B is better", "You chose B", "B better", -1.0, {"a": False, "b": True}),
)
"""All verdicts in the order of their buttons. The keys 1, 2, 3 … press them."""
VERDICTS: dict[Verdict, VerdictKind] = {kind.name: kind for kind in KINDS}
DECISIVE = tuple(kind.name for kind in KINDS if kind.preferred)
"""The verdicts that prefer a side."""
