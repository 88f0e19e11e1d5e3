"""Whether a text is English. Short and unclear texts count as English.

Common words and the script decide most texts at once. `py3langid` decides the rest; its model is in
its package. Loading it takes 0.6 s, when the first unclear text comes.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_COMMON_WORDS = """
the and my im its it's i'm i've ive i'd that this with have had has they them you your she because
when what but about just would could should got get been were his really think know feel felt like
very don't dont can't cant didn't didnt wasn't from there their who how why going went said much
more some out our we're i'll not all me he was are is a to of in i it on for so at be do her him we
an up or no yes
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LEAST_WORDS = 4
_LEAST_PROBABILITY = 0.6
_CLOSELY_READ = (
    "de",
    "es",
    "fr",
    "it",
    "pt",
    "nl",
    "sv",
    "da",
    "no",
    "nb",
    "fi",
    "pl",
    "cs",
    "tr",
    "ro",
    "hu",
    "id",
    "vi",
    "ca",
    "hr",
    "sk",
    "et",
    "lt",
    "lv",
    "sq",
    "sw",
    "tl",
)


def is_english(text: str) -> bool:
    """False only if the script is not Latin, or if the words are clearly of another language."""
    words = [word.replace("’", "'").lower() for word in _WORD.findall(text)]
    letters = [character for word in words for character in word if character.isalpha()]
    if not letters:
        return True
    if sum(map(_latin, letters)) < len(letters) / 2:
        return False
    if len(words) < _LEAST_WORDS:
        return True
    if sum(word in _COMMON for word in words) / len(words) >= 0.4:
        return True
    language, probability = _identifier().classify(text)
    known = language in _CLOSELY_READ and probability >= _LEAST_PROBABILITY
    return not known or sum(word in _COMMON for word in words) / len(words) >= 0.3


def _latin(character: str) -> bool:
    return character.isascii() or unicodedata.name(character, "").startswith("LATIN")


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped,unused-ignore]

    load = getattr(LanguageIdentifier, "from_model_file", None) or (
        LanguageIdentifier.from_pickled_model
    )
    identifier = load(MODEL_FILE, norm_probs=True)
    known = set(identifier.nb_classes)
    identifier.set_languages([code for code in ("en", *_CLOSELY_READ) if code in known])
    return identifier
