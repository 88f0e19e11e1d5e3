"""The words of the page, one file per language in `assets/texts`; English where one is missing.

A file holds the page's own words by key. Under `sentences` it holds what other rooms say (errors,
notices, the Board's sentences): the English template, which is the key of a `Sentence`, with its
translation. What people and models wrote is not here: it stays as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from empo_demo.errors import Sentence
from empo_demo.settings import ASSETS
from empo_demo.votes.models import VERDICTS

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
    sentences: Mapping[str, str] = field(default_factory=dict)

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

        It is looked up by its key, and so are those of its values that are our own words.
        """
        if FIGURE.fullmatch(sentence):
            return self.number(sentence)
        said = Sentence.of(sentence)
        translation = self.sentences.get(said.key)
        if translation is None or not said.values:
            return translation or sentence
        return translation.format(**{name: self._value(v) for name, v in said.values.items()})

    def _value(self, value: object) -> str:
        """A value of a sentence: a text, a number, or a list of texts."""
        if not isinstance(value, tuple):
            return self.own(value if isinstance(value, str) else str(value))
        *most, last = map(self.own, value)
        return f"{', '.join(most)} {self('and')} {last}" if most else last

    def emotion(self, label: str) -> str:
        """One of the 32 emotions."""
        return self.words.get(f"emotion.{label}", label)

    def verdict(self, name: str, form: str) -> str:
        """A verdict as `button`, `said` or `noun`; the table's own word where none is here."""
        kind = VERDICTS.get(name)
        own = str(getattr(kind, form)) if kind else name
        return self.words.get(f"verdict.{name}.{form}", own)

    def contender(self, name: str, label: str) -> str:
        """A contender for people; an earlier one of the same name with its revision."""
        known, _, revision = name.rpartition("@")
        if f"contender.{known}" in self.words:
            whole = self.words[f"contender.{known}"]
            return self("contender.earlier", name=whole, revision=revision[:7])
        return self.words.get(f"contender.{name}", label or name)

    def certainty(self, reading: Reading) -> str:
        """The emotion as one would say it ("most likely lonely"), or why none is named."""
        certainty = reading.certainty
        if certainty.why:
            return self(f"certainty.unread.{certainty.why}")
        names = [self.emotion(label) for label, _ in reading.emotions[:3]]
        one, two, three = [*names, "…", "…"][:3]
        return self(f"certainty.{certainty.kind}", one=one, two=two, three=three)


@cache
def texts_of(language: str) -> Texts:
    """The words of `language`; of English for one that is not known."""
    if language not in LANGUAGES:
        language = LANGUAGES[0]
    english = json.loads((FOLDER / "en.json").read_text(encoding="utf8"))
    own = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf8"))
    sentences = own.pop("sentences", {})
    return Texts(language, {**english, **own}, sentences)


def preferred(header: str) -> str:
    """The first language of an Accept-Language header that the page speaks; else English."""
    for part in header.split(","):
        code = part.split(";")[0].strip().lower()[:2]
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
