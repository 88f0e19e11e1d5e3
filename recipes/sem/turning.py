"""Fits when the last turn's own emotion is shown: where it parts from the dialogue.

EmpatheticDialogues has one label per dialogue and no dialogue that turns. So such dialogues are
made from those that were kept back: their last turn is replaced by the situation of another one.
The real ones are what must not fire; the bound lets `FIRES` of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from empo_demo.empathy.emotions import INDEX, numbers
from empo_demo.empathy.encoder import SemNet, Texts
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.sem.choice import logits
from recipes.sem.folds import cross_validate, kept_back, number_of
from recipes.sem.intervals import Figure, figure, interval

FIRES = 0.04
"""How many real later turns may show their own emotion."""
MOST, FOLDS, PENALTY = 1500, 5, 1.0


def fit_turning(
    net: SemNet, texts: Texts, data: Path, heat: float
) -> tuple[list[float], float, list[Figure]]:
    """The weights and the bound of `empathy.turning.parts`, and the figures, five folds."""
    kept = [c for c in read_conversations(data, "train") if kept_back(c.conv_id)]
    kept.sort(key=lambda c: number_of(c.conv_id))
    later = [
        (c, i)
        for c in kept
        for i, turn in enumerate(c.turns)
        if i >= 3 and turn["role"] == "assistant"
    ][:MOST]
    if len(later) < 2 * FOLDS:
        return [], 0.0, []
    others = [kept[(7 * k + 13) % len(kept)] for k in range(len(later))]
    said = [[t["content"] for t in c.turns[:i]] for c, i in later]
    turned = [[*turns[:-1], o.situation] for turns, o in zip(said, others, strict=True)]

    def read(dialogues: Sequence[Sequence[str]]) -> np.ndarray:
        read = logits(net, [texts.turns(turns) for turns in dialogues])
        return np.asarray((read.double() / heat).softmax(1).numpy())

    whole, alone = read(said), read([turns[-1:] for turns in said])
    new, own = read(turned), read([turns[-1:] for turns in turned])
    x = np.concatenate([numbers(whole, alone), numbers(new, own)])
    y = np.repeat([0.0, 1.0], len(later))
    places = np.arange(len(y)) % len(later)

    def fires(_: int, mine: list[int], rest: list[int]) -> list[bool]:
        weights, bound = _fit(x[rest], y[rest])
        return list(x[mine] @ weights >= bound)

    fired = np.array(cross_validate([int(p) % FOLDS for p in places], fires))
    weights, bound = _fit(x, y)
    shown = (
        np.where(fired[: len(later)], alone.argmax(1), whole.argmax(1)),
        np.where(fired[len(later) :], own.argmax(1), new.argmax(1)),
    )
    figures = _figures(later, others, (whole.argmax(1), new.argmax(1)), shown)
    return [round(float(w), 4) for w in weights], round(bound, 4), figures


def _fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of a logistic regression, and the bound that `FIRES` of the rows with y = 0 pass."""
    middle, scale = x.mean(0), x.std(0) + 1e-9
    z, truth = (torch.tensor(part, dtype=torch.double) for part in ((x - middle) / scale, y))
    slope = torch.zeros(x.shape[1] + 1, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        said = z @ slope[:-1] + slope[-1]
        each = torch.nn.functional.binary_cross_entropy_with_logits(said, truth, reduction="sum")
        total = each + PENALTY / 2 * (slope[:-1] ** 2).sum()
        total.backward()
        return total

    optimizer.step(loss)
    weights = slope.detach().numpy()[:-1] / scale
    return weights, float(np.quantile(x[y == 0] @ weights, 1 - FIRES))


def _figures(
    later: Sequence[tuple[Conversation, int]],
    others: Sequence[Conversation],
    before: tuple[np.ndarray, np.ndarray],
    shown: tuple[np.ndarray, np.ndarray],
) -> list[Figure]:
    """How often the label is named on real later turns and on turned ones, without and with it."""
    old = np.array([INDEX[c.emotion] for c, _ in later])
    new = np.array([INDEX[c.emotion] for c in others])
    found = []
    for name, own, plain, label in (
        ("later contexts, emotion named", shown[0], before[0], old),
        ("turned dialogues, new emotion named", shown[1], before[1], new),
        ("turned dialogues, old emotion named", shown[1], before[1], old),
    ):
        hits = (own == label).astype(float)
        low, high = interval([c.conv_id for c, _ in later], lambda i, h=hits: float(h[i].mean()))
        base = float((plain == label).mean())
        found.append(figure(name, hits.mean(), len(hits), low, high, baseline=base, ceiling=None))
    return found
