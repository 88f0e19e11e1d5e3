"""The rows of votes in the files of a data set: how they are added, taken out, and read back.

A row is one line of JSON that begins with the id of its round. It stands in the file of the day on
which the vote was cast, `data/votes-2026-11-30.jsonl` (or `…-2.jsonl` when that is full), so that
whoever adds it again finds it. Files of other names, as earlier versions made them, are searched
too. `tombstones.jsonl` names the withdrawn rounds. Functions return files as name and new text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from empo_demo.exchange import data_card
from empo_demo.exchange.data_card import Contents
from empo_demo.exchange.data_set import Snapshot
from empo_demo.files import parse_json
from empo_demo.votes.models import published_voter

FOLDER = "data"
TOMBSTONES = "tombstones.jsonl"
CARD = "README.md"
MAX_FILE = 2_500_000
"""Characters of a file, so at most 10 MB. The Hub keeps a larger file as an object of its own, and
such objects outlive the squashing of the history."""
_ID = re.compile(r"[0-9a-f]{32}")
_DAY = re.compile(rf"{FOLDER}/votes-(\d{{4}}-\d\d-\d\d)(?:-\d+)?\.jsonl")


def published(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is published: the voter is a hash of a hash; there is no owner."""
    voter = published_voter(record["round"]["voter"])
    return with_id(record, voter=voter)


def with_id(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A record as a row, with its round's id at its beginning and without what changes later."""
    nothing = dict.fromkeys(("owner", "lease_until", "handed_over_until", "pushed_at"))
    record["round"] |= nothing | changes
    return {"round_id": record["round"]["id"], **record}


def add(
    there: Snapshot, rows: Iterable[dict[str, Any]], *, replace: bool = False
) -> dict[str, str]:
    """Put each row into its file once. A row that is there already stays, or is replaced there."""
    lines, days = {}, {}
    for row in rows:
        lines[row["round_id"]] = json.dumps(row, ensure_ascii=False)
        days[row["round_id"]] = row["vote"]["created_at"][:10]
    left, changed = dict(lines), {}
    for name in files(there):
        day = _DAY.fullmatch(name)
        if day is None or day[1] in days.values():
            changed[name] = _found(there.text(name), lines, left, replace)
    for day in sorted({days[round_id] for round_id in left}):
        _append(there, changed, day, [left[name] for name in left if days[name] == day])
    return changed


def card(there: Snapshot, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The data set's card, which names the models of `rows` beside the earlier ones."""
    return {CARD: data_card.updated(there.text(CARD), Contents.of_records(rows))}


def cut(there: Snapshot, withdrawn: Container[str], tombstones: Iterable[str]) -> dict[str, str]:
    """Take the rows of withdrawn rounds out of all files, and name `tombstones` as withdrawn."""
    buried = set(tombstones) | set(tombstones_of(there))
    said = "".join(f"{json.dumps({'round_id': name})}\n" for name in sorted(buried))
    changed = {name: _without(there.text(name), withdrawn) for name in files(there)}
    return {**changed, TOMBSTONES: said}


def files(there: Snapshot) -> list[str]:
    """The names of the files with votes, in order."""
    return sorted(
        name for name in there.names if name.startswith(f"{FOLDER}/") and name.endswith(".jsonl")
    )


def tombstones_of(there: Snapshot) -> Iterator[str]:
    """The ids of the rounds that the data set names as withdrawn."""
    ids = (_id_of(value) for _, value in _values(there.text(TOMBSTONES)))
    yield from (name for name in ids if name is not None)


def rows_of(there: Snapshot) -> dict[str, tuple[str, Any]]:
    """All rows as (place, value), by round; a bad line by its place. Of several the last counts."""
    rows: dict[str, tuple[str, Any]] = {}
    for name in files(there):
        for number, value in _values(there.text(name)):
            place = f"{name}, line {number}"
            rows[_id_of(value) or place] = (place, value)
    return rows


def _found(text: str, lines: Mapping[str, str], left: dict[str, str], replace: bool) -> str:
    """`text` with each row of `lines` at most once; the rows that it has leave `left`."""
    rows = []
    for line in filter(None, text.split("\n")):
        round_id = _round_id(line)
        if round_id not in lines:
            rows.append(line)
        elif round_id in left:
            new = left.pop(round_id)
            rows.append(new if replace else line)
    return "".join(f"{line}\n" for line in rows)


def _append(there: Snapshot, changed: dict[str, str], day: str, lines: list[str]) -> None:
    """Append lines to the files of a day, and begin a new file when one is full."""
    number = 0
    while lines:
        number += 1
        name = f"{FOLDER}/votes-{day}{f'-{number}' if number > 1 else ''}.jsonl"
        text = changed[name] if name in changed else there.text(name)
        taken, size = 0, len(text)
        while taken < len(lines) and (size == 0 or size + len(lines[taken]) < MAX_FILE):
            size += len(lines[taken]) + 1
            taken += 1
        changed[name] = text + "".join(f"{line}\n" for line in lines[:taken])
        lines = lines[taken:]


def _without(lines: str, withdrawn: Container[str]) -> str:
    """The lines of a file without those of withdrawn rounds. Unknown lines stay."""
    return "".join(
        f"{line}\n" for line in lines.split("\n") if line and _round_id(line) not in withdrawn
    )


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Each line that is not empty as (number, value). A bad line is a `ValueError`, whatever the
    other lines are: anyone with access to the data set may have put it there."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                yield number, error


def _round_id(line: str) -> str | None:
    try:
        return _id_of(parse_json(line))
    except ValueError:
        return None


def _id_of(row: Any) -> str | None:
    """The round of a row or a tombstone; None if it names none."""
    value = row.get("round_id") if isinstance(row, dict) else None
    return value if isinstance(value, str) and _ID.fullmatch(value) else None
