"""What happens on the Arena tab: each handler asks the arena and says what changes on the page.

Handlers are public endpoints in effect, so they trust nothing that they are sent. An `ArenaError`
becomes one visible line; anything else one general line, and a traceback in the log.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.rounds import OpenedRound
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Delta, Failed, Finished
from empo_demo.errors import ArenaError, NotAllowed
from empo_demo.metrics.valence import Lexicon
from empo_demo.ui import highlights
from empo_demo.ui.examples import Example
from empo_demo.ui.parts import Parts
from empo_demo.ui.pictures import FRAME, REASONS, Changes, Pictures
from empo_demo.ui.session import REFUSED, Session
from empo_demo.ui.visitors import NOBODY, Visitor
from empo_demo.votes.models import RATINGS, Side

log = logging.getLogger(__name__)


class Handlers:
    """Bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, lexicon: Lexicon) -> None:
        self.arena, self.parts = arena, parts
        self.show = Pictures(arena, parts, lexicon)

    # Arriving -----------------------------------------------------------------------------------

    def restore(self, stored: Any) -> Changes:
        """A reload finds its round again, in whatever state it is."""
        p, session = self.parts, Session.read(stored)
        if not session.voter:
            session = Session(voter=self.arena.new_voter())
        changes: Changes = self.show.blank(session)
        try:
            if session.round:
                changes |= self.show.settled(session, self.arena.find(session.voter, session.round))
        except ArenaError:
            session = replace(session, round="")
        if self.show.recorded:
            changes[p.pick] = self.list_recorded()
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
        return {**self.show.blank(session), p.session: session.store(), p.box: example.text}

    def new(self, stored: Any) -> Changes:
        session = replace(self._session(stored), round="", example="", draft=())
        return {**self.show.blank(session), self.parts.session: session.store(), self.parts.box: ""}

    def send(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Open a round on the visitor's text and show both replies as they are written."""
        p, session = self.parts, self._session(stored)
        if not session.consent:
            question = "First choose above whether your words may be kept; both are fine."
            yield {p.message: highlights.message(question, error=True)}
            return
        warnings = guards.before_sending(text, self.arena.settings.country)
        if warnings and session.warned != _mark(text):
            yield {
                p.session: replace(session, warned=_mark(text)).store(),
                p.notices: highlights.notices(warnings),
                p.message: highlights.message(
                    "Nothing was sent yet. Change your text, or press Send again to send it as it "
                    "is."
                ),
            }
            return
        try:
            opened = self.arena.open_round(
                session.voter,
                self._so_far(session),
                text,
                consent=session.agreed,
                address=visitor.address,
                user=visitor.user,
                example=session.example or None,
            )
        except Exception as error:
            yield self.show.told(error)
            return
        yield from self._play(replace(session, round=opened.round_id, draft=()), opened)

    def recorded(
        self, stored: Any, visitor: Visitor = NOBODY, place: Any = None
    ) -> Iterator[Changes]:
        """A dialogue of the recorded ones, drawn or chosen by its place in their list."""
        session = replace(self._session(stored), round="", example="", draft=())
        try:
            dialogues = self.arena.recorded_dialogues()
            if not dialogues:
                raise NotAllowed("The recorded replies are still loading; try again in a moment.")
            chosen = isinstance(place, int) and 0 <= place < len(dialogues)
            dialogue = dialogues[place] if chosen else random.choice(dialogues)
        except Exception as error:
            yield self.show.told(error)
            return
        session = replace(session, draft=tuple(Dialogue(dialogue.turns[:-1]).messages()))
        text = dialogue.turns[-1].content
        yield from self.send(text, replace(session, warned=_mark(text)).store(), visitor)

    def list_recorded(self) -> Any:
        """The list of recorded dialogues, each by the end of its last turn."""
        try:
            dialogues = self.arena.recorded_dialogues()
        except ArenaError:
            return gr.update()
        names = [
            f"{number}. {dialogue.turns[-1].content[:80]}"
            for number, dialogue in enumerate(dialogues, start=1)
        ]
        return gr.update(choices=names)

    def retry(self, stored: Any) -> Iterator[Changes]:
        """The same text again, with new replies."""
        session = self._session(stored)
        try:
            opened = self.arena.retry(session.voter, session.round)
        except Exception as error:
            yield self.show.told(error)
            return
        yield from self._play(replace(session, round=opened.round_id), opened)

    def stop(self, stored: Any) -> Changes:
        session = self._session(stored)
        try:
            self.arena.stop(session.voter, session.round)
        except Exception as error:
            return self.show.told(error)
        return {self.parts.message: highlights.message("Stopping…")}

    def vote(self, verdict: str, stored: Any) -> Changes:
        """Cast the vote; the receipt says who was who."""
        session = self._session(stored)
        try:
            self.arena.vote(session.voter, session.round, verdict)
            view = self.arena.find(session.voter, session.round)
        except Exception as error:
            return self.show.told(error)
        return self.show.settled(session, view)

    def rate(self, stored: Any, comment: str, *values: float) -> Changes:
        """The four sliders and the comment, for the reply that the dialogue goes on with."""
        session = self._session(stored)
        ratings = {name: round(v) for name, v in zip(RATINGS, values, strict=True)}
        try:
            self.arena.set_ratings(session.voter, session.round, ratings, comment)
        except Exception as error:
            return self.show.told(error)
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
        yield self.show.opening(session, opened)
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
                        yield self.show.frame(opened.dialogue, texts, notes, opened.show)
            yield self.show.settled(session, self.arena.find(session.voter, opened.round_id))
        except Exception as error:
            ended: dict[Side, str] = {"a": notes.get("a", ""), "b": notes.get("b", "")}
            yield {
                **self.show.frame(opened.dialogue, texts, ended, opened.show),
                **self.show.told(error),
                p.retry: gr.update(visible=True),
                p.stop: gr.update(visible=False),
            }


def _mark(text: str) -> str:
    """Tells a text that was warned of from a changed one, without keeping it."""
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()
