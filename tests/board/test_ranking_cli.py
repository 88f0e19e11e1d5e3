"""`votes rank` and `votes ratings`: stable keys, nothing hidden in JSON, one line on bad rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from empo_demo.board.ballot_file import read_ballots
from empo_demo.board.cli import register
from empo_demo.errors import DataError

app = typer.Typer()
register(app)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


def votes(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [
        {
            "round": f"r{i}",
            "voter": f"v{i % 5}",
            "a": "base" if i % 2 else "aligned",
            "b": "aligned" if i % 2 else "base",
            "verdict": ("a", "b", "tie", "both_bad")[i % 4],
            "len_a": 10 + i % 7,
            "len_b": 12,
            **extra,
        }
        for i in range(count)
    ]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_rank_prints_one_line_with_the_documented_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", votes(40))
    out = run("rank", "--input", str(path), "--json", "--samples", "50")
    result = json.loads(out)
    assert out.count("\n") == 1
    assert {"contenders", "ties", "both_bad", "position_effect", "length_effect"} <= set(result)
    assert {
        "id",
        "win_rate",
        "win_rate_interval",
        "strength",
        "strength_interval_bootstrap",
        "strength_interval_sandwich",
        "votes",
    } <= set(result["contenders"][0])
    assert sum(one["strength"] for one in result["contenders"]) == pytest.approx(0)
    assert len(result["position_effect"]["interval"]) == 2


def test_json_hides_nothing_and_the_table_hides_few_votes(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", votes(20))
    result = json.loads(run("rank", "--input", str(path), "--json", "--samples", "50"))
    assert all(one["win_rate"] is not None for one in result["contenders"])
    assert "fewer" in run("rank", "--input", str(path), "--samples", "50")


def test_equal_lengths_give_a_null_effect(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", votes(40, len_a=9, len_b=9))
    result = json.loads(run("rank", "--input", str(path), "--json", "--samples", "50"))
    assert result["length_effect"] is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", ":3: it is not JSON"),
        ("[1]", ":3: an object"),
        ('{"round": 1}', ":3: voter, a, b, verdict is missing"),
        ('{"round":1,"voter":1,"a":"x","b":"y","verdict":"c"}', ":3: verdict is 'c'"),
        ('{"round":1,"voter":1,"a":"x","b":"y","verdict":["a"]}', ":3: verdict is "),
        ('{"round":1,"voter":1,"a":"x","b":"y","verdict":{"a":1}}', ":3: verdict is "),
        ('{"round":1,"voter":1,"a":"x","b":"x","verdict":"a"}', ":3: a and b are both 'x'"),
        ('{"round":1,"voter":1,"a":"x","b":"y","verdict":"a","len_a":-1}', ":3: len_a is -1"),
        ('{"round":1,"voter":1,"a":"x","b":"y","verdict":"a","len_a":NaN}', ":3: it holds NaN"),
    ],
)
def test_a_bad_line_names_file_and_line(tmp_path: Path, bad: str, message: str) -> None:
    path = write(tmp_path / "votes.jsonl", votes(2))
    path.write_text(path.read_text(encoding="utf8") + bad + "\n", encoding="utf8")
    with pytest.raises(DataError, match=f"votes.jsonl{message}".replace("[", r"\[")):
        read_ballots(path)


def test_a_vote_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "votes.jsonl", [*votes(2), *votes(1)])
    with pytest.raises(DataError, match="two rows"):
        read_ballots(path)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_ballots(tmp_path / "none.jsonl")


def test_shared_rounds_give_an_agreement(tmp_path: Path) -> None:
    rows = [{**row, "voter": who} for row in votes(8) for who in ("u", "v")]
    path = write(tmp_path / "votes.jsonl", rows)
    result = json.loads(run("rank", "--input", str(path), "--json", "--samples", "10"))
    assert result["agreement"]["krippendorff_alpha"] == pytest.approx(1.0)
    assert result["agreement"]["shared_units"] == 8


def test_ratings_reads_the_papers_file(tmp_path: Path) -> None:
    path = tmp_path / "human.csv"
    path.write_text("Dim1,annotator,sample_index,model\n10,r,1,x\n30,s,1,x\n", encoding="utf8")
    result = json.loads(run("ratings", "--input", str(path), "--json"))
    assert result["contenders"]["x"]["appropriate"]["mean"] == 20.0


def test_names_in_square_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    """rich takes [bold] for an order and [/] for a fault; a file may name a contender so."""
    rows = [
        {
            "round": str(i),
            "voter": str(i),
            "a": "[/]",
            "b": "[bold]x",
            "verdict": "a",
            "ratings": {"a_natural": 40 + i, "b_natural": 60},
        }
        for i in range(4)
    ]
    path = write(tmp_path / "votes.jsonl", rows)
    for command in ("rank", "ratings"):
        said = run(command, "--input", str(path))
        assert "[/]" in said and "[bold]x" in said
