"""How good a text feels: valence and arousal, and how much each word moves the valence.

The embedded SEM computes this in the forward pass that reads the emotions. For a plugin that does
not, VADER's rules compute the valence, and `Feeling.source` says so. Words have positions, and some
have no content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from empo_demo.fields import Name, Number, Place, Signed, Text, checked
from empo_demo.metrics.valence import load_lexicon, text_valence

VISIBLE = 0.02
"""A word that moves the valence by less than this is not shown."""


TOLD = (-0.09, 0.32, 0.30, 3.48)
TOLD_SPREAD = 0.53
"""How it makes one feel to be told a reply: base, and weights of the reply's valence, of the
valence of what it answers, and of their product. Fitted to 300 listener turns (of people and of two
models) that somebody else labelled blind, by `python -m recipes.sem told`; its report has the
figures. In two of three turns the label lies within the spread."""
MOST_LEFT_OUT = 64
"""To explain a valence, the text is read again without each of so many of its first words."""
KEYS = ("valence", "valence_spread", "arousal", "valence_source", "valence_words")
"""The keys of a feeling where it is stored, among those of its reading."""
_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_STOP_WORDS = """
    a about above after again all also always am an and any anyone anything are aren't as at be
    because been before being below between both but by can can't cannot could couldn't did didn't
    do does doesn't doing don't down during each else even ever every few for from further get gets
    getting go goes going gonna got gotten had hadn't has hasn't have haven't having he he'd he'll
    he's her here hers herself him himself his how i i'd i'll i'm i've if in into is isn't it it's
    its itself just kind lot lots made make makes making many may maybe me might more most much must
    my myself never no nor not now of off oh ok okay on once one only or other our ours out over own
    really s same she she'd she'll she's should shouldn't so some someone something still such sure
    t than that that's the their theirs them then there there's these they they'd they'll they're
    they've thing things this those though through to too u under until up upon us very was wasn't
    we we'd we'll we're we've well were weren't what when where which while who whom why will with
    won't would wouldn't yeah yes yet you you'd you'll you're you've your yours yourself im ive dont
    didnt cant wasnt thats its id
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_NEGATIONS = frozenset({"no", "nor", "not", "never", "cannot", "cant", "dont", "didnt", "wasnt"})


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


def told(reply: Feeling, person: Feeling) -> Feeling:
    """How it makes one feel to be told `reply` after words that feel like `person`.

    A reply is not a diary: care speaks of what is bad, so the SEM reads it as gloom. What counts is
    rather whether the reply's mood meets the person's. A word list's valence stays as it is.
    """
    if reply.source != "sem" or person.source != "sem":
        return reply
    base, own, others, both = TOLD
    slope = own + both * person.valence
    felt = base + others * person.valence + slope * reply.valence
    words = tuple(replace(word, by=slope * word.by) for word in reply.words)
    return Feeling(min(1.0, max(-1.0, felt)), TOLD_SPREAD, None, "sem", words)


def lexicon_feeling(text: str) -> Feeling:
    """The feeling of `text` by VADER's rules. A word's push is the change without that word."""

    lexicon = load_lexicon()
    whole = text_valence(text, lexicon)
    words = tuple(
        Push(start, end, text[start:end], whole - text_valence(text[:start] + text[end:], lexicon))
        for start, end in spans(text)[:MOST_LEFT_OUT]
    )
    return Feeling(whole, None, None, "vader", words)


def spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word of `text`, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def is_content(word: str) -> bool:
    """Whether `word` has content: it has a letter or digit and is not a stop word."""
    plain = word.lower().replace("’", "'")
    return any(c.isalnum() for c in plain) and plain not in STOP_WORDS


def tells(word: str) -> bool:
    """Whether `word` says how something is: it has content, or denies."""
    plain = word.lower().replace("’", "'")
    return is_content(word) or plain in _NEGATIONS or plain.endswith("n't")
