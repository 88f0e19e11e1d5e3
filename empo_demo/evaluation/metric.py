"""What a metric is: how it measures a file of predictions, and how tables and votes read it.

The metrics themselves are in `measure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from empo_demo.engine.predictions import Predictions
from empo_demo.evaluation.series import Series
from empo_demo.evaluation.tools import Tools


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
class VoteScore:
    """How a metric judges a single reply: `score(user's turn, reply, tools)`; more is better.

    `key` is its name in the agreement with votes, `better` what it counts as better.
    """

    key: str
    better: str
    score: Callable[[str, str, Tools], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """All that is known of a metric; tables, report, comparison and votes read it here.

    `lower` are the series whose smaller values are better.
    """

    measure: Callable[[Predictions, Tools], Part]
    lines: tuple[Line, ...] = ()
    lower: tuple[str, ...] = ()
    votes: tuple[VoteScore, ...] = ()
