"""The part of the aligned adapter's card that says what alignment changed, from `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError
from empo_demo.evaluation.measure import LINES as MEASURED
from empo_demo.evaluation.report import table
from empo_demo.evaluation.results import HUMAN, ResultsData
from empo_demo.evaluation.score import look_up
from empo_demo.settings import ASSETS
from recipes.studies.side_by_side import HEADING as SIDE_BY_SIDE

CARD = ASSETS / "smollm2" / "aligned" / "README.md"
HEADING = "## What alignment changed"
LINES = {
    "feeling.right": "right feeling ↑",
    "feeling.opposite": "opposite feeling ↓",
    "diff-epitome.er": "diff-ER ↓",
    "diff-epitome.ip": "diff-IP ↓",
    "diff-epitome.ex": "diff-EX ↓",
    "level.er": "level of emotional reactions",
    "bertscore_minilm.f1": "BERTScore F1 (the SEM's encoder) ↑",
    "emotion.overlap": "emotion overlap ↑",
    "nidf_own_counts": "specificity (NIDF) ↑",
    "vad.v": "distance in valence ↓",
    "length": "words",
}
STEPS = (("base", "sft"), ("sft", "aligned"), ("base", "aligned"))
"""SFT's share, DPO's share, and both together."""


def write(data: ResultsData, card: Path = CARD) -> None:
    """Replace the part of the card, or add it before its last part, the replies side by side."""
    if not card.is_file():
        raise DataError(f"There is no model card {card}; ship the adapter first.")
    text = card.read_text(encoding="utf8")
    before, there, rest = text.partition(HEADING)
    if there:
        _, mark, after = rest.partition("\n## ")
        last = f"## {after}" if mark else ""
    else:
        before, mark, after = text.partition(SIDE_BY_SIDE)
        last = mark + after
    card.write_text(f"{before.rstrip()}\n\n{section(data)}\n{last}".rstrip() + "\n", "utf8")


def section(data: ResultsData) -> str:
    """The part as Markdown: means, and the three paired differences; a star: Holm's p < .05."""
    pairs = {(e["a"], e["b"], e["metric"]): e for e in data.paired}
    rows = []
    for metric, label in LINES.items():
        found = [pairs.get((a, b, metric)) for a, b in STEPS]
        if found[0] is None or found[1] is None or found[2] is None:
            continue
        means = [found[0]["mean_a"], found[0]["mean_b"], found[1]["mean_b"]]
        people = _people(data, metric)
        rows.append([label, *map(_number, [*means, people]), *map(_difference, found)])
    columns = ("", "base", "SFT", "aligned", "people", "SFT − base", "aligned − SFT")
    text = [
        HEADING,
        "",
        data.about.split("\n\n", 1)[-1].strip(),
        "A star: the difference stands after Holm's correction over all metrics of its pair.",
        "",
        *table((*columns, "aligned − base"), rows),
        "",
    ]
    return "\n".join(text)


def _people(data: ResultsData, metric: str) -> float | None:
    """People's figure; None where the measure compares with people."""
    if metric.startswith(("diff-epitome", "bertscore")):
        return None
    path = next((line.path for line in MEASURED if line.series == metric), ())
    return look_up(data.systems[HUMAN], path) if path else None


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) >= 3 else f"{value:.3f}"


def _difference(entry: Mapping[str, Any] | None) -> str:
    assert entry is not None
    low, high = entry["interval"]
    form = ".1f" if abs(entry["mean_b"]) >= 3 else ".3f"
    star = "*" * (entry["p_holm"] < 0.05)
    return f"{entry['difference']:+{form}}{star} [{low:+{form}}, {high:+{form}}]"
