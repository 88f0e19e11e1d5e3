"""What the arena hands out: plain frozen records, safe to show.

Nothing here names a contender before the vote: only a `Reveal` does, and it exists only in a
`Receipt`. Each record has `as_json()` for endpoints and pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from empo_demo.dialogue import Dialogue

if TYPE_CHECKING:
    from empo_demo.empathy.sem import Reading

Side = Literal["a", "b"]
Verdict = Literal["a", "b", "tie", "both_bad"]
State = Literal["pending", "streaming", "votable", "voted", "void"]

SIDES: tuple[Side, ...] = ("a", "b")
VERDICTS: tuple[Verdict, ...] = ("a", "b", "tie", "both_bad")
RATINGS: tuple[str, ...] = ("appropriate", "emotion", "natural", "continue")
"""The paper's four sliders, 0–100: appropriate to the situation, addresses the emotion, natural
in the context, would like to continue. A rating's key is `a_natural` or `b_natural`; a bare
`natural` is that of the side the dialogue goes on with."""
MAX_COMMENT = 2_000


@dataclass(frozen=True, slots=True)
class ConsentText:
    """What a visitor agrees to; `version` is the SHA-256 of `text`."""

    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say before the replies. `links` are (title, address) pairs."""

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
    """A stored round, before its replies. `reading` is None where the SEM failed, or where it may
    not be shown before the vote (`show.chips` is then false; the receipt has it)."""

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
    """Who a side was. `guidance` is None where none was used; `guidance_absent` says that the
    contender uses guidance but had none (the SEM did not answer)."""

    contender: str
    label: str
    revision: str
    strategy: str
    guidance: str | None
    guidance_absent: bool
    thought: str | None
    tokens: int | None
    milliseconds: float | None


@dataclass(frozen=True, slots=True)
class Reveal:
    """Who was who; `chosen` is the side that the dialogue goes on with."""

    a: SideReveal
    b: SideReveal
    chosen: Side
    attention_check: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a vote. `created` is false where the round had been voted on before: then
    everything is the first vote's."""

    receipt: str
    round_id: str
    verdict: Verdict
    reveal: Reveal
    created: bool
    reading: Reading | None = None

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
    """A round as a reloaded page needs it. `void_reason` says why it cannot be voted on."""

    round_id: str
    state: State
    dialogue: Dialogue
    reading: Reading | None
    show: Exposure
    replies: Mapping[Side, ReplyView]
    void_reason: str | None = None
    receipt: Receipt | None = None

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
        }


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the models can answer. `details` is the engine's description."""

    state: Literal["loading", "ready", "failed"]
    message: str
    details: dict[str, str] = field(default_factory=dict)
    tiny: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts for the Data tab: all rounds by state, all votes by verdict, votes left out of
    exports by reason, and what the storage warns of."""

    rounds: dict[str, int]
    votes: dict[str, int]
    exportable: int
    left_out: dict[str, int]
    voters: int
    fast: int
    withdrawn: int
    checks: dict[str, int]
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
