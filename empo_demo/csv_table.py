"""One reader for every CSV table that people hand in: votes, ratings, predictions, dialogues.

It takes what spreadsheets and scripts write: comma, semicolon, tab, `~` or `|`; a first line
`sep=;`; spaces around the columns' names; empty lines and rows; line breaks within quotes. A fault
is one `DataError` that names the file and the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from empo_demo.errors import DataError
from empo_demo.files import MAX_LINE

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "~": "tildes", "|": "bars"}
"""The characters that may separate columns, and their names in messages."""
_HIDDEN = "\u00ad\u200b-\u200f\u2060\ufeff"
_EDGES = re.compile(rf"^[\s{_HIDDEN}]+|[\s{_HIDDEN}]+$")
_SEP_LINE = re.compile(r'[\s]*"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+")
_TRUE = frozenset(("true", "yes", "y", "1", "1.0", "wahr", "ja", "vrai", "oui", "x"))
_FALSE = frozenset(("false", "no", "n", "0", "0.0", "falsch", "nein", "faux", "non", ""))


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV text with a header, as yet unread but for its columns' names.

    `columns` has the header's names, trimmed; one that is `known` is spelt as there, whatever its
    capitals. An unnamed column is "". `text` begins at or before the header, at the line `start`,
    counted from 1.
    """

    path: Path
    columns: tuple[str, ...]
    separator: str
    start: int
    text: str = field(repr=False)
    _spaced: bool = field(repr=False)

    def lacks(self, columns: Iterable[str]) -> list[str]:
        """Those of `columns` that the table does not have."""
        return [name for name in columns if name not in self.columns]

    def described(self) -> str:
        """The header as it was understood, for the message that a column is missing."""
        header = ", ".join(name for name in self.columns if name) or "nothing"
        mark = SEPARATORS.get(self.separator, self.separator)
        return f"the first line, read as separated by {mark}, names {header[:300]}"

    def rows(self, *, short: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
        """(line, cells by column) of each row that is not empty, the cells as they are written.

        A row of another length than the header's is an error; with `short`, the columns that are
        missing at a row's end are left out of it.
        """
        header = True
        for line, cells in _records(self.path, self.text, self.start, self.separator, self._spaced):
            if header:
                header = False
                continue
            while len(cells) > len(self.columns) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(self.columns) or (len(cells) < len(self.columns) and not short):
                raise DataError(
                    f"{self.path}, line {line}: the row has {len(cells)} fields, "
                    f"the header has {len(self.columns)}."
                )
            row = dict(zip(self.columns, cells, strict=False))
            row.pop("", None)
            yield line, row


def read_table(text: str, path: Path, known: Collection[str]) -> Table:
    """The table in `text`, split at the separator that gives the most of the `known` columns.

    Raises a `DataError` if `text` is not a CSV table, or if it has a known column twice.
    """
    said = _SEP_LINE.match(text)
    start = 1
    if said:
        start, text = 1 + _breaks(said[0]), text[said.end() :]
    spelling = {name.casefold(): name for name in known}
    best: Table | None = None
    most = (-1, -1)
    fault: DataError | None = None
    for separator in (said[1],) if said else SEPARATORS:
        try:
            head, spaced = _header(path, text, start, separator)
        except DataError as error:
            fault = fault or error
            continue
        names = [trimmed(name) for name in head]
        names = [spelling.get(name.casefold(), name) for name in names]
        score = (len(set(names) & set(known)), len(names))
        if names and score > most:
            most, best = score, Table(path, tuple(names), separator, start, text, spaced)
    if best is None:
        raise fault or DataError(f"{path} has no column: it holds no text.")
    twice = [name for name in known if best.columns.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column {', '.join(twice)} twice; remove or rename one.")
    return best


def trimmed(cell: str) -> str:
    """`cell` without the spaces at its ends, whether or not they are seen."""
    return _EDGES.sub("", cell)


def decimal(cell: str) -> float:
    """The number in a cell, with a decimal point or comma. Raises a `ValueError` in plain words."""
    text = trimmed(cell)
    if _THOUSANDS.fullmatch(text):
        raise ValueError(f"{cell!r} may be {text.replace(',', '')} or {text.replace(',', '.', 1)}")
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        raise ValueError(f"{cell!r} is not a number") from None


def truth(cell: str) -> bool:
    """What a spreadsheet's yes or no says. Raises a `ValueError` for anything else."""
    text = trimmed(cell).casefold()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{cell!r} is neither true nor false")
    return text in _TRUE


def _header(path: Path, text: str, start: int, separator: str) -> tuple[list[str], bool]:
    """The cells of the first record, and whether a space follows each separator."""
    _, head = next(_records(path, text, start, separator), (0, []))
    spaced = len(head) > 1 and all(cell[:1] == " " for cell in head[1:])
    if spaced:
        _, head = next(_records(path, text, start, separator, spaced))
    return head, spaced


def _records(
    path: Path, text: str, start: int, separator: str, spaced: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each record with a cell that is not empty, the header first."""
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaced, strict=True
    )
    while True:
        line = start + reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: {_plain(error, separator)}.") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _plain(error: csv.Error, separator: str) -> str:
    if "unexpected end of data" in str(error):
        return "a quotation mark opens here and is not closed up to the end of the file"
    if "expected after" in str(error):
        return (
            "a cell that begins with a quotation mark goes on after the closing one; write each "
            'quotation mark within a quoted cell twice ("")'
        )
    return f"it cannot be read as CSV separated by {SEPARATORS.get(separator, separator)} ({error})"


def _breaks(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))
