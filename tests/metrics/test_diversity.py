"""Distinct-n agrees with an independent count, and keeps its bounds whatever the texts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.metrics.lexical import (
    ORDERS,
    count_words,
    distinct,
    distinct_at,
    distinct_each,
    distinct_per_response,
    equal_budget,
    mean_words,
    ngrams,
)

WORD = st.sampled_from(["a", "b", "c", "D", "d", "e"])
TEXTS = st.lists(st.lists(WORD, max_size=8).map(" ".join))


def counted(texts: list[str], n: int) -> float | None:
    """Distinct-n written another way: with a counter over string slices, text by text."""
    counter: Counter[str] = Counter()
    for text in texts:
        tokens = text.lower().split()
        for start in range(len(tokens) - n + 1):
            counter["\0".join(tokens[start : start + n])] += 1
    return len(counter) / counter.total() if counter else None


@given(TEXTS, st.sampled_from(ORDERS))
def test_distinct_agrees_with_an_independent_count(texts: list[str], n: int) -> None:
    assert distinct(texts, n) == counted(texts, n)


@given(TEXTS, st.sampled_from(ORDERS), st.randoms())
def test_distinct_is_bounded_and_blind_to_order(
    texts: list[str], n: int, draw: random.Random
) -> None:
    shuffled = texts[:]
    draw.shuffle(shuffled)
    for measure in (distinct, distinct_per_response):
        value = measure(texts, n)
        assert value is None or 0 < value <= 1
        assert measure(shuffled, n) == pytest.approx(value)


@given(TEXTS, st.sampled_from(ORDERS), st.integers(1, 30), st.randoms())
def test_the_equal_budget_value_is_bounded_and_blind_to_order(
    texts: list[str], n: int, budget: int, draw: random.Random
) -> None:
    value = distinct_at(texts, n, budget)
    shuffled = texts[:]
    draw.shuffle(shuffled)
    assert value is None or 0 < value <= 1
    assert distinct_at(shuffled, n, budget) == value


def test_ngrams_never_cross_a_response() -> None:
    assert distinct(["a b", "b a"], 2) == 1.0
    assert distinct(["a b", "a b"], 2) == 0.5
    assert distinct(["a", "b"], 2) is None


def test_an_empty_reply_adds_nothing_but_counts_as_a_response() -> None:
    assert distinct(["", "a a"], 1) == 0.5
    assert distinct_each(["", "a a"], 1) == [None, 0.5]
    assert mean_words(["", "a a"]) == 1.0
    assert distinct([""], 1) is None
    assert mean_words([]) is None


def test_short_responses_are_left_out_of_the_mean_per_response() -> None:
    assert distinct_per_response(["a", "a a a"], 2) == 0.5


def test_at_its_own_size_the_budget_value_is_the_corpus_value() -> None:
    texts = ["a b c a", "b c", "a a"]
    for n in ORDERS:
        assert distinct_at(texts, n, count_words(texts)) == distinct(texts, n)


def test_an_equal_budget_takes_the_advantage_of_a_small_corpus_away() -> None:
    draw = random.Random(1)
    vocabulary = [str(word) for word in range(50)]
    large = [" ".join(draw.choices(vocabulary, k=10)) for _ in range(100)]
    small = large[:10]
    budget = equal_budget([large, small])
    assert budget == 100
    unequal = distinct(small, 1) - distinct(large, 1)  # type: ignore[operator]
    equal = distinct_at(small, 1, budget) - distinct_at(large, 1, budget)  # type: ignore[operator]
    assert unequal > 0.3
    assert abs(equal) < 0.1


def test_an_ngram_needs_at_least_one_item() -> None:
    with pytest.raises(ValueError):
        ngrams(["a"], 0)
