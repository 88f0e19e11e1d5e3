"""Cause words: from the values of the tokenizer's pieces to the words that are marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from empo_demo.empathy.reading import Cause
from empo_demo.empathy.words import is_content, spans

if TYPE_CHECKING:
    from empo_demo.empathy.encoder import Text

MARKED = 0.5
"""A word is marked if a person would mark it with at least this probability."""
SHORT = 25
"""A turn of at most this many words counts as short."""


def by_word(
    text: str,
    turn: int,
    tokens: Text,
    values: Sequence[float],
    join: Callable[[Sequence[float]], float] = max,
) -> list[tuple[int, int, float]]:
    """(start, end, value) of each word of turn `turn`; `join` combines its pieces' values."""
    words = spans(text)
    pieces: list[list[float]] = [[] for _ in words]
    position = 0
    for (start, end), segment, value in zip(tokens.offsets, tokens.segments, values, strict=True):
        if segment != turn:
            continue
        while position < len(words) and words[position][1] <= start:
            position += 1
        if position < len(words) and words[position][0] < end:
            pieces[position].append(value)
    joined = [float(join(own)) if own else 0.0 for own in pieces]
    return [(start, end, value) for (start, end), value in zip(words, joined, strict=True)]


def per_token(tokens: Sequence[str], text: Text, weights: Sequence[float]) -> list[float]:
    """The highest weight of each token's pieces; 0 for tokens beyond the longest input.

    The weight of a function word is cut to 1 %, so it is a cause only if no other word is.
    """
    found = [0.0] * len(tokens)
    for segment, weight in zip(text.segments, weights, strict=True):
        if segment:
            share = 1.0 if is_content(tokens[segment - 1]) else 0.01
            found[segment - 1] = max(found[segment - 1], share * weight)
    return found


def choose(text: str, words: Sequence[tuple[int, int, float]]) -> tuple[Cause, ...]:
    """The content words that a person would mark, in text order; at least the most probable one."""
    content = [word for word in words if is_content(text[word[0] : word[1]])]
    best = sorted(content, key=lambda word: -word[2])[: most_marks(len(words))]
    marks = [word for word in best if word[2] >= MARKED] or best[:1]
    return tuple(Cause(s, e, text[s:e], weight) for s, e, weight in sorted(marks))


def most_marks(words: int) -> int:
    """The most words to mark in a turn of `words` words: 3, or 5 in a long one."""
    return 3 if words <= SHORT else 5
