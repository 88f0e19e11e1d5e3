"""The words of a text with their positions, and which of them have no content."""

from __future__ import annotations

import re

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
