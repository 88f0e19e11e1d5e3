"""Which slot of the KV cache each row of a batch gets when rows join or leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from empo_demo.engine.row import Row

Move = tuple[int, int, int]
"""Copy a row from slot to slot: (source, target, positions)."""


def regroup(
    before: Sequence[Row], staying: Sequence[Row], new: Sequence[Row]
) -> tuple[list[Row], list[Move]]:
    """The rows in the order of their slots, sorted by adapter, and the moves in the cache.

    `before` are the rows by slot until now. As few rows move as possible. When rows join, the
    groups of adapters are placed from the last to the first; when rows leave, from the first to
    the last. So no row is moved to a slot that another row still needs.
    """
    slot = {row: i for i, row in enumerate(before)}
    names = sorted({row.adapter or "" for row in [*staying, *new]})
    placed: list[Row | None] = [None] * (len(staying) + len(new))
    moves: list[Move] = []
    bounds, low = {}, 0
    for name in names:
        size = sum((row.adapter or "") == name for row in [*staying, *new])
        bounds[name], low = (low, low + size), low + size
    for name in reversed(names) if new else names:
        low, high = bounds[name]
        mine = [row for row in staying if (row.adapter or "") == name]
        for row in mine:
            if low <= slot[row] < high:
                placed[slot[row]] = row
        free = iter([i for i in range(low, high) if placed[i] is None])
        for row in mine:
            if not low <= slot[row] < high:
                target = next(free)
                placed[target] = row
                moves.append((slot[row], target, row.length))
        # Attention reads neighbouring rows of like length in one call.
        for row in sorted(new, key=lambda row: len(row.prompt)):
            if (row.adapter or "") == name:
                placed[next(free)] = row
    return cast("list[Row]", placed), moves
