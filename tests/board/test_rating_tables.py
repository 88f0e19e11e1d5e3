"""Any study's table: its columns are found, its figures right, and its confounding said."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from empo_demo.board.agreement import reliability
from empo_demo.board.ballot_file import read_ratings
from empo_demo.board.cli import register
from empo_demo.board.rating_table import Columns
from empo_demo.board.ratings import summarise
from empo_demo.errors import DataError

app = typer.Typer()
register(app)


def study(**changes: Any) -> list[dict[str, Any]]:
    """Raters m0-m5 rate both systems, a0-a5 only x; x is 10 better, and mild raters rate it."""
    draw = np.random.default_rng(0)
    rows = []
    for system, raters in (("x", "m a"), ("y", "m")):
        for kind in raters.split():
            for number in range(6):
                for item in range(10):
                    level = 50 + 10 * (system == "x") + 20 * (kind == "a") + number
                    rows.append(
                        {
                            "index": len(rows),
                            "dialogue": f"d{item}",
                            "model": system,
                            "judge": f"{kind}{number}",
                            "warm": round(level + draw.normal(), 3),
                            "clear": draw.integers(1, 6),
                            "words": 10 + item,
                            "age": 20 + number,
                            "seconds": draw.integers(9, 99),
                            "note": "",
                        }
                        | changes
                    )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.active.append(list(rows[0]))
        for row in rows:
            book.active.append([v.item() if hasattr(v, "item") else v for v in row.values()])
        book.save(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, default=float) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter=";")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.xlsx", "x.jsonl"])
def test_every_kind_of_table_gives_the_same_ratings(tmp_path: Path, name: str) -> None:
    found = read_ratings(write(tmp_path / name, study()))
    assert found.scales == ("warm", "clear")
    assert set(found.no_scales) == {"index", "words", "age", "seconds"}
    assert len(found.ratings) == 360 and found.ratings[0].item == "d0"
    assert {one.rater for one in found.ratings} >= {"m0", "a5"}


def test_columns_may_be_named(tmp_path: Path) -> None:
    rows = [{"q": i % 3, "who": i // 3, "by": "x", "good": i} for i in range(9)]
    path = write(tmp_path / "x.csv", rows)
    with pytest.raises(DataError, match=r"of the item is missing.*q, who, by, good.*--item"):
        read_ratings(path)
    found = read_ratings(path, Columns("q", "by", "who", ("good",)))
    assert [one.value for one in found.ratings] == list(range(9))
    with pytest.raises(DataError, match="no column better"):
        read_ratings(path, Columns("q", "by", "who", ("better",)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"warm": "very"}, r"x.csv:4: warm holds 'very'"),
        ({"judge": ""}, r"x.csv:4: judge is missing"),
        ({"judge": "m0", "dialogue": "d0"}, r"x.csv:4: the rater 'm0' rated .* in line 2 already"),
    ],
)
def test_a_bad_row_names_its_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = study()
    rows[2] |= change
    with pytest.raises(DataError, match=said):
        read_ratings(write(tmp_path / "x.csv", rows))


def test_a_missing_answer_is_no_rating(tmp_path: Path) -> None:
    rows = study()
    rows[2]["warm"] = ""
    assert len(read_ratings(write(tmp_path / "x.csv", rows)).ratings) == 359


def test_excel_without_its_library_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.xlsx", study())
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DataError, match="pip install openpyxl"):
        read_ratings(path)
    path.write_bytes(b"PK\x03\x04 torn")
    monkeypatch.undo()
    with pytest.raises(DataError, match="not a whole Excel file"):
        read_ratings(path)


def test_a_difference_between_raters_is_told_apart_from_one_of_systems(tmp_path: Path) -> None:
    """Half of x's raters saw x only, and are 20 milder: within the others x is 10 better."""
    result = summarise(read_ratings(write(tmp_path / "x.csv", study())).ratings)
    (one,) = (c for c in result.comparisons if c.scale == "warm")
    assert one.difference.value == pytest.approx(20, abs=0.5)
    assert one.within is not None and one.within.value == pytest.approx(10, abs=0.5)
    assert (one.raters, one.raters_of_both) == ((12, 6), 6)
    assert result.confounding == [
        "x − y: 6 of 12 raters rated both; the rest saw one of them only."
    ]
    assert one.wins.rate == 1.0 and one.p_holm is not None
    rows = [row for row in study() if (row["model"] == "x") == row["judge"].startswith("a")]
    apart = summarise(read_ratings(write(tmp_path / "y.csv", rows)).ratings)
    assert "Between raters only, since nobody rated both: x − y" in apart.confounding[0]


def test_the_icc_is_shrouts_and_fleisss() -> None:
    """Their table 2: six targets, four judges; ICC(1, 1) .17 and ICC(1, k) .44."""
    table = ("9 2 5 8", "6 1 3 2", "8 4 6 8", "7 1 2 6", "10 5 6 9", "6 2 4 7")
    found = reliability(
        (judge, target, float(value))
        for target, row in enumerate(table)
        for judge, value in enumerate(row.split())
    )
    assert found.icc_1 == pytest.approx(0.17, abs=0.005)
    assert found.icc_k == pytest.approx(0.44, abs=0.005)
    assert found.ceiling == pytest.approx((found.icc_k or 0) ** 0.5)


def test_the_papers_study_comes_out_to_the_last_digit(data_dir: Path) -> None:
    result = CliRunner().invoke(
        app, ["ratings", "--input", str(data_dir / "empo_ratings.csv.gz"), "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    scales = ("appropriate", "addresses_emotion", "natural", "would_continue")
    means = {
        name: " / ".join(f"{cells[scale]['mean']:.2f}" for scale in scales)
        for name, cells in found["contenders"].items()
    }
    assert means == {
        "base": "80.38 / 75.96 / 75.41 / 71.92",
        "dpo": "74.91 / 63.11 / 72.86 / 66.75",
        "base_limit": "74.31 / 68.23 / 70.32 / 63.42",
        "sft": "73.33 / 63.06 / 68.83 / 62.65",
        "human": "71.89 / 60.27 / 67.73 / 63.42",
    }
    agreed = [found["agreement"][scale] for scale in scales]
    assert [round(one["krippendorff_alpha"], 3) for one in agreed] == [0.158, 0.183, 0.12, 0.134]
    assert [round(one["icc_k"], 2) for one in agreed] == [0.36, 0.40, 0.29, 0.32]
    pairs = {(*one["contenders"], one["dimension"]): one for one in found["comparisons"]}
    dpo = [pairs["base", "dpo", scale] for scale in scales]
    assert [round(one["win_rate"], 3) for one in dpo] == [0.607, 0.689, 0.593, 0.570]
    assert [round(one["effect_size_d"], 2) for one in dpo] == [0.38, 0.69, 0.17, 0.30]
    within = [one["within_raters_of_both"]["difference"] for one in dpo]
    assert [round(value, 2) for value in within] == [3.97, 10.30, -0.15, 4.79]
    assert {one["raters_of_both"] for one in dpo} == {54}
    assert "base − sft" in found["confounding"][0]
