"""The answer of a SEM: the emotions of a turn, its cause words, and how good it feels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from empo_demo.empathy.certainty import Certainty, certainty
from empo_demo.empathy.feeling import Feeling


@dataclass(frozen=True, slots=True)
class Cause:
    """A word of the last user turn, `text` = content[start:end].

    `weight` is the probability that a person would mark it as the cause of the emotion.
    """

    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Reading:
    """All 32 (label, probability), most probable first, and the cause words in text order.

    The emotions are the dialogue's up to the last user turn; `feeling` is how good that turn feels.
    `likely` is a conformal set: labels, most probable first, that include the right one in 90 % of
    cases; empty if the SEM knows none.
    """

    emotions: tuple[tuple[str, float], ...]
    causes: tuple[Cause, ...]
    sem: str
    milliseconds: float
    feeling: Feeling | None = None
    likely: tuple[str, ...] = ()

    @property
    def valence(self) -> float | None:
        """How good the last user turn feels, in [-1, 1]; None if nothing read it."""
        return None if self.feeling is None else self.feeling.valence

    @property
    def marks(self) -> tuple[Cause, ...]:
        """The cause words to show: none where no emotion is named."""
        return () if self.certainty.kind == "unread" else self.causes

    @property
    def certainty(self) -> Certainty:
        return certainty(self.emotions, len(self.likely))

    def as_json(self) -> dict[str, Any]:
        sure = self.certainty
        return {
            "emotions": [{"label": label, "probability": p} for label, p in self.emotions],
            "causes": [
                {"start": c.start, "end": c.end, "text": c.text, "weight": c.weight}
                for c in self.causes
            ],
            **(self.feeling.as_json() if self.feeling else {}),
            "likely": list(self.likely),
            "certainty": sure.words,
            "abstains": sure.abstains,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """The reading that `as_json` wrote, with `sem` and `milliseconds` if they are there."""
        return cls(
            tuple((str(e["label"]), float(e["probability"])) for e in data["emotions"]),
            tuple(Cause(**c) for c in data["causes"]),
            str(data.get("sem", "")),
            float(data.get("milliseconds", 0.0)),
            Feeling.from_json(data),
            tuple(str(label) for label in data.get("likely", ())),
        )
