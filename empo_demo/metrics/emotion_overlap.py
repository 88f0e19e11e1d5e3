"""Whether a reply has the emotion of the turn that it answers, by the SEM's reading of both.

This measure is our own, not the paper's. The SEM gives each text a distribution over the 32
emotions of EmpatheticDialogues. Two texts match as far as their distributions overlap.
"""

from __future__ import annotations

from collections.abc import Mapping


def overlap(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Σ min(p, q) = 1 - total variation distance; 1 for equal distributions, 0 for disjoint."""
    return sum(min(p, other.get(label, 0.0)) for label, p in one.items())


def top(distribution: Mapping[str, float]) -> str:
    """The most probable label; of several equal ones the first in the alphabet."""
    return min(distribution, key=lambda label: (-distribution[label], label))
