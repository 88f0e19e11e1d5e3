"""What happens on the Arena tab: each handler asks the arena and says what changes on the page.

Handlers are public endpoints in effect, so they trust nothing that they are sent. An `ArenaError`
becomes one visible line; anything else one general line, and a traceback in the log.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

from empo_demo.arena import Arena
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Delta, Failed, Finished
from empo_demo.errors import ArenaError
from empo_demo.metrics.valence import Lexicon, text_valence
from empo_demo.rounds import RATINGS, Exposure, OpenedRound, RoundView, Side
from empo_demo.ui import highlights, plots
from empo_demo.ui.examples import Example
from empo_demo.ui.parts import Parts
from empo_demo.ui.session import REFUSED, Session

log = logging.getLogger(__name__)
Changes = dict[Any, Any]
FRAME = 0.1
"""Seconds between two pictures of a stream: ten a second is all that an eye and a phone want."""
GENERAL = "Something went wrong on our side. Nothing that was stored is lost; try again."
REASONS = {
    "eos": "", "stop": "", "length": "cut off at the length limit", "stopped": "stopped",
}  # fmt: skip
_SIDES: tuple[Side, ...] = ("a", "b")


def told(parts: Parts, error: Exception) -> Changes:
    """The error as a line on the page."""
    if isinstance(error, ArenaError):
        return {parts.message: highlights.message(str(error), error=True)}
    log.error("A handler failed", exc_info=error)
    return {parts.message: highlights.message(GENERAL, error=True)}


class Handlers:
    """Bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, lexicon: Lexicon) -> None:
        self.arena, self.parts, self.lexicon = arena, parts, lexicon
        self._read = functools.lru_cache(maxsize=512)(self._read_uncached)

    # Arriving -----------------------------------------------------------------------------------

    def restore(self, stored: Any) -> Changes:
        """A reload finds its round again, in whatever state it is."""
        p, session = self.parts, Session.read(stored)
        if not session.voter:
            session = Session(voter=self.arena.new_voter())
        changes: Changes = self._blank(session)
        try:
            if session.round:
                changes |= self._settled(session, self.arena.find(session.voter, session.round))
        except ArenaError:
            session = replace(session, round="")
        return {**changes, p.session: session.store(), p.badge: self.badge()}

    def badge(self) -> str:
        return highlights.badge(self.arena.status())

    def agree(self, stored: Any) -> Changes:
        return self._decide(stored, self.arena.consent_text().version)

    def refuse(self, stored: Any) -> Changes:
        return self._decide(stored, REFUSED)

    def _decide(self, stored: Any, consent: str) -> Changes:
        session = replace(self._session(stored), consent=consent)
        p = self.parts
        return {
            p.session: session.store(),
            p.consent: gr.update(visible=False),
            p.message: highlights.message(
                "Nothing of this visit will be kept." if consent == REFUSED else ""
            ),
        }

    # A round ------------------------------------------------------------------------------------

    def choose(self, example: Example, stored: Any) -> Changes:
        """Put an example into the box, and what was said before it into the thread."""
        p = self.parts
        session = replace(
            self._session(stored),
            round="",
            example=example.title,
            draft=tuple(example.before.messages()),
        )
        return {**self._blank(session), p.session: session.store(), p.box: example.text}

    def new(self, stored: Any) -> Changes:
        session = replace(self._session(stored), round="", example="", draft=())
        return {**self._blank(session), self.parts.session: session.store(), self.parts.box: ""}

    def send(self, text: str, stored: Any, address: str | None = None) -> Iterator[Changes]:
        """Open a round on the visitor's text and show both replies as they are written."""
        p, session = self.parts, self._session(stored)
        if not session.consent:
            question = "First choose above whether your words may be kept; both are fine."
            yield {p.message: highlights.message(question, error=True)}
            return
        try:
            opened = self.arena.open_round(
                session.voter,
                self._so_far(session),
                text,
                consent=session.agreed,
                address=address,
                example=session.example or None,
            )
        except Exception as error:
            yield told(p, error)
            return
        yield from self._play(replace(session, round=opened.round_id, draft=()), opened)

    def retry(self, stored: Any) -> Iterator[Changes]:
        """The same text again, with new replies."""
        session = self._session(stored)
        try:
            opened = self.arena.retry(session.voter, session.round)
        except Exception as error:
            yield told(self.parts, error)
            return
        yield from self._play(replace(session, round=opened.round_id), opened)

    def stop(self, stored: Any) -> Changes:
        session = self._session(stored)
        try:
            self.arena.stop(session.voter, session.round)
        except Exception as error:
            return told(self.parts, error)
        return {self.parts.message: highlights.message("Stopping…")}

    def vote(self, verdict: str, stored: Any) -> Changes:
        """Cast the vote; the receipt says who was who."""
        session = self._session(stored)
        try:
            self.arena.vote(session.voter, session.round, verdict)
            view = self.arena.find(session.voter, session.round)
        except Exception as error:
            return told(self.parts, error)
        return self._settled(session, view)

    def rate(self, stored: Any, comment: str, *values: float) -> Changes:
        """The four sliders and the comment, for the reply that the dialogue goes on with."""
        session = self._session(stored)
        ratings = {name: round(v) for name, v in zip(RATINGS, values, strict=True)}
        try:
            self.arena.set_ratings(session.voter, session.round, ratings, comment)
        except Exception as error:
            return told(self.parts, error)
        saved = "Your ratings are stored with the vote. Thank you."
        return {self.parts.message: highlights.message(saved)}

    # Inside -------------------------------------------------------------------------------------

    def _session(self, stored: Any) -> Session:
        session = Session.read(stored)
        return session if session.voter else replace(session, voter=self.arena.new_voter())

    def _so_far(self, session: Session) -> Dialogue:
        """The dialogue that the next text continues."""
        if not session.round:
            return session.dialogue
        return self.arena.go_on(session.voter, session.round)

    def _play(self, session: Session, opened: OpenedRound) -> Iterator[Changes]:
        p = self.parts
        yield self._opening(session, opened)
        texts: dict[Side, str] = {"a": "", "b": ""}
        notes: dict[Side, str] = {}
        last = 0.0
        try:
            with closing(self.arena.stream(session.voter, opened.round_id)) as events:  # type: ignore[type-var]
                for event in events:
                    side: Side = "a" if event.side == "a" else "b"
                    if isinstance(event, Delta):
                        texts[side] += event.text
                    elif isinstance(event, Finished):
                        texts[side], notes[side] = event.text, REASONS[event.reason]
                    elif isinstance(event, Failed):
                        # What a withheld reply had said so far goes from the page, too.
                        texts[side], notes[side] = "", event.error
                    if time.monotonic() - last >= FRAME:
                        last = time.monotonic()
                        yield self._frame(opened.dialogue, texts, notes, opened.show)
            yield self._settled(session, self.arena.find(session.voter, opened.round_id))
        except Exception as error:
            ended: dict[Side, str] = {"a": notes.get("a", ""), "b": notes.get("b", "")}
            yield {
                **self._frame(opened.dialogue, texts, ended, opened.show),
                **told(p, error),
                p.retry: gr.update(visible=True),
                p.stop: gr.update(visible=False),
            }

    def _opening(self, session: Session, opened: OpenedRound) -> Changes:
        p, dialogue = self.parts, opened.dialogue
        state = self.arena.status().state
        waiting = (
            "Both models are reading…"
            if state == "ready"
            else "Your text is stored. The models are still loading; they answer when they are up."
        )
        return {
            **self._bare(),
            p.session: session.store(),
            p.notices: highlights.notices(opened.notices),
            p.thread: self._thread(dialogue, opened.show.chips),
            p.heard: highlights.heard(opened.reading, hidden=not opened.show.chips),
            p.plots: plots.svg(plots.series(dialogue, {}, self.lexicon)),
            p.plot: gr.update(visible=False),
            p.message: highlights.message(waiting),
            p.pair: gr.update(visible=True),
            p.pane_a: highlights.pane("a", "", live=True),
            p.pane_b: highlights.pane("b", "", live=True),
            p.box: gr.update(value="", interactive=False),
            p.send: gr.update(interactive=False),
            p.stop: gr.update(visible=True),
        }

    def _frame(
        self, dialogue: Dialogue, texts: dict[Side, str], notes: dict[Side, str], show: Exposure
    ) -> Changes:
        p = self.parts
        panes = {"a": p.pane_a, "b": p.pane_b}
        live = any(side not in notes for side in _SIDES)
        changes: Changes = {p.message: highlights.message("Both are writing…" if live else "")}
        changes |= {
            panes[side]: highlights.pane(
                side, texts[side], notes.get(side, ""), live=side not in notes
            )
            for side in _SIDES
        }
        if show.plots:
            data = plots.series(dialogue, dict(texts.items()), self.lexicon)
            changes[p.plots] = plots.svg(data)
        return changes

    def _settled(self, session: Session, view: RoundView) -> Changes:
        """The page of a round that does not stream (any more)."""
        p, voted = self.parts, view.receipt
        show = Exposure(True, True) if voted else view.show
        replies = {side: view.replies[side].text for side in _SIDES}
        data = plots.series(view.dialogue, replies if show.plots else {}, self.lexicon)
        reading = voted.reading if voted and voted.reading else view.reading
        lines = {
            "votable": "Read both, then vote (keys 1 to 4).",
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
            for side in _SIDES
        }
        return {
            **self._bare(),
            p.session: session.store(),
            p.thread: self._thread(view.dialogue, show.chips),
            p.heard: highlights.heard(reading, hidden=not show.chips),
            p.plots: gr.update(value=plots.WORDS, visible=True),
            p.plot: gr.update(value=plots.figure(data), visible=True),
            p.message: highlights.message(lines.get(view.state, "")),
            p.pair: gr.update(visible=True),
            p.pane_a: panes["a"],
            p.pane_b: panes["b"],
            p.votes: gr.update(visible=view.state == "votable"),
            p.reveal: highlights.reveal(voted) if voted else "",
            p.rate: gr.update(visible=voted is not None, open=False),
            p.retry: gr.update(visible=view.state in ("void", "pending", "streaming", "votable")),
            p.box: gr.update(interactive=voted is not None),
            p.send: gr.update(interactive=voted is not None),
        }

    def _blank(self, session: Session) -> Changes:
        """The page before a round: perhaps with the turns of an example."""
        p, dialogue = self.parts, session.dialogue
        return {
            **self._bare(),
            p.consent: gr.update(visible=not session.consent),
            p.examples: gr.update(visible=True),
            p.thread: self._thread(dialogue, True),
            p.heard: highlights.heard(None),
            p.plots: plots.svg(plots.series(dialogue, {}, self.lexicon)),
            p.plot: gr.update(value=None, visible=False),
            p.pair: gr.update(visible=False),
        }

    def _bare(self) -> Changes:
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
        return highlights.thread(dialogue, readings, values)

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


def address_of(request: gr.Request | None) -> str | None:
    """The visitor's address for the rate limit; on a Space the proxy's last hop names it."""
    import os

    if request is None or request.client is None:
        return None
    if os.environ.get("SYSTEM") == "spaces":
        hops = (request.headers or {}).get("x-forwarded-for", "").split(",")
        if hops[-1].strip():
            return str(hops[-1].strip())
    return str(request.client.host)


Handler = Callable[..., Any]
