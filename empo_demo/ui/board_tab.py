"""The Board tab: how the contenders stand, with intervals, and a table under each plot.

It is never beside a running dialogue: how others voted would sway the next vote.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from empo_demo.arena.arena import Arena
from empo_demo.errors import ArenaError
from empo_demo.ui import highlights, tables

PLOTS = (
    ("win_rates", "Win rates, with 95 % intervals over voters"),
    ("matrix", "Who wins against whom"),
    ("days", "Votes per day"),
    ("sliders", "Ratings in detail"),
)
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(arena: Arena, tab: gr.Tab) -> None:
    """Lay the tab out; it draws itself when it is opened and every 20 s while it is open."""
    said = gr.HTML(elem_id="board-words")
    slots: dict[str, tuple[gr.Column, gr.Plot, gr.HTML]] = {}
    for name, title in PLOTS:
        with gr.Column(visible=False) as column:
            gr.Markdown(f"### {title}")
            plot = gr.Plot(show_label=False, container=False)
            table = gr.HTML()
        slots[name] = (column, plot, table)
    outputs = [said, *(component for slot in slots.values() for component in slot)]
    timer = gr.Timer(20, active=False)

    def draw() -> dict[Any, Any]:
        return _draw(arena, said, slots)

    tab.select(lambda: {**draw(), timer: gr.update(active=True)}, None, [*outputs, timer],
               **_PRIVATE)  # fmt: skip
    timer.tick(draw, None, outputs, **_PRIVATE)


def _draw(
    arena: Arena, said: gr.HTML, slots: dict[str, tuple[gr.Column, gr.Plot, gr.HTML]]
) -> dict[Any, Any]:
    from empo_demo.board.ballots import ballots_of_store
    from empo_demo.board.board import board
    from empo_demo.board.figures import board_figures

    try:
        found = board(ballots_of_store(arena.store), arena.roster)
    except ArenaError as error:
        return {said: highlights.message(str(error), error=True)}
    figures = board_figures(found)
    rows = {
        "win_rates": found.table(),
        "matrix": found.matrix_table(),
        "days": found.days_table(),
        "sliders": found.sliders_table(),
    }
    changes: dict[Any, Any] = {said: _words(found)}
    for name, (column, plot, table) in slots.items():
        changes[column] = gr.update(visible=name in figures)
        if name in figures:
            changes[plot] = figures[name]
            changes[table] = tables.of_rows(rows[name])
    return changes


def _words(found: Any) -> str:
    few = (
        "<p>Not enough votes yet: a contender's figures appear from 30 decisive votes on, and "
        "count as preliminary below 300.</p>"
        if found.empty
        else ""
    )
    # Effects of a handful of votes would read as findings.
    said = () if found.empty else found.sentences
    sentences = "".join(highlights.paragraphs(sentence) for sentence in said)
    arms = tables.of_rows(found.arms)
    lineage = tables.of_rows(found.lineage)
    return (
        f'<section class="card"><h3>How the contenders stand</h3>{few}{sentences}{arms}{lineage}'
        "</section>"
    )
