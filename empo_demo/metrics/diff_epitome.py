"""diff-EPITOME: how far a response's empathy levels are from the human's (Lee et al. 2022).

Levels are 0 (none), 1 (weak), 2 (strong) for EPITOME's three mechanisms (Sharma et al. 2020,
arXiv 2009.08441). A response without any empathy scores better than every published system. So the
constant zero, the mean levels and the accuracy must be shown with the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

MECHANISMS = ("er", "ex", "ip")
"""Emotional reactions, explorations, interpretations."""
LEVELS = (0, 1, 2)


def squared_differences(generated: Sequence[int], reference: Sequence[int]) -> list[float]:
    """(generated level - reference level)² per response: 0, 1 or 4."""
    return [float((g - r) ** 2) for g, r in zip(generated, reference, strict=True)]


def diff_epitome(generated: Sequence[int], reference: Sequence[int]) -> float | None:
    """Mean of the squared differences, 0 to 4, lower is better; None without responses."""
    return _mean(squared_differences(generated, reference))


def constant_zero(reference: Sequence[int]) -> float | None:
    """diff-EPITOME of a system that never shows empathy."""
    return diff_epitome([0] * len(reference), reference)


def mean_level(levels: Sequence[int]) -> float | None:
    """Mean level, 0 to 2; None without responses."""
    return _mean([float(level) for level in levels])


def accuracy(generated: Sequence[int], reference: Sequence[int]) -> float | None:
    """Share of responses with exactly the reference's level; None without responses."""
    return _mean([float(g == r) for g, r in zip(generated, reference, strict=True)])


def kappa(generated: Sequence[int], reference: Sequence[int]) -> float | None:
    """Agreement beyond chance: Cohen's kappa with quadratic weights (Cohen 1968), at most 1.

    It is 1 - diff-EPITOME / (its expectation if the same levels were on other responses). A
    system that always shows the same level has 0. None if neither side ever varies.
    """
    observed = diff_epitome(generated, reference)
    if observed is None:
        return None
    n = len(reference)
    expected = sum(
        generated.count(g) * reference.count(r) * (g - r) ** 2 for g in LEVELS for r in LEVELS
    ) / (n * n)
    return 1 - observed / expected if expected else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
