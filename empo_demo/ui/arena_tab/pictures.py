"""The Arena tab in each state of a round, as changes to its components.

No decision is taken here; user and model text is escaped by what makes the markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.frames import Frame
from empo_demo.arena.rounds import Exposure, OpenedRound, Receipt, RoundView
from empo_demo.board.habits import Everybody, Share
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.feeling import Feeling
from empo_demo.engine.protocol import Failed, Finished
from empo_demo.errors import ArenaError
from empo_demo.ui import lineup
from empo_demo.ui.arena_tab import ten_results
from empo_demo.ui.arena_tab.rehearsal import Rehearsal
from empo_demo.ui.drawing import highlights, panes, plots
from empo_demo.ui.drawing.parts import Parts
from empo_demo.ui.drawing.readings import Readings
from empo_demo.ui.examples import examples, next_example
from empo_demo.ui.texts import Texts
from empo_demo.ui.visitors import TEN, Session
from empo_demo.votes.models import KINDS, SIDES, Side
from empo_demo.votes.stats import ENOUGH, PairVotes, pairs_of, situation_votes

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Epitome, Reading

Changes = dict[Any, Any]


def _turn(session: Session) -> tuple[int, int] | None:
    """Which of ten situations is open, and of how many."""
    return (session.ten.turn, TEN) if session.ten and session.ten.turn else None


class Pictures:
    """Bound to one arena, one page's components and one language."""

    def __init__(
        self, arena: Arena, parts: Parts, say: Texts, readings: Readings, everybody: Everybody
    ) -> None:
        self.arena, self.parts, self.say, self.readings = arena, parts, say, readings
        self.everybody = everybody
        self.recorded = arena.roster.recorded

    def told(self, error: Exception) -> Changes:
        """Show an error as one line; in a crisis the way to help, alone."""
        if isinstance(error, guards.HelpFirst):
            return self.help(error)
        return {self.parts.message: highlights.told(error, self.say)}

    def help(self, error: guards.HelpFirst) -> Changes:
        """Show where help is, and nothing of a round beside it. The text stays in the box."""
        p = self.parts
        return {
            **self.bare(),
            p.notices: highlights.told(error, self.say),
            p.examples: "",
            p.steps: "",
            p.thread: "",
            p.heard: "",
            p.plots: "",
            p.pair: gr.update(visible=False),
        }

    # The states of a round ----------------------------------------------------------------------

    def opening(self, session: Session, opened: OpenedRound) -> Changes:
        p, say, dialogue = self.parts, self.say, opened.dialogue
        return {
            **self.bare(),
            p.session: session.store(),
            p.steps: highlights.steps("read", say, waiting=True, turn=_turn(session)),
            p.notices: highlights.notices(opened.notices, say),
            p.thread: self._thread(dialogue, opened.show, opened.reading, quick=True),
            p.heard: highlights.heard(opened.reading, say, hidden=not opened.show.chips),
            p.plots: "",
            p.message: highlights.message(self._waiting()),
            p.pair: gr.update(visible=True),
            p.pane_a: panes.pane("a", "", "", say, live=True),
            p.pane_b: panes.pane("b", "", "", say, live=True),
            p.box: gr.update(value="", placeholder=say("box.vote")),
            p.send: gr.update(interactive=False),
            p.stop: gr.update(visible=True),
        }

    def _waiting(self) -> str:
        """Say why no reply is written yet."""
        if self.arena.models.status().state != "ready":
            return self.say("loading")
        ahead = self.arena.models.ahead()
        if not ahead:
            return self.say("reading")
        return self.say.count("ahead", ahead)

    def frame(self, session: Session, frame: Frame, *, broken: bool = False) -> Changes:
        """Show the replies so far; of a `broken` stream nothing more comes."""
        p = self.parts
        places = {"a": p.pane_a, "b": p.pane_b}
        notes = {side: self._note(end) for side, end in frame.ends.items()}
        open_sides = () if broken else [side for side in SIDES if side not in notes]
        writing = self.say("writing") if open_sides else ""
        changes: Changes = {
            p.message: highlights.message(f"{writing} {self.say.dropped(frame.dropped)}".strip()),
            p.steps: highlights.steps("write", self.say, waiting=True, turn=_turn(session)),
        }
        small = panes.is_long(frame.texts.values())
        for side in SIDES:
            changes[places[side]] = panes.pane(
                side,
                frame.texts[side],
                notes.get(side, ""),
                self.say,
                live=side in open_sides,
                small=small,
            )
        return changes

    def _note(self, end: Finished | Failed) -> str:
        return self.say.own(end.error) if isinstance(end, Failed) else self.reason(end.reason)

    def settled(self, session: Session, view: RoundView, tried: Rehearsal | None = None) -> Changes:
        """Show a round that is not streaming."""
        p, say, voted = self.parts, self.say, view.receipt
        show = Exposure(True, True) if voted else view.show
        replies: dict[Side, str] = {side: view.replies[side].text for side in SIDES}
        # What was broken off stands in its pane, and is compared with nothing.
        drawn: dict[Side, str] = {} if view.state == "void" else replies
        felt = self.readings.feel(drawn, view.dialogue, explained=True) if show.plots else {}
        reading = voted.reading if voted and voted.reading else view.reading
        votable = view.state == "votable"
        step = "done" if voted else "vote" if votable else "write"
        levels: Mapping[Side, Epitome] = {}
        if voted and not (reading and reading.abstains):
            said = view.dialogue.turns[-1].content
            levels = tried.levels if tried else self.readings.levels(said, replies)
        undecided = bool(voted and not session.consent and not tried)
        may_write = tried is not None or voted is not None
        return {
            **self.bare(),
            p.session: session.store(),
            p.steps: highlights.steps(
                step,
                say,
                rehearsal=tried is not None,
                waiting=not may_write,
                turn=None if tried else _turn(session),
            ),
            p.notices: highlights.notices(guards.notices_of(view.notices), say),
            p.thread: self._thread(view.dialogue, show, reading),
            p.heard: highlights.heard(reading, say, hidden=not show.chips),
            p.plots: self.plots(view.dialogue, drawn, felt, finished=votable or bool(voted))
            if show.plots
            else "",
            p.message: "" if tried else self._state(view),
            p.pair: gr.update(visible=True),
            **self._panes(view, felt, levels),
            p.votes: gr.update(visible=votable),
            p.reveal: self._reveal(session, view, voted, tried) if voted else "",
            p.go_on: self._go_on(voted) if voted and not tried and not session.ten else "",
            p.examples: "" if session.ten and not tried else self._examples(session),
            p.next: self._next(session) if voted else gr.update(visible=False),
            p.ten: self._ten(session, shown=voted is not None or tried is not None),
            p.results: self._results(session) if voted and not tried else "",
            p.keep: gr.update(visible=undecided),
            p.share: gr.update(visible=voted is not None and not tried),
            p.rate: gr.update(visible=voted is not None and not tried, open=False),
            p.retry: gr.update(
                visible=not tried
                and view.retry
                and view.state in ("void", "pending", "streaming", "votable")
            ),
            p.box: gr.update(placeholder=say(self._asked(may_write, voted, tried))),
            p.send: gr.update(interactive=may_write),
        }

    def _asked(self, may_write: bool, voted: Receipt | None, tried: Rehearsal | None) -> str:
        """The key of what the box asks for."""
        if not may_write:
            return "box.vote"
        return "box.on" if voted and not tried else "box"

    def _go_on(self, voted: Receipt) -> str:
        """What the box is for after a vote, and who will answer."""
        if self.recorded:
            return f'<p class="quiet">{escape(self.say("reveal.go_on.recorded"))}</p>'
        key = "reveal.go_on.two" if len(lineup.drawn(self.arena.roster)) == 2 else "reveal.go_on"
        title, told = self.say("go_on"), self.say(key, side=voted.reveal.chosen.upper())
        return f'<h3>{escape(title)}</h3><p class="quiet">{escape(told)}</p>'

    def _state(self, view: RoundView) -> str:
        dropped = self.say.dropped(view.dropped_exchanges)
        if view.state not in ("votable", "void", "pending", "streaming"):
            return highlights.message(dropped)
        keys = self.say("state.keys", n=len(KINDS)) if view.state == "votable" else ""
        reason = self.say.own(view.void_reason or "")
        state = view.state if view.retry else "hopeless"
        text = f"{self.say(f'state.{state}', reason=reason).strip()} {dropped}".strip()
        return highlights.message(text, keys=keys)

    def _panes(
        self, view: RoundView, felt: Mapping[Side, Feeling], levels: Mapping[Side, Epitome]
    ) -> Changes:
        p, voted = self.parts, view.receipt
        places: dict[Side, gr.HTML] = {"a": p.pane_a, "b": p.pane_b}
        changes = {}
        small = panes.is_long(reply.text for reply in view.replies.values())
        for side, place in places.items():
            reply = view.replies[side]
            readings = None
            if voted:
                who = panes.who(getattr(voted.reveal, side), self.say)
                readings = panes.Told(who, levels=levels.get(side))
            changes[place] = panes.pane(
                side,
                reply.text,
                self.say.own(reply.error or "") or self.reason(reply.reason),
                self.say,
                chosen=bool(voted and side == voted.reveal.chosen),
                feeling=felt.get(side),
                told=readings,
                small=small,
            )
        return changes

    def reason(self, reason: str | None) -> str:
        """Say why a reply ended, unless it ended by itself."""
        return self.say(f"reason.{reason}") if reason in ("length", "stopped") else ""

    def _reveal(
        self, session: Session, view: RoundView, voted: Receipt, tried: Rehearsal | None
    ) -> str:
        counts = session.agreed is not None and not tried
        return panes.reveal(
            voted,
            self.say,
            rehearsal=tried is not None,
            kept=bool(session.consent),
            helped=self._helped(session) if counts else None,
            others=None if tried else self._others(view, voted),
        )

    def _helped(self, session: Session) -> int | None:
        """How many pairs the visitor's votes have made; None if that cannot be counted now."""
        try:
            return pairs_of(self.arena.store, session.voter)
        except ArenaError:
            return None

    def _others(self, view: RoundView, voted: Receipt) -> PairVotes | None:
        """How others voted on these two models in this situation; None for a situation that is not
        an example, and for too few or too young votes."""
        if voted.reveal.attention_check or view.dialogue not in {
            example.whole for example in examples()
        }:
            return None
        try:
            one, other = voted.reveal.a, voted.reveal.b
            votes = situation_votes(
                self.arena.store,
                view.dialogue,
                (one.contender, other.contender),
                (one.revision, other.revision),
            )
        except ArenaError:
            return None
        return votes if votes.votes >= ENOUGH else None

    def _examples(self, session: Session) -> str:
        return highlights.examples(self.say, current=session.example)

    def _ten(self, session: Session, *, shown: bool) -> Any:
        """The button that begins ten situations: before them, between rounds, and after them."""
        begun = session.ten is not None and 0 < session.ten.turn < TEN
        return gr.update(visible=shown and not begun and not self.recorded)

    def _results(self, session: Session) -> str:
        """What the visitor preferred, once all ten are judged."""
        if session.ten is None or not session.ten.done:
            return ""
        return ten_results.results(
            self.rounds_of(session), self._shares(), self.say, kept=session.agreed is not None
        )

    def _shares(self) -> Mapping[str, Share | None]:
        try:
            return self.everybody.shares()
        except ArenaError:
            return {}

    def rounds_of(self, session: Session) -> list[RoundView]:
        """The rounds of the ten so far; without those that are erased by now."""
        found = []
        for round_id in session.ten.rounds if session.ten else ():
            with suppress(ArenaError):
                found.append(self.arena.find(session.voter, round_id))
        return found

    def _next(self, session: Session) -> Any:
        if self.recorded or (session.ten and session.ten.done):
            return gr.update(visible=False)
        if session.ten:
            told = self.say("ten.next", n=session.ten.turn + 1, all=TEN)
            return gr.update(visible=True, value=told, variant="primary")
        title = next_example(session.example).title
        told = self.say("next", title=title)
        return gr.update(visible=True, value=told, variant="secondary")

    def blank(self, session: Session) -> Changes:
        """Show the page before a round, with the turns of a draft.

        The SEM does not read a draft: any browser can make drafts up, as often as it likes.
        """
        p, dialogue = self.parts, session.dialogue
        unread = [None] * len(dialogue.turns)
        return {
            **self.bare(),
            p.steps: "",
            p.examples: self._examples(session),
            p.ten: self._ten(session, shown=True),
            p.thread: highlights.thread(dialogue, unread, unread, self.say),
            p.heard: highlights.heard(None, self.say, written=False),
            p.plots: "" if dialogue.turns else self.plots(dialogue, {}, {}),
            p.pair: gr.update(visible=False),
        }

    def bare(self) -> Changes:
        """Hide everything that belongs to one state of a round, and open the box."""
        p = self.parts
        hidden = gr.update(visible=False)
        return {
            p.notices: "",
            p.warning: "",
            p.message: "",
            p.votes: hidden,
            p.reveal: "",
            p.go_on: "",
            p.next: hidden,
            p.keep: hidden,
            p.ten: hidden,
            p.results: "",
            p.share: hidden,
            p.card: "",
            p.consent: hidden,
            p.rate: hidden,
            **dict.fromkeys(p.ratings),
            p.examples: highlights.examples(self.say, busy=True),
            p.stop: hidden,
            p.retry: hidden,
            p.box: gr.update(placeholder=self.say("box")),
            p.send: gr.update(interactive=True),
        }

    # What is read in texts ----------------------------------------------------------------------

    def plots(
        self,
        dialogue: Dialogue,
        replies: Mapping[Side, str],
        felt: Mapping[Side, Feeling],
        *,
        finished: bool = False,
    ) -> str:
        """Draw valence and new words of the dialogue with `replies` at its end."""
        turns = self.readings.turns(dialogue)
        data = plots.series(dialogue, turns, replies, felt, finished=finished)
        return plots.plots(data, self.say)

    def _thread(
        self, dialogue: Dialogue, show: Exposure, reading: Reading | None, *, quick: bool = False
    ) -> str:
        """Show the dialogue. `reading` is that of its last turn; `quick` does not ask the SEM."""
        turns = dialogue.turns
        last = len(turns) - 1
        readings: list[Reading | None] = [None] * len(turns)
        for i, turn in enumerate(turns):
            if i == last and (reading is not None or quick):
                readings[i] = reading
            elif turn.role == "user" and (show.chips or i != last):
                readings[i] = self.readings.reading(turns[: i + 1])
        felt: Sequence[Feeling | None] = [None] * len(turns)
        if show.plots and not quick:
            self.readings.feelings([turn.content for turn in turns[-1:]], explained=True)
            felt = self.readings.turns(dialogue)
        return highlights.thread(dialogue, readings, felt, self.say)
