"""`report --markdown`: all measurements of the shipped models as tables, in `assets/results.md`.

The evaluation comes from `assets/results.json`. The figures of studies that take hours (HEF, reward
accuracy, the loop) are in `assets/studies.json`, each with the command that measures it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError
from empo_demo.evaluation.report import paper_table, retention_cells
from empo_demo.evaluation.results import RESULTS, ResultsData, read
from empo_demo.evaluation.score_tables import paired_cells
from empo_demo.files import parse_json, read_text
from empo_demo.metrics.bertscore import PAPER_LAYER, PAPER_MODEL
from empo_demo.settings import ASSETS

STUDIES = ASSETS / "studies.json"
MARKDOWN = RESULTS.with_suffix(".md")
PAIRED = ("second − first", "metric", "n", "difference", "95 %", "d", "p (Holm)")
PARITY = (
    ("BERTScore", "`bertscore_minilm`: the SEM's encoder", "`bertscore`",
     f"`--encoder {PAPER_MODEL}:{PAPER_LAYER}`; taken by itself where the Hub answers"),
    ("NIDF", "`nidf_own_counts`: our counts of EmpatheticDialogues", "`nidf`",
     "`--nidf-corpus` with the paper's counts or dialogues"),
    ("valence, arousal, dominance", "`vad`: VADER, valence only", "`vad`, with NRC-VAD",
     "`EMPO_NRC_VAD=PATH`"),
    ("diff-EPITOME", "`diff_epitome`: the SEM's levels", "`diff_epitome`, with stored levels",
     "a file with `pred_*_scores` and `gt_*_scores`, as EmPO's"),
    ("distinct-n, words", "the paper's", "the same", "none"),
)  # fmt: skip
"""Which options of `score` give the figures as the paper computes them."""
RETAINED = ("task", "metric", "n", "base", "aligned", "difference")


def write(output: Path = MARKDOWN) -> None:
    """Write the page. Raises `DataError` if it cannot be written."""
    try:
        output.write_text(page(read(RESULTS), read_studies()), encoding="utf8")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}.") from None


def read_studies(path: Path = STUDIES) -> list[dict[str, Any]]:
    """The studies: `title`, `command`, `text` (before), `columns`, `rows` and `reading` (after)."""
    try:
        found = parse_json(read_text(path))
        for study in found:
            assert all(len(row) == len(study["columns"]) for row in study["rows"])
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise DataError(f"{path} is not a file of studies: {error}.") from None
    return list(found)


def page(data: ResultsData, studies: Sequence[dict[str, Any]]) -> str:
    """The whole page as Markdown."""
    return "\n".join((*_evaluation(data), *(line for one in studies for line in _study(one))))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown. Bars inside cells are escaped."""
    return [
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
        if row is not None
        else "|" + "---|" * len(columns)
        for row in (columns, None, *rows)
    ]


def _evaluation(data: ResultsData) -> Iterator[str]:
    yield "# Measurements"
    yield ""
    yield "Written by `python -m empo_demo report --markdown` from `results.json` and"
    yield "`studies.json`; do not edit it by hand. In brackets: 95 % intervals."
    yield ""
    yield "## The embedded models"
    yield ""
    yield "EmpatheticDialogues' validation split, of which no text is in any training; made on"
    yield f"{data.made} by `python -m empo_demo evaluate shipped --data DATA --work WORK`."
    yield "No dialogue had to be shortened: the longest prompt takes 300 of 1,024 tokens."
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
        yield "`python -m empo_demo evaluate retention`, on everyday questions of our own."
        yield ""
        yield from table(RETAINED, [retention_cells(row) for row in data.retention["tasks"]])
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
