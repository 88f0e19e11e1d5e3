"""One style for all Plotly figures: transparent, without animation, for light and dark pages.

`style(figure, …)` gives a figure the shared template and its own layout. The colours of series are
safe for colour-blind people (Okabe and Ito 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK = "#8a8f98"
"""The colour of text and marks: a grey with enough contrast on both pages."""
GRID, ZERO_LINE = "rgba(128,128,128,.25)", "rgba(128,128,128,.45)"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REFERENCE, BASELINE = "#6B7280", "#B8BEC9"
"""The greys of what systems are compared with: people or chance, and shuffled replies."""


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
