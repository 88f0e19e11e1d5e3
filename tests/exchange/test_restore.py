"""Votes outlive the machine: pushed, the disk wiped, and back from the data set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from empo_demo.arena.arena import Arena
from empo_demo.cli import app as terminal
from empo_demo.dialogue import Dialogue
from empo_demo.exchange import data_set
from empo_demo.exchange.export import export_file
from empo_demo.exchange.hub import Pusher
from empo_demo.votes.models import Tombstone, now
from empo_demo.votes.store import Store
from tests.conftest import REPOSITORY
from tests.hub import Hub, Repository


def process(hub: Hub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = (
        os.environ
        | hub.environment()
        | {
            "HF_HOME": str(folder / "hf"),
            "PYTHONPATH": str(REPOSITORY),
        }
    )
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def app(hub: Hub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    script = str(REPOSITORY / "tests" / "exchange" / "pushing_app.py")
    return process(hub, folder, script, str(folder), *arguments)


def said(started: subprocess.Popen[str]) -> dict[str, Any]:
    """The one line that the app prints, or its complaint."""
    assert started.stdout is not None and started.stderr is not None
    line = started.stdout.readline()
    assert line, started.stderr.read()[-3000:]
    answer: dict[str, Any] = json.loads(line)
    return answer


def command(hub: Hub, folder: Path, *arguments: str) -> tuple[int, str]:
    started = process(hub, folder, "-m", "empo_demo", *arguments)
    _, complaint = started.communicate(timeout=300)
    return started.returncode, complaint


DEEP = b"[" * 100_000 + b"]" * 100_000


def publish(hub: Hub, lines: list[bytes], *, tombstones: bytes = b"") -> Repository:
    """A data set with these lines in one file."""
    files = {"data/votes.jsonl": b"".join(line + b"\n" for line in lines)}
    held = Repository(files | ({"tombstones.jsonl": tombstones} if tombstones else {}))
    hub.repositories["dataset/a/b"] = held
    return held


@pytest.fixture
def rows(arena: Arena, tmp_path: Path) -> list[bytes]:
    """Three published votes; the reply of the first holds a line separator (U+2028)."""
    for _ in range(3):
        voter, consent = arena.new_voter(), arena.consent_text().version
        opened = arena.open_round(voter, Dialogue(), "It rained.", consent=consent)
        list(arena.stream(voter, opened.round_id))
        arena.vote(voter, opened.round_id, "a")
    export_file(arena.settings.database, "jsonl", tmp_path / "all.jsonl")
    records = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().split("\n")[:-1]]
    records[0]["replies"][0]["text"] = "Oh\u2028no."
    published = [json.dumps(data_set.published(one), ensure_ascii=False) for one in records]
    return [line.encode() for line in published]


def poison(row: bytes) -> list[bytes]:
    late = json.loads(row)
    late["vote"]["created_at"] = "9999-12-31T23:59:59+00:00"
    half = json.loads(row)
    half["replies"][0]["text"] = "a\ud800b"
    return [
        DEEP,
        b'{"round_id": []}',
        b'{"round_id": {}}',
        b"1",
        b"\xff\xfe",
        b'{"round_id": "../../x"}',
        json.dumps(late | {"round_id": "0" * 32}).encode(),
        json.dumps(half | {"round_id": "1" * 32}).encode(),
    ]


def test_poison_in_the_data_set_is_named_and_the_good_votes_are_in(
    hub: Hub, rows: list[bytes], tmp_path: Path
) -> None:
    bad = poison(rows[0])
    publish(hub, [*bad, *rows], tombstones=b'{"round_id": []}\n[[]]\n\xff\n')
    store = Store.open(f"sqlite:///{tmp_path}/new.sqlite3")
    report = Pusher(store, "a/b").pull()
    assert (report.new, len(report.bad)) == (3, len(bad)), report.bad
    assert report.bad[0].startswith("data/votes.jsonl, line 1: it is nested deeper")
    store.close()


def test_a_pull_without_one_good_line_ends_with_code_2(
    hub: Hub, rows: list[bytes], tmp_path: Path
) -> None:
    bad = poison(rows[0])
    for number, (lines, code) in enumerate(((bad, 2), ([*bad, *rows], 0), ([], 0))):
        publish(hub, lines)
        url = f"sqlite:///{tmp_path}/new-{number}.sqlite3"
        asked = ["votes", "pull", "--repo", "a/b", "--database", url]
        done = CliRunner().invoke(terminal, asked)
        assert done.exit_code == code, done.output
        assert done.stderr.splitlines()[-1].startswith("a/b: ")


def test_what_is_withdrawn_is_taken_out_beside_poison_and_nothing_else_changes(
    hub: Hub, rows: list[bytes], tmp_path: Path
) -> None:
    lines = [rows[0], *poison(rows[0]), rows[1], rows[2]]
    held = publish(hub, lines)
    store = Store.open(f"sqlite:///{tmp_path}/new.sqlite3")
    gone = json.loads(rows[1])["round_id"]
    with store.database.write() as session:
        session.add(Tombstone(round_id=gone, at=now(), published=True))
    assert Pusher(store, "a/b").push().withdrawn == 1
    kept = [line for line in lines if line != rows[1]]
    assert held.files["data/votes.jsonl"] == b"".join(one + b"\n" for one in kept)
    assert not held.history
    store.close()


@pytest.mark.slow
def test_a_wiped_app_finds_every_pushed_vote_again(hub: Hub, tmp_path: Path) -> None:
    first = app(hub, tmp_path / "disk", "vote", "6")
    before = said(first)
    assert before["published"] == 6
    first.kill()
    first.wait(10)
    shutil.rmtree(tmp_path / "disk")

    second = said(app(hub, tmp_path / "disk", "start", before["voter"]))
    assert [name for name, _ in second["mine"]] == before["pushed"]
    assert sum(second["votes"].values()) == 6
    assert "The last push to anna/votes was 6 hours ago" in second["said"]

    # Started again over the filled database: nothing comes twice, and nothing is pushed anew.
    commits = len([path for path in hub.paths("POST") if "/commit/" in path])
    third = said(app(hub, tmp_path / "disk", "start", before["voter"]))
    assert third["mine"] == second["mine"]
    assert len([path for path in hub.paths("POST") if "/commit/" in path]) == commits


@pytest.mark.slow
def test_withdrawn_votes_stay_withdrawn_after_a_pull(hub: Hub, tmp_path: Path) -> None:
    first = app(hub, tmp_path / "disk", "vote", "3")
    before = said(first)
    first.kill()
    gone, *_ = before["pushed"]
    tombstone = f"{json.dumps({'round_id': gone})}\n"
    held = hub.repositories["dataset/anna/votes"]
    held.files["tombstones.jsonl"] = tombstone.encode()
    held.files["data/broken.jsonl"] = b'{"round_id": "x"}\nnot json\n'
    url = f"sqlite:///{tmp_path}/new.sqlite3"
    code, told = command(hub, tmp_path, "votes", "pull", "--repo", "anna/votes", "--database", url)
    assert code == 0 and "2 rounds imported" in told and "1 had been withdrawn" in told, told
    assert "bad lines left out" in told
    again = command(hub, tmp_path, "votes", "pull", "--repo", "anna/votes", "--database", url)
    assert "0 rounds imported, 2 were there before" in again[1]
    hub.down = True
    code, told = command(hub, tmp_path, "votes", "pull", "--repo", "anna/votes", "--database", url)
    assert code == 2 and "Traceback" not in told
    assert told.splitlines()[-1].startswith("Error: The votes in anna/votes could not be read")


@pytest.mark.slow
def test_what_is_deleted_after_a_restore_leaves_the_data_set(hub: Hub, tmp_path: Path) -> None:
    """The restored app has never pushed these votes itself, and takes them out all the same."""
    first = app(hub, tmp_path / "disk", "vote", "2")
    before = said(first)
    first.kill()
    first.wait(10)
    shutil.rmtree(tmp_path / "disk")
    held = hub.repositories["dataset/anna/votes"]

    def published() -> bytes:
        return b"".join(held.files[name] for name in held.files if name.startswith("data/"))

    assert all(name.encode() in published() for name in before["pushed"])

    second = app(hub, tmp_path / "disk", "forget", before["voter"])
    deleted = said(second)
    second.kill()
    second.wait(10)
    assert deleted["deleted"] == 2 and not sum(deleted["votes"].values())
    assert not any(name.encode() in published() for name in before["pushed"])
    tombstones = held.files["tombstones.jsonl"]
    assert all(name.encode() in tombstones for name in before["pushed"]) and held.squashed

    shutil.rmtree(tmp_path / "disk")
    third = app(hub, tmp_path / "disk", "start", before["voter"])
    assert not said(third)["mine"]
