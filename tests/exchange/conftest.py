"""A stand-in of the Hub for the tests of this process, and votes to push there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.votes.models import Vote, now
from tests.hub import Hub, running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The real client of this process talks to the stand-in."""
    import huggingface_hub
    from huggingface_hub import HfApi, constants

    with running() as started:
        api = partial(HfApi, endpoint=started.url, token="hf_test")
        monkeypatch.setattr(huggingface_hub, "HfApi", api)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield started


def cast(arena: Arena, voter: str, *, consent: bool = True) -> str:
    """A vote of `voter`; return its round."""
    version = arena.consent_text().version if consent else None
    opened = arena.open_round(voter, Dialogue(), "It rained all day.", consent=version)
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a")
    return opened.round_id


def age(arena: Arena, hours: float) -> None:
    """Make all votes that many hours old."""
    with arena.store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=hours)))


def rows(hub: Hub, repo: str) -> list[str]:
    """The rounds of all rows in a data set, as often as they are there."""
    held = hub.repositories[f"dataset/{repo}"]
    return [
        json.loads(line)["round_id"]
        for name, content in held.files.items()
        if name.startswith("data/")
        for line in content.decode().splitlines()
    ]


def readable(hub: Hub, repo: str) -> bytes:
    """Everything of the rows that anyone can still read there, in earlier commits too."""
    held = hub.repositories[f"dataset/{repo}"]
    commits = [held.files, *held.history.values()]
    return b"".join(
        content for files in commits for name, content in files.items() if name.startswith("data/")
    )
