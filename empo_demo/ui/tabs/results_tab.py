"""The Results tab: five sentences and a picture, then the paper's table, then everything."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo.errors import ArenaError
from empo_demo.evaluation.charts import figures
from empo_demo.evaluation.results import RESULTS, read, results
from empo_demo.settings import Settings
from empo_demo.ui.drawing import highlights, tables
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.session import Session
from empo_demo.ui.tabs import findings
from empo_demo.ui.tabs.recent import Recent
from empo_demo.ui.texts import Texts, texts_of

if TYPE_CHECKING:
    from empo_demo.evaluation.results import ResultsData

MOST_FIGURES = 4
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(settings: Settings, session: gr.BrowserState, tab: gr.Tab, labels: Labels) -> None:
    """Lay the tab out; it is computed when it is opened, the figures when they are."""
    say = texts_of("en")
    said = gr.HTML(elem_id="results-words")
    fold = labels.add(
        gr.Accordion(say("result.all"), open=False, elem_id="results-all"), "result.all", "label"
    )
    with fold:
        everything = gr.HTML()
        plots = [
            gr.Plot(show_label=False, container=False, visible=False) for _ in range(MOST_FIGURES)
        ]

    def draw(stored: Any) -> dict[Any, Any]:
        return _words(said, texts_of(Session.read(stored).language))

    tab.select(draw, [session], [said], **_PRIVATE)
    made = Recent(partial(_data, settings))
    fold.expand(
        lambda: _everything(made, everything, plots), None, [everything, *plots], **_PRIVATE
    )


def _words(said: gr.HTML, say: Texts) -> dict[Any, Any]:

    try:
        data = read(RESULTS)
    except ArenaError as error:
        return {said: highlights.told(error, say)}
    notes = "".join(highlights.paragraphs(say.own(line)) for line in data.notices)
    if not data.systems:
        return {said: f'<section class="card">{notes}</section>'}
    items = "".join(f"<li>{highlights.lines(line)}</li>" for line in findings.sentences(data, say))
    return {
        said: f'<h2 class="sr">{highlights.lines(say("tab.results"))}</h2>'
        f'<section class="card"><h3>{highlights.lines(say("result.title"))}</h3>'
        f'<div class="findings"><ol>{items}</ol>{findings.picture(data, say)}</div></section>'
        f'<section class="card"><h3>{highlights.lines(say("result.paper"))}</h3>'
        f'{findings.table(data, say)}<div class="quiet">{notes}</div></section>'
    }


def _data(settings: Settings) -> ResultsData:

    return results(settings)


def _everything(
    made: Callable[[], ResultsData], everything: gr.HTML, plots: list[gr.Plot]
) -> dict[Any, Any]:
    from empo_demo.evaluation.report import paper_table

    try:
        data = made()
    except ArenaError as error:
        return {everything: highlights.told(error)}
    table = ""
    if data.systems:
        # The paper's own names of its measures, in every language.
        lines = tables.of_lines(["", *data.systems], paper_table(data))
        table = f'<div lang="en">{lines}</div>'
    changes: dict[Any, Any] = {everything: table}
    drawn = figures(data)[:MOST_FIGURES] if data.systems else []
    for place, plot in enumerate(plots):
        there = place < len(drawn)
        changes[plot] = gr.update(value=drawn[place] if there else None, visible=there)
    return changes
