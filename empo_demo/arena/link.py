"""A link that restores a whole comparison: its parts are the query of a URL."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from empo_demo.arena.comparison import Comparison
from empo_demo.contenders.roster import Roster
from empo_demo.dialogue import Dialogue
from empo_demo.errors import ArenaError, InvalidInput

MAX_LINK = 6_000
"""The longest encoded dialogue in characters. Common servers cut addresses near 8,000."""
MAX_UNPACKED = 40_000
"""The most bytes that an encoded dialogue may unpack to; text that says something packs to less
than `MAX_LINK` of them. The server remembers the dialogue as long as the page is open."""
BROKEN = "This link is damaged or was cut off; copy the whole address, or start a new comparison."


def encode_link(comparison: Comparison) -> dict[str, str]:
    """The query parameters of the URL. Raises `InvalidInput` if the dialogue is too long."""
    text = json.dumps(comparison.dialogue.messages(), ensure_ascii=False, separators=(",", ":"))
    whole = text.encode()
    packed = base64.urlsafe_b64encode(zlib.compress(whole, 9)).decode().rstrip("=")
    if len(packed) > MAX_LINK or len(whole) > MAX_UNPACKED:
        raise InvalidInput(
            "This dialogue is too long for a link; share a shorter one, or download it."
        )
    decoding = comparison.decoding
    own = {} if comparison.seed_right is None else {"seed_right": str(comparison.seed_right)}
    return {
        "left": comparison.left,
        "right": comparison.right,
        "seed": str(comparison.seed),
        **own,
        "dial_left": f"{comparison.dial_left:g}",
        "dial_right": f"{comparison.dial_right:g}",
        "temperature": f"{decoding.temperature:g}",
        "top_p": f"{decoding.top_p:g}",
        "penalty": f"{decoding.repetition_penalty:g}",
        "tokens": str(decoding.max_new_tokens),
        "dialogue": packed,
    }


def decode_link(parameters: Mapping[str, Any], roster: Roster) -> Comparison | None:
    """The comparison of a link; None if the parameters contain none.

    Raises `InvalidInput` or `NotFound` if the link is damaged or names an unknown contender.
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
            seed_right=int(parameters["seed_right"]) if "seed_right" in parameters else None,
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


def _unpack(packed: str) -> Dialogue:
    """Unpack a dialogue that a stranger may have written. Every step has a bound."""
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
