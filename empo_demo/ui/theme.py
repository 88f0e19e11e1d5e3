"""The look: colours, type, keys. Everything is bundled; no request to anyone.

The mark is two voices whose overlap is what was understood. Fraunces (OFL, see
`assets/page/fraunces-LICENSE.txt`) speaks where people do; the system's font does the rest.
"""

from __future__ import annotations

import gradio as gr

from empo_demo.settings import ASSETS

LOOK = ASSETS / "page"
"""The folder that the page is allowed to fetch from."""
MARK = '<h1 class="brand"><img src="look/mark.svg" width="34" height="34" alt=""> EmPO Arena</h1>'

AGAIN = """
<script>
// A full queue answers 503: the request is sent again by itself, and the page says so.
const fetchOnce = window.fetch.bind(window);
window.fetch = async (input, options) => {
  let answer = await fetchOnce(input, options);
  const joins = String(input.url || input).includes("/queue/join");
  for (let seconds = 1; joins && answer.status === 503 && seconds <= 8; seconds *= 2) {
    const place = document.getElementById("message");
    const line = document.createElement("p");
    line.className = "message state";
    line.setAttribute("role", "status");
    line.textContent = `The server is busy. It is asked again in ${seconds} s; nothing is lost.`;
    if (place) place.replaceChildren(line);
    await new Promise((done) => setTimeout(done, seconds * 1000));
    answer = await fetchOnce(input, options);
  }
  return answer;
};
</script>
"""
HEAD = """
<link rel="icon" type="image/svg+xml" href="look/mark.svg">
<link rel="stylesheet" href="look/style.css">
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
LANGUAGE = "(session) => { document.documentElement.lang = session.language || 'en'; }"


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
