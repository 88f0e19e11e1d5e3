"""The page's own words, one file per language in `assets/texts`; English where one is missing.

What people and models wrote, errors and notices are not here: they stay as they came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from empo_demo.settings import ASSETS
from empo_demo.votes.verdicts import VERDICTS

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading

LANGUAGES = ("en", "de")
FOLDER = ASSETS / "texts"


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """The words of one language. Calling it with a key gives plain text: escape it for HTML."""

    language: str
    words: dict[str, str]

    def __call__(self, key: str, **values: object) -> str:
        return self.words[key].format(**values)

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
    return Texts(language, {**english, **own})


def preferred(header: str) -> str:
    """The first language of an Accept-Language header that the page speaks; else English."""
    for part in header.split(","):
        code = part.split(";")[0].strip().lower()[:2]
        if code in LANGUAGES:
            return code
    return LANGUAGES[0]
