"""Attention checks: each voter's hits are reported, nobody is dropped, no check is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from empo_demo.arena.arena import Arena
from empo_demo.board.agreement import attention_of_voters
from empo_demo.cli import app
from empo_demo.dialogue import Dialogue
from empo_demo.exchange.export import export_file
from empo_demo.settings import load_settings
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM

ROUNDS = 24


def careful(bad: str | None) -> str:
    return {"a": "b", "b": "a", None: "a"}[bad]


def careless(bad: str | None) -> str:
    return bad or "a"


def play(tmp_path: Path, *readers: Any) -> Store:
    """Each reader votes on as many rounds, about half of them with a known bad side."""
    settings = load_settings(
        database=f"sqlite:///{tmp_path}/votes.sqlite3", check_rate=0.5, seed=11
    )
    store = Store.of(settings)
    arena = Arena(settings, ROSTER, store, engine=ScriptedEngine(), sem=ScriptedSEM())
    for reader in readers:
        voter = arena.new_voter()
        for number in range(ROUNDS):
            opened = arena.open_round(
                voter, Dialogue(), f"I lost my {number} keys.", consent=arena.consent_text().version
            )
            list(arena.stream(voter, opened.round_id))
            bad = store.round_of(voter, opened.round_id).check_side
            arena.vote(voter, opened.round_id, reader(bad))
    return store


def test_a_careless_voter_is_named_and_a_careful_one_is_not(tmp_path: Path) -> None:
    worst, best = attention_of_voters(play(tmp_path, careful, careless))
    assert worst.passed == 0 and worst.careless and worst.votes == ROUNDS
    assert best.passed == best.asked > 5 and not best.careless
    assert best.interval[0] < best.rate <= best.interval[1] <= 1.0


def test_a_voter_with_few_checks_is_not_called_careless(tmp_path: Path) -> None:
    store = play(tmp_path, careless)
    with store.database.write() as session:
        from empo_demo.votes.models import Round

        checks = [one for one in session.query(Round) if one.check_side]
        for one in checks[2:]:
            session.delete(one)
    (found,) = attention_of_voters(store)
    assert found.asked == 2 and found.passed == 0 and not found.careless


def test_checks_are_counted_but_never_exported_as_preferences(tmp_path: Path) -> None:
    store = play(tmp_path, careful)
    (found,) = attention_of_voters(store)
    written = export_file(str(store.database.url), "trl", tmp_path / "pairs.jsonl")
    rows = (tmp_path / "pairs.jsonl").read_text(encoding="utf8").splitlines()
    assert len(rows) == ROUNDS - found.asked
    assert "check" not in {json.loads(row)["chosen_contender"] for row in rows}
    assert str(found.asked) in str(written)


def test_the_report_in_the_terminal(tmp_path: Path) -> None:
    play(tmp_path, careless)
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    shown = CliRunner().invoke(app, ["votes", "attention", "--database", url])
    assert "careless" in shown.stdout
    (row,) = json.loads(
        CliRunner().invoke(app, ["votes", "attention", "--database", url, "--json"]).stdout
    )["voters"]
    assert len(row["voter"]) == 12 and row["careless"]
