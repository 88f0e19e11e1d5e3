"""Limits on rounds per voter and per address, shared by all replicas.

Addresses are stored only as a keyed hash, for at most an hour. When a voter deletes their data, the
hashes go at once; what they counted stays in memory, so that deleting does not reset a limit.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from empo_demo.errors import NotAllowed, Sentence
from empo_demo.votes.database import Database
from empo_demo.votes.erasure import mark
from empo_demo.votes.models import Limit, Secret, Voter, now, voter_id

VOTER_LIMIT = (
    "You have opened {n} {what} in {minutes} minutes, which is the limit. Your text is not lost: "
    "go on in {wait}."
)
NETWORK_LIMIT = (
    "Your network has opened {n} {what} in {minutes} minutes, which is the limit. Your text is not "
    "lost: go on in {wait}."
)
KINDS = ("address", "explore")
"""What is counted of an address: its rounds, and its comparisons."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The most rounds, and the most Explore comparisons, in `window`."""

    per_voter: int = 30
    per_address: int = 120
    explores_per_address: int = 60
    window: timedelta = timedelta(minutes=10)


class Limits:
    """Counts what a voter and an address open in one database, and refuses what is too much."""

    def __init__(self, database: Database, rate: RateLimit, secret: str | None = None) -> None:
        self.rate = rate
        self._database = database
        self._secret = secret.encode() if secret else None
        self._memory = threading.Lock()
        self._forgotten: dict[str, list[datetime]] = {}
        """The times of erased rows by their keys, never on a disk and for at most the window."""

    def secret(self) -> bytes:
        """The key of the hashes: EMPO_SECRET, or one made once and shared by all replicas."""
        if self._secret is None:
            with self._database.write() as session:
                self._ignore(session, Secret, {"name": "hashes", "value": secrets.token_hex(32)})
                stored = session.get_one(Secret, "hashes").value
            self._secret = stored.encode()
        return self._secret

    def keyed_hash(self, kind: str, value: str) -> str:
        return hmac.new(self.secret(), f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()

    def address_key(self, address: str, kind: str = "address") -> str:
        """The key under which an address is counted: a hash that only this arena can make."""
        return "a:" + self.keyed_hash(kind, _network(address))

    def _ignore(self, session: Session, table: type[Any], row: Mapping[str, Any]) -> None:
        """Insert `row` unless there is one with its key."""
        dialect = sqlite if self._database.sqlite else postgresql
        session.execute(dialect.insert(table).values(**row).on_conflict_do_nothing())

    def admit(self, token: str, address: str | None = None, user: str | None = None) -> None:
        """Count a round. Raises a `NotAllowed` that says how long to wait if a limit is reached."""
        voter, at = voter_id(token), now()
        keys = {f"v:{voter}": self.rate.per_voter}
        if address:
            keys[self.address_key(address)] = self.rate.per_address
        with self._database.write() as session:
            self._ignore(session, Voter, {"id": voter, "created_at": at, "user": user})
            if user:
                session.execute(update(Voter).where(Voter.id == voter).values(user=user))
            for key, count in keys.items():
                self._count(session, key, count, at)

    def admit_explore(self, address: str | None) -> None:
        """Count a comparison of an address. Raises `NotAllowed` like `admit`."""
        if address:
            key, count = self.address_key(address, "explore"), self.rate.explores_per_address
            with self._database.write() as session:
                self._count(session, key, count, now(), "comparison")

    def forget(self, token: str, address: str | None) -> None:
        """Erase the hashed addresses of a voter's rounds, and those of the address at hand.

        Both rows of a round have one time: no other sign ties an address to a voter.
        """
        keys = [self.address_key(address, kind) for kind in KINDS] if address else []
        own = select(Limit.at).where(Limit.key == f"v:{voter_id(token)}")
        theirs = (Limit.key.like("a:%"), or_(Limit.key.in_(keys), Limit.at.in_(own)))
        with self._database.write() as session:
            removed = session.execute(
                delete(Limit).where(*theirs).returning(Limit.key, Limit.at)
            ).tuples()
            erased = list(removed)
            mark(session, len(erased))
        since = now() - self.rate.window
        with self._memory:
            for key in list(self._forgotten):
                self._forgotten[key] = [at for at in self._forgotten[key] if at > since]
                if not self._forgotten[key]:
                    del self._forgotten[key]
            for key, at in erased:
                self._forgotten.setdefault(key, []).append(at)

    def _count(
        self, session: Session, key: str, count: int, at: datetime, what: str = "round"
    ) -> None:
        since = at - self.rate.window
        if not self._database.sqlite:
            # Without this lock, two replicas that count at once would both admit one too many.
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
        session.execute(delete(Limit).where(Limit.key == key, Limit.at <= since))
        stored = session.scalars(select(Limit.at).where(Limit.key == key)).all()
        with self._memory:
            forgotten = [at for at in self._forgotten.get(key, ()) if at > since]
        recent = sorted([*stored, *forgotten])
        if len(recent) >= count:
            wait = (recent[len(recent) - count] - since).total_seconds()
            minutes = int(self.rate.window.total_seconds() // 60)
            # Others share an address, so one visitor may not have opened all of these.
            raise NotAllowed(
                VOTER_LIMIT if key.startswith("v:") else NETWORK_LIMIT,
                n=count,
                what=what if count == 1 else f"{what}s",
                minutes=minutes,
                wait=_spell(wait),
            )
        session.add(Limit(key=key, at=at))


def _network(address: str) -> str:
    """The address, or an IPv6 customer's /64, which belongs to one person."""
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        return address.strip()[:200]
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _spell(seconds: float) -> Sentence:
    whole = max(1, math.ceil(seconds))
    if whole < 120:
        return Sentence("{n} s", n=whole)
    return Sentence("{n} minutes", n=math.ceil(whole / 60))
