"""Reads files of other people as UTF-8 text and as strict JSON, or refuses them in one line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from empo_demo.errors import DataError

MAX_LINE = 4 * 2**20
"""The most bytes of a line that is read as JSON. Our own records are far shorter."""
MAX_DEPTH = 64


def read_text(path: Path) -> str:
    """The text of a file, with or without a byte-order mark; `DataError` if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file (UTF-8 was expected).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def csv_rows(
    text: str, path: Path, delimiters: str = ",;\t"
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(line, row) of a CSV text with a header, split at the commonest delimiter of the header.

    A row that is too short has None in its last columns. Raises a `DataError` that names `path`.
    """
    csv.field_size_limit(MAX_LINE)
    delimiter = max(delimiters, key=text.split("\n", 1)[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def unzipped(raw: bytes) -> bytes:
    """What gzip packed, or `raw` itself if gzip did not. Raises a `ValueError` if it is damaged."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        raise ValueError("its gzip data are damaged") from None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises a `ValueError` with a plain reason.

    It is stricter than `json.loads`: no NaN or Infinity, no lone surrogates (no database and no
    file can store them), and at most `MAX_DEPTH` levels, so that no recursion over the value
    overflows the stack.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg})") from None
    _check(value)
    return value


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each line that is not empty; a bad line gives a `ValueError`.

    Raises `DataError` if the file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                whole = line.endswith(b"\n") or len(line) < MAX_LINE
                while not whole and not file.readline(MAX_LINE).endswith(b"\n"):
                    whole = file.peek(1) == b""
                if len(line) >= MAX_LINE:
                    yield number, ValueError(f"it is longer than {MAX_LINE:,} bytes")
                elif line.strip():
                    yield number, _parsed(line)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        return error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON number")


def _check(value: Any) -> None:
    """Refuse too many levels and lone surrogates, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, dict):
                for key in one:
                    _check_text(key)
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return
        level = below
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a surrogate pair (\\ud800 to \\udfff)") from None
