"""The votes of a real database, as far as they can tell which reply is better."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from empo_demo.errors import StorageError
from empo_demo.evaluation.metric_agreement import read_vote_pairs
from empo_demo.evaluation.results import ResultsData, with_votes
from empo_demo.settings import Settings
from empo_demo.votes.models import Reply, Round, Vote, Voter
from empo_demo.votes.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def round_with(number: int, verdict: str | None, **changes: Any) -> Round:
    """A round of voter `number % 5`, whose side b has the longer reply."""
    replies = [
        Reply(side=side, contender=contender, revision="r", strategy="plain", seed=1, text=text)
        for side, contender, text in (
            ("a", "base", "Oh."),
            ("b", "aligned", "Oh no, that must hurt so much."),
        )
    ]
    vote = None
    if verdict is not None:
        vote = Vote(
            receipt=f"r{number}",
            verdict=verdict,
            chosen="b",
            created_at=NOW,
            seconds=9.0,
            seconds_shown=5.0,
            fast=False,
            comment="",
            continued="b",
        )
    values: dict[str, Any] = {
        "id": f"round-{number}",
        "voter": f"voter-{number % 5}",
        "state": "voted",
        "created_at": NOW,
        "ephemeral": False,
        "consent": "c" * 64,
        "origin": "typed",
        "seed": 1,
        "decoding": {},
        "dialogue": [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "I lost my dog."},
        ],
        "system_prompt": "",
        "roster": "tiny",
        "app_version": "0",
        "exposure": "all",
        "show_chips": True,
        "show_plots": True,
        "crisis": False,
        "personal": False,
        "identity": False,
        "english": True,
        "replies": replies,
        "vote": vote,
    }
    return Round(**{**values, **changes})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database=f"sqlite:///{tmp_path / 'votes.sqlite3'}")


def fill(settings: Settings, rounds: list[Round]) -> None:
    store = Store.open(settings.database)
    with store.database.write() as session:
        session.add_all(Voter(id=f"voter-{i}", created_at=NOW) for i in range(5))
    with store.database.write() as session:
        session.add_all(rounds)
    store.close()


def test_votes_for_a_side_and_equal_votes_are_read_the_rest_is_counted(settings: Settings) -> None:
    fill(
        settings,
        [
            round_with(0, "b"),
            round_with(1, "tie"),
            round_with(2, "both_bad"),
            round_with(3, "a", check_side="a"),
            round_with(4, "a", hidden_reason="spam"),
            round_with(5, "a", consent=None),
            round_with(6, None, state="votable"),
        ],
    )
    pairs, left_out = read_vote_pairs(settings)
    assert [(pair.verdict, pair.user) for pair in pairs] == [
        ("b", "I lost my dog."),
        ("tie", "I lost my dog."),
    ]
    assert left_out == {
        "both bad": 1,
        "attention check": 1,
        "hidden by a moderator": 1,
        "no consent": 1,
    }


def test_the_votes_enter_the_results(settings: Settings) -> None:
    fill(settings, [round_with(i, "b") for i in range(12)])
    data = with_votes(ResultsData(), settings, judged=False)
    length = next(row for row in data.agreement if row["metric"] == "length")
    assert (length["n"], length["voters"], length["accuracy"]) == (12, 5, 1.0)


def test_without_a_database_there_are_no_votes(settings: Settings) -> None:
    assert read_vote_pairs(settings) == ([], {})
    assert with_votes(ResultsData(), settings).agreement == []


def test_a_broken_database_is_a_notice_not_a_broken_report(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "votes.sqlite3").write_bytes(b"this is no database, and long enough to be seen")
    with pytest.raises(StorageError):
        read_vote_pairs(settings)
    assert len(with_votes(ResultsData(), settings).notices) == 1
