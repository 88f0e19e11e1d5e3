"""Tables of ratings as studies keep them: item, system, rater, and one column per scale.

CSV, Excel's .xlsx, JSONL or Parquet. The columns are found by their usual names, or named. A column
is taken for a scale if its cells are numbers that a rater gave, and not the same for all raters of
a reply (as its length is) nor for all rows of a rater (as an age is).
"""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empo_demo.csv_table import decimal, read_table, trimmed, truth
from empo_demo.errors import DataError
from empo_demo.files import json_rows, read_text

DIMENSIONS = {
    "Dim1": "appropriate",
    "Dim2": "emotion",
    "Dim3": "natural",
    "Dim4": "continue",
    "Dim5": "checkbox",
}
"""The columns of EmPO's file (Dim1-Dim4: 0-100, Dim5: 0 or 1) and the arena's names for them."""
ROLES: dict[str, tuple[str, ...]] = {
    "item": (
        "item",
        "sample_index",
        "item_id",
        "dialogue",
        "dialogue_id",
        "dialog_id",
        "conv_id",
        "conversation",
        "conversation_id",
        "prompt_id",
        "context_id",
        "sample",
        "question_id",
    ),
    "system": ("system", "model", "contender", "system_id", "model_id", "condition"),
    "rater": (
        "rater",
        "annotator",
        "rater_id",
        "annotator_id",
        "judge",
        "judge_id",
        "worker",
        "worker_id",
        "participant",
        "participant_id",
        "prolific_id",
        "prolific_pid",
    ),
}
"""The usual names of the columns that say what was rated, whose it was, and by whom."""
_NO_SCALE = re.compile(
    r"(^|[_ ])(id|index|row|time|seconds|duration|timestamp|age|order|position|trial|session)"
    r"($|[_ ])",
    re.IGNORECASE,
)
_MANY = 2_000_000
"""The most cells of an Excel sheet: a small file can unfold to gigabytes."""
Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Rating:
    """One number that `rater` gave `contender`'s reply to `item` on one dimension."""

    contender: str
    rater: str
    item: str
    dimension: str
    value: float


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns; None or () for those to be found."""

    item: str | None = None
    system: str | None = None
    rater: str | None = None
    scales: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RatingTable:
    """The ratings of a table, its scales, why other columns of numbers are none of them, and, where
    they come from votes, how many votes were left out, by reason."""

    ratings: list[Rating]
    scales: tuple[str, ...]
    no_scales: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def sentence(self) -> str:
        """Which columns were read as scales, and which were not, with the reason."""
        said = f"Scales: {', '.join(self.scales)}."
        if not self.no_scales:
            return said
        others = "; ".join(f"{name} ({why})" for name, why in self.no_scales.items())
        return f"{said} No scales: {others}. Name the scales with --scale if this is wrong."


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns of a table, and its rows as (line, cells by column)."""

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Cell]]]


def read_sheet(path: Path, named: Columns = Columns()) -> Sheet:
    """The table in a file. Raises a `DataError` in plain words if it holds none."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    if head[:4] == b"PK\x03\x04":
        return _excel(path)
    if head[:4] == b"PAR1":
        return _objects(path, enumerate(parquet_rows(path), start=1))
    if head == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise DataError(f"{path} is an old Excel file (.xls); save it as .xlsx or CSV.")
    text = read_text(path)
    if text.lstrip()[:1] in ("{", "["):
        return _objects(path, json_rows(text))
    known = {name for names in ROLES.values() for name in names} | set(DIMENSIONS)
    known |= {name for name in (named.item, named.system, named.rater, *named.scales) if name}
    table = read_table(text, path, known)
    rows: list[tuple[int, dict[str, Cell]]] = [
        (line, dict(row)) for line, row in table.rows(short=True)
    ]
    return Sheet(path, table.columns, rows)


def ratings_of(sheet: Sheet, named: Columns = Columns()) -> RatingTable:
    """The ratings of a sheet. Raises a `DataError` that names the column, the line and the cell."""
    roles = {role: _role(sheet, role, getattr(named, role)) for role in ROLES}
    keys = _keys(sheet, roles)
    papers = [name for name in DIMENSIONS if name in sheet.columns]
    no_scales: dict[str, str] = {}
    scales = list(named.scales) or papers
    if missing := [name for name in scales if name not in sheet.columns]:
        raise DataError(f"{sheet.path} has no column {', '.join(missing)}: {_found(sheet)}.")
    if not scales:
        scales, no_scales = _scales(sheet, set(roles.values()), keys)
    if not scales:
        why = "; ".join(f"{name}: {reason}" for name, reason in no_scales.items())
        raise DataError(
            f"{sheet.path} has no column that looks like a scale ({why or _found(sheet)}). A scale "
            "is a column of numbers (Dim1..Dim5 in the paper's file); name it with --scale."
        )
    ratings = [
        Rating(system, rater, item, DIMENSIONS.get(scale, scale), value)
        for (line, row), (item, system, rater) in zip(sheet.rows, keys, strict=True)
        for scale in scales
        if (value := _value(row.get(scale), scale, f"{sheet.path}:{line}")) is not None
    ]
    return RatingTable(ratings, tuple(DIMENSIONS.get(name, name) for name in scales), no_scales)


def _role(sheet: Sheet, role: str, named: str | None) -> str:
    """The column that holds a role."""
    if named is not None:
        if named not in sheet.columns:
            raise DataError(f"{sheet.path} has no column {named}: {_found(sheet)}.")
        return named
    by_name = {name.casefold(): name for name in reversed(sheet.columns)}
    column = next((by_name[name] for name in ROLES[role] if name in by_name), None)
    if column is None:
        usual = ", ".join(ROLES[role][:4])
        raise DataError(
            f"{sheet.path}: the column of the {role} is missing ({usual}, …); {_found(sheet)}. "
            f"Name it with --{role}. Expected are an item, a system and a rater in each row, and "
            "a column of numbers for each scale (the paper's file has sample_index, model, "
            "annotator and Dim1..Dim5)."
        )
    return column


def _found(sheet: Sheet) -> str:
    return f"its columns are {', '.join(filter(None, sheet.columns))[:300] or 'none'}"


def _keys(sheet: Sheet, roles: dict[str, str]) -> list[tuple[str, str, str]]:
    """(item, system, rater) of each row; a rater judges a system's reply to an item once."""
    keys: list[tuple[str, str, str]] = []
    lines: dict[tuple[str, ...], int] = {}
    for line, row in sheet.rows:
        key = tuple(_word(row.get(roles[role])) for role in ROLES)
        if missing := [roles[role] for role, cell in zip(ROLES, key, strict=True) if not cell]:
            raise DataError(f"{sheet.path}:{line}: {', '.join(missing)} is missing.")
        if key in lines:
            raise DataError(
                f"{sheet.path}:{line}: the rater {key[2]!r} rated the reply of {key[1]!r} to "
                f"{key[0]!r} in line {lines[key]} already; one row for each is expected."
            )
        lines[key] = line
        keys.append((key[0], key[1], key[2]))
    return keys


def _scales(
    sheet: Sheet, roles: set[str], keys: Sequence[tuple[str, str, str]]
) -> tuple[list[str], dict[str, str]]:
    """The columns that look like scales, and why other columns of numbers do not."""
    scales, others = [], {}
    for name in sheet.columns:
        if not name or name in roles:
            continue
        values = [_number(row.get(name)) for _, row in sheet.rows]
        filled = sum(row.get(name) not in (None, "") for _, row in sheet.rows)
        known = [value for value in values if value is not None]
        if not known or 2 * len(known) < filled:
            continue  # It holds texts.
        replies = [key[:2] for key in keys]
        if _NO_SCALE.search(name):
            others[name] = "by its name"
        elif known == list(range(int(known[0]), int(known[0]) + len(known))) and len(known) > 1:
            others[name] = "it counts the rows"
        elif len(set(known)) == 1 and len(known) > 1:
            others[name] = "one number everywhere"
        elif _settled(replies, values):
            others[name] = "the same for all raters of a reply"
        elif _settled([key[2] for key in keys], values):
            others[name] = "the same in all rows of a rater"
        else:
            scales.append(name)
    return scales, others


def _settled(groups: Iterable[Any], values: Sequence[float | None]) -> bool:
    """Whether each group has one value, and some group has several rows."""
    by: dict[Any, list[float | None]] = defaultdict(list)
    for group, value in zip(groups, values, strict=True):
        by[group].append(value)
    return any(len(own) > 1 for own in by.values()) and all(len(set(o)) == 1 for o in by.values())


def _value(cell: Cell, scale: str, where: str) -> float | None:
    """The rating in a cell; None if it is empty. A checkbox may hold words, as true or yes."""
    if cell is None or (isinstance(cell, str) and not trimmed(cell)):
        return None
    value = _number(cell)
    highest = {"Dim5": 1.0}.get(scale, 100.0 if scale in DIMENSIONS else math.inf)
    if value is None or not -math.inf < value <= highest or (scale in DIMENSIONS and value < 0):
        span = f"a number from 0 to {highest:g}" if highest < math.inf else "a number"
        raise DataError(f"{where}: {scale} holds {str(cell)[:40]!r}; {span} is expected.")
    return value


def _number(cell: Cell) -> float | None:
    """The number in a cell, or that of a yes or no; None for texts and empty cells."""
    if isinstance(cell, bool | int | float):
        return float(cell) if math.isfinite(cell) else None
    if not cell or not trimmed(cell):
        return None
    try:
        value = decimal(cell)
        return value if math.isfinite(value) else None
    except ValueError:
        try:
            return float(truth(cell))
        except ValueError:
            return None


def _word(cell: Cell) -> str:
    """An id as text: Excel keeps the item 7 as 7.0."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else trimmed(str(cell))


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file. Raises a `DataError` if it is not whole."""
    from pyarrow import ArrowException, parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}.") from None
    return rows


def _objects(path: Path, objects: Iterable[tuple[int, Any]]) -> Sheet:
    """A table of objects, each with its line; cells that hold lists or objects are left out."""
    rows: list[tuple[int, dict[str, Cell]]] = []
    columns: dict[str, None] = {}
    for number, row in objects:
        if isinstance(row, ValueError):
            raise DataError(f"{path}:{number}: {row}.")
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: an object with item, system and rater is expected.")
        columns |= dict.fromkeys(row)
        cells = {key: cell for key, cell in row.items() if isinstance(cell, Cell)}
        rows.append((number, cells))
    return Sheet(path, tuple(columns), rows)


def _excel(path: Path) -> Sheet:
    """The first sheet that holds something; Excel tables are read with openpyxl."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise DataError(
            f"{path} is an Excel file, and openpyxl, which reads it, is not installed. Install it "
            "(pip install -e .[excel], or pip install openpyxl), or save the table as CSV UTF-8."
        ) from None
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheets = [_cells(path, sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        book.close()
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is not a whole Excel file (.xlsx): {error}.") from None
    filled = [sheet for sheet in sheets if sheet]
    if not filled:
        raise DataError(f"{path} holds no table: all its sheets are empty.")
    (_, head), *body = filled[0]
    columns = tuple(_word(cell) for cell in head)
    rows = [(line, dict(zip(columns, cells, strict=False))) for line, cells in body]
    for _, row in rows:
        row.pop("", None)
    return Sheet(path, columns, rows)


def _cells(path: Path, rows: Iterator[tuple[Any, ...]]) -> list[tuple[int, list[Cell]]]:
    """The rows that are not empty, each with its line."""
    table: list[tuple[int, list[Cell]]] = []
    count = 0
    for line, row in enumerate(rows, start=1):
        count += len(row)
        if count > _MANY:
            raise DataError(f"{path} holds more than {_MANY:,} cells; save the table as CSV.")
        cells = [
            entry if entry is None or isinstance(entry, str | int | float) else str(entry)
            for entry in row
        ]
        if any(cell not in (None, "") for cell in cells):
            table.append((line, cells))
    return table
