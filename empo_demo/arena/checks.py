"""Attention checks: replies of our own that are plainly wrong for a given emotion.

The bad reply fits the *opposite* of the emotion that the SEM reads, like a reply from a dialogue
with the opposite emotion. Exports never contain such rounds as preferences.
"""

from __future__ import annotations

import random

from empo_demo.empathy.emotions import GROUP_OF

STRATEGY = "check"

_GLAD = (
    "Congratulations! That is the best news I have heard all day. You must be over the moon!",
    "How wonderful! I am so happy for you. Are you going to celebrate with a big party?",
    "That sounds like so much fun! I wish I could have been there to enjoy it with you.",
    "What a lucky day! Everything worked out perfectly for you, and you earned every bit of it.",
)
_SAD = (
    "I am so sorry for your loss. It must hurt terribly to go through something like that.",
    "That is awful. I would be furious too if somebody had treated me in that way.",
    "Oh no, how frightening. I hope that you are safe now and that nobody was hurt.",
    "What a pity that it went so badly. Nobody should have to live through such a thing.",
)
_BAD_FOR = {True: _SAD, False: _GLAD}
_PLEASANT_GROUPS = frozenset({"joy", "trust", "anticipation", "surprise"})


def draw(emotion: str, seed: int) -> str:
    """The name of a reply that is known to be bad for `emotion`."""
    pleasant = GROUP_OF[emotion] in _PLEASANT_GROUPS
    number = random.Random(f"check {seed}").randrange(len(_BAD_FOR[pleasant]))
    return f"{'pleasant' if pleasant else 'unpleasant'}/{number}"


def text_of(name: str) -> str:
    """The known bad reply with a name that `draw` returned."""
    kind, _, number = name.partition("/")
    return _BAD_FOR[kind == "pleasant"][int(number)]
