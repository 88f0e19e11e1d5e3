"""The About tab: what this is, what is kept, who made what, and its limits."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from empo_demo import __version__
from empo_demo.ui import highlights
from empo_demo.ui.parts import Labels
from empo_demo.ui.texts import Texts, texts_of

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.metrics.valence import Lexicon


def build(arena: Arena, lexicon: Lexicon, labels: Labels) -> None:
    """Lay the tab out."""
    say, kept, made = texts_of("en"), partial(_kept, arena), partial(_made, arena, lexicon)
    labels.add(gr.Markdown(say("about.text"), elem_id="about"), "about.text")
    labels.add(gr.Markdown(made(say)), made)
    labels.add(gr.HTML(kept(say)), kept)


def _made(arena: Arena, lexicon: Lexicon, say: Texts) -> str:
    """What this arena runs on."""
    roster = arena.roster
    return (
        f"**{say('about.lexicon')}:** {say.own(lexicon.label)}.\n\n**{say('about.roster')}:** "
        f"{roster.name}, {say('about.quantization')} {roster.quantization}. "
        f"**{say('about.version')}:** {__version__}."
    )


def _kept(arena: Arena, say: Texts) -> str:
    text = arena.consent_text(say.language).text
    return f"<h2>{escape(say('about.kept'))}</h2>{highlights.paragraphs(text)}"
