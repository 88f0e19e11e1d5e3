"""Cross-validation: each example is read by what was fitted without its fold.

All dialogues of a block of neighbouring tasks share a fold where the encoder is trained, so that
those of one writer do. Which dialogues the shipped SEM has seen says `empo_demo.empathy.seen`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from empo_demo.empathy.seen import FOLDS, block, number_of

PARTS = 12
"""Parts of the blocks: four make an outer fold, one of the other eight chooses for it."""
Row = TypeVar("Row")


def cross_validate(
    folds: Sequence[int], read: Callable[[int, list[int], list[int]], Sequence[Row]]
) -> list[Row]:
    """What was read of each example, in the order of the examples, `folds` being their folds.

    `read(fold, own, others)` fits on the examples at `others` and reads those at `own`; whatever it
    chooses, it chooses on `others`.
    """
    found: dict[int, Row] = {}
    for fold in sorted(set(folds)):
        own = [i for i, its in enumerate(folds) if its == fold]
        others = [i for i, its in enumerate(folds) if its != fold]
        found.update(zip(own, read(fold, own, others), strict=True))
    return [found[i] for i in range(len(folds))]


def kept(path: Path, read: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The arrays of `read`; a killed run finds them in `path`, and does not make them again."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, *read())
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def outer_fold(conv_id: str) -> int:
    """The fold, 0 to 2, of a dialogue where emotions are cross-validated: by its block of tasks."""
    return _part(conv_id) % FOLDS


def half(conv_id: str) -> int:
    """0 or 1: the half of the dialogues that one of the two teachers is trained on, by blocks."""
    return _part(conv_id) % 2


def tunes(conv_id: str, fold: int) -> bool:
    """Whether the dialogue is kept from training to choose for the outer fold `fold` (1 in 12)."""
    return _part(conv_id) == (fold + 1) % PARTS


def _part(conv_id: str) -> int:
    return int(block(conv_id)) % PARTS if block(conv_id).isdigit() else number_of(conv_id) % PARTS
