"""Labels of people for the judge: replies with their situation, the model hidden, in random order.

`write` makes two files. The one to label holds a number, the dialogue and the reply; the key holds
who wrote it. Whoever labels sees only the first, adds `"label"` to each line, and is not the maker
of the judge. The labels then measure the judge, and compare the models without it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from empo_demo.errors import DataError
from empo_demo.files import parse_json, read_text
from recipes.effect.cases import Case

Label = Literal["right", "opposite", "neither"]
LABELS: tuple[Label, ...] = get_args(Label)
LABELLED = "blind.jsonl"
KEY = "blind-key.jsonl"
INSTRUCTIONS = "blind-instructions.md"
HOW_TO = """# Label {n} replies

`{file}` holds one JSON object a line: `number`, `dialogue` (the person's turns and perhaps a
listener's), `reply`. Who wrote a reply is hidden. Add `"label"` to each line (keep the rest):

- `"right"`: the reply treats the person's news as what they are. Bad news are met as bad (sorrow,
  worry, anger on their side, comfort, a question about the trouble); good news are met as good
  (joy, praise, a question that takes them as good).
- `"opposite"`: the reply treats good news as bad, or bad news as good. "Congratulations" to a loss,
  "I am sorry to hear that" to a success, "that sounds fun" to a fright.
- `"neither"`: it does neither, it does both, or one cannot tell: a bare "why?", an answer to
  something else, words without a feeling. Whether it is a *good* reply does not matter.

Where the person's own feeling changes, their last turn counts. Look at each line alone; do not look
for patterns. The key lies elsewhere: do not open it before you are done.
"""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled reply: where it stands, who wrote it, and what a person calls it."""

    conv_id: str
    contender: str
    reply: str
    label: Label


def choose(
    cases: Sequence[Case], contenders: Sequence[str], n: int = 200, seed: int = 0
) -> list[tuple[Case, str]]:
    """Who answers which case: as many cases for each contender, and no case for two of them.

    Cases without a good or bad emotion are left out.
    """
    felt = [case for case in cases if case.good is not None]
    random.Random(f"blind {seed}").shuffle(felt)
    return [(case, contenders[i % len(contenders)]) for i, case in enumerate(felt[:n])]


def write(
    chosen: Sequence[tuple[Case, str]], replies: Sequence[str], folder: Path, *, seed: int = 0
) -> None:
    """Write the file to label, its key and the instructions to `folder`.

    Raises `DataError` rather than overwrite labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_labelled(folder):
        raise DataError(f"{folder / LABELLED} holds labels; give another folder.")
    shown, key = [], []
    for number, ((case, name), reply) in enumerate(zip(chosen, replies, strict=True)):
        turns = [f"{_WHO[turn.role]}: {turn.content}" for turn in case.item.context.turns]
        shown.append({"number": number, "dialogue": turns, "reply": reply})
        key.append({"number": number, "id": case.item.conv_id, "contender": name})
    random.Random(f"order {seed}").shuffle(shown)
    _lines(folder / LABELLED, shown)
    _lines(folder / KEY, key)
    text = HOW_TO.format(n=len(shown), file=LABELLED)
    (folder / INSTRUCTIONS).write_text(text, encoding="utf8")


def is_labelled(folder: Path) -> bool:
    """Whether somebody has begun to label the file in `folder`."""
    file = folder / LABELLED
    return file.exists() and any("label" in row for row in _read(file))


def read(folder: Path) -> list[Labelled]:
    """The labelled replies. Raises `DataError` where a line has no label, or an unknown one."""
    key = {row["number"]: row for row in _read(folder / KEY)}
    found = []
    for line, row in enumerate(_read(folder / LABELLED), start=1):
        if row.get("label") not in LABELS:
            raise DataError(
                f"{folder / LABELLED}, line {line}: the label is {row.get('label')!r}; "
                f"it must be one of {', '.join(LABELS)}."
            )
        whose = key[row["number"]]
        found.append(Labelled(whose["id"], whose["contender"], row["reply"], row["label"]))
    return found


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf8")


def _read(path: Path) -> list[dict[str, Any]]:
    return [parse_json(line) for line in read_text(path).split("\n") if line.strip()]


_WHO = {"user": "person", "assistant": "listener"}
