"""Links that open a comparison, and what the page says when one is opened.

A link contains the comparison, a fingerprint of the two models, and a fingerprint of the replies.
So the page can say whether the models and the words are still the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from empo_demo.arena.comparison import MOST_TOKENS, Comparison
from empo_demo.arena.link import decode_link, encode_link
from empo_demo.contenders.roster import UNGUIDED, Roster
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
