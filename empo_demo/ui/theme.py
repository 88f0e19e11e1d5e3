"""Colours, fonts and keys: neutral warm greys, bundled and system fonts, no request to anyone."""

from __future__ import annotations

import gradio as gr

from empo_demo.settings import ASSETS

STYLE = ASSETS / "page" / "style.css"

HEAD = """
<script>
document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) return;
  const button = document.querySelectorAll("#votebar button")[Number(event.key) - 1];
  if (button && button.offsetParent && !button.disabled) { event.preventDefault(); button.click(); }
});
</script>
"""
TOGGLE = "() => { document.body.classList.toggle('dark'); }"


def theme() -> gr.themes.Base:
    """Gradio's plain theme on a warm grey, with fonts that every machine has."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.stone,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#faf8f5",
        body_background_fill_dark="#1b1917",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        button_primary_background_fill="#44403c",
        button_primary_background_fill_hover="#292524",
        button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#d6d3d1",
        button_primary_background_fill_hover_dark="#f5f5f4",
        button_primary_text_color_dark="#1c1917",
    )
