"""`report`: the evaluation as one HTML page that opens without a network.

Plotly is included once. The template escapes every text of a dialogue or a file name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.charts import figures
from empo_demo.evaluation.measure import LINES
from empo_demo.evaluation.metric import Line
from empo_demo.evaluation.results import (
    HUMAN,
    RESULTS,
    SHUFFLED,
    ResultsData,
    evaluate,
    read,
    read_retention,
    results,
    with_votes,
)
from empo_demo.evaluation.retention import plus_minus
from empo_demo.evaluation.score import count_steps, metric_names
from empo_demo.evaluation.score_tables import look_up, number, paired_cells
from empo_demo.evaluation.tools import Tools
from empo_demo.progress import steps
from empo_demo.settings import ASSETS, load_settings

__all__ = ["RESULTS", "ResultsData", "figures", "page", "paper_table", "results", "run"]

TEMPLATE = ASSETS / "report.html"


def run(
    output: Path,
    predictions: Sequence[Path],
    *,
    metrics: str,
    encoder: str,
    retention: Path | None = None,
) -> None:
    """The command: measure `predictions` (or use the shipped results), add votes, write."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    settings = load_settings()
    if predictions:
        names = metric_names(metrics)
        files = [read_predictions(path) for path in predictions]
        with steps(count_steps(files, names)) as begin:
            data = evaluate(files, names, Tools(settings, encoder_name=encoder), begin)
    else:
        data = read(RESULTS)
    if retention is not None:
        data = replace(data, retention=read_retention(retention))
    with console.status("Measuring the votes…"):
        data = with_votes(data, settings)
    try:
        output.write_text(page(data), encoding="utf8")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from None
    for line in data.notices:
        console.print(f"Note: {line}", highlight=False, soft_wrap=True)
    console.print(f"Written to {output}.", highlight=False)


def page(data: ResultsData) -> str:
    """The whole page. A browser loads nothing else for it."""
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped,unused-ignore]

    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf8"))
    drawn = [
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displaylogo": False},
            div_id=f"figure-{place}",
        )
        for place, figure in enumerate(figures(data), start=1)
    ]
    return template.render(
        data=data,
        columns=list(data.systems),
        baselines=(HUMAN, SHUFFLED),
        table=paper_table(data),
        paired=[(f"{e['b']} − {e['a']}", paired_cells(e)) for e in data.paired],
        agreement=[_agreement_cells(row) for row in data.agreement],
        retention=[retention_cells(row) for row in data.retention.get("tasks", [])],
        figures=drawn,
        plotly=get_plotlyjs(),
    )


def paper_table(data: ResultsData) -> list[list[str]]:
    """The paper's table as text: a label, then one cell per system with its 95 % interval."""
    lines = []
    for line in LINES:
        values = {name: look_up(figures_, line.path) for name, figures_ in data.systems.items()}
        if any(value is not None for value in values.values()):
            cells = [
                _with_interval(value, data.systems[name], line) for name, value in values.items()
            ]
            lines.append([line.label, *cells])
    return lines


def _with_interval(value: float | None, system: dict[str, Any], line: Line) -> str:
    interval = system.get("intervals", {}).get(line.series)
    if value is None or not interval:
        return number(value, line.decimals)
    low, high = interval
    return (
        f"{number(value, line.decimals)} "
        f"[{number(low, line.decimals)}, {number(high, line.decimals)}]"
    )


def _agreement_cells(row: dict[str, Any]) -> list[str]:
    return [
        row["metric"],
        row["better"],
        str(row["n"]),
        str(row["voters"]),
        _estimate(row["accuracy"], row["accuracy_interval"]),
        _estimate(row["tau"], row["tau_interval"]),
    ]


def retention_cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['task']} (all)" if row["group"] else row["task"],
        row["metric"],
        str(row["n"]),
        plus_minus(row["base"], row["base_error"]),
        plus_minus(row["aligned"], row["aligned_error"]),
        plus_minus(row["difference"], row["error"], sign="+"),
    ]


def _estimate(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
