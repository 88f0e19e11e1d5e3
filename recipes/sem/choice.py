"""What is chosen for the SEM once its encoder is trained: share, emotion head, temperature.

The encoder never saw ED-valid. What is chosen on it is chosen for each fold on the other two, and
what was read in the fold with those choices is kept for the figures.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from empo_demo.empathy.emotions import EMOTIONS, INDEX
from empo_demo.empathy.encoder import SemNet, Text, Texts, last_turn, mean
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.sem.corpora import by_length
from recipes.sem.folds import cross_validate, fold_of, kept_back

SHARES = (1.0, 0.9, 0.8)
"""Candidates: the share of the trained weights in the encoder's average with its start."""
PENALTIES = (1.0, 3.0, 10.0)
"""Candidates: the penalty on changes of the trained emotion head."""
COVERED = 0.9
"""How often the set of likely labels must contain the right one."""
Values = np.ndarray
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What was read in some texts: (n, 32) probabilities, and which labels are in the 90 % set."""

    probabilities: Values
    likely: Values
    labels: Values
    conversations: tuple[str, ...]
    turns: Values


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """`meta` goes into `sem.json`; the rest was read with each fold's own choices."""

    meta: dict[str, float]
    contexts: Rows
    situations: Rows
    known: Rows


@dataclass(frozen=True, slots=True)
class Item:
    """A text of a conversation with its label; `turns` is 0 for a situation."""

    conversation: str
    turns: int
    text: Text
    label: int


def choose(net: SemNet, origin: State, texts: Texts, data: Path) -> Chosen:
    """Average `net`'s encoder with `origin` at the best share, then `settle` its emotion head.

    The share is chosen with the trained head, once: every fold gave the same one.
    """
    share = average(net, origin, items_of(read_conversations(data, "valid"), texts))
    return settle(net, texts, data, {"share": share})


def average(net: SemNet, origin: State, items: Sequence[Item]) -> float:
    """Average `net`'s encoder with `origin` at the share with the least log-loss on `items`."""
    trained = copy.deepcopy(net.encoder.state_dict())
    labels = torch.tensor([item.label for item in items])
    losses = {}
    for share in SHARES:
        blend(net, trained, origin, share)
        said = logits(net, [item.text for item in items])
        scaled = said.double() / temperature(said, labels)
        losses[share] = float(F.cross_entropy(scaled, labels))
    share = min(losses, key=losses.__getitem__)
    blend(net, trained, origin, share)
    return share


def settle(net: SemNet, texts: Texts, data: Path, meta: Mapping[str, float]) -> Chosen:
    """Refit the emotion head on ED-valid, which the encoder never saw, and calibrate it.

    For each fold, the penalty, the temperature and the bound of the 90 % set are chosen on the
    other two folds, and each of these is read by a head that was fitted without it.
    """
    items = items_of(read_conversations(data, "valid"), texts)
    states, recent = features(net, [item.text for item in items])
    x = torch.cat([states, recent], 1)
    labels = torch.tensor([item.label for item in items])
    folds = np.array([fold_of(item.conversation) for item in items])

    def read_fold(_: int, own: list[int], others: list[int]) -> list[tuple[Values, Values]]:
        penalty, heat, bound = settings(net, x[others], labels[others], folds[others])
        head = refit(net, x[others], labels[others], penalty)
        return list(zip(*answers(x[own], head, heat, bound), strict=True))

    both = zip(*cross_validate(folds.tolist(), read_fold), strict=True)
    rows, likely = (np.array(column) for column in both)
    penalty, heat, bound = settings(net, x, labels, folds)
    weight, bias = refit(net, x, labels, penalty)
    size = states.shape[1]
    with torch.no_grad():
        net.emotion.weight.copy_(weight[:, :size])
        net.emotion.bias.copy_(bias)
        net.recent.weight.copy_(weight[:, size:])
    back = [c for c in read_conversations(data, "train") if kept_back(c.conv_id)]
    known = _contexts(back, texts)
    read = torch.cat(features(net, [item.text for item in known]), 1)
    said = answers(read, (weight, bias), heat, bound)
    count = sum(item.turns > 0 for item in items)
    figures = {"temperature": round(heat, 4), "likely": round(bound, 5), "penalty": penalty}
    return Chosen(
        {**meta, **figures},
        rows_of(items[:count], rows[:count], likely[:count]),
        rows_of(items[count:], rows[count:], likely[count:]),
        rows_of(known, *said),
    )


def refit(
    net: SemNet, x: torch.Tensor, labels: torch.Tensor, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the emotion head for `x` (n, 2 dim): near the trained head's.

    The change of the weights costs `penalty` times its mean square per emotion.
    """
    start = torch.cat([net.emotion.weight, net.recent.weight], 1).detach()
    change = torch.zeros_like(start, requires_grad=True)
    shift = torch.zeros(len(start), requires_grad=True)
    optimizer = torch.optim.LBFGS([change, shift], max_iter=25, line_search_fn="strong_wolfe")
    bias = net.emotion.bias.detach()

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        said = x @ (start + change).T + bias + shift
        penalties = penalty * (change**2).sum() / len(start) + 1e-3 * (shift**2).sum()
        total = F.cross_entropy(said, labels) + penalties
        total.backward()
        return total

    optimizer.step(loss)
    return (start + change).detach(), (bias + shift).detach()


def blend(net: SemNet, trained: State, origin: State, share: float) -> None:
    """Set the encoder to `share` × its trained weights + (1 - `share`) × its weights at the start.

    After several epochs the trained encoder remembers its training dialogues. The average reads
    new dialogues better (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
    """
    mixed = {
        name: share * value + (1 - share) * origin[name] if value.is_floating_point() else value
        for name, value in trained.items()
    }
    net.encoder.load_state_dict(mixed)


def settings(
    net: SemNet, x: torch.Tensor, labels: torch.Tensor, folds: Values
) -> tuple[float, float, float]:
    """The penalty with the least log-loss, its temperature, and the bound of the 90 % set.

    Every fold of `x` is read by a head that was fitted on its other folds.
    """
    settings = []
    for penalty in PENALTIES:
        said = _held_out(net, x, labels, folds, penalty)
        heat = temperature(said, labels)
        settings.append((float(F.cross_entropy(said.double() / heat, labels)), penalty, heat, said))
    _, penalty, heat, said = min(settings, key=lambda row: row[0])
    rows = _softmax(said, heat)
    right = np.sort(rows[np.arange(len(rows)), labels.numpy()])
    # Split conformal prediction: this many of the held-out probabilities may be below the bound.
    place = int(np.floor((1 - COVERED) * (len(right) + 1))) - 1
    return penalty, heat, float(right[max(0, place)])


def _held_out(
    net: SemNet, x: torch.Tensor, labels: torch.Tensor, folds: Values, penalty: float
) -> torch.Tensor:
    """(n, 32) logits, each fold's by a head that was fitted on the others; 0 if there is one."""

    def read(_: int, own: list[int], others: list[int]) -> list[torch.Tensor]:
        if not others:
            return list(torch.zeros(len(own), len(EMOTIONS)))
        return list(_said(x[own], refit(net, x[others], labels[others], penalty)))

    return torch.stack(cross_validate(folds.tolist(), read))


def _said(x: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return x @ head[0].T + head[1]


def answers(
    x: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor], heat: float, bound: float
) -> tuple[Values, Values]:
    """(n, 32) probabilities, and which labels are at least as probable as `bound`.

    The most probable label is always one of them.
    """
    rows = _softmax(_said(x, head), heat)
    return rows, (rows >= bound) | (rows == rows.max(1, keepdims=True))


def _softmax(logits: torch.Tensor, heat: float) -> Values:
    return np.asarray(torch.softmax(logits.double() / heat, -1).numpy())


def rows_of(items: Sequence[Item], probabilities: Values, likely: Values) -> Rows:
    return Rows(
        probabilities,
        likely,
        np.array([item.label for item in items]),
        tuple(item.conversation for item in items),
        np.array([item.turns for item in items]),
    )


def _contexts(conversations: Sequence[Conversation], texts: Texts) -> list[Item]:
    """Every listener turn, read from all turns before it."""
    return [
        Item(c.conv_id, i, texts.turns([t["content"] for t in c.turns[:i]]), INDEX[c.emotion])
        for c in conversations
        for i, turn in enumerate(c.turns)
        if turn["role"] == "assistant"
    ]


def _situations(conversations: Sequence[Conversation], texts: Texts) -> list[Item]:
    return [Item(c.conv_id, 0, texts.turns([c.situation]), INDEX[c.emotion]) for c in conversations]


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The divisor of the logits with the least negative log-likelihood (Guo et al. 2017)."""
    grid = np.exp(np.linspace(-1.5, 1.5, 301))
    losses = [float(F.cross_entropy(logits.double() / float(t), labels)) for t in grid]
    return float(grid[int(np.argmin(losses))])


def logits(net: SemNet, texts: Sequence[Text]) -> torch.Tensor:
    """(texts, 32) logits of the emotion head, in 32 bits."""
    states, recent = features(net, texts)
    with torch.no_grad():
        return torch.as_tensor(net.emotion(states) + net.recent(recent))


def features(net: SemNet, texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean states of all tokens, and of the last turn's, (texts, dim) each, in 32 bits."""
    net.eval()
    states = torch.zeros(len(texts), net.emotion.in_features)
    recent = torch.zeros_like(states)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for part, ids, mask, segments in by_length(texts, "contexts and situations"):
            hidden = net.hidden(ids, mask)
            states[part] = mean(hidden, mask).float()
            recent[part] = last_turn(hidden, segments).float()
    return states, recent


def items_of(conversations: Sequence[Conversation], texts: Texts) -> list[Item]:
    """All contexts of the conversations, then all situations."""
    return [*_contexts(conversations, texts), *_situations(conversations, texts)]
