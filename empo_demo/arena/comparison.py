"""Explore: two chosen contenders answer one dialogue. It is not blind, not stored and not a vote.

The dial of a side scales its adapter: 0 is the base, 1 the adapter as trained. This module imports
neither gradio nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from empo_demo.arena.frames import SECONDS, Frame, Replies, frames
from empo_demo.contenders.roster import Roster
from empo_demo.contenders.strategies import THINKING, Prepared, after_thinking, prepare
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Decoding, Engine, Finished, Request
from empo_demo.errors import InvalidInput, NotFound
from empo_demo.votes.models import SIDES, Side

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading

DIAL = (0.0, 1.5)
"""The range of the alignment dial. Beyond about 1.5 the output of an adapter becomes noise."""
MOST_TOKENS = 512
"""The most new tokens that a visitor may ask for."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that determines a comparison, and the contents of a link.

    `seed` in [0, 2³¹) is the same for both sides, unless the right one has its own in `seed_right`;
    `dial_left` and `dial_right` are in `DIAL`. One contender may be on both sides, with two dials.
    """

    dialogue: Dialogue
    left: str = "base"
    right: str = "aligned"
    seed: int = 0
    dial_left: float = 1.0
    dial_right: float = 1.0
    decoding: Decoding = field(default_factory=Decoding)
    seed_right: int | None = None

    @property
    def seeds(self) -> dict[Side, int]:
        """The sides' seeds."""
        return {"a": self.seed, "b": self.seed if self.seed_right is None else self.seed_right}

    @property
    def names(self) -> dict[Side, str]:
        """The ids of the contenders by side."""
        return {"a": self.left, "b": self.right}

    def checked(self, roster: Roster) -> Comparison:
        """Return itself; raise `InvalidInput` or `NotFound` if it cannot run on `roster`."""
        known = [contender.id for contender in roster.contenders]
        for contender in (self.left, self.right):
            if contender not in known:
                raise NotFound(
                    "There is no contender {name}; there are: {known}.",
                    name=repr(contender[:80]),
                    known=", ".join(known),
                )
        if not self.dialogue.turns or self.dialogue.turns[-1].role != "user":
            raise InvalidInput("The dialogue must end with the user; write what they say next.")
        if not all(0 <= seed < 2**31 for seed in self.seeds.values()):
            raise InvalidInput("The seed must be a whole number from 0 to 2147483647.")
        for dial in (self.dial_left, self.dial_right):
            if not (math.isfinite(dial) and DIAL[0] <= dial <= DIAL[1]):
                low, high = (f"{end:g}" for end in DIAL)
                raise InvalidInput(
                    "The alignment dial goes from {low} to {high}.", low=low, high=high
                )
        _check_decoding(self.decoding)
        return self


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page says of one side. It is not blind, so the page may show it at once."""

    contender: str
    label: str
    dial: float
    guidance: str | None
    guidance_absent: bool


def explore(
    engine: Engine,
    roster: Roster,
    comparison: Comparison,
    reading: Reading | None = None,
    *,
    screen: Callable[[str], str | None] = lambda text: None,
    watch: Callable[[], None] = lambda: None,
    every: float = SECONDS,
) -> Generator[Frame, None, None]:
    """Stream both sides ("a" is left, "b" right) with the same dialogue and decoding.

    Closing the iterator stops the work. Without a reading, guided contenders answer unguided.
    `screen`, `watch` and `every` are those of `Replies` and `frames`.
    """
    comparison.checked(roster)
    requests = [_request(engine, roster, comparison, side, reading) for side in SIDES]
    yield from frames(engine.stream(requests), Replies(screen), watch=watch, every=every)


def shown(roster: Roster, comparison: Comparison, reading: Reading | None) -> dict[str, Shown]:
    """The heading of each side. The guidance of a two-step side may change while it thinks."""
    sides: dict[str, Shown] = {}
    for side in SIDES:
        contender = roster[comparison.names[side]]
        prepared = _prepare(roster, comparison, side, reading)
        sides[side] = Shown(
            contender.id,
            contender.label or contender.id,
            comparison.dial_left if side == "a" else comparison.dial_right,
            prepared.guidance,
            contender.guided and prepared.guidance is None,
        )
    return sides


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data, for a download."""
    return {**asdict(comparison), "dialogue": comparison.dialogue.messages()}


def _check_decoding(decoding: Decoding) -> None:
    limits = {
        "temperature": (decoding.temperature, 0, 2),
        "top-p": (decoding.top_p, 0.01, 1),
        "repetition penalty": (decoding.repetition_penalty, 0.5, 2),
        "number of new tokens": (decoding.max_new_tokens, 1, MOST_TOKENS),
    }
    for name, (value, low, high) in limits.items():
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidInput(
                "The {name} must be from {low} to {high}.",
                name=name,
                low=f"{low:g}",
                high=f"{high:g}",
            )


def _prepare(
    roster: Roster, comparison: Comparison, side: Side, reading: Reading | None
) -> Prepared:
    return prepare(roster[comparison.names[side]], comparison.dialogue, reading, roster)


def _request(
    engine: Engine, roster: Roster, comparison: Comparison, side: Side, reading: Reading | None
) -> Request:
    prepared = _prepare(roster, comparison, side, reading)
    request = Request(
        side=side,
        contender=comparison.names[side],
        messages=prepared.messages,
        decoding=comparison.decoding,
        seed=comparison.seeds[side],
        adapter_scale=comparison.dial_left if side == "a" else comparison.dial_right,
    )
    if prepared.think is None:
        return request
    thought = ""
    for event in engine.stream([replace(request, messages=prepared.think, decoding=THINKING)]):
        if isinstance(event, Finished):
            thought = event.text
    contender = roster[request.contender]
    settled = after_thinking(contender, comparison.dialogue, reading, roster, thought)
    return replace(request, messages=settled.messages)
