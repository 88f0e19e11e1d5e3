"""Whether the last turn parts from the dialogue before it, so that its own emotion is shown.

An emotion is the dialogue's: most later turns say little by themselves. But "I wish I could take it
back" after an angry story is guilt. Both are read, and a logistic regression on five numbers
(`recipes.sem.turning`) tells one kind from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from empo_demo.empathy.emotions import EMOTIONS, INDEX

if TYPE_CHECKING:
    import numpy as np

LEAST = 1e-4
ANGER = ("angry", "annoyed", "furious", "disgusted", "jealous")
REMORSE, RUED = ("ashamed", "embarrassed", "guilty"), 0.5
"""Anger that turns to remorse is told from their sum alone: the three labels are close, so none of
them is likely by itself. It fires in 6 of 1,200 later turns of EmpatheticDialogues."""


def numbers(dialogue: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(n, 5) numbers of (n, 32) probabilities, of each dialogue and of its last turn alone.

    The logarithms of the turn's first label in the turn and in the dialogue, of the dialogue's
    first label in both, and how far the two distributions are apart (total variation).
    """
    import numpy as np

    rows = np.arange(len(turn))
    own, heard = turn.argmax(1), dialogue.argmax(1)
    parts = [turn[rows, own], dialogue[rows, own], dialogue[rows, heard], turn[rows, heard]]
    apart = np.abs(dialogue - turn).sum(1) / 2
    return np.column_stack([*(np.log(part + LEAST) for part in parts), apart])


def parts(dialogue: np.ndarray, turn: np.ndarray, weights: Sequence[float], bound: float) -> bool:
    """Whether a turn's probabilities (32,) part from its dialogue's."""
    if not len(weights) or turn.argmax() == dialogue.argmax():
        return False
    rued = float(turn[[INDEX[label] for label in REMORSE]].sum())
    if EMOTIONS[int(dialogue.argmax())] in ANGER and rued >= RUED:
        return True
    return bool((numbers(dialogue[None], turn[None]) @ weights)[0] >= bound)
