"""The answer of a SEM: the emotions of a turn, its cause words, and how good it feels.

`Reading` is what a SEM returns, what a round stores and what comes back from a file: pydantic reads
its fields for the stored form. A plugin's own `Reading` is checked by `GuardedSEM`, not when it is
made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    with_config,
)

from empo_demo.empathy.certainty import Certainty, certainty
from empo_demo.empathy.feeling import KEYS as FEELING_KEYS
from empo_demo.empathy.feeling import Feeling
from empo_demo.fields import Name, Number, Place, Share, Text, checked


def _pair(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, Mapping) or set(value) != {"label", "probability"}:
        raise ValueError("an emotion must be an object with the keys label and probability")
    return value["label"], value["probability"]


Emotion = Annotated[
    tuple[Name, Share],
    BeforeValidator(_pair),
    PlainSerializer(lambda pair: {"label": pair[0], "probability": pair[1]}),
]
"""(label, probability); an object with these two keys where it is stored."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Cause:
    """A word of the last user turn, `text` = content[start:end].

    `weight` is the probability that a person would mark it as the cause of the emotion.
    """

    start: Place
    end: Place
    text: Text
    weight: Number


@dataclass(frozen=True, slots=True)
class Reading:
    """All 32 (label, probability), most probable first, and the cause words in text order.

    The emotions are the dialogue's up to the last user turn; `feeling` is how good that turn feels.
    `likely` is a conformal set: labels, most probable first, that include the right one in 90 % of
    cases; empty if the SEM knows none.
    """

    emotions: Annotated[tuple[Emotion, ...], Field(min_length=3, max_length=100)]
    causes: Annotated[tuple[Cause, ...], Field(max_length=1000)]
    sem: Text = ""
    milliseconds: Number = 0.0
    feeling: Feeling | None = None
    likely: Annotated[tuple[Name, ...], Field(max_length=100)] = ()

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
        """What is shown of the reading, with its certainty in words."""
        fields = _MODEL.dump_python(self, mode="json", by_alias=True)
        return {
            "emotions": fields["emotions"],
            "causes": fields["causes"],
            **(fields["feeling"] or {}),
            "likely": fields["likely"],
            "certainty": self.certainty.words,
            "abstains": self.certainty.abstains,
        }

    def stored(self) -> dict[str, Any]:
        """What a round keeps of the reading: `as_json`, which SEM it was, and its time."""
        return {**self.as_json(), "sem": self.sem, "milliseconds": self.milliseconds}

    @classmethod
    def from_json(cls, data: Any) -> Reading:
        """The reading that `as_json` or `stored` wrote; keys that are not known are ignored.

        Raises a `DataError` that names the first fault.
        """
        known = isinstance(data, Mapping)
        return checked(_MODEL, {**data, "feeling": Feeling.from_json(data)} if known else data)


@dataclass(frozen=True, slots=True)
class _InWords:
    """The two stored keys that follow from the others."""

    certainty: Text | None = None
    abstains: Annotated[bool | None, Strict()] = None


_MODEL = TypeAdapter(Reading)
_IN_WORDS = TypeAdapter(_InWords)
KEYS = {
    *("emotions", "causes", *FEELING_KEYS, "likely", "certainty", "abstains"),
    *("sem", "milliseconds"),
}


def checked_json(data: Any) -> dict[str, Any]:
    """A stored reading as it was written, after a check; keys of other versions are dropped.

    It is not written anew, so that an import or a restore changes no byte of it.
    Raises a `DataError` that names the first fault.
    """
    Reading.from_json(data)
    checked(_IN_WORDS, data)
    return {key: value for key, value in data.items() if key in KEYS}
