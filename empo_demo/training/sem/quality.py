"""What the SEM reaches, on data that no part of it saw; its calibration, and its model card.

Calibration uses fold 1 of ED-valid, every figure of emotions and causes fold 2, through the very
class that the app reads with. EPITOME is cross-validated by seeker post (`sem_crossval`).
Intervals are 95 % percentile bootstraps that draw whole dialogues (or seeker posts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from empo_demo.empathy.emotions import EMOTIONS, INDEX
from empo_demo.empathy.encoder import SemNet, Text, Texts, collate
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.empathy.words import is_content
from empo_demo.training.corpus import Conversation, read_conversations
from empo_demo.training.sem import corpora
from empo_demo.training.sem.folds import REPORTING, TUNING, fold_of

RESAMPLES = 1000
BINS = 15
Values = np.ndarray
Figure = dict[str, Any]


def calibrate(
    net: SemNet, texts: Texts, tuning: Sequence[Conversation], data: Path
) -> dict[str, float]:
    """The temperature of the emotions and the display threshold of cause words, on fold 1."""
    net.eval()
    examples = corpora.emotions(tuning, texts)
    logits = emotion_logits(net, [example.text for example in examples])
    labels = torch.tensor([example.label for example in examples])
    causes = corpora.cause_examples(data, texts, TUNING)
    return {"temperature": temperature(logits, labels), "threshold": _threshold(net, causes)}


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The divisor of the logits with the least negative log-likelihood (Guo et al. 2017)."""
    grid = np.exp(np.linspace(-1.5, 1.5, 301))
    losses = [
        float(torch.nn.functional.cross_entropy(logits.double() / float(t), labels)) for t in grid
    ]
    return float(grid[int(np.argmin(losses))])


def measure(folder: Path, data: Path, levels: Sequence[Figure] = ()) -> list[Figure]:
    """All figures of the SEM in `folder` on the reporting fold, then the given EPITOME ones."""
    sem = EmbeddedSEM(folder)
    dialogues = [c for c in read_conversations(data, "valid") if fold_of(c.conv_id) == REPORTING]
    train = read_conversations(data, "train")
    return [
        *_context_figures(sem, dialogues, train),
        *_situation_figures(sem, dialogues, train),
        *_cause_figures(sem, data),
        *levels,
    ]


def _context_figures(
    sem: EmbeddedSEM, dialogues: Sequence[Conversation], train: Sequence[Conversation]
) -> list[Figure]:
    """Every listener turn of the reporting fold, read from all turns before it."""
    inputs, labels, groups = [], [], []
    for dialogue in dialogues:
        for i, turn in enumerate(dialogue.turns):
            if turn["role"] == "assistant":
                inputs.append([t["content"] for t in dialogue.turns[:i]])
                labels.append(INDEX[dialogue.emotion])
                groups.append(dialogue.conv_id)
    rows = sem.emotions(inputs)
    common = _common(train, lambda c: sum(turn["role"] == "assistant" for turn in c.turns))
    return _emotion_figures("contexts", rows, labels, groups, common, (51.0, 54.0), (85.0, 88.0))


def _situation_figures(
    sem: EmbeddedSEM, dialogues: Sequence[Conversation], train: Sequence[Conversation]
) -> list[Figure]:
    rows = sem.emotions([[dialogue.situation] for dialogue in dialogues])
    labels = [INDEX[dialogue.emotion] for dialogue in dialogues]
    groups = [dialogue.conv_id for dialogue in dialogues]
    common = _common(train, lambda c: 1)
    return _emotion_figures("situations", rows, labels, groups, common, (57.5, 60.0), None)


def _common(train: Sequence[Conversation], count: Callable[[Conversation], int]) -> list[int]:
    """The labels by frequency in training: what a model that reads nothing would answer."""
    totals = np.zeros(len(EMOTIONS))
    for dialogue in train:
        totals[INDEX[dialogue.emotion]] += count(dialogue)
    return [int(label) for label in np.argsort(-totals, kind="stable")]


def _emotion_figures(
    name: str,
    rows: Values,
    labels: Sequence[int],
    groups: Sequence[str],
    common: Sequence[int],
    first: tuple[float, float],
    fifth: tuple[float, float] | None,
) -> list[Figure]:
    order = np.argsort(-rows, axis=1)
    truth = np.array(labels)[:, None]
    figures = []
    for k, target in ((1, first), (3, None), (5, fifth)):
        hits = (order[:, :k] == truth).any(1) * 100.0
        base = float(np.mean([label in common[:k] for label in labels])) * 100
        low, high = interval(groups, lambda i, hits=hits: float(hits[i].mean()))
        figures.append(
            figure(f"emotions, {name}, top-{k} %", hits.mean(), len(labels), low, high,
                    baseline=base, ceiling=100.0, target=target)
        )  # fmt: skip
    sure, right = rows.max(1), (order[:, 0] == truth[:, 0]).astype(float)
    low, high = interval(groups, lambda i: calibration_error(sure[i], right[i]))
    error = calibration_error(sure, right)
    guess = abs(float(right.mean()) - 1.0)
    figures.append(
        figure(f"emotions, {name}, ECE", error, len(labels), low, high, baseline=guess,
                ceiling=0.0, target=(0.05, 0.03), lower=True)
    )  # fmt: skip
    return figures


def calibration_error(sure: Values, right: Values) -> float:
    """Expected calibration error over `BINS` equal bins of the top label's probability."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, sure - right, BINS)
    return float(np.abs(gaps).sum() / max(1, len(sure)))


def _cause_figures(sem: EmbeddedSEM, data: Path) -> list[Figure]:
    """EmoCause's top-k recall; targets are shares of the fold's oracle ceiling."""
    examples = corpora.cause_examples(data, sem.texts, REPORTING)
    scores = [weights for _, weights in sem.read_words([example.words for example in examples])]
    groups = [example.conv_id for example in examples]
    figures = []
    for k, target in ((1, (50.0, 60.0)), (3, (62.0, 70.0)), (5, (77.0, 85.0))):
        found = np.array(corpora.recall(examples, scores, k)) * 100
        best = np.array(corpora.ceiling(examples, k)) * 100
        random = float(np.mean(corpora.chance(examples, k))) * 100
        low, high = interval(groups, lambda i, f=found: float(f[i].mean()))
        figures.append(
            figure(f"causes, top-{k} recall %", found.mean(), len(examples), low, high,
                    baseline=random, ceiling=float(best.mean()))
        )  # fmt: skip
        share = partial(_share, found, best)
        low, high = interval(groups, share)
        figures.append(
            figure(f"causes, top-{k} recall, % of the ceiling", share(np.arange(len(examples))),
                    len(examples), low, high, baseline=random / float(best.mean()) * 100,
                    ceiling=100.0, target=target)
        )  # fmt: skip
    return figures


def _share(found: Values, best: Values, indices: Values) -> float:
    return float(found[indices].mean() / best[indices].mean() * 100)


def interval(groups: Sequence[str], statistic: Callable[..., float]) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(indices)`, drawing whole groups; seeded."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    clusters = [np.array(indices) for indices in members.values()]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(clusters), len(clusters))
        values.append(statistic(np.concatenate([clusters[i] for i in drawn])))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def figure(
    name: str,
    value: float,
    n: int,
    low: float,
    high: float,
    *,
    baseline: float | None,
    ceiling: float | None,
    target: tuple[float, float] | None = None,
    lower: bool = False,
) -> Figure:
    """One line of the report; `target` is (needed, aimed at), `lower` where less is better."""
    reached = None
    if target is not None:
        reached = bool(value <= target[0] if lower else value >= target[0])
    return {
        "name": name,
        "value": round(float(value), 4),
        "n": n,
        "low": round(low, 4),
        "high": round(high, 4),
        "baseline": None if baseline is None else round(baseline, 4),
        "ceiling": None if ceiling is None else round(ceiling, 4),
        "needed": None if target is None else target[0],
        "aim": None if target is None else target[1],
        "reached": reached,
    }


def emotion_logits(net: SemNet, texts: Sequence[Text]) -> torch.Tensor:
    """(texts, 32) logits, before any temperature, in the order of `texts`."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    logits = torch.zeros(len(texts), len(EMOTIONS))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            ids, mask, _ = collate([texts[i] for i in part])
            logits[part] = net.emotions(net.hidden(ids, mask), mask).float()
    return logits


def _threshold(net: SemNet, examples: Sequence[corpora.CauseExample]) -> float:
    """The weight over which content words are shown: the best F1 over all words of fold 1."""
    scores, truth = [], []
    for example in examples:
        ids, mask, _ = collate([example.text])
        with torch.inference_mode():
            weights = net.causes(net.hidden(ids, mask)).sigmoid()[0].tolist()
        best = [0.0] * len(example.words)
        for segment, weight in zip(example.text.segments, weights, strict=True):
            if segment:
                best[segment - 1] = max(best[segment - 1], weight)
        for word, weight in enumerate(best):
            if is_content(example.words[word]):
                scores.append(weight)
                truth.append(word in example.causes)
    if not scores:
        return 0.5
    weights_of, causes = np.array(scores), np.array(truth)
    grid = np.linspace(0.05, 0.95, 91)
    return float(max(grid, key=lambda t: _f1(weights_of >= t, causes)))


def _f1(shown: Values, truth: Values) -> float:
    both = float((shown & truth).sum())
    return 2 * both / max(1.0, float(shown.sum() + truth.sum()))
