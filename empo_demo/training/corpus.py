"""Reads the dialogue files of training and checks them line by line.

A data folder has `empathetic_dialogues.{train,valid}.jsonl.gz`, or EmpatheticDialogues as its
authors publish it (`{train,valid}.csv`), and, for the base model, `general_dialogues.jsonl.gz`. A
fault is one `DataError` that names the file and the line.

In the published form, one line is one utterance, and a comma within a text is written `_comma_`.
Texts hold quotation marks that quote nothing, and some lines have more or fewer columns than the
header. Such rows are left out and counted, and so is a dialogue that lacks a turn because of them.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empo_demo.csv_table import Table, read_table, trimmed
from empo_demo.dialogue import Message, is_blank, plain_commas
from empo_demo.empathy.emotions import INDEX
from empo_demo.errors import DataError
from empo_demo.files import json_rows, read_text

Split = Literal["train", "valid"]
PUBLISHED = "empatheticdialogues"
"""The folder in the authors' archive."""
COLUMNS = ("conv_id", "utterance_idx", "context", "prompt", "speaker_idx", "utterance")
"""The columns that are needed; `context` is the emotion, `prompt` the situation."""
_CONV_ID = re.compile(r"hit:\d+_conv:\d+")
_RATINGS = re.compile(r"[\d|_]*")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class Conversation:
    """One dialogue of EmpatheticDialogues; `turns` alternate and start with the user."""

    conv_id: str
    emotion: str
    situation: str
    turns: tuple[Message, ...]

    @property
    def target(self) -> int | None:
        """Position of the last listener turn, EmPO's target; None if there is none."""
        last = len(self.turns) - 1
        position = last if self.turns[last]["role"] == "assistant" else last - 1
        return position if position > 0 else None


def empathetic_file(folder: Path, split: Split) -> Path:
    """The file of a split: ours, or the published CSV if only that is there."""
    own = f"empathetic_dialogues.{split}"
    names = (f"{own}.jsonl.gz", f"{own}.jsonl", f"{split}.csv", f"{split}.csv.gz", f"{own}.csv")
    paths = [place / name for place in (folder, folder / PUBLISHED) for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def read_conversations(folder: Path, split: Split) -> list[Conversation]:
    """All dialogues of a split whose turns alternate.

    Raises `DataError` on a malformed line of JSON. Of a published CSV, what cannot be used is left
    out, and its number is said on stderr.
    """
    path = empathetic_file(folder, split)
    if not path.exists():
        raise DataError(
            f"There is no {path.name} in {folder}, nor EmpatheticDialogues' own {split}.csv; give "
            "the folder of the data with --data."
        )
    if ".csv" in path.suffixes:
        return _published(path)
    return [_conversation(where, row) for where, row in read_lines(path)]


def _published(path: Path) -> list[Conversation]:
    reading = read_published(read_text(path), path)
    if reading.left_out():
        print(f"{path}: {reading.left_out()}.", file=sys.stderr)
    roles = ("user", "assistant")
    return [
        Conversation(
            dialogue.conv_id,
            dialogue.emotion,
            dialogue.situation,
            tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(dialogue.texts)),
        )
        for dialogue in reading.dialogues
    ]


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line of a JSONL file, or of each element of a list; gzipped or not.

    Raises a `DataError` that names the line of a fault.
    """
    if not path.exists():
        raise DataError(
            f"There is no {path.name} in {path.parent}; give the folder of the data with --data."
        )
    for number, row in json_rows(read_text(path)):
        where = f"{path}, line {number}"
        if isinstance(row, ValueError):
            raise DataError(f"{where}: this is not a complete JSON object: {row}.")
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON object was expected.")
        yield where, row


def file_hash(path: Path) -> str:
    """SHA-256 of a file, for model and data cards. Raises `DataError` if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


def _conversation(where: str, row: dict[str, Any]) -> Conversation:
    try:
        turns = tuple(
            {"role": str(turn["role"]), "content": plain_commas(str(turn["content"])).strip()}
            for turn in row["utterances"]
        )
        conversation = Conversation(
            str(row["conv_id"]), str(row["emotion"]), plain_commas(str(row["situation"])), turns
        )
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: an object with conv_id, emotion, situation and utterances was expected."
        ) from None
    if conversation.emotion not in INDEX:
        raise DataError(f"{where}: {conversation.emotion!r} is not one of the 32 emotions.")
    roles = [turn["role"] for turn in turns]
    if not turns or roles != [("user", "assistant")[i % 2] for i in range(len(turns))]:
        raise DataError(f"{where}: the roles must alternate and start with the user.")
    return conversation


@dataclass(frozen=True, slots=True)
class Published:
    """One dialogue: `texts` in order, the speaker's first, then listener and speaker in turn."""

    conv_id: str
    emotion: str
    situation: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file holds, and how many rows and dialogues of it could not be used."""

    dialogues: tuple[Published, ...]
    bad_rows: int
    broken_dialogues: int

    def left_out(self) -> str:
        """A part of a sentence on what was left out; empty if all was used."""
        if not self.bad_rows and not self.broken_dialogues:
            return ""
        return (
            f"{self.bad_rows:,} rows with shifted, missing or empty columns and "
            f"{self.broken_dialogues:,} dialogues without all their turns were left out"
        )


def read_published(text: str, path: Path) -> Reading:
    """The dialogues of a published file, in the order of their first rows.

    Rows of several dialogues may be mixed. Raises a `DataError` if the columns are others, or if
    no row can be used.
    """
    table = read_table(text, path, COLUMNS)
    if missing := table.lacks(COLUMNS):
        raise DataError(
            f"{path} has no column {', '.join(missing)}: {table.described()}. EmpatheticDialogues' "
            f"own CSV has {', '.join(COLUMNS)}."
        )
    dialogues: dict[str, list[dict[str, str]]] = defaultdict(list)
    broken: set[str] = set()
    bad = 0
    for cells in _lines(table):
        row = dict(zip(table.columns, cells, strict=False))
        if len(cells) == len(table.columns) and _is_sound(row):
            dialogues[row["conv_id"]].append(row)
        else:
            bad += 1
            broken.update(cell for cell in cells if _CONV_ID.fullmatch(cell))
    rows = [
        None if conv_id in broken else _dialogue(conv_id, dialogues[conv_id])
        for conv_id in dict.fromkeys([*dialogues, *broken])
    ]
    whole = tuple(entry for entry in rows if entry is not None)
    if not whole:
        raise DataError(
            f"{path} holds no whole dialogue: {bad:,} rows have shifted, missing or empty columns, "
            f"and {len(rows):,} dialogues lack a turn (each has utterance_idx 1, 2, 3 and so on)."
        )
    return Reading(whole, bad, len(rows) - len(whole))


def _lines(table: Table) -> Iterator[list[str]]:
    """The cells of each line after the header, without the spaces at their ends."""
    width, mark = len(table.columns), table.separator
    lines = re.split(r"\r\n|\r|\n", table.text)
    for line in [text for text in lines if text.strip(f" {mark}")][1:]:
        cells = [_unquoted(cell) for cell in line.split(mark)]
        if len(cells) != width:
            # A spreadsheet that saved the file again may have quoted texts with commas.
            with suppress(csv.Error):
                cells = next(csv.reader([line], delimiter=mark, strict=True))
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        yield [trimmed(cell) for cell in cells]


def _unquoted(cell: str) -> str:
    """`cell` without the quotation marks of CSV, if it is such a cell and no text with quotes."""
    quoted = _QUOTED.fullmatch(cell)
    return quoted[1].replace('""', '"') if quoted else cell


def _is_sound(row: dict[str, str]) -> bool:
    return (
        bool(row["conv_id"])
        and row["utterance_idx"].isdecimal()
        and row["context"] in INDEX
        and row["speaker_idx"].isdecimal()
        and not is_blank(row["utterance"])
        # A comma within the text shifts its end into the next column, which holds only numbers.
        and _RATINGS.fullmatch(row.get("selfeval", "")) is not None
    )


def _dialogue(conv_id: str, rows: list[dict[str, str]]) -> Published | None:
    """The dialogue of rows; None if a turn is missing or there twice, or two do not alternate."""
    turns = {int(row["utterance_idx"]): row for row in rows}
    order = sorted(turns)
    same = all(turns[int(row["utterance_idx"])]["utterance"] == row["utterance"] for row in rows)
    if not rows or not same or order != list(range(1, len(order) + 1)):
        return None
    speakers = [turns[place]["speaker_idx"] for place in order]
    if speakers != [speakers[place % 2] for place in range(len(order))] or (
        len(order) > 1 and speakers[0] == speakers[1]
    ):
        return None
    first = turns[1]
    return Published(
        conv_id,
        first["context"],
        plain_commas(first["prompt"]),
        tuple(plain_commas(turns[place]["utterance"]) for place in order),
    )
