"""Two-way clustered intervals: right in known cases, and as wide as the data are dependent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from empo_demo.metrics.statistics import Scores, difference, mean


def crossed(seed: int, raters: int, items: int, rater_sd: float, item_sd: float) -> Scores:
    """Every rater rates every item; the true mean is 0."""
    draw = np.random.default_rng(seed)
    by_rater, by_item = draw.normal(0, rater_sd, raters), draw.normal(0, item_sd, items)
    cells = [(r, i) for r in range(raters) for i in range(items)]
    values = [by_rater[r] + by_item[i] + draw.normal() for r, i in cells]
    return Scores(values, [r for r, _ in cells], [i for _, i in cells])


def test_rows_of_their_own_rater_and_item_give_students_interval() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    found = mean(Scores(values.tolist(), list(range(40)), list(range(40))))
    expected = stats.ttest_1samp(values, 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("rater_sd", "item_sd"), [(0.7, 0.0), (0.0, 0.7), (0.6, 0.6)])
def test_the_interval_holds_the_truth_about_95_times_in_100(
    rater_sd: float, item_sd: float
) -> None:
    held = 0
    for seed in range(300):
        low, high = mean(crossed(seed, 20, 25, rater_sd, item_sd)).interval or (0.0, 0.0)
        held += low <= 0 <= high
    assert 0.91 <= held / 300 <= 0.985


def test_raters_who_saw_both_systems_make_the_difference_surer() -> None:
    """A rater's own level falls out of a difference if the rater judged both systems."""
    scores = crossed(3, 30, 30, 2.0, 0.0)
    other = Scores([v + 1 for v in scores.values], scores.raters, scores.items)
    strangers = Scores(other.values, [f"new {r}" for r in other.raters], other.items)
    same, apart = difference(scores, other), difference(scores, strangers)
    assert same.value == apart.value == pytest.approx(-1.0)
    assert same.interval == pytest.approx((-1.0, -1.0)) and apart.interval is not None
    assert apart.interval[1] - apart.interval[0] > 1.5


def test_one_rater_or_one_item_gives_no_interval() -> None:
    assert mean(Scores([1.0, 2.0], ["r", "r"], [1, 2])).interval is None
    assert mean(Scores([1.0, 2.0], ["r", "s"], [1, 1])).interval is None
