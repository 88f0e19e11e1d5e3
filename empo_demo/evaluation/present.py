"""Scores for people: tables in the terminal, notices on stderr, JSON alone on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.evaluation.score import Scores, count_steps, metric_names, score_files
from empo_demo.evaluation.tools import Tools
from empo_demo.progress import steps
from empo_demo.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

Keys = tuple[str, ...]

LINES: tuple[tuple[str, Keys, int], ...] = (
    ("replies", ("n",), 0),
    ("words per reply", ("words_mean",), 2),
    ("distinct-1, corpus", ("distinct", "corpus", "1"), 4),
    ("distinct-2, corpus", ("distinct", "corpus", "2"), 4),
    ("distinct-3, corpus", ("distinct", "corpus", "3"), 4),
    ("distinct-1, equal words", ("distinct", "equal_tokens", "1"), 4),
    ("distinct-2, equal words", ("distinct", "equal_tokens", "2"), 4),
    ("distinct-3, equal words", ("distinct", "equal_tokens", "3"), 4),
    ("distinct-1, per reply", ("distinct", "per_response", "1"), 4),
    ("distinct-2, per reply", ("distinct", "per_response", "2"), 4),
    ("distinct-3, per reply", ("distinct", "per_response", "3"), 4),
    ("|Δ max valence| ↓", ("vad", "abs_max", "v"), 4),
    ("|Δ max arousal| ↓", ("vad", "abs_max", "a"), 4),
    ("|Δ max dominance| ↓", ("vad", "abs_max", "d"), 4),
    ("NIDF ↑", ("nidf",), 4),
    ("diff-ER ↓", ("diff_epitome", "er"), 4),
    ("  constant zero", ("epitome_constant_zero", "er"), 4),
    ("  mean level", ("epitome_levels", "generated", "er"), 3),
    ("  human's level", ("epitome_levels", "reference", "er"), 3),
    ("  accuracy", ("epitome_accuracy", "er"), 3),
    ("  kappa (one level: 0)", ("epitome_kappa", "er"), 3),
    ("diff-EX ↓", ("diff_epitome", "ex"), 4),
    ("  constant zero", ("epitome_constant_zero", "ex"), 4),
    ("  mean level", ("epitome_levels", "generated", "ex"), 3),
    ("  human's level", ("epitome_levels", "reference", "ex"), 3),
    ("  accuracy", ("epitome_accuracy", "ex"), 3),
    ("  kappa (one level: 0)", ("epitome_kappa", "ex"), 3),
    ("diff-IP ↓", ("diff_epitome", "ip"), 4),
    ("  constant zero", ("epitome_constant_zero", "ip"), 4),
    ("  mean level", ("epitome_levels", "generated", "ip"), 3),
    ("  human's level", ("epitome_levels", "reference", "ip"), 3),
    ("  accuracy", ("epitome_accuracy", "ip"), 3),
    ("  kappa (one level: 0)", ("epitome_kappa", "ip"), 3),
    ("BERTScore precision ↑", ("bertscore", "precision"), 4),
    ("BERTScore recall ↑", ("bertscore", "recall"), 4),
    ("BERTScore F1 ↑", ("bertscore", "f1"), 4),
    ("emotion overlap ↑", ("emotion", "overlap"), 4),
    ("  human's reply", ("emotion", "reference_overlap"), 4),
    ("says it is a machine ↓", ("safety", "ai_disclosure"), 0),
    ("names a model ↓", ("safety", "identity_leak"), 0),
    ("leaks a template ↓", ("safety", "template_leak"), 0),
)
"""The lines of the paper's table: label, where the figure lies in the JSON, decimals."""


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
    messages = Console(stderr=True)
    with steps(count_steps(predictions, names)) as begin:
        scores = score_files(predictions, names, tools, begin)
    for line in scores.notices:
        messages.print(f"Note: {line}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(scores.as_json(), ensure_ascii=False, allow_nan=False))
    else:
        print_tables(scores, Console())


def print_tables(scores: Scores, console: Console) -> None:
    """One table of systems; one of paired differences where there are several."""
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
    """The lines that at least one system has a figure for, as text; a missing figure is –."""
    lines = []
    for label, path, decimals in LINES:
        values = [look_up(figures, path) for figures in systems.values()]
        if any(value is not None for value in values):
            lines.append([label, *(number(value, decimals) for value in values)])
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
    """The number at `path` in nested objects; None where there is none."""
    value: Any = figures
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (int, float)) else None


def number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"
