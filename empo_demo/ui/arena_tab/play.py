"""A round on the Arena tab while its replies are written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.arena.rounds import OpenedRound
from empo_demo.engine.protocol import Finished
from empo_demo.ui.arena_tab.pictures import Changes, Pictures
from empo_demo.ui.session import Session
from empo_demo.votes.models import Side

FEEL = 0.5
"""Seconds between two readings of the replies while they stream."""


def play(arena: Arena, show: Pictures, session: Session, opened: OpenedRound) -> Iterator[Changes]:
    """Show both replies as they are written. The first words do not wait for the plots."""
    p = show.parts
    yield show.opening(session, opened)
    texts: dict[Side, str] = {"a": "", "b": ""}
    notes: dict[Side, str] = {}
    felt_at = 0.0
    try:
        with closing(arena.stream(session.voter, opened.round_id)) as stream:
            for frame in stream:
                texts = frame.texts
                notes = {
                    side: show.reason(end.reason)
                    if isinstance(end, Finished)
                    else show.say.own(end.error)
                    for side, end in frame.ends.items()
                }
                yield show.frame(texts, notes, frame.dropped)
                if opened.show.plots and time.monotonic() - felt_at >= FEEL:
                    felt, felt_at = show.readings.feel(texts), time.monotonic()
                    yield {p.plots: show.plots(opened.dialogue, texts, felt)}
        yield show.settled(session, arena.find(session.voter, opened.round_id))
    except Exception as error:
        ended: dict[Side, str] = {"a": notes.get("a", ""), "b": notes.get("b", "")}
        yield {
            **show.frame(texts, ended),
            **show.told(error),
            p.retry: gr.update(visible=True),
            p.stop: gr.update(visible=False),
        }
