"""Limits on rounds per voter and per address, shared by all replicas.

Addresses are stored only as a keyed hash, and not longer than the window of the limit.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from empo_demo.errors import NotAllowed
from empo_demo.votes.database import Database
from empo_demo.votes.keeping import now, voter_id
from empo_demo.votes.models import Limit, Secret, Voter


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The most rounds, and the most Explore comparisons, in `window`."""

    per_voter: int = 30
    per_address: int = 120
    explores_per_address: int = 60
    window: timedelta = timedelta(minutes=10)


class Admission:
    """The part of the store that counts and refuses. It uses the store's attributes."""

    database: Database
    limit: RateLimit
    _secret: bytes | None

    def secret(self) -> bytes:
        """The key of the hashes: EMPO_SECRET, or one made once and shared by all replicas."""
        if self._secret is None:
            with self.database.write() as session:
                self._ignore(session, Secret, {"name": "hashes", "value": secrets.token_hex(32)})
                stored = session.get_one(Secret, "hashes").value
            self._secret = stored.encode()
        return self._secret

    def keyed_hash(self, kind: str, value: str) -> str:
        return hmac.new(self.secret(), f"{kind}:{value}".encode(), hashlib.sha256).hexdigest()

    def _address_key(self, address: str, kind: str = "address") -> str:
        return "a:" + self.keyed_hash(kind, _network(address))

    def _ignore(self, session: Session, table: type[Any], row: Mapping[str, Any]) -> None:
        """Insert `row` unless there is one with its key."""
        dialect = sqlite if self.database.sqlite else postgresql
        session.execute(dialect.insert(table).values(**row).on_conflict_do_nothing())

    def admit(self, token: str, address: str | None = None, user: str | None = None) -> None:
        """Count a round. Raises a `NotAllowed` that says how long to wait if a limit is reached."""
        voter, at = voter_id(token), now()
        keys = {f"v:{voter}": self.limit.per_voter}
        if address:
            keys[self._address_key(address)] = self.limit.per_address
        with self.database.write() as session:
            self._ignore(session, Voter, {"id": voter, "created_at": at, "user": user})
            if user:
                session.execute(update(Voter).where(Voter.id == voter).values(user=user))
            for key, count in keys.items():
                self._count(session, key, count, at)

    def admit_explore(self, address: str | None) -> None:
        """Count a comparison of an address. Raises `NotAllowed` like `admit`."""
        if address:
            key, count = self._address_key(address, "explore"), self.limit.explores_per_address
            with self.database.write() as session:
                self._count(session, key, count, now(), "comparisons")

    def _count(
        self, session: Session, key: str, count: int, at: datetime, what: str = "rounds"
    ) -> None:
        since = at - self.limit.window
        if not self.database.sqlite:
            # Without this lock, two replicas that count at once would both admit one too many.
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext(key))))
        session.execute(delete(Limit).where(Limit.key == key, Limit.at <= since))
        recent = session.scalars(select(Limit.at).where(Limit.key == key).order_by(Limit.at)).all()
        if len(recent) >= count:
            wait = (recent[len(recent) - count] - since).total_seconds()
            minutes = int(self.limit.window.total_seconds() // 60)
            raise NotAllowed(
                f"That were {count} {what} in {minutes} minutes, the most that are taken. "
                f"Your text is not lost: go on in {_spell(wait)}."
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


def _spell(seconds: float) -> str:
    whole = max(1, round(seconds + 0.5))
    return f"{whole} s" if whole < 120 else f"{whole // 60 + 1} minutes"
