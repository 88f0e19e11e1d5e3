"""What the Arena tab shows in each state of a round, as changes to its components.

No decision is taken here; user and model text is escaped by what makes the markup.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.rounds import Exposure, OpenedRound, Receipt, RoundView
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.feeling import Feeling
from empo_demo.errors import ArenaError
from empo_demo.ui import highlights, panes, plots
from empo_demo.ui.examples import next_example
from empo_demo.ui.parts import Parts
from empo_demo.ui.rehearsal import Rehearsal, rehearsal
from empo_demo.ui.session import Session
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.votes.models import SIDES, Side
from empo_demo.votes.stats import PairVotes, pair_votes
from empo_demo.votes.verdicts import KINDS

log = logging.getLogger(__name__)
Changes = dict[Any, Any]
GENERAL = texts_of("en")("general")
REMEMBERED = 2000
"""Texts whose feeling is kept."""
ENOUGH = 30
"""So many votes on a pair before a visitor is told how others voted on it."""


class Pictures:
    """Bound to one arena, one page's components and one language."""

    def __init__(self, arena: Arena, parts: Parts, say: Texts) -> None:
        self.arena, self.parts, self.say = arena, parts, say
        self.recorded = arena.roster.recorded
        self._felt: dict[str, Feeling] = {} if self.recorded else dict(rehearsal().feelings)
        self._read = functools.lru_cache(maxsize=512)(self._read_uncached)

    def told(self, error: Exception) -> Changes:
        """The error as a line on the page."""
        if isinstance(error, ArenaError):
            return {self.parts.message: highlights.message(error.public, error=True)}
        log.error("A handler failed", exc_info=error)
        return {self.parts.message: highlights.message(self.say("general"), error=True)}

    # The states of a round ----------------------------------------------------------------------

    def opening(self, session: Session, opened: OpenedRound) -> Changes:
        p, say, dialogue = self.parts, self.say, opened.dialogue
        return {
            **self.bare(),
            p.session: session.store(),
            p.steps: highlights.steps("read", say),
            p.notices: highlights.notices(opened.notices),
            p.thread: self._thread(dialogue, opened.show),
            p.heard: highlights.heard(opened.reading, say, hidden=not opened.show.chips),
            p.plots: self.plots(dialogue, {}, {}) if opened.show.plots else "",
            p.message: highlights.message(self._waiting()),
            p.pair: gr.update(visible=True),
            p.pane_a: panes.pane("a", "", "", say, live=True),
            p.pane_b: panes.pane("b", "", "", say, live=True),
            p.box: gr.update(value="", interactive=False),
            p.send: gr.update(interactive=False),
            p.stop: gr.update(visible=True),
        }

    def _waiting(self) -> str:
        """Why nothing is written yet."""
        if self.arena.status().state != "ready":
            return self.say("loading")
        ahead = self.arena.ahead()
        if not ahead:
            return self.say("reading")
        return self.say("ahead.one") if ahead == 1 else self.say("ahead.many", n=ahead)

    def frame(
        self,
        dialogue: Dialogue,
        texts: Mapping[Side, str],
        notes: Mapping[Side, str],
        show: Exposure,
        felt: Mapping[Side, Feeling] | None = None,
    ) -> Changes:
        """One picture of the stream; the plots follow where `felt` is given and they may show."""
        p = self.parts
        places = {"a": p.pane_a, "b": p.pane_b}
        live = any(side not in notes for side in SIDES)
        changes: Changes = {
            p.message: highlights.message(self.say("writing") if live else ""),
            p.steps: highlights.steps("write", self.say),
        }
        changes |= {
            places[side]: panes.pane(
                side, texts[side], notes.get(side, ""), self.say, live=side not in notes
            )
            for side in SIDES
        }
        if show.plots and felt is not None:
            changes[p.plots] = self.plots(dialogue, texts, felt)
        return changes

    def settled(self, session: Session, view: RoundView, tried: Rehearsal | None = None) -> Changes:
        """The page of a round that does not stream (any more)."""
        p, say, voted = self.parts, self.say, view.receipt
        show = Exposure(True, True) if voted else view.show
        replies = {side: view.replies[side].text for side in SIDES}
        felt = self.feel(replies) if show.plots else {}
        reading = voted.reading if voted and voted.reading else view.reading
        step = "vote" if view.state in ("votable", "voted") else "write"
        undecided = bool(voted and not session.consent and not tried)
        return {
            **self.bare(),
            p.session: session.store(),
            p.steps: highlights.steps(step, say, rehearsal=tried is not None),
            # Help stays beside the replies, on a reloaded page too.
            p.notices: highlights.notices(
                guards.assess(view.dialogue, self.arena.settings.country).notices
            ),
            p.thread: self._thread(view.dialogue, show, reading),
            p.heard: highlights.heard(reading, say, hidden=not show.chips),
            p.plots: self.plots(view.dialogue, replies, felt) if show.plots else "",
            p.message: "" if tried else self._state(view),
            p.pair: gr.update(visible=True),
            **self._panes(view, felt, self._levels(view, tried) if voted else {}),
            p.votes: gr.update(visible=view.state == "votable"),
            p.reveal: self._reveal(session, voted, tried) if voted else "",
            p.examples: self._examples(session),
            p.next: self._next(session) if voted else gr.update(visible=False),
            p.keep: gr.update(visible=undecided),
            p.share: gr.update(visible=voted is not None and not tried),
            p.rate: gr.update(visible=voted is not None and not tried, open=False),
            p.retry: gr.update(
                visible=not tried and view.state in ("void", "pending", "streaming", "votable")
            ),
            p.box: gr.update(interactive=tried is not None or voted is not None),
            p.send: gr.update(interactive=tried is not None or voted is not None),
        }

    def _state(self, view: RoundView) -> str:
        if view.state not in ("votable", "void", "pending", "streaming"):
            return ""
        keys = self.say("state.keys", n=len(KINDS)) if view.state == "votable" else ""
        text = self.say(f"state.{view.state}", reason=view.void_reason or "").strip()
        return highlights.message(text, keys=keys)

    def _panes(
        self, view: RoundView, felt: Mapping[Side, Feeling], levels: Mapping[str, Any]
    ) -> Changes:
        p, voted = self.parts, view.receipt
        places: dict[Side, gr.HTML] = {"a": p.pane_a, "b": p.pane_b}
        changes = {}
        for side, place in places.items():
            reply, other = view.replies[side], view.replies["b" if side == "a" else "a"]
            told = None
            if voted:
                who = panes.who(getattr(voted.reveal, side), self.say)
                told = panes.Told(who, other.text, levels.get(side))
            changes[place] = panes.pane(
                side, reply.text, reply.error or self.reason(reply.reason), self.say,
                chosen=bool(voted and side == voted.reveal.chosen), feeling=felt.get(side),
                told=told,
            )  # fmt: skip
        return changes

    def reason(self, reason: str | None) -> str:
        """Why a reply ended, where it did not end by itself."""
        return self.say(f"reason.{reason}") if reason in ("length", "stopped") else ""

    def _reveal(self, session: Session, voted: Receipt, tried: Rehearsal | None) -> str:
        return panes.reveal(
            voted, self.say, recorded=self.recorded, rehearsal=tried is not None,
            kept=bool(session.consent), others=None if tried else self._others(voted),
        )  # fmt: skip

    def _others(self, voted: Receipt) -> PairVotes | None:
        """How others voted on these two models, once there are enough to say so."""
        try:
            one, other = voted.reveal.a.contender, voted.reveal.b.contender
            found = pair_votes(self.arena.store, one, other)
        except ArenaError:
            return None
        return found if found.votes >= ENOUGH else None

    def _levels(self, view: RoundView, tried: Rehearsal | None) -> Mapping[str, Any]:
        """EPITOME's levels of both replies; empty where no SEM gives them."""
        if tried is not None:
            return tried.levels
        context = view.dialogue.turns[-1].content
        try:
            found = self.arena.epitome([(context, view.replies[side].text) for side in SIDES])
        except Exception:
            log.exception("The levels of a round could not be read")
            return {}
        return dict(zip(SIDES, found, strict=False))

    def _examples(self, session: Session) -> str:
        return highlights.examples(self.say, current=session.example)

    def _next(self, session: Session) -> Any:
        if self.recorded:
            return gr.update(visible=False)
        title = next_example(session.example).title
        return gr.update(visible=True, value=self.say("next", title=title))

    def blank(self, session: Session) -> Changes:
        """The page before a round: the recorded one to try, or the turns of a draft."""
        p, dialogue = self.parts, session.dialogue
        return {
            **self.bare(),
            p.steps: "",
            p.examples: self._examples(session),
            p.thread: self._thread(dialogue, Exposure(True, True)),
            p.heard: highlights.heard(None, self.say, written=False),
            p.plots: self.plots(dialogue, {}, {}),
            p.pair: gr.update(visible=False),
        }

    def bare(self) -> Changes:
        """Nothing to vote on, nothing revealed, nothing running; the box is open."""
        p = self.parts
        hidden = gr.update(visible=False)
        return {
            p.notices: "",
            p.message: "",
            p.votes: hidden,
            p.reveal: "",
            p.next: hidden,
            p.keep: hidden,
            p.share: hidden,
            p.card: "",
            p.consent: hidden,
            p.rate: hidden,
            p.examples: highlights.examples(self.say, busy=True),
            p.stop: hidden,
            p.retry: hidden,
            p.box: gr.update(interactive=True),
            p.send: gr.update(interactive=True),
        }

    # What is read in texts ----------------------------------------------------------------------

    def feel(self, replies: Mapping[Side, str]) -> dict[Side, Feeling]:
        """How good each reply sounds; replies without words are left out."""
        said = {side: text for side, text in replies.items() if text}
        return dict(zip(said, self._feelings(list(said.values())), strict=True))

    def _feelings(self, texts: Sequence[str]) -> list[Feeling]:
        wanted = [text for text in dict.fromkeys(texts) if text not in self._felt]
        found = dict(zip(wanted, self.arena.feelings(wanted), strict=True)) if wanted else {}
        for text, feeling in found.items():
            if feeling.source == "sem":
                self._felt[text] = feeling
        while len(self._felt) > REMEMBERED:
            self._felt.pop(next(iter(self._felt)), None)
        return [found.get(text) or self._felt[text] for text in texts]

    def plots(
        self, dialogue: Dialogue, replies: Mapping[Side, str], felt: Mapping[Side, Feeling]
    ) -> str:
        turns = self._feelings([turn.content for turn in dialogue.turns])
        return plots.plots(plots.series(dialogue, turns, replies, felt), self.say)

    def _thread(self, dialogue: Dialogue, show: Exposure, reading: Any = None) -> str:
        turns = dialogue.turns
        last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
        readings = [
            self._reading(dialogue, i, reading if i == last else None)
            if turn.role == "user" and (show.chips or i != last)
            else None
            for i, turn in enumerate(turns)
        ]
        texts = [turn.content for turn in turns]
        felt: Sequence[Feeling | None] = (
            self._feelings(texts) if show.plots else [None] * len(texts)
        )
        return highlights.thread(dialogue, readings, felt, self.say)

    def _reading(self, dialogue: Dialogue, position: int, known: Any) -> Any:
        if known is not None:
            return known
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
