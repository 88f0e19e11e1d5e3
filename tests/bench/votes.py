"""Votes at once from many clients, double clicks included, against bare SQLAlchemy inserts.

    python -m tests.bench.votes [--clients 16] [--votes 200] [--url postgresql://…] [--json]

Both have the same durability (SQLite: WAL, synchronous FULL; PostgreSQL: its default) and the
same number of threads, in one run. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, func, select

from empo_demo.arena.arena import Arena
from empo_demo.errors import ArenaError
from empo_demo.votes.database import Database
from empo_demo.votes.models import Vote
from tests.conftest import arena_at
from tests.votes.test_store import NO_LIMIT, rounds_ready


def _timed(clients: int, work: Callable[[int], None]) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return time.perf_counter() - started


def cast_all(arena: Arena, ready: list[tuple[str, list[str]]], errors: list[str]) -> float:
    """Seconds in which all clients cast all their votes, every tenth of them twice."""

    def client(number: int) -> None:
        voter, rounds = ready[number]
        for position, round_id in enumerate(rounds):
            for _ in range(2 if position % 10 == 0 else 1):
                try:
                    arena.vote(voter, round_id, "ab"[position % 2])
                except ArenaError as error:
                    errors.append(str(error))

    return _timed(len(ready), client)


def insert_all(database: Database, clients: int, votes: int) -> float:
    """Seconds for the same number of bare inserts, one transaction each."""
    metadata = MetaData()
    table = Table(
        "bare_votes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("round_id", String(32), unique=True),
        Column("verdict", String(16)),
        Column("seconds", Float),
    )
    engine = database.engine.execution_options(begin="IMMEDIATE")
    metadata.create_all(engine)

    def client(number: int) -> None:
        for position in range(votes):
            with engine.begin() as connection:
                row = {"round_id": f"{number}-{position}", "verdict": "a", "seconds": 1.0}
                connection.execute(table.insert(), row)

    taken = _timed(clients, client)
    metadata.drop_all(engine)
    return taken


def measure(url: str, clients: int, votes: int) -> dict[str, Any]:
    arena, errors = arena_at(url, limit=NO_LIMIT), list[str]()
    with ThreadPoolExecutor(4) as pool:
        voters = [arena.new_voter() for _ in range(clients)]
        ready = list(pool.map(lambda v: (v, rounds_ready(arena, v, votes)), voters))
    ours = cast_all(arena, ready, errors)
    bare = insert_all(arena.store.database, clients, votes)
    with arena.store.database.read() as session:
        stored = session.scalar(select(func.count(func.distinct(Vote.round_id)))) or 0
        rows = session.scalar(select(func.count()).select_from(Vote)) or 0
    arena.store.close()
    total = clients * votes
    return {
        "database": url.partition(":")[0],
        "clients": clients,
        "votes": total,
        "lost": total - stored,
        "doubled": rows - stored,
        "errors": len(errors),
        "votes_per_second": round(total / ours, 1),
        "bare_inserts_per_second": round(total / bare, 1),
        "votes_over_bare": round(bare / ours, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--votes", type=int, default=200)
    parser.add_argument("--url", default="")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/votes.sqlite3"
        print(json.dumps(measure(url, arguments.clients, arguments.votes)))


if __name__ == "__main__":
    main()
