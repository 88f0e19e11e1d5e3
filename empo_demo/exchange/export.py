"""Writes votes to files in one of the `formats`. Votes that are left out are counted by reason.

Whoever runs the arena exports every vote. What everybody may download waits as long as a push.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from empo_demo.errors import InvalidInput
from empo_demo.exchange.data_card import Contents, card
from empo_demo.exchange.formats import FORMATS, TABLE, rows_of
from empo_demo.exchange.outbox import is_too_young
from empo_demo.files import written_whole
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import (
    NO_LABEL,
    NO_PREFERENCE,
    OTHER_STRATEGY,
    TOO_YOUNG,
    left_out_line,
    mixed_strategies,
    reason_left_out,
)
from empo_demo.votes.store import Store

EMPTY = "`datasets` loads a file without rows with streaming=True only"
"""This holds for all formats: otherwise `load_dataset` refuses a split without rows."""


@dataclass
class Report:
    """The number of votes and rows that were written, of those left out by reason, and by whom."""

    votes: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    contents: Contents = field(default_factory=Contents)

    def __str__(self) -> str:
        said = f"{self.rows:,} rows from {self.votes:,} votes"
        said = f"{said}; {left}" if (left := left_out_line(self.left_out)) else said
        return said if self.rows else f"{said}; {EMPTY}"


def export_file(url: str, form: str, output: Path, *, mixed: bool = False) -> Report:
    """Write the votes of the database at `url` to `output`, and its card beside it."""
    store = Store.open(url, create=False)
    try:
        return write_with_card(store, form, output, mixed=mixed)
    finally:
        store.close()


def write_with_card(
    store: Store, form: str, output: Path, *, mixed: bool = False, public: bool = False
) -> Report:
    """Write the votes of the store to `output`, and to `card_of(output)` what the file holds.

    See `write_export` and `data_card`.
    """
    report = write_export(store, form, output, mixed=mixed, public=public)
    with written_whole(card_of(output)) as part:
        part.write_text(card(form, report.contents, file=output.name), encoding="utf8")
    return report


def card_of(output: Path) -> Path:
    """Where the card of an exported file lies: `pairs.README.md` of `pairs.jsonl`."""
    return output.with_name(f"{output.stem}.README.md")


def write_export(
    store: Store, form: str, output: Path, *, mixed: bool = False, public: bool = False
) -> Report:
    """Write the votes of the store to `output`; see `FORMATS` and `rows`.

    The file is written completely or not at all. Raises `InvalidInput` for an unknown format,
    `DataError` if it cannot be written.
    """
    if form not in FORMATS:
        raise InvalidInput(f"There is no format {form!r}; there are: {', '.join(FORMATS)}.")
    report = Report()
    with written_whole(output) as part:
        _write(part, form, rows(store, form, report, mixed=mixed, public=public))
    return report


def rows(
    store: Store, form: str, report: Report, *, mixed: bool = False, public: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a format, oldest vote first, and count them in `report`.

    `mixed` keeps pairs whose sides differ in strategy. `public` leaves out the votes that may not
    be published yet: a visitor has a day to withdraw a vote before anybody sees it.
    """
    for round_ in voted_rounds(store):
        if public and round_.ephemeral:
            continue  # Nobody else may learn even that there was a vote without consent.
        report.votes += 1
        reason = reason_left_out(round_)
        made: list[dict[str, Any]] = []
        if reason is None and public and round_.vote and is_too_young(round_.vote):
            reason = TOO_YOUNG
        if reason is None and form in ("trl", "kto") and mixed_strategies(round_) and not mixed:
            reason = OTHER_STRATEGY
        if reason is None:
            made = rows_of(form, round_)
            reason = None if made else {"kto": NO_LABEL}.get(form, NO_PREFERENCE)
        if reason is not None:
            report.left_out[reason] += 1
        report.rows += len(made)
        for reply in round_.replies if made else ():
            report.contents.add(reply.contender, reply.revision, round_.consent)
        yield from made


def voted_rounds(store: Store) -> Iterator[Round]:
    """All rounds with a vote, oldest vote first, in small reads."""
    last = 0
    while True:
        with store.database.read() as session:
            query = select(Vote.id, Round).join(Round, Vote.round_id == Round.id)
            batch = session.execute(query.where(Vote.id > last).order_by(Vote.id).limit(500)).all()
        if not batch:
            return
        for number, round_ in batch:
            last = number
            yield round_


def _write(path: Path, form: str, made: Iterable[dict[str, Any]]) -> None:
    """Write the rows. A table without rows still has its columns.

    A JSONL file without rows is one empty line, which `datasets` streams as no rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if form in ("trl", "kto", "jsonl"):
        with path.open("w", encoding="utf8") as file:
            for row in made:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            if file.tell() == 0:
                file.write("\n")
    elif form == "csv":
        with path.open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, TABLE)
            writer.writeheader()
            for row in made:
                writer.writerow({key: _cell(value) for key, value in row.items()})
    else:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        schema = pa.schema([(name, kinds[kind]) for name, kind in TABLE.items()])
        with parquet.ParquetWriter(path, schema) as writer:
            if rows_ := list(made):
                writer.write_table(pa.Table.from_pylist(rows_, schema))


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet interprets as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
