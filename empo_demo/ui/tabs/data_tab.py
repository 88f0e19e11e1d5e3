"""The Data tab: counts of rounds and votes, the download, and the visitor's own data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.errors import ArenaError
from empo_demo.exchange.hub import age_of_push
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.highlights import ENGLISH
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.serving.endpoints import ENDINGS, address_of_export
from empo_demo.ui.serving.lanes import VOTES
from empo_demo.ui.tabs.recent import Recent
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.visitors import Session, address_of, say_of

if TYPE_CHECKING:
    from empo_demo.exchange.export import Report
    from empo_demo.votes.stats import Stats

WITHDRAW = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-round]');
  if (button) trigger('select', {index: button.dataset.round});
});
"""
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def build(arena: Arena, session: gr.BrowserState, tab: gr.Tab, labels: Labels) -> None:
    """Lay the tab out; it counts when it is opened."""
    say = texts_of("en")
    with gr.Row():
        with gr.Column():
            labels.add(gr.HTML(_mine_title(say)), _mine_title)
            mine = gr.HTML(elem_id="mine", js_on_load=WITHDRAW)
            show = gr.Button(say("data.show"), elem_id="show_mine")
            sure = gr.Checkbox(label=say("data.sure"))
            erase = gr.Button(say("data.delete"), elem_id="delete_mine", variant="stop")
            erased = gr.HTML(elem_id="erased")
        with gr.Column():
            counts = gr.HTML(elem_id="counts")
            labels.add(gr.HTML(_download_title(say)), _download_title)
            form = gr.Radio(
                _formats(say), value=next(iter(ENDINGS)), label=say("data.format"), elem_id="format"
            )
            make = gr.Button(say("data.prepare"), elem_id="prepare")
            file = gr.Button("Download", visible=False, elem_id="download", link="")
            said = gr.HTML()
    labels.add(form, _formats, "choices")
    for component, key, on in (
        (form, "data.format", "label"),
        (show, "data.show", "value"),
        (sure, "data.sure", "label"),
        (erase, "data.delete", "value"),
        (make, "data.prepare", "value"),
        (file, "data.download", "value"),
    ):
        labels.add(component, key, on)

    def withdrawn(stored: Any, event: gr.EventData) -> dict[Any, Any]:
        chosen = event._data.get("index") if isinstance(event._data, dict) else None
        return withdraw(arena, stored, chosen, mine, erased)

    stats = Recent(arena.stats)
    reports = {form: Recent(partial(_report, arena, form)) for form in ENDINGS}
    tab.select(lambda stored: tally(arena, stats, say_of(stored)), [session], [counts], **_PRIVATE)
    make.click(
        lambda stored, form: prepare(reports, form, say_of(stored), file, said),
        [session, form],
        [file, said],
        **_PRIVATE,
    )
    show.click(lambda stored: own(arena, stored), [session], [mine], **_PRIVATE)
    mine.select(withdrawn, [session], [mine, erased], concurrency_id=VOTES, **_PRIVATE)

    def deleted(stored: Any, yes: bool, request: gr.Request) -> dict[Any, Any]:
        return delete(arena, stored, yes, mine, erased, session, address_of(request))

    erase.click(
        deleted,
        [session, sure],
        [mine, erased, session],
        concurrency_id=VOTES,
        **_PRIVATE,
    )


def _formats(say: Texts) -> list[tuple[str, str]]:
    return [(say(f"data.format.{form}"), form) for form in ENDINGS]


def _mine_title(say: Texts) -> str:
    title, note = escape(say("data.mine")), escape(say("data.mine.note"))
    head = f'<h2 class="sr">{escape(say("tab.data"))}</h2>'
    return f'{head}<h3>{title}</h3><p class="quiet">{note}</p>'


def _download_title(say: Texts) -> str:
    note = escape(say("data.download.note"))
    return f'<h3>{escape(say("data.download"))}</h3><p class="quiet">{note}</p>'


def tally(arena: Arena, made: Callable[[], Stats], say: Texts = ENGLISH) -> str:
    """Return a table of the numbers of rounds and votes, and the warnings of the storage."""
    try:
        stats = made()
    except ArenaError as error:
        return highlights.told(error, say)
    rows = [(say("data.rounds"), sum(stats.rounds.values()))]
    rows += [(say("data.votes"), sum(stats.votes.values()))]
    rows += [(f"… {say.verdict(v, 'noun')}", n) for v, n in sorted(stats.votes.items())]
    rows += [(say("data.voters"), stats.voters), (say("data.exportable"), stats.exportable)]
    rows += [
        (say("data.left_out", reason=say.own(reason)), n)
        for reason, n in stats.left_out.items()
        if n
    ]
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{say.number(f'{n:,}')}</td></tr>" for name, n in rows
    )
    place = arena.store.database.name
    warnings = "".join(
        highlights.message(say.own(line.replace(place, "The database")), error=True)
        for line in stats.warnings
    )
    title = escape(say("data.counted"))
    return (
        f'{warnings}<section class="card"><h3>{title}</h3><table class="tally">{body}</table>'
        f"<p>{escape(say.own(age_of_push(arena.store, arena.settings)))}</p></section>"
    )


def _report(arena: Arena, form: str) -> Report:
    """What a visitor's download of the form contains now."""
    from empo_demo.exchange.export import Report, rows

    report = Report()
    for _ in rows(arena.store, form, report, public=True):
        pass
    return report


def prepare(
    reports: Mapping[str, Callable[[], Report]], form: Any, say: Texts, file: Any, said: Any
) -> dict[Any, Any]:
    """Say what the export contains and offer its address. The request for it makes the file."""
    if form not in reports:
        return {said: highlights.message(say("data.format.none"), error=True)}
    try:
        report = reports[form]()
    except Exception as error:
        return {said: highlights.told(error, say)}
    words = say(
        "data.report", rows=say.number(f"{report.rows:,}"), votes=say.number(f"{report.votes:,}")
    )
    left = [
        f"{say.own(reason)} {say.number(f'{n:,}')}" for reason, n in report.left_out.items() if n
    ]
    if left:
        words += " " + say("data.report.left_out", reasons=", ".join(left))
    return {
        file: gr.update(link=address_of_export(form), visible=True),
        said: highlights.message(words),
    }


def own(arena: Arena, stored: Any) -> str:
    """List all stored rounds of the visitor, each in words, as it is stored, and with a button to
    withdraw it.
    """
    session = Session.read(stored)
    say = texts_of(session.language)
    try:
        records = arena.my_data(session.voter)
    except ArenaError as error:
        return highlights.told(error, say)
    if not records:
        return highlights.message(say("data.mine.none"))
    return "".join(_record(record, say) for record in records)


def _record(record: dict[str, Any], say: Texts) -> str:
    round_, vote = record["round"], record["vote"]
    raw = escape(json.dumps(record, indent=1, ensure_ascii=False, default=str))
    verdict = say.verdict(vote["verdict"], "noun") if vote else say.own(round_["state"])
    number = f"<code>{escape(vote['receipt'])}</code> · " if vote else ""
    note = say("data.unkept" if round_["ephemeral"] else "data.kept")
    return (
        f'<article class="mine"><p lang="en">{escape(round_["dialogue"][-1]["content"])}</p>'
        f'<p class="quiet">{number}{escape(verdict)} · {escape(note)}</p>'
        f'<button type="button" data-round="{escape(round_["id"])}">'
        f"{escape(say('data.withdraw'))}</button><details><summary>{escape(say('data.raw'))}"
        f"</summary><pre lang='en' tabindex='0'>{raw}</pre></details></article>"
    )


def withdraw(arena: Arena, stored: Any, round_id: Any, mine: Any, erased: Any) -> dict[Any, Any]:
    """Erase one round with its vote, and list what is left."""
    session = Session.read(stored)
    say = texts_of(session.language)
    try:
        arena.withdraw(session.voter, str(round_id))
    except ArenaError as error:
        return {erased: highlights.told(error, say)}
    return {mine: own(arena, stored), erased: highlights.message(say("data.withdrawn"))}


def delete(
    arena: Arena,
    stored: Any,
    sure: bool,
    mine: Any,
    erased: Any,
    session: Any,
    address: str | None = None,
) -> dict[Any, Any]:
    """Erase what this browser's token wrote, and give the browser a new token."""
    before = Session.read(stored)
    say = texts_of(before.language)
    if not sure:
        return {erased: highlights.message(say("data.tick"), error=True)}
    try:
        count = arena.delete_my_data(before.voter, address=address)
    except ArenaError as error:
        return {erased: highlights.told(error, say)}
    return {
        mine: "",
        erased: highlights.message(say.count("data.deleted", count)),
        session: Session(voter=arena.new_voter(), language=before.language).store(),
    }
