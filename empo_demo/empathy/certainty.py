"""How certain a reading is, in words, from the calibrated distribution over the 32 emotions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sure", "fairly", "torn", "unsure", "unread"]
SURE, FAIRLY = 0.6, 0.4
"""From these probabilities on, the first label is named alone."""
TORN = 0.5
"""Two labels are named together if they have at least this sum; below it the SEM abstains."""
UNREAD = 16
"""With so many labels in the 90 % set, half of all, none is named: a greeting, another language."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """`kind` for programs, and the sentence for people."""

    kind: Kind
    words: str

    @property
    def abstains(self) -> bool:
        return self.kind in ("unsure", "unread")


def certainty(emotions: Sequence[tuple[str, float]], likely: int = 0) -> Certainty:
    """The certainty of ranked (label, probability) pairs, `likely` of them in the 90 % set."""
    if likely >= UNREAD:
        return Certainty("unread", "too little to tell the emotion by")
    (first, p), (second, q), (third, _) = emotions[:3]
    if p >= SURE:
        return Certainty("sure", f"{first}, sure")
    if p >= FAIRLY:
        return Certainty("fairly", f"{first}, fairly sure")
    if p + q >= TORN:
        return Certainty("torn", f"unsure between {first} and {second}")
    return Certainty("unsure", f"unsure: perhaps {first}, {second} or {third}")
