"""The answers of a SEM: emotions, cause words, how good a turn feels, and a reply's empathy.

`Reading` is what a SEM returns, what a round stores and what comes back from a file: pydantic reads
its fields for the stored form. A plugin's own `Reading` is checked by `GuardedSEM`, not when it is
made. How certain a reading is, is said in words, from the calibrated distribution. Where nothing
can be read (`unread`), all of it abstains: no emotion, no word and no valence is told.

EPITOME says how a response communicates empathy: emotional reactions (warmth), explorations
(asking) and interpretations (understanding), each none, weak or strong (Sharma et al. 2020,
arXiv 2009.08441). Texts are lower-cased. The last 48 tokens of the context and the first 128 of
the response are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    with_config,
)

from empo_demo.empathy.feeling import KEYS as FEELING_KEYS
from empo_demo.empathy.feeling import Feeling
from empo_demo.empathy.language import REASONS, Why
from empo_demo.fields import Name, Number, Place, Share, Text, checked

Kind = Literal["probable", "possible", "torn", "unsure", "unread"]
PROBABLE, POSSIBLE = 0.65, 0.4
"""From these probabilities on, the first label is named alone. On contexts that were kept back, of
those at .65 two in three are right and of all above it four in five; at .4, two in five."""
TORN = 0.5
"""Two labels are named together if they have at least this sum, and below it three."""
MOST_LIKELY = 16
"""With so many labels in the 90 % set, half of all, none is named."""
KEYS = {
    *("emotions", "causes", *FEELING_KEYS, "likely", "of", "unread", "certainty", "abstains"),
    *("sem", "milliseconds"),
}


@dataclass(frozen=True, slots=True)
class Certainty:
    """`kind` for programs, and the sentence for people; `why` says why nothing was read."""

    kind: Kind
    words: str
    why: Why | None = None

    @property
    def abstains(self) -> bool:
        """Whether nothing can be told: no emotion, and so no cause word, valence or comparison."""
        return self.kind == "unread"


def certainty(
    emotions: Sequence[tuple[str, float]], likely: int = 0, unread: Why | None = None
) -> Certainty:
    """The certainty of ranked (label, probability) pairs, `likely` of them in the 90 % set.

    No label of 32 close emotions is sure: of those called most likely about one in five is wrong.
    """
    why = unread or ("little" if likely >= MOST_LIKELY else None)
    if why:
        return Certainty("unread", REASONS[why], why)
    (first, p), (second, q), (third, _) = emotions[:3]
    if p >= PROBABLE:
        return Certainty("probable", f"most likely {first}")
    if p >= POSSIBLE:
        return Certainty("possible", f"perhaps {first}")
    if p + q >= TORN:
        return Certainty("torn", f"unsure between {first} and {second}")
    return Certainty("unsure", f"unsure: perhaps {first}, {second} or {third}")


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

    The emotions are those `of` the dialogue up to the last user turn, or of that "turn" alone where
    it parts from what was said before; `feeling` is how good that turn feels. `likely` is a
    conformal set: labels, most probable first, that include the right one in 90 % of cases; empty
    if the SEM knows none. `unread` says why nothing can be told; then there is no `feeling`.
    """

    emotions: Annotated[tuple[Emotion, ...], Field(min_length=3, max_length=100)]
    causes: Annotated[tuple[Cause, ...], Field(max_length=1000)]
    sem: Text = ""
    milliseconds: Number = 0.0
    feeling: Feeling | None = None
    likely: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    of: Literal["dialogue", "turn"] = "dialogue"
    unread: Why | None = None

    @property
    def abstains(self) -> bool:
        """Whether nothing can be told of what was written."""
        return self.certainty.abstains

    @property
    def valence(self) -> float | None:
        """How good the last user turn feels, in [-1, 1]; None if nothing read it."""
        return None if self.feeling is None or self.abstains else self.feeling.valence

    @property
    def marks(self) -> tuple[Cause, ...]:
        """The cause words to show: none where no emotion is named."""
        return () if self.abstains else self.causes

    @property
    def certainty(self) -> Certainty:
        return certainty(self.emotions, len(self.likely), self.unread)

    def as_json(self) -> dict[str, Any]:
        """What is shown of the reading, with its certainty in words.

        Where it abstains there is no valence and no cause word; `unread` says why.
        """
        fields = _MODEL.dump_python(self, mode="json", by_alias=True)
        shown = not self.abstains
        return {
            "emotions": fields["emotions"],
            "causes": fields["causes"] if shown else [],
            **((fields["feeling"] or {}) if shown else {}),
            "likely": fields["likely"],
            "of": self.of,
            "unread": self.certainty.why,
            "certainty": self.certainty.words,
            "abstains": self.abstains,
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


def checked_json(data: Any) -> dict[str, Any]:
    """A stored reading as it was written, after a check; keys of other versions are dropped.

    It is not written anew, so that an import or a restore changes no byte of it.
    Raises a `DataError` that names the first fault.
    """
    Reading.from_json(data)
    checked(_IN_WORDS, data)
    return {key: value for key, value in data.items() if key in KEYS}


@dataclass(frozen=True, slots=True)
class Level:
    """The most probable level, and the probabilities of 0, 1 and 2."""

    level: int
    probabilities: tuple[float, float, float]

    @property
    def mean(self) -> float:
        """The expected level, from 0 to 2."""
        return self.probabilities[1] + 2 * self.probabilities[2]

    @property
    def error(self) -> float:
        """The standard deviation of the level."""
        _, one, two = self.probabilities
        return math.sqrt(max(0.0, one + 4 * two - self.mean**2))

    @classmethod
    def of(cls, row: Sequence[float]) -> Level:
        zero, one, two = row
        return cls(max(range(3), key=lambda i: row[i]), (zero, one, two))

    def as_json(self) -> dict[str, Any]:
        return {"level": self.level, "probabilities": list(self.probabilities)}


@dataclass(frozen=True, slots=True)
class Epitome:
    """The three mechanisms of one response."""

    er: Level
    ex: Level
    ip: Level

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Epitome:
        """From (3, 3) probabilities in the order ER, EX, IP."""
        er, ex, ip = rows
        return cls(Level.of(er), Level.of(ex), Level.of(ip))

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).as_json() for name in ("er", "ex", "ip")}
