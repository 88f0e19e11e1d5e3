"""Files of slider ratings: the paper's table, or any file of ballots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from empo_demo.board.ballot_file import read_ballots
from empo_demo.board.ratings import DIMENSIONS, Rating, of_ballots
from empo_demo.csv_table import Table, decimal, read_table, trimmed, truth
from empo_demo.errors import DataError
from empo_demo.files import read_text

NEEDED = ("annotator", "sample_index", "model")
EXPECTED = "Dim1..Dim5, annotator, sample_index and model are expected."


def read_ratings(path: Path) -> tuple[list[Rating], Counter[str]]:
    """The ratings in the paper's CSV or in any file of ballots, and the votes left out, by reason.

    The paper's CSV has the columns Dim1..Dim5, annotator, sample_index and model. A `DataError`
    names the line.
    """
    table = _papers_table(path)
    if table is not None:
        return list(_paper(table)), Counter()
    counted = read_ballots(path)
    return of_ballots(counted.ballots), counted.left_out


def _papers_table(path: Path) -> Table | None:
    """The table in a file with a column that only the paper's has; None for any other file."""
    try:
        text = read_text(path)
        if text.lstrip()[:1] in ("{", "[", ""):
            return None
        table = read_table(text, path, (*NEEDED, *DIMENSIONS))
    except DataError:
        return None  # It may be Parquet, or `read_ballots` says what is wrong with it.
    return table if {"annotator", *DIMENSIONS} & set(table.columns) else None


def _paper(table: Table) -> Iterator[Rating]:
    present = [dimension for dimension in DIMENSIONS if dimension in table.columns]
    for number, row in table.rows(short=True):
        where = f"{table.path}:{number}"
        rater, item, contender = (trimmed(row.get(column, "")) for column in NEEDED)
        missing = [column for column in NEEDED if not trimmed(row.get(column, ""))]
        missing += [] if present else ["Dim1..Dim5"]
        if missing:
            raise DataError(f"{where}: {', '.join(missing)} is missing; {EXPECTED}")
        for dimension in present:
            value = _number(trimmed(row.get(dimension, "")), dimension, where)
            if value is not None:
                yield Rating(contender, rater, item, DIMENSIONS[dimension], value)


def _number(cell: str, dimension: str, where: str) -> float | None:
    """The rating in a cell; None if it is empty. The checkbox may hold words, as true or yes."""
    if not cell:
        return None
    highest = 1 if dimension == "Dim5" else 100
    try:
        value = decimal(cell)
    except ValueError:
        try:
            value = float(truth(cell))
        except ValueError:
            value = math.nan
    if not 0 <= value <= highest:
        raise DataError(
            f"{where}: {dimension} holds {cell!r}; a number from 0 to {highest} is expected."
        )
    return value
