"""The evaluation as data: the report page and the Results tab draw it.

It contains figures and counts. Texts are only in `examples`, which is empty in a shipped file,
because the dialogues of EmpatheticDialogues may not be published with the app.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from empo_demo.engine.predictions import Predictions
from empo_demo.errors import ArenaError, DataError, StorageError
from empo_demo.evaluation.measure import Series
from empo_demo.evaluation.metric_agreement import (
    agreements,
    read_vote_pairs,
    vote_scores,
)
from empo_demo.evaluation.score import Progress, Scored, Scores, named, score_predictions
from empo_demo.evaluation.tools import Tools
from empo_demo.files import parse_json
from empo_demo.settings import ASSETS, Settings

RESULTS = ASSETS / "results.json"
"""The evaluation of the shipped models, made by `python -m recipes.studies shipped`."""
HUMAN, SHUFFLED = "human reply (ceiling)", "another dialogue's human reply (baseline)"
BINS, FEW = 20, 6
EXAMPLES = 8
CAP = 3.0


@dataclass(frozen=True, slots=True)
class Example:
    """One dialogue on which the systems differ most. All texts are raw: escape them."""

    context: tuple[str, ...]
    reference: str
    replies: dict[str, str]
    metric: str


@dataclass(frozen=True, slots=True)
class ResultsData:
    """All data of the figures. For `distributions` see the function of that name.

    `about` says in Markdown which models answered what, and by which command.
    """

    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    paired: list[dict[str, Any]] = field(default_factory=list)
    distributions: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    retention: dict[str, Any] = field(default_factory=dict)
    votes_left_out: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    made: str = ""
    about: str = ""

    @property
    def contenders(self) -> list[str]:
        """The systems that are neither the ceiling nor the baseline."""
        return [name for name in self.systems if name not in (HUMAN, SHUFFLED)]


def evaluate(
    predictions: Sequence[Predictions],
    metrics: Sequence[str],
    tools: Tools,
    progress: Progress = lambda _: None,
) -> ResultsData:
    """Score the systems, the human's replies (ceiling) and shuffled ones (baseline)."""
    systems = named(predictions)
    first = predictions[0]
    scores = score_predictions(
        {**systems, HUMAN: human_replies(first), SHUFFLED: shuffled_replies(first)},
        metrics,
        tools,
        progress,
    )
    return ResultsData(
        systems={name: scored.figures for name, scored in scores.systems.items()},
        paired=_interesting(scores.paired, list(systems)),
        distributions=distributions(scores),
        examples=differing(scores, list(systems)),
        notices=scores.notices,
        made=datetime.date.today().isoformat(),
    )


def human_replies(predictions: Predictions) -> Predictions:
    """The references as replies: the score of a perfect imitation of the human."""
    rows = tuple(
        replace(row, response=row.reference, generated_levels=row.reference_levels)
        for row in predictions.rows
    )
    return Predictions(HUMAN, predictions.path, rows)


def shuffled_replies(predictions: Predictions, seed: int = 0) -> Predictions:
    """Each dialogue gets the human reply of another one: human words without their context."""
    rows = predictions.rows
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    given = {place: rows[other] for place, other in zip(order, order[1:] + order[:1], strict=True)}
    shuffled = tuple(
        replace(row, response=given[i].reference, generated_levels=given[i].reference_levels)
        for i, row in enumerate(rows)
    )
    return Predictions(SHUFFLED, predictions.path, shuffled)


def distributions(scores: Scores) -> dict[str, dict[str, list[float]]]:
    """Shares of the rows that have a value: by value if there are few values, else by bin.

    Each series has `values` or `edges`, and one list of shares per system.
    """
    result: dict[str, dict[str, list[float]]] = {}
    for name in next(iter(scores.systems.values())).series:
        known = {
            system: [value for value in scored.series.get(name, []) if value is not None]
            for system, scored in scores.systems.items()
        }
        different = sorted({value for values in known.values() for value in values})
        if 2 <= len(different) <= FEW and all(value.is_integer() for value in different):
            result[name] = {"values": different}
            for system, values in known.items():
                result[name][system] = [values.count(v) / max(1, len(values)) for v in different]
        elif len(different) > 1:
            result[name] = _binned(known)
    return result


def _binned(known: dict[str, list[float]]) -> dict[str, list[float]]:
    import numpy as np

    edges = np.histogram_bin_edges([v for values in known.values() for v in values], bins=BINS)
    shares = {
        system: (np.histogram(values, edges)[0] / max(1, len(values))).tolist()
        for system, values in known.items()
    }
    return {"edges": edges.tolist(), **shares}


def differing(scores: Scores, contenders: Sequence[str]) -> list[Example]:
    """The rows in which two systems (or one system and the human) differ most over all metrics.

    Each metric counts in standard deviations, up to `CAP`, so that no single metric decides. The
    example names the metric that differs most.
    """
    pair = [scores.systems[name] for name in [*contenders, HUMAN][:2]]
    gaps: dict[int, dict[str, float]] = {}
    for metric in pair[0].series:
        for row, gap in _gaps(pair[0].series[metric], pair[1].series.get(metric, [])).items():
            gaps.setdefault(row, {})[metric] = min(gap, CAP)
    ranked = sorted(gaps, key=lambda row: (-sum(gaps[row].values()), row))[:EXAMPLES]
    shown = [scores.systems[name] for name in contenders]
    return [
        _example(row, max(gaps[row], key=gaps[row].__getitem__), contenders, shown)
        for row in ranked
        if all(row < len(system.predictions.rows) for system in shown)
    ]


def with_votes(data: ResultsData, settings: Settings, *, judged: bool = True) -> ResultsData:
    """`data` with the agreement of each metric with the votes in this installation's database.

    `judged` adds the metrics that the SEM judges, which takes some milliseconds per vote.
    """
    try:
        pairs, left_out = read_vote_pairs(settings)
    except StorageError as error:
        return replace(data, notices=[*data.notices, str(error)])
    tools = Tools(settings)
    notices = list(data.notices)
    try:
        scores = vote_scores(pairs, tools, judged=judged)
    except ArenaError as error:
        notices.append(f"Votes are not compared with the SEM's metrics: {error}")
        scores = vote_scores(pairs, tools, judged=False)
    rows = [asdict(row) for row in agreements(pairs, scores)] if pairs else []
    return replace(data, agreement=rows, votes_left_out=left_out, notices=notices)


def results(settings: Settings) -> ResultsData:
    """The data of the Results tab: the shipped evaluation and this installation's votes."""
    return with_votes(read(RESULTS), settings, judged=False)


def read(path: Path) -> ResultsData:
    """The stored results; if there is no such file, empty ones with a notice."""
    if not path.exists():
        return ResultsData(notices=["There is no evaluation of these models yet."])
    try:
        record = parse_json(path.read_text(encoding="utf8"))
        examples = [
            Example(**{**example, "context": tuple(example["context"])})
            for example in record["examples"]
        ]
        return ResultsData(**{**record, "examples": examples})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is not a file of results: {error}.") from None


def read_retention(path: Path) -> dict[str, Any]:
    """The record that `evaluate retention --json` printed."""
    try:
        record = parse_json(path.read_text(encoding="utf8"))
        assert isinstance(record["tasks"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise DataError(
            f"{path} is not what `evaluate retention --json` prints; give the file of its output."
        ) from None
    return dict(record)


def _interesting(paired: list[dict[str, Any]], contenders: list[str]) -> list[dict[str, Any]]:
    """The comparisons between contenders; with only one, its comparison with the human."""
    wanted = set(contenders) if len(contenders) > 1 else {*contenders, HUMAN}
    return [entry for entry in paired if entry["a"] in wanted and entry["b"] in wanted]


def _gaps(one: Series, other: Series) -> dict[int, float]:
    """|difference| per row, in standard deviations of the differences."""
    raw = {
        row: abs(a - b)
        for row, (a, b) in enumerate(zip(one, other, strict=False))
        if a is not None and b is not None
    }
    spread = (sum(gap**2 for gap in raw.values()) / len(raw)) ** 0.5 if raw else 0.0
    return {row: gap / spread for row, gap in raw.items()} if spread else {}


def _example(row: int, metric: str, names: Sequence[str], shown: Sequence[Scored]) -> Example:
    first = shown[0].predictions.rows[row]
    replies = {
        name: system.predictions.rows[row].response
        for name, system in zip(names, shown, strict=True)
    }
    return Example(first.context, first.reference, replies, metric)
