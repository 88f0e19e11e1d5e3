"""The Explore tab: two chosen contenders on one dialogue, with an alignment dial. Not a vote.

The same seed for both, so that one sees what alignment changes. A link restores the comparison.
"""

from __future__ import annotations

import logging
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
)
from empo_demo.arena.frames import Frame, frames
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Failed
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.ui import highlights
from empo_demo.ui.lanes import EXPLORE
from empo_demo.ui.panes import pane
from empo_demo.ui.pictures import GENERAL
from empo_demo.ui.visitors import address_of
from empo_demo.votes.models import SIDES

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

    def play(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield from _play(arena, values, panes, said, link, address_of(request))

    options = {**_PRIVATE, "concurrency_id": EXPLORE}
    event = gr.on([run.click, text.submit], play, knobs, [*panes, said, link], **options)
    dial = gr.on([dial_left.release, dial_right.release], play, knobs, [*panes, said, link],
                 trigger_mode="always_last", **options)  # fmt: skip
    stop.click(None, None, None, cancels=[event, dial], queue=False, api_visibility="private")

    def restore(request: gr.Request) -> dict[Any, Any]:
        return _restore(arena, dict(request.query_params), knobs, said)

    page.load(restore, None, [*knobs, said], **_PRIVATE)


def _play(
    arena: Arena,
    values: Any,
    panes: tuple[gr.HTML, gr.HTML],
    said: gr.HTML,
    link: gr.HTML,
    address: str | None,
) -> Iterator[dict[Any, Any]]:
    try:
        comparison = _comparison(arena, values)
        titles, events = arena.explore(comparison, address=address)
        yield {said: highlights.message("Both are reading…"), link: _link(comparison)}
        with closing(frames(events)) as stream:  # type: ignore[type-var]
            for frame in stream:
                yield _panes(panes, titles, frame)
        yield {said: ""}
    except ArenaError as error:
        yield {said: highlights.message(error.public, error=True)}
    except Exception:
        log.exception("A comparison failed")
        yield {said: highlights.message(GENERAL, error=True)}


def _comparison(arena: Arena, values: Any) -> Comparison:
    """From the form; raises `InvalidInput` also where a stranger sent no numbers at all."""
    try:
        return _filled(arena, *values)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput("The form holds something that cannot be used.") from None


def _filled(
    arena: Arena, before: Any, text: Any, left: Any, right: Any, dial_left: Any, dial_right: Any,
    seed: Any, temperature: Any, top_p: Any, penalty: Any, tokens: Any,
) -> Comparison:  # fmt: skip
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


def _panes(panes: tuple[gr.HTML, gr.HTML], titles: Any, frame: Frame) -> dict[Any, Any]:
    changes: dict[Any, Any] = {}
    for component, side in zip(panes, SIDES, strict=True):
        end = frame.ends.get(side)
        text = end.error if isinstance(end, Failed) else frame.texts[side]
        told = titles[side]
        note = f"{told.label}, alignment {told.dial:g}"
        if told.guidance:
            note += f" · told: {told.guidance}"
        elif told.guidance_absent:
            note += " · without guidance: the SEM did not answer"
        changes[component] = pane(side, text, note, live=end is None)
    return changes


def _link(comparison: Comparison) -> str:
    try:
        query = urlencode(encode_link(comparison))
    except ArenaError as error:
        return highlights.message(error.public)
    return f'<p class="quiet"><a href="?{escape(query)}">Link to this comparison</a></p>'


def _restore(
    arena: Arena, parameters: dict[str, Any], knobs: list[Any], said: gr.HTML
) -> dict[Any, Any]:
    try:
        found = decode_link(parameters, arena.roster)
    except ArenaError as error:
        return {said: highlights.message(error.public, error=True)}
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
