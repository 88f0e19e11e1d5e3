"""The words of the page, one file per language in `assets/texts`; English where one is missing.

A file holds the page's own words by key, and under `sentences` what other rooms say in English
(errors, notices, the Board's sentences), with its translation. What people and models wrote is
not here: it stays as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from empo_demo.settings import ASSETS
from empo_demo.votes.verdicts import VERDICTS

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading

FIGURE = re.compile(r"[+-]?\d{1,3}(,?\d{3})*(\.\d+)?%?")
"""A number as English writes it."""
FOLDER = ASSETS / "texts"
LANGUAGES = ("en", *sorted({path.stem for path in FOLDER.glob("*.json")} - {"en"}))
_MARKS = {",": "thousands", ".": "point", "%": "percent"}


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """The words of one language. Calling it with a key gives plain text: escape it for HTML."""

    language: str
    words: dict[str, str]
    sentences: tuple[tuple[re.Pattern[str], str], ...] = field(default=())

    def __call__(self, key: str, **values: object) -> str:
        return self.words[key].format(**values)

    def count(self, key: str, n: int, **values: object) -> str:
        """The words under `key` for `n` of something: those of `key.one` for one of it."""
        return self(f"{key}.one" if n == 1 else f"{key}.many", n=self.number(f"{n:,}"), **values)

    def number(self, text: str) -> str:
        """Numbers in English notation ("2,768", "0.24", "58%") in the notation of this language."""
        marks = {mark: self(f"number.{name}") for mark, name in _MARKS.items()}
        return "".join(marks.get(character, character) for character in text)

    def dropped(self, exchanges: int) -> str:
        """A sentence: how many first exchanges the models did not read. It is empty for 0."""
        return self.count("dropped", exchanges) if exchanges else ""

    def own(self, sentence: str) -> str:
        """What another room says in English, in this language; as it is where nobody wrote it.

        A `{name}` in the file stands for any text, which is translated in its turn.
        """
        if FIGURE.fullmatch(sentence):
            return self.number(sentence)
        for pattern, translation in self.sentences:
            found = pattern.fullmatch(sentence)
            if found:
                parts = {name: self._part(text) for name, text in found.groupdict().items()}
                return translation.format(**parts)
        return sentence

    def _part(self, text: str) -> str:
        """A part of a sentence: a sentence of its own, or a list of such."""
        whole = self.own(text)
        parts = re.split(r", | and ", text)
        if whole != text or len(parts) == 1 or self.language == LANGUAGES[0]:
            return whole
        *most, last = (self.own(part) for part in parts)
        return f"{', '.join(most)} {self('and')} {last}"

    def emotion(self, label: str) -> str:
        """One of the 32 emotions."""
        return self.words.get(f"emotion.{label}", label)

    def verdict(self, name: str, form: str) -> str:
        """A verdict as `button`, `said` or `noun`; the table's own word where none is here."""
        kind = VERDICTS.get(name)
        own = str(getattr(kind, form)) if kind else name
        return self.words.get(f"verdict.{name}.{form}", own)

    def contender(self, name: str, label: str) -> str:
        """A contender for people."""
        return self.words.get(f"contender.{name}", label or name)

    def certainty(self, reading: Reading) -> str:
        """The emotion as one would say it: "lonely, fairly sure"."""
        names = [self.emotion(label) for label, _ in reading.emotions[:3]]
        one, two, three = [*names, "…", "…"][:3]
        return self(f"certainty.{reading.certainty.kind}", one=one, two=two, three=three)


@cache
def texts_of(language: str) -> Texts:
    """The words of `language`; of English for one that is not known."""
    if language not in LANGUAGES:
        language = LANGUAGES[0]
    english = json.loads((FOLDER / "en.json").read_text(encoding="utf8"))
    own = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf8"))
    sentences = _patterns(own.pop("sentences", {}))
    return Texts(language, {**english, **own}, sentences)


def _patterns(sentences: Mapping[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """The English sentences as patterns; those with the most fixed words come first."""
    return tuple(
        (re.compile(_pattern(re.split(r"\{(\w+)\}", english)), re.DOTALL), translation)
        for english, translation in sorted(
            sentences.items(), key=lambda pair: -len(re.sub(r"\{\w+\}", "", pair[0]))
        )
    )


def _pattern(parts: Iterable[str]) -> str:
    """`parts` are fixed text and names of placeholders in turn."""
    return "".join(
        f"(?P<{part}>.+?)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
    )


def preferred(header: str) -> str:
    """The first language of an Accept-Language header that the page speaks; else English."""
    for part in header.split(","):
        code = part.split(";")[0].strip().lower()[:2]
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
