"""How good a text feels: valence and arousal, and how much each word moves the valence.

The embedded SEM computes this in the forward pass that reads the emotions. For a plugin that does
not, VADER's rules compute the valence, and `Feeling.source` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from empo_demo.empathy.words import spans

VISIBLE = 0.02
"""A word that moves the valence by less than this is not shown."""


MOST_LEFT_OUT = 64
"""To explain a valence, the text is read again without each of so many of its first words."""


@dataclass(frozen=True, slots=True)
class Push:
    """A word, `text` = content[start:end], and how much it moves the valence (negative: down).

    That is what the text's valence loses without the word; the SEM's own head only estimates it.
    """

    start: int
    end: int
    text: str
    by: float


@dataclass(frozen=True, slots=True)
class Feeling:
    """Valence in [-1, 1] (-1 very bad, 0 neutral), and its parts.

    In two of three texts, people's mean rating lies within valence ± `spread`. `arousal` is from
    -1 (calm) to 1 (excited). VADER gives None for both. `source` is "sem" or "vader". `words` are
    the words of the text, in order.
    """

    valence: float
    spread: float | None
    arousal: float | None
    source: str
    words: tuple[Push, ...] = ()

    @property
    def visible(self) -> float:
        """The least |push| that is shown."""
        return VISIBLE

    def as_json(self) -> dict[str, Any]:
        return {
            "valence": self.valence,
            "valence_spread": self.spread,
            "arousal": self.arousal,
            "valence_source": self.source,
            "valence_words": [
                {"start": w.start, "end": w.end, "text": w.text, "by": w.by} for w in self.words
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feeling | None:
        """The value that `as_json` wrote; None if it has no valence (from earlier versions)."""
        if data.get("valence") is None:
            return None
        return cls(
            float(data["valence"]),
            _number(data.get("valence_spread")),
            _number(data.get("arousal")),
            str(data.get("valence_source", "sem")),
            tuple(Push(**word) for word in data.get("valence_words", ())),
        )


def lexicon_feeling(text: str) -> Feeling:
    """The feeling of `text` by VADER's rules. A word's push is the change without that word."""
    from empo_demo.metrics.valence import load_lexicon, text_valence

    lexicon = load_lexicon()
    whole = text_valence(text, lexicon)
    words = tuple(
        Push(start, end, text[start:end], whole - text_valence(text[:start] + text[end:], lexicon))
        for start, end in spans(text)[:MOST_LEFT_OUT]
    )
    return Feeling(whole, None, None, "vader", words)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
