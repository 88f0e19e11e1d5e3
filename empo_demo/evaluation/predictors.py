"""The numbers of a reply that may go with what people say of it.

All metrics of `score` are here by themselves, reply by reply. `EXTRA` adds what the paper does not
measure: an entry there is a new row of every table of this kind. Each column is turned so that
more is better by the metric's own lights: a diff-EPITOME has a minus.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from empo_demo.engine.predictions import Predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.measure import LOWER_IS_BETTER, METRICS, Series
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics.diff_epitome import MECHANISMS

WORDS = re.compile("[a-z']+")
REFERENCE = ("diff-epitome", "bertscore")
"""The metrics of `score` that compare with a person's reply."""
BETTER = {
    "length": "longer",
    "distinct-1": "more varied words",
    "distinct-2": "more varied pairs of words",
    "distinct-3": "more varied triples of words",
    "vad.v": "nearer in valence to the person's turn",
    "vad.a": "nearer in arousal to the person's turn",
    "vad.d": "nearer in dominance to the person's turn",
    "nidf": "rarer words",
    "nidf_own_counts": "rarer words",
    "diff-epitome.er": "emotional reaction as strong as the human reply's",
    "diff-epitome.ex": "exploration as strong as the human reply's",
    "diff-epitome.ip": "interpretation as strong as the human reply's",
    "bertscore.f1": "nearer to the human reply in meaning",
    "bertscore_minilm.f1": "nearer to the human reply in meaning",
    "bertscore_other.f1": "nearer to the human reply in meaning",
    "emotion.overlap": "nearer in emotion to the person's turn",
    "safety": "does not say that it is a machine",
}
"""What the metrics of `score` take for better; all others say whether more is."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number per reply, turned so that more is better; None where there is none."""

    key: str
    better: str
    values: Series
    reference: bool = False


@dataclass(frozen=True, slots=True)
class Extra:
    """A predictor that is not a metric of `score`; `reference` if it needs the human reply."""

    key: str
    better: str
    score: Callable[[Predictions, Tools], Series]
    reference: bool = False


def columns(
    predictions: Predictions, tools: Tools, *, judged: bool = True, likelihoods: Sequence[Path] = ()
) -> list[Column]:
    """All predictors over the replies. Without `judged`, none that the SEM must read.

    Those that need a human reply are left out where no row has one.
    """
    referenced = any(predictions.references)
    own = {extra.key for extra in EXTRA}
    made = [
        Column(key, _better(key), _turned(key, values), name in REFERENCE)
        for name, metric in METRICS.items()
        if (referenced or name not in REFERENCE) and (judged or name not in JUDGED)
        for key, values in metric.measure(predictions, tools).series.items()
        if key not in own
    ]
    made += [
        Column(extra.key, extra.better, extra.score(predictions, tools), extra.reference)
        for extra in EXTRA
        if (referenced or not extra.reference) and (judged or extra.key not in JUDGED)
    ]
    return [*made, *(likelihood(folder, predictions) for folder in likelihoods)]


def overlap(one: str, other: str) -> float | None:
    """Jaccard's overlap of the sets of words; None if neither text has one."""
    first, second = (set(WORDS.findall(text.lower())) for text in (one, other))
    return len(first & second) / len(first | second) if first | second else None


def likelihood(folder: Path, predictions: Predictions) -> Column:
    """Mean natural log probability per token of each reply after its dialogue, by a causal model.

    `folder` holds the model, its tokenizer and its chat template. Empty replies have none.
    """
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.dialogue import SYSTEM_PROMPT
    from empo_demo.engine.loading import load_engine
    from empo_demo.settings import load_settings

    if not (folder / "config.json").is_file():
        raise DataError(f"There is no model in {folder}: it has no config.json. Name its folder.")
    name = folder.resolve().name
    roster = Roster(name, (Contender(name, str(folder.resolve())),), quantization="none")
    engine = load_engine(load_settings(quantization="none", engine="local"), roster)
    system = [{"role": "system", "content": SYSTEM_PROMPT}]
    asked = [(i, row) for i, row in enumerate(predictions.rows) if row.response.strip()]
    pairs = [([*system, *_messages(row.context)], row.response) for _, row in asked]
    values: Series = [None] * len(predictions.rows)
    scored = engine.score(name, pairs, batch=8)  # type: ignore[attr-defined]
    for (i, _), (total, tokens) in zip(asked, scored, strict=True):
        values[i] = total / tokens
    return Column(f"likelihood.{name}", f"more likely under {name}", values)


def _messages(context: Sequence[str]) -> list[dict[str, str]]:
    """The turns as messages; the last one is the user's."""
    first = len(context) % 2
    return [
        {"role": "user" if (i + first) % 2 else "assistant", "content": turn}
        for i, turn in enumerate(context)
    ]


def _turned(key: str, values: Series) -> Series:
    if key not in LOWER_IS_BETTER:
        return values
    return [None if value is None else -value for value in values]


def _better(key: str) -> str:
    return BETTER.get(key, "lower" if key in LOWER_IS_BETTER else "higher")


def _level(mechanism: str) -> Callable[[Predictions, Tools], Series]:
    def levels(predictions: Predictions, tools: Tools) -> Series:
        pairs = [(row.user, row.response) for row in predictions.rows]
        return [float(level[mechanism]) for level in tools.epitome_levels(pairs)]

    return levels


def _valence(predictions: Predictions, tools: Tools) -> Series:
    """The SEM's valence of the reply itself; None where the SEM gives none."""
    texts = predictions.responses
    known = [i for i, text in enumerate(texts) if text.strip()]
    values: Series = [None] * len(texts)
    if hasattr(tools.sem, "feelings"):
        for i, feeling in zip(known, tools.sem.feelings([texts[i] for i in known]), strict=True):
            values[i] = feeling.valence
    return values


EXTRA: tuple[Extra, ...] = (
    *(
        Extra(f"level.{m}", f"stronger {what}", _level(m))
        for m, what in zip(
            MECHANISMS,
            ("emotional reaction", "exploration", "interpretation"),
            strict=True,
        )
    ),
    Extra("valence", "kinder words (valence of the reply)", _valence),
    Extra(
        "question",
        "asks something",
        lambda predictions, _: [float("?" in text) for text in predictions.responses],
    ),
    Extra(
        "questions",
        "more questions",
        lambda predictions, _: [float(text.count("?")) for text in predictions.responses],
    ),
    Extra(
        "overlap",
        "more words of the human reply",
        lambda predictions, _: [overlap(r.response, r.reference) for r in predictions.rows],
        reference=True,
    ),
)
"""A new predictor is one entry."""
JUDGED = ("diff-epitome", "bertscore", "emotion", "valence", *(f"level.{m}" for m in MECHANISMS))
"""What needs the SEM, which takes some milliseconds per reply."""
