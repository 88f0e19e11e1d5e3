"""The About tab: what this is, what is kept, who made what, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from empo_demo import __version__
from empo_demo.ui import highlights

if TYPE_CHECKING:
    from empo_demo.arena.arena import Arena
    from empo_demo.metrics.valence import Lexicon

WHAT = """\
## What this is
Two language models answer the same dialogue, blind and in step. One is the base, one was aligned
for empathy by preference optimisation (EmPO, arXiv 2406.19071). A small empathetic model reads
which emotion a turn carries and which words caused it (after HEF, arXiv 2402.11801). Your vote
becomes a preference pair, and every pair trains the next model.

## Limits
- The emotion model reads English only, guesses, and is wrong about every second time among 32
  emotions; its first five guesses hold the right one about five times in six.
- Valence is a count of words from a lexicon: it knows no irony.
- The embedded dialogue models are very small. They make things up. They are no counsellor.
- If you are in distress, talk to a person: [findahelpline.com](https://findahelpline.com).

## Licences
The code: Apache-2.0. The embedded models were trained on EmpatheticDialogues (CC BY-NC 4.0) and
other dialogues: for non-commercial use. The example dialogues are our own.
"""


def build(arena: Arena, lexicon: Lexicon) -> None:
    """Lay the tab out."""
    gr.Markdown(WHAT)
    gr.Markdown(
        f"**Valence lexicon in use:** {lexicon.label}.\n\n**Roster:** {arena.roster.name}, "
        f"quantisation {arena.roster.quantization}. **Version:** {__version__}."
    )
    gr.HTML(f"<h2>What is kept</h2>{highlights.paragraphs(arena.consent_text().text)}")
