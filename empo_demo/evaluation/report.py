"""`report`: an evaluation as tables in Markdown; the shipped one is `assets/results.md`.

The shipped evaluation comes from `assets/results.json`. The figures of studies that take hours
(HEF, reward accuracy, the loop) are in `assets/studies.json`, each with the command that measures
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from empo_demo.engine.predictions import read_predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.measure import LINES, Line
from empo_demo.evaluation.results import (
    RESULTS,
    ResultsData,
    evaluate,
    read,
    read_retention,
    with_votes,
)
from empo_demo.evaluation.retention import plus_minus
from empo_demo.evaluation.score import count_steps, look_up, metric_names, number, paired_cells
from empo_demo.evaluation.tools import Tools
from empo_demo.files import parse_json, read_text
from empo_demo.metrics.bertscore import PAPER_LAYER, PAPER_MODEL
from empo_demo.progress import steps
from empo_demo.settings import ASSETS, load_settings

STUDIES = ASSETS / "studies.json"
MARKDOWN = RESULTS.with_suffix(".md")
PAIRED = ("second − first", "metric", "n", "difference", "95 %", "d", "p (Holm)")
PARITY = (
    (
        "BERTScore",
        "`bertscore_minilm`: the SEM's encoder",
        "`bertscore`",
        f"`--encoder {PAPER_MODEL}:{PAPER_LAYER}`; taken by itself where the Hub answers",
    ),
    (
        "NIDF",
        "`nidf_own_counts`: our counts of EmpatheticDialogues",
        "`nidf`",
        "`--nidf-corpus` with the paper's counts or dialogues",
    ),
    (
        "valence, arousal, dominance",
        "`vad`: VADER, valence only",
        "`vad`, with NRC-VAD",
        "`EMPO_NRC_VAD=PATH`",
    ),
    (
        "diff-EPITOME",
        "`diff_epitome`: the SEM's levels",
        "`diff_epitome`, with stored levels",
        "a file with `pred_*_scores` and `gt_*_scores`, as EmPO's",
    ),
    ("distinct-n, words", "the paper's", "the same", "none"),
)
"""Which options of `score` give the figures as the paper computes them."""

Z95 = 1.96
"""So many standard errors are half an interval of 95 %."""
RETAINED = ("task", "metric", "n", "base", "aligned", "difference")


AGREEMENT = ("metric", "better", "n", "voters", "picks the winner", "Kendall's tau")


def write_shipped(output: Path) -> None:
    """Write the shipped evaluation and the studies. Raises `DataError` if it cannot be written."""
    _write(output, page(read(RESULTS), read_studies()))


def run(
    output: Path,
    predictions: Sequence[Path],
    *,
    metrics: str,
    encoder: str,
    retention: Path | None = None,
    as_json: bool = False,
) -> None:
    """Measure `predictions` (or take the shipped results), add the votes, and write."""
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
    text = json.dumps(asdict(data), ensure_ascii=False, allow_nan=False)
    if not as_json:
        text = page(data, own=bool(predictions))
    _write(output, text)
    console.print(f"Written to {output}.", highlight=False)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf8")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from None


def read_studies(path: Path = STUDIES) -> list[dict[str, Any]]:
    """The studies: `title`, `command`, `text` (before), `columns`, `rows` and `reading` (after)."""
    try:
        studies = parse_json(read_text(path))
        for study in studies:
            assert all(len(row) == len(study["columns"]) for row in study["rows"])
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise DataError(f"{path} is not a file of studies: {error}.") from None
    return list(studies)


def page(data: ResultsData, studies: Sequence[dict[str, Any]] = (), *, own: bool = False) -> str:
    """The whole page as Markdown; `own` if the predictions are somebody's own."""
    tables = _evaluation(data, _OWN if own else _SHIPPED)
    return "\n".join((*tables, *(line for study in studies for line in _study(study))))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown. Bars and markup inside cells are escaped."""
    return [
        f"| {' | '.join(_cell(cell) for cell in row)} |"
        if row is not None
        else "|" + "---|" * len(columns)
        for row in (columns, None, *rows)
    ]


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("<", "&lt;")


_SHIPPED = """# Measurements

Written by `python -m empo_demo report` from `results.json` and
`studies.json`; do not edit it by hand. In brackets: 95 % intervals.

{about}
Made on {made}.
"""
_TINY = """## The embedded models

EmpatheticDialogues' validation split, of which no text is in any training, by
`python -m recipes.studies shipped --data DATA --work WORK`.
No dialogue had to be shortened: the longest prompt takes 300 of 1,024 tokens.
"""
_RETENTION = """By `python -m empo_demo evaluate retention`; n questions of each benchmark, drawn by
a seed (everyday: our own). ± is one standard error; the difference is paired, with its
interval of 95 %."""
_OWN = """# Measurements

Measured on {made} by `python -m empo_demo report`. In brackets: 95 % intervals.
"""


def _evaluation(data: ResultsData, opening: str) -> Iterator[str]:
    yield from opening.format(made=data.made, about=data.about or _TINY).splitlines()
    yield ""
    yield from table(("", *data.systems), paper_table(data))
    yield ""
    yield "## Paired differences"
    yield ""
    yield "Row by row; p by sign flips, corrected by Holm over the metrics of each pair."
    yield ""
    yield from table(PAIRED, [(f"{e['b']} − {e['a']}", *paired_cells(e)) for e in data.paired])
    yield ""
    if data.retention:
        yield "## What the aligned model still knows"
        yield ""
        yield from _RETENTION.splitlines()
        yield ""
        yield from table(RETAINED, [retention_cells(row) for row in data.retention["tasks"]])
        yield ""
    if data.agreement:
        yield "## Which measure picks the winner of a vote"
        yield ""
        yield from table(AGREEMENT, [_agreement_cells(row) for row in data.agreement])
        yield ""
    for notice in data.notices:
        yield f"{notice}"
        yield ""
    yield "## Which options give the paper's figures"
    yield ""
    yield "Without them, `score` uses what needs no download, and its keys say so."
    yield ""
    yield from table(("figure", "key without options", "the paper's key", "options"), PARITY)
    yield ""


def _study(study: dict[str, Any]) -> Iterator[str]:
    yield f"## {study['title']}"
    yield ""
    yield "```bash"
    yield study["command"]
    yield "```"
    yield ""
    yield study["text"]
    yield ""
    yield from table(study["columns"], study["rows"])
    yield ""
    yield study["reading"]
    yield ""


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
        _paired_difference(row["difference"], row["error"]),
    ]


def _paired_difference(value: float, error: float | None) -> str:
    if error is None:
        return f"{value:+.4f}"
    return f"{value:+.4f} [{value - Z95 * error:+.4f}, {value + Z95 * error:+.4f}]"


def _estimate(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "–"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
