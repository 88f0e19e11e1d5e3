"""Rounds and votes in the database. Each method is one transaction.

Invariants: the row of a round exists before anything of it is shown. A round is `votable` only when
both replies are stored. It has at most one vote, and then it is `voted`. Voters are addressed by
the SHA-256 of their token. This module knows no contenders, pages or models.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from empo_demo.errors import NotAllowed, NotFound, Sentence
from empo_demo.votes.database import Database, changed, lost_on_restart
from empo_demo.votes.erasure import EPHEMERAL_LIFE, Erasure, may_be_shown
from empo_demo.votes.limits import Limits, RateLimit
from empo_demo.votes.models import (
    DECISIVE,
    Reply,
    Round,
    Tombstone,
    Vote,
    Voter,
    now,
    published_voter,
    voter_id,
)

if TYPE_CHECKING:
    from empo_demo.settings import Settings

__all__ = ["EPHEMERAL_LIFE", "CastVote", "RateLimit", "Store", "now", "voter_id"]
NO_ROUND = (
    "There is no such round of yours. It may be another visitor's, or erased: open a new one."
)
NOT_VOTABLE = "This round cannot be voted on: {reason}"
LEASE = timedelta(seconds=90)
_DRAWN = ("roster", "decoding", "system_prompt")
"""What a round takes from the roster that its contenders are drawn from."""


@dataclass(frozen=True, slots=True)
class CastVote:
    """A vote to store. `chosen` is used if the verdict itself names no side.

    `crisis` and `personal` say what was noticed in the comment; its round is then not published.
    """

    verdict: str
    chosen: str
    continued: str
    ratings: dict[str, Any] | None = None
    comment: str = ""
    crisis: bool = False
    personal: bool = False


class Store:
    """The storage of the votes. It is safe for threads, and processes may share one database.

    `limits` says who may open a round; `erasure` erases what may not stay.
    """

    def __init__(
        self,
        database: Database,
        *,
        secret: str | None = None,
        limit: RateLimit | None = None,
        push_target: bool = False,
    ) -> None:
        self.database = database
        self.limits = Limits(database, limit or RateLimit(), secret)
        self.erasure = Erasure(database)
        if database.path and lost_on_restart(database.path) and not push_target:
            database.warnings.append(
                f"{database.path} is on this Space's ephemeral disk: a restart erases all votes. "
                "Set EMPO_DATABASE to a persistent place, EMPO_HUB_BACKUP to keep a private copy, "
                "or EMPO_HUB_DATASET to publish them after a day."
            )

    @classmethod
    def open(cls, url: str, *, create: bool = True, **options: Any) -> Self:
        """Open the database at `url` (by default create it) and migrate it up."""
        return cls(Database(url, create=create), **options)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store for these settings, with their key, rate limits and push target."""
        return cls.open(
            settings.database,
            secret=settings.secret,
            limit=RateLimit(
                settings.rounds_per_voter,
                settings.rounds_per_address,
                settings.explores_per_address,
            ),
            push_target=bool(settings.hub_dataset or settings.hub_backup),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings on where the votes are stored, for everyone; empty if there are none."""
        return tuple(self.database.warnings)

    def close(self) -> None:
        self.database.close()

    def erase_voter(self, token: str, address: str | None = None) -> int:
        """Erase everything of a voter, with the hashed addresses; return the number of rounds."""
        self.limits.forget(token, address)
        return self.erasure.erase_voter(token)

    def is_empty(self) -> bool:
        """Whether there is no round and no tombstone."""
        with self.database.read() as session:
            first = session.scalar(select(Round.id).limit(1))
            return first is None and session.scalar(select(Tombstone.round_id).limit(1)) is None

    # Voters from a data set -----------------------------------------------------------------

    def adopt(self, token: str) -> int:
        """Give a returning voter the rounds restored from a data set; return their number."""
        voter = voter_id(token)
        with self.database.read() as session:
            if session.get(Voter, published_voter(voter)) is None:
                return 0
        with self.database.write() as session:
            return _adopt(session, voter)

    def adopt_restored(self) -> None:
        """Give all voters that are stored under their own hash their rounds from a data set."""
        with self.database.write() as session:
            known = set(session.scalars(select(Voter.id)))
            for voter in known:
                if published_voter(voter) in known:
                    _adopt(session, voter)

    # Opening --------------------------------------------------------------------------------

    def add_round(self, round_: Round) -> None:
        """Store a pending round with its two (empty) replies."""
        with self.database.write() as session:
            session.add(round_)

    # Finding --------------------------------------------------------------------------------

    def round_of(self, token: str, round_id: str) -> Round:
        """The voter's own round. Another voter's and an unknown one give the same `NotFound`."""
        with self.database.read() as session:
            return self._own(session, token, round_id)

    def _own(self, session: Session, token: str, round_id: str, *, lock: bool = False) -> Round:
        query = select(Round).where(
            Round.id == round_id, Round.voter == voter_id(token), may_be_shown()
        )
        round_ = session.scalars(query.with_for_update() if lock else query).one_or_none()
        if round_ is None:
            raise NotFound(NO_ROUND)
        return round_

    def latest_of(self, token: str) -> Round | None:
        """The voter's newest round."""
        query = select(Round).where(Round.voter == voter_id(token), may_be_shown())
        query = query.order_by(Round.created_at.desc()).limit(1)
        with self.database.read() as session:
            return session.scalars(query).one_or_none()

    def rounds_of(self, token: str) -> list[Round]:
        """All of the voter's rounds, oldest first, with restored ones."""
        self.adopt(token)
        query = select(Round).where(Round.voter == voter_id(token), may_be_shown())
        query = query.order_by(Round.created_at)
        with self.database.read() as session:
            return list(session.scalars(query))

    def parent_of(self, token: str, continued: str) -> Round | None:
        """The voter's round after which the dialogue has the digest `continued`.

        Of several it is the newest one with consent, or else the newest one.
        """
        query = (
            select(Round)
            .join(Vote)
            .where(Vote.continued == continued, Round.voter == voter_id(token), may_be_shown())
            .order_by(Round.ephemeral, Round.created_at.desc())
            .limit(1)
        )
        with self.database.read() as session:
            return session.scalars(query).first()

    # Streaming ------------------------------------------------------------------------------

    def claim(
        self,
        token: str,
        round_id: str,
        owner: str,
        engine: dict[str, str],
        dialogue: list[dict[str, Any]] | None = None,
        *,
        redrawn: Round | None = None,
    ) -> bool:
        """Make a pending round `streaming` for `owner`; False if it is not pending.

        `dialogue` is the round's with what the models read of it, where that differs; `redrawn` is
        the round itself with other contenders than it was stored with.
        """
        more: dict[str, Any] = {} if dialogue is None else {"dialogue": dialogue}
        if redrawn is not None:
            more |= {name: getattr(redrawn, name) for name in _DRAWN}
        with self.database.write() as session:
            self._own(session, token, round_id)
            done = session.execute(
                update(Round)
                .where(Round.id == round_id, Round.state == "pending")
                .values(
                    state="streaming",
                    owner=owner,
                    lease_until=now() + LEASE,
                    engine=engine,
                    **more,
                )
            )
            claimed = changed(done) == 1
            for reply in redrawn.replies if claimed and redrawn is not None else ():
                session.merge(reply)
            return claimed

    def renew(self, round_ids: Iterable[str], owner: str) -> None:
        """Renew the lease of `owner` on these rounds, for the other replicas."""
        with self.database.write() as session:
            session.execute(
                update(Round)
                .where(Round.id.in_(list(round_ids)), Round.owner == owner)
                .where(Round.state == "streaming")
                .values(lease_until=now() + LEASE)
            )

    def finish(
        self,
        round_id: str,
        replies: Mapping[str, Mapping[str, Any]],
        *,
        void_reason: str | None,
        first_words_at: datetime | None,
        dropped_exchanges: int = 0,
    ) -> None:
        """Store both replies and make the round votable or void. A second call does nothing."""
        state = "void" if void_reason else "votable"
        with self.database.write() as session:
            done = session.execute(
                update(Round)
                .where(Round.id == round_id, Round.state == "streaming")
                .values(
                    state=state,
                    void_reason=void_reason,
                    first_words_at=first_words_at,
                    ready_at=now(),
                    owner=None,
                    lease_until=None,
                    dropped_exchanges=dropped_exchanges,
                )
            )
            if changed(done) != 1:
                return
            for side, values in replies.items():
                session.execute(
                    update(Reply)
                    .where(Reply.round_id == round_id, Reply.side == side)
                    .values(**values)
                )

    def void(self, token: str, round_id: str, reason: str) -> None:
        """Make an unvoted round void. Raises `NotAllowed` if it has a vote."""
        with self.database.write() as session:
            round_ = self._own(session, token, round_id, lock=True)
            if round_.state == "voted":
                raise NotAllowed("This round has its vote; it cannot be tried again. Go on.")
            if round_.state != "void":
                round_.state, round_.void_reason = "void", reason

    def void_abandoned(self, dead: Iterable[str], reason: str) -> int:
        """Make streaming rounds void if their owner is dead or their lease has ended."""
        with self.database.write() as session:
            done = session.execute(
                update(Round)
                .where(Round.state == "streaming")
                .where(or_(Round.owner.in_(list(dead)), Round.lease_until < now()))
                .values(state="void", void_reason=reason, owner=None, lease_until=None)
            )
            return changed(done)

    def streaming_owners(self) -> set[str]:
        query = select(Round.owner).where(Round.state == "streaming", Round.owner.is_not(None))
        with self.database.read() as session:
            return {owner for owner in session.scalars(query.distinct()) if owner}

    # Voting ---------------------------------------------------------------------------------

    def cast(
        self, token: str, round_id: str, fill: Callable[[Round], CastVote]
    ) -> tuple[Round, bool]:
        """Store the vote that `fill` makes of the round; return the round and whether it is new.

        A second call changes nothing and returns the round with its first vote.
        """
        with self.database.write() as session:
            round_ = self._own(session, token, round_id, lock=True)
            if round_.vote is not None:
                return round_, False
            if round_.state != "votable":
                raise NotAllowed(_not_votable(round_))
            cast, at = fill(round_), now()
            ready = round_.ready_at or at
            shown = (at - (round_.first_words_at or ready)).total_seconds()
            round_.state = "voted"
            round_.crisis, round_.personal = (
                round_.crisis or cast.crisis,
                round_.personal or cast.personal,
            )
            round_.vote = Vote(
                receipt=new_receipt(),
                verdict=cast.verdict,
                chosen=cast.chosen,
                created_at=at,
                seconds=(at - ready).total_seconds(),
                seconds_shown=shown,
                fast=shown < reading_seconds(round_),
                ratings=cast.ratings or None,
                comment=cast.comment,
                continued=cast.continued,
            )
            return round_, True

    def set_ratings(
        self,
        token: str,
        round_id: str,
        ratings: dict[str, Any],
        comment: str,
        *,
        crisis: bool = False,
        personal: bool = False,
    ) -> None:
        """Add ratings and a comment to a vote. Later values replace earlier ones.

        What was noticed in a comment stays noticed (see `CastVote`), whatever replaces it.
        """
        with self.database.write() as session:
            round_ = self._own(session, token, round_id, lock=True)
            if round_.vote is None:
                raise NotAllowed("Rate a round after its vote: choose one of the buttons first.")
            round_.vote.ratings = {**(round_.vote.ratings or {}), **ratings} or None
            if comment and comment != round_.vote.comment:
                round_.vote.comment, round_.vote.comment_at = comment, now()
            round_.crisis, round_.personal = round_.crisis or crisis, round_.personal or personal

    def contender_counts(self, revisions: Collection[str] = ()) -> dict[str, int]:
        """The number of decisive votes of each contender. A vote without consent is not used.

        With `revisions`, only votes on these models count, not on others that had their names.
        """
        query = (
            select(Reply.contender, func.count())
            .join(Vote, Vote.round_id == Reply.round_id)
            .join(Round, Round.id == Reply.round_id)
            .where(Vote.verdict.in_(DECISIVE), Round.ephemeral.is_(False))
            .group_by(Reply.contender)
        )
        if revisions:
            query = query.where(Reply.revision.in_(revisions))
        with self.database.read() as session:
            return {row[0]: row[1] for row in session.execute(query)}


def _adopt(session: Session, voter: str) -> int:
    """Give `voter` the rounds that are stored under their published hash."""
    restored = published_voter(voter)
    if session.get(Voter, voter) is None:
        session.add(Voter(id=voter, created_at=now()))
        session.flush()
    moved = session.execute(update(Round).where(Round.voter == restored).values(voter=voter))
    session.execute(delete(Voter).where(Voter.id == restored))
    return changed(moved)


def reading_seconds(round_: Round) -> float:
    """The least seconds for reading both replies: ten words a second, twice the pace of fast
    adult readers (Brysbaert 2019 gives 238 words a minute on average)."""
    return sum(len((reply.text or "").split()) for reply in round_.replies) / 10


def new_receipt() -> str:
    """A short id to read aloud: 50 random bits in letters that cannot be confused."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    letters = "".join(secrets.choice(alphabet) for _ in range(10))
    return f"{letters[:5]}-{letters[5:]}"


def _not_votable(round_: Round) -> Sentence:
    if round_.state == "void":
        return Sentence(NOT_VOTABLE, reason=Sentence.stored(round_.void_reason))
    return Sentence("This round cannot be voted on yet: both replies must be finished first.")
