"""The detector of texts to which none of the 32 labels fits: boredom, a plain fact, a question.

Every text of EmpatheticDialogues has one of the 32 labels, so the emotion head knows no other. The
detector is a logistic regression on the encoder's mean state. It learns from sentences of our own
(`none_of_these.txt`) and first turns of task talk against contexts and situations of
EmpatheticDialogues. Its threshold flags at most `FLAGGED` of the contexts that were kept back.
GoEmotions' neutral comments made it find fewer of our own sentences (five folds), not more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from empo_demo.empathy.encoder import SemNet, Texts
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_conversations, read_lines
from recipes.common import GENERAL, read_general
from recipes.sem.choice import features
from recipes.sem.folds import kept_back
from recipes.sem.intervals import Figure, figure, interval

SENTENCES = Path(__file__).with_name("none_of_these.txt")
TASKS, DIALOGUES = 800, 3000
"""How many first turns of task talk and dialogues are learnt from."""
TASK_TALK = "schema-guided"
WEIGHTS = {"own": 8.0, "task": 0.5, "emotion": 1.0}
PENALTY = 0.03
FLAGGED = 0.02
"""How many of the kept-back contexts may be flagged: each has a label, so each is a false alarm."""
RATED = "none_texts.jsonl"
"""Texts with their kind ("emotion" or another) that somebody else wrote, if the data has them."""


def own_sentences() -> list[tuple[str, str]]:
    """(kind, sentence) of each of our own."""
    found, kind = [], ""
    for line in SENTENCES.read_text(encoding="utf8").splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        elif line and not line.startswith("#"):
            found.append((kind, line))
    return found


def fit_other(net: SemNet, texts: Texts, data: Path, *, seed: int) -> tuple[float, list[Figure]]:
    """Fit `net.other` on the frozen encoder; returns its threshold and its figures."""
    train = read_conversations(data, "train")
    rng = random.Random(f"{seed} none of these")
    learnt = [c for c in train if not kept_back(c.conv_id)]
    rng.shuffle(learnt)
    groups = {
        "own": [[sentence] for _, sentence in own_sentences()],
        "task": _tasks(data),
        "emotion": [_context(c.turns, rng) for c in learnt[:DIALOGUES]]
        + [[c.situation] for c in learnt[:DIALOGUES]],
    }
    states = {name: _states(net, texts, turns) for name, turns in groups.items()}
    _regress(net, states)
    kept = [_context(c.turns, rng) for c in train if kept_back(c.conv_id)]
    alarms = np.sort(_chances(net, texts, kept))
    bound = float(np.quantile(alarms, 1 - FLAGGED)) if len(alarms) else 0.5
    return bound, _figures(net, texts, data, bound, alarms)


def _regress(net: SemNet, states: dict[str, torch.Tensor]) -> None:
    x = torch.cat(list(states.values()))
    y = torch.cat([torch.full((len(s),), float(n != "emotion")) for n, s in states.items()])
    weight = torch.cat([torch.full((len(s),), WEIGHTS[n]) for n, s in states.items()])
    middle, scale = x.mean(0), x.std(0) + 1e-6
    z = (x - middle) / scale
    slope = torch.zeros(x.shape[1], requires_grad=True)
    shift = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slope, shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(z @ slope + shift, y, weight, reduction="sum")
        total = each / weight.sum() + PENALTY * (slope**2).sum()
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        net.other.weight[0] = slope / scale
        net.other.bias[0] = float(shift - (slope * middle / scale).sum())


def _figures(
    net: SemNet, texts: Texts, data: Path, bound: float, alarms: np.ndarray
) -> list[Figure]:
    """How often it flags kept-back contexts and, if the data has them, texts of somebody else."""
    found = [_share("none of these, flagged of contexts with a label", alarms >= bound)]
    if not (data / RATED).is_file():
        return found
    rows = [row for _, row in read_lines(data / RATED)]
    try:
        said = _chances(net, texts, [[str(row["text"])] for row in rows]) >= bound
        kinds = np.array([str(row["kind"]) for row in rows])
    except KeyError:
        raise DataError(f"{data / RATED}: text and kind were expected.") from None
    felt = kinds == "emotion"
    found.append(_share("none of these, flagged of another's texts with a feeling", said[felt]))
    found.append(_share("none of these, found of another's texts", said[~felt]))
    for kind in sorted(set(kinds[~felt])):
        found.append(_share(f"none of these, found of {str(kind)!r}", said[kinds == kind]))
    return found


def _share(name: str, hits: np.ndarray) -> Figure:
    values = hits.astype(float)
    low, high = interval(list(map(str, range(len(values)))), lambda i: float(values[i].mean()))
    return figure(name, values.mean(), len(values), low, high, baseline=None, ceiling=None)


def _chances(net: SemNet, texts: Texts, turns: Sequence[Sequence[str]]) -> np.ndarray:
    with torch.no_grad():
        logits = net.other(_states(net, texts, turns)).squeeze(-1)
    return np.asarray(logits.sigmoid().numpy())


def _states(net: SemNet, texts: Texts, turns: Sequence[Sequence[str]]) -> torch.Tensor:
    return features(net, [texts.turns(own) for own in turns])[0]


def _context(turns: Sequence[dict[str, str]], rng: random.Random) -> list[str]:
    """All turns before one of the listener's."""
    ends = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    return [turn["content"] for turn in turns[: rng.choice(ends) if ends else len(turns)]]


def _tasks(data: Path) -> list[list[str]]:
    found: list[list[str]] = []
    if not (data / GENERAL).is_file():
        return found
    for source, messages in read_general(data):
        if TASK_TALK in source.lower() and messages and len(found) < TASKS:
            found.append([messages[0]["content"]])
    return found
