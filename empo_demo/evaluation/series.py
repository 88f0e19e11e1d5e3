"""A series has one value per row of a file of predictions, in order; None where there is none.

Means and deviations are over the known values, and None if there are too few.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from empo_demo.metrics.valence import Vad

Series = list[float | None]
_One = TypeVar("_One")
_Other = TypeVar("_Other")


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def means(columns: Mapping[str, Series]) -> dict[str, float | None]:
    return {key: mean(values) for key, values in columns.items()}


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation with ddof 1, as in the paper; None for fewer than two values."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def absolute(values: Iterable[float | None]) -> Series:
    return [None if value is None else abs(value) for value in values]


def columns(vads: Sequence[Vad]) -> dict[str, Series]:
    """Valence, arousal and dominance, each as a series."""
    return {"v": [x.v for x in vads], "a": [x.a for x in vads], "d": [x.d for x in vads]}


def paired(
    score: Callable[[_One, _Other], float],
    one: Iterable[_One | None],
    other: Iterable[_Other | None],
) -> Series:
    """`score` of each pair; None where one of the two is missing."""
    return [
        None if a is None or b is None else score(a, b) for a, b in zip(one, other, strict=True)
    ]
