"""The dialogues on which the pair is measured: the first two listener's turns, with their feeling.

A dialogue's emotion may be good news, bad news, or neither. For neither (`anticipating`, `caring`,
`nostalgic`, `sentimental`, `surprised`) nobody can say which reply would be the opposite, so those
dialogues count in every figure but the judge's.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.dialogue import Dialogue, plain_commas
from empo_demo.empathy.emotions import EMOTIONS, INDEX
from empo_demo.errors import DataError, InvalidInput
from empo_demo.evaluation.dialogues import Item
from empo_demo.files import parse_json, read_text
from recipes.sem.folds import REPORTING, fold_of

TRAIN = "empathetic_dialogues.train.jsonl.gz"
VALID = "empathetic_dialogues.valid.jsonl.gz"
TURNS = (1, 2)
"""Which listener's turns of a dialogue are answered. Few dialogues have a third."""
CHOOSING = (0, 1)
"""The folds of ED-valid on which thresholds are chosen. Figures are claimed on `REPORTING`."""
REPORT = (REPORTING,)
GOOD = frozenset(
    {
        *("confident", "content", "excited", "faithful", "grateful", "hopeful", "impressed"),
        *("joyful", "prepared", "proud", "trusting"),
    }
)
NEITHER = frozenset({"anticipating", "caring", "nostalgic", "sentimental", "surprised"})
BAD = frozenset(EMOTIONS) - GOOD - NEITHER


@dataclass(frozen=True, slots=True)
class Case:
    """A place where a listener speaks. `good` is None if the emotion is neither good nor bad.

    `item.conv_id` is the dialogue's id with the turn's number, so that each place has a seed of its
    own; `conv_id` is the dialogue's, by which intervals are drawn.
    """

    conv_id: str
    turn: int
    item: Item

    @property
    def emotion(self) -> str:
        assert self.item.emotion is not None
        return self.item.emotion

    @property
    def good(self) -> bool | None:
        if self.emotion in NEITHER:
            return None
        return self.emotion in GOOD

    @property
    def said(self) -> str:
        """The dialogue so far, as one text."""
        return " / ".join(turn.content for turn in self.item.context.turns)


def read_cases(
    path: Path, folds: Collection[int] | None = None, turns: Collection[int] = TURNS
) -> list[Case]:
    """The cases of a file of EmpatheticDialogues in its order; of all folds without `folds`.

    Turns that break the rules of a dialogue (empty, two of one role) end it. Raises `DataError`
    where the file has no case.
    """
    if not path.is_file():
        raise DataError(f"There is no {path}; give the folder of {path.name} with --data.")
    cases = [
        case
        for line in read_text(path).split("\n")
        if line.strip()
        for case in _cases(parse_json(line), turns)
        if folds is None or fold_of(case.conv_id) in folds
    ]
    if not cases:
        raise DataError(f"{path} holds no listener's turn of these folds.")
    return cases


def _cases(record: Any, turns: Collection[int]) -> Iterator[Case]:
    said = [{**turn, "content": plain_commas(turn["content"])} for turn in record["utterances"]]
    emotion = record.get("emotion")
    places = [i for i, turn in enumerate(said) if turn["role"] == "assistant"]
    for number, place in enumerate(places, start=1):
        if number not in turns or emotion not in INDEX or place == 0:
            continue
        try:
            whole = Dialogue.from_messages(said[: place + 1])
        except InvalidInput:
            return
        context = Dialogue(whole.turns[:-1])
        item = Item(f"{record['conv_id']}/{number}", context, whole.turns[-1].content, emotion)
        yield Case(record["conv_id"], number, item)


def draw(cases: list[Case], dialogues: int | None, seed: int = 0) -> list[Case]:
    """The cases of so many dialogues. More dialogues include those of fewer."""
    groups = [list(group) for _, group in itertools.groupby(cases, lambda case: case.conv_id)]
    random.Random(seed).shuffle(groups)
    return [case for group in groups[:dialogues] for case in group]
