"""What the arena returns: plain frozen records that are safe to show, made from stored rounds.

No record names a contender before the vote: only a `Reveal` does, and only a `Receipt` contains
one. Each record has `as_json()` for endpoints and pages.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from empo_demo.contenders.roster import label_of
from empo_demo.contenders.strategies import is_guided
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import INDEX
from empo_demo.empathy.reading import Reading
from empo_demo.engine.protocol import Pair
from empo_demo.engine.text.marks import ALL_THOUGHT, UNMARKED
from empo_demo.errors import Sentence
from empo_demo.votes.models import SIDES, VERDICTS, Reply, Round, Side, State, Verdict


@dataclass(frozen=True, slots=True)
class ConsentText:
    """The text that a visitor agrees to. `version` is the SHA-256 of `text`."""

    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice before the replies. `links` are (title, address) pairs."""

    kind: str
    title: str
    text: str
    links: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What may be on the page before the vote."""

    chips: bool
    plots: bool


@dataclass(frozen=True, slots=True)
class OpenedRound:
    """A stored round, before its replies. `reading` is None if the SEM failed, or if it may not be
    shown before the vote (then `show.chips` is false, and the receipt has the reading)."""

    round_id: str
    dialogue: Dialogue
    reading: Reading | None
    notices: tuple[Notice, ...]
    show: Exposure

    def as_json(self) -> dict[str, Any]:
        return {
            "round_id": self.round_id,
            "dialogue": self.dialogue.messages(),
            "reading": self.reading.as_json() if self.reading else None,
            "notices": [notice.as_json() for notice in self.notices],
            "show": asdict(self.show),
        }


@dataclass(frozen=True, slots=True)
class SideReveal:
    """Who a side was. `guidance` is None if none was used. `guidance_absent` means that the
    contender uses guidance but got none, because the SEM did not answer. `seed` drew
    the reply."""

    contender: str
    label: str
    revision: str
    strategy: str
    guidance: str | None
    guidance_absent: bool
    thought: str | None
    tokens: int | None
    milliseconds: float | None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reveal:
    """Who was who. The dialogue continues with the side `chosen`."""

    a: SideReveal
    b: SideReveal
    chosen: Side
    attention_check: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a vote. `created` is false if there was a vote already: then everything here
    is that of the first vote."""

    receipt: str
    round_id: str
    verdict: Verdict
    reveal: Reveal
    created: bool
    reading: Reading | None = None
    round: RoundView | None = field(default=None, repr=False, compare=False)
    """The round after the vote, for the page; `as_json` leaves it out."""

    @property
    def view(self) -> RoundView:
        """The voted round with this receipt."""
        assert self.round is not None, "the receipt of a stored round has it"
        return replace(self.round, receipt=self)

    def as_json(self) -> dict[str, Any]:
        return {
            "receipt": self.receipt,
            "round_id": self.round_id,
            "verdict": self.verdict,
            "reveal": asdict(self.reveal),
            "created": self.created,
            "reading": self.reading.as_json() if self.reading else None,
        }


@dataclass(frozen=True, slots=True)
class ReplyView:
    """One side as it may be shown at any time."""

    text: str
    reason: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class RoundView:
    """A round for a page that was reloaded. `void_reason` says why nobody can vote on it, and
    `retry` whether trying again may help."""

    round_id: str
    state: State
    dialogue: Dialogue
    reading: Reading | None
    show: Exposure
    replies: Mapping[Side, ReplyView]
    void_reason: str | None = None
    receipt: Receipt | None = None
    dropped_exchanges: int = 0
    """How many of the dialogue's first exchanges were too long for the models, on both sides."""
    retry: bool = True
    notices: tuple[str, ...] = ()
    """The kinds of the notices on the newest text."""

    def as_json(self) -> dict[str, Any]:
        return {
            "round_id": self.round_id,
            "state": self.state,
            "dialogue": self.dialogue.messages(),
            "reading": self.reading.as_json() if self.reading else None,
            "show": asdict(self.show),
            "replies": {side: asdict(reply) for side, reply in self.replies.items()},
            "void_reason": self.void_reason,
            "receipt": self.receipt.as_json() if self.receipt else None,
            "dropped_exchanges": self.dropped_exchanges,
            "retry": self.retry,
        }


Loading = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the models can answer. `details` is the engine's description.

    `note` is one sentence: what the loading does now, or why another pair is served than was meant.
    """

    state: Loading
    message: str
    details: dict[str, str] = field(default_factory=dict)
    pair: Pair = "own"
    note: str = ""


def reading_of(round_: Round) -> Reading | None:
    """The SEM's reading of the round's last user turn, or None if the SEM failed.

    An imported round may name emotions that are not among the 32; such a reading is not used.
    """
    if round_.reading is None:
        return None
    reading = Reading.from_json(round_.reading)
    return reading if all(label in INDEX for label, _ in reading.emotions) else None


def dialogue_of(round_: Round) -> Dialogue:
    return Dialogue.from_messages(round_.dialogue)


def receipt_of(round_: Round, labels: Mapping[str, str], *, created: bool) -> Receipt:
    """The receipt of a voted round. `labels` maps the ids of contenders to their names."""
    vote = round_.vote
    assert vote is not None, "only a voted round has a receipt"
    sides = {side: _side(round_.reply(side), labels) for side in SIDES}
    reveal = Reveal(
        sides["a"], sides["b"], cast(Side, vote.chosen), attention_check=bool(round_.check_side)
    )
    return Receipt(
        receipt=vote.receipt,
        round_id=round_.id,
        verdict=vote.verdict,
        reveal=reveal,
        created=created,
        reading=reading_of(round_),
        round=_plain_view(round_),
    )


def _side(reply: Reply, labels: Mapping[str, str]) -> SideReveal:
    return SideReveal(
        contender=reply.contender,
        label=label_of(reply.contender, labels),
        revision=reply.revision,
        strategy=reply.strategy,
        guidance=reply.guidance,
        guidance_absent=is_guided(reply.strategy) and reply.guidance is None,
        thought=reply.thought,
        tokens=reply.tokens,
        milliseconds=reply.milliseconds,
        seed=reply.seed,
    )


def view_of(
    round_: Round, labels: Mapping[str, str], texts: Mapping[Side, str] | None = None
) -> RoundView:
    """The round for a page that was reloaded. `texts` are the replies so far, while they stream."""
    if round_.vote is not None:
        return receipt_of(round_, labels, created=False).view
    return _plain_view(round_, texts)


def _plain_view(round_: Round, texts: Mapping[Side, str] | None = None) -> RoundView:
    """The round without its receipt."""
    replies = {
        side: ReplyView(
            text=(texts or {}).get(side, round_.reply(side).text or ""),
            reason=round_.reply(side).reason,
            error=_stored(round_.reply(side).error),
        )
        for side in SIDES
    }
    return RoundView(
        round_id=round_.id,
        state=cast(State, round_.state),
        dialogue=dialogue_of(round_),
        reading=reading_of(round_) if round_.vote or round_.show_chips else None,
        show=Exposure(round_.show_chips, round_.show_plots),
        replies=replies,
        void_reason=_stored(round_.void_reason),
        dropped_exchanges=round_.dropped_exchanges or 0,
        retry=may_help(round_),
        notices=tuple(round_.notices or ()),
    )


def _stored(text: str | None) -> Sentence | None:
    return None if text is None else Sentence.stored(text)


def may_help(round_: Round) -> bool:
    """Whether trying the round again may help.

    A reply that was all thought may be drawn shorter the next time. If that one was all thought,
    too, then the model is set up so, and it would be for ever.
    """
    reason = round_.void_reason or ""
    return not (round_.retry_of and any(error in reason for error in (ALL_THOUGHT, UNMARKED)))


def with_advice(refusal: str, round_: Round) -> Sentence:
    """The `refusal` of a void round with its reason, and what its voter can do now."""
    advice = "Press Retry." if may_help(round_) else "Start a new dialogue."
    return Sentence(f"{refusal} {advice}", reason=Sentence.stored(round_.void_reason))


def own_vote(round_: Round, labels: Mapping[str, str]) -> dict[str, Any]:
    """One row of "my votes": dialogue, replies, verdict, and who was who."""
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


def blind_record(round_: Round) -> dict[str, Any]:
    """A round without a vote, for its voter. It does not name the contenders."""
    return {
        "round": {
            "id": round_.id,
            "state": round_.state,
            "created_at": round_.created_at.isoformat(),
            "ephemeral": round_.ephemeral,
            "consent": round_.consent,
            "dialogue": round_.dialogue,
        },
        "replies": [{"side": reply.side, "text": reply.text} for reply in round_.replies],
        "vote": None,
    }


def goes_on_with(round_: Round, verdict: str) -> Side:
    """The side that the dialogue continues with: drawn on a tie, never a known bad reply."""
    if round_.check_side is not None:
        return "b" if round_.check_side == "a" else "a"
    preferred = VERDICTS[verdict].preferred
    if preferred is not None:
        return preferred
    return "a" if random.Random(f"tie {round_.seed}").random() < 0.5 else "b"
