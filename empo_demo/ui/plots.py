"""Valence and diversity: a small inline SVG while text streams, a Plotly figure when it ends.

A Plotly figure per token costs seconds of browser time; an SVG string costs nothing. Both draw
the same series: the user's turns, the replies that went on, and the two sides of the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Dialogue
from empo_demo.metrics.diversity import distinct
from empo_demo.metrics.valence import Lexicon, text_valence
from empo_demo.plotting import SIDES, style

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = {"you": "#8a7f72", "reply": "#7d8597", **SIDES}
_WIDTH, _HEIGHT = 280, 96
WORDS = (
    '<p class="quiet">Valence: how positive the words are, −1 to 1. Diversity: how many of a '
    "side’s words, and pairs of words, over the dialogue were new.</p>"
)


@dataclass(frozen=True, slots=True)
class Series:
    """Valence in [-1, 1] at each turn; distinct-1/2 of each side over the dialogue."""

    turns: tuple[tuple[str, float], ...]
    sides: dict[str, float]
    diversity: dict[str, tuple[float | None, float | None]]


def series(dialogue: Dialogue, replies: Mapping[Any, str], lexicon: Lexicon) -> Series:
    """The figures of a dialogue and the replies of its open round (may be empty)."""
    turns = tuple((turn.role, text_valence(turn.content, lexicon)) for turn in dialogue.turns)
    said = [turn.content for turn in dialogue.turns if turn.role == "assistant"]
    texts = {side: [*said, text] for side, text in replies.items() if text}
    return Series(
        turns,
        {side: text_valence(replies[side], lexicon) for side in texts},
        {side: (distinct(said, 1), distinct(said, 2)) for side, said in texts.items()},
    )


def svg(data: Series) -> str:
    """Both plots as inline SVG with the figures in words beneath."""
    return (
        '<section class="card plots"><h3>Valence</h3>'
        f"{_valence_svg(data)}<p class='quiet'>How positive the words are, −1 to 1. "
        f"{_valence_words(data)}</p>"
        f"<h3>Diversity</h3>{_diversity_rows(data)}"
        "<p class='quiet'>How many of its words (and word pairs) were new.</p></section>"
    )


def figure(data: Series) -> Figure:
    """The same as a Plotly figure, drawn once a turn has ended: valence above, diversity below."""
    from plotly.subplots import make_subplots

    drawn = make_subplots(rows=2, cols=1, row_heights=[0.55, 0.45], vertical_spacing=0.24)
    _draw_valence(drawn, data)
    names = ("new words", "new pairs")
    for side, values in data.diversity.items():
        drawn.add_bar(
            x=[value if value is not None else 0.0 for value in values], y=names,
            orientation="h", name=f"{side.upper()} ", marker={"color": COLOURS[side]},
            text=["–" if value is None else f"{value:.2f}" for value in values],
            textposition="inside", insidetextanchor="end", textangle=0,
            textfont={"size": 12, "color": "#ffffff"}, showlegend=False, row=2, col=1,
        )  # fmt: skip
    style(
        drawn, height=340, bargap=0.25, showlegend=True, legend={"y": 1.14, "x": 0},
        font={"size": 12}, margin={"l": 74, "r": 8, "t": 8, "b": 40},
    )  # fmt: skip
    drawn.update_yaxes(range=[-1.08, 1.08], tickvals=[-1, 0, 1], title_text="valence", row=1, col=1)
    drawn.update_xaxes(title_text="turn", title_standoff=4, dtick=1, row=1, col=1)
    drawn.update_xaxes(
        range=[0, 1], title_text="share that was new", title_standoff=4, row=2, col=1
    )
    return drawn


def _draw_valence(drawn: Any, data: Series) -> None:
    numbers = range(1, len(data.turns) + 1)
    for role, name, symbol, colour in (
        ("user", "you", "circle", COLOURS["you"]),
        ("assistant", "reply", "diamond", COLOURS["reply"]),
    ):
        points = [(n, v) for n, (r, v) in zip(numbers, data.turns, strict=True) if r == role]
        if points:
            drawn.add_scatter(
                x=[p[0] for p in points], y=[p[1] for p in points], name=name,
                mode="lines+markers", line={"color": colour, "width": 1.5},
                marker={"symbol": symbol, "size": 9}, row=1, col=1,
            )  # fmt: skip
    for side, symbol in (("a", "square"), ("b", "triangle-up")):
        if side in data.sides:
            drawn.add_scatter(
                x=[len(data.turns) + 1], y=[data.sides[side]], name=side.upper(), mode="markers",
                marker={"symbol": symbol, "size": 12, "color": COLOURS[side]}, row=1, col=1,
            )  # fmt: skip


def _valence_svg(data: Series) -> str:
    count = max(2, len(data.turns) + (1 if data.sides else 0))

    def place(number: int, value: float) -> tuple[float, float]:
        x = 10 + number * (_WIDTH - 20) / (count - 1) if count > 1 else _WIDTH / 2
        return x, _HEIGHT / 2 - value * (_HEIGHT / 2 - 8)

    user = [place(n, v) for n, (role, v) in enumerate(data.turns) if role == "user"]
    reply = [place(n, v) for n, (role, v) in enumerate(data.turns) if role == "assistant"]
    shapes = [
        f'<line x1="4" x2="{_WIDTH - 4}" y1="{_HEIGHT / 2}" y2="{_HEIGHT / 2}" class="zero"/>'
    ]
    shapes += [_line(user, COLOURS["you"]), _line(reply, COLOURS["reply"])]
    shapes += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS["you"]}"/>' for x, y in user
    ]
    shapes += [_diamond(x, y) for x, y in reply]
    for side, value in data.sides.items():
        x, y = place(len(data.turns), value)
        shapes.append(_side_mark(side, x, y))
    label = "Valence per turn: " + _valence_words(data)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" '
        f'class="spark">{"".join(shapes)}</svg>'
    )


def _valence_words(data: Series) -> str:
    said = []
    user = [v for role, v in data.turns if role == "user"]
    if user:
        said.append(f"● you {user[-1]:+.2f}")
    marks = {"a": "■ A", "b": "▲ B"}
    said += [f"{marks[side]} {value:+.2f}" for side, value in data.sides.items()]
    return " · ".join(said)


def _diversity_rows(data: Series) -> str:
    if not data.diversity:
        return '<p class="quiet">Appears with the first reply.</p>'
    rows = []
    for side, (one, two) in data.diversity.items():
        for name, value in (("words", one), ("pairs", two)):
            share = value or 0.0
            shown = "–" if value is None else f"{value:.2f}"
            rows.append(
                f'<li><span class="name">{side.upper()} {name}</span>'
                f'<span class="bar side-{side}"><span style="width:{100 * share:.0f}%"></span>'
                f'</span><span class="value">{shown}</span></li>'
            )
    return f'<ul class="bars">{"".join(rows)}</ul>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _diamond(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 5:.1f} l5 5 l-5 5 l-5 -5 z" fill="{COLOURS["reply"]}"/>'


def _side_mark(side: str, x: float, y: float) -> str:
    if side == "a":
        return (
            f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" fill="{COLOURS["a"]}"/>'
        )
    return f'<path d="M{x:.1f} {y - 6:.1f} l6 11 h-12 z" fill="{COLOURS["b"]}"/>'
