"""Whether a text is English, and whether anything can be read in it; if not, why.

Short and unclear texts count as English. Common words and the script decide most texts at once.
`py3langid` decides the rest; its model is in its package. Loading it takes 0.6 s, when the first
unclear text comes.

Where nothing can be read, the whole reading abstains, so that no valence, no word and no comparison
stands beside a chip that says "not read".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from empo_demo.empathy.feeling import spans

if TYPE_CHECKING:
    from empo_demo.dialogue import Turn

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


Why = Literal["language", "word", "letters", "little", "other"]
REASONS: dict[Why, str] = {
    "language": "not English, so not read",
    "word": "too little to tell the emotion by",
    "letters": "no words that can be read",
    "little": "too little to tell the emotion by",
    "other": "none of the emotions that it knows",
}
"""Why nothing was read: another language; a single word; letters that make no words; half of all
labels are likely; something that none of the 32 labels says (boredom, a plain fact, a question)."""
LEAST_WORDS = 2


def why_unread(turns: Sequence[Turn]) -> Why | None:
    """Why the last user turn of `turns` cannot be read, as far as its text alone tells."""
    said = [turn.content for turn in turns if turn.role == "user"]
    if not said or not is_english(said[-1]):
        return "language" if said else "word"
    if sum(len(spans(text)) for text in said) < LEAST_WORDS:
        return "word"
    return None
