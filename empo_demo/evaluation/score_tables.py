"""Prints scores for people: tables on the terminal, notices on stderr, only JSON on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.evaluation.measure import LINES
from empo_demo.evaluation.score import Scores, count_steps, metric_names, score_files
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics.bertscore import PAPER_LAYER, PAPER_MODEL
from empo_demo.progress import steps
from empo_demo.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

Keys = tuple[str, ...]


def run_score(
    predictions: Sequence[Path],
    metrics: str,
    *,
    as_json: bool,
    nidf_corpus: Path | None,
    encoder: str,
) -> None:
    """The command `score`."""
    from rich.console import Console

    names = metric_names(metrics)
    tools = Tools(load_settings(), nidf_corpus, encoder)
    messages = Console(stderr=True, markup=False)
    with steps(count_steps(predictions, names)) as begin:
        scores = score_files(predictions, names, tools, begin)
    for line in [*scores.notices, *_not_the_papers(names, tools)]:
        messages.print(f"Note: {line}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(scores.as_json(), ensure_ascii=False, allow_nan=False))
    else:
        print_tables(scores, Console(markup=False))


def _not_the_papers(metrics: Sequence[str], tools: Tools) -> list[str]:
    """Which figures are not the paper's, and the options that give the paper's."""
    found = []
    if "nidf" in metrics and tools.nidf_key != "nidf":
        found.append("NIDF is from our own word counts; --nidf-corpus takes the paper's.")
    if "bertscore" in metrics and tools.bertscore_key != "bertscore":
        found.append(
            f"BERTScore is by the {tools.encoder.label}; the paper's is "
            f"--encoder {PAPER_MODEL}:{PAPER_LAYER}."
        )
    return found


def print_tables(scores: Scores, console: Console) -> None:
    """One table of systems, and one of paired differences if there are several systems."""
    from rich.table import Table

    table = Table("", *scores.systems)
    for line in table_lines({name: one.figures for name, one in scores.systems.items()}):
        table.add_row(*line)
    console.print(table)
    if not scores.paired:
        return
    columns = ("second - first", "metric", "n", "difference", "95 %", "d", "p (Holm)")
    paired = Table(*columns, title="Paired by row")
    for entry in scores.paired:
        paired.add_row(f"{entry['b']} - {entry['a']}", *paired_cells(entry))
    console.print(paired)


def table_lines(systems: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The lines for which a system has a figure, as text. A missing figure is –."""
    lines = []
    for line in LINES:
        values = [look_up(figures, line.path) for figures in systems.values()]
        if any(value is not None for value in values):
            lines.append([line.label, *(number(value, line.decimals) for value in values)])
    return lines


def paired_cells(entry: Mapping[str, Any]) -> list[str]:
    """Metric, n, difference, interval, effect size and corrected p of one comparison."""
    low, high = entry["interval"]
    return [
        entry["metric"],
        str(entry["n"]),
        f"{entry['difference']:+.4f}",
        f"{low:+.4f} … {high:+.4f}",
        number(entry["effect_size"], 2),
        "< .001" if entry["p_holm"] < 0.001 else f"{entry['p_holm']:.3f}",
    ]


def look_up(figures: Mapping[str, Any], path: Keys) -> float | None:
    """The number at `path` in nested objects; None if there is none."""
    value: Any = figures
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (int, float)) else None


def number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"
