"""Votes as files: TRL preference rows, KTO rows, and tables. The database is the truth.

Prompts carry no guidance, so that a pair is two completions of the same prompt. What is left out
is counted by reason. Personal data that slipped through is masked.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from empo_demo.errors import DataError, InvalidInput, StorageError
from empo_demo.votes.models import SIDES, Round, Vote
from empo_demo.votes.reasons import (
    NO_LABEL,
    NO_PREFERENCE,
    OTHER_STRATEGY,
    left_out_line,
    mixed_strategies,
    reason_left_out,
)
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import VERDICTS

FORMATS = ("trl", "kto", "csv", "parquet", "jsonl")
EMPTY = "`datasets` loads a file without rows with streaming=True only"
"""Of any kind of file: its `load_dataset` refuses a split without rows otherwise."""
_OTHER: dict[str, str] = {"a": "b", "b": "a"}


@dataclass
class Report:
    """What was written and what was not."""

    votes: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = f"{self.rows:,} rows from {self.votes:,} votes"
        said = f"{said}; {left}" if (left := left_out_line(self.left_out)) else said
        return said if self.rows else f"{said}; {EMPTY}"


def export_file(url: str, form: str, output: Path, *, mixed: bool = False) -> Report:
    """Write the votes of the database at `url` to `output`; see `FORMATS`.

    `mixed` keeps pairs whose sides differ in strategy. The file appears whole or not at all.
    Raises `InvalidInput` for an unknown format, `DataError` where it cannot be written.
    """
    if form not in FORMATS:
        raise InvalidInput(f"There is no format {form!r}; there are: {', '.join(FORMATS)}.")
    store = Store.open(url, create=False)
    report = Report()
    part = output.with_name(f"{output.name}.part")
    try:
        _write(part, form, rows(store, form, report, mixed=mixed))
        part.replace(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        store.close()
    return report


def rows(
    store: Store, form: str, report: Report, *, mixed: bool = False
) -> Iterator[dict[str, Any]]:
    """The rows of a format, oldest vote first; fills `report` as it goes."""
    for round_ in voted_rounds(store):
        report.votes += 1
        reason = reason_left_out(round_)
        made: list[dict[str, Any]] = []
        if reason is None and form in ("trl", "kto") and mixed_strategies(round_) and not mixed:
            reason = OTHER_STRATEGY
        if reason is None:
            made = _ROWS[form](round_)
            reason = None if made else {"kto": NO_LABEL}.get(form, NO_PREFERENCE)
        if reason is not None:
            report.left_out[reason] += 1
        report.rows += len(made)
        yield from made


def rows_of(form: str, round_: Round) -> list[dict[str, Any]]:
    """The rows that one voted round makes in a format."""
    return _ROWS[form](round_)


def voted_rounds(store: Store) -> Iterator[Round]:
    """All rounds with a vote, oldest vote first, in small reads."""
    last = 0
    while True:
        with store.database.read() as session:
            query = select(Vote.id, Round).join(Round, Vote.round_id == Round.id)
            found = session.execute(query.where(Vote.id > last).order_by(Vote.id).limit(500)).all()
        if not found:
            return
        for number, round_ in found:
            last = number
            yield round_


def _trl(round_: Round) -> list[dict[str, Any]]:
    """TRL's explicit-prompt conversational preference row; none for a tie or both bad."""
    vote = _vote(round_)
    better = VERDICTS[vote.verdict].preferred
    if better is None:
        return []
    chosen, rejected = round_.reply(better), round_.reply(_OTHER[better])
    return [
        {
            "prompt": _messages(round_),
            "chosen": [_reply(chosen.text)],
            "rejected": [_reply(rejected.text)],
            "chosen_contender": chosen.contender,
            "rejected_contender": rejected.contender,
            "chosen_revision": chosen.revision,
            "rejected_revision": rejected.revision,
            "chosen_side": better,
            "mixed_strategies": mixed_strategies(round_),
            **_facts(round_),
        }
    ]


def _kto(round_: Round) -> list[dict[str, Any]]:
    """TRL's unpaired rows: the better reply true, the other false; both bad gives two false."""
    vote = _vote(round_)
    labels = VERDICTS[vote.verdict].labels
    return [
        {
            "prompt": _messages(round_),
            "completion": [_reply(round_.reply(side).text)],
            "label": label,
            "contender": round_.reply(side).contender,
            "revision": round_.reply(side).revision,
            "side": side,
            "mixed_strategies": mixed_strategies(round_),
            **_facts(round_),
        }
        for side, label in labels.items()
    ]


def _table(round_: Round) -> list[dict[str, Any]]:
    """One flat row per vote, with both sides."""
    vote = _vote(round_)
    row: dict[str, Any] = {
        **_facts(round_),
        "dialogue": json.dumps(_messages(round_), ensure_ascii=False),
        "verdict": vote.verdict,
        "chosen": vote.chosen,
        "seconds": vote.seconds,
        "fast": vote.fast,
        "comment": _mask(vote.comment or ""),
        "ratings": json.dumps(vote.ratings or {}),
        "seed": round_.seed,
        "exposure": round_.exposure,
        "show_chips": round_.show_chips,
        "show_plots": round_.show_plots,
        "emotion": _emotion(round_),
        "valence": (round_.reading or {}).get("valence"),
        "valence_source": (round_.reading or {}).get("valence_source"),
    }
    for side in SIDES:
        reply = round_.reply(side)
        row |= {
            f"{side}_contender": reply.contender,
            f"{side}_revision": reply.revision,
            f"{side}_strategy": reply.strategy,
            f"{side}_text": _mask(reply.text or ""),
            f"{side}_guidance": _mask(reply.guidance or ""),
            f"{side}_tokens": reply.tokens,
            f"{side}_milliseconds": reply.milliseconds,
            f"{side}_reason": reply.reason,
            f"{side}_seed": reply.seed,
        }
    return [row]


def _record(round_: Round) -> list[dict[str, Any]]:
    """All columns, as `votes import` reads them; texts are masked."""
    from empo_demo.votes.record import record_of

    record = record_of(round_)
    for turn in record["round"]["dialogue"]:
        turn["content"] = _mask(str(turn["content"]))
    for reply in record["replies"]:
        for key in ("text", "guidance", "thought"):
            reply[key] = _mask(reply[key]) if reply[key] else reply[key]
    record["vote"]["comment"] = _mask(record["vote"]["comment"])
    return [record]


TABLE: dict[str, type] = {
    "round_id": str, "voter": str, "time": str, "consent": str, "app_version": str,
    "dialogue": str, "verdict": str, "chosen": str, "seconds": float, "fast": bool,
    "comment": str, "ratings": str, "seed": int, "exposure": str, "show_chips": bool,
    "show_plots": bool, "emotion": str, "valence": float, "valence_source": str,
} | {
    f"{side}_{name}": kind
    for side in SIDES
    for name, kind in {
        "contender": str, "revision": str, "strategy": str, "text": str, "guidance": str,
        "tokens": int, "milliseconds": float, "reason": str, "seed": int,
    }.items()
}  # fmt: skip
"""The columns of the CSV and Parquet tables, in order, with their types."""
_ROWS = {"jsonl": _record, "trl": _trl, "kto": _kto, "csv": _table, "parquet": _table}


def _facts(round_: Round) -> dict[str, Any]:
    """What every row carries: which round, when, under which consent and version.

    The voter is a hash of a hash, so that rows group by voter and lead back to nobody.
    """
    import hashlib

    vote = _vote(round_)
    return {
        "round_id": round_.id,
        "voter": hashlib.sha256(f"export {round_.voter}".encode()).hexdigest()[:16],
        "time": vote.created_at.isoformat(),
        "consent": round_.consent,
        "app_version": round_.app_version,
    }


def _messages(round_: Round) -> list[dict[str, str]]:
    """The prompt both sides had: the system prompt, if any, and the dialogue. No guidance."""
    system = [{"role": "system", "content": round_.system_prompt}] if round_.system_prompt else []
    turns = [{"role": str(t["role"]), "content": _mask(str(t["content"]))} for t in round_.dialogue]
    return [*system, *turns]


def _reply(text: str | None) -> dict[str, str]:
    return {"role": "assistant", "content": _mask(text or "")}


def _emotion(round_: Round) -> str | None:
    emotions = (round_.reading or {}).get("emotions") or []
    return str(emotions[0]["label"]) if emotions else None


def _mask(text: str) -> str:
    from empo_demo.empathy.personal import mask_personal

    return mask_personal(text) if text else text


def _vote(round_: Round) -> Vote:
    if round_.vote is None:
        raise StorageError(f"The round {round_.id} has no vote; the database is inconsistent.")
    return round_.vote


def _write(path: Path, form: str, made: Iterable[dict[str, Any]]) -> None:
    """Write the rows; a file without rows still has its columns.

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
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
