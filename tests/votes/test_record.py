"""What comes in from outside is checked as a visitor is: nothing that is taken breaks anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select
from typer.testing import CliRunner

from empo_demo.arena.arena import Arena
from empo_demo.arena.rounds import own_vote, view_of
from empo_demo.board.agreement import attention_of_voters
from empo_demo.board.ballots import ballots_of_store
from empo_demo.board.board import board
from empo_demo.cli import app
from empo_demo.dialogue import Dialogue, Turn
from empo_demo.empathy import reading
from empo_demo.empathy.feeling import Feeling, Push
from empo_demo.empathy.reading import Reading
from empo_demo.errors import DataError
from empo_demo.exchange.export import FORMATS, export_file
from empo_demo.exchange.record_files import backup, import_file, restore
from empo_demo.ui.drawing import highlights, panes
from empo_demo.ui.texts import texts_of
from empo_demo.votes.models import Reply, Round, Tombstone, Vote, Voter
from empo_demo.votes.reasons import newest
from empo_demo.votes.record import (
    Record,
    ReplyRecord,
    RoundRecord,
    TombstoneRecord,
    VoteRecord,
    VoterRecord,
    record_of,
)
from empo_demo.votes.stats import count
from empo_demo.votes.store import Store
from tests.conftest import ScriptedSEM

SAY = texts_of("en")
RATED = {"a_natural": 80, "b_emotion": 20}
COLUMNS = {
    Round: RoundRecord,
    Reply: ReplyRecord,
    Vote: VoteRecord,
    Voter: VoterRecord,
    Tombstone: TombstoneRecord,
}


@pytest.fixture
def good(arena: Arena, tmp_path: Path) -> dict[str, Any]:
    """A record as the arena's own export writes it, with ratings and a comment."""
    voter = arena.new_voter()
    opened = arena.open_round(
        voter, Dialogue(), "It rained all day.", consent=arena.consent_text().version
    )
    list(arena.stream(voter, opened.round_id))
    arena.vote(voter, opened.round_id, "a", ratings=RATED, comment="warm")
    export_file(arena.settings.database, "jsonl", tmp_path / "good.jsonl")
    record: dict[str, Any] = json.loads((tmp_path / "good.jsonl").read_text())
    return record


def numbered(record: dict[str, Any], number: int) -> dict[str, Any]:
    """The same record as another round by another voter."""
    made = copy.deepcopy(record)
    made["round"] |= {"id": f"{number:032x}", "voter": f"{number % 7:064x}"}
    for part in (*made["replies"], made["vote"]):
        part["round_id"] = f"{number:032x}"
    made["vote"] |= {"id": number + 1, "receipt": f"{number:05d}-AAAAA"}
    return made


def seen_by_its_voter(round_: Round) -> None:
    """The page after a reload, and the voter's own data."""
    view = view_of(round_, {})
    json.dumps([view.as_json(), record_of(round_)])
    highlights.heard(view.reading)
    last = view.dialogue.turns[-1].content
    highlights.marked(last, view.reading.causes if view.reading else ())
    if round_.vote:
        json.dumps(own_vote(round_, {}))
        assert view.receipt and panes.reveal(
            view.receipt, SAY, rehearsal=False, kept=True, helped=3, others=None
        )


def all_doors(url: str, folder: Path) -> None:
    """Whatever reads stored rounds: start, exports, counts, the Board and its figures."""
    store = Store.open(url)
    try:
        found = board(ballots_of_store(store), samples=20)
        for table in (found.table(), found.matrix_table(), found.days):
            json.dumps(table)
        found.sliders_table()
        json.dumps([count(store).as_json(), newest(store, 100)])
        attention_of_voters(store)
        with store.database.read() as session:
            for round_ in session.scalars(select(Round)):
                seen_by_its_voter(round_)
    finally:
        store.close()
    for form in FORMATS:
        export_file(url, form, folder / f"votes.{form}")


def test_the_model_knows_every_column() -> None:
    for table, model in COLUMNS.items():
        assert set(model.model_fields) == {column.key for column in inspect(table).columns}


def test_the_model_knows_all_that_a_sem_reads() -> None:
    words = Feeling(0.5, 0.2, 0.1, "sem", (Push(0, 2, "It", 0.1),))
    found = replace(ScriptedSEM().read([Turn("user", "It rained.")]), feeling=words)
    stored = json.loads(json.dumps(found.stored()))
    assert set(stored) == reading.KEYS
    kept = reading.checked_json({**stored, "a key of another version": {"x": [[]]}})
    assert json.dumps(kept) == json.dumps(stored)
    assert Reading.from_json(kept) == found


@pytest.mark.parametrize("left_out", [("valence", "likely"), ("certainty", "abstains"), ("sem",)])
def test_the_reading_of_an_earlier_version_is_taken_and_given_back_as_it_was(
    good: dict[str, Any], tmp_path: Path, left_out: tuple[str, ...]
) -> None:
    old = good["round"]["reading"]
    for key in left_out:
        for name in [name for name in old if name.startswith(key)]:
            del old[name]
    old["causes"] = old["causes"][::-1]
    file, url = tmp_path / "old.jsonl", f"sqlite:///{tmp_path}/other.sqlite3"
    file.write_text(f"{json.dumps(good)}\n")
    store = Store.open(url)
    assert import_file(store, file).new == 1
    store.close()
    export_file(url, "jsonl", tmp_path / "again.jsonl")
    again = json.loads((tmp_path / "again.jsonl").read_text())
    assert json.dumps(again["round"]["reading"]) == json.dumps(old)
    all_doors(url, tmp_path)


EVIL: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a seed that no column holds": lambda r: r["round"].update(seed=-(2**80)),
    "a dialogue that is a text": lambda r: r["round"].update(dialogue="zz"),
    "a dialogue that ends with a reply": lambda r: r["round"]["dialogue"].append(
        {"role": "assistant", "content": "Oh."}
    ),
    "a reading that is a text": lambda r: r["round"].update(reading="evil"),
    "a probability of 7": lambda r: r["round"]["reading"]["emotions"][0].update(probability=7),
    "a valence that is a text": lambda r: r["round"]["reading"].update(valence="evil"),
    "one emotion": lambda r: r["round"]["reading"].update(
        emotions=r["round"]["reading"]["emotions"][:1]
    ),
    "ratings that are a text": lambda r: r["vote"].update(ratings="evil"),
    "a rating of 1e308": lambda r: r["vote"].update(ratings={"a_natural": 1e308}),
    "an unknown slider": lambda r: r["vote"].update(ratings={"a_beauty": 3}),
    "a side z": lambda r: r["vote"].update(chosen="z"),
    "a path as an id": lambda r: r["round"].update(id="../../x"),
    "a time that is none": lambda r: r["round"].update(created_at="yesterday"),
    "a time before all": lambda r: r["vote"].update(created_at="0001-01-01T00:00:00+14:00"),
    "a NUL": lambda r: r["replies"][0].update(text="a\x00b"),
    "a surrogate": lambda r: r["replies"][0].update(text="a\ud800b"),
    "a reply without text": lambda r: r["replies"][1].update(text=""),
    "a column too long": lambda r: r["round"].update(roster="x" * 201),
    "another round's reply": lambda r: r["replies"][0].update(round_id="0" * 32),
    "seconds without end": lambda r: r["vote"].update(seconds=1e300),
    "a switch that is a number": lambda r: r["round"].update(crisis=0),
    "a deep value": lambda r: r["round"].update(decoding=json.loads("[" * 70 + "]" * 70)),
}


def test_poisonous_records_are_named_and_the_good_ones_are_in(
    good: dict[str, Any], tmp_path: Path
) -> None:
    records = [numbered(good, 0), *(numbered(good, n + 1) for n in range(len(EVIL)))]
    for record, evil in zip(records[1:], EVIL.values(), strict=True):
        evil(record)
    file, url = tmp_path / "in.jsonl", f"sqlite:///{tmp_path}/other.sqlite3"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in records))
    done = CliRunner().invoke(app, ["votes", "import", str(file), "--database", url])
    assert done.exit_code == 0, done.output
    *named, more, summary = done.stderr.splitlines()
    assert [line.split(":")[0] for line in named] == [f"line {n}" for n in range(2, 22)]
    assert more == f"… and {len(EVIL) - 20} more."
    counted = f"1 rounds imported, 0 were there before, {len(EVIL)} bad lines left out."
    assert summary == f"{file}: {counted}"
    all_doors(url, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000 + b"]" * 100_000, b'{"round": "\\ud800"}', b"{}\n[]\n1\nnull"],
)
def test_a_file_without_one_good_record_ends_with_code_2(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(content)
    url = f"sqlite:///{tmp_path}/other.sqlite3"
    done = CliRunner().invoke(app, ["votes", "import", str(file), "--database", url])
    assert done.exit_code == 2 and done.stderr.splitlines()[-1].endswith("bad lines left out.")


def test_a_file_that_is_not_text_is_refused(arena: Arena, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not a UTF-8 text file"):
        import_file(arena.store, tmp_path / "in.jsonl")


NASTY: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            2**63,
            -(2**80),
            1e308,
            0.5,
            "",
            "a",
            "b",
            "z",
            "evil",
            "\x00",
            "../../x",
            "yesterday",
            "2026-01-01T00:00:00",
            "2026-11-01T00:00:00+00:00",
            "tie",
            "void",
            "both_bad",
            "pending",
            "check",
            [],
            {},
            [[]],
            {"a": {}},
            "=1+1",
            "<b>",
            "x" * 300,
            "9999-12-31T23:59:59-12:00",
            {"a_natural": 100},
            {"a_natural": True},
        ]
    ),
    st.text(max_size=8),
    st.integers(),
    st.floats(allow_nan=False),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=3),
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*above, key)
        if isinstance(one, dict | list):
            yield from places(one, (*above, key))


def mutated(record: dict[str, Any], changes: list[tuple[int, str, Any]]) -> dict[str, Any]:
    for place, kind, value in changes:
        known = list(places(record))
        if not known:
            return record
        *above, last = known[place % len(known)]
        owner: Any = record
        for key in above:
            owner = owner[key]
        if kind == "set":
            owner[last] = value
        elif kind == "drop":
            del owner[last]
        elif isinstance(owner, list):
            owner.append(value)
        else:
            owner[str(value)[:40]] = value
    return record


CHANGES = st.lists(
    st.tuples(st.integers(0, 2000), st.sampled_from(["set", "set", "drop", "add"]), NASTY),
    min_size=1,
    max_size=2,
)
FILES = settings(
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
"""Whole files are drawn: the same ones each time, and none is made smaller when it fails."""


@pytest.mark.slow
@settings(FILES, max_examples=10)
@given(st.lists(CHANGES, min_size=100, max_size=100))
def test_no_mutated_record_breaks_an_export_the_board_or_the_next_start(
    good: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, mutations: list[Any]
) -> None:
    """10 files of 100 records, each changed in one or two places."""
    folder = tmp_path_factory.mktemp("mutated")
    records = [mutated(numbered(good, n), changes) for n, changes in enumerate(mutations)]
    file = folder / "in.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in (*records, numbered(good, 999))))
    url = f"sqlite:///{folder}/votes.sqlite3"
    store = Store.open(url)
    report = import_file(store, file)
    store.close()
    assert report.new + report.known + len(report.bad) == len(records) + 1 and report.new
    all_doors(url, folder)


CELLS = [
    (part, column)
    for part, model in (
        ("round", RoundRecord),
        ("replies", ReplyRecord),
        ("vote", VoteRecord),
        ("voter", VoterRecord),
    )
    for column in model.model_fields
]
RAW: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            "yesterday",
            "zz",
            "",
            "{",
            "[]",
            None,
            2**62,
            -1,
            1e308,
            "z",
            "[" * 900 + "]" * 900,
            "../../x",
            '"evil"',
            "2026-01-01 00:00:00.000000",
            [[]],
            {"a": []},
            "0" * 32,
            "0" * 64,
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=5),
)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf8")


def backup_of(good: dict[str, Any], rounds: int, path: Path) -> None:
    store = Store.open(f"sqlite:///{path}.source")
    with store.database.write() as session:
        made = [Record.check(numbered(good, n)).as_round() for n in range(rounds)]
        known = {round_.voter: round_ for round_ in made}.values()
        session.add_all(Voter(id=one.voter, created_at=one.created_at) for one in known)
        session.flush()
        session.add_all(made)
    backup(store, path)
    store.close()


@pytest.mark.slow
@settings(FILES, max_examples=5)
@given(
    st.lists(st.tuples(st.sampled_from(CELLS), st.integers(0, 50), RAW), min_size=20, max_size=20)
)
def test_no_damaged_row_of_a_backup_breaks_the_restored_database(
    good: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    damages: list[tuple[tuple[str, str], int, Any]],
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    backup_of(good, 50, folder / "backup.jsonl")
    held, *lines = lines_of(folder / "backup.jsonl")
    for (part, column), row, value in damages:
        damaged = lines[row % 50][part]
        (damaged[row % 2] if part == "replies" else damaged)[column] = value
    write_lines(folder / "backup.jsonl", [held, *lines])
    url = f"sqlite:///{folder}/votes.sqlite3"
    store = Store.open(url)
    report = restore(store, folder / "backup.jsonl")
    store.close()
    assert report.new >= 50 - len(damages)
    all_doors(url, folder)


def test_a_backup_with_bad_times_is_restored_without_the_bad_rounds(
    arena: Arena, good: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "backup.jsonl"
    backup_of(good, 3, file)
    held, *lines = lines_of(file)
    lines[1]["round"]["created_at"] = "yesterday"
    write_lines(file, [held, *lines])
    url = arena.settings.database
    command = ["votes", "restore", str(file), "--database", url]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    bad, summary = done.stderr.splitlines()
    assert "'yesterday' is not a time" in bad
    assert summary.endswith("2 votes in 2 rounds restored, 1 bad lines left out.")
    for line in lines:
        line["round"]["created_at"] = "yesterday"
    write_lines(file, [held, *lines])
    with pytest.raises(DataError, match="nothing was changed"):
        restore(arena.store, file)
    assert count(arena.store).votes == {"a": 2}


def test_a_backup_that_is_cut_off_changes_nothing(
    arena: Arena, good: dict[str, Any], tmp_path: Path
) -> None:
    """A restore replaces what is there, so a part of a backup would lose votes."""
    file = tmp_path / "backup.jsonl"
    backup_of(good, 5, file)
    write_lines(file, lines_of(file)[:4])
    with pytest.raises(DataError, match=r"cut off: it has 3 of 5 rounds; nothing was changed"):
        restore(arena.store, file)
    assert count(arena.store).votes == {"a": 1}
    other = Store.open(f"sqlite:///{tmp_path}/other.sqlite3")
    assert (import_file(other, file).new, count(other).votes) == (3, {"a": 3})
    other.close()
