"""What leaves the arena, and when: nothing before a day, nothing unmasked, nothing stuck."""

from __future__ import annotations

import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from empo_demo.arena.arena import Arena
from empo_demo.empathy.personal import mask_words
from empo_demo.exchange import outbox
from empo_demo.exchange.export import Report, rows, write_export
from empo_demo.exchange.formats import rows_of
from empo_demo.settings import load_settings
from empo_demo.votes.models import Round, Vote, now
from empo_demo.votes.record import Record
from empo_demo.votes.store import Store
from tests.conftest import ROSTER, ScriptedEngine, ScriptedSEM
from tests.votes.test_backup import cast

PERSONAL = "Mail ann.lee@example.org or call 202-555-0143, I miss my dog."


def age(store: Store, **since: float) -> None:
    with store.database.write() as session:
        session.execute(update(Vote).values(created_at=now() - timedelta(**since)))


@pytest.mark.parametrize("form", ["trl", "kto", "csv"])
def test_a_public_export_waits_a_day_and_the_maintainers_does_not(
    arena: Arena, tmp_path: Path, form: str
) -> None:
    cast(arena, arena.new_voter(), "It rained on my parade.")
    for hours, public in ((0, 0), (23.99, 0), (24.01, 1)):
        age(arena.store, hours=hours)
        report = write_export(arena.store, form, tmp_path / form, public=True)
        assert ("parade" in (tmp_path / form).read_text()) is bool(public)
        assert report.left_out["younger than 24 hours"] == 1 - public
        assert write_export(arena.store, form, tmp_path / form).rows > 0


def test_a_comment_that_comes_later_waits_a_day_too(arena: Arena, tmp_path: Path) -> None:
    """What was written in a comment may be withdrawn for a day like all else of the vote."""
    voter = arena.new_voter()
    round_id = cast(arena, voter, "It rained on my parade.")
    age(arena.store, hours=25)
    arena.set_ratings(voter, round_id, {"natural": 40})
    write_export(arena.store, "csv", tmp_path / "csv", public=True)
    assert "parade" in (tmp_path / "csv").read_text(), "a slider is no text"
    arena.set_ratings(voter, round_id, {"natural": 40}, "What I said of it later.")
    for hours, public in ((0, 0), (23.99, 0), (24.01, 1)):
        with arena.store.database.write() as session:
            session.execute(update(Vote).values(comment_at=now() - timedelta(hours=hours)))
        report = write_export(arena.store, "csv", tmp_path / "csv", public=True)
        assert ("said of it" in (tmp_path / "csv").read_text()) is bool(public)
        assert report.left_out["younger than 24 hours"] == 1 - public
        assert len(outbox.Outbox(arena.store).hand_over()) == public


def test_a_download_works_where_the_database_is_held_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.ui.serving import endpoints

    monkeypatch.setattr("empo_demo.votes.database.unreliable_locks", lambda path: True)
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    store = Store.open(url)
    arena = Arena(
        load_settings(database=url), ROSTER, store, engine=ScriptedEngine(), sem=ScriptedSEM()
    )
    cast(arena, arena.new_voter())
    age(store, hours=25)
    with endpoints._written(store, "csv") as file, zipfile.ZipFile(file) as packed:
        assert b"It rained all day." in packed.read("empo-votes-csv.csv")
    store.close()


def stored(arena: Arena, **reading: Any) -> Round:
    """A voted round on `PERSONAL`, as an earlier version without the check would have stored it."""
    round_id = cast(arena, arena.new_voter(), PERSONAL)
    with arena.store.database.write() as session:
        found = session.get_one(Round, round_id)
        found.personal, found.reading = False, (found.reading or {}) | reading
        found.sem_error = f"ValueError: {PERSONAL}"
        found.example = PERSONAL
        found.replies[0].error = PERSONAL
    with arena.store.database.read() as session:
        return session.scalars(select(Round)).one()


def test_what_was_read_in_a_text_is_masked_like_the_text(arena: Arena) -> None:
    words = [(m, PERSONAL.index(m)) for m in ("Mail", "ann.lee", "example.org", "0143", "dog")]
    spans = [{"start": at, "end": at + len(word), "text": word} for word, at in words]
    round_ = stored(
        arena,
        causes=[{**span, "weight": 0.9} for span in spans],
        valence_words=[{**span, "by": -0.2} for span in spans],
    )
    (row,) = rows_of("jsonl", round_)
    said = row["round"]["dialogue"][-1]["content"]
    whole = json.dumps(row)
    assert not any(part in whole for part in ("ann.lee", "example.org", "555-0143"))
    for key in ("causes", "valence_words"):
        kept = row["round"]["reading"][key]
        assert [word["text"] for word in kept] == ["Mail", "[e-mail]", "[phone number]", "dog"]
        assert all(said[word["start"] : word["end"]] == word["text"] for word in kept)
    assert row["vote"]["continued"] != (round_.vote and round_.vote.continued)
    assert Record.check({key: row[key] for key in ("round", "replies", "vote")})
    assert round_.dialogue[-1]["content"] == PERSONAL, "the stored round itself is not changed"
    for form in ("trl", "kto", "csv"):
        assert "ann.lee" not in json.dumps(rows_of(form, round_))


def test_words_that_do_not_lie_where_they_say_are_left_out() -> None:
    text = "Ask @anna_b now."
    wrong = [
        {"start": 0, "end": 3, "text": "ann"},
        {"start": 4, "end": 3, "text": ""},
        {"start": -4, "end": -1, "text": "now"},
    ]
    right = [{"start": 12, "end": 15, "text": "now"}]
    (one,) = mask_words(text, [*wrong, *right])
    assert one == {"start": 16, "end": 19, "text": "now"}


def test_the_report_of_the_page_counts_what_its_download_holds(arena: Arena) -> None:
    from empo_demo.ui.tabs.data_tab import _report

    cast(arena, arena.new_voter())
    assert _report(arena, "csv").rows == 0
    age(arena.store, hours=25)
    report = Report()
    assert _report(arena, "csv").rows == 1 == len(list(rows(arena.store, "csv", report)))


def test_10_000_votes_that_never_leave_do_not_block_the_rest(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention checks at the head of the queue, at a size that a test can have."""
    monkeypatch.setattr(outbox, "BATCH", 3)
    voter = arena.new_voter()
    checks = [cast(arena, voter) for _ in range(4)]
    with arena.store.database.write() as session:
        session.execute(update(Round).where(Round.id.in_(checks)).values(check_side="a"))
    good = [cast(arena, voter) for _ in range(4)]
    age(arena.store, hours=25)
    assert outbox.Outbox(arena.store).hand_over() == good[:3]
