"""Tests, intervals and corrections agree with scipy's; nothing is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from empo_demo.metrics import statistics

VALUES = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=12)


@pytest.mark.parametrize("n", [5, 9])
def test_a_small_permutation_test_is_exact_as_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(0.4, 1, n)
    expected = stats.permutation_test(
        (values,), lambda x: x.mean(), permutation_type="samples", n_resamples=np.inf
    )
    assert statistics.sign_flip_p(values.tolist()) == pytest.approx(expected.pvalue)


def test_a_large_permutation_test_is_near_scipys() -> None:
    values = np.random.default_rng(1).normal(0.12, 1, 200)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert statistics.sign_flip_p(values.tolist()) == pytest.approx(expected, abs=0.015)


def test_equal_systems_are_not_different() -> None:
    result = statistics.compare([1.0, 2.0] * 20, [1.0, 2.0] * 20)
    assert (result.p, result.difference, result.effect_size) == (1.0, 0.0, 0.0)
    assert result.interval == (0.0, 0.0)


def test_the_difference_is_the_second_minus_the_first() -> None:
    result = statistics.compare([0.0] * 50, [1.0, 2.0] * 25)
    assert result.difference == 1.5
    assert result.interval[0] > 1
    assert result.p < 0.001


def test_the_bootstrap_interval_is_near_the_normal_one_and_reproducible() -> None:
    values = np.random.default_rng(2).normal(3, 2, 400).tolist()
    low, high = statistics.bootstrap_interval(values)
    error = 1.96 * np.std(values, ddof=1) / 20
    assert low == pytest.approx(np.mean(values) - error, abs=0.03)
    assert high == pytest.approx(np.mean(values) + error, abs=0.03)
    assert statistics.bootstrap_interval(values) == (low, high)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        sample = draw.normal(1, 1, 60).tolist()
        low, high = statistics.bootstrap_interval(sample, resamples=400, seed=trial)
        hits += low <= 1 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_the_test_rejects_a_true_null_as_often_as_it_says() -> None:
    draw = np.random.default_rng(4)
    p = [statistics.sign_flip_p(draw.normal(0, 1, 30).tolist(), resamples=400) for _ in range(300)]
    assert 0.02 <= np.mean([value < 0.05 for value in p]) <= 0.09


def test_an_effect_without_spread_is_undefined_not_infinite() -> None:
    assert statistics.cohens_dz([1.0, 1.0]) is None
    assert statistics.cohens_dz([1.0]) is None
    assert statistics.cohens_dz([0.0, 0.0]) == 0.0
    assert statistics.cohens_dz([1.0, 3.0]) == pytest.approx(2 / math.sqrt(2))


@given(VALUES)
def test_nothing_is_ever_nan(values: list[float]) -> None:
    result = statistics.compare(values, [0.0] * len(values), resamples=50)
    numbers = [result.mean_a, result.mean_b, result.difference, *result.interval, result.p]
    assert all(math.isfinite(number) for number in numbers)
    assert 0 < result.p <= 1


def test_holm_multiplies_stepwise_and_keeps_the_order() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_the_interval_of_any_statistic_is_that_of_the_mean_for_the_mean() -> None:
    values = np.random.default_rng(3).normal(2, 1, 60)
    groups = [i % 15 for i in range(60)]
    for grouped in (groups, None):
        mean = statistics.bootstrap_interval(values.tolist(), groups=grouped, resamples=700)
        found = statistics.interval_of(
            lambda rows: float(values[rows].mean()), grouped or range(60), resamples=700
        )
        assert found == pytest.approx(mean)


def test_whole_groups_are_drawn_as_values_of_one_person_are_alike() -> None:
    values = [float(i // 10 % 2) for i in range(200)]
    people = [i // 10 for i in range(200)]
    wide = statistics.bootstrap_interval(values, groups=people)
    narrow = statistics.bootstrap_interval(values)
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


def test_turns_of_one_dialogue_are_compared_as_one() -> None:
    """Twenty dialogues of ten equal turns are twenty observations, and not two hundred."""
    first = [0.0] * 200
    second = [float(number // 10 % 5 != 0) - 0.5 for number in range(200)]
    rows = statistics.compare(first, second)
    dialogues = statistics.compare(first, second, groups=[number // 10 for number in range(200)])
    assert dialogues.difference == rows.difference and dialogues.n == rows.n
    low, high = dialogues.interval
    assert high - low > 2.5 * (rows.interval[1] - rows.interval[0])
    assert rows.p < 0.001 < dialogues.p
    one = statistics.compare(first[::10], second[::10])
    assert dialogues.p == pytest.approx(one.p, abs=0.01)


def test_draws_without_a_value_are_left_out() -> None:
    def share(rows: np.ndarray) -> float | None:
        return None if 0 in rows else 1.0

    assert statistics.interval_of(share, range(9), resamples=200) == (1.0, 1.0)
    assert statistics.interval_of(lambda _: None, range(9), resamples=20) is None
