"""The About tab: what this is, what is kept, who made what, and its limits."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo import __version__
from empo_demo.ui import lineup
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.serving.lanes import UNLISTED
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.visitors import say_of

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.metrics.valence import Lexicon


def build(
    arena: Arena, lexicon: Lexicon, session: gr.BrowserState, tab: gr.Tab, labels: Labels
) -> None:
    """Lay the tab out. What the models are held in is known only when they are loaded."""
    say, kept, made = texts_of("en"), partial(_kept, arena), partial(_made, arena, lexicon)
    who = partial(lineup.taking_part, arena.roster)
    texts = (_about, who, made, kept)
    shown = {text: labels.add(gr.HTML(text(say), elem_classes="about"), text) for text in texts}

    def opened(stored: Any, request: gr.Request) -> str:
        return made(say_of(stored, request))

    tab.select(opened, [session], [shown[made]], **UNLISTED)


def _about(say: Texts) -> str:
    """The text as HTML: Gradio's own Markdown would send each visitor its highlighter of code."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).render(say("about.text")))


def _made(arena: Arena, lexicon: Lexicon, say: Texts) -> str:
    """What this arena runs on."""
    roster, held = arena.roster, arena.models.status().details.get("quantisation")
    quantization = f", {escape(say('about.quantization'))} {escape(held)}" if held else ""
    return (
        f"<p><b>{escape(say('about.lexicon'))}:</b> {escape(say.own(lexicon.label))}.</p>"
        f"<p><b>{escape(say('about.roster'))}:</b> {escape(roster.name)}{quantization}. "
        f"<b>{escape(say('about.version'))}:</b> {__version__}.</p>"
        f'<p><a href="?view=api">{escape(say("api.link"))}</a></p>'
    )


def _kept(arena: Arena, say: Texts) -> str:
    text = arena.consent_text(say.language).text
    return f"<h2>{escape(say('about.kept'))}</h2>{highlights.paragraphs(text)}"
