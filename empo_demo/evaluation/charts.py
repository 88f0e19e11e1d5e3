"""The figures of the evaluation in Plotly; the report and the Results tab share them.

Every difference can also be read without colour. Names come from files and Plotly interprets some
HTML, so they are escaped. All figures have one style: transparent, without animation, for light
and dark pages.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from empo_demo.evaluation.measure import LOWER_IS_BETTER
from empo_demo.evaluation.results import HUMAN, SHUFFLED, ResultsData

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped,unused-ignore]

SIGNIFICANT = 0.05
MARGIN = {"t": 60, "b": 50}
INK = "#8a8f98"
"""The colour of text and marks: a grey with enough contrast on both pages."""
GRID, ZERO_LINE = "rgba(128,128,128,.25)", "rgba(128,128,128,.45)"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REFERENCE, BASELINE = "#6B7280", "#B8BEC9"
"""The greys of what systems are compared with: people or chance, and shuffled replies."""


def figures(data: ResultsData) -> list[Figure]:
    """The figures that have data, with titles: paired differences, distributions, votes."""
    drawn = []
    if data.paired:
        drawn.append(forest(data.paired))
    if data.distributions:
        drawn.append(distributions(data))
    if any(row["accuracy"] is not None for row in data.agreement):
        drawn.append(agreement(data.agreement))
    return drawn


def forest(paired: Sequence[Mapping[str, Any]]) -> Figure:
    """Paired differences in standard deviations, so that all metrics share one axis."""
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    figure = go.Figure()
    pairs = list(dict.fromkeys((entry["a"], entry["b"]) for entry in paired))
    metrics = list(dict.fromkeys(entry["metric"] for entry in paired))
    for colour, (a, b) in zip(itertools.cycle(SERIES), pairs, strict=False):
        rows = [entry for entry in paired if (entry["a"], entry["b"]) == (a, b)]
        scaled = [_standardised(entry) for entry in rows]
        figure.add_scatter(
            name=f"{escape(b)} − {escape(a)}",
            y=[entry["metric"] for entry in rows],
            x=[middle for _, middle, _ in scaled],
            error_x=error_bars(
                [middle for _, middle, _ in scaled], [(low, high) for low, _, high in scaled]
            ),
            mode="markers",
            marker={"color": colour, "size": 10, "symbol": [_symbol(entry) for entry in rows]},
            hovertext=[_hover(entry) for entry in rows],
            hoverinfo="text",
        )
    figure.add_vline(x=0, line_color=REFERENCE, line_width=1)
    return style(
        figure,
        title="Paired differences (95 % intervals)",
        xaxis_title="second − first, in SD<br>filled: p < .05 (Holm)",
        yaxis={"categoryorder": "array", "categoryarray": metrics[::-1]},
        height=200 + 34 * len(metrics),
        legend={"orientation": "h", "y": -2.6 / (len(metrics) + 1), "yanchor": "top"},
        margin=MARGIN,
    )


def distributions(data: ResultsData) -> Figure:
    """One small histogram per metric: a line per system, a dotted one for the human's replies."""
    from plotly.subplots import make_subplots  # type: ignore[import-untyped,unused-ignore]

    names = list(data.distributions)
    columns = 2
    rows = -(-len(names) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=names, vertical_spacing=0.28 / rows
    )
    for place, name in enumerate(names):
        for system, line in _lines(data).items():
            if system in data.distributions[name]:
                trace = _histogram(data.distributions[name], system, line)
                trace.update(legendgroup=system, showlegend=place == 0)
                figure.add_trace(trace, row=place // columns + 1, col=place % columns + 1)
    return style(
        figure,
        title="Distributions (share of replies)",
        height=120 + 210 * rows,
        legend={"orientation": "h", "y": -0.06 - 0.1 / rows},
        margin=MARGIN,
    )


def agreement(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How well each metric predicts the votes: accuracy and tau, with a line for chance."""
    from plotly.subplots import make_subplots  # type: ignore[import-untyped,unused-ignore]

    known = [row for row in rows if row["accuracy"] is not None][::-1]
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, subplot_titles=["accuracy", "Kendall's τ-b"]
    )
    for column, (key, chance) in enumerate((("accuracy", 0.5), ("tau", 0.0)), start=1):
        shown = [row for row in known if row[key] is not None and row[f"{key}_interval"]]
        figure.add_scatter(
            x=[row[key] for row in shown],
            y=[f"{row['metric']} ({row['better']})" for row in shown],
            error_x=error_bars(
                [row[key] for row in shown], [row[f"{key}_interval"] for row in shown]
            ),
            mode="markers",
            marker={"color": SERIES[0], "size": 10},
            showlegend=False,
            row=1,
            col=column,
        )
        figure.add_vline(x=chance, line_color=REFERENCE, line_dash="dot", row=1, col=column)
    votes, voters = max(row["n"] for row in known), max(row["voters"] for row in known)
    return style(
        figure,
        title=f"Votes and metrics: {votes} votes of {voters} voters (dotted: chance)",
        height=160 + 34 * len(known),
        margin=MARGIN,
    )


def _histogram(shares: Mapping[str, list[float]], system: str, look: dict[str, Any]) -> Any:
    """Bars if a metric has few values, else a stepped line over the bins."""
    import plotly.graph_objects as go  # type: ignore[import-untyped,unused-ignore]

    if "values" in shares:
        at = [f"{value:g}" for value in shares["values"]]
        return go.Bar(x=at, y=shares[system], name=escape(system), marker_color=look["color"])
    middles = [(low + high) / 2 for low, high in itertools.pairwise(shares["edges"])]
    line = {**look, "shape": "hvh"}
    return go.Scatter(x=middles, y=shares[system], name=escape(system), mode="lines", line=line)


def escape(text: str) -> str:
    return html.escape(text, quote=False)


def _standardised(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    low, high = entry["interval"]
    unit = entry["deviation"] or 1.0
    return low / unit, entry["difference"] / unit, high / unit


def _symbol(entry: Mapping[str, Any]) -> str:
    return "circle" if entry["p_holm"] < SIGNIFICANT else "circle-open"


def _hover(entry: Mapping[str, Any]) -> str:
    low, high = entry["interval"]
    effect = "–" if entry["effect_size"] is None else f"{entry['effect_size']:.2f}"
    return (
        f"{entry['metric']}: {entry['difference']:+.4f} [{low:+.4f}, {high:+.4f}]<br>"
        f"n = {entry['n']}, d = {effect}, p (Holm) = {entry['p_holm']:.4f}<br>"
        f"{_direction(entry)}"
    )


def _direction(entry: Mapping[str, Any]) -> str:
    if entry["metric"] == "length":
        return "neither is better in itself"
    return "lower is better" if entry["metric"] in LOWER_IS_BETTER else "higher is better"


def _lines(data: ResultsData) -> dict[str, dict[str, Any]]:
    """Line styles by system, contenders first."""
    colours = itertools.cycle(SERIES)
    styles: dict[str, dict[str, Any]] = {
        name: {"color": next(colours), "width": 2} for name in data.contenders
    }
    styles[HUMAN] = {"color": REFERENCE, "width": 2, "dash": "dot"}
    styles[SHUFFLED] = {"color": BASELINE, "width": 2, "dash": "dash"}
    return styles


@lru_cache(maxsize=1)
def template() -> Any:
    """The template of every figure. The figure's own layout overrides it."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "zerolinecolor": ZERO_LINE,
        "fixedrange": True,
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "family": "system-ui, sans-serif", "size": 13},
            "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
            "colorway": SERIES,
            "margin": {"l": 8, "r": 24, "t": 16, "b": 44},
            "dragmode": False,
            "legend": {"orientation": "h"},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def style(figure: Figure, **layout: Any) -> Figure:
    """`figure` with the shared template and its own `layout`."""
    figure.update_layout(template=template(), **layout)
    return figure


def error_bars(
    values: Sequence[float], intervals: Sequence[Sequence[float]], **line: Any
) -> dict[str, Any]:
    """Plotly's asymmetric error bars from (low, high) intervals around `values`."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        **line,
    }
