"""What people said in EmPO's study, and which metric goes with it: two cards of the Results tab.

Everything is drawn from the figures of `assets/human_study.json`; the sentences say what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from empo_demo.ui.texts import Texts

LEVEL = 0.05
SYSTEMS = ("base", "base_limit", "dpo", "sft", "human")
HEADLINE = ("diff-epitome.er", "diff-epitome.ip", "diff-epitome.ex")
"""The paper's headline metric."""
_DRAWN = 12
_WIDTH, _ROW, _SIDE = 420, 40, 8
_FIGURES = 62
"""The width at the right that the figures have to themselves."""
Row = Mapping[str, Any]


def cards(study: Mapping[str, Any], say: Texts) -> str:
    """Both cards as HTML; empty without the study's figures."""
    if not study:
        return ""
    said = "".join(f"<p>{escape(line)}</p>" for line in said_sentences(study, say))
    goes = "".join(f"<p>{escape(line)}</p>" for line in metric_sentences(study["judged"], say))
    return (
        f'<section class="card"><h3>{escape(say("study.said"))}</h3><div class="findings">'
        f"<div>{said}</div>{systems_picture(study, say)}</div></section>"
        f'<section class="card"><h3>{escape(say("study.goes"))}</h3><div class="findings">'
        f"<div>{goes}</div>{metrics_picture(study['judged'], say)}</div>"
        f"<details><summary>{escape(say('study.all'))}</summary>"
        f"{metrics_table(study['judged'], say)}</details></section>"
    )


def said_sentences(study: Mapping[str, Any], say: Texts) -> list[str]:
    """Who was rated how, what stands after the correction, and the confounding."""
    means = study["average"]["contenders"]
    ranked = sorted(means, key=lambda name: -means[name]["average"]["mean"])
    pairs = study["average"]["comparisons"]
    stands = [pair for pair in pairs if (pair["p_holm"] or 0) < LEVEL]
    strangers = sum(not pair["raters_of_both"] for pair in pairs)
    raters = max(count["raters"] for count in study["average"]["raters"].values())
    ratings = study["average"]["ratings"]
    first = say(
        "study.source",
        ratings=say.number(f"{ratings:,}"),
        people=raters,
        systems=len(means),
    )
    order = say("study.order", high=_system(ranked[0], say), low=_system(ranked[-1], say))
    words = [_above(pair, say) for pair in stands]
    sure = say("study.stands", what=listed(words, say), all=len(pairs)) if words else ""
    if not words:
        sure = say("study.none_stands", all=len(pairs))
    between = say("study.between", n=strangers, all=len(pairs)) if strangers else ""
    return [line for line in (first, f"{order} {sure}", between) if line]


def metric_sentences(judged: Mapping[str, Any], say: Texts) -> list[str]:
    """What goes with people's judgement and what does not, and the ceiling."""
    by = {row["metric"]: row for row in judged["metrics"]}
    stands = [row for row in _ranked(judged) if (row["p_holm"] or 0) < LEVEL and row["rho"] > 0]
    said = [
        say("study.goes.with", what=listed([_with_figure(row, say) for row in stands], say))
        if stands
        else say("study.goes.nothing")
    ]
    held = [
        _with_figure(row, say, "length_held")
        for row in stands
        if row["length_held"]["rho"] is not None and row["length_held"]["interval"][0] > 0
    ]
    if held and by.get("length") in stands:
        said.append(say("study.held", what=listed(held, say)))
    headline = [by[name] for name in HEADLINE if name in by and by[name]["rho"] is not None]
    if headline:
        figures = listed([_with_figure(row, say) for row in headline], say)
        tracked = any((row["p_holm"] or 0) < LEVEL for row in headline)
        said.append(say(f"study.headline.{'yes' if tracked else 'no'}", what=figures))
    ceiling = judged["people"]["ceiling"]
    if ceiling is not None:
        said.append(say("study.ceiling", ceiling=_figure(ceiling, say, sign=False)))
    return said


def systems_picture(study: Mapping[str, Any], say: Texts) -> str:
    """Each system's mean over the scales, with its interval."""
    means = {name: figures["average"] for name, figures in study["average"]["contenders"].items()}
    ranked = sorted(means, key=lambda name: -means[name]["mean"])
    ends = [end for figures in means.values() for end in figures["interval"] or (figures["mean"],)]
    low, high = 10 * (min(ends) // 10), 10 * (max(ends) // 10 + 1)
    height = _ROW * len(ranked) + 34
    shapes = [_line(_at(tick, low, high), height, str(int(tick))) for tick in _ticks(low, high, 10)]
    for place, name in enumerate(ranked):
        average = means[name]
        figure = say.number(f"{average['mean']:.1f}")
        shapes.append(
            _point(
                place, _system(name, say), figure, average["mean"], average["interval"], low, high
            )
        )
    return _figure_of(shapes, height, say("study.picture"))


def metrics_picture(judged: Mapping[str, Any], say: Texts) -> str:
    """Each metric's correlation with people, the strongest first, and the ceiling."""
    rows = _ranked(judged)
    drawn = {row["metric"] for row in rows[: _DRAWN - len(HEADLINE)]} | set(HEADLINE)
    rows = [row for row in rows if row["metric"] in drawn]
    if not rows:
        return ""
    ceiling = judged["people"]["ceiling"] or 0.0
    low = min(-0.1, *(row["interval"][0] for row in rows))
    high = max(ceiling, *(row["interval"][1] for row in rows)) + 0.02
    height = _ROW * len(rows) + 34
    shapes = [_line(_at(0, low, high), height, "0")]
    if ceiling:
        mark = say("study.ceiling.mark", ceiling=_figure(ceiling, say, sign=False))
        shapes.append(_line(_at(ceiling, low, high), height, mark, kind="ceiling"))
    for place, row in enumerate(rows):
        kind = "stands" if (row["p_holm"] or 0) < LEVEL else "open"
        shapes.append(
            _point(
                place,
                _metric(row, say),
                _figure(row["rho"], say),
                row["rho"],
                row["interval"],
                low,
                high,
                kind,
            )
        )
    return _figure_of(shapes, height, say("study.metrics.picture"))


def metrics_table(judged: Mapping[str, Any], say: Texts) -> str:
    """Every metric with every correlation."""
    heads = ("metric", "overall", "dialogues", "systems", "held", "n")
    head = "".join(f'<th scope="col">{escape(say(f"study.head.{name}"))}</th>' for name in heads)
    body = ""
    for row in [
        *_ranked(judged),
        *(metric for metric in judged["metrics"] if metric["rho"] is None),
    ]:
        parts = (
            row,
            *(row[name] for name in ("within_dialogues", "within_systems", "length_held")),
        )
        cells = "".join(f"<td>{_cell(part, say)}</td>" for part in parts[:-1])
        itself = row["rho"] is not None and row["length_held"]["rho"] is None
        cells += f"<td>{escape(say('study.held.itself')) if itself else _cell(parts[-1], say)}</td>"
        name = escape(_metric(row, say))
        body += f'<tr><th scope="row">{name}</th>{cells}<td>{row["n"]}</td></tr>'
    return (
        f'<div class="frame" tabindex="0"><table class="tally figures"><thead><tr>{head}</tr>'
        f'</thead><tbody>{body}</tbody></table></div><p class="quiet">'
        f"{escape(say('study.table.note'))}</p>"
    )


def _cell(part: Row, say: Texts) -> str:
    if part["rho"] is None:
        return "–"
    low, high = part["interval"]
    return f"{_figure(part['rho'], say)}<small> {_figure(low, say)} – {_figure(high, say)}</small>"


def _ranked(judged: Mapping[str, Any]) -> list[Row]:
    known = [row for row in judged["metrics"] if row["rho"] is not None]
    return sorted(known, key=lambda row: -row["rho"])


def _above(pair: Row, say: Texts) -> str:
    high, low = pair["contenders"] if pair["difference"] > 0 else reversed(pair["contenders"])
    return say("study.above", high=_system(high, say), low=_system(low, say))


def _with_figure(row: Row, say: Texts, part: str = "") -> str:
    value = row[part]["rho"] if part else row["rho"]
    return f"{_metric(row, say)} ({_figure(value, say)})"


def _figure(value: float, say: Texts, *, sign: bool = True) -> str:
    """A correlation with its sign; the ceiling without one."""
    return say.number(f"{value:+.2f}" if sign else f"{value:.2f}").replace("-", "−")


def _metric(row: Row, say: Texts) -> str:
    """What more of it means; a likelihood names its model."""
    name, _, model = row["metric"].partition("likelihood.")
    if model:
        return say("judge.likelihood", model=model)
    return say.words.get(f"judge.{name}", str(row["better"]))


def _system(name: str, say: Texts) -> str:
    return say.words.get(f"study.system.{name}", name)


def listed(names: Sequence[str], say: Texts) -> str:
    """Names in a sentence: one, two and three."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {say('and')} {names[-1]}"


def _ticks(low: float, high: float, step: float) -> list[float]:
    return [low + step * i for i in range(int((high - low) // step) + 1)]


def _at(value: float, low: float, high: float) -> float:
    left = _SIDE + 10
    return left + (_WIDTH - left - _FIGURES) * (value - low) / (high - low)


def _line(x: float, height: int, label: str, kind: str = "zero") -> str:
    anchor = "end" if x > _WIDTH * 0.8 else "middle"
    return (
        f'<line class="{kind}" x1="{x:.0f}" x2="{x:.0f}" y1="4" y2="{height - 24}"/>'
        f'<text class="tick" x="{x:.0f}" y="{height - 6}" text-anchor="{anchor}">'
        f"{escape(label)}</text>"
    )


def _point(
    place: int,
    name: str,
    figure: str,
    value: float,
    interval: Sequence[float] | None,
    low: float,
    high: float,
    kind: str = "stands",
) -> str:
    y = _ROW * place + 30
    bar = ""
    if interval:
        a, b = (_at(end, low, high) for end in interval)
        bar = f'<line class="{kind}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
    return (
        f'<text x="{_SIDE}" y="{y - 13}">{escape(name)}</text>'
        f'<text x="{_WIDTH - _SIDE}" y="{y - 13}" text-anchor="end">{escape(figure)}</text>{bar}'
        f'<circle class="{kind}" cx="{_at(value, low, high):.1f}" cy="{y}" r="6"/>'
    )


def _figure_of(shapes: Sequence[str], height: int, label: str) -> str:
    said = escape(label)
    return (
        f'<figure class="forest"><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{said}">{"".join(shapes)}</svg>'
        f'<figcaption class="quiet">{said}</figcaption></figure>'
    )
