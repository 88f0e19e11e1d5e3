"""Ballots: the rows that the ranking works on, from a JSONL file.

A ballot is one vote without its texts: round, voter, the two contenders, the verdict, and how
long the replies were. A bad line is one `DataError` that names the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from empo_demo.errors import DataError
from empo_demo.settings import load_settings
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import VERDICTS


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote. Lengths are in words (any unit does, if it is the same for all), or None."""

    round: str
    voter: str
    a: str
    b: str
    verdict: str
    len_a: float | None = None
    len_b: float | None = None
    time: datetime | None = None
    exposure: str | None = None
    ratings: Mapping[str, Any] | None = None


def read_ballots(path: Path) -> list[Ballot]:
    """All rows of a JSONL file; empty lines are skipped. Raises `DataError` with file and line."""
    try:
        with path.open(encoding="utf8") as file:
            ballots = list(_parse(file, str(path)))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text file (UTF-8 was expected).") from None
    _check_rounds(ballots, path)
    return ballots


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


def _parse(lines: Iterable[str], name: str) -> Iterator[Ballot]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise DataError(
                f"{name}:{number}: this is not JSON; one object per line is expected."
            ) from None
        try:
            yield ballot_of(row)
        except ValueError as error:
            raise DataError(f"{name}:{number}: {error}") from None


def ballot_of(row: Any) -> Ballot:
    """Check one row; raise `ValueError` with what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("an object with round, voter, a, b and verdict is expected.")
    missing = [name for name in ("round", "voter", "a", "b", "verdict") if row.get(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing.")
    for name in ("a", "b"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"{name} is {row[name]!r}; a contender's id is expected.")
    if row["verdict"] not in VERDICTS:
        raise ValueError(f"verdict is {row['verdict']!r}; it may be {', '.join(VERDICTS)}.")
    if row["a"] == row["b"]:
        raise ValueError(f"a and b are both {row['a']!r}; two contenders are expected.")
    return Ballot(
        str(row["round"]), str(row["voter"]), row["a"], row["b"], row["verdict"],
        _length(row, "len_a"), _length(row, "len_b"), _time(row), row.get("exposure"),
        row.get("ratings"),
    )  # fmt: skip


def _length(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"{name} is {value!r}; a length of 0 or more is expected.")
    return float(value)


def _time(row: dict[str, Any]) -> datetime | None:
    value = row.get("time")
    if value is None:
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"time is {value!r}; an ISO date and time is expected.") from None


def ballots_of_database(url: str | None = None) -> list[Ballot]:
    """Open `url` (or EMPO_DATABASE), read, close."""
    store = Store.open(url or load_settings().database, create=False)
    try:
        return ballots_of_store(store)
    finally:
        store.close()


def ballots_of_store(store: Store) -> list[Ballot]:
    """All ballots that count, in the order of the votes."""
    with store.database.read() as session:
        rounds = session.scalars(select(Round).join(Vote).order_by(Vote.id)).all()
        return [ballot_of_round(round_) for round_ in rounds if _counts(round_)]


def ballot_of_round(round_: Round) -> Ballot:
    """One voted round without its texts; lengths are in words."""
    assert round_.vote is not None, "only a voted round is a ballot"
    a, b = round_.reply("a"), round_.reply("b")
    return Ballot(
        round=round_.id,
        voter=round_.voter,
        a=a.contender,
        b=b.contender,
        verdict=round_.vote.verdict,
        len_a=float(len((a.text or "").split())),
        len_b=float(len((b.text or "").split())),
        time=round_.vote.created_at,
        exposure=_exposure(round_),
        ratings=round_.vote.ratings,
    )


def _counts(round_: Round) -> bool:
    from empo_demo.votes.reasons import reason_left_out

    a, b = round_.reply("a").contender, round_.reply("b").contender
    return a != b and reason_left_out(round_) is None


def _exposure(round_: Round) -> str:
    shown = [
        name for name, flag in (("chips", round_.show_chips), ("plots", round_.show_plots)) if flag
    ]
    return "+".join(shown) or "nothing"
