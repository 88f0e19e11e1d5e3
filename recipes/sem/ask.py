"""What the teacher says of many texts: block by block, so that a kill loses one block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from empo_demo.empathy.encoder import LEVELS, MECHANISMS, Text
from empo_demo.progress import progress
from recipes.sem.mpnet import Teacher

BATCH, BLOCK = 32, 512
Values = np.ndarray


def feelings(teacher: Teacher, texts: Sequence[Text], work: Path) -> torch.Tensor:
    """(texts, 34) logits of the emotions, then valence and arousal as the teacher learns them."""
    return torch.from_numpy(_asked(teacher, ("emotions", "affect"), texts, work))


def levels(teacher: Teacher, texts: Sequence[Text], work: Path) -> torch.Tensor:
    """(pairs, 3, 3) logits of the levels of each mechanism."""
    said = torch.from_numpy(_asked(teacher, ("levels",), texts, work))
    return said.unflatten(-1, (len(MECHANISMS), LEVELS))


def causes(teacher: Teacher, texts: Sequence[Text], counts: Sequence[int]) -> list[list[float]]:
    """The highest logit of the pieces of each word; far below 0 where a word has none."""
    said: list[list[float]] = [[-20.0] * count for count in counts]

    def keep(row: int, logits: torch.Tensor) -> None:
        for segment, logit in zip(texts[row].segments, logits.tolist(), strict=False):
            if segment:
                said[row][segment - 1] = max(said[row][segment - 1], logit)

    _by_length(texts, lambda part: teacher("causes", part), keep)
    return said


def _asked(teacher: Teacher, tasks: Sequence[str], texts: Sequence[Text], work: Path) -> Values:
    """(texts, numbers) of what the heads of `tasks` say, side by side, kept in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    found = []
    for start in progress(range(0, len(texts), BLOCK), f"the teacher says {' and '.join(tasks)}"):
        block = texts[start : start + BLOCK]
        key = hashlib.sha256(json.dumps([text.ids for text in block]).encode()).hexdigest()[:12]
        file = work / f"{start:07}-{key}.npy"
        if not file.is_file():
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                np.save(out, _read(teacher, tasks, block))
            part.replace(file)
        found.append(np.load(file).astype(np.float32))
    return np.concatenate(found) if found else np.zeros((0, 9), np.float32)


def _read(teacher: Teacher, tasks: Sequence[str], texts: Sequence[Text]) -> Values:
    rows: list[Values] = [np.zeros(0)] * len(texts)

    def say(part: Sequence[Text]) -> torch.Tensor:
        return teacher.say(tasks, part)

    def keep(row: int, said: torch.Tensor) -> None:
        rows[row] = said.numpy().astype(np.float16)

    _by_length(texts, say, keep)
    return np.stack(rows)


def _by_length(
    texts: Sequence[Text],
    say: Callable[[Sequence[Text]], torch.Tensor],
    keep: Callable[[int, torch.Tensor], None],
) -> None:
    """`keep` each text's row of what is said of batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            for row, said in zip(part, say([texts[i] for i in part]), strict=True):
                keep(row, said)
