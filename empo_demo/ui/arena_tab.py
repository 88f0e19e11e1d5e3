"""The Arena tab: the conversation, the two replies, the votes, and what was heard."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import MAX_TEXT
from empo_demo.metrics.valence import Lexicon
from empo_demo.ui import highlights
from empo_demo.ui.examples import Example, load_examples
from empo_demo.ui.handlers import Handlers
from empo_demo.ui.parts import Parts
from empo_demo.ui.visitors import visitor_of
from empo_demo.votes.verdicts import KINDS

TINY = (
    "You are talking to a very small model (17 million parameters) that fits in this repository. "
    "It shows how the arena works; it is no counsellor. Bring your own models: one line in the "
    "README."
)
RECORDED = (
    "These replies were written elsewhere and recorded, so you read and vote, and do not write. "
    "Press Next dialogue, or choose one from the list."
)
SLIDERS = (
    "Appropriate to the situation",
    "Addresses how I feel, specifically",
    "Natural in this conversation",
    "I would like to go on with it",
)
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(arena: Arena, lexicon: Lexicon, session: gr.BrowserState, badge: gr.HTML) -> Handlers:
    """Lay the tab out and wire it; returns the handlers for the page's load event."""
    examples = load_examples()
    with gr.Row(elem_classes="reading-room"):
        with gr.Column(scale=7, elem_classes="talk"):
            slots, buttons = _conversation(arena, examples)
        with gr.Column(scale=3, min_width=280, elem_classes="side"):
            slots["heard"] = gr.HTML(highlights.heard(None, written=False), elem_id="heard")
            with gr.Accordion("Plots", open=True, elem_id="plots-fold"):
                slots["plots"] = gr.HTML(elem_id="plots")
                slots["plot"] = gr.Plot(show_label=False, container=False, visible=False)
    parts = Parts(session=session, badge=badge, **slots)
    handlers = Handlers(arena, parts, lexicon)
    _wire(parts, handlers)
    _wire_examples(parts, handlers, buttons, examples)
    if arena.roster.recorded:
        _wire_recorded(parts, handlers)
    else:
        parts.new.click(handlers.new, [parts.session], parts.all(), **_PRIVATE)
    return handlers


def _conversation(arena: Arena, examples: list[Example]) -> tuple[dict[str, Any], list[gr.Button]]:
    found: dict[str, Any] = {}
    gr.Markdown(
        "## Two models answer you. One was aligned for empathy. Which one understood?",
        elem_classes="lead",
    )
    if arena.roster.tiny:
        gr.Markdown(TINY, elem_classes="quiet", elem_id="tiny-note")
    with gr.Column(visible=False, elem_id="consent", elem_classes="card") as found["consent"]:
        gr.HTML(highlights.consent(arena.consent_text().text))
        with gr.Row():
            found["agree"] = gr.Button("I agree: keep my votes", variant="primary", elem_id="agree")
            found["refuse"] = gr.Button("Go on without keeping anything", elem_id="refuse")
    found["thread"] = gr.HTML(elem_id="thread")
    found["notices"] = gr.HTML(elem_id="notices")
    with gr.Column(visible=False, elem_classes="pair", elem_id="pair") as found["pair"]:
        gr.HTML(
            '<nav class="jump" aria-label="Show side"><a href="#pane_a">A</a>'
            '<a href="#pane_b">B</a></nav>'
        )
        with gr.Row(elem_classes="panes", equal_height=True):
            found["pane_a"] = gr.HTML(elem_id="pane_a")
            found["pane_b"] = gr.HTML(elem_id="pane_b")
    found["message"] = gr.HTML(elem_id="message")
    with gr.Row(visible=False, elem_id="votebar") as found["votes"]:
        found["vote"] = tuple(
            gr.Button(f"{key}  {kind.button}", elem_id=f"vote_{kind.name}", min_width=60)
            for key, kind in enumerate(KINDS, start=1)
        )
    found["reveal"] = gr.HTML(elem_id="reveal")
    found |= _rating()
    buttons = _examples(found, examples)
    found |= _writing(recorded=arena.roster.recorded)
    return found, buttons


def _rating() -> dict[str, Any]:
    with gr.Accordion(
        "Rate the chosen reply in detail (optional)", open=False, visible=False, elem_id="rate"
    ) as fold:
        sliders = tuple(gr.Slider(0, 100, 50, step=1, label=label) for label in SLIDERS)
        comment = gr.Textbox(label="Comment", lines=2, max_length=2000)
        save = gr.Button("Save the ratings", elem_id="rate_save")
    return {"rate": fold, "ratings": sliders, "comment": comment, "rate_save": save}


def _examples(found: dict[str, Any], examples: list[Example]) -> list[gr.Button]:
    with gr.Column(elem_classes="examples", elem_id="examples") as found["examples"]:
        gr.HTML('<p class="quiet">Or start from an example:</p>')
        with gr.Row(elem_classes="example-row"):
            return [
                gr.Button(example.title, size="sm", min_width=40, elem_classes="example")
                for example in examples
            ]


def _writing(*, recorded: bool) -> dict[str, Any]:
    """The box and the buttons; over recorded replies, a list of dialogues in the box's place."""
    with gr.Row(elem_classes="writing", equal_height=True, visible=not recorded):
        box = gr.Textbox(
            placeholder="Write what happened to you…", show_label=False, container=False,
            lines=1, max_lines=8, max_length=MAX_TEXT, scale=8, elem_id="box",
            autofocus=False, interactive=True,
        )  # fmt: skip
        send = gr.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
    with gr.Column(visible=recorded, elem_classes="recorded"):
        gr.HTML(f'<p class="quiet">{RECORDED}</p>')
        pick = gr.Dropdown(
            [], value=None, label="Choose a dialogue", type="index", elem_id="pick",
            interactive=True,
        )  # fmt: skip
    with gr.Row(elem_classes="controls"):
        stop = gr.Button("Stop", visible=False, size="sm", min_width=80, elem_id="stop")
        retry = gr.Button("Retry", visible=False, size="sm", min_width=80, elem_id="retry")
        new = gr.Button(
            "Next dialogue" if recorded else "New dialogue",
            size="lg" if recorded else "sm",
            variant="primary" if recorded else "secondary",
            min_width=80,
            elem_id="new",
        )
    return {"box": box, "send": send, "pick": pick, "stop": stop, "retry": retry, "new": new}


def _wire(p: Parts, h: Handlers) -> None:
    outputs = p.all()

    def send(text: str, stored: Any, request: gr.Request) -> Any:
        yield from h.send(text, stored, visitor_of(request))

    stream = {**_PRIVATE, "concurrency_id": "rounds", "concurrency_limit": 32}
    gr.on([p.send.click, p.box.submit], send, [p.box, p.session], outputs,
          trigger_mode="once", **stream)  # fmt: skip
    p.retry.click(h.retry, [p.session], outputs, trigger_mode="once", **stream)
    p.stop.click(h.stop, [p.session], outputs, **_PRIVATE)
    p.agree.click(h.agree, [p.session], outputs, **_PRIVATE)
    p.refuse.click(h.refuse, [p.session], outputs, **_PRIVATE)
    votes = {**_PRIVATE, "concurrency_id": "votes", "concurrency_limit": 8}
    for button, kind in zip(p.vote, KINDS, strict=True):
        button.click(partial(h.vote, kind.name), [p.session], outputs, trigger_mode="once", **votes)
    p.rate_save.click(h.rate, [p.session, p.comment, *p.ratings], outputs, **votes)


def _wire_recorded(p: Parts, h: Handlers) -> None:
    """The button draws one of the recorded dialogues, the list chooses one; both begin a round."""
    outputs = p.all()
    stream = {**_PRIVATE, "concurrency_id": "rounds", "trigger_mode": "once"}

    def draw(stored: Any, request: gr.Request) -> Any:
        yield from h.recorded(stored, visitor_of(request))

    def choose(place: Any, stored: Any, request: gr.Request) -> Any:
        yield from h.recorded(stored, visitor_of(request), place)

    p.new.click(draw, [p.session], outputs, **stream)
    p.pick.input(choose, [p.pick, p.session], outputs, **stream)
    p.pick.focus(h.list_recorded, None, [p.pick], **_PRIVATE)


def _wire_examples(
    p: Parts, h: Handlers, buttons: list[gr.Button], examples: list[Example]
) -> None:
    outputs = p.all()
    for button, example in zip(buttons, examples, strict=True):
        button.click(partial(h.choose, example), [p.session], outputs, **_PRIVATE)
