"""Explore: two chosen contenders answer one dialogue, not blind, not stored, not a vote.

The dial of a side scales its adapter: 0 is the base, 1 the adapter as trained. A link restores a
whole comparison from the URL. Imports neither gradio nor torch.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from empo_demo.contenders.roster import Roster
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Decoding, Engine, Event, Finished, Request
from empo_demo.errors import ArenaError, InvalidInput, NotFound
from empo_demo.votes.models import SIDES, Side

if TYPE_CHECKING:
    from empo_demo.contenders.strategies import Prepared
    from empo_demo.empathy.sem import Reading

DIAL = (0.0, 1.5)
"""The alignment dial's range. Past about 1.5 an adapter's output decays into noise."""
MOST_TOKENS = 512
"""Most new tokens that a visitor may ask for."""
MAX_LINK = 6_000
"""Longest encoded dialogue in a link, in characters: common servers cut addresses near 8,000."""
MAX_UNPACKED = 120_000
"""Most bytes that an encoded dialogue may unpack to."""
BROKEN = "This link is damaged or was cut off; copy the whole address, or start a new comparison."


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that determines a comparison, and what a link carries.

    `seed` in [0, 2³¹), the same for both sides; `dial_left`, `dial_right` in `DIAL`. The same
    contender may stand on both sides, with two dials.
    """

    dialogue: Dialogue
    left: str = "base"
    right: str = "aligned"
    seed: int = 0
    dial_left: float = 1.0
    dial_right: float = 1.0
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def names(self) -> dict[Side, str]:
        """The contenders' ids by side."""
        return {"a": self.left, "b": self.right}

    def checked(self, roster: Roster) -> Comparison:
        """Itself; raises `InvalidInput` or `NotFound` where it cannot be run on `roster`."""
        known = [contender.id for contender in roster.contenders]
        for contender in (self.left, self.right):
            if contender not in known:
                raise NotFound(
                    f"There is no contender {contender[:80]!r}; there are: {', '.join(known)}."
                )
        if not self.dialogue.turns or self.dialogue.turns[-1].role != "user":
            raise InvalidInput("The dialogue must end with the user; write what they say next.")
        if not 0 <= self.seed < 2**31:
            raise InvalidInput("The seed must be a whole number from 0 to 2147483647.")
        for dial in (self.dial_left, self.dial_right):
            if not (math.isfinite(dial) and DIAL[0] <= dial <= DIAL[1]):
                raise InvalidInput(f"The alignment dial goes from {DIAL[0]:g} to {DIAL[1]:g}.")
        _check_decoding(self.decoding)
        return self


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page may say of one side: not blind, so at once."""

    contender: str
    label: str
    dial: float
    guidance: str | None
    guidance_absent: bool


def explore(
    engine: Engine, roster: Roster, comparison: Comparison, reading: Reading | None = None
) -> Iterator[Event]:
    """Stream both sides ("a" is left, "b" right) with the same dialogue, seed and decoding.

    Closing the iterator stops the work. Without a reading guided contenders answer unguided.
    """
    comparison.checked(roster)
    requests = [_request(engine, roster, comparison, side, reading) for side in SIDES]
    stream = engine.stream(requests)
    try:
        yield from stream
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def shown(roster: Roster, comparison: Comparison, reading: Reading | None) -> dict[str, Shown]:
    """What stands above each side. A two-step side's guidance may change while it thinks."""
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


def encode_link(comparison: Comparison) -> dict[str, str]:
    """The URL's query parameters; raises `InvalidInput` where the dialogue is too long for one."""
    text = json.dumps(comparison.dialogue.messages(), ensure_ascii=False, separators=(",", ":"))
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    if len(packed) > MAX_LINK:
        raise InvalidInput(
            "This dialogue is too long for a link; share a shorter one, or download it."
        )
    decoding = comparison.decoding
    return {
        "left": comparison.left,
        "right": comparison.right,
        "seed": str(comparison.seed),
        "dial_left": f"{comparison.dial_left:g}",
        "dial_right": f"{comparison.dial_right:g}",
        "temperature": f"{decoding.temperature:g}",
        "top_p": f"{decoding.top_p:g}",
        "penalty": f"{decoding.repetition_penalty:g}",
        "tokens": str(decoding.max_new_tokens),
        "dialogue": packed,
    }


def decode_link(parameters: Mapping[str, Any], roster: Roster) -> Comparison | None:
    """The comparison of a link; None where the parameters hold none.

    Raises `InvalidInput` or `NotFound` for a link that was damaged or names what is not here.
    """
    packed = parameters.get("dialogue")
    if not packed:
        return None
    usual = roster.decoding
    try:
        comparison = Comparison(
            dialogue=_unpack(str(packed)),
            left=str(parameters.get("left", "base")),
            right=str(parameters.get("right", "aligned")),
            seed=int(parameters.get("seed", 0)),
            dial_left=float(parameters.get("dial_left", 1)),
            dial_right=float(parameters.get("dial_right", 1)),
            decoding=replace(
                usual,
                temperature=float(parameters.get("temperature", usual.temperature)),
                top_p=float(parameters.get("top_p", usual.top_p)),
                repetition_penalty=float(parameters.get("penalty", usual.repetition_penalty)),
                max_new_tokens=int(parameters.get("tokens", usual.max_new_tokens)),
            ),
        )
    except ArenaError:
        raise
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(BROKEN) from None
    return comparison.checked(roster)


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
            raise InvalidInput(f"The {name} must be from {low:g} to {high:g}.")


def _prepare(
    roster: Roster, comparison: Comparison, side: Side, reading: Reading | None
) -> Prepared:
    from empo_demo.contenders.strategies import prepare

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
        seed=comparison.seed,
        adapter_scale=comparison.dial_left if side == "a" else comparison.dial_right,
    )
    if prepared.think is None:
        return request
    from empo_demo.contenders.strategies import THINKING, after_thinking

    thought = ""
    for event in engine.stream([replace(request, messages=prepared.think, decoding=THINKING)]):
        if isinstance(event, Finished):
            thought = event.text
    contender = roster[request.contender]
    settled = after_thinking(contender, comparison.dialogue, reading, roster, thought)
    return replace(request, messages=settled.messages)


def _unpack(packed: str) -> Dialogue:
    """The dialogue in `packed`, which a stranger may have written: bounded in every step."""
    if len(packed) > MAX_LINK:
        raise InvalidInput(BROKEN)
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(raw, MAX_UNPACKED)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise InvalidInput(BROKEN)
        messages = json.loads(text)
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        raise InvalidInput(BROKEN) from None
    if not isinstance(messages, list):
        raise InvalidInput(BROKEN)
    return Dialogue.from_messages(messages)
