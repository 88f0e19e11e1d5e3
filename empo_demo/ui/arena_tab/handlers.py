"""The handlers of the Arena tab. Each asks the arena and returns what changes on the page.

Anyone can call a handler, so none trusts its arguments. An `ArenaError`
becomes one visible line; anything else one general line, and a traceback in the log.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed, NotFound
from empo_demo.ui.arena_tab.arrivals import Arrivals
from empo_demo.ui.arena_tab.pictures import Changes
from empo_demo.ui.arena_tab.play import play
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.arena_tab.share_card import share_card
from empo_demo.ui.drawing import highlights
from empo_demo.ui.examples import examples, next_example
from empo_demo.ui.session import REFUSED, Session
from empo_demo.ui.texts import texts_of
from empo_demo.ui.visitors import NOBODY, Visitor
from empo_demo.votes.models import RATINGS
from empo_demo.votes.verdicts import VERDICTS


class Handlers(Arrivals):
    """Bound to one arena and one page's components."""

    def agree(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        return self._decide(text, stored, self._text_of_consent(stored), visitor)

    def _text_of_consent(self, stored: Any) -> str:
        """Return the version of the consent text that the visitor's page shows."""
        return self.arena.consent_text(Session.read(stored).language).version

    def refuse(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        return self._decide(text, stored, REFUSED, visitor)

    def keep(self, stored: Any) -> Changes:
        """Ask for consent. The visitor has only tried examples so far."""
        p = self.parts
        return {p.consent: gr.update(visible=True), p.keep: gr.update(visible=False)}

    def _decide(self, text: str, stored: Any, consent: str, visitor: Visitor) -> Iterator[Changes]:
        """Store the decision, then send the text that is in the box."""
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
        """Play an example at once. Its round is kept only if the visitor has agreed."""
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
        """Play the example after the last one."""
        following = next_example(self._session(stored).example)
        yield from self.choose(examples().index(following), stored, visitor)

    def send(self, text: str, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Open a round on the visitor's text and show both replies as they are written."""
        p, session = self.parts, self._session(stored)
        say = texts_of(session.language)
        try:
            # Whoever needs help gets it before any question, that for consent too.
            judged = self.arena.judge(text)
        except Exception as error:
            yield self.show(session).told(error)
            return
        if not session.consent:
            hidden = gr.update(visible=False)
            yield {p.consent: gr.update(visible=True), p.keep: hidden, p.notices: ""}
            return
        if judged.warnings and session.warned != _mark(text):
            yield {
                p.session: replace(session, warned=_mark(text)).store(),
                p.notices: highlights.notices(judged.warnings, say),
                p.message: highlights.message(say("warned")),
            }
            return
        yield from self._open(session, judged, visitor)

    def _open(
        self, session: Session, text: str | guards.Judged, visitor: Visitor
    ) -> Iterator[Changes]:
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
        yield from play(
            self.arena,
            self.show(session),
            replace(session, round=opened.round_id, draft=()),
            opened,
        )

    def recorded(
        self, stored: Any, visitor: Visitor = NOBODY, place: Any = None
    ) -> Iterator[Changes]:
        """Play a recorded dialogue: the one at `place` in the list, or a random one."""
        session = replace(self._session(stored), round="", example="", draft=())
        try:
            dialogues = self.arena.models.recorded_dialogues()
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

    def retry(self, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Open the round again with new replies."""
        session = self._session(stored)
        try:
            opened = self.arena.retry(session.voter, session.round, address=visitor.address)
        except Exception as error:
            yield self.show(session).told(error)
            return
        yield from play(
            self.arena, self.show(session), replace(session, round=opened.round_id), opened
        )

    def stopping(self, stored: Any) -> Changes:
        """Say that the round is being stopped.

        This comes before `stop`, whose answer could overwrite what became of the round.
        """
        say = texts_of(self._session(stored).language)
        return {self.parts.message: highlights.message(say("stopping"))}

    def stop(self, stored: Any) -> Changes:
        """Stop the round; its stream shows the rest."""
        session = self._session(stored)
        try:
            self.arena.stop(session.voter, session.round)
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.stop: gr.update(visible=False)}

    def vote(self, verdict: str, stored: Any) -> Changes:
        """Cast the vote and show who was who. A vote on the rehearsal is not stored."""
        session = self._session(stored)
        if not session.round and not self.recorded_replies and verdict in VERDICTS:
            tried = rehearsal()
            return self.show(session).settled(session, tried.voted(verdict), tried)
        try:
            view = self.arena.vote(session.voter, session.round, verdict).view
        except Exception as error:
            return self.show(session).told(error)
        return self.show(session).settled(session, view)

    def rate(self, stored: Any, comment: str, *values: float) -> Changes:
        """Store the four sliders and the comment for the chosen reply."""
        session = self._session(stored)
        ratings: dict[str, Any] = dict(zip(RATINGS, values, strict=True))
        try:
            self.arena.set_ratings(session.voter, session.round, ratings, comment)
        except Exception as error:
            return self.show(session).told(error)
        say = texts_of(session.language)
        return {self.parts.message: highlights.message(say("rate.saved"))}

    def share(self, stored: Any) -> Changes:
        """Make the share card. It is not stored."""
        session = self._session(stored)
        try:
            view = self.arena.find(session.voter, session.round)
            markup = share_card(
                view, self.arena.roster, self.arena.settings.country, texts_of(session.language),
                repeatable=self.arena.models.repeatable,
            )  # fmt: skip
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.card: markup}

    # Inside -------------------------------------------------------------------------------------

    def _so_far(self, session: Session) -> Dialogue:
        """Return the dialogue that the next text continues."""
        if not session.round:
            return session.dialogue
        return self.arena.go_on(session.voter, session.round)


def _mark(text: str) -> str:
    """Return a hash that identifies a text without storing it."""
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()
