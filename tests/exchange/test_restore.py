"""Votes outlive the machine: pushed, the disk wiped, and back from the data set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.hub import Hub, running


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as started:
        yield started


def process(hub: Hub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | hub.environment() | {
        "HF_HOME": str(folder / "hf"), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


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
    _, complaint = started.communicate(timeout=120)
    return started.returncode, complaint


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
