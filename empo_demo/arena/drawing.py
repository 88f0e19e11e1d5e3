"""Who answers a round, on which side, with which seeds: all from one logged seed.

A tie's way on is drawn here too, before anyone has voted.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from empo_demo.arena.rounds import Exposure
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.settings import Exposure as ExposureSetting
from empo_demo.votes.models import Side


@dataclass(frozen=True, slots=True)
class Draw:
    """One round's draws. `seed` reproduces all the others."""

    seed: int
    contenders: dict[Side, Contender]
    seeds: dict[Side, int]
    show: Exposure
    check_side: Side | None
    on_tie: Side


def draw_round(
    roster: Roster,
    counts: Mapping[str, int],
    *,
    seed: int,
    exposure: ExposureSetting,
    check_rate: float = 0.0,
) -> Draw:
    """Draw a round; the same arguments give the same round."""
    rng = random.Random(seed)
    first, second = roster.draw(rng, counts)
    seeds: dict[Side, int] = {"a": rng.getrandbits(31), "b": rng.getrandbits(31)}
    on_tie: Side = "a" if rng.random() < 0.5 else "b"
    chips, plots = rng.random() < 0.5, rng.random() < 0.5
    if exposure != "randomised":
        chips = plots = exposure == "all"
    check: Side | None = None
    if rng.random() < check_rate:
        check = "a" if rng.random() < 0.5 else "b"
    return Draw(seed, {"a": first, "b": second}, seeds, Exposure(chips, plots), check, on_tie)
