"""Files of preference pairs and of rated replies, checked whole before anything is trained.

Every row becomes TRL's conversational form with an explicit prompt: turns of system (at most one,
first), user and assistant, ending with the user's; and one reply. Read are plain texts, the prompt
within `chosen` and `rejected` (UltraFeedback, and Anthropic's "Human: … Assistant: …"), and the
keys of ShareGPT. What a row lacks is one `DataError` that names the file and the line.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message, is_blank, plain_commas
from empo_demo.engine.text.chat_template import ChatTemplate, encode_chat, template_of
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_lines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
PAIR = ("prompt", "chosen", "rejected")
RATED = ("prompt", "completion", "label")
_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""The names of roles in common data sets, ShareGPT's among them."""
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_PLAIN = "hold plain texts: a prompt became the user's turn, a reply the assistant's"
_SAME = "have the same text as chosen and as rejected, and were left out"


def read_pairs(path: Path, *, also: Sequence[str] = ()) -> list[Row]:
    """The rows of a file of pairs: prompt, chosen and rejected as turns, and the columns `also`.

    Says on stderr what was made of rows in another form. Raises a `DataError` for the first row
    that is not a pair, and if none is left.
    """
    return _read(path, lambda row, notes: _both(row, notes, also))


def read_rated(path: Path) -> list[Row]:
    """Like `read_pairs`: prompt, completion and a boolean label. A pair becomes two rows."""
    return _read(path, _rated)


def fitting(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, length: int, path: Path
) -> list[Row]:
    """The rows as the model reads them, without those whose prompt fills `length` tokens.

    TRL would drop those. Prompts get the form in which the model is served: the system text where
    its template keeps it, no typed control token, no thinking. Says how many rows were left out;
    raises a `DataError` if that is all of them, or if the template cannot be trained with.
    """
    template = template_of(tokenizer)
    if template.form.parts:
        raise DataError(
            f"{path}: the model's chat template takes no plain texts, so TRL cannot train it; "
            "save a template that does."
        )
    lengths = [len(encode_chat(tokenizer, row["prompt"])) for row in rows]
    short = [row for row, tokens in zip(rows, lengths, strict=True) if tokens < length]
    if not short:
        raise DataError(
            f"{path}: every prompt is too long: the shortest has {min(lengths, default=0):,} "
            f"tokens, and prompt and reply may have {length:,}. Give a higher --length, or shorter "
            "dialogues."
        )
    if len(short) < len(rows):
        too_long = f"have prompts of {length:,} tokens or more, and were left out"
        _say(path, Counter({too_long: len(rows) - len(short)}))
    return [_as_prompted(row, template, tokenizer) for row in short]


def _as_prompted(row: Row, template: ChatTemplate, tokenizer: PreTrainedTokenizerBase) -> Row:
    copy = dict(row)
    for name in ("prompt", "chosen", "rejected", "completion"):
        if name in row:
            copy[name] = [
                {**turn, "content": template.safe(tokenizer, turn["content"])} for turn in row[name]
            ]
    copy["prompt"] = template.form.given(copy["prompt"])
    if template.form.options:
        copy["chat_template_kwargs"] = dict(template.form.options)
    return copy


def _read(path: Path, made: Callable[[Row, Counter[str]], list[Row]]) -> list[Row]:
    if not path.exists():
        raise DataError(f"There is no file {path}; give the file of pairs with --pairs.")
    rows: list[Row] = []
    notes: Counter[str] = Counter()
    for where, row in read_lines(path):
        try:
            rows += made(row, notes)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
    if not rows:
        left = f" ({notes[_SAME]:,} rows {_SAME})" if notes[_SAME] else ""
        raise DataError(f"{path} holds no rows{left}; nothing can be trained on it.")
    _say(path, notes)
    return rows


def _say(path: Path, notes: Counter[str]) -> None:
    """Print each note once, also if several processes train together."""
    if os.environ.get("RANK", "0") == "0":
        for note, count in notes.items():
            print(f"{path}: {count:,} rows {note}.", file=sys.stderr)


def _both(row: Row, notes: Counter[str], also: Sequence[str] = ()) -> list[Row]:
    _need(row, [*also, *PAIR])
    prompt, (chosen, rejected) = _split(row, ("chosen", "rejected"), notes)
    if chosen["content"].strip() == rejected["content"].strip():
        notes[_SAME] += 1
        return []
    columns = {name: row[name] for name in also}
    return [{**columns, "prompt": prompt, "chosen": [chosen], "rejected": [rejected]}]


def _rated(row: Row, notes: Counter[str]) -> list[Row]:
    if "chosen" in row:
        return [
            {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
            for pair in _both(row, notes)
            for name in ("chosen", "rejected")
        ]
    _need(row, RATED)
    label = row["label"]
    if not isinstance(label, bool | int | float) or label not in (0, 1):
        raise ValueError(f"label is {label!r}; true or false (or 1 or 0) is expected.")
    prompt, (reply,) = _split(row, ("completion",), notes)
    return [{"prompt": prompt, "completion": [reply], "label": bool(label)}]


def _need(row: Row, columns: Iterable[str]) -> None:
    """Raise a `ValueError` for missing columns. A prompt may be inside the replies."""
    replies = [row.get(name) for name in ("chosen", "completion") if name in row]
    inside = any(_holds_prompt(reply) for reply in replies) or "conversations" in row
    missing = [name for name in columns if name not in row and not (name == "prompt" and inside)]
    if missing:
        cells = ", ".join(map(str, row)) or "nothing"
        raise ValueError(f"{', '.join(missing)} is missing; the row has {cells[:200]}.")


def _holds_prompt(reply: Any) -> bool:
    if isinstance(reply, str):
        return len(_TRANSCRIPT.findall(reply)) > 1
    return isinstance(reply, list) and len(reply) > 1


def _split(
    row: Row, columns: Sequence[str], notes: Counter[str]
) -> tuple[list[Message], list[Message]]:
    """The prompt of a row and the reply in each of `columns`. Raises a `ValueError`."""
    given = row.get("prompt", row.get("conversations", ""))
    left_out = given in ("", []) and any(_holds_prompt(row[name]) for name in columns)
    prompt = None if left_out else _turns(given, "prompt", "user")
    sides = [_side(row[name], name, prompt is None) for name in columns]
    before = sides[0][:-1]
    for name, turns in zip(columns, sides, strict=True):
        if turns[-1]["role"] != "assistant":
            raise ValueError(f"{name} ends with the {turns[-1]['role']}'s turn; a reply is needed.")
        if not _same(turns[:-1], before):
            raise ValueError(f"the turns before the last differ in {' and '.join(columns)}.")
    joined = _joined(prompt or [], before)
    system = row.get("system")
    if not isinstance(system, str | None):
        raise ValueError(f"system is {system!r:.60}; a text is expected.")
    if system and not is_blank(system) and joined[0]["role"] != "system":
        joined = [{"role": "system", "content": plain_commas(system)}, *joined]
    _check_prompt(joined)
    if any(isinstance(value, str) and value for value in (given, *(row[name] for name in columns))):
        notes[_PLAIN] += 1
    return joined, [turns[-1] for turns in sides]


def _side(value: Any, name: str, with_prompt: bool) -> list[Message]:
    """The turns of a reply's column; of a transcript where no column has the prompt."""
    if with_prompt and isinstance(value, str):
        _, *parts = _TRANSCRIPT.split(value)
        value = [
            {"role": role.lower(), "content": text.strip()}
            for role, text in zip(parts[::2], parts[1::2], strict=True)
        ]
    return _turns(value, name, "assistant")


def _turns(value: Any, name: str, role: str) -> list[Message]:
    """Turns from a text (of `role`), a turn, or a list of turns. Raises a `ValueError`."""
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list):
        shown = "null" if value is None else f"{value!r}"[:60]
        raise ValueError(f"{name} is {shown}; a text or a list of turns is expected.")
    if not turns:
        raise ValueError(f"{name} has no turn; at least one is needed.")
    return [_turn(turn, name) for turn in turns]


def _turn(turn: Any, name: str) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"{name} holds {str(turn)[:60]!r}; a turn has a role and a content.")
    said, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise ValueError(f"{name} has a turn of {said!r}; system, user or assistant is expected.")
    if isinstance(content, list) and content:
        if not all(
            isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
        ):
            raise ValueError(f"{name} holds more than text; only texts can be trained on.")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        shown = "null" if content is None else f"{content!r}"[:60]
        raise ValueError(f"the {role}'s turn in {name} is {shown}; a text is expected.")
    if is_blank(content):
        raise ValueError(f"the {role}'s turn in {name} is empty; a text is expected.")
    return {"role": role, "content": plain_commas(content)}


def _joined(prompt: list[Message], before: list[Message]) -> list[Message]:
    """The prompt's column and the turns before the reply, which may hold the same, as one."""
    short, long = sorted((prompt, before), key=len)
    count = len(long) - len(short)
    if short and not _same(short, long[count:]) and not _same(short, long[: len(short)]):
        raise ValueError("prompt and the turns before the reply differ; one of them is needed.")
    return long


def _check_prompt(turns: list[Message]) -> None:
    roles = [turn["role"] for turn in turns]
    said = roles[1:] if roles[:1] == ["system"] else roles
    if said != [("user", "assistant")[i % 2] for i in range(len(said))] or len(said) % 2 == 0:
        raise ValueError(
            f"the turns of the prompt are {', '.join(roles) or 'none'}; after a system turn, if "
            "any, the user's and the assistant's must alternate, and the user's come first and "
            "last."
        )


def _same(some: Sequence[Message], others: Sequence[Message]) -> bool:
    """Whether the turns are equal but for the spaces at their ends."""
    return [(turn["role"], turn["content"].strip()) for turn in some] == [
        (turn["role"], turn["content"].strip()) for turn in others
    ]
