"""The Explore tab: two chosen contenders on one dialogue, with an alignment dial. Not a vote.

The same seed for both, so that one sees what alignment changes. A link restores the comparison.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import (
    DIAL,
    MOST_TOKENS,
    Comparison,
    decode_link,
    encode_link,
    explore,
    shown,
)
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Delta, Finished
from empo_demo.errors import ArenaError
from empo_demo.ui import highlights
from empo_demo.ui.panes import pane
from empo_demo.ui.pictures import FRAME, GENERAL

log = logging.getLogger(__name__)
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(arena: Arena, page: gr.Blocks) -> None:
    """Lay the tab out and wire it; a link's parameters fill it when the page loads."""
    ids = [contender.id for contender in arena.roster.contenders]
    usual = arena.roster.decoding
    gr.Markdown(
        "Choose two contenders and see what changes. Nothing here is blind, stored or counted.",
        elem_classes="quiet",
    )
    with gr.Row():
        left = gr.Dropdown(ids, value=ids[0], label="Left", elem_id="x-left")
        dial_left = gr.Slider(*DIAL, 1.0, step=0.05, label="Alignment of the left")
        right = gr.Dropdown(ids, value=ids[1], label="Right", elem_id="x-right")
        dial_right = gr.Slider(
            *DIAL, 1.0, step=0.05, label="Alignment of the right", elem_id="x-dial"
        )
    with gr.Accordion("Decoding", open=False), gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        temperature = gr.Slider(0, 2, usual.temperature, step=0.05, label="Temperature")
        top_p = gr.Slider(0.05, 1, usual.top_p, step=0.05, label="Top p")
        penalty = gr.Slider(0.5, 2, usual.repetition_penalty, step=0.05, label="Repetition penalty")
        tokens = gr.Slider(
            1, MOST_TOKENS, min(usual.max_new_tokens, MOST_TOKENS), step=1, label="Most tokens"
        )
    with gr.Row(elem_classes="writing"):
        text = gr.Textbox(
            placeholder="Write what happened…", show_label=False, container=False, lines=1,
            max_lines=6, max_length=MAX_TEXT, scale=8, elem_id="x-text", interactive=True,
        )  # fmt: skip
        run = gr.Button("Compare", variant="primary", min_width=90, elem_id="x-run")
        stop = gr.Button("Stop", min_width=70, elem_id="x-stop")
    said = gr.HTML(elem_id="x-message")
    with gr.Row(elem_classes="panes", equal_height=True):
        panes = (gr.HTML(elem_id="x-pane-a"), gr.HTML(elem_id="x-pane-b"))
    link = gr.HTML(elem_id="x-link")
    before = gr.State([])

    knobs = [
        before, text, left, right, dial_left, dial_right, seed, temperature, top_p, penalty, tokens,
    ]  # fmt: skip

    def play(*values: Any) -> Iterator[dict[Any, Any]]:
        yield from _play(arena, values, panes, said, link)

    options = {**_PRIVATE, "concurrency_id": "rounds", "concurrency_limit": 32}
    event = gr.on([run.click, text.submit], play, knobs, [*panes, said, link], **options)
    dial = gr.on([dial_left.release, dial_right.release], play, knobs, [*panes, said, link],
                 trigger_mode="always_last", **options)  # fmt: skip
    stop.click(None, None, None, cancels=[event, dial], queue=False, api_visibility="private")

    def restore(request: gr.Request) -> dict[Any, Any]:
        return _restore(arena, dict(request.query_params), knobs, said)

    page.load(restore, None, [*knobs, said], **_PRIVATE)


def _play(
    arena: Arena, values: Any, panes: tuple[gr.HTML, gr.HTML], said: gr.HTML, link: gr.HTML
) -> Iterator[dict[Any, Any]]:
    try:
        comparison = _comparison(arena, values)
        reading = _reading(arena, comparison)
        titles = shown(arena.roster, comparison, reading)
        yield {said: highlights.message("Both are reading…"), link: _link(comparison)}
        texts, ended = {"a": "", "b": ""}, {"a": False, "b": False}
        last = 0.0
        engine = arena.engine()
        with closing(explore(engine, arena.roster, comparison, reading)) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Delta):
                    texts[event.side] += event.text
                else:
                    ended[event.side] = True
                    texts[event.side] = event.text if isinstance(event, Finished) else event.error
                if time.monotonic() - last >= FRAME:
                    last = time.monotonic()
                    yield _panes(panes, titles, texts, ended)
        yield {**_panes(panes, titles, texts, ended), said: ""}
    except ArenaError as error:
        yield {said: highlights.message(str(error), error=True)}
    except Exception:
        log.exception("A comparison failed")
        yield {said: highlights.message(GENERAL, error=True)}


def _comparison(arena: Arena, values: Any) -> Comparison:
    before, text, left, right, dial_left, dial_right, seed, *drawing = values
    temperature, top_p, penalty, tokens = drawing
    dialogue = Dialogue.from_messages(before or []).plus("user", clean_text(text, limit=MAX_TEXT))
    decoding = replace(
        arena.roster.decoding,
        temperature=float(temperature),
        top_p=float(top_p),
        repetition_penalty=float(penalty),
        max_new_tokens=int(tokens),
    )
    found = Comparison(
        dialogue, str(left), str(right), int(seed or 0), float(dial_left), float(dial_right),
        decoding,
    )  # fmt: skip
    return found.checked(arena.roster)


def _reading(arena: Arena, comparison: Comparison) -> Any:
    """The SEM's reading; without one the comparison goes on, and a guided side says so."""
    try:
        return arena.analyze(comparison.dialogue)
    except ArenaError:
        return None


def _panes(
    panes: tuple[gr.HTML, gr.HTML], titles: Any, texts: dict[str, str], ended: dict[str, bool]
) -> dict[Any, Any]:
    changes: dict[Any, Any] = {}
    for component, side in zip(panes, ("a", "b"), strict=True):
        told = titles[side]
        note = f"{told.label}, alignment {told.dial:g}"
        if told.guidance:
            note += f" · told: {told.guidance}"
        elif told.guidance_absent:
            note += " · without guidance: the SEM did not answer"
        changes[component] = pane(
            "a" if side == "a" else "b", texts[side], note, live=not ended[side]
        )
    return changes


def _link(comparison: Comparison) -> str:
    try:
        query = urlencode(encode_link(comparison))
    except ArenaError as error:
        return highlights.message(str(error))
    return f'<p class="quiet"><a href="?{escape(query)}">Link to this comparison</a></p>'


def _restore(
    arena: Arena, parameters: dict[str, Any], knobs: list[Any], said: gr.HTML
) -> dict[Any, Any]:
    try:
        found = decode_link(parameters, arena.roster)
    except ArenaError as error:
        return {said: highlights.message(str(error), error=True)}
    if found is None:
        return {said: ""}
    turns = found.dialogue.turns
    values = (
        found.dialogue.messages()[:-1], turns[-1].content, found.left, found.right,
        found.dial_left, found.dial_right, found.seed, found.decoding.temperature,
        found.decoding.top_p, found.decoding.repetition_penalty, found.decoding.max_new_tokens,
    )  # fmt: skip
    ready = "The comparison of the link is filled in: press Compare."
    return {**dict(zip(knobs, values, strict=True)), said: highlights.message(ready)}
