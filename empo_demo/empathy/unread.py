"""Whether anything can be read in what a person wrote, and if not, why.

Where nothing can, the whole reading abstains, so that no valence, no word and no comparison stands
beside a chip that says "not read".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from empo_demo.empathy.feeling import spans
from empo_demo.empathy.language import is_english

if TYPE_CHECKING:
    from empo_demo.dialogue import Turn

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
