"""The examples run: the client against a served page, and the file of contenders."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from empo_demo.contenders.load_roster import load_roster
from empo_demo.settings import Settings
from tests.attacks.conftest import serve
from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def test_the_client_plays_a_round_and_says_who_was_who(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("client", EXAMPLES / "client.py")
    assert spec is not None and spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    for served in serve(tmp_path):
        client.play(served.url, "I lost my keys again.", "b")
    said = capsys.readouterr().out
    assert re.search(r"^A: \S.*^B: \S.*^A was \S.*^B was \S", said, re.DOTALL | re.MULTILINE)


def test_the_own_contenders_are_read_and_share_one_base() -> None:
    roster = load_roster(Settings(preset=str(EXAMPLES / "own_contenders.toml")))
    assert [one.id for one in roster.contenders] == ["base", "aligned", "aligned+HEF"]
    assert len({one.base for one in roster.contenders}) == 1
