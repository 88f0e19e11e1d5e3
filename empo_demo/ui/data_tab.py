"""The Data tab: counts, the download, and what is one's own."""

from __future__ import annotations

import logging
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.errors import ArenaError
from empo_demo.exchange.hub import age_of_push
from empo_demo.ui import highlights
from empo_demo.ui.pictures import GENERAL
from empo_demo.ui.session import Session
from empo_demo.votes.verdicts import noun_of

log = logging.getLogger(__name__)
FORMATS = {
    "Preference pairs (TRL, JSONL)": "trl",
    "Single rated replies (KTO, JSONL)": "kto",
    "Table (CSV)": "csv",
}
_PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def build(arena: Arena, session: gr.BrowserState, tab: gr.Tab) -> None:
    """Lay the tab out; it counts afresh whenever it is opened."""
    with gr.Row():
        with gr.Column():
            counts = gr.HTML(elem_id="counts")
            gr.Markdown("### Download\nEvery vote that may be published, without who cast it.")
            form = gr.Radio(list(FORMATS), value=next(iter(FORMATS)), show_label=False)
            make = gr.Button("Prepare the file", elem_id="prepare")
            file = gr.DownloadButton("Download", visible=False, elem_id="download")
            said = gr.HTML()
        with gr.Column():
            gr.Markdown(
                "### Your votes\nTied together by a random token in this browser: they are "
                "pseudonymous, not anonymous."
            )
            mine = gr.HTML(elem_id="mine")
            show = gr.Button("Show my votes", elem_id="show_mine")
            sure = gr.Checkbox(label="Yes, delete everything that this browser wrote")
            erase = gr.Button("Delete my data", elem_id="delete_mine", variant="stop")
            erased = gr.HTML(elem_id="erased")
    tab.select(lambda: tally(arena), None, [counts], **_PRIVATE)
    make.click(lambda name: prepare(arena, name, file, said), [form], [file, said], **_PRIVATE)
    show.click(lambda stored: own(arena, stored), [session], [mine], **_PRIVATE)
    erase.click(
        lambda stored, yes: delete(arena, stored, yes, mine, erased, session),
        [session, sure],
        [mine, erased, session],
        **_PRIVATE,
    )


def tally(arena: Arena) -> str:
    """Counts of rounds and votes as a table, and what the storage warns of."""
    try:
        stats = arena.stats()
    except ArenaError as error:
        return highlights.message(str(error), error=True)
    rows = [("Rounds", sum(stats.rounds.values())), ("Votes", sum(stats.votes.values()))]
    rows += [(f"… {noun_of(v)}", n) for v, n in sorted(stats.votes.items())]
    rows += [("Voters", stats.voters), ("May be exported", stats.exportable)]
    rows += [(f"Left out: {reason}", n) for reason, n in stats.left_out.items() if n]
    body = "".join(f"<tr><td>{escape(name)}</td><td>{n:,}</td></tr>" for name, n in rows)
    warnings = "".join(highlights.message(line, error=True) for line in stats.warnings)
    return (
        f'{warnings}<section class="card"><h3>Counted</h3><table class="tally">{body}</table>'
        f"<p>{escape(age_of_push(arena.store, arena.settings))}</p></section>"
    )


def prepare(arena: Arena, name: str, file: Any, said: Any) -> dict[Any, Any]:
    """Write the chosen export to a private file and offer it."""
    from empo_demo.exchange.export import export_file

    form = FORMATS.get(name)
    if form is None:
        return {said: highlights.message("There is no such format.", error=True)}
    ending = "csv" if form == "csv" else "jsonl"
    path = Path(tempfile.mkdtemp(prefix="empo-")) / f"empo-votes-{form}.{ending}"
    try:
        report = export_file(arena.settings.database, form, path)
    except ArenaError as error:
        return {said: highlights.message(str(error), error=True)}
    except Exception:
        log.exception("The export failed")
        return {said: highlights.message(GENERAL, error=True)}
    return {
        file: gr.update(value=str(path), visible=True),
        said: highlights.message(f"{report} – press Download."),
    }


def own(arena: Arena, stored: Any) -> str:
    """The visitor's own votes."""
    try:
        votes = arena.my_votes(Session.read(stored).voter)
    except ArenaError as error:
        return highlights.message(str(error), error=True)
    if not votes:
        return highlights.message("No votes yet.")
    rows = "".join(
        f"<tr><td><code>{escape(str(vote.get('receipt', '')))}</code></td>"
        f"<td>{escape(vote['dialogue'][-1]['content'][:90])}</td>"
        f"<td>{escape(noun_of(str(vote.get('verdict'))))}</td></tr>"
        for vote in votes
    )
    return f'<table class="tally">{rows}</table>'


def delete(
    arena: Arena, stored: Any, sure: bool, mine: Any, erased: Any, session: Any
) -> dict[Any, Any]:
    """Erase what this browser's token wrote, and give the browser a new token."""
    if not sure:
        return {erased: highlights.message("Tick the box above first.", error=True)}
    try:
        count = arena.delete_my_data(Session.read(stored).voter)
    except ArenaError as error:
        return {erased: highlights.message(str(error), error=True)}
    return {
        mine: "",
        erased: highlights.message(f"{count} rounds and their votes were deleted."),
        session: Session(voter=arena.new_voter()).store(),
    }
