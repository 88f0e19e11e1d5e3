"""The heads that read the frozen encoder: cause words, and EPITOME with layers of its own.

The encoder is frozen for them, so that no head can cost the emotions anything.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from empo_demo.empathy.encoder import LEVELS, SemNet, Text, collate
from empo_demo.errors import EngineError
from empo_demo.progress import progress
from recipes.sem import corpora

BATCH = 32
CAUSE_RATE, CAUSE_EPOCHS = 1e-3, 16
LAYER_RATE, LEVEL_RATE, LEVEL_EPOCHS = 2e-4, 1e-3, 5
SMOOTHING = 0.05
RATIONALE = 0.5
"""Weight of the rationales' loss beside the levels'."""


def fit_causes(net: SemNet, causes: Sequence[corpora.CauseExample], *, seed: int) -> None:
    """Fit the cause head on the frozen encoder's last states, which are computed once."""
    net.eval()
    states = _states([example.text for example in causes], net.hidden, "texts with cause words")
    optimizer = torch.optim.AdamW(net.cause.parameters(), CAUSE_RATE)
    net.dropout.train()
    for epoch in progress(range(CAUSE_EPOCHS), "cause words, epochs"):
        for part in _parts(len(causes), f"{seed} causes {epoch}"):
            loss = cause_loss(net, [causes[i] for i in part], _pad([states[i] for i in part]))
            _update(loss, optimizer)
    net.eval()


def fit_levels(
    net: SemNet,
    pairs: Sequence[corpora.Pair],
    *,
    seed: int,
    title: str = "",
) -> None:
    """Fit EPITOME's own layers and heads on the frozen encoder's shared states.

    The layers start as copies of the encoder's; pairs of similar length go together.
    """
    torch.manual_seed(seed)
    net.start_grader()
    net.grader.requires_grad_(True)
    net.eval()
    states = _states([example.text for example in pairs], net.shared, f"EPITOME{title}, texts")
    place = {id(pair): i for i, pair in enumerate(pairs)}
    heads = [p for part in (net.rationale, net.pair, net.epitome) for p in part.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": list(net.grader.parameters()), "lr": LAYER_RATE},
        {"params": heads},
    ]
    optimizer = torch.optim.AdamW(groups, LEVEL_RATE)
    steps = LEVEL_EPOCHS * math.ceil(len(pairs) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LAYER_RATE, LEVEL_RATE], max(30, steps + 2), pct_start=0.1, cycle_momentum=False
    )
    weights = level_weights(pairs)
    net.grader.train()
    net.dropout.train()
    for epoch in range(LEVEL_EPOCHS):
        batches = list(corpora.batches(pairs, f"{seed} pairs {epoch}", BATCH))
        for batch in progress(batches, f"EPITOME{title}, epoch {epoch + 1} of {LEVEL_EPOCHS}"):
            known = _pad([states[place[id(pair)]] for pair in batch])
            _update(level_loss(net, batch, weights, known), optimizer)
            schedule.step()
    net.eval()


def cause_loss(net: SemNet, batch: Sequence[corpora.CauseExample], hidden: Tensor) -> Tensor:
    """Two losses: whether each piece belongs to a cause word, and how the pieces are ranked."""
    _, _, segments = collate([example.text for example in batch])
    logits = net.causes(hidden)
    targets = torch.zeros_like(logits)
    for row, example in enumerate(batch):
        for column, segment in enumerate(example.text.segments):
            targets[row, column] = example.chance(segment - 1) if segment else 0.0
    inside = segments > 0
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    single = (each * inside).sum() / inside.sum()
    share = targets / targets.sum(-1, keepdim=True).clamp_min(1)
    ranked = F.log_softmax(logits.masked_fill(~inside, -1e4), -1)
    return 2 * single - 0.5 * (share * ranked).sum(-1).mean()


def level_loss(
    net: SemNet, batch: Sequence[corpora.Pair], weights: Tensor, shared: Tensor
) -> Tensor:
    """The loss of the levels, summed over the mechanisms, plus the loss of the rationales.

    Levels: weighted cross-entropy, with a teacher's probabilities where it graded the pair.
    Rationales: for each token of the response and each mechanism, whether people marked the token
    as the reason for the level; a pair that a teacher graded has none.
    """
    _, mask, segments = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits, places = (part.float() for part in net.levels(shared, mask, segments))
    wanted = torch.tensor([level_targets(example) for example in batch])
    weighed = wanted * weights
    # As `cross_entropy` does it: the mean is over the weights of the labels.
    loss = -(weighed * logits.log_softmax(-1)).sum((0, 2)) / weighed.sum((0, 2))
    targets = torch.zeros_like(places)
    for row, example in enumerate(batch):
        for mechanism, tokens in enumerate(example.rationales):
            targets[row, list(tokens), mechanism] = 1.0
    each = F.binary_cross_entropy_with_logits(places, targets, reduction="none")
    graded = torch.tensor([not example.taught for example in batch])
    read = ((segments == 2) & graded.unsqueeze(-1)).unsqueeze(-1)
    return loss.sum() + RATIONALE * (each * read).sum() / read.sum().clamp_min(1)


def level_targets(pair: corpora.Pair) -> list[list[float]]:
    """The probabilities of each mechanism's levels: a teacher's, or the label's, smoothed."""
    if pair.taught:
        return [list(row) for row in pair.taught]
    rest = SMOOTHING / LEVELS
    return [
        [1 - SMOOTHING + rest if level == own else rest for level in range(LEVELS)]
        for own in pair.levels
    ]


def level_weights(pairs: Sequence[corpora.Pair]) -> Tensor:
    """(3, 3) class weights, the fourth root of the inverse frequency: rare levels count more."""
    counts = torch.ones(3, 3)
    for pair in (pair for pair in pairs if not pair.taught):
        for mechanism, level in enumerate(pair.levels):
            counts[mechanism, level] += 1
    weights = (counts.sum(-1, keepdim=True) / counts) ** 0.25
    return weights / weights.mean(-1, keepdim=True)


def _states(
    texts: Sequence[Text], read: Callable[[Tensor, Tensor], Tensor], title: str
) -> list[Tensor]:
    """The result of `read` for each text, (tokens, dim), in 16 bits to save memory."""
    states: list[Tensor] = [torch.empty(0)] * len(texts)
    for part, ids, mask, _ in corpora.by_length(texts, title):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden = read(ids, mask)
        for row, i in enumerate(part):
            states[i] = hidden[row, : len(texts[i].ids)].half()
    return states


def _pad(states: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True).float()


def _parts(count: int, seed: str) -> list[list[int]]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [order[i : i + BATCH] for i in range(0, count, BATCH)]


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    check_loss(loss)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def check_loss(loss: Tensor) -> None:
    """Raise an `EngineError` if the loss is not a number. The last checkpoint is kept."""
    if not torch.isfinite(loss):
        raise EngineError(
            "The loss is not a number; the last checkpoint is kept. Run the command again, "
            "with another --seed."
        )
