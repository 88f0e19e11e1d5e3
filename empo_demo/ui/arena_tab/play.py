"""Plays a round on the page: opens it, and shows both replies as they are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import gradio as gr

from empo_demo.arena import guards
from empo_demo.arena.arena import Arena
from empo_demo.arena.frames import Frame
from empo_demo.arena.opening import Check
from empo_demo.arena.rounds import OpenedRound
from empo_demo.dialogue import Dialogue
from empo_demo.ui.arena_tab.pictures import Changes, Pictures
from empo_demo.ui.drawing.parts import Parts
from empo_demo.ui.visitors import Session, Visitor
from empo_demo.votes.models import SIDES

FEEL = 0.5
"""Seconds between two readings of the replies while they stream."""


class Play:
    """Bound to one arena and one page; `show` gives the pictures in a visitor's language."""

    def __init__(self, arena: Arena, parts: Parts, show: Callable[[Session], Pictures]) -> None:
        self.arena, self.parts, self._show = arena, parts, show

    def open(
        self,
        session: Session,
        text: str | guards.Judged,
        visitor: Visitor,
        check: Check | None = None,
    ) -> Iterator[Changes]:
        """Open a round on `text`, which continues what the session holds, and play it."""
        return self._play(
            session,
            lambda: self.arena.open_round(
                session.voter,
                self._so_far(session),
                text,
                consent=session.agreed,
                address=visitor.address,
                user=visitor.user,
                example=session.example or None,
                check=check,
            ),
        )

    def again(self, session: Session, visitor: Visitor) -> Iterator[Changes]:
        """Open the session's round again with new replies, and play it."""
        return self._play(
            session,
            lambda: self.arena.retry(session.voter, session.round, address=visitor.address),
        )

    def _so_far(self, session: Session) -> Dialogue:
        """Return the dialogue that the next text continues."""
        if not session.round:
            return session.dialogue
        return self.arena.go_on(session.voter, session.round)

    def _play(self, session: Session, begin: Callable[[], OpenedRound]) -> Iterator[Changes]:
        """Show both replies as they are written. The first words do not wait for the plots."""
        p, show = self.parts, self._show(session)
        try:
            opened = begin()
        except Exception as error:
            yield show.told(error)
            return
        session = session.opened(opened.round_id)
        yield show.opening(session, opened)
        frame, felt_at, said = Frame(dict.fromkeys(SIDES, "")), 0.0, ""
        try:
            with closing(self.arena.stream(session.voter, opened.round_id)) as stream:
                for frame in stream:
                    changes = show.frame(session, frame)
                    # Said once: each frame would write over what Stop has said in the meantime.
                    if changes[p.message] == said:
                        del changes[p.message]
                    said = changes.get(p.message, said)
                    yield changes
                    if opened.show.plots and time.monotonic() - felt_at >= FEEL:
                        felt = show.readings.feel(frame.texts, opened.dialogue)
                        felt_at = time.monotonic()
                        yield {p.plots: show.plots(opened.dialogue, frame.texts, felt)}
            yield show.settled(session, self.arena.find(session.voter, opened.round_id))
        except Exception as error:
            yield {
                **show.frame(session, frame, broken=True),
                **show.told(error),
                p.retry: gr.update(visible=True),
                p.stop: gr.update(visible=False),
            }
