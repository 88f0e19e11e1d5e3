"""The About tab: what this is, what is kept, who made what, and its limits."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from empo_demo import __version__
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.texts import Texts, texts_of

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.metrics.valence import Lexicon


def build(arena: Arena, lexicon: Lexicon, labels: Labels) -> None:
    """Lay the tab out."""
    say, kept, made = texts_of("en"), partial(_kept, arena), partial(_made, arena, lexicon)
    for text in (_about, made, kept):
        labels.add(gr.HTML(text(say), elem_classes="about"), text)


def _about(say: Texts) -> str:
    """The text as HTML: Gradio's own Markdown would send each visitor its highlighter of code."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).render(say("about.text")))


def _made(arena: Arena, lexicon: Lexicon, say: Texts) -> str:
    """What this arena runs on."""
    roster = arena.roster
    return (
        f"<p><b>{escape(say('about.lexicon'))}:</b> {escape(say.own(lexicon.label))}.</p>"
        f"<p><b>{escape(say('about.roster'))}:</b> {escape(roster.name)}, "
        f"{escape(say('about.quantization'))} {escape(roster.quantization)}. "
        f"<b>{escape(say('about.version'))}:</b> {__version__}.</p>"
    )


def _kept(arena: Arena, say: Texts) -> str:
    text = arena.consent_text(say.language).text
    return f"<h2>{escape(say('about.kept'))}</h2>{highlights.paragraphs(text)}"
