"""Files of slider ratings: the paper's table, or any file of ballots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from empo_demo.board.ballot_file import read_ballots
from empo_demo.board.ratings import DIMENSIONS, Rating, of_ballots
from empo_demo.errors import DataError
from empo_demo.files import csv_rows, read_text

NEEDED = ("annotator", "sample_index", "model")


def read_ratings(path: Path) -> tuple[list[Rating], Counter[str]]:
    """The ratings in the paper's CSV or in any file of ballots, and the votes left out, by reason.

    The paper's CSV has the columns Dim1..Dim5, annotator, sample_index and model. A `DataError`
    names the line.
    """
    try:
        text = read_text(path)
    except DataError:
        text = ""  # it may be Parquet
    header = text.split("\n", 1)[0]
    is_json = header.lstrip().startswith(("{", "["))
    if not is_json and any(column in header for column in ("annotator", *DIMENSIONS)):
        return list(_paper(text, path)), Counter()
    counted = read_ballots(path)
    return of_ballots(counted.ballots), counted.left_out


def _paper(text: str, path: Path) -> Iterator[Rating]:
    for number, row in csv_rows(text, path, ",;~\t"):
        where = f"{path}:{number}"
        present = [dimension for dimension in DIMENSIONS if dimension in row]
        missing = [column for column in NEEDED if not row.get(column)]
        missing += [] if present else ["Dim1..Dim5"]
        if missing:
            raise DataError(
                f"{where}: {', '.join(missing)} is missing; Dim1..Dim5, annotator, sample_index "
                "and model are expected."
            )
        rater, item, contender = (str(row[column]) for column in NEEDED)
        for dimension in present:
            value = _number(row[dimension], dimension, where)
            if value is not None:
                yield Rating(contender, rater, item, DIMENSIONS[dimension], value)


def _number(text: str | None, dimension: str, where: str) -> float | None:
    if text is None or not text.strip():
        return None
    words = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
    try:
        value = words.get(text.strip().lower())
        value = float(text) if value is None else value
    except ValueError:
        value = math.nan
    highest = 1 if dimension == "Dim5" else 100
    if not 0 <= value <= highest:
        raise DataError(
            f"{where}: {dimension} holds {text!r}; a number from 0 to {highest} is expected."
        )
    return value
