"""One reader for the tables of votes, ratings and predictions, however a spreadsheet wrote them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empo_demo.board.ballot_file import read_ballots, read_ratings
from empo_demo.csv_table import decimal, read_table, truth
from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_lines

Rows = list[list[str]]
VOTES: Rows = [
    ["round", "voter", "a", "b", "verdict"],
    ["r1", "v1", "base", "aligned", "b"],
    ["r2", "v2", "aligned", "base", "tie"],
]
RATINGS: Rows = [
    ["annotator", "sample_index", "model", "Dim1", "Dim5"],
    ["ann", "3", "base", "40", "1"],
    ["bob", "3", "aligned", "60", "0"],
]
PREDICTIONS: Rows = [
    ["gens", "gen_targets", "prevs"],
    ['I am so sorry,\nwas he old; or "young"?', "Oh no.", "My dog died."],
    ["Grüße ~ | nice\there", "Great!", "Ich habe gewonnen"],
]


def written(rows: Rows, separator: str = ",", ends: str = "\n") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator=ends).writerows(rows)
    return out.getvalue()


WAYS: dict[str, Callable[[Rows], bytes]] = {
    "plain": lambda rows: written(rows).encode(),
    "semicolons of a European Excel": lambda rows: written(rows, ";", "\r\n").encode("utf-8-sig"),
    "Unicode text of Excel": lambda rows: written(rows, "\t", "\r\n").encode("utf-16"),
    "UTF-16 without a mark": lambda rows: written(rows, "\t").encode("utf-16-le"),
    "big-endian UTF-16": lambda rows: b"\xfe\xff" + written(rows, ";").encode("utf-16-be"),
    "tildes": lambda rows: written(rows, "~").encode(),
    "bars": lambda rows: written(rows, "|").encode(),
    "sep= of Excel": lambda rows: ("sep=;\r\n" + written(rows, ";", "\r\n")).encode("utf-8-sig"),
    "quoted SEP= and a tab": lambda rows: ('"SEP=\t"\n' + written(rows, "\t")).encode(),
    "an odd separator that is named": lambda rows: ("sep=^\n" + written(rows, "^")).encode(),
    "old Mac line ends": lambda rows: written(rows, ends="\r").encode(),
    "gzip": lambda rows: gzip.compress(written(rows).encode()),
    "empty lines": lambda rows: b"\n\r\n" + written(rows, ends="\n\n").encode() + b"\n\n",
    "empty rows of Excel": lambda rows: (written(rows, ";") + ";;\n;;;;;\n").encode(),
    "empty columns at the end": lambda rows: written(
        [[*row, "", ""] for row in rows], ";"
    ).encode(),
    "spaces and capitals in the header": lambda rows: written(
        [[f"\xa0{name.upper()} \u200b" for name in rows[0]], *rows[1:]], ";"
    ).encode(),
    "a space after each comma": lambda rows: "".join(
        ", ".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows
    ).encode(),
    "another column between": lambda rows: written(
        [[row[0], f"my note {i}", *row[1:]] for i, row in enumerate(rows)], ";"
    ).encode(),
    "everything quoted": lambda rows: "".join(
        ";".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n" for row in rows
    ).encode("utf-8-sig"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_table_gives_the_same_votes_ratings_and_predictions(
    tmp_path: Path, way: str
) -> None:
    found: list[list[Any]] = []
    for name in ("plain", way):
        file = tmp_path / f"{len(found)}.csv"
        file.write_bytes(WAYS[name](VOTES))
        votes = read_ballots(file).ballots
        file.write_bytes(WAYS[name](RATINGS))
        ratings = read_ratings(file).ratings
        file.write_bytes(WAYS[name](PREDICTIONS))
        if way == "old Mac line ends":  # Within a cell, a line end stays what the file has.
            predictions: Any = len(read_predictions(file).rows)
        else:
            predictions = read_predictions(file).rows
        found.append([votes, ratings, predictions])
    assert found[0] == found[1]
    assert [len(found[0][0]), len(found[0][1])] == [2, 4]


def test_cells_of_votes_lose_their_spaces_and_texts_keep_theirs(tmp_path: Path) -> None:
    """A contender `base ` beside `base` would be a third one in the ranking."""
    spaced = [VOTES[0], *([f" {cell}\xa0" for cell in row] for row in VOTES[1:])]
    (tmp_path / "votes.csv").write_text(written(spaced), encoding="utf8")
    assert {one.a for one in read_ballots(tmp_path / "votes.csv").ballots} == {"base", "aligned"}
    (tmp_path / "p.csv").write_text(written([PREDICTIONS[0], [" a ", "b ", " c"]]))
    row = read_predictions(tmp_path / "p.csv").rows[0]
    assert (row.response, row.reference, row.user) == (" a ", "b ", " c")


@pytest.mark.parametrize(
    ("cell", "number"),
    [("12,5", 12.5), ("12.5", 12.5), (" 3\xa0", 3.0), ("0,125", 0.125), ("-1", -1.0)],
)
def test_a_decimal_comma_is_read(tmp_path: Path, cell: str, number: float) -> None:
    assert decimal(cell) == number
    rows = [[*VOTES[0], "len_a"], [*VOTES[1], cell]]
    (tmp_path / "x.csv").write_text(written(rows, ";"), encoding="utf8")
    if number >= 0:
        assert read_ballots(tmp_path / "x.csv").ballots[0].len_a == number


@pytest.mark.parametrize("cell", ["1,234", "12,345,678", "1.234,5", "three", "1 2", "nan"])
def test_a_number_that_may_mean_two_things_is_refused_by_its_line(
    tmp_path: Path, cell: str
) -> None:
    rows = [[*VOTES[0], "len_a"], [*VOTES[1], cell]]
    (tmp_path / "x.csv").write_text(written(rows, ";"), encoding="utf8")
    with pytest.raises(DataError, match=r"x\.csv:2: len_a"):
        read_ballots(tmp_path / "x.csv")


def test_levels_with_decimal_commas_are_levels(tmp_path: Path) -> None:
    names = [f"{side}_{m}_scores" for side in ("pred", "gt") for m in ("ER", "EX", "IP")]
    rows = [[*PREDICTIONS[0], *names], [*PREDICTIONS[1], *["1,0", "2", "0,0"] * 2]]
    (tmp_path / "x.csv").write_text(written(rows, ";"), encoding="utf8")
    assert read_predictions(tmp_path / "x.csv").rows[0].generated_levels == {
        "er": 1,
        "ex": 2,
        "ip": 0,
    }


@pytest.mark.parametrize("word", ["True", "TRUE", "WAHR", "1", "vrai"])
def test_an_exported_table_that_excel_saved_again_keeps_what_was_shown(
    tmp_path: Path, word: str
) -> None:
    rows = [
        [
            "round_id",
            "voter",
            "a_contender",
            "b_contender",
            "verdict",
            "show_chips",
            "show_plots",
            "a_text",
            "b_text",
        ],
        ["r", "v", "x", "y", "a", word, "FALSCH", "one two", "three"],
    ]
    (tmp_path / "x.csv").write_bytes(written(rows, ";", "\r\n").encode("utf-8-sig"))
    (ballot,) = read_ballots(tmp_path / "x.csv").ballots
    assert (ballot.exposure, ballot.len_a, ballot.len_b) == ("chips", 2.0, 1.0)
    assert truth(word) and not truth("FALSCH")


FAULTS: dict[str, tuple[bytes, str]] = {
    "no such column": (
        b"a;b;c\n1;2;3\n",
        "round, voter, verdict is missing; .*by semicolons, names a, b, c",
    ),
    "a column twice": (written([[*VOTES[0], "a "], [*VOTES[1], "z"]]).encode(), "column a twice"),
    "a quote that never closes": (
        written(VOTES).encode() + b'r3,"v3,x,y,a\nr4,v,x,y,a\n',
        "line 4: .*not closed",
    ),
    "quotes within a cell": (
        written(VOTES).encode() + b'r3,"v"3,x,y,a\n',
        "line 4: .*twice",
    ),
    "a row that is too long": (written([*VOTES, [*VOTES[1], "more"]]).encode(), "line 4: .* 6 "),
    "a decimal comma between commas": (
        written([[*VOTES[0], "len_a"]]).encode() + b"r,v,x,y,a,12,5\n",
        "line 2: .* 7 fields",
    ),
    "Windows-1252": ("round;voter;a;b;verdict\nr;Jürgen;x;y;a\n".encode("cp1252"), "CSV UTF-8"),
    "a workbook": (b"PK\x03\x04\x14\x00\x06\x00", "not a UTF-8 text file"),
    "half of a UTF-16 character": (b"\xff\xfea\x00b", "not a UTF-8 text file"),
    "only sep=": (b"sep=;\n", "has no column"),
    "a verdict that is none": (written([*VOTES, ["r", "v", "x", "y", "c"]]).encode(), ":4: verd"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, said = FAULTS[name]
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_ballots(file)
    assert "x.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_the_line_of_a_row_is_the_line_where_it_begins() -> None:
    text = 'sep=;\n\n"a\nname";b\n"x\ny\nz";1\n\n2;3\n'
    table = read_table(text, Path("t"), ("b",))
    assert [line for line, _ in table.rows()] == [5, 9]


LISTS = {
    "one line": '[{"id": 1}, {"id": 2}]',
    "a list over lines": '\ufeff[\n  {"id": 1},\n  {\n    "id": 2\n  }\n]\n',
    "lines": '{"id": 1}\r\n\r\n{"id": 2}',
    "an object with a line separator": '{"id": 1, "t": "a\u2028b"}\n{"id": 2}\n',
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("pack", [False, True])
def test_a_list_in_one_file_is_read_as_lines_are(tmp_path: Path, name: str, pack: bool) -> None:
    raw = LISTS[name].encode()
    file = tmp_path / "x.jsonl"
    file.write_bytes(gzip.compress(raw) if pack else raw)
    assert [row["id"] for _, row in read_lines(file)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n{"id": 1},\n{"id": }\n]', "line 3: this is not a complete"),
        ('[{"id": 1} {"id": 2}]', "line 1: this is not"),
        ('[\n{"id": 1}', "line 2: this is not"),
        ('[{"id": 1}]\n{"id": 2}', "line 1: a JSON object"),
        ("[]\n[]", "line 1: a JSON object"),
        ('[{"id": 1}] and so on', "line 1: this is not"),
        ('[{"id": NaN}]', "line 1: this is not"),
    ],
)
def test_a_fault_in_a_list_is_named_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(text, encoding="utf8")
    with pytest.raises(DataError, match=said):
        list(read_lines(file))


def test_votes_in_one_list_are_ranked(tmp_path: Path) -> None:
    rows = [dict(zip(VOTES[0], row, strict=True)) for row in VOTES[1:]]
    file = tmp_path / "votes.json"
    file.write_text(json.dumps(rows, indent=1), encoding="utf8")
    assert len(read_ballots(file).ballots) == 2
    assert read_ratings(file).ratings == []


def test_predictions_without_the_columns_name_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("reply;Prevs\r\na;b\r\n".encode("utf-8-sig"))
    said = (
        "no column gens, gen_targets: the first line, read as separated by semicolons, names reply"
    )
    with pytest.raises(DataError, match=said):
        read_predictions(file)
