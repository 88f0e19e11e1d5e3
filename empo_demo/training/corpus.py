"""Reads the dialogue files of training and checks them line by line.

A data folder has `empathetic_dialogues.{train,valid}.jsonl.gz`, or EmpatheticDialogues' published
`{train,valid}.csv`, and, for the base model, `general_dialogues.jsonl.gz`. A fault is one
`DataError` that names the file and the line.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empo_demo.dialogue import Message
from empo_demo.empathy.emotions import INDEX
from empo_demo.errors import DataError
from empo_demo.files import json_rows, read_text
from empo_demo.training.empathetic_csv import plain_commas, read_published

Split = Literal["train", "valid"]
GENERAL = "general_dialogues.jsonl.gz"
PUBLISHED = "empatheticdialogues"
"""The folder in the authors' archive."""


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
            one.conv_id,
            one.emotion,
            one.situation,
            tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(one.texts)),
        )
        for one in reading.dialogues
    ]


def read_general(folder: Path) -> Iterator[tuple[str, list[Message]]]:
    """(source, messages) of each general dialogue; the first speaker is the user."""
    for where, row in read_lines(folder / GENERAL):
        try:
            texts = [plain_commas(str(text)).strip() for text in row["utterances"]]
            source = str(row["source"])
        except (KeyError, TypeError):
            raise DataError(f"{where}: source and utterances were expected.") from None
        roles = ("user", "assistant")
        yield (
            source,
            [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts) if text],
        )


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
            raise DataError(f"{where}: this is not a complete JSON object.")
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON object was expected.")
        yield where, row


def file_hash(path: Path) -> str:
    """SHA-256 of a file, for model and data cards."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
