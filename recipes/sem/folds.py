"""Cross-validation, and the dialogues that the SEM has seen: these must not measure it.

In a cross-validation each example is read by what was fitted without its fold. All dialogues of a
block of neighbouring tasks share a fold where the encoder is trained, so that those of one writer
do. EmoCause annotates situations of ED-valid, so all heads share one split of its dialogues:
whatever is chosen for a fold's figures (share, temperature, marks) is chosen on the other folds.
The encoder sees no dialogue of ED-valid at all, and not those of ED-train that `kept_back` names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

PARTS = 12
"""Parts of the blocks: four make an outer fold, one of the other eight chooses for it."""
Row = TypeVar("Row")
FOLDS = 3
SEEKER_FOLDS = 5
REPORTING = 2
"""The fold of ED-valid that `python -m recipes.studies hef` uses."""
BLOCK = 400
"""The number of neighbouring tasks of EmpatheticDialogues in one block; see `block`."""
KEPT_BACK = 10
"""One of this many tasks of ED-train is kept back."""


def cross_validate(
    folds: Sequence[int], read: Callable[[int, list[int], list[int]], Sequence[Row]]
) -> list[Row]:
    """What was read of each example, in the order of the examples, `folds` being their folds.

    `read(fold, own, others)` fits on the examples at `others` and reads those at `own`; whatever it
    chooses, it chooses on `others`.
    """
    rows: dict[int, Row] = {}
    for fold in sorted(set(folds)):
        own = [i for i, its in enumerate(folds) if its == fold]
        others = [i for i, its in enumerate(folds) if its != fold]
        rows.update(zip(own, read(fold, own, others), strict=True))
    return [rows[i] for i in range(len(folds))]


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


def fold_of(conv_id: str) -> int:
    """The fold, 0 to 2, of the dialogue `conv_id`: SHA-256 of the id, modulo 3."""
    return number_of(conv_id) % FOLDS


def held_out_causes(conv_id: str) -> bool:
    """Whether a dialogue of ED-valid is of the fold whose cause words no teacher learns."""
    return fold_of(conv_id) == REPORTING


def fold_of_seeker(seeker: str) -> int:
    """The fold, 0 to 4, of all pairs of one seeker post."""
    return number_of(seeker) % SEEKER_FOLDS


def held_out_pair(seeker: str) -> bool:
    """Whether no teacher learns the levels of this seeker post's pairs."""
    return fold_of_seeker(seeker) == 0


def block(conv_id: str) -> str:
    """The block of neighbouring tasks of a dialogue, or its id where it names no task.

    A writer did many tasks in a row and reads alike in all of them; the data does not name the
    writers, but the tasks (`hit:N_conv:M`) are numbered in the order in which they were done.
    """
    task = conv_id.split("_")[0].removeprefix("hit:")
    return str(int(task) // BLOCK) if task.isdigit() else conv_id


def kept_back(conv_id: str) -> bool:
    """Whether a dialogue of ED-train is kept from training, with all of its task (`hit:N`)."""
    return number_of(conv_id.split("_")[0]) % KEPT_BACK == 0


def number_of(text: str) -> int:
    """The SHA-256 of `text` as a number, which deals texts out evenly and always alike."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)
