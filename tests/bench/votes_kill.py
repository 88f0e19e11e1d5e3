"""kill -9 at random moments: is every acknowledged vote there once, and does the app start again?

    python -m tests.bench.votes_kill [--rounds 1000] [--url postgresql://…] [--seed 0] [--json]

A child process plays rounds and appends each receipt it was given to a file; the parent kills it
after a random time and starts it again, until so many rounds were acknowledged.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from empo_demo.dialogue import Dialogue
from empo_demo.empathy import safety  # noqa: F401 - loaded before the children fork
from empo_demo.votes.models import Round
from tests.conftest import arena_at
from tests.votes.test_store import NO_LIMIT


def play(url: str, diary: Path) -> None:
    """The child: rounds and votes until killed; writes down what was acknowledged."""
    arena = arena_at(url, limit=NO_LIMIT)
    consent, verdicts = arena.consent_text().version, random.Random(os.getpid())
    voter = arena.new_voter()
    with diary.open("a", encoding="utf8") as file:
        file.write("started\n")
        file.flush()
        while True:
            opened = arena.open_round(voter, Dialogue(), "It rained all day.", consent=consent)
            list(arena.stream(voter, opened.round_id))
            verdict = verdicts.choice(["a", "b", "tie", "both_bad"])
            receipt = arena.vote(voter, opened.round_id, verdict)
            file.write(f"{receipt.receipt} {opened.round_id} {receipt.verdict}\n")
            file.flush()


def kill_while_playing(url: str, rounds: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run and kill children until `rounds` votes were acknowledged; then look into the database.

    Returns counts; `lost`, `doubled`, `half_rows` and `starts_failed` must be 0.
    """
    rng, diary = random.Random(seed), folder / "diary"
    diary.touch()
    kills = failed = 0
    patience = 0.6  # seconds; grows where a slow machine casts no vote in them
    children = multiprocessing.get_context("fork")  # imports once, not at every start
    while len(acknowledged(diary)) < rounds and failed <= 3:
        starts = diary.read_text("utf8").count("started\n")
        child = children.Process(target=play, args=(url, diary))
        child.start()
        while diary.read_text("utf8").count("started\n") == starts and child.is_alive():
            time.sleep(0.005)
        failed += not child.is_alive()
        before = len(acknowledged(diary))
        time.sleep(rng.uniform(0.0, patience))
        child.kill()
        child.join()
        kills += 1
        votes = len(acknowledged(diary)) - before
        patience = min(20.0, patience * 1.5) if votes < 2 else max(0.6, patience / 1.2)
    return {"kills": kills, "starts_failed": failed, **_inspect(url, acknowledged(diary))}


def acknowledged(diary: Path) -> list[tuple[str, ...]]:
    """The votes that the child was told are counted; a torn last line was not."""
    lines = diary.read_text("utf8").split("\n")[:-1]
    return [tuple(line.split()) for line in lines if line != "started"]


def _inspect(url: str, told: list[tuple[str, ...]]) -> dict[str, Any]:
    arena = arena_at(url, limit=NO_LIMIT)
    with arena.store.database.read() as session:
        rounds = list(session.scalars(select(Round)))
        rows = session.execute(text("SELECT receipt, round_id, verdict FROM votes")).all()
        if arena.store.database.sqlite:
            assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    arena.store.close()
    stored = Counter(tuple(row) for row in rows)
    return {
        "acknowledged": len(told),
        "stored": len(rows),
        "lost": sum(stored[vote] == 0 for vote in told),
        "doubled": sum(count > 1 for count in Counter(row[1] for row in rows).values()),
        "half_rows": sum(not _whole(round_) for round_ in rounds),
        "states": dict(Counter(round_.state for round_ in rounds)),
    }


def _whole(round_: Any) -> bool:
    """Whether a round's rows fit its state: nothing streams, and a votable one has both replies."""
    texts = [reply.text for reply in round_.replies]
    if len(texts) != 2 or round_.state == "streaming":
        return False
    if (round_.state == "voted") != (round_.vote is not None):
        return False
    return round_.state not in ("votable", "voted") or all(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--url", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/votes.sqlite3"
        found = kill_while_playing(url, arguments.rounds, arguments.seed, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
