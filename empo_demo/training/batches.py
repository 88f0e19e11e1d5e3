"""The order in which a training sees its examples: batches of like length, fixed in advance.

Padding is wasted work, so the examples of a batch are of like length. The order depends only on
the seed and not on the state of a random generator: what was killed goes on with the next batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

WITHIN = 16
"""Batches among whose examples those of like length are put together."""


def in_batches(
    lengths: Sequence[int], batch: int, *, wanted: int | None = None, seed: int = 0
) -> list[int]:
    """Positions of the examples, in the order of training: `batch` at a time.

    All examples come once, or `wanted` of them, after as many whole passes as that takes. Only the
    last batch may be smaller.
    """
    rng = random.Random(f"batches {seed}")
    left = len(lengths) if wanted is None else wanted
    order: list[int] = []
    while left > len(order) and lengths:
        passage = list(range(len(lengths)))
        rng.shuffle(passage)
        order += passage[: left - len(order)]
    batches: list[list[int]] = []
    for start in range(0, len(order), batch * WITHIN):
        alike = sorted(order[start : start + batch * WITHIN], key=lengths.__getitem__)
        parts = [alike[at : at + batch] for at in range(0, len(alike), batch)]
        last = [parts.pop()] if len(parts[-1]) < batch else []
        rng.shuffle(parts)
        batches += [*parts, *last]
    return [position for one in batches for position in one]
