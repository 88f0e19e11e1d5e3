"""The 32 emotions of EmpatheticDialogues: names, polar opposites, groups, colours, and their turns.

The groups are the eight petals of Plutchik's wheel. The opposites are those of EmPO's published
code (arXiv 2406.19071). Some hold in one direction only, so `OPPOSITE` is not an involution.

An emotion is the dialogue's: most later turns say little by themselves. But "I wish I could take it
back" after an angry story is guilt. Both are read, and a logistic regression on five numbers
(`recipes.sem.turning`) tells whether the last turn parts from the dialogue before it, so that its
own emotion is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Group = Literal["joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation"]

EMOTIONS: tuple[str, ...] = (
    "afraid",
    "angry",
    "annoyed",
    "anticipating",
    "anxious",
    "apprehensive",
    "ashamed",
    "caring",
    "confident",
    "content",
    "devastated",
    "disappointed",
    "disgusted",
    "embarrassed",
    "excited",
    "faithful",
    "furious",
    "grateful",
    "guilty",
    "hopeful",
    "impressed",
    "jealous",
    "joyful",
    "lonely",
    "nostalgic",
    "prepared",
    "proud",
    "sad",
    "sentimental",
    "surprised",
    "terrified",
    "trusting",
)
"""All labels in alphabetical order: the order of every model head and every stored vector."""

INDEX: dict[str, int] = {label: position for position, label in enumerate(EMOTIONS)}

_MUTUAL = (
    ("afraid", "angry"),
    ("proud", "ashamed"),
    ("faithful", "jealous"),
    ("terrified", "furious"),
    ("joyful", "sad"),
    ("embarrassed", "confident"),
    ("excited", "devastated"),
    ("annoyed", "apprehensive"),
    ("lonely", "caring"),
    ("surprised", "anticipating"),
    ("nostalgic", "hopeful"),
    ("disappointed", "impressed"),
    ("trusting", "disgusted"),
    ("anxious", "content"),
)
_ONE_WAY = (
    ("sentimental", "apprehensive"),
    ("grateful", "disgusted"),
    ("prepared", "anxious"),
    ("guilty", "proud"),
)

OPPOSITE: dict[str, str] = {
    **dict(_MUTUAL),
    **{b: a for a, b in _MUTUAL},
    **dict(_ONE_WAY),
}
"""The polar opposite of each emotion, which EmPO uses to choose rejected texts."""

GROUPS: dict[Group, tuple[str, ...]] = {
    "joy": ("joyful", "content", "excited", "proud"),
    "trust": ("trusting", "faithful", "grateful", "caring", "confident"),
    "fear": ("afraid", "terrified", "anxious", "apprehensive"),
    "surprise": ("surprised", "impressed"),
    "sadness": ("sad", "lonely", "devastated", "disappointed", "nostalgic", "sentimental"),
    "disgust": ("disgusted", "embarrassed", "ashamed", "guilty"),
    "anger": ("angry", "annoyed", "furious", "jealous"),
    "anticipation": ("anticipating", "hopeful", "prepared"),
}

GROUP_OF: dict[str, Group] = {label: group for group, labels in GROUPS.items() for label in labels}


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
