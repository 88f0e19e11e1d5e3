"""Ratings: means, paired effects, agreement against a published example, and bad files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from empo_demo.board.agreement import alpha, of_ballots
from empo_demo.board.ballot_file import read_ratings
from empo_demo.board.ballots import Ballot, Counted
from empo_demo.board.rating_table import Rating
from empo_demo.board.ratings import UNTOUCHED, left_out_of, summarise
from empo_demo.board.ratings import of_ballots as ratings_of
from empo_demo.errors import DataError

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: four observers,
# twelve units, missing values; nominal .743, ordinal .815, interval .849.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
PUBLISHED = [
    (rater, unit, float(value))
    for rater, row in enumerate(OBSERVERS)
    for unit, value in enumerate(row.split())
    if value != "."
]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_gives_the_published_values(level: str, value: float) -> None:
    found = alpha(PUBLISHED, level)  # type: ignore[arg-type]
    assert found.alpha == pytest.approx(value, abs=1e-3)


def test_alpha_is_none_where_nothing_is_shared() -> None:
    assert of_ballots([Ballot("1", "v", "x", "y", "a")]).alpha is None
    same = [Ballot("1", voter, "x", "y", "a") for voter in "uvw"]
    assert of_ballots(same).units == 1 and of_ballots(same).alpha is None


def paper_file(folder: Path) -> Path:
    rows = ["Dim1,Dim2,Dim3,Dim4,Dim5,annotator,sample_index,model"]
    for rater in range(4):
        for item in range(5):
            low = 10 * rater + item
            rows.append(f"{low},{low},{low},{low},0,r{rater},{item},base")
            rows.append(f"{low + 20},{low},{low + item},{low - 0},1,r{rater},{item},aligned")
    path = folder / "human.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf8")
    return path


def test_the_papers_file_gives_means_and_paired_effects(tmp_path: Path) -> None:
    result = summarise(read_ratings(paper_file(tmp_path)).ratings)
    assert result.contenders["base"]["appropriate"]["mean"] == pytest.approx(17.0)
    assert result.contenders["aligned"]["appropriate"]["mean"] == pytest.approx(37.0)
    assert result.contenders["aligned"]["checkbox"]["mean"] == 1.0
    rows = {row["dimension"]: row for row in result.paired}
    assert rows["appropriate"]["difference"] == pytest.approx(20.0)
    assert rows["appropriate"]["interval"] == pytest.approx([20.0, 20.0])
    assert rows["appropriate"]["raters_in_favour"] == {"first": 4, "second": 0, "neither": 0}
    assert rows["natural"]["effect_size_dz"] == pytest.approx(2 / 1.4509525, abs=1e-6)
    assert rows["emotion"]["effect_size_dz"] is None and rows["emotion"]["difference"] == 0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("60", "sample_index, model, annotator is"),
        ("60,r1,1,", "model is missing"),
        ("60,,1,x", "annotator"),
        (f"60,r1,1,{'x' * 5_000_000}", "field larger"),
    ],
)
def test_a_bad_row_of_the_papers_table_is_one_line(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "human.csv"
    path.write_text(f"Dim1,annotator,sample_index,model\n50,r1,1,base\n{row}\n", encoding="utf8")
    with pytest.raises(DataError, match=rf"human\.csv.*{words}"):
        read_ratings(path)


def test_an_export_that_talks_of_an_annotator_is_no_table_of_the_paper(tmp_path: Path) -> None:
    row = {"round": "r1", "voter": "an annotator of Dim1", "a": "x", "b": "y", "verdict": "a"}
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps(row | {"ratings": {"a_natural": 80}}) + "\n", encoding="utf8")
    read = read_ratings(path)
    (found,) = read.ratings
    assert (found.contender, found.value, read.left_out) == ("x", 80.0, {})


def test_the_rater_check_sees_raters_who_use_the_slider_differently(tmp_path: Path) -> None:
    check = summarise(read_ratings(paper_file(tmp_path)).ratings).raters["emotion"]
    assert check["raters"] == 4 and check["rater_variance_share"] > 0.9
    lazy = [Rating("x", "r", str(i), "natural", 50.0) for i in range(5)]
    assert summarise(lazy).raters["natural"]["constant_raters"] == ["r"]


def test_means_are_adjusted_where_contenders_had_different_raters() -> None:
    mild = [Rating("x", "mild", str(i), "natural", 90.0 + i % 2) for i in range(8)]
    both = [Rating(c, "strict", str(i), "natural", 20.0 + i % 2) for c in "xy" for i in range(8)]
    result = summarise([*mild, *both])
    assert result.contenders["x"]["natural"]["mean"] > result.contenders["y"]["natural"]["mean"]
    adjusted = result.raters["natural"]["adjusted_means"]
    assert adjusted["x"] == pytest.approx(adjusted["y"], abs=1e-9)


def test_ratings_of_votes_go_to_the_contender_of_their_side() -> None:
    ballot = Ballot("1", "v", "x", "y", "a", ratings={"a_natural": 80, "b_natural": 20})
    found = {one.contender: one.value for one in ratings_of([ballot])}
    assert found == {"x": 80.0, "y": 20.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Dim1,annotator,model\n1,r,x\n", "the column of the item is missing.*--item"),
        ("annotator,sample_index,model\nr,1,x\n", "no column that looks like a scale"),
        ("Dim1,annotator,sample_index,model\n101,r,1,x\n", r"bad.csv:2: Dim1 holds '101'"),
        ("Dim5,annotator,sample_index,model\n2,r,1,x\n", "0 to 1"),
        ("Dim1,annotator,sample_index,model\nnan,r,1,x\n", "0 to 100"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf8")
    with pytest.raises(DataError, match=message):
        read_ratings(path)


def test_nothing_rated_is_an_empty_summary() -> None:
    found = summarise([]).as_json()
    assert found["ratings"] == 0 and not any(found.values())


def test_four_sliders_at_50_are_no_answer() -> None:
    """Until version 0.2 sliders that nobody touched were stored so."""
    idle = {f"a_{name}": 50 for name in ("appropriate", "emotion", "natural", "continue")}
    ballots = [
        Ballot("1", "v", "x", "y", "a", ratings=idle),
        Ballot("2", "v", "x", "y", "a", ratings=idle | {"a_natural": 51}),
        Ballot("3", "v", "x", "y", "a", ratings={"a_natural": 50}),
        Ballot("4", "v", "x", "y", "a", ratings=idle | {"b_natural": 70}),
    ]
    found = ratings_of(ballots)
    assert [one.item for one in found] == ["2"] * 4 + ["3"] + ["4"]
    assert left_out_of(Counted(ballots, Counter())) == {UNTOUCHED: 2}
