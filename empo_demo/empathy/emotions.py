"""The 32 emotions of EmpatheticDialogues: names, polar opposites, groups and colours.

The groups are the eight petals of Plutchik's wheel. The opposites are those of EmPO's published
code (arXiv 2406.19071). Some hold in one direction only, so `OPPOSITE` is not an involution.
"""

from __future__ import annotations

from typing import Literal

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
