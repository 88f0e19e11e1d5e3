"""Reads the dialogue files of training and checks them line by line.

A data folder has `empathetic_dialogues.{train,valid}.jsonl.gz` and, for the base model,
`general_dialogues.jsonl.gz`. A fault is one `DataError` that names the file and the line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from empo_demo.dialogue import Message
from empo_demo.empathy.emotions import INDEX
from empo_demo.errors import DataError
from empo_demo.files import json_rows, read_text

Split = Literal["train", "valid"]
GENERAL = "general_dialogues.jsonl.gz"


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
    return folder / f"empathetic_dialogues.{split}.jsonl.gz"


def read_conversations(folder: Path, split: Split) -> list[Conversation]:
    """All dialogues of a split whose turns alternate. Raises `DataError` on a malformed line."""
    path = empathetic_file(folder, split)
    return [_conversation(where, row) for where, row in read_lines(path)]


def read_general(folder: Path) -> Iterator[tuple[str, list[Message]]]:
    """(source, messages) of each general dialogue; the first speaker is the user."""
    for where, row in read_lines(folder / GENERAL):
        try:
            texts = [str(text).strip() for text in row["utterances"]]
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


def plain_commas(text: str) -> str:
    """`text` with commas in place of `_comma_`, which EmpatheticDialogues' CSV has for them."""
    return text.replace("_comma_", ",")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, for model and data cards."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _conversation(where: str, row: dict[str, Any]) -> Conversation:
    try:
        turns = tuple(
            {"role": str(turn["role"]), "content": str(turn["content"]).strip()}
            for turn in row["utterances"]
        )
        conversation = Conversation(
            str(row["conv_id"]), str(row["emotion"]), str(row["situation"]), turns
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
