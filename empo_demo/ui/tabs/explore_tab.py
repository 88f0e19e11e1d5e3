"""The Explore tab: the form of a comparison, and what each of its buttons asks for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import DIAL, MOST_TOKENS
from empo_demo.dialogue import MAX_TEXT
from empo_demo.ui.drawing.parts import Labels, writing_box
from empo_demo.ui.examples import EXPLORED
from empo_demo.ui.serving.lanes import EXPLORE, UNLISTED
from empo_demo.ui.shared_link import Linked
from empo_demo.ui.tabs.explorer import Changes, Explorer, Form
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.theme import count
from empo_demo.ui.visitors import address_of, say_of

_SAY = texts_of("en")
STATE_SECONDS = 50 * 60
"""How long the server remembers the turns that a link put before the text."""
PLAY_LINK = """() => {
  if (!new URLSearchParams(location.search).has('dialogue')) return;
  let left = 600;
  const press = () => {
    // The tab is drawn only after it was selected.
    const button = document.getElementById('x-opened');
    if (button) button.click(); else if (left--) setTimeout(press, 50);
  };
  press();
}"""


def build(
    arena: Arena,
    session: gr.BrowserState,
    page: gr.Blocks,
    tabs: gr.Tabs,
    tab: gr.Tab,
    labels: Labels,
) -> None:
    """Lay the tab out and wire it.

    When a visitor opens the tab for the first time, it compares an example. The comparison of a
    link starts when the page loads.
    """
    labels.add(gr.HTML(_lead(_SAY)), _lead)
    form = _form(arena, labels)
    buttons = _buttons(form.text, labels)
    said = gr.HTML(elem_id="x-message")
    with gr.Row(elem_classes="panes", equal_height=True):
        panes = (gr.HTML(elem_id="x-pane-a"), gr.HTML(elem_id="x-pane-b"))
    strip, link = gr.HTML(elem_id="x-strip"), gr.HTML(elem_id="x-link")
    _wire(Explorer(arena, form, panes, said, strip, link), buttons, session, page, tabs, tab)


def _lead(say: Texts) -> str:
    title = escape(say("explore.heading"))
    return f'<h2 class="lead">{title}</h2><p class="quiet">{escape(say("explore.lead"))}</p>'


def _form(arena: Arena, labels: Labels) -> Form:
    """The knobs; the text's row is laid out with the buttons."""
    usual = arena.roster.decoding
    ids = [contender.id for contender in arena.roster.contenders]

    def choices(say: Texts) -> list[tuple[str, str]]:
        return [(say.contender(c.id, c.label), c.id) for c in arena.roster.contenders]

    def knob(kind: Any, key: str, *values: Any, **more: Any) -> Any:
        made = kind(*values, label=_SAY(f"explore.{key}"), **more)
        return labels.add(made, f"explore.{key}", "label")

    slider = partial(knob, gr.Slider)
    with gr.Row():
        left = knob(gr.Dropdown, "left", choices(_SAY), value=ids[0], elem_id="x-left")
        dial_left = slider(
            "dial.left",
            *DIAL,
            1.0,
            step=0.05,
            visible=arena.roster.contenders[0].adapter is not None,
        )
        right = knob(gr.Dropdown, "right", choices(_SAY), value=ids[1], elem_id="x-right")
        dial_right = slider(
            "dial.right",
            *DIAL,
            1.0,
            step=0.05,
            elem_id="x-dial",
            visible=arena.roster.contenders[1].adapter is not None,
        )
    for dropdown in (left, right):
        labels.add(dropdown, choices, "choices")
    with gr.Accordion(_SAY("explore.decoding"), open=False) as fold, gr.Row():
        seed = knob(gr.Number, "seed", 0, precision=0, minimum=0)
        seed_right = knob(gr.Number, "seed.right", None, precision=0, minimum=0)
        temperature = slider("temperature", 0, 2, usual.temperature, step=0.05)
        top_p = slider("top_p", 0.05, 1, usual.top_p, step=0.05)
        penalty = slider("penalty", 0.5, 2, usual.repetition_penalty, step=0.05)
        most = min(usual.max_new_tokens, MOST_TOKENS)
        tokens = slider("tokens", 1, MOST_TOKENS, most, step=1)
    labels.add(fold, "explore.decoding", "label")
    text = writing_box(_SAY, "x-text", max_lines=6, value=EXPLORED, render=False)
    before = gr.State([], time_to_live=STATE_SECONDS)
    return Form(
        before,
        text,
        left,
        right,
        dial_left,
        dial_right,
        seed,
        seed_right,
        temperature,
        top_p,
        penalty,
        tokens,
    )


def _buttons(text: gr.Textbox, labels: Labels) -> tuple[gr.Button, gr.Button, gr.Button]:
    """The text, and beside it the buttons Compare, four strengths, and Stop."""
    with gr.Row(elem_classes="writing"):
        text.render()
        run = gr.Button(_SAY("explore.run"), variant="primary", min_width=140, elem_id="x-run")
        steps = gr.Button(_SAY("explore.strip"), min_width=190, elem_id="x-steps")
        stop = gr.Button(_SAY("stop"), min_width=70, elem_id="x-stop")
    for on in ("placeholder", "label"):
        labels.add(text, "box", on)
    count(text, MAX_TEXT)
    for button, key in ((run, "explore.run"), (steps, "explore.strip"), (stop, "stop")):
        labels.add(button, key)
    return run, steps, stop


def _wire(
    explorer: Explorer,
    buttons: tuple[gr.Button, gr.Button, gr.Button],
    session: gr.BrowserState,
    page: gr.Blocks,
    tabs: gr.Tabs,
    tab: gr.Tab,
) -> None:
    run, steps, stop = buttons
    form, said, outputs = explorer.form, explorer.said, explorer.outputs()
    knobs = [session, *form.all()]
    seen, asked = gr.State(False), gr.State(None, time_to_live=STATE_SECONDS)
    # A hidden button, because Gradio tells the page twice of each change of a `State`.
    opened = gr.Button(visible="hidden", elem_id="x-opened")

    def play(request: gr.Request, stored: Any, *values: Any) -> Iterator[Changes]:
        yield from explorer.play(values, say_of(stored), address_of(request))

    def row(request: gr.Request, stored: Any, *values: Any) -> Iterator[Changes]:
        yield from explorer.row(values, say_of(stored), address_of(request))

    def first(request: gr.Request, before: bool, stored: Any, *values: Any) -> Iterator[Changes]:
        yield {seen: True}
        if not before:
            yield from explorer.play(values, say_of(stored), address_of(request))

    def restore(request: gr.Request, stored: Any) -> Changes:
        changes, linked = explorer.restore(request.query_params, say_of(stored, request))
        if linked is None:
            return {said: "", **changes}
        # A link opens this tab and starts its comparison.
        return {**changes, tabs: gr.update(selected="explore"), seen: True, asked: linked}

    def linked(
        request: gr.Request, link: Linked | None, stored: Any, *values: Any
    ) -> Iterator[Changes]:
        if link is not None:
            yield from explorer.play(values, say_of(stored, request), address_of(request), link)

    options = {**UNLISTED, "concurrency_id": EXPLORE}
    events = [
        gr.on([run.click, form.text.submit], play, knobs, outputs, **options),
        gr.on(
            [form.dial_left.release, form.dial_right.release],
            play,
            knobs,
            outputs,
            trigger_mode="always_last",
            **options,
        ),
        steps.click(row, knobs, outputs, trigger_mode="once", **options),
        tab.select(first, [seen, *knobs], [seen, *outputs], **options),
        opened.click(linked, [asked, *knobs], outputs, trigger_mode="once", **options),
    ]
    for chosen, dial in ((form.left, form.dial_left), (form.right, form.dial_right)):
        chosen.change(explorer.dial, [chosen], [dial], **UNLISTED)
    stop.click(None, None, None, cancels=events, queue=False, api_visibility="private")
    loaded = page.load(restore, [session], [*form.all(), said, tabs, seen, asked], **UNLISTED)
    loaded.then(None, None, None, js=PLAY_LINK, api_visibility="private")
