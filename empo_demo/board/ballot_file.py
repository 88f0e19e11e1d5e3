"""Files for `--input`: ballots (exports of this app, or a plain table) and slider ratings.

Each row is checked. Ratings come in a table of their own or in any file of ballots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from empo_demo.board.ballots import (
    Ballot,
    Counted,
    ballot_of_round,
    reason_not_ranked,
    told_apart,
)
from empo_demo.board.rating_table import Columns, RatingTable, parquet_rows, ratings_of, read_sheet
from empo_demo.board.ratings import left_out_of, of_ballots
from empo_demo.csv_table import decimal, read_table, trimmed, truth
from empo_demo.errors import DataError
from empo_demo.files import json_rows, parse_json, read_text
from empo_demo.votes.models import VERDICTS
from empo_demo.votes.reasons import ONE_CONTENDER
from empo_demo.votes.record import Record

SCHEMA = (
    "Expected: a file of `votes export --format jsonl`, `csv` or `parquet`, or a table (CSV, "
    "JSONL) with the columns round, voter, a, b (contenders' ids) and verdict "
    f"({', '.join(VERDICTS)}), and, if known, len_a, len_b (words), time (ISO 8601), exposure and "
    "ratings (JSON: a_natural: 80, …)."
)
"""The files that `--input` accepts."""
_PLAIN = (
    "round",
    "voter",
    "a",
    "b",
    "verdict",
    "len_a",
    "len_b",
    "time",
    "exposure",
    "ratings",
)
"""The columns of a plain table; the first five are needed."""
_EXPORTED = (
    "round_id",
    "voter",
    "a_contender",
    "b_contender",
    "verdict",
    "time",
    "show_chips",
    "show_plots",
    "ratings",
    "a_text",
    "b_text",
    "a_revision",
    "b_revision",
)
"""The columns that are read of `votes export --format csv`; the first five are needed."""


def read_ballots(path: Path) -> Counted:
    """All rows of a file as in `SCHEMA`. Raises a `DataError` that names the file and the line."""
    ballots: list[Ballot] = []
    left_out: Counter[str] = Counter()
    for number, row in _rows(path):
        try:
            if isinstance(row, ValueError):
                raise ValueError(f"{row}.")
            ballot = _ballot_or_reason(row)
        except (ValueError, DataError) as error:
            raise DataError(f"{path}:{number}: {error} {SCHEMA}") from None
        if isinstance(ballot, Ballot):
            ballots.append(ballot)
        else:
            left_out[ballot] += 1
    _check_rounds(ballots, path)
    return Counted(told_apart(ballots), left_out)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, row) of a Parquet, CSV or JSONL file. The first bytes tell which it is."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    if head == b"PAR1":
        yield from enumerate(parquet_rows(path), start=1)
        return
    text = read_text(path)
    if text.lstrip()[:1] in ("{", "[", ""):
        yield from json_rows(text)
        return
    table = read_table(text, path, (*_PLAIN, *_EXPORTED))
    exported = "a_contender" in table.columns
    if missing := table.lacks((_EXPORTED if exported else _PLAIN)[:5]):
        raise DataError(f"{path}: {', '.join(missing)} is missing; {table.described()}. {SCHEMA}")
    for number, row in table.rows(short=True):
        cells = {name: trimmed(cell) for name, cell in row.items()}
        cells["verdict"] = cells.get("verdict", "").lower()
        yield number, {name: cell for name, cell in cells.items() if cell}


def _ballot_or_reason(row: Any) -> Ballot | str:
    """The ballot of a row, or the reason why its vote does not count."""
    if isinstance(row, dict) and "replies" in row:
        round_ = Record.check(row).as_round()
        if round_.vote is None:
            return "not voted on"
        return reason_not_ranked(round_) or ballot_of_round(round_)
    if isinstance(row, dict) and "a_contender" in row:
        made = _from_table(row)
        same = isinstance(made["a"], str) and made["a"] == made["b"]
        return ONE_CONTENDER if same else ballot_of(made)
    return ballot_of(row)


def _from_table(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `votes export --format csv` or `parquet`, with the columns of a ballot."""
    shown = [name for name in ("chips", "plots") if truth(str(row.get(f"show_{name}") or ""))]
    return {
        "round": row.get("round_id"),
        "voter": row.get("voter"),
        "verdict": row.get("verdict"),
        "a": row.get("a_contender"),
        "b": row.get("b_contender"),
        "time": row.get("time"),
        "len_a": len(str(row.get("a_text") or "").split()),
        "len_b": len(str(row.get("b_text") or "").split()),
        "exposure": "+".join(shown) or "nothing",
        "ratings": row.get("ratings"),
        "revision_a": str(row.get("a_revision") or ""),
        "revision_b": str(row.get("b_revision") or ""),
    }


def _check_rounds(ballots: list[Ballot], path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for ballot in ballots:
        key = (ballot.round, ballot.voter)
        if key in seen:
            raise DataError(
                f"{path}: the voter {ballot.voter!r} has two rows for the round {ballot.round!r}; "
                "one vote per voter and round is expected. Remove one."
            )
        seen.add(key)


def ballot_of(row: Any) -> Ballot:
    """The ballot of a plain row. Raises a `ValueError` that says what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("an object with round, voter, a, b and verdict is expected.")
    missing = [name for name in ("round", "voter", "a", "b", "verdict") if row.get(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing.")
    for name in ("a", "b"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"{name} is {row[name]!r}; a contender's id is expected.")
    if not isinstance(row["verdict"], str) or row["verdict"] not in VERDICTS:
        raise ValueError(f"verdict is {row['verdict']!r}; it may be {', '.join(VERDICTS)}.")
    if row["a"] == row["b"]:
        raise ValueError(f"a and b are both {row['a']!r}; two contenders are expected.")
    return Ballot(
        str(row["round"]),
        str(row["voter"]),
        row["a"],
        row["b"],
        row["verdict"],
        _length(row, "len_a"),
        _length(row, "len_b"),
        _time(row),
        row.get("exposure"),
        _ratings(row),
        str(row.get("revision_a") or ""),
        str(row.get("revision_b") or ""),
    )


def _length(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        value = decimal(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name}: {error}; a length of 0 or more is expected.") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"{name} is {value!r}; a length of 0 or more is expected.")
    return float(value)


def _ratings(row: dict[str, Any]) -> Mapping[str, Any] | None:
    """Sliders by name. A table has them as JSON."""
    value = row.get("ratings")
    value = parse_json(value) if isinstance(value, str) else value
    if not value:
        return None
    if not isinstance(value, dict) or not all(
        isinstance(slider, int | float) and 0 <= slider <= 100 for slider in value.values()
    ):
        raise ValueError("ratings must be an object of numbers from 0 to 100.")
    return value


def _time(row: dict[str, Any]) -> datetime | None:
    value = row.get("time")
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"time is {value!r}; an ISO date and time is expected.") from None


_OF_VOTES = {"verdict", "a_contender", "replies"}
"""A table with one of these columns has votes; all others have ratings."""


def read_ratings(path: Path, named: Columns | None = None) -> RatingTable:
    """The ratings of a table (see `rating_table`), or of any file of ballots.

    `named` says what the table's columns hold. A `DataError` names the line.
    """
    named = named or Columns()
    sheet = read_sheet(path, named)
    if sheet.columns and not _OF_VOTES & {name.casefold() for name in sheet.columns}:
        return ratings_of(sheet, named)
    counted = read_ballots(path)
    return RatingTable(of_ballots(counted.ballots), (), left_out=left_out_of(counted))
