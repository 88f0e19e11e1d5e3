"""EPITOME's figures: five folds by seeker post, on the emotions' encoder.

The shipped heads are fitted on all pairs, so nothing of them can be measured on the pairs; each
fold therefore fits them anew on the other four. The encoder itself is never trained on a pair.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from empo_demo.empathy.encoder import MECHANISMS, SemNet, collate
from empo_demo.training.sem import corpora
from empo_demo.training.sem.heads import fit_levels

FOLDS = 5
PUBLISHED = {"er": (0.79, 0.74), "ip": (0.84, 0.67), "ex": (0.92, 0.73)}
"""Accuracy and macro-F1 of the RoBERTa bi-encoder, second-hand."""
WITHIN = 0.05


def fold_of_seeker(seeker: str) -> int:
    """The fold, 0 to 4, of all pairs of one seeker post."""
    return int(hashlib.sha256(seeker.encode()).hexdigest(), 16) % FOLDS


def cross_validate(
    net: SemNet, pairs: Sequence[corpora.Pair], work: Path, *, seed: int
) -> list[dict[str, Any]]:
    """Figures of the five folds, each fitted on the other four; `net`'s encoder saw no pair.

    A fold's predictions are kept in `work` and not made again.
    """
    predicted = np.zeros((len(pairs), len(MECHANISMS)), dtype=int)
    work.mkdir(parents=True, exist_ok=True)
    for fold in range(FOLDS):
        own = [i for i, pair in enumerate(pairs) if fold_of_seeker(pair.seeker) == fold]
        if own:
            kept = work / f"epitome-{fold}.json"
            if not kept.is_file():
                levels = _fold(net, pairs, own, fold, seed=seed)
                kept.write_text(json.dumps(levels), encoding="utf8")
            predicted[own] = json.loads(kept.read_text(encoding="utf8"))
    return figures(pairs, predicted)


def _fold(
    net: SemNet, pairs: Sequence[corpora.Pair], own: Sequence[int], fold: int, *, seed: int
) -> list[list[int]]:
    """Fit on the pairs that are not `own`; the predicted levels of those that are."""
    held = set(own)
    others = [pair for i, pair in enumerate(pairs) if i not in held]
    fresh = copy.deepcopy(net)
    fit_levels(fresh, others, seed=seed, title=f" fold {fold + 1} of {FOLDS}")
    return predict(fresh, [pairs[i] for i in own])


def predict(net: SemNet, pairs: Sequence[corpora.Pair]) -> list[list[int]]:
    """The most probable level of each mechanism, for each pair."""
    net.eval()
    levels: list[list[int]] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), 32):
            ids, mask, segments = collate([pair.text for pair in pairs[start : start + 32]])
            logits, _ = net.levels(net.shared(ids, mask), mask, segments)
            levels += logits.argmax(-1).tolist()
    return levels


def figures(pairs: Sequence[corpora.Pair], predicted: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy and macro-F1 of each mechanism beside the majority level's."""
    from empo_demo.training.sem.quality import figure, interval

    groups = [pair.seeker for pair in pairs]
    truth = np.array([pair.levels for pair in pairs])
    found = []
    for column, name in enumerate(MECHANISMS):
        given, said = truth[:, column], predicted[:, column]
        usual = np.full_like(given, np.bincount(given, minlength=3).argmax())
        for score, published in zip((accuracy, macro_f1), PUBLISHED[name], strict=True):
            low, high = interval(groups, lambda i, g=given, s=said, f=score: f(g[i], s[i]))
            title = f"EPITOME {name.upper()}, {score.__name__.replace('_', '-')}"
            title += f" (level 1: {int((given == 1).sum())} pairs)"
            found.append(
                figure(title, score(given, said), len(pairs), low, high,
                       baseline=score(given, usual), ceiling=1.0,
                       target=(round(published - WITHIN, 4), published))
            )  # fmt: skip
    return found


def accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float((truth == said).mean())


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """The mean F1 of the levels that occur in `truth`."""
    values = []
    for level in np.unique(truth):
        both = ((truth == level) & (said == level)).sum()
        values.append(2 * both / max(1, (truth == level).sum() + (said == level).sum()))
    return float(np.mean(values))
