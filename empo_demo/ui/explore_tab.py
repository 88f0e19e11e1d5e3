"""The Explore tab: two chosen contenders on one dialogue, with an alignment dial. Not a vote.

The same seed for both, so that one sees what alignment changes. A link restores the comparison.
"""

from __future__ import annotations

import hashlib
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
)
from empo_demo.arena.frames import Frame, frames
from empo_demo.arena.link import decode_link, encode_link
from empo_demo.dialogue import MAX_TEXT, Dialogue, clean_text
from empo_demo.engine.protocol import Failed
from empo_demo.errors import ArenaError, InvalidInput
from empo_demo.ui import highlights
from empo_demo.ui.examples import examples
from empo_demo.ui.lanes import EXPLORE
from empo_demo.ui.panes import Told, pane
from empo_demo.ui.parts import Labels
from empo_demo.ui.pictures import GENERAL
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.visitors import address_of
from empo_demo.votes.models import SIDES, Side

log = logging.getLogger(__name__)
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
FRACTIONS = {0.0: "0", 0.5: "½", 1.0: "1", 1.5: "1½"}
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(arena: Arena, page: gr.Blocks, tabs: gr.Tabs, tab: gr.Tab, labels: Labels) -> None:
    """Lay the tab out and wire it; a link's parameters fill it when the page loads.

    It opens with an example compared: the first time that a visitor opens it, it plays.
    """
    say = texts_of("en")
    ids = [contender.id for contender in arena.roster.contenders]
    usual = arena.roster.decoding
    labels.add(gr.HTML(_lead(say)), _lead)
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
            value=examples()[2].text, label="Text",
        )  # fmt: skip
        run = gr.Button(say("explore.run"), variant="primary", min_width=90, elem_id="x-run")
        steps = gr.Button(say("explore.strip"), min_width=150, elem_id="x-steps")
        stop = gr.Button(say("stop"), min_width=70, elem_id="x-stop")
    for button, key in ((run, "explore.run"), (steps, "explore.strip"), (stop, "stop")):
        labels.add(button, key)
    said = gr.HTML(elem_id="x-message")
    with gr.Row(elem_classes="panes", equal_height=True):
        panes = (gr.HTML(elem_id="x-pane-a"), gr.HTML(elem_id="x-pane-b"))
    strip = gr.HTML(elem_id="x-strip")
    link = gr.HTML(elem_id="x-link")
    before, seen = gr.State([]), gr.State(False)

    knobs = [
        before, text, left, right, dial_left, dial_right, seed, temperature, top_p, penalty, tokens,
    ]  # fmt: skip

    def play(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield from _play(arena, values, panes, said, link, address_of(request))

    def row(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        yield from _strip(arena, values, strip, said, address_of(request))

    def first(request: gr.Request, opened: bool, *values: Any) -> Iterator[dict[Any, Any]]:
        yield {seen: True}
        if not opened:
            yield from _play(arena, values, panes, said, link, address_of(request))

    options = {**_PRIVATE, "concurrency_id": EXPLORE}
    event = gr.on([run.click, text.submit], play, knobs, [*panes, said, link], **options)
    dial = gr.on([dial_left.release, dial_right.release], play, knobs, [*panes, said, link],
                 trigger_mode="always_last", **options)  # fmt: skip
    many = steps.click(row, knobs, [strip, said], trigger_mode="once", **options)
    opening = tab.select(first, [seen, *knobs], [seen, *panes, said, link], **options)
    stop.click(
        None,
        None,
        None,
        cancels=[event, dial, many, opening],
        queue=False,
        api_visibility="private",
    )

    def restore(request: gr.Request) -> dict[Any, Any]:
        changes = _restore(arena, dict(request.query_params), knobs, said)
        # A link opens where it leads.
        return {**changes, tabs: gr.update(selected="explore")} if len(changes) > 1 else changes

    page.load(restore, None, [*knobs, said, tabs], **_PRIVATE)


def _lead(say: Texts) -> str:
    title = escape(say("tab.explore"))
    return f'<h2 class="sr">{title}</h2><p class="quiet">{escape(say("explore.lead"))}</p>'


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
        yield {said: highlights.message("Both are reading…"), link: _link(arena, comparison)}
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
    """Both panes; once both have ended, the words that only one of them uses are marked."""
    done = len(frame.ends) == len(SIDES)
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
        other = frame.texts["b" if side == "a" else "a"]
        changes[component] = pane(
            side, text, note, live=end is None, told=Told(told.label, other) if done else None
        )
    return changes


def _strip(
    arena: Arena, values: Any, strip: gr.HTML, said: gr.HTML, address: str | None
) -> Iterator[dict[Any, Any]]:
    """The right contender at four strengths of its alignment, with one seed."""
    try:
        asked = _comparison(arena, values)
        texts: list[str] = []
        for low, high in (STRENGTHS[:2], STRENGTHS[2:]):
            yield {said: highlights.message(f"Writing at {low:g} and {high:g}…")}
            both = replace(asked, left=asked.right, dial_left=low, dial_right=high)
            _, events = arena.explore(both, address=address)
            for frame in frames(events):
                last = frame
            for side in SIDES:
                end = last.ends.get(side)
                texts.append(end.error if isinstance(end, Failed) else last.texts[side])
            yield {strip: _columns(texts)}
        yield {said: ""}
    except ArenaError as error:
        yield {said: highlights.message(error.public, error=True)}
    except Exception:
        log.exception("A strip failed")
        yield {said: highlights.message(GENERAL, error=True)}


def _columns(texts: list[str]) -> str:
    """One column per strength; words that the base's reply has not are marked."""
    cells = ""
    for place, (strength, text) in enumerate(zip(STRENGTHS, texts, strict=False)):
        told = Told("", texts[0]) if place else None
        side: Side = "a" if strength == 0 else "b"
        cells += pane(side, text, told=told).replace(
            f'<span class="letter">{side.upper()}</span>',
            f'<span class="letter">{FRACTIONS[strength]}</span>',
        )
    return f'<div class="strip" role="group" aria-label="Alignment dial">{cells}</div>'


def _models(arena: Arena, comparison: Comparison) -> str:
    """Eight hex digits that change when one of the two contenders' weights do."""
    names = (comparison.left, comparison.right)
    revisions = " ".join(arena.roster[name].revision for name in names)
    return hashlib.sha256(revisions.encode()).hexdigest()[:8]


def _link(arena: Arena, comparison: Comparison) -> str:
    """A link that fills the form again; it promises the same words only where the engine does."""
    try:
        query = urlencode({**encode_link(comparison), "models": _models(arena, comparison)})
    except ArenaError as error:
        return highlights.message(error.public)
    same = getattr(arena.engine(), "repeatable", True)
    note = "" if same else " (the same question and settings; the words may differ a little)"
    return f'<p class="quiet"><a href="?{escape(query)}">Link to this comparison</a>{note}</p>'


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
    made_with = str(parameters.get("models", ""))
    if made_with and made_with != _models(arena, found):
        ready = (
            "The models have changed since this link was made: the texts will differ. The "
            "comparison is filled in; press Compare."
        )
    return {**dict(zip(knobs, values, strict=True)), said: highlights.message(ready)}
