"""The compact guidance that the embedded tiny model was trained with, in one place.

Training writes it, HEF writes it, nothing else may: a tiny model knows exactly these two forms.
"""

from __future__ import annotations

from collections.abc import Sequence


def compact_guidance(emotion: str, words: Sequence[str] = ()) -> str:
    """The system message: `The user feels EMOTION.`, or with up to three cause words."""
    if not words:
        return f"The user feels {emotion}."
    return f"The user feels {emotion} because of: {', '.join(words[:3])}."
