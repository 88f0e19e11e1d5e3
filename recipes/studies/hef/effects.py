"""The figures of the study `hef`: per contender and condition, and paired against no guidance.

Pure over answers, except that the judges (reply emotion, EPITOME, BERTScore) are handed in. All
intervals are 95 % bootstrap intervals over dialogues; perplexity is resampled as a corpus value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from empo_demo.empathy.emotions import INDEX
from empo_demo.metrics.statistics import bootstrap_interval, compare, interval_of
from recipes.studies.hef.reply_judge import ReplyJudge
from recipes.studies.hef.runner import CONDITIONS, Answer, Case, Condition

Series = list[float]
LEVELS = ("er", "ip", "ex")


@dataclass(frozen=True)
class Judges:
    """The judges of replies. Only the SEM's EPITOME heads have a part in the guidance.

    `levels` gives EPITOME levels for (user's turn, reply), `bertscore` F1 for (reply, reference).
    Either is None if it is not available. `bertscore_key` names its figures by the encoder.
    """

    emotion: ReplyJudge
    levels: Callable[[Sequence[tuple[str, str]]], list[dict[str, int]]] | None = None
    bertscore: Callable[[Sequence[str], Sequence[str]], Series] | None = None
    bertscore_label: str = ""
    bertscore_key: str = "bertscore"


def figures(
    cases: Sequence[Case], answers: Mapping[Condition, Sequence[Answer]], judges: Judges, seed: int
) -> dict[str, Any]:
    """Figures of one contender; `answers[condition]` are in the order of `cases`."""
    columns = {
        condition: _columns(cases, [a.reply for a in answers[condition]], judges)
        for condition in CONDITIONS
    }
    figures: dict[str, Any] = {}
    for condition in CONDITIONS:
        entry: dict[str, Any] = {
            name: {"mean": mean(values), "interval": bootstrap_interval(values, seed=seed)}
            for name, values in columns[condition].items()
        }
        entry["perplexity"] = perplexity(answers[condition], seed)
        if condition != "none":
            entry["against_none"] = {
                name: asdict(compare(columns["none"][name], values, seed=seed))
                for name, values in columns[condition].items()
            }
            entry["against_none"]["perplexity"] = perplexity_ratio(
                answers["none"], answers[condition], seed
            )
        figures[condition] = entry
    return figures


def human_figures(cases: Sequence[Case], judges: Judges) -> dict[str, float]:
    """The same judges' figures for the human replies: the ceiling, and the judge's accuracy."""
    replies = [case.item.reference for case in cases]
    columns = _columns(cases, replies, judges)
    columns.pop(judges.bertscore_key, None)
    return {name: mean(values) for name, values in columns.items()}


def sem_figures(cases: Sequence[Case], top_k: int) -> dict[str, Any]:
    """How often the guidance was right: top-1 and top-k accuracy of the SEM on these dialogues."""
    ranks = []
    for case in cases:
        reading = case.readings["sem"]
        assert reading is not None
        ranks.append([label for label, _ in reading.emotions].index(case.emotion))
    return {
        "top_1": mean([float(rank == 0) for rank in ranks]),
        f"top_{top_k}": mean([float(rank < top_k) for rank in ranks]),
        "interval_top_1": bootstrap_interval([float(rank == 0) for rank in ranks]),
    }


def perplexity(answers: Sequence[Answer], seed: int) -> dict[str, Any] | None:
    """exp(-Σ log p / Σ tokens) of the human replies; None if the engine cannot score."""
    if any(answer.log_p is None or not answer.tokens for answer in answers):
        return None
    low, high = _resampled([answers], seed)
    return {"value": _perplexity(answers), "interval": (low, high)}


def perplexity_ratio(
    without: Sequence[Answer], given: Sequence[Answer], seed: int
) -> dict[str, Any] | None:
    """Perplexity with guidance divided by that without, paired by dialogue. Below 1 it helps."""
    if any(answer.log_p is None or not answer.tokens for answer in (*without, *given)):
        return None
    low, high = _resampled([given, without], seed)
    return {"ratio": _perplexity(given) / _perplexity(without), "interval": (low, high)}


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _columns(cases: Sequence[Case], replies: Sequence[str], judges: Judges) -> dict[str, Series]:
    probabilities = judges.emotion.probabilities(replies)
    truth = [INDEX[case.emotion] for case in cases]
    columns: dict[str, Series] = {
        "emotion_probability": [float(row[t]) for row, t in zip(probabilities, truth, strict=True)],
        "emotion_match": [
            float(int(row.argmax()) == t) for row, t in zip(probabilities, truth, strict=True)
        ],
        "words": [float(len(reply.split())) for reply in replies],
    }
    if judges.levels is not None:
        turns = [case.item.context.turns[-1].content for case in cases]
        levels = judges.levels(list(zip(turns, replies, strict=True)))
        columns |= {f"epitome_{m}": [float(level[m]) for level in levels] for m in LEVELS}
    if judges.bertscore is not None:
        references = [case.item.reference for case in cases]
        columns[judges.bertscore_key] = judges.bertscore(replies, references)
    return columns


def _perplexity(answers: Sequence[Answer]) -> float:
    total = math.fsum(answer.log_p or 0.0 for answer in answers)
    return math.exp(-total / sum(answer.tokens for answer in answers))


def _resampled(
    systems: Sequence[Sequence[Answer]], seed: int, resamples: int = 2000
) -> tuple[float, float]:
    """Interval of the first system's perplexity, or of its ratio to the second's."""
    import numpy as np

    sums = np.array([[(-(a.log_p or 0.0), a.tokens) for a in answers] for answers in systems])

    def value(rows: Any) -> float:
        logs = [loss / tokens for loss, tokens in sums[:, rows].sum(axis=1)]
        return math.exp(logs[0] - logs[1] if len(logs) > 1 else logs[0])

    # Several turns of one dialogue are answered as `dialogue/turn`.
    dialogues = [answer.conv_id.split("/")[0] for answer in systems[0]]
    bounds = interval_of(value, dialogues, resamples=resamples, seed=seed)
    assert bounds is not None, "every draw has a perplexity"
    return bounds
