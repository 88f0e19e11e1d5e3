"""The recorded round of the first screen: it is finished, and a vote on it is not stored.

`page rehearsal` records it from the embedded pair into `assets/rehearsal.json`. Who was who
stays on the server until the visitor has voted, as in every round.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.arena.rounds import Exposure, Receipt, ReplyView, Reveal, RoundView, SideReveal
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.feeling import Feeling
from empo_demo.empathy.reading import Epitome, Reading
from empo_demo.settings import ASSETS
from empo_demo.votes.models import SIDES, Side

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena

REHEARSAL = ASSETS / "rehearsal.json"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A votable round, who answered it, EPITOME's levels of both replies, each text's feeling."""

    view: RoundView
    reveal: Reveal
    levels: dict[Side, Epitome]
    feelings: dict[str, Feeling]

    def voted(self, verdict: str) -> RoundView:
        """The round as after a vote."""
        receipt = Receipt("", "", verdict, self._chosen(verdict), created=False)
        return replace(self.view, state="voted", receipt=receipt)

    def _chosen(self, verdict: str) -> Reveal:
        return replace(self.reveal, chosen="a" if verdict == "a" else "b")


def record(arena: Arena, text: str) -> dict[str, Any]:
    """Play one round on `text` and give all that the file holds."""
    voter = arena.new_voter()
    opened = arena.open_round(voter, Dialogue(), text)
    for _ in arena.stream(voter, opened.round_id):
        pass
    receipt = arena.vote(voter, opened.round_id, "a")
    view = arena.find(voter, opened.round_id)
    pairs = [(text, view.replies[side].text) for side in SIDES]
    texts = [text, *(reply for _, reply in pairs)]
    reading = receipt.reading
    return {
        "dialogue": view.dialogue.messages(),
        "reading": reading.as_json() if reading else None,
        "replies": {side: view.replies[side].text for side in SIDES},
        "contenders": {
            side: {
                "contender": getattr(receipt.reveal, side).contender,
                "label": getattr(receipt.reveal, side).label,
                "revision": getattr(receipt.reveal, side).revision,
            }
            for side in SIDES
        },
        "levels": [level.as_json() for level in arena.models.epitome(pairs)],
        "feelings": {
            text: feeling.as_json()
            for text, feeling in zip(
                texts, arena.models.feelings(texts, explained=True), strict=True
            )
        },
    }


@cache
def rehearsal(path: Path = REHEARSAL) -> Rehearsal:
    """The recorded round."""
    stored = json.loads(path.read_text(encoding="utf8"))
    sides = {
        side: SideReveal(
            **stored["contenders"][side],
            strategy="plain",
            guidance=None,
            guidance_absent=False,
            thought=None,
            tokens=None,
            milliseconds=None,
        )
        for side in SIDES
    }
    levels = [
        Epitome.from_rows([level[name]["probabilities"] for name in ("er", "ex", "ip")])
        for level in stored["levels"]
    ]
    view = RoundView(
        round_id="",
        state="votable",
        dialogue=Dialogue.from_messages(stored["dialogue"]),
        reading=Reading.from_json(stored["reading"]),
        show=Exposure(True, True),
        replies={side: ReplyView(stored["replies"][side], "eos", None) for side in SIDES},
    )
    reveal = Reveal(sides["a"], sides["b"], "a")
    feelings = {text: Feeling.from_json(feeling) for text, feeling in stored["feelings"].items()}
    known = {text: feeling for text, feeling in feelings.items() if feeling is not None}
    return Rehearsal(view, reveal, dict(zip(SIDES, levels, strict=True)), known)
