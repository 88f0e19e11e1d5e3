"""Dialogues of EmpatheticDialogues as evaluation items: everything before the last listener turn.

A trailing speaker turn is dropped, as in EmPO. A dialogue that has no listener turn or breaks the
rules of a dialogue is skipped and named. A malformed line is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.dialogue import Dialogue, plain_commas
from empo_demo.errors import DataError, InvalidInput
from empo_demo.files import parse_json, read_text
from empo_demo.training.corpus import read_published


@dataclass(frozen=True, slots=True)
class Item:
    """One dialogue to answer. `context` ends with the user. `reference` (human) may be empty."""

    conv_id: str
    context: Dialogue
    reference: str
    emotion: str | None


@dataclass(frozen=True, slots=True)
class Items:
    """The items in file order, and one line for each dialogue that was skipped."""

    items: tuple[Item, ...]
    skipped: tuple[str, ...]


def read_items(path: Path, limit: int | None = None) -> Items:
    """Read at most `limit` items from JSONL with conv_id and utterances, gzipped or not.

    Also accepts EmpatheticDialogues' own CSV, and a JSON list of {title, emotion, turns}, such as
    the app's example dialogues. In those every dialogue ends with the user, so nothing is dropped
    and there is no reference.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        return Items(tuple(_examples(path, text)[:limit]), ())
    if ".csv" in path.suffixes:
        return _published(path, text, limit)
    items: dict[str, Item] = {}
    skipped = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or (limit is not None and len(items) >= limit):
            continue
        conv_id, turns, emotion = _record(f"{path}, line {number}", line)
        if conv_id in items:
            raise DataError(f"{path}, line {number}: the conv_id {conv_id!r} occurs twice.")
        try:
            items[conv_id] = _item(conv_id, turns, emotion)
        except InvalidInput as error:
            skipped.append(f"{path}, line {number} ({conv_id}): {error}")
    if not items:
        raise DataError(f"{path} holds no dialogue with a listener's turn.")
    return Items(tuple(items.values()), tuple(skipped))


def _published(path: Path, text: str, limit: int | None) -> Items:
    """The items of EmpatheticDialogues' own CSV."""
    reading = read_published(text, path)
    skipped = [f"{path}: {reading.left_out()}."] if reading.left_out() else []
    items: list[Item] = []
    for dialogue in reading.dialogues:
        if limit is not None and len(items) >= limit:
            break
        turns: list[dict[str, Any]] = [
            {"role": ("user", "assistant")[i % 2], "content": said}
            for i, said in enumerate(dialogue.texts)
        ]
        try:
            items.append(_item(dialogue.conv_id, turns, dialogue.emotion))
        except InvalidInput as error:
            skipped.append(f"{path} ({dialogue.conv_id}): {error}")
    if not items:
        raise DataError(f"{path} holds no dialogue with a listener's turn.")
    return Items(tuple(items), tuple(skipped))


def _examples(path: Path, text: str) -> list[Item]:
    try:
        items = [
            Item(
                str(entry["title"]),
                Dialogue.from_messages(entry["turns"]),
                "",
                entry.get("emotion"),
            )
            for entry in parse_json(text)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: a list of {{title, emotion, turns}} was expected.") from None
    if not items or any(not item.context.turns for item in items):
        raise DataError(f"{path} holds no dialogue, or an empty one.")
    if any(item.context.turns[-1].role != "user" for item in items):
        raise DataError(f"{path}: every dialogue must end with the user's turn.")
    return items


def _record(where: str, line: str) -> tuple[str, list[dict[str, Any]], str | None]:
    try:
        record = parse_json(line)
        conv_id, turns = str(record["conv_id"]), record["utterances"]
    except ValueError as error:
        raise DataError(f"{where}: this is not a complete JSON object: {error}.") from None
    except (KeyError, TypeError):
        raise DataError(
            f"{where}: an object with conv_id and utterances [{{role, content}}] was expected."
        ) from None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{where}: utterances must be a list of {{role, content}}.")
    turns = [
        {**turn, "content": plain_commas(turn["content"])}
        if isinstance(turn.get("content"), str)
        else turn
        for turn in turns
    ]
    emotion = record.get("emotion")
    return conv_id, turns, emotion if isinstance(emotion, str) else None


def _item(conv_id: str, turns: list[dict[str, Any]], emotion: str | None) -> Item:
    listener = [i for i, turn in enumerate(turns) if turn.get("role") == "assistant"]
    if not listener or listener[-1] == 0:
        raise InvalidInput("no listener's turn follows a user's.")
    whole = Dialogue.from_messages(turns[: listener[-1] + 1])
    reference = whole.turns[-1].content
    return Item(conv_id, Dialogue(whole.turns[:-1]), reference, emotion)
