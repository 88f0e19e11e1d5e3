"""An app that votes, pushes, votes once more and hangs until it is killed; or one that starts anew.

`pushing_app.py FOLDER vote N`, `pushing_app.py FOLDER start VOTER`, or `pushing_app.py FOLDER
forget VOTER`, which deletes the voter's data after the start and pushes. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, update

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.exchange import hub
from empo_demo.settings import load_settings
from empo_demo.votes.models import Round, Vote, now
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

REPO = "anna/votes"


def open_arena(folder: Path) -> tuple[Arena, hub.Pusher | None]:
    settings = load_settings(database=f"sqlite:///{folder}/votes.sqlite3", hub_dataset=REPO)
    store = Store.of(settings)
    pusher = hub.start_pushing(store, settings)
    return Arena(settings, ROSTER, store, engine=ScriptedEngine(), sem=ScriptedSEM()), pusher


def cast(arena: Arena, voter: str, verdict: str) -> str:
    opened = arena.open_round(
        voter, Dialogue(), "It rained all day.", consent=arena.consent_text().version
    )
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, verdict)
    return opened.round_id


def vote(folder: Path, count: int) -> None:
    arena, pusher = open_arena(folder)
    assert pusher is not None
    voter = arena.new_voter()
    pushed = [cast(arena, voter, ("a", "b", "tie", "both_bad")[i % 4]) for i in range(count)]
    with arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=30)))
    pusher.push()
    with arena.store.database.read() as session:
        published = len(session.scalars(select(Round).where(Round.pushed_at.is_not(None))).all())
    cast(arena, voter, "a")
    print(json.dumps({"voter": voter, "pushed": pushed, "published": published}), flush=True)
    time.sleep(600)


def start(folder: Path, voter: str) -> None:
    arena, _ = open_arena(folder)
    said = hub.age_of_push(arena.store, arena.settings)
    mine = [(v["round_id"], v["verdict"]) for v in arena.my_votes(voter)]
    print(json.dumps({"mine": mine, "said": said, "votes": arena.stats().votes}), flush=True)


def forget(folder: Path, voter: str) -> None:
    arena, pusher = open_arena(folder)
    assert pusher is not None
    deleted = arena.delete_my_data(voter)
    pusher.push()
    print(json.dumps({"deleted": deleted, "votes": arena.stats().votes}), flush=True)


if __name__ == "__main__":
    command, place = sys.argv[2], Path(sys.argv[1])
    if command == "vote":
        vote(place, int(sys.argv[3]))
    elif command == "forget":
        forget(place, sys.argv[3])
    else:
        start(place, sys.argv[3])
