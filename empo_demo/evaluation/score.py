"""`score`: reads files of predictions; computes the paper's figures and paired comparisons.

Rows are paired by position if their user turns and references are equal. Rows that differ are
counted and left out of the comparison, but never out of a system's own figures. Tables for people
go to the terminal, notices to stderr, and only JSON to stdout.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.predictions import Predictions, read_predictions
from empo_demo.errors import DataError, InvalidInput
from empo_demo.evaluation.measure import LINES, METRICS, Series
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics import statistics
from empo_demo.metrics.bertscore import PAPER_LAYER, PAPER_MODEL
from empo_demo.metrics.lexical import equal_budget, mean_words
from empo_demo.progress import steps
from empo_demo.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str], None]
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """One system: its JSON object, and one value per row for each series."""

    predictions: Predictions
    figures: dict[str, Any]
    series: dict[str, Series]


@dataclass(frozen=True, slots=True)
class Scores:
    """All systems in the given order, the paired comparisons, and notices for the reader.

    `as_json` has the keys `systems`, `paired` and `notices`. A system has `n`, `words_mean`,
    `empty_replies`, `repeated_contexts`, the figures of its metrics (`distinct`, `vad`, `nidf`
    or `nidf_own_counts`, `diff_epitome` and `epitome_*`, `bertscore`, `bertscore_minilm` or
    `bertscore_other`, `emotion`, `safety`; see `measure.py`), `excluded` (rows without a value, by
    series) and `intervals` (95 %, by series). A comparison has `a`, `b`, `metric`, `n`, `excluded`,
    `mean_a`, `mean_b`, `difference` (b - a), `deviation`, `interval`, `effect_size` (Cohen's d_z),
    `p` (sign-flip) and `p_holm`. Undefined values are null.
    """

    systems: dict[str, Scored]
    paired: list[dict[str, Any]]
    notices: list[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "systems": {name: scored.figures for name, scored in self.systems.items()},
            "paired": self.paired,
            "notices": self.notices,
        }


def metric_names(given: str) -> list[str]:
    """`all`, or names separated by commas, in the order of the tables. Raises on unknown names."""
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(METRICS)
    for name in wanted:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InvalidInput(
                f"There is no metric {name!r}; there are: all, {', '.join(METRICS)}.{hint}"
            )
    if not wanted:
        raise InvalidInput(f"No metric is named; there are: all, {', '.join(METRICS)}.")
    return [name for name in METRICS if name in wanted]


def score_files(
    paths: Sequence[Path], metrics: Sequence[str], tools: Tools, progress: Progress = lambda _: None
) -> Scores:
    """Read, measure and compare. Raises `DataError` if a file cannot be used."""
    return score_predictions(
        named([read_predictions(path) for path in paths]), metrics, tools, progress
    )


def score_predictions(
    systems: Mapping[str, Predictions],
    metrics: Sequence[str],
    tools: Tools,
    progress: Progress = lambda _: None,
) -> Scores:
    """Measure systems by name and compare each pair of them."""
    if "distinct" in metrics:
        tools.budget = equal_budget([system.responses for system in systems.values()])
    tools.stored_levels = all(system.has_levels for system in systems.values())
    shared = {pair: common_rows(*(systems[name] for name in pair)) for pair in _pairs(systems)}
    scored = {
        name: measure(name, predictions, metrics, tools, progress)
        for name, predictions in systems.items()
    }
    paired = []
    for (a, b), rows in shared.items():
        progress(f"{a} against {b}")
        paired += compare(scored[a], scored[b], a, b, rows)
    return Scores(scored, paired, _notices(systems, shared, tools, metrics))


def measure(
    name: str, predictions: Predictions, metrics: Sequence[str], tools: Tools, progress: Progress
) -> Scored:
    """All metrics of one system, with a bootstrap interval for the mean of each series."""
    figures: dict[str, Any] = {
        "n": len(predictions.rows),
        "words_mean": mean_words(predictions.responses),
        "empty_replies": predictions.empty_replies,
        "repeated_contexts": predictions.repeated_contexts,
    }
    series: dict[str, Series] = {}
    for metric in metrics:
        progress(f"{name}: {metric}")
        part = METRICS[metric].measure(predictions, tools)
        figures.update(part.figures)
        series.update(part.series)
    figures["excluded"] = {
        key: missing for key, values in series.items() if (missing := values.count(None))
    }
    dialogues = predictions.dialogues
    figures["intervals"] = {key: interval(values, dialogues) for key, values in series.items()}
    return Scored(predictions, figures, series)


def common_rows(one: Predictions, other: Predictions) -> list[int]:
    """The positions at which both files have the same user turn and reference.

    If there are none, raises a `DataError` that says how many differ.
    """
    pairs = list(zip(one.rows, other.rows, strict=False))
    same = [i for i, (a, b) in enumerate(pairs) if (a.user, a.reference) == (b.user, b.reference)]
    if not same:
        raise DataError(
            f"{one.path} and {other.path} have no row in common: all {len(pairs)} rows at the same "
            "position differ in the user's turn or in the reference. Compare files over the same "
            "dialogues in the same order, or score them one by one."
        )
    return same


def compare(
    one: Scored, other: Scored, a: str, b: str, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """One entry per series that both have. The p-values are Holm-corrected over these entries."""
    entries = []
    for name in one.series:
        if name not in other.series:
            continue
        dialogues = one.predictions.dialogues
        known = [
            (x, y, dialogues[i])
            for i in rows
            if (x := one.series[name][i]) is not None and (y := other.series[name][i]) is not None
        ]
        if known:
            first, second, groups = zip(*known, strict=True)
            result = statistics.compare(first, second, groups=groups)
            excluded = max(len(one.predictions.rows), len(other.predictions.rows)) - len(known)
            entries.append({"a": a, "b": b, "metric": name, "excluded": excluded, **asdict(result)})
    corrected = statistics.holm([entry["p"] for entry in entries])
    return [{**entry, "p_holm": p} for entry, p in zip(entries, corrected, strict=True)]


def named(files: Sequence[Predictions]) -> dict[str, Predictions]:
    """Systems by the stem of their file. A repeated stem gets a number."""
    named: dict[str, Predictions] = {}
    for file in files:
        names = itertools.chain([file.name], (f"{file.name}-{n}" for n in itertools.count(2)))
        named[next(name for name in names if name not in named)] = file
    return named


def count_steps(systems: Sized, metrics: Sized) -> int:
    """The number of progress steps: each metric of each system, then each pair of systems."""
    return len(systems) * len(metrics) + len(systems) * (len(systems) - 1) // 2


def _pairs(systems: Mapping[str, Predictions]) -> list[tuple[str, str]]:
    return list(itertools.combinations(systems, 2))


def interval(values: Series, dialogues: Sequence[Hashable]) -> list[float] | None:
    """The bootstrap interval of the mean, over dialogues."""
    known = [(v, dialogue) for v, dialogue in zip(values, dialogues, strict=True) if v is not None]
    if not known:
        return None
    numbers, groups = zip(*known, strict=True)
    return list(statistics.bootstrap_interval(numbers, groups=groups, resamples=2_000))


def _notices(
    systems: Mapping[str, Predictions],
    shared: Mapping[tuple[str, str], Sequence[int]],
    tools: Tools,
    metrics: Sequence[str],
) -> list[str]:
    """Rows that were counted but kept, rows that were left out, and the lexicon in use."""
    lines = []
    for name, system in systems.items():
        if system.repeated_contexts:
            lines.append(
                f"{name}: {system.repeated_contexts} rows repeat an earlier context (kept)."
            )
        if system.empty_replies:
            lines.append(f"{name}: {system.empty_replies} replies are empty (kept, 0 words).")
    for (a, b), rows in shared.items():
        longest = max(len(systems[a].rows), len(systems[b].rows))
        if len(rows) < longest:
            lines.append(
                f"{a} and {b}: {longest - len(rows)} of {longest} rows are over different "
                "dialogues or missing in one file; the comparison leaves them out."
            )
    stored = [name for name, system in systems.items() if system.has_levels]
    if "diff-epitome" in metrics and 0 < len(stored) < len(systems):
        lines.append(
            f"Only {', '.join(stored)} stores EPITOME levels; all systems are judged by "
            f"{tools.sem_label} instead, so that they can be compared."
        )
    if "vad" in metrics:
        lines.append(f"Lexicon: {tools.lexicon.label}.")
    return lines


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
    notes = []
    if "nidf" in metrics and tools.nidf_key != "nidf":
        notes.append("NIDF is from our own word counts; --nidf-corpus takes the paper's.")
    if "bertscore" in metrics and tools.bertscore_key != "bertscore":
        notes.append(
            f"BERTScore is by the {tools.encoder.label}; the paper's is "
            f"--encoder {PAPER_MODEL}:{PAPER_LAYER}."
        )
    return notes


def print_tables(scores: Scores, console: Console) -> None:
    """One table of systems, and one of paired differences if there are several systems."""
    from rich.table import Table

    table = Table("", *scores.systems)
    for line in table_lines({name: system.figures for name, system in scores.systems.items()}):
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
