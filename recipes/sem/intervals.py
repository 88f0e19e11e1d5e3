"""Figures with their 95 % intervals, drawn over whole groups of texts that are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from empo_demo.metrics.statistics import interval_of
from recipes.sem.folds import block

RESAMPLES = 1000
Figure = dict[str, Any]


def blocks(conversations: Sequence[str]) -> list[str]:
    """A group for each conversation of EmpatheticDialogues: its block of neighbouring tasks."""
    return [block(conversation) for conversation in conversations]


def widened(value: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval for a second sample of the same size: √2 times as wide, as both samples vary."""
    low, high = bounds
    return value - 2**0.5 * (value - low), value + 2**0.5 * (high - value)


def interval(groups: Sequence[str], statistic: Callable[..., float]) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(indices)`, drawing whole groups; seeded."""
    bounds = interval_of(statistic, groups, resamples=RESAMPLES)
    assert bounds is not None, "the statistic of every draw is a number"
    return bounds


def figure(
    name: str,
    value: float,
    n: int,
    low: float,
    high: float,
    *,
    baseline: float | None,
    ceiling: float | None,
    target: tuple[float, float] | None = None,
    lower: bool = False,
) -> Figure:
    """One line of the report; `target` is (needed, aimed at), `lower` where less is better."""
    reached = None
    if target is not None:
        reached = bool(value <= target[0] if lower else value >= target[0])
    return {
        "name": name,
        "value": round(float(value), 4),
        "n": n,
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "baseline": None if baseline is None else round(baseline, 4),
        "ceiling": None if ceiling is None else round(ceiling, 4),
        "needed": None if target is None else target[0],
        "aim": None if target is None else target[1],
        "reached": reached,
    }
