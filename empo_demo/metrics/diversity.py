"""Distinct-n of Li et al. 2016 (arXiv 1510.03055): the share of n-grams that are different.

Words are lower-cased and split at white space. N-grams never cross a response. The corpus value
falls with the size of the corpus, so systems are compared at an equal number of words.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from empo_demo.metrics.tokens import words

ORDERS = (1, 2, 3)
SHUFFLES = 10
"""`distinct_at` averages over this many seeded orders of the responses."""


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Corpus distinct-n: different n-grams / all n-grams, in (0, 1]; None without any n-gram."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = ngrams(words(text), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def share_new(text: str, before: Sequence[str]) -> float | None:
    """The share of the words of `text` that nobody has said yet, in [0, 1]; None without a word.

    A word is new if it is neither in the texts `before` nor earlier in `text`.
    """
    said = {word for earlier in before for word in words(earlier)}
    own = words(text)
    return len(set(own) - said) / len(own) if own else None


def distinct_each(texts: Sequence[str], n: int) -> list[float | None]:
    """Distinct-n of each response by itself; None if it has fewer than n words."""
    return [distinct([text], n) for text in texts]


def distinct_per_response(texts: Sequence[str], n: int) -> float | None:
    """Mean of `distinct_each` over the responses with at least n words; None without any."""
    values = [value for value in distinct_each(texts, n) if value is not None]
    return sum(values) / len(values) if values else None


def distinct_at(texts: Sequence[str], n: int, budget: int, seed: int = 0) -> float | None:
    """Corpus distinct-n of the first `budget` words, averaged over seeded orders of `texts`.

    The last response is cut at the end of the budget. The texts are sorted before they are
    shuffled, so their order does not matter. With a budget of all words this equals `distinct`.
    """
    ordered = sorted(texts)
    if budget >= count_words(ordered):
        return distinct(ordered, n)
    draw = random.Random(seed)
    values = []
    for _ in range(SHUFFLES):
        draw.shuffle(ordered)
        value = distinct(_first_words(ordered, budget), n)
        if value is not None:
            values.append(value)
    return sum(values) / len(values) if values else None


def equal_budget(systems: Sequence[Sequence[str]]) -> int:
    """The largest number of words that every system has."""
    return min((count_words(texts) for texts in systems), default=0)


def count_words(texts: Sequence[str]) -> int:
    return sum(len(words(text)) for text in texts)


def mean_words(texts: Sequence[str]) -> float | None:
    """Mean number of words of a response; an empty one counts 0. None without responses."""
    return count_words(texts) / len(texts) if texts else None


def ngrams(items: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n neighbouring items, in order; n must be at least 1."""
    if n < 1:
        raise ValueError("an n-gram has at least one item")
    return list(zip(*(items[start:] for start in range(n)), strict=False))


def _first_words(texts: Sequence[str], budget: int) -> list[str]:
    parts = []
    for text in texts:
        if budget <= 0:
            break
        part = words(text)[:budget]
        parts.append(" ".join(part))
        budget -= len(part)
    return parts
