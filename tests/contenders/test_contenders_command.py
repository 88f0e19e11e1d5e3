"""`python -m empo_demo contenders`, as a script reads it, and how bad settings end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TWO = """
[[contenders]]
id = "base"
base = "model"

[[contenders]]
id = "base+HEF"
base = "model"
strategy = "hef"
"""
KEYS = {"id", "base", "adapter", "strategy", "weight", "label", "revision", "parent"}


def command(
    tmp_path: Path, text: str, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "roster.toml").write_text(text)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EMPO_")}
    return subprocess.run(
        [sys.executable, "-m", "empo_demo", *words],
        env={**kept, "EMPO_PRESET": str(tmp_path / "roster.toml"), **more},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_listing_is_one_line_of_json_alone_on_stdout(tmp_path: Path) -> None:
    done = command(tmp_path, TWO, "contenders", "--json")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    rows = json.loads(done.stdout)["contenders"]
    assert [row["id"] for row in rows] == ["base", "base+HEF"]
    assert all(row.keys() >= KEYS for row in rows)
    asked = json.loads(done.stdout)["quantization_asked"]
    assert asked == "nf4" and {row["quantization"] for row in rows} == {None}, "nothing was tried"
    assert len({row["revision"] for row in rows}) == 2, "a strategy is part of the revision"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO + TWO, "'base' 2 times"),
        (TWO.replace('"model"', '"model"\nweight = 0'), "the weights sum to zero"),
        (TWO.replace('"model"', '"./nowhere"'), "no such folder"),
    ],
)
def test_a_bad_roster_ends_the_command_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    done = command(tmp_path, text, "contenders", "--json")
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_an_unknown_sem_ends_the_command_in_one_line(tmp_path: Path) -> None:
    done = command(tmp_path, TWO, "analyze", "I am sad.", EMPO_SEM="nobody")
    assert done.returncode == 2 and done.stdout == ""
    assert "EMPO_SEM holds 'nobody'" in done.stderr and done.stderr.count("\n") == 1
