"""Ballots: the votes as the ranking uses them, from the database.

A ballot is one vote without its texts: round, voter, the two contenders, the verdict, and the
lengths of the replies. Votes that are left out are counted by reason. A vote belongs to a model,
not to a name: a name that several models had stands for each of them with its revision.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select

from empo_demo.contenders.roster import OF_REVISION, UNGUIDED
from empo_demo.settings import load_settings
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import ONE_CONTENDER, reason_left_out
from empo_demo.votes.store import Store


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote. Lengths are in words or in any other unit the same for all; None if unknown.

    `revision_a` and `revision_b` identify the models; they are empty where only names are known.
    """

    round: str
    voter: str
    a: str
    b: str
    verdict: str
    len_a: float | None = None
    len_b: float | None = None
    time: datetime | None = None
    exposure: str | None = None
    ratings: Mapping[str, Any] | None = None
    revision_a: str = ""
    revision_b: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """The ballots of the ranking, and the number of votes that were left out, by reason."""

    ballots: list[Ballot]
    left_out: Counter[str]


def ballots_of_database(url: str | None = None) -> Counted:
    """The ballots of the database at `url`, by default EMPO_DATABASE."""
    store = Store.open(url or load_settings().database, create=False)
    try:
        return count_ballots(store)
    finally:
        store.close()


def ballots_of_store(store: Store) -> list[Ballot]:
    """All ballots of the ranking, in the order of the votes."""
    return count_ballots(store).ballots


def count_ballots(store: Store) -> Counted:
    """All ballots of the ranking in the order of the votes, and the votes that were left out."""
    with store.database.read() as session:
        rounds = session.scalars(select(Round).join(Vote).order_by(Vote.id)).all()
        reasons = [(reason_not_ranked(round_), round_) for round_ in rounds]
        ballots = [ballot_of_round(round_) for reason, round_ in reasons if reason is None]
    return Counted(
        told_apart(ballots), Counter(reason for reason, _ in reasons if reason is not None)
    )


def told_apart(
    ballots: Sequence[Ballot], revisions: Mapping[str, str] | None = None
) -> list[Ballot]:
    """The ballots with one name per model: `base`, and `base@REVISION` of another model.

    `revisions` says which revision has the plain name, by contender id. Where it does not, a name
    that only one model had stays plain, and one that several had is plain for none of them.
    """
    revisions = revisions or {}
    seen: dict[str, set[str]] = defaultdict(set)
    for ballot in ballots:
        seen[_plain(ballot.a, ballot.revision_a)].add(ballot.revision_a)
        seen[_plain(ballot.b, ballot.revision_b)].add(ballot.revision_b)

    def name(name: str, revision: str) -> str:
        plain = _plain(name, revision)
        current = revisions.get(plain.removesuffix(UNGUIDED))
        known = revision == current if current else len(seen[plain]) == 1
        return plain if known or not revision else f"{plain}{OF_REVISION}{revision}"

    return [
        replace(ballot, a=name(ballot.a, ballot.revision_a), b=name(ballot.b, ballot.revision_b))
        for ballot in ballots
    ]


def _plain(name: str, revision: str) -> str:
    return name.removesuffix(f"{OF_REVISION}{revision}") if revision else name


def ballot_of_round(round_: Round) -> Ballot:
    """The ballot of a voted round. Lengths are in words."""
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
        revision_a=a.revision,
        revision_b=b.revision,
    )


def reason_not_ranked(round_: Round) -> str | None:
    """Why a vote does not count in the ranking; None if it does."""
    a, b = round_.reply("a").contender, round_.reply("b").contender
    return reason_left_out(round_) or (ONE_CONTENDER if a == b else None)


def _exposure(round_: Round) -> str:
    shown = [
        name for name, flag in (("chips", round_.show_chips), ("plots", round_.show_plots)) if flag
    ]
    return "+".join(shown) or "nothing"
