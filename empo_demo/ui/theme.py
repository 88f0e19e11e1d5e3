"""The look: colours, type, script. Everything is bundled; no request to anyone.

The logo is two overlapping voices. What people and models say is set in Fraunces (OFL, see
`assets/page/fraunces-LICENSE.txt`), everything else in the system's font.
"""

from __future__ import annotations

import json

import gradio as gr

from empo_demo.settings import ASSETS
from empo_demo.ui.texts import LANGUAGES, texts_of

LOOK = ASSETS / "page"
"""The folder that the page is allowed to fetch from."""
MARK = (
    '<h1 class="brand"><img src="look/mark.svg" width="34" height="34" alt=""> EmPO Arena</h1>'
    '<p id="live" class="sr" role="status"></p>'
)
"""The page's name, and its one live region, which page.js fills."""

IN_BROWSER = ("busy", "lost", "count", "full", "over", "theme")
"""The sentences that the browser says by itself; keys in `assets/texts` after `browser.`."""


def head() -> str:
    """What stands in the page's head: its style, its script, and the words of the script."""
    words = {
        language: {
            key: texts_of(language)(f"browser.{key}", n="{n}", most="{most}", over="{over}")
            for key in IN_BROWSER
        }
        for language in LANGUAGES
    }
    known = json.dumps(words, ensure_ascii=False).replace("<", "\\u003c")
    return f"""
<link rel="icon" type="image/svg+xml" href="look/mark.svg">
<link rel="stylesheet" href="look/style.css">
<script type="application/json" id="arena-words">{known}</script>
<script src="look/page.js"></script>
"""


SEND = "(...values) => window.arenaSend(...values)"
HOLD = "(...values) => window.arenaHold(...values)"
ANSWER = "(...values) => window.arenaAnswer(...values)"
RELEASE = "() => window.arenaRelease()"
REVEALED = "() => window.arenaRevealed()"
COUNT = "(text) => window.arenaCount({box!r}, text, {most})"
TOGGLE = "() => { document.body.classList.toggle('dark'); }"
LANGUAGE = "(session) => window.arenaSpeak(session.language || 'en')"


def count(box: gr.Textbox, most: int) -> None:
    """Say under `box` how full it is, while somebody writes. The browser itself cuts nothing.

    A `max_length` would cut a text that is pasted, and nobody would see it.
    """
    script = COUNT.format(box=box.elem_id, most=most)
    box.change(None, [box], None, js=script, api_visibility="private")


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the arena's colours, with fonts that every machine has."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.stone,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#fbf6f1",
        body_background_fill_dark="#1a1419",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        button_primary_background_fill="#6b2452",
        button_primary_background_fill_hover="#531a3f",
        button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#e3a9cb",
        button_primary_background_fill_hover_dark="#f2c6de",
        button_primary_text_color_dark="#2a1220",
    )
