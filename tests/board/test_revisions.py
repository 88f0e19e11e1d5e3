"""Votes belong to a model, not to a name: another model with the name is another contender."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from empo_demo.arena.arena import Arena
from empo_demo.board.ballot_file import read_ballots
from empo_demo.board.ballots import Ballot, ballots_of_store, told_apart
from empo_demo.board.board import board
from empo_demo.cli import app
from empo_demo.contenders.roster import Roster
from empo_demo.dialogue import Dialogue
from empo_demo.ui.texts import texts_of
from empo_demo.votes.models import Vote, now
from empo_demo.votes.stats import situation_votes
from tests.conftest import ROSTER

OTHER = replace(
    ROSTER,
    contenders=tuple(
        replace(one, base="other-weights", revision=f"{one.revision[:-1]}2")
        for one in ROSTER.contenders
    ),
)
"""The same names over other bytes."""


TEXT = "I lost my job."


def play(arena: Arena, verdicts: Sequence[str]) -> None:
    for verdict in verdicts:
        voter = arena.new_voter()
        consent = arena.consent_text().version
        opened = arena.open_round(voter, Dialogue(), TEXT, consent=consent, example="Lost job")
        list(arena.stream(voter, opened.round_id))
        arena.vote(voter, opened.round_id, verdict)


@pytest.fixture
def switched(arena: Arena) -> Arena:
    """Three votes on one pair of models, then two on another one with the same names."""
    play(arena, ["a", "b", "a"])
    arena.models.roster = OTHER
    play(arena, ["tie", "a"])
    return arena


def names(arena: Arena, roster: Roster) -> dict[str, int]:
    found = board(ballots_of_store(arena.store), roster, samples=10)
    return {one.id: one.votes for one in found.ranking.contenders}


def test_the_board_lists_the_models_of_before_by_their_revision(switched: Arena) -> None:
    assert names(switched, OTHER) == {
        "base": 2,
        "aligned": 2,
        "base@rev-base-1": 3,
        "aligned@rev-aligned-1": 3,
    }
    assert names(switched, ROSTER) == {
        "base": 3,
        "aligned": 3,
        "base@rev-base-2": 2,
        "aligned@rev-aligned-2": 2,
    }
    found = board(ballots_of_store(switched.store), OTHER, samples=10)
    assert "Base (revision rev-bas)" in {row["contender"] for row in found.table()}
    since = {row["contender"]: row["votes since"] for row in found.lineage}
    assert since == {"Base": "2", "Aligned": "2"}


def test_old_votes_stay_with_the_old_pair_when_the_new_one_has_none(arena: Arena) -> None:
    play(arena, ["a", "b"])
    assert names(arena, ROSTER) == {"base": 2, "aligned": 2}
    assert names(arena, OTHER) == {"base@rev-base-1": 2, "aligned@rev-aligned-1": 2}


def test_the_draw_and_the_others_votes_count_only_these_models(switched: Arena) -> None:
    store, new = switched.store, [one.revision for one in OTHER.contenders]
    assert store.contender_counts(new) == {"base": 1, "aligned": 1}
    assert store.contender_counts() == {"base": 4, "aligned": 4}
    with store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(hours=25)))
    asked = (store, Dialogue().plus("user", TEXT), ("base", "aligned"))
    assert situation_votes(*asked, new).votes == 2
    assert situation_votes(*asked).votes == 5


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_exports_and_their_ranking_tell_the_models_apart(
    switched: Arena, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / f"votes.{kind}"
    url = switched.store.database.url.render_as_string(hide_password=False)
    command = ["votes", "export", "--format", kind, "-o", str(file), "--database", url]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    ballots = read_ballots(file).ballots
    assert {one.a for one in ballots} | {one.b for one in ballots} == {
        "base@rev-base-1",
        "aligned@rev-aligned-1",
        "base@rev-base-2",
        "aligned@rev-aligned-2",
    }
    ranked = CliRunner().invoke(app, ["votes", "rank", "--input", str(file), "--json"])
    listed = {one["id"] for one in json.loads(ranked.stdout)["contenders"]}
    assert listed == {one.a for one in ballots} | {one.b for one in ballots}


def test_a_name_that_one_model_had_stays_plain() -> None:
    ballot = Ballot("1", "v", "base", "aligned", "a", revision_a="1", revision_b="2")
    assert told_apart([ballot]) == [ballot]
    bare = Ballot("1", "v", "base", "aligned", "a")
    assert told_apart([bare], {"base": "9"}) == [bare]
    other = replace(ballot, round="2", revision_b="3")
    apart = told_apart([ballot, other])
    assert [(one.a, one.b) for one in apart] == [("base", "aligned@2"), ("base", "aligned@3")]
    assert told_apart(apart) == apart
    assert [one.b for one in told_apart(apart, {"aligned": "3"})] == ["aligned@2", "aligned"]


def test_without_guidance_a_contender_stays_with_its_model() -> None:
    ballot = Ballot("1", "v", "b+HEF~unguided", "b", "a", revision_a="1", revision_b="2")
    assert told_apart([ballot], {"b+HEF": "1", "b": "2"}) == [ballot]
    moved = told_apart([ballot], {"b+HEF": "3", "b": "2"})
    assert [one.a for one in moved] == ["b+HEF~unguided@1"]


def test_an_earlier_contender_has_a_german_name_too() -> None:
    assert texts_of("de").contender("base@rev-base-1", "") == "das Basismodell (Revision rev-bas)"
