"""The Results tab: what people said, what goes with it, what alignment changed, then everything.

The first two cards are of EmPO's study (`human_study`). The third is of our own pair: its sentences
and its picture are made from the figures of the shipped evaluation alone, those first that went
with people's judgement. A difference counts if it is significant after Holm's correction. Length is
told as no finding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from math import floor, log10
from typing import TYPE_CHECKING, Any

import gradio as gr

from empo_demo.errors import ArenaError
from empo_demo.evaluation.charts import figures
from empo_demo.evaluation.measure import LINES, Line
from empo_demo.evaluation.rated_replies import read_human_study
from empo_demo.evaluation.results import RESULTS, read, results
from empo_demo.evaluation.score import look_up
from empo_demo.settings import Settings
from empo_demo.ui.drawing import highlights
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.serving.lanes import UNLISTED
from empo_demo.ui.tabs import human_study
from empo_demo.ui.tabs.recent import Recent
from empo_demo.ui.texts import Texts, texts_of
from empo_demo.ui.visitors import Session

if TYPE_CHECKING:
    from empo_demo.evaluation.results import ResultsData

MOST_FIGURES = 4


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

    tab.select(draw, [session], [said], **UNLISTED)
    made = Recent(partial(_data, settings))
    fold.expand(
        lambda: _everything(made, everything, plots), None, [everything, *plots], **UNLISTED
    )


def _words(said: gr.HTML, say: Texts) -> dict[Any, Any]:

    try:
        data = read(RESULTS)
    except ArenaError as error:
        return {said: highlights.told(error, say)}
    notes = "".join(highlights.paragraphs(say.own(line)) for line in data.notices)
    if not data.systems:
        return {said: f'<section class="card">{notes}</section>'}
    try:
        study = human_study.cards(read_human_study(), say)
    except ArenaError as error:
        study = highlights.told(error, say)
    items = "".join(f"<li>{highlights.lines(line)}</li>" for line in sentences(data, say))
    return {
        said: f'<h2 class="sr">{highlights.lines(say("tab.results"))}</h2>{study}'
        f'<section class="card"><h3>{highlights.lines(say("result.title"))}</h3>'
        f'<div class="findings"><ol>{items}</ol>{picture(data, say)}</div></section>'
        f'<section class="card"><h3>{highlights.lines(say("result.paper"))}</h3>'
        f'{table(data, say)}<div class="quiet">{notes}</div></section>'
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
    markup = ""
    if data.systems:
        # The paper's own names of its measures, in every language.
        lines = highlights.table_of_lines(["", *data.systems], paper_table(data))
        markup = f'<div lang="en">{lines}</div>'
    changes: dict[Any, Any] = {everything: markup}
    drawn = figures(data)[:MOST_FIGURES] if data.systems else []
    for place, plot in enumerate(plots):
        there = place < len(drawn)
        changes[plot] = gr.update(value=drawn[place] if there else None, visible=there)
    return changes


LEVEL = 0.05
BASE, ALIGNED = "base", "aligned"
FIRST = ("feeling.right", "feeling.opposite", "level.er")
"""What comes first where it was measured: whether the feeling is right, and what people rated."""
CLOSER = {"bertscore_minilm.f1": 1, "emotion.overlap": 1, "vad.v": -1}
"""Metrics that compare with the human's reply or the person's turn; -1: lower is closer."""
HEADLINE = {"diff-epitome.er": -1, "diff-epitome.ip": -1, "diff-epitome.ex": -1}
"""The paper's headline metric, which did not track people."""
DRAWN = (*FIRST, *CLOSER, *HEADLINE, "length")
TABLE = (
    "right feeling ↑",
    "opposite feeling ↓",
    "level of ER ↑",
    "distinct-1, equal words",
    "distinct-2, equal words",
    "distinct-1, per reply",
    "|Δ max valence| ↓",
    "NIDF (own counts) ↑",
    "BERTScore F1 (the SEM's MiniLM) ↑",
    "emotion overlap ↑",
    "diff-ER ↓",
    "diff-EX ↓",
    "diff-IP ↓",
    "says it is a machine ↓",
    "words per reply",
    "replies",
)
"""The lines of the table, by label: those that went with people first, the length last."""
ER_LEVEL = Line("level of ER ↑", ("epitome_levels", "generated", "er"), 3, "level.er")
_WIDTH, _ROW, _SIDE = 420, 40, 8


def significant(value: float) -> str:
    """The value with two significant digits; whole numbers stay whole."""
    if value == 0:
        return "0"
    digits = max(0, 1 - floor(log10(abs(value))))
    return f"{value:,.{digits}f}"


def between(data: ResultsData) -> dict[str, Mapping[str, Any]]:
    """The paired differences aligned − base, by metric."""
    return {e["metric"]: e for e in data.paired if (e["a"], e["b"]) == (BASE, ALIGNED)}


def sentences(data: ResultsData, say: Texts) -> list[str]:
    """Some sentences; none where the two models were not compared."""
    pairs = between(data)
    if "length" not in pairs:
        return []
    said = [_first(pairs[name], name, say) for name in FIRST if name in pairs]
    if len(equal := _equal(data)) == 2:
        one, other = (say.number(f"{value:.1%}") for value in equal)
        said.append(say("result.equal", one=one, other=other))
    if parts := _grouped(pairs, CLOSER, "result", say):
        said.append(" ".join(parts))
    if parts := _grouped(pairs, HEADLINE, "result.headline", say):
        said.append(say("result.headline", what="; ".join(parts)))
    one, other = (say.number(significant(pairs["length"][m])) for m in ("mean_b", "mean_a"))
    said.append(say("result.length", one=one, other=other))
    stand = sum(entry["p_holm"] < LEVEL for entry in pairs.values())
    most = max(entry["n"] for entry in pairs.values())
    said.append(say("result.measured", n=say.number(f"{most:,}"), stand=stand, all=len(pairs)))
    return said


def _first(entry: Mapping[str, Any], name: str, say: Texts) -> str:
    form = "{:.2f}".format if name == "level.er" else "{:.0%}".format
    one, other = (say.number(form(entry[mean])) for mean in ("mean_b", "mean_a"))
    kind = "same"
    if entry["p_holm"] < LEVEL:
        kind = "more" if entry["difference"] > 0 else "less"
    return say(f"result.{name}", one=one, other=other, how=say(f"result.how.{kind}"))


def _equal(data: ResultsData) -> list[float]:
    """The share of different words at an equal number of words: aligned, then base."""
    path = ("distinct", "equal_tokens", "1")
    values = [look_up(data.systems.get(name, {}), path) for name in (ALIGNED, BASE)]
    return [value for value in values if value is not None]


def _grouped(
    found: Mapping[str, Mapping[str, Any]], better: Mapping[str, int], key: str, say: Texts
) -> list[str]:
    """What is closer to people, farther from them, and open, each in a sentence."""
    groups: dict[str, list[str]] = {"closer": [], "farther": [], "open": []}
    for name in better:
        if name in found:
            groups[_side(found[name], better[name])].append(say(f"about.{name}"))
    return [
        say(f"{key}.{kind}", what=human_study.listed(names, say))
        for kind, names in groups.items()
        if names
    ]


def _side(entry: Mapping[str, Any], better: int) -> str:
    if entry["p_holm"] >= LEVEL:
        return "open"
    return "closer" if entry["difference"] * better > 0 else "farther"


def picture(data: ResultsData, say: Texts) -> str:
    """What alignment changed: one interval per metric, in standard deviations."""
    pairs = between(data)
    rows = [(name, pairs[name]) for name in DRAWN if name in pairs]
    scaled = [_scaled(entry) for _, entry in rows]
    if not scaled:
        return ""
    reach = max(0.1, *(abs(end) for low, _, high in scaled for end in (low, high))) * 1.1
    height = _ROW * len(rows) + 34
    zero = _at(0, reach)
    shapes = [f'<line class="zero" x1="{zero:.0f}" x2="{zero:.0f}" y1="4" y2="{height - 30}"/>']
    for place, ((name, entry), (low, middle, high)) in enumerate(zip(rows, scaled, strict=True)):
        y = _ROW * place + 30
        kind = "stands" if entry["p_holm"] < LEVEL else "open"
        shapes.append(
            f'<text x="{_SIDE}" y="{y - 13}">{escape(say(f"metric.{name}"))}</text>'
            f'<line class="{kind}" x1="{_at(low, reach):.1f}" x2="{_at(high, reach):.1f}" '
            f'y1="{y}" y2="{y}"/><circle class="{kind}" cx="{_at(middle, reach):.1f}" '
            f'cy="{y}" r="6"/>'
        )
    shapes.append(
        f'<text x="{_SIDE}" y="{height - 6}">{escape(say("result.less"))}</text>'
        f'<text x="{_WIDTH - _SIDE}" y="{height - 6}" text-anchor="end">'
        f"{escape(say('result.more'))}</text>"
    )
    label = escape(say("result.picture"))
    return (
        f'<figure class="forest"><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{label}">{"".join(shapes)}</svg>'
        f'<figcaption class="quiet">{label} {escape(say("result.caption"))}</figcaption></figure>'
    )


def _scaled(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    unit = entry["deviation"] or 1.0
    low, high = entry["interval"]
    return low / unit, entry["difference"] / unit, high / unit


def _at(value: float, reach: float) -> float:
    return _SIDE + (_WIDTH - 2 * _SIDE) * (value + reach) / (2 * reach)


def table(data: ResultsData, say: Texts) -> str:
    """The figures of `TABLE`, two digits each, intervals as bars on one scale a row."""
    by_label = {line.label: line for line in (*LINES, ER_LEVEL)}
    rows = ""
    for line in (by_label[label] for label in TABLE if label in by_label):
        key = f"line.{line.label}"
        values = {name: look_up(system, line.path) for name, system in data.systems.items()}
        if key not in say.words or all(value is None for value in values.values()):
            continue
        spans = {
            name: system.get("intervals", {}).get(line.series)
            for name, system in data.systems.items()
        }
        ends = [end for span in spans.values() if span for end in span]
        cells = "".join(_cell(values[name], spans[name], ends, say) for name in data.systems)
        rows += f'<tr><th scope="row">{escape(say(key))}</th>{cells}</tr>'
    head = "".join(
        f'<th scope="col">{escape(say.words.get(f"system.{name}", name))}</th>'
        for name in data.systems
    )
    return (
        f'<div class="frame" tabindex="0"><table class="tally figures"><thead><tr><td></td>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(
    value: float | None, span: Sequence[float] | None, ends: Sequence[float], say: Texts
) -> str:
    if value is None:
        return "<td>–</td>"
    text = say.number(f"{value:,.0f}" if float(value).is_integer() else significant(value))
    if not span or max(ends) == min(ends):
        return f"<td>{text}</td>"
    low, high = ((end - min(ends)) / (max(ends) - min(ends)) * 100 for end in span)
    words = say.number(f"{significant(span[0])} – {significant(span[1])}")
    return (
        f'<td title="{words}">{text}<span class="interval" aria-hidden="true">'
        f'<span style="left:{low:.0f}%;width:{max(2.0, high - low):.0f}%"></span></span></td>'
    )
