"""What a metric is: how it measures a file of predictions, and how tables and votes read it.

The metrics themselves are in `measure`. A series has one value per row of a file, in order; None
where there is none. Means and deviations are over the known values.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from empo_demo.engine.predictions import Predictions
from empo_demo.evaluation.tools import Tools
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


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one metric: keys of the system's JSON object, and series by name."""

    figures: dict[str, Any]
    series: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the tables: its label, the path of its figure in the JSON, and its decimals.

    `series` is the series whose interval stands beside the figure.
    """

    label: str
    path: tuple[str, ...]
    decimals: int
    series: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """All that is known of a metric; tables, report, comparisons and predictors read it here.

    `lower` are the series whose smaller values are better.
    """

    measure: Callable[[Predictions, Tools], Part]
    lines: tuple[Line, ...] = ()
    lower: tuple[str, ...] = ()
