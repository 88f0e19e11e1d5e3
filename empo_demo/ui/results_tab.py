"""The Results tab: the paper's table for the shipped models, and what votes say of the metrics."""

from __future__ import annotations

from typing import Any

import gradio as gr

from empo_demo.errors import ArenaError
from empo_demo.settings import Settings
from empo_demo.ui import highlights, tables

MOST_FIGURES = 4
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(settings: Settings, tab: gr.Tab) -> None:
    """Lay the tab out; it is computed when it is opened."""
    said = gr.HTML(elem_id="results-words")
    plots = [gr.Plot(show_label=False, container=False, visible=False) for _ in range(MOST_FIGURES)]

    def draw() -> dict[Any, Any]:
        return _draw(settings, said, plots)

    tab.select(draw, None, [said, *plots], **_PRIVATE)


def _draw(settings: Settings, said: gr.HTML, plots: list[gr.Plot]) -> dict[Any, Any]:
    from empo_demo.evaluation.charts import figures
    from empo_demo.evaluation.report import paper_table
    from empo_demo.evaluation.results import results

    try:
        data = results(settings)
    except ArenaError as error:
        return {said: highlights.message(str(error), error=True)}
    notes = "".join(highlights.paragraphs(line) for line in data.notices)
    table = tables.of_lines(["", *data.systems], paper_table(data)) if data.systems else ""
    changes: dict[Any, Any] = {
        said: f'<section class="card"><h3>The paper’s figures</h3>{table}{notes}</section>'
    }
    drawn = figures(data)[:MOST_FIGURES] if data.systems else []
    for place, plot in enumerate(plots):
        there = place < len(drawn)
        changes[plot] = gr.update(value=drawn[place] if there else None, visible=there)
    return changes
