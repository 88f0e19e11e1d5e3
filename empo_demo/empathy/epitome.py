"""EPITOME: how a response communicates empathy, on three mechanisms at levels 0 to 2.

The mechanisms are emotional reactions (warmth), explorations (asking) and interpretations
(understanding), each none, weak or strong (Sharma et al. 2020, arXiv 2009.08441). Texts are
lower-cased. The last 48 tokens of the context and the first 128 of the response are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Level:
    """The most probable level, and the probabilities of 0, 1 and 2."""

    level: int
    probabilities: tuple[float, float, float]

    @classmethod
    def of(cls, row: Sequence[float]) -> Level:
        zero, one, two = row
        return cls(max(range(3), key=lambda i: row[i]), (zero, one, two))

    def as_json(self) -> dict[str, Any]:
        return {"level": self.level, "probabilities": list(self.probabilities)}


@dataclass(frozen=True, slots=True)
class Epitome:
    """The three mechanisms of one response."""

    er: Level
    ex: Level
    ip: Level

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Epitome:
        """From (3, 3) probabilities in the order ER, EX, IP."""
        er, ex, ip = rows
        return cls(Level.of(er), Level.of(ex), Level.of(ip))

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).as_json() for name in ("er", "ex", "ip")}
