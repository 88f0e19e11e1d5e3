"""Several replicas of the app behind one PostgreSQL: is a vote lost when visitors switch replicas?

    python -m tests.bench.replicas [--rounds 200] [--replicas 3] [--visitors 6] [--json]

Each replica is a process with the page and its endpoints on a port of its own; only the models
are scripted. Visitors open a round on one replica, stream it on a second, vote on all at once, and
go on at a third. Then one visitor opens rounds everywhere at once, more than the limit allows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import func, select

from tests import postgres as postgresql
from tests.conftest import REPOSITORY, ROSTER, ScriptedEngine, ScriptedSEM

LIMIT = 50
LANES = 12
"""Threads of the storm, each with a client of its own."""


def serve() -> None:
    """One replica, until its standard input is closed; prints its address."""
    from empo_demo.arena.arena import Arena
    from empo_demo.metrics.valence import load_lexicon
    from empo_demo.settings import load_settings
    from empo_demo.ui.page import start
    from empo_demo.votes.store import Store

    settings = load_settings()
    arena = Arena(
        settings, ROSTER, Store.of(settings), engine=ScriptedEngine(pause=0.01), sem=ScriptedSEM()
    )
    page = start(arena, load_lexicon(), quiet=True)
    print(page.local_url, flush=True)
    sys.stdin.read()
    os._exit(0)


@contextmanager
def replica(url: str) -> Iterator[str]:
    """A replica's address, for as long as the context lasts."""
    environment = os.environ | {
        "EMPO_DATABASE": url,
        "EMPO_ROUNDS_PER_VOTER": str(LIMIT),
        "OMP_NUM_THREADS": "1",
        "EMPO_ROUNDS_PER_ADDRESS": "100000",
        "PYTHONPATH": str(REPOSITORY),
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.bench.replicas", "--serve"],
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("A replica did not start.")
        yield address
    finally:
        process.kill()
        process.wait(10)


class Visitor:
    """A browser that every request sends to another replica; one connection to each."""

    def __init__(self, addresses: list[str], start: int) -> None:
        from gradio_client import Client

        self.clients = [Client(address, verbose=False) for address in addresses]
        self.turn = itertools.count(start)
        self.voter = self.ask("/new_voter")
        self.consent = self.ask("/consent")["version"]

    def ask(self, name: str, *arguments: Any) -> Any:
        client = self.clients[next(self.turn) % len(self.clients)]
        return client.predict(*arguments, api_name=name)

    def play(self, rounds: int) -> list[dict[str, Any]]:
        """So many rounds, three to a dialogue; what was acknowledged of each."""
        seen, dialogue = [], []
        for number in range(rounds):
            opened = self.ask("/open_round", self.voter, dialogue, f"Turn {number}.", self.consent)
            name = opened["round_id"]
            last = self.ask("/stream", self.voter, name)
            verdict = ("a", "b", "tie", "both_bad")[number % 4]
            with ThreadPoolExecutor(len(self.clients)) as at_once:
                receipts = list(
                    at_once.map(
                        lambda c, n=name, v=verdict: c.predict(self.voter, n, v, api_name="/vote"),
                        self.clients,
                    )
                )
            goes_on = self.ask("/go_on", self.voter, name)
            seen.append(
                {
                    "round": name,
                    "verdict": verdict,
                    "receipts": {r["receipt"] for r in receipts},
                    "created": sum(r["created"] for r in receipts),
                    "continued": bool(dialogue),
                    "kept": goes_on[-1]["content"] in (last["a"], last["b"]),
                }
            )
            dialogue = goes_on if number % 3 < 2 else []
            print(".", end="", file=sys.stderr, flush=True)
        return seen

    def storm(self, opens: int) -> int:
        """Open rounds on all replicas at once; how many were let in.

        A client that several threads share may close its stream while one of them still waits.
        """
        from gradio_client import Client

        def lane(number: int) -> int:
            client = Client(self.clients[number % len(self.clients)].src, verbose=False)
            let_in = 0
            for _ in range(number, opens, LANES):
                try:
                    client.predict(self.voter, [], "Hello.", self.consent, api_name="/open_round")
                    let_in += 1
                except Exception as refusal:
                    if "which is the limit" not in str(refusal):
                        raise
            return let_in

        with ThreadPoolExecutor(LANES) as at_once:
            return sum(at_once.map(lane, range(LANES)))


def run(url: str, rounds: int, replicas: int, visitors: int) -> dict[str, Any]:
    """Play and count. `lost`, `doubled`, `broken` and `over_limit` must be 0."""
    from empo_demo.votes.models import Round, Vote
    from empo_demo.votes.store import Store

    share = [rounds // visitors + (i < rounds % visitors) for i in range(visitors)]
    if max(share) > LIMIT:
        raise SystemExit(f"More visitors are needed: each may play {LIMIT} rounds.")
    Store.open(url).close()
    with ExitStack() as stack:
        addresses = [stack.enter_context(replica(url)) for _ in range(replicas)]
        crowd = [Visitor(addresses, number) for number in range(visitors)]
        started = time.perf_counter()
        with ThreadPoolExecutor(visitors) as at_once:
            seen = sum(at_once.map(Visitor.play, crowd, share), [])  # noqa: RUF017
        elapsed = time.perf_counter() - started
        let_in = Visitor(addresses, 0).storm(LIMIT + 30)
    store = Store.open(url)
    with store.database.read() as session:
        stored = {row[0]: row[1] for row in session.execute(select(Vote.round_id, Vote.receipt))}
        parents = session.scalar(select(func.count()).where(Round.parent.is_not(None)))
    store.close()
    return {
        "replicas": replicas,
        "visitors": visitors,
        "rounds": len(seen),
        "seconds": round(elapsed, 1),
        "lost": sum(stored.get(s["round"]) not in s["receipts"] for s in seen),
        "doubled": sum(len(s["receipts"]) != 1 or s["created"] != 1 for s in seen)
        + abs(len(stored) - len(seen)),
        "broken": sum(not s["kept"] for s in seen)
        + abs((parents or 0) - sum(s["continued"] for s in seen)),
        "limit": LIMIT,
        "let_in": let_in,
        "over_limit": max(0, let_in - LIMIT),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--visitors", type=int, default=6)
    parser.add_argument("--url", help="a PostgreSQL URL; else a private server is started")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    with ExitStack() as stack:
        url = options.url
        if url is None:
            servers = postgresql.server()
            stack.callback(lambda: next(servers, None))
            url = next(servers).new_database()
        result = run(url, options.rounds, options.replicas, options.visitors)
    if not options.json:
        for name, value in result.items():
            print(f"{name:10} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
