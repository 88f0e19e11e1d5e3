"""What the Arena tab shows in each state of a round, as changes to its components.

No decision is taken here; user and model text is escaped by what `highlights` and `plots` make.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.rounds import Exposure, OpenedRound, RoundView
from empo_demo.dialogue import Dialogue
from empo_demo.errors import ArenaError
from empo_demo.metrics.valence import Lexicon, text_valence
from empo_demo.ui import highlights, plots
from empo_demo.ui.parts import Parts
from empo_demo.ui.session import Session
from empo_demo.votes.models import SIDES, Side
from empo_demo.votes.verdicts import VERDICTS

log = logging.getLogger(__name__)
Changes = dict[Any, Any]
FRAME = 0.1
"""Seconds between two pictures of a stream: ten a second is all that an eye and a phone want."""
GENERAL = "Something went wrong on our side. Nothing that was stored is lost; try again."
REASONS = {
    "eos": "", "stop": "", "length": "cut off at the length limit", "stopped": "stopped",
}  # fmt: skip


class Pictures:
    """Bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, lexicon: Lexicon) -> None:
        self.arena, self.parts, self.lexicon = arena, parts, lexicon
        self.recorded = arena.roster.recorded
        self._read = functools.lru_cache(maxsize=512)(self._read_uncached)

    def told(self, error: Exception) -> Changes:
        """The error as a line on the page."""
        if isinstance(error, ArenaError):
            return {self.parts.message: highlights.message(str(error), error=True)}
        log.error("A handler failed", exc_info=error)
        return {self.parts.message: highlights.message(GENERAL, error=True)}

    def opening(self, session: Session, opened: OpenedRound) -> Changes:
        p, dialogue = self.parts, opened.dialogue
        return {
            **self.bare(),
            p.session: session.store(),
            p.notices: highlights.notices(opened.notices),
            p.thread: self._thread(dialogue, opened.show.chips),
            p.heard: highlights.heard(opened.reading, hidden=not opened.show.chips),
            p.plots: plots.svg(plots.series(dialogue, {}, self.lexicon)),
            p.plot: gr.update(visible=False),
            p.message: highlights.message(self._waiting()),
            p.pair: gr.update(visible=True),
            p.pane_a: highlights.pane("a", "", live=True),
            p.pane_b: highlights.pane("b", "", live=True),
            p.box: gr.update(value="", interactive=False),
            p.send: gr.update(interactive=False),
            p.stop: gr.update(visible=True),
        }

    def _waiting(self) -> str:
        """Why nothing is written yet."""
        if self.arena.status().state != "ready":
            return (
                "Your text is stored. The models are still loading; they answer when they are up."
            )
        ahead = self.arena.ahead()
        if not ahead:
            return "Both models are reading…"
        rounds = "1 round is" if ahead == 1 else f"{ahead} rounds are"
        return f"The models are busy: {rounds} ahead of yours. You keep your place."

    def frame(
        self, dialogue: Dialogue, texts: dict[Side, str], notes: dict[Side, str], show: Exposure
    ) -> Changes:
        p = self.parts
        panes = {"a": p.pane_a, "b": p.pane_b}
        live = any(side not in notes for side in SIDES)
        changes: Changes = {p.message: highlights.message("Both are writing…" if live else "")}
        changes |= {
            panes[side]: highlights.pane(
                side, texts[side], notes.get(side, ""), live=side not in notes
            )
            for side in SIDES
        }
        if show.plots:
            data = plots.series(dialogue, dict(texts.items()), self.lexicon)
            changes[p.plots] = plots.svg(data)
        return changes

    def settled(self, session: Session, view: RoundView) -> Changes:
        """The page of a round that does not stream (any more)."""
        p, voted = self.parts, view.receipt
        show = Exposure(True, True) if voted else view.show
        replies = {side: view.replies[side].text for side in SIDES}
        data = plots.series(view.dialogue, replies if show.plots else {}, self.lexicon)
        reading = voted.reading if voted and voted.reading else view.reading
        lines = {
            "votable": f"Read both, then vote (keys 1 to {len(VERDICTS)}).",
            "void": f"{view.void_reason or ''} Nothing was counted; try it again.",
            "pending": "Your text is stored but was not answered yet. Press Retry.",
            "streaming": "This round is being answered, perhaps in another tab. Press Retry.",
        }
        chosen = voted.reveal.chosen if voted else None
        panes = {
            side: highlights.pane(
                side,
                view.replies[side].text,
                view.replies[side].error or REASONS.get(view.replies[side].reason or "eos", ""),
                chosen=side == chosen,
            )
            for side in SIDES
        }
        return {
            **self.bare(),
            p.session: session.store(),
            # Help stays beside the replies, on a reloaded page too.
            p.notices: highlights.notices(
                guards.assess(view.dialogue, self.arena.settings.country).notices
            ),
            p.thread: self._thread(view.dialogue, show.chips),
            p.heard: highlights.heard(reading, hidden=not show.chips),
            p.plots: gr.update(value=plots.WORDS, visible=True),
            p.plot: gr.update(value=plots.figure(data), visible=True),
            p.message: highlights.message(lines.get(view.state, "")),
            p.pair: gr.update(visible=True),
            p.pane_a: panes["a"],
            p.pane_b: panes["b"],
            p.votes: gr.update(visible=view.state == "votable"),
            p.reveal: highlights.reveal(voted, recorded=self.recorded) if voted else "",
            p.rate: gr.update(visible=voted is not None, open=False),
            p.retry: gr.update(visible=view.state in ("void", "pending", "streaming", "votable")),
            p.box: gr.update(interactive=voted is not None),
            p.send: gr.update(interactive=voted is not None),
        }

    def blank(self, session: Session) -> Changes:
        """The page before a round: perhaps with the turns of an example."""
        p, dialogue = self.parts, session.dialogue
        return {
            **self.bare(),
            p.consent: gr.update(visible=not session.consent),
            p.examples: gr.update(visible=not self.recorded),
            p.thread: self._thread(dialogue, True),
            p.heard: highlights.heard(None, written=False),
            p.plots: plots.svg(plots.series(dialogue, {}, self.lexicon)),
            p.plot: gr.update(value=None, visible=False),
            p.pair: gr.update(visible=False),
        }

    def bare(self) -> Changes:
        """Nothing to vote on, nothing revealed, nothing running; the box is open."""
        p = self.parts
        return {
            p.notices: "",
            p.message: "",
            p.votes: gr.update(visible=False),
            p.reveal: "",
            p.rate: gr.update(visible=False),
            p.examples: gr.update(visible=False),
            p.stop: gr.update(visible=False),
            p.retry: gr.update(visible=False),
            p.box: gr.update(interactive=True),
            p.send: gr.update(interactive=True),
        }

    def _thread(self, dialogue: Dialogue, chips: bool) -> str:
        turns = dialogue.turns
        last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
        readings = [
            self._reading(dialogue, i) if turn.role == "user" and (chips or i != last) else None
            for i, turn in enumerate(turns)
        ]
        values: Sequence[float] = [text_valence(turn.content, self.lexicon) for turn in turns]
        return highlights.thread(dialogue, readings, values, recorded=self.recorded)

    def _reading(self, dialogue: Dialogue, position: int) -> Any:
        try:
            return self._read(dialogue.turns[: position + 1])
        except ArenaError:
            return None
        except Exception:
            log.exception("The SEM failed on a turn of the thread")
            return None

    def _read_uncached(self, turns: Any) -> Any:
        if self.arena.status().state == "loading":
            raise ArenaError("The emotion model is loading.")
        return self.arena.analyze(Dialogue(turns))
