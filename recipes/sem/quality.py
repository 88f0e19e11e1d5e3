"""The SEM's figures: how well it reads emotions and valence, and how well it is calibrated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS, INDEX
from empo_demo.empathy.feeling import lexicon_feeling
from empo_demo.empathy.reading import certainty
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.sem import affect
from recipes.sem.choice import Chosen, Rows
from recipes.sem.intervals import Figure, blocks, figure, interval, widened

log = logging.getLogger(__name__)
BINS = 15
NORMS = "warriner.csv"
"""Valence norms of words (Warriner et al. 2013), if the data folder has them: Word, V.Mean.Sum."""
Values = np.ndarray


def measure(folder: Path, data: Path, chosen: Chosen) -> list[Figure]:
    """The figures of emotions, of their certainty, and of valence."""
    train = read_conversations(data, "train")
    turns = common_labels(train, lambda c: sum(turn["role"] == "assistant" for turn in c.turns))
    once = common_labels(train, lambda c: 1)
    contexts, known = chosen.contexts, chosen.known
    figures = emotion_figures("contexts", contexts, turns, (52.0, 54.0), (86.0, 88.0))
    for name, which in (
        ("contexts of 1 turn", contexts.turns == 1),
        ("contexts of 3 turns", contexts.turns == 3),
        ("contexts of 5 turns and more", contexts.turns >= 5),
    ):
        figures += [top(name, contexts, turns, k, which) for k in (1, 5) if which.any()]
    figures += emotion_figures("situations", chosen.situations, once, (58.0, 60.0), None)
    if len(known.labels):
        figures += [top("contexts of known writers", known, turns, k) for k in (1, 5)]
    return [*figures, *_certainty_figures(contexts), *_valence_figures(folder, data)]


def common_labels(train: Sequence[Conversation], count: Callable[[Conversation], int]) -> list[int]:
    """The labels by frequency in training: what a model that reads nothing would answer."""
    totals = np.zeros(len(EMOTIONS))
    for dialogue in train:
        totals[INDEX[dialogue.emotion]] += count(dialogue)
    return [int(label) for label in np.argsort(-totals, kind="stable")]


def emotion_figures(
    name: str,
    rows: Rows,
    common: Sequence[int],
    first: tuple[float, float],
    fifth: tuple[float, float] | None,
) -> list[Figure]:
    figures = [
        top(name, rows, common, k, target=target)
        for k, target in ((1, first), (3, None), (5, fifth))
    ]
    sure = rows.probabilities.max(1)
    right = (rows.probabilities.argmax(1) == rows.labels).astype(float)
    groups = blocks(rows.conversations)
    low, high = interval(groups, lambda i: calibration_error(sure[i], right[i]))
    figures.append(
        figure(
            f"emotions, {name}, ECE",
            calibration_error(sure, right),
            len(right),
            low,
            high,
            baseline=1 - float(right.mean()),
            ceiling=0.0,
            target=(0.05, 0.03),
            lower=True,
        )
    )
    return figures


def top(
    name: str,
    rows: Rows,
    common: Sequence[int],
    k: int,
    which: Values | None = None,
    target: tuple[float, float] | None = None,
) -> Figure:
    """Top-k accuracy, with an interval for other writers."""
    own = np.arange(len(rows.labels)) if which is None else np.flatnonzero(which)
    order = np.argsort(-rows.probabilities[own], axis=1)[:, :k]
    hits = (order == rows.labels[own, None]).any(1) * 100.0
    base = float(np.mean([label in common[:k] for label in rows.labels[own]])) * 100
    groups = blocks([rows.conversations[i] for i in own])
    low, high = widened(hits.mean(), interval(groups, lambda i: float(hits[i].mean())))
    return figure(
        f"emotions, {name}, top-{k} %",
        hits.mean(),
        len(own),
        low,
        high,
        baseline=base,
        ceiling=100.0,
        target=target,
    )


def calibration_error(sure: Values, right: Values) -> float:
    """Expected calibration error over `BINS` equal bins of the top label's probability."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - right, BINS)
    return float(np.abs(gaps).sum() / max(1, len(sure)))


def _certainty_figures(rows: Rows) -> list[Figure]:
    """How often each way of saying it occurs and is right; size and coverage of the 90 % set."""
    groups = blocks(rows.conversations)
    order = np.argsort(-rows.probabilities, axis=1)
    first, second = (order[:, k] == rows.labels for k in (0, 1))
    kinds = np.array(
        [
            certainty([(EMOTIONS[i], float(row[i])) for i in ranks[:3]], int(likely.sum())).kind
            for row, ranks, likely in zip(rows.probabilities, order, rows.likely, strict=True)
        ]
    )
    said = {
        "probable": first,
        "possible": first,
        "torn": first | second,
        "unsure": first,
        "unread": first,
    }
    figures = []
    for kind, right in said.items():
        own = kinds == kind
        if own.any():
            ratio = partial(_ratio, (own & right).astype(float), own.astype(float))
            title = f"emotions, said {kind!r} ({own.mean():.0%} of contexts): right"
            low, high = interval(groups, ratio)
            figures.append(
                figure(
                    title,
                    ratio(np.arange(len(own))),
                    int(own.sum()),
                    low,
                    high,
                    baseline=float(first.mean()),
                    ceiling=1.0,
                )
            )
    inside = rows.likely[np.arange(len(rows.labels)), rows.labels].astype(float)
    sizes = rows.likely.sum(1).astype(float)
    for name, values, ceiling in (
        ("90 % set: coverage", inside, 1.0),
        ("90 % set: labels in it", sizes, 1.0),
    ):
        low, high = interval(groups, lambda i, v=values: float(v[i].mean()))
        figures.append(
            figure(
                f"emotions, {name}",
                values.mean(),
                len(values),
                low,
                high,
                baseline=None,
                ceiling=ceiling,
            )
        )
    return figures


def _ratio(hits: Values, whole: Values, indices: Values) -> float:
    return float(hits[indices].sum() / max(1.0, whole[indices].sum()))


def _valence_figures(folder: Path, data: Path) -> list[Figure]:
    """EmoBank's validation split, which nothing was fitted or chosen on."""

    sem = EmbeddedSEM(folder)
    rated = affect.emobank(data, sem.texts, "valid")
    said = sem.feelings([example.content for example in rated])
    groups = [example.document for example in rated]
    truth = np.array([example.affect for example in rated])
    valence = np.array([feeling.valence for feeling in said])
    arousal = np.array([feeling.arousal or 0.0 for feeling in said])
    spread = np.array([feeling.spread or 0.0 for feeling in said])
    vader = np.array([lexicon_feeling(example.content).valence for example in rated])
    figures = []
    for name, values, column, other, target in (
        ("valence", valence, 0, vader, (0.72, 0.78)),
        ("arousal", arousal, 1, None, None),
    ):
        base = None if other is None else _pearson(other, truth[:, column], np.arange(len(truth)))
        figures.append(
            pearson_figure(name, values, truth[:, column], groups, baseline=base, target=target)
        )
    gaps = np.abs(valence - truth[:, 0])
    for name, values, ceiling in (
        ("valence, mean error", gaps, 0.0),
        ("valence, within one spread", (gaps <= spread).astype(float), 0.683),
        ("valence, within two spreads", (gaps <= 2 * spread).astype(float), 0.954),
    ):
        low, high = interval(groups, lambda i, v=values: float(v[i].mean()))
        figures.append(
            figure(
                f"{name} (EmoBank)",
                values.mean(),
                len(values),
                low,
                high,
                baseline=None,
                ceiling=ceiling,
            )
        )
    slope = partial(_slope, valence, truth[:, 0])
    low, high = interval(groups, slope)
    figures.append(
        figure(
            "valence, slope of people's ratings (EmoBank)",
            slope(np.arange(len(truth))),
            len(truth),
            low,
            high,
            baseline=None,
            ceiling=1.0,
        )
    )
    return [*figures, *_label_figures(sem, data)]


def pearson_figure(
    name: str,
    said: Values,
    truth: Values,
    groups: Sequence[str],
    *,
    baseline: float | None = None,
    target: tuple[float, float] | None = None,
) -> Figure:
    """Pearson's r of what is said with EmoBank's ratings."""
    score = partial(_pearson, said, truth)
    low, high = interval(groups, score)
    return figure(
        f"{name}, Pearson r (EmoBank)",
        score(np.arange(len(truth))),
        len(truth),
        low,
        high,
        baseline=baseline,
        ceiling=1.0,
        target=target,
    )


def _label_figures(sem: EmbeddedSEM, data: Path) -> list[Figure]:
    """ED-valid's contexts: does the mean valence by emotion label order them as the norms do?"""
    if not (data / NORMS).is_file():
        log.warning(
            "%s has no %s (columns Word, V.Mean.Sum): the labels' valence is not compared with "
            "word norms.",
            data,
            NORMS,
        )
        return []
    norms = read_norms(data / NORMS)
    means = valence_by_label(sem, read_conversations(data, "valid"))
    both = [label for label in EMOTIONS if label in norms and label in means]
    ours, theirs = (
        np.argsort(np.argsort([source[e] for e in both])).astype(float) for source in (means, norms)
    )
    rho = partial(_pearson, ours, theirs)
    low, high = interval(both, rho)
    return [
        figure(
            "valence, Spearman of label means with word norms (ED contexts)",
            rho(np.arange(len(both))),
            len(both),
            low,
            high,
            baseline=0.0,
            ceiling=1.0,
            target=(0.9, 0.9),
        )
    ]


def valence_by_label(sem: EmbeddedSEM, conversations: Sequence[Conversation]) -> dict[str, float]:
    """The mean valence of all listener turns' contexts, by emotion label."""
    values: dict[str, list[float]] = {}
    contexts = [
        (c.emotion, Dialogue.from_messages(c.turns[:i]).turns)
        for c in conversations
        for i, turn in enumerate(c.turns)
        if turn["role"] == "assistant"
    ]
    readings = sem.read_many([turns for _, turns in contexts])
    for (label, _), reading in zip(contexts, readings, strict=True):
        values.setdefault(label, []).append(reading.valence or 0.0)
    return {label: float(np.mean(own)) for label, own in values.items()}


def read_norms(path: Path) -> dict[str, float]:
    """Word -> mean valence, of a CSV with the columns Word and V.Mean.Sum."""
    import csv

    with path.open(encoding="utf8", newline="") as file:
        return {row["Word"].lower(): float(row["V.Mean.Sum"]) for row in csv.DictReader(file)}


def _pearson(one: Values, two: Values, indices: Values) -> float:
    a, b = one[indices] - one[indices].mean(), two[indices] - two[indices].mean()
    return float((a * b).sum() / max(1e-12, np.sqrt((a**2).sum() * (b**2).sum())))


def _slope(said: Values, truth: Values, indices: Values) -> float:
    a, b = said[indices] - said[indices].mean(), truth[indices] - truth[indices].mean()
    return float((a * b).sum() / max(1e-12, (a**2).sum()))
