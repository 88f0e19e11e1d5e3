"""Spearman's correlation: as scipy's, within groups, with a number held, and by cluster."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from empo_demo.metrics.rank_correlation import Frame, spearman


def test_it_is_scipys_with_ties() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 4, 60), draw.integers(0, 6, 60)
    found = spearman(x.tolist(), y.tolist(), Frame(range(60)))
    expected = stats.spearmanr(x, y)
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.05)
    assert found.interval is not None and found.interval[0] < found.rho < found.interval[1]


def test_a_relation_between_groups_is_none_within_them() -> None:
    """Systems that write more and are liked more: length does not go with liking inside one."""
    draw = np.random.default_rng(1)
    group = np.repeat(np.arange(4), 50)
    x, y = 10 * group + draw.normal(size=200), 10 * group + draw.normal(size=200)
    assert (spearman(x, y, Frame(range(200))).rho or 0) > 0.9  # type: ignore[arg-type]
    within = spearman(x, y, Frame(range(200), groups=group.tolist()))  # type: ignore[arg-type]
    assert within.rho == pytest.approx(0, abs=0.2)
    assert within.interval is not None and within.interval[0] < 0 < within.interval[1]


def test_a_relation_by_a_third_number_is_gone_when_it_is_held() -> None:
    draw = np.random.default_rng(2)
    length = draw.normal(size=400)
    x, y = (length + draw.normal(size=400) for _ in range(2))
    plain = spearman(x.tolist(), y.tolist(), Frame(range(400)))
    held = spearman(x.tolist(), y.tolist(), Frame(range(400), held=length.tolist()))
    assert (plain.rho or 0) > 0.4 and abs(held.rho or 0) < 0.1
    ranks = [stats.rankdata(one) for one in (x, y, length)]
    r = np.corrcoef(ranks)
    partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert held.rho == pytest.approx(partial)


def test_the_held_number_itself_has_no_correlation_left() -> None:
    x = [3.0, 1.0, 2.0, 5.0, 4.0]
    assert spearman(x, [1.0, 2.0, 3.0, 4.0, 5.0], Frame(range(5), held=x)).rho is None


def test_a_column_that_does_not_vary_has_none() -> None:
    found = spearman([1.0] * 9, [float(i) for i in range(9)], Frame(range(9)))
    assert (found.n, found.rho, found.interval, found.p) == (9, None, None, None)


def test_rows_of_one_dialogue_widen_the_interval() -> None:
    draw = np.random.default_rng(3)
    x = np.repeat(draw.normal(size=20), 10)
    y = x + np.repeat(draw.normal(size=20), 10)
    alone = spearman(x.tolist(), y.tolist(), Frame(range(200)))
    together = spearman(x.tolist(), y.tolist(), Frame(np.repeat(range(20), 10).tolist()))
    assert alone.rho == together.rho
    widths = [b - a for a, b in (alone.interval or (0, 0), together.interval or (0, 0))]
    assert widths[1] > 2 * widths[0]
