"""Figures with their 95 % intervals, drawn over whole groups of texts that are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
BLOCK = 400
"""So many neighbouring tasks of EmpatheticDialogues are drawn together: see `blocks`."""
Figure = dict[str, Any]


def blocks(conversations: Sequence[str]) -> list[str]:
    """A group for each conversation of EmpatheticDialogues: its block of neighbouring tasks.

    A writer did many tasks in a row and reads alike in all of them; the data does not name the
    writers, but the tasks (`hit:N_conv:M`) are numbered in the order in which they were done.
    """
    found = []
    for conversation in conversations:
        task = conversation.split("_")[0].removeprefix("hit:")
        found.append(str(int(task) // BLOCK) if task.isdigit() else conversation)
    return found


def widened(value: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Where another sample of the same size would fall: both samples vary, so times √2."""
    low, high = bounds
    return value - 2**0.5 * (value - low), value + 2**0.5 * (high - value)


def interval(groups: Sequence[str], statistic: Callable[..., float]) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(indices)`, drawing whole groups; seeded."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    clusters = [np.array(indices) for indices in members.values()]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(clusters), len(clusters))
        values.append(statistic(np.concatenate([clusters[i] for i in drawn])))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


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
