"""How good a text feels: valence and arousal, and how much each word moves the valence.

The embedded SEM computes this in the forward pass that reads the emotions. For a plugin that does
not, VADER's rules compute the valence, and `Feeling.source` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from empo_demo.empathy.words import spans
from empo_demo.fields import Name, Number, Place, Signed, Text, checked
from empo_demo.metrics.valence import load_lexicon, text_valence

VISIBLE = 0.02
"""A word that moves the valence by less than this is not shown."""


MOST_LEFT_OUT = 64
"""To explain a valence, the text is read again without each of so many of its first words."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Push:
    """A word, `text` = content[start:end], and how much it moves the valence (negative: down).

    That is what the text's valence loses without the word; the SEM's own head only estimates it.
    """

    start: Place
    end: Place
    text: Text
    by: Number


@dataclass(frozen=True, slots=True)
class Feeling:
    """Valence in [-1, 1] (-1 very bad, 0 neutral), and its parts.

    In two of three texts, people's mean rating lies within valence ± `spread`. `arousal` is from
    -1 (calm) to 1 (excited). VADER gives None for both. `source` is "sem" or "vader". `words` are
    the words of the text, in order.
    """

    valence: Signed
    spread: Annotated[Number | None, Field(alias="valence_spread")] = None
    arousal: Signed | None = None
    source: Annotated[Name, Field(alias="valence_source")] = "sem"
    words: Annotated[tuple[Push, ...], Field(alias="valence_words", max_length=10_000)] = ()

    @property
    def visible(self) -> float:
        """The least |push| that is shown."""
        return VISIBLE

    def as_json(self) -> dict[str, Any]:
        return dict(_MODEL.dump_python(self, mode="json", by_alias=True))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feeling | None:
        """The value that `as_json` wrote, perhaps among other keys; None if it has no valence.

        Raises a `DataError` that names the first fault.
        """
        fields = {key: data[key] for key in KEYS if data.get(key) is not None}
        feeling = checked(_MODEL, {"valence": 0.0, **fields})
        return feeling if "valence" in fields else None


_MODEL = TypeAdapter(Feeling)
KEYS = ("valence", "valence_spread", "arousal", "valence_source", "valence_words")
"""The keys of a feeling where it is stored, among those of its reading."""


def lexicon_feeling(text: str) -> Feeling:
    """The feeling of `text` by VADER's rules. A word's push is the change without that word."""

    lexicon = load_lexicon()
    whole = text_valence(text, lexicon)
    words = tuple(
        Push(start, end, text[start:end], whole - text_valence(text[:start] + text[end:], lexicon))
        for start, end in spans(text)[:MOST_LEFT_OUT]
    )
    return Feeling(whole, None, None, "vader", words)
