"""From stored rows to what may be shown: before the vote without, after it with the reveal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from empo_demo.contenders import label_of
from empo_demo.dialogue import Dialogue
from empo_demo.rounds import (
    SIDES,
    Exposure,
    Receipt,
    ReplyView,
    Reveal,
    RoundView,
    Side,
    SideReveal,
    State,
    Verdict,
)
from empo_demo.votes.models import Reply, Round

if TYPE_CHECKING:
    from empo_demo.empathy.sem import Reading


def reading_of(round_: Round) -> Reading | None:
    """What the SEM read in the round's last user turn, or None where it failed."""
    if round_.reading is None:
        return None
    from empo_demo.empathy.sem import Reading

    return Reading.from_json(round_.reading)


def dialogue_of(round_: Round) -> Dialogue:
    return Dialogue.from_messages(round_.dialogue)


def receipt_of(round_: Round, labels: Mapping[str, str], *, created: bool) -> Receipt:
    """The receipt of a voted round. `labels` are the contenders' names for people, by id."""
    vote = round_.vote
    assert vote is not None, "only a voted round has a receipt"
    sides = {side: _side(round_.reply(side), labels) for side in SIDES}
    reveal = Reveal(
        sides["a"], sides["b"], cast(Side, vote.chosen), attention_check=bool(round_.check_side)
    )
    return Receipt(
        receipt=vote.receipt,
        round_id=round_.id,
        verdict=cast(Verdict, vote.verdict),
        reveal=reveal,
        created=created,
        reading=reading_of(round_),
    )


def _side(reply: Reply, labels: Mapping[str, str]) -> SideReveal:
    return SideReveal(
        contender=reply.contender,
        label=label_of(reply.contender, labels),
        revision=reply.revision,
        strategy=reply.strategy,
        guidance=reply.guidance,
        guidance_absent=reply.strategy not in ("plain", "check") and reply.guidance is None,
        thought=reply.thought,
        tokens=reply.tokens,
        milliseconds=reply.milliseconds,
    )


def view_of(
    round_: Round, labels: Mapping[str, str], texts: Mapping[Side, str] | None = None
) -> RoundView:
    """The round for a reloaded page. `texts` are the replies so far, while they stream."""
    voted = round_.vote is not None
    replies = {
        side: ReplyView(
            text=(texts or {}).get(side, round_.reply(side).text or ""),
            reason=round_.reply(side).reason,
            error=round_.reply(side).error,
        )
        for side in SIDES
    }
    return RoundView(
        round_id=round_.id,
        state=cast(State, round_.state),
        dialogue=dialogue_of(round_),
        reading=reading_of(round_) if voted or round_.show_chips else None,
        show=Exposure(round_.show_chips, round_.show_plots),
        replies=replies,
        void_reason=round_.void_reason,
        receipt=receipt_of(round_, labels, created=False) if voted else None,
    )


def own_vote(round_: Round, labels: Mapping[str, str]) -> dict[str, Any]:
    """One row of "my votes": what was said, shown and chosen, and who was who."""
    receipt = receipt_of(round_, labels, created=False)
    vote = round_.vote
    assert vote is not None, "only a voted round is listed"
    return {
        "receipt": receipt.receipt,
        "round_id": round_.id,
        "time": vote.created_at.isoformat(),
        "dialogue": round_.dialogue,
        "a": round_.reply("a").text,
        "b": round_.reply("b").text,
        "verdict": vote.verdict,
        "was_a": receipt.reveal.a.label,
        "was_b": receipt.reveal.b.label,
        "ratings": vote.ratings or {},
        "comment": vote.comment,
        "kept": not round_.ephemeral,
    }
