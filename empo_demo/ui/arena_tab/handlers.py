"""The handlers of the Arena tab. Each asks the arena and returns what changes on the page.

Anyone can call a handler, so none trusts its arguments. An `ArenaError`
becomes one visible line; anything else one general line, and a traceback in the log.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.opening import Check
from empo_demo.board.habits import Everybody
from empo_demo.dialogue import Dialogue
from empo_demo.errors import ArenaError, NotAllowed, NotFound
from empo_demo.ui import lineup
from empo_demo.ui.arena_tab.pictures import Changes, Pictures
from empo_demo.ui.arena_tab.play import Play
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.arena_tab.share_card import share_card
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels, Parts
from empo_demo.ui.drawing.readings import Readings
from empo_demo.ui.examples import examples, next_example
from empo_demo.ui.texts import LANGUAGES, Texts, preferred, texts_of
from empo_demo.ui.visitors import NOBODY, REFUSED, Session, Ten, Visitor
from empo_demo.votes.models import RATINGS, VERDICTS


class Handlers:
    """Bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, labels: Labels) -> None:
        self.arena, self.parts, self.labels = arena, parts, labels
        everybody = Everybody(arena.store)
        readings = Readings(arena, {} if arena.roster.recorded else rehearsal().feelings)
        self._pictures = {
            language: Pictures(arena, parts, texts_of(language), readings, everybody)
            for language in LANGUAGES
        }
        self.recorded_replies = arena.roster.recorded
        self._play = Play(arena, parts, self.show)

    def show(self, session: Session) -> Pictures:
        """Return the pictures in the visitor's language."""
        return self._pictures.get(session.language, self._pictures[LANGUAGES[0]])

    # Before a round, after a reload, and in another language -------------------------------------

    def restore(self, stored: Any, language: str = "") -> Changes:
        """Show the visitor's round again after a reload, whatever its state.

        `language` is the browser's. A language that the visitor chose here takes precedence.
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
        except guards.HelpFirst as error:
            session = replace(session, round="", ten=None)
            changes |= self.show(session).help(error)
        except ArenaError:
            session = replace(session, round="", ten=None)
            changes |= self._blank(session)
        if self.recorded_replies:
            changes[p.pick] = self.list_recorded()
        # The layout is in English, so an English visitor needs no other words.
        if session.language != LANGUAGES[0] or not language:
            for component, words in self.labels.changes(texts_of(session.language)).items():
                changes[component] = {**words, **_update(changes.get(component))}
        return {
            **changes,
            p.session: session.store(),
            p.badge: self.badge(texts_of(session.language)),
            p.pair_note: self.pair_note(texts_of(session.language)),
        }

    def first(self) -> Changes:
        """Return the first screen for the layout."""
        session = Session()
        return {k: v for k, v in self._blank(session).items() if k is not self.parts.session}

    def switch(self, stored: Any) -> Changes:
        """Show the page in the other language."""
        session = Session.read(stored)
        place = LANGUAGES.index(session.language) if session.language in LANGUAGES else 0
        following = LANGUAGES[(place + 1) % len(LANGUAGES)]
        return self.restore(replace(session, language=following).store())

    def badge(self, say: Texts) -> str:
        """Return what runs, where, and whether it is ready."""
        return lineup.badge(self.arena, say)

    def pair_note(self, say: Texts) -> str:
        """Return who meets, what they are, and what the loading does now."""
        return lineup.note(self.arena, say)

    def new(self, stored: Any) -> Changes:
        """Start again with an empty dialogue. A round that is being answered is stopped."""
        p, old = self.parts, self._session(stored)
        session = replace(old, round="", example="", draft=(), ten=None)
        with suppress(ArenaError):  # the page must come anew whatever became of the old round
            self.arena.stop(old.voter, old.round)
        changes = self._blank(session)
        changes[p.box] = {**_update(changes[p.box]), "value": ""}
        return {**changes, p.session: session.store()}

    def list_recorded(self) -> Any:
        """List the recorded dialogues, each by the start of its last turn."""
        try:
            dialogues = self.arena.models.recorded_dialogues()
        except ArenaError:
            return gr.update()
        names = [
            f"{number}. {dialogue.turns[-1].content[:80]}"
            for number, dialogue in enumerate(dialogues, start=1)
        ]
        return gr.update(choices=names)

    # Consent ------------------------------------------------------------------------------------

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
        elif session.ten and not session.ten.turn:
            yield from self._judge(session, visitor)

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
            ten=None,
        )
        yield from self._play.open(session, example.text, visitor)

    def next(self, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Play the next one of ten situations, or else the example after the last one."""
        session = self._session(stored)
        if session.ten and not session.ten.done:
            yield from self._judge(session, visitor)
            return
        following = next_example(session.example)
        yield from self.choose(examples().index(following), stored, visitor)

    def ten(self, stored: Any, visitor: Visitor = NOBODY) -> Iterator[Changes]:
        """Begin ten situations in a row, after the question of consent."""
        p = self.parts
        session = replace(self._session(stored), round="", ten=Ten.draw())
        if session.consent:
            yield from self._judge(session, visitor)
            return
        say = texts_of(session.language)
        yield {
            p.session: session.store(),
            p.consent: gr.update(visible=True),
            p.keep: gr.update(visible=False),
            p.message: highlights.message(say("ten.told")),
        }

    def _judge(self, session: Session, visitor: Visitor) -> Iterator[Changes]:
        """Play the next one of the ten situations; one of them is an attention check."""
        ten = session.ten
        assert ten is not None, "its callers have looked"
        if session.round and ten.turn and not self._voted(session):
            yield self.show(session).told(NotAllowed("Vote first, then the next one comes."))
            return
        example = ten.next
        check = Check(ten.check_now(self.show(session).rounds_of(session)), example.emotion)
        draft = tuple(example.before.messages())
        session = replace(session, round="", example=example.title, draft=draft)
        yield from self._play.open(session, example.text, visitor, check)

    def _voted(self, session: Session) -> bool:
        """Whether the open round has its vote; an erased one needs none any more."""
        try:
            return self.arena.find(session.voter, session.round).receipt is not None
        except ArenaError:
            return True

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
            yield {p.consent: gr.update(visible=True), p.keep: hidden, p.warning: ""}
            return
        if judged.warnings and session.warned != _mark(text):
            yield {
                p.session: replace(session, warned=_mark(text)).store(),
                p.warning: highlights.notices(judged.warnings, say)
                + highlights.message(say("warned")),
                p.message: "",
            }
            return
        yield from self._play.open(replace(session, ten=None), judged, visitor)

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
        return self._play.again(session, visitor)

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

    def rate(self, stored: Any, comment: str, *values: float | None) -> Changes:
        """Store the answered scales and the comment for the chosen reply."""
        session = self._session(stored)
        say = texts_of(session.language)
        answers = zip(RATINGS, values, strict=True)
        ratings: dict[str, Any] = {name: value for name, value in answers if value is not None}
        if not ratings and not str(comment or "").strip():
            return {self.parts.message: highlights.message(say("rate.none"))}
        try:
            self.arena.set_ratings(session.voter, session.round, ratings, comment)
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.message: highlights.message(say("rate.saved"))}

    def share(self, stored: Any) -> Changes:
        """Make the share card. It is not stored."""
        session = self._session(stored)
        try:
            view = self.arena.find(session.voter, session.round)
            markup = share_card(
                view,
                self.arena.roster,
                self.arena.settings.country,
                texts_of(session.language),
                repeatable=self.arena.models.repeatable,
            )
        except Exception as error:
            return self.show(session).told(error)
        return {self.parts.card: markup}

    # Inside -------------------------------------------------------------------------------------

    def _blank(self, session: Session) -> Changes:
        """Return the page before a round, with the recorded round unless a dialogue has begun."""
        show = self.show(session)
        changes = show.blank(session)
        if not (session.draft or self.recorded_replies):
            tried = rehearsal()
            changes |= show.settled(session, tried.view, tried)
        return changes

    def _session(self, stored: Any) -> Session:
        session = Session.read(stored)
        return session if session.voter else replace(session, voter=self.arena.new_voter())


def _mark(text: str) -> str:
    """Return a hash that identifies a text without storing it."""
    return hashlib.sha256(text.encode("utf8", "replace")).hexdigest()


def _update(change: Any) -> dict[str, Any]:
    """Return a change as the properties that it sets."""
    if change is None:
        return {}
    return change if isinstance(change, dict) else {"value": change}
