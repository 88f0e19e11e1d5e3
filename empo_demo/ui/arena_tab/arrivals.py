"""The Arena tab before a round, after a reload, and in another language."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.arena.guards import HelpFirst
from empo_demo.errors import ArenaError
from empo_demo.ui.arena_tab.pictures import Changes, Pictures
from empo_demo.ui.arena_tab.rehearsal import rehearsal
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels, Parts
from empo_demo.ui.drawing.readings import Readings
from empo_demo.ui.session import Session
from empo_demo.ui.texts import LANGUAGES, Texts, preferred, texts_of


class Arrivals:
    """Handlers bound to one arena and one page's components."""

    def __init__(self, arena: Arena, parts: Parts, labels: Labels) -> None:
        self.arena, self.parts, self.labels = arena, parts, labels
        readings = Readings(arena, {} if arena.roster.recorded else rehearsal().feelings)
        self._pictures = {
            language: Pictures(arena, parts, texts_of(language), readings) for language in LANGUAGES
        }
        self.recorded_replies = arena.roster.recorded

    def show(self, session: Session) -> Pictures:
        """Return the pictures in the visitor's language."""
        return self._pictures.get(session.language, self._pictures[LANGUAGES[0]])

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
        except HelpFirst as error:
            session = replace(session, round="")
            changes |= self.show(session).help(error)
        except ArenaError:
            session = replace(session, round="")
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
        """Return the badge that says whether the models are ready."""
        return highlights.badge(self.arena.models.status(), say)

    def pair_note(self, say: Texts) -> str:
        """Return what the loading does now, and which pair answers."""
        return highlights.pair_note(self.arena.models.status(), say)

    def _blank(self, session: Session) -> Changes:
        """Return the page before a round, with the recorded round unless a dialogue has begun."""
        show = self.show(session)
        changes = show.blank(session)
        if not (session.draft or self.recorded_replies):
            tried = rehearsal()
            changes |= show.settled(session, tried.view, tried)
        return changes

    def new(self, stored: Any) -> Changes:
        """Start again with an empty dialogue. A round that is being answered is stopped."""
        p, old = self.parts, self._session(stored)
        session = replace(old, round="", example="", draft=())
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

    def _session(self, stored: Any) -> Session:
        session = Session.read(stored)
        return session if session.voter else replace(session, voter=self.arena.new_voter())


def _update(change: Any) -> dict[str, Any]:
    """Return a change as the properties that it sets."""
    if change is None:
        return {}
    return change if isinstance(change, dict) else {"value": change}
