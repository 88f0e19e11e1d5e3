"""The Arena tab: the conversation, the two replies, the votes, and what was heard."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.dialogue import MAX_TEXT
from empo_demo.ui import lineup
from empo_demo.ui.arena_tab.handlers import Handlers
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels, Parts, writing_box
from empo_demo.ui.serving.lanes import ROUNDS, UNLISTED, VOTES
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.theme import ANSWER, HOLD, RELEASE, REVEALED, SEND, count
from empo_demo.ui.visitors import visitor_of
from empo_demo.votes.models import KINDS, MAX_COMMENT, RATINGS

PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-i]');
  if (button && !button.disabled) trigger('select', {index: Number(button.dataset.i)});
});
"""
STEPS = (0, 20, 40, 60, 80, 100)
"""A scale begins without an answer. It has no middle, so that no answer is a 50, which sliders that
nobody had touched were stored as until version 0.2."""
_SAY = texts_of("en")


def build(arena: Arena, session: gr.BrowserState, badge: gr.HTML, labels: Labels) -> Handlers:
    """Lay the tab out and wire it. Return the handlers for the page's load event."""
    recorded = arena.roster.recorded
    labels.add(gr.HTML(_lead(arena, _SAY), elem_id="lead"), partial(_lead, arena))
    slots: dict[str, Any] = {
        "examples": gr.HTML(
            highlights.examples(_SAY), elem_id="examples", js_on_load=PICK, visible=not recorded
        )
    }
    with gr.Row(elem_classes="reading-room"):
        with gr.Column(scale=7, elem_classes="talk"):
            slots |= _conversation(arena, labels)
        with gr.Column(scale=3, min_width=300, elem_classes="side"):
            slots["heard"] = gr.HTML(elem_id="heard")
            slots["plots"] = gr.HTML(elem_id="plots")
    parts = Parts(session=session, badge=badge, **slots)
    handlers = Handlers(arena, parts, labels)
    _at_first(handlers)
    _wire(parts, handlers)
    if recorded:
        _wire_recorded(parts, handlers)
    return handlers


def _at_first(handlers: Handlers) -> None:
    """Write the first screen into the page itself, so that it shows before the server answers."""
    for component, change in handlers.first().items():
        for name, value in (change if isinstance(change, dict) else {"value": change}).items():
            if name != "__type__":
                setattr(component, name, value)


def _lead(arena: Arena, say: Any) -> str:
    english = say("replies.english")
    note = f'<p class="quiet">{english}</p>' if english else ""
    return f'<h2 class="lead">{say("lead")}</h2>{note}'


def _conversation(arena: Arena, labels: Labels) -> dict[str, Any]:
    note = partial(lineup.note, arena)
    with gr.Row(elem_classes="above"):
        components: dict[str, Any] = {"steps": gr.HTML(elem_id="steps")}
        components["pair_note"] = labels.add(gr.HTML(note(_SAY), elem_id="pair-note"), note)
    components["thread"] = gr.HTML(elem_id="thread")
    components["notices"] = gr.HTML(elem_id="notices")
    pair = gr.Column(visible=False, elem_classes="pair", elem_id="pair")
    with pair, gr.Row(elem_classes="panes", equal_height=True):
        components["pane_a"] = gr.HTML(elem_id="pane_a")
        components["pane_b"] = gr.HTML(elem_id="pane_b")
    components["pair"] = pair
    with gr.Row(visible=False, elem_id="votebar") as components["votes"]:
        components["vote"] = tuple(
            labels.add(
                gr.Button(kind.button, elem_id=f"vote_{kind.name}", min_width=60),
                partial(_button, kind.name),
            )
            for kind in KINDS
        )
    components["reveal"] = gr.HTML(elem_id="reveal")
    components |= _consent(arena, labels)
    components["go_on"] = gr.HTML(elem_id="go-on")
    # Here it stands under the replies before the vote, and at the box after it.
    components["message"] = gr.HTML(elem_id="message")
    components["warning"] = gr.HTML(elem_id="warning")
    components |= _writing(labels, recorded=arena.roster.recorded)
    components |= _controls(labels, recorded=arena.roster.recorded)
    components["results"] = gr.HTML(elem_id="results")
    components["card"] = gr.HTML(elem_id="card")
    components |= _rating(labels)
    return components


def _button(name: str, say: Any) -> str:
    return str(say.verdict(name, "button"))


def _rating(labels: Labels) -> dict[str, Any]:
    with gr.Accordion(_SAY("rate.title"), open=False, visible=False, elem_id="rate") as fold:
        labels.add(
            gr.HTML(highlights.lines(_SAY("rate.hint"))),
            lambda say: highlights.lines(say("rate.hint")),
        )
        scales = tuple(
            labels.add(gr.Radio(list(STEPS), label=_SAY(f"rate.{name}")), f"rate.{name}", "label")
            for name in RATINGS
        )
        comment = gr.Textbox(label=_SAY("rate.comment"), lines=2, elem_id="comment")
        save = gr.Button(_SAY("rate.save"), elem_id="rate_save")
    count(comment, MAX_COMMENT)
    labels.add(fold, "rate.title", "label")
    labels.add(comment, "rate.comment", "label")
    labels.add(save, "rate.save")
    return {"rate": fold, "ratings": scales, "comment": comment, "rate_save": save}


def _consent(arena: Arena, labels: Labels) -> dict[str, Any]:
    def text(say: Texts = _SAY) -> str:
        return highlights.consent(arena.consent_text(say.language).text, say)

    with gr.Column(visible=False, elem_id="consent", elem_classes="card") as card:
        labels.add(gr.HTML(text()), text)
        with gr.Row():
            agree = gr.Button(_SAY("consent.agree"), variant="primary", elem_id="agree")
            refuse = gr.Button(_SAY("consent.refuse"), elem_id="refuse")
    labels.add(agree, "consent.agree")
    labels.add(refuse, "consent.refuse")
    return {"consent": card, "agree": agree, "refuse": refuse}


def _writing(labels: Labels, *, recorded: bool) -> dict[str, Any]:
    """Lay out the box. Recorded replies have a list instead of a box."""
    with gr.Row(elem_classes="writing", equal_height=True, visible=not recorded):
        box = writing_box(_SAY, "box", max_lines=8, autofocus=False)
        send = gr.Button(_SAY("send"), variant="primary", scale=1, min_width=80, elem_id="send")
    with gr.Column(visible=recorded, elem_classes="recorded"):
        labels.add(gr.HTML(_recorded(_SAY)), _recorded)
        pick = gr.Dropdown(
            [], value=None, label=_SAY("pick"), type="index", elem_id="pick", interactive=True
        )
    count(box, MAX_TEXT)
    labels.add(box, "box", "placeholder")
    labels.add(box, "box", "label")
    labels.add(pick, "pick", "label")
    labels.add(send, "send")
    return {"box": box, "send": send, "pick": pick}


def _controls(labels: Labels, *, recorded: bool) -> dict[str, Any]:
    """Lay out the quieter buttons: what else can be done in each state."""

    def button(name: str, key: str, **more: Any) -> gr.Button:
        shown = {"visible": False, "size": "sm", "min_width": 80, "elem_id": name, **more}
        return labels.add(gr.Button(_SAY(key), **shown), key) if key else gr.Button(**shown)

    with gr.Row(elem_classes="controls"):
        found = {
            "stop": button("stop", "stop"),
            "retry": button("retry", "retry"),
            "next": button("next", ""),
            "keep": button("keep", "consent.later"),
            "ten": button("ten", "ten"),
            "share": button("share", "share"),
        }
        if recorded:
            look = {"size": "lg", "variant": "primary"}
            found["new"] = button("new", "new.recorded", visible=True, **look)
        else:
            found["new"] = button("new", "new", visible=True)
    return found


def _recorded(say: Any) -> str:
    return f'<p class="quiet">{say("recorded")}</p>'


def _wire(p: Parts, h: Handlers) -> None:
    outputs = p.all()
    stream = {
        **UNLISTED,
        "concurrency_id": ROUNDS,
        "trigger_mode": "once",
        "js": HOLD,
    }
    sent = {**stream, "js": SEND}

    def send(text: str, stored: Any, request: gr.Request) -> Any:
        yield from h.send(text, stored, visitor_of(request))

    def again(stored: Any, request: gr.Request) -> Any:
        yield from h.retry(stored, visitor_of(request))

    def agree(text: str, stored: Any, request: gr.Request) -> Any:
        yield from h.agree(text, stored, visitor_of(request))

    def refuse(text: str, stored: Any, request: gr.Request) -> Any:
        yield from h.refuse(text, stored, visitor_of(request))

    def choose(stored: Any, request: gr.Request, event: gr.EventData) -> Any:
        index = event._data.get("index") if isinstance(event._data, dict) else None
        yield from h.choose(index, stored, visitor_of(request))

    def following(stored: Any, request: gr.Request) -> Any:
        yield from h.next(stored, visitor_of(request))

    def ten(stored: Any, request: gr.Request) -> Any:
        yield from h.ten(stored, visitor_of(request))

    rounds = (
        gr.on([p.send.click, p.box.submit], send, [p.box, p.session], outputs, **sent),
        p.agree.click(agree, [p.box, p.session], outputs, **{**stream, "js": ANSWER}),
        p.refuse.click(refuse, [p.box, p.session], outputs, **{**stream, "js": ANSWER}),
        p.examples.select(choose, [p.session], outputs, **stream),
        p.next.click(following, [p.session], outputs, **stream),
        p.ten.click(ten, [p.session], outputs, **stream),
        p.retry.click(again, [p.session], outputs, **stream),
        p.keep.click(h.keep, [p.session], outputs, **UNLISTED),
    )
    votes = {**UNLISTED, "concurrency_id": VOTES}
    release = {"js": RELEASE, "api_visibility": "private"}
    for event in rounds:
        event.then(None, None, None, **release)
    if not h.recorded_replies:
        # A round that is being written would come back over the new page, so the page leaves it.
        # This comes first: until it is left, Gradio takes no other Send.
        p.new.click(None, None, None, cancels=list(rounds), queue=False, api_visibility="private")
        new = p.new.click(h.new, [p.session], outputs, **votes)
        new.then(None, None, None, **release)
    p.share.click(h.share, [p.session], outputs, **UNLISTED)
    stopping = p.stop.click(h.stopping, [p.session], outputs, **votes)
    stopping.then(h.stop, [p.session], outputs, **votes)
    for button, kind in zip(p.vote, KINDS, strict=True):
        vote = partial(h.vote, kind.name)
        voted = button.click(vote, [p.session], outputs, trigger_mode="once", **votes)
        voted.then(None, None, None, js=REVEALED, api_visibility="private")
    p.rate_save.click(h.rate, [p.session, p.comment, *p.ratings], outputs, **votes)


def _wire_recorded(p: Parts, h: Handlers) -> None:
    """Wire the button, which draws a recorded dialogue, and the list, which chooses one."""
    outputs = p.all()
    stream = {**UNLISTED, "concurrency_id": ROUNDS, "trigger_mode": "once"}

    def draw(stored: Any, request: gr.Request) -> Any:
        yield from h.recorded(stored, visitor_of(request))

    def choose(place: Any, stored: Any, request: gr.Request) -> Any:
        yield from h.recorded(stored, visitor_of(request), place)

    p.new.click(draw, [p.session], outputs, **stream)
    p.pick.input(choose, [p.pick, p.session], outputs, **stream)
    p.pick.focus(h.list_recorded, None, [p.pick], **UNLISTED)
