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
from empo_demo.arena.frames import frames
from empo_demo.arena.rounds import OpenedRound
from empo_demo.dialogue import Dialogue
from empo_demo.engine.protocol import Finished
from empo_demo.errors import ArenaError, NotAllowed, NotFound
from empo_demo.ui import highlights
from empo_demo.ui.card import card
from empo_demo.ui.examples import examples, next_example
from empo_demo.ui.parts import Labels, Parts
from empo_demo.ui.pictures import Changes, Pictures
from empo_demo.ui.rehearsal import rehearsal
from empo_demo.ui.session import REFUSED, Session
from empo_demo.ui.texts import LANGUAGES, preferred, texts_of
from empo_demo.ui.visitors import NOBODY, Visitor
from empo_demo.votes.models import RATINGS, Side
from empo_demo.votes.verdicts import VERDICTS

log = logging.getLogger(__name__)
FEEL = 0.5
"""Seconds between two readings of the replies while they stream."""


class Handlers:
    """Bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, labels: Labels) -> None:
        self.arena, self.parts, self.labels = arena, parts, labels
        self._pictures = {
            language: Pictures(arena, parts, texts_of(language)) for language in LANGUAGES
        }
        self.recorded_replies = arena.roster.recorded

    def show(self, session: Session) -> Pictures:
        """The pictures in the visitor's language."""
        return self._pictures.get(session.language, self._pictures[LANGUAGES[0]])

    # Arriving -----------------------------------------------------------------------------------

    def restore(self, stored: Any, language: str = "") -> Changes:
        """A reload finds its round again, in whatever state it is.

        `language` is what the browser asks for; a choice that was made here goes before it.
        """
        p, session = self.parts, Session.read(stored)
        if not session.voter:
            session = replace(session, voter=self.arena.new_voter())
        if session.language not in LANGUAGES:
            session = replace(session, language=preferred(language))
        changes = self._blank(session)
        try:
            if session.round:
                view = self.arena.find(session.voter, session.round)
                changes |= self.show(session).settled(session, view)
        except ArenaError:
            session = replace(session, round="")
        if self.recorded_replies:
            changes[p.pick] = self.list_recorded()
        # The page is laid out in English: what is English already need not travel.
        if session.language != LANGUAGES[0] or not language:
            for component, words in self.labels.changes(texts_of(session.language)).items():
                changes[component] = {**words, **_update(changes.get(component))}
        return {**changes, p.session: session.store(), p.badge: self.badge(session)}

    def first(self) -> Changes:
        """The first screen, as it is laid out before anyone asked for it."""
        session = Session()
        return {k: v for k, v in self._blank(session).items() if k is not self.parts.session}

    def switch(self, stored: Any) -> Changes:
        """The page in the other language."""
        session = Session.read(stored)
        place = LANGUAGES.index(session.language) if session.language in LANGUAGES else 0
        following = LANGUAGES[(place + 1) % len(LANGUAGES)]
        return self.restore(replace(session, language=following).store())

    def badge(self, session: Session | None = None) -> str:
        say = texts_of(session.language if session else LANGUAGES[0])
        return highlights.badge(self.arena.status(), say)

    def _blank(self, session: Session) -> Changes:
        """The page before a round: the recorded one to try, unless a dialogue has begun."""
        show = self.show(session)
        changes = show.blank(session)
        if not (session.draft or self.recorded_replies):
            tried = rehearsal()
            changes |= show.settled(session, tried.view, tried)
        return changes

    def agree(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        return self._decide(text, stored, self.arena.consent_text().version, visitor)

    def refuse(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        return self._decide(text, stored, REFUSED, visitor)

    def keep(self, stored: Any) -> Changes:
        """The question of consent, for a visitor who has only tried examples so far."""
        p = self.parts
        return {p.consent: gr.update(visible=True), p.keep: gr.update(visible=False)}

    def _decide(self, text: str, stored: Any, consent: str, visitor: Visitor) -> Iterator[Changes]:
        """Note the decision, and send what waits in the box."""
        session = replace(self._session(stored), consent=consent)
        p, say = self.parts, texts_of(session.language)
        yield {
            p.session: session.store(),
            p.consent: gr.update(visible=False),
            p.message: highlights.message(say("consent.nothing") if consent == REFUSED else ""),
        }
        if isinstance(text, str) and text.strip():
            yield from self.send(text, session.store(), visitor)

    # A round ------------------------------------------------------------------------------------

    def choose(self, place: Any, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Play an example at once. Where nobody has agreed yet, its round is not kept."""
        known = examples()
        if type(place) is not int or not 0 <= place < len(known):
            yield self.show(self._session(stored)).told(NotFound("There is no such example."))
            return
        example = known[place]
        session = replace(
            self._session(stored),
            round="",
            example=example.title,
            draft=tuple(example.before.messages()),
        )
        yield from self._open(session, example.text, visitor)

    def next(self, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """The example after the last one."""
        following = next_example(self._session(stored).example)
        yield from self.choose(examples().index(following), stored, visitor)

    def new(self, stored: Any) -> Changes:
        session = replace(self._session(stored), round="", example="", draft=())
        return {**self._blank(session), self.parts.session: session.store(), self.parts.box: ""}

    def send(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Open a round on the visitor's text and show both replies as they are written."""
        p, session = self.parts, self._session(stored)
        say = texts_of(session.language)
        if not session.consent:
            yield {p.consent: gr.update(visible=True), p.keep: gr.update(visible=False)}
            return
        try:
            warnings = guards.before_sending(text, self.arena.settings.country)
        except Exception as error:
            yield self.show(session).told(error)
            return
        if warnings and session.warned != _mark(text):
            yield {
                p.session: replace(session, warned=_mark(text)).store(),
                p.notices: highlights.notices(warnings),
                p.message: highlights.message(say("warned")),
            }
            return
        yield from self._open(session, text, visitor)

    def _open(self, session: Session, text: str, visitor: Visitor) -> Iterator[Changes]:
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
            yield self.show(session).told(error)
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
                raise NotAllowed(texts_of(session.language)("recorded.loading"))
            chosen = isinstance(place, int) and 0 <= place < len(dialogues)
            dialogue = dialogues[place] if chosen else random.choice(dialogues)
        except Exception as error:
            yield self.show(session).told(error)
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

    def retry(self, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """The same text again, with new replies."""
        session = self._session(stored)
        try:
            opened = self.arena.retry(session.voter, session.round, address=visitor.address)
        except Exception as error:
            yield self.show(session).told(error)
            return
        yield from self._play(replace(session, round=opened.round_id), opened)

    def stop(self, stored: Any) -> Changes:
        session = self._session(stored)
        try:
            self.arena.stop(session.voter, session.round)
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.message: highlights.message(texts_of(session.language)("stopping"))}

    def vote(self, verdict: str, stored: Any) -> Changes:
        """Cast the vote; the receipt says who was who. A rehearsal's counts nowhere."""
        session = self._session(stored)
        if not session.round and not self.recorded_replies and verdict in VERDICTS:
            tried = rehearsal()
            return self.show(session).settled(session, tried.voted(verdict), tried)
        try:
            self.arena.vote(session.voter, session.round, verdict)
            view = self.arena.find(session.voter, session.round)
        except Exception as error:
            return self.show(session).told(error)
        return self.show(session).settled(session, view)

    def rate(self, stored: Any, comment: str, *values: float) -> Changes:
        """The four sliders and the comment, for the reply that the dialogue goes on with."""
        session = self._session(stored)
        ratings: dict[str, Any] = dict(zip(RATINGS, values, strict=True))
        try:
            self.arena.set_ratings(session.voter, session.round, ratings, comment)
        except Exception as error:
            return self.show(session).told(error)
        say = texts_of(session.language)
        return {self.parts.message: highlights.message(say("rate.saved"))}

    def share(self, stored: Any) -> Changes:
        """A finished comparison as a picture, made now and kept nowhere."""
        session = self._session(stored)
        try:
            view = self.arena.find(session.voter, session.round)
            markup = card(view, self.arena.settings.country, texts_of(session.language))
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.card: markup}

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
        p, show = self.parts, self.show(session)
        yield show.opening(session, opened)
        texts: dict[Side, str] = {"a": "", "b": ""}
        notes: dict[Side, str] = {}
        felt_at = 0.0
        try:
            with closing(frames(self.arena.stream(session.voter, opened.round_id))) as stream:  # type: ignore[type-var]
                for frame in stream:
                    texts = frame.texts
                    notes = {
                        side: show.reason(end.reason) if isinstance(end, Finished) else end.error
                        for side, end in frame.ends.items()
                    }
                    felt, now = None, time.monotonic()
                    if opened.show.plots and now - felt_at >= FEEL:
                        felt, felt_at = show.feel(texts), now
                    yield show.frame(opened.dialogue, texts, notes, opened.show, felt)
            yield show.settled(session, self.arena.find(session.voter, opened.round_id))
        except Exception as error:
            ended: dict[Side, str] = {"a": notes.get("a", ""), "b": notes.get("b", "")}
            yield {
                **show.frame(opened.dialogue, texts, ended, opened.show),
                **show.told(error),
                p.retry: gr.update(visible=True),
                p.stop: gr.update(visible=False),
            }


def _update(change: Any) -> dict[str, Any]:
    """A change as the properties that it sets."""
    if change is None:
        return {}
    return change if isinstance(change, dict) else {"value": change}


def _mark(text: str) -> str:
    """Tells a text that was warned of from a changed one, without keeping it."""
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()
