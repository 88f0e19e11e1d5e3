"""Links that open a comparison, and what the page says when one is opened.

A link contains the comparison in the query of its URL, a fingerprint of the two models, and a
fingerprint of the replies. So the page can say whether the models and the words are still the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from empo_demo.arena.comparison import MOST_TOKENS, Comparison
from empo_demo.contenders.roster import UNGUIDED, Roster
from empo_demo.dialogue import Dialogue
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.ui.texts import Texts
from empo_demo.votes.models import SIDES, Side

if TYPE_CHECKING:
    from empo_demo.arena.rounds import RoundView


@dataclass(frozen=True, slots=True)
class Linked:
    """A comparison that came by a link; `models` and `words` are fingerprints, or empty."""

    comparison: Comparison
    models: str = ""
    words: str = ""


def address(roster: Roster, comparison: Comparison, texts: Mapping[Side, str] | None = None) -> str:
    """The query of the page's address that opens `comparison`; `texts` are both sides' replies.

    Raises `InvalidInput` where the dialogue is too long for an address.
    """
    query = {**encode_link(comparison), "models": models(roster, comparison)}
    if texts is not None:
        query["words"] = words(texts)
    return "?" + urlencode(query)


def opened(parameters: Mapping[str, Any], roster: Roster) -> Linked | None:
    """What an address opens; None where it holds no comparison.

    Raises `InvalidInput` or `NotFound` for one that was damaged or names what is not here.
    """
    comparison = decode_link(parameters, roster)
    if comparison is None:
        return None
    return Linked(comparison, *(str(parameters.get(key, ""))[:8] for key in ("models", "words")))


def changed(linked: Linked, roster: Roster) -> bool:
    """Whether one of the two models is another one than when the link was made."""
    return bool(linked.models) and linked.models != models(roster, linked.comparison)


def outcome(linked: Linked, roster: Roster, texts: Mapping[Side, str], say: Texts) -> str:
    """What to say once the comparison of a link has been made again."""
    same = linked.words == words(texts)
    if changed(linked, roster):
        return say("link.changed.same" if linked.words and same else "link.changed")
    if not linked.words:
        return ""
    return say("link.same" if same else "link.differs")


def models(roster: Roster, comparison: Comparison) -> str:
    """Eight hex digits that change when one of the two contenders' weights do."""
    return _digest(" ".join(roster[name].revision for name in comparison.names.values()))


def words(texts: Mapping[Side, str]) -> str:
    """Eight hex digits of what both sides said."""
    return _digest("\0".join(texts[side] for side in SIDES))


def of_round(view: RoundView, roster: Roster) -> Comparison | None:
    """A voted round as a comparison that gives the same replies; None where there is none."""
    receipt = view.receipt
    if receipt is None or receipt.reveal.attention_check:
        return None
    left, right = receipt.reveal.a, receipt.reveal.b
    one, other = (side.contender.removesuffix(UNGUIDED) for side in (left, right))
    known = {contender.id for contender in roster.contenders}
    if not {one, other} <= known or left.seed is None or right.seed is None:
        return None
    tokens = min(roster.decoding.max_new_tokens, MOST_TOKENS)
    decoding = replace(roster.decoding, max_new_tokens=tokens)
    return Comparison(
        view.dialogue, one, other, left.seed, decoding=decoding, seed_right=right.seed
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()[:8]


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
