"""Files that people hand in are read, or refused in one line; nothing makes a traceback."""

from __future__ import annotations

import gzip
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from empo_demo.cli import app
from empo_demo.errors import DataError
from empo_demo.files import MAX_LINE, json_lines, parse_json, read_text

DEEP = b"[" * 100_000 + b"]" * 100_000
SURROGATE = b'[{"role": "user", "content": "a \\ud800 b"}]'


@pytest.mark.parametrize("content", [DEEP, b"[" * 900 + b"]" * 900, SURROGATE, b"\xff\xfe[]", b"{"])
def test_compare_refuses_a_dialogue_that_is_no_dialogue_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "dialogue.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"dialogue\.json"):
        CliRunner().invoke(app, ["compare", "--dialogue", str(file)], catch_exceptions=False)


READERS = {
    "empo_demo.evaluation.dialogues": "read_items",
    "empo_demo.evaluation.results": "read_retention",
    "recipes.studies.hef.runner": "read_answers",
    "recipes.studies.hef.reply_judge": "train_judge",
    "empo_demo.engine.predictions": "read_predictions",
    "empo_demo.metrics.lexical": "read_counts",
    "empo_demo.training.corpus": "read_lines",
    "empo_demo.board.ballot_file": "read_ballots",
}


@pytest.mark.parametrize("name", [*READERS, "empo_demo.evaluation.results.read"])
@pytest.mark.parametrize("start", [b"", b'{"conv_id": '])
def test_every_file_that_is_handed_in_may_be_deep(tmp_path: Path, name: str, start: bytes) -> None:
    room, function = (name, READERS[name]) if name in READERS else name.rsplit(".", 1)
    read = getattr(import_module(room), function)
    file = tmp_path / "in.jsonl"
    file.write_bytes(start + DEEP + b"\n")
    with pytest.raises(DataError, match=r"in\.jsonl"):
        list(read(file))


@pytest.mark.parametrize(
    "name",
    ["empo_demo.engine.predictions", "empo_demo.metrics.lexical", "empo_demo.training.corpus"],
)
@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip"])
def test_a_damaged_gzip_file_is_one_line(tmp_path: Path, name: str, damage: str) -> None:
    raw = bytearray(gzip.compress(b'{"utterances": []}\n' * 5000))
    if damage == "changed":
        raw[20], raw[24] = raw[20] ^ 0xFF, raw[24] ^ 0x5A
    file = tmp_path / "in.jsonl.gz"
    file.write_bytes({"cut": raw[:60], "changed": raw, "no gzip": b"\x1f\x8bno"}[damage])
    read = getattr(import_module(name), READERS[name])
    with pytest.raises(DataError, match=r"in\.jsonl"):
        list(read(file))


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    from empo_demo.ui.cli import _write

    with pytest.raises(DataError, match="cannot be written"):
        _write(tmp_path / "none" / "x.json", {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (DEEP, "nested deeper"),
        (b"[" * 65 + b"]" * 65, "nested deeper"),
        (SURROGATE, "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[NaN]", "NaN"),
        (b"\xff", "UTF-8"),
        (b"1" * 5000, "digits"),
    ],
)
def test_what_json_loads_would_let_through_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_value_error(text: bytes) -> None:
    try:
        json.dumps(parse_json(text), ensure_ascii=False).encode()
    except ValueError as error:
        assert str(error)


def test_lines_go_on_after_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    long = b'"' + b"x" * MAX_LINE + b'"'
    file.write_bytes(b"\xef\xbb\xbf1\n\n\xff\n" + long + b"\n{}\n" + long + long)
    found: list[Any] = [
        (number, str(value) if isinstance(value, ValueError) else value)
        for number, value in json_lines(file)
    ]
    assert [number for number, _ in found] == [1, 3, 4, 5, 6]
    assert found[0][1] == 1 and found[3][1] == {} and "UTF-8" in found[1][1]
    assert "longer" in found[2][1] and "longer" in found[4][1]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        read_text(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        list(json_lines(tmp_path / "absent"))
