"""The Board's Plotly figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from empo_demo.board.board import Board
from empo_demo.contenders.roster import label_of
from empo_demo.plotting import INK, SERIES, error_bars, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped,unused-ignore]

MARK = "#5b7fa6"
LOST_TO_WON = [[0, "#95602f"], [0.5, "#6b7076"], [1, "#456a94"]]
"""Opaque, and dark enough for white figures, so that both themes can read them."""


def board_figures(board: Board) -> dict[str, Figure]:
    """The figures by name: `win_rates`, `matrix`, `days`, `sliders`; only those with data."""
    figures = {}
    if board.shown():
        figures["win_rates"] = _win_rates(board)
        figures["matrix"] = _matrix(board)
    if board.days:
        figures["days"] = _days(board)
    if board.sliders:
        figures["sliders"] = _sliders(board)
    return figures


def _win_rates(board: Board) -> Figure:
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    shown = board.shown()[::-1]
    names = [label_of(one.id, board.labels) for one in shown]
    rates = [100 * (one.win_rate or 0.0) for one in shown]
    spans = [one.win_rate_interval or (0.0, 1.0) for one in shown]
    figure = go.Figure(
        go.Scatter(
            x=rates, y=names, mode="markers", marker={"size": 11, "color": MARK},
            error_x=error_bars(
                rates, [(100 * low, 100 * high) for low, high in spans], color=INK, thickness=1.5
            ),
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )
    )  # fmt: skip
    figure.add_vline(x=50, line={"color": INK, "dash": "dot", "width": 1})
    x = {"range": [0, 100], "ticksuffix": " %", "title": {"text": "rounds won, ties half"}}
    return style(figure, height=90 + 44 * len(names), xaxis=x)


def _matrix(board: Board) -> Figure:
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    ids = [one.id for one in board.shown()]
    names = [label_of(name, board.labels) for name in ids]
    share = {(one.one, one.other): one for one in board.matrix}
    cells = [[share.get((row, column)) for column in ids] for row in ids]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if c is None or c.share is None else 100 * c.share for c in r] for r in cells],
            text=[
                ["" if c is None or c.share is None else f"{c.share:.0%}" for c in r] for r in cells
            ],
            x=names, y=names, texttemplate="%{text}", zmin=0, zmax=100, showscale=False, xgap=2,
            ygap=2, colorscale=LOST_TO_WON, textfont={"color": "#ffffff"},
            hovertemplate="%{y} against %{x}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    y = {"autorange": "reversed", "showgrid": False}
    x = {"title": {"text": "against"}, "showgrid": False}
    return style(figure, height=120 + 48 * len(names), xaxis=x, yaxis=y)


def _days(board: Board) -> Figure:
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    days, counts = zip(*board.days, strict=True)
    figure = go.Figure(go.Bar(x=list(days), y=list(counts), marker={"color": MARK}))
    y = {"title": {"text": "votes"}, "rangemode": "tozero"}
    return style(figure, height=240, xaxis={"type": "category"}, yaxis=y)


def _sliders(board: Board) -> Figure:
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    figure = go.Figure()
    for number, (name, cells) in enumerate(board.sliders.items()):
        means = [cell["mean"] for cell in cells.values()]
        spans = [tuple(cell["interval"] or (cell["mean"],) * 2) for cell in cells.values()]
        figure.add_trace(
            go.Scatter(
                x=means, y=list(cells), name=label_of(name, board.labels), mode="markers",
                marker={"size": 10, "color": SERIES[number % len(SERIES)]},
                error_x=error_bars(means, spans, color=INK, thickness=1.5),
            )
        )  # fmt: skip
    x = {"range": [0, 100], "title": {"text": "mean rating, 0 to 100"}}
    return style(figure, height=280, xaxis=x, legend={"y": -0.25})
