"""Training the SEM's encoder: sentiment first, then emotions; several tasks share its batches.

A kill loses at most `SAVE_EVERY` steps.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.encoder import SemNet, Text, Texts, collate, last_turn
from empo_demo.errors import DataError
from empo_demo.progress import progress
from empo_demo.training.corpus import Conversation
from recipes.sem import affect, corpora
from recipes.sem.heads import check_loss

SENTIMENT_RATE, ENCODER_RATE, HEAD_RATE, LAYER_DECAY = 2e-4, 2.5e-4, 2e-3, 0.85
"""Rates of the top layer in both stages and of the heads, and the factor per layer below."""
RATED_EPOCHS = (2, 3)
"""Passes over EmoBank in the first and the second stage."""
WARMUP, SAVE_EVERY = 150, 300
TAUGHT_AFFECT = 0.3
"""How much the teacher's valence counts beside its emotions."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text, its task ("emotions", "taught", "affect", "sentiment") and the task's target.

    The target of "emotions" is a probability for each of the 32, that of "taught" has valence and
    arousal behind these, both NaN where the teacher does not say them.
    """

    text: Text
    task: str
    target: Any


def train_sentiment(
    net: SemNet, texts: Texts, data: Path, feeling: Sequence[Example], work: Path, *, seed: int
) -> None:
    """The first stage: GoEmotions' kinds of emotion, with EmoBank's valence among them."""
    sentences, kinds = corpora.go_emotions(data, texts.turns)
    sentiment = torch.nn.Linear(net.emotion.in_features, kinds)
    comments = [Example(text, "sentiment", target) for text, target in sentences]
    plan = mixed([(comments, 1), (feeling, RATED_EPOCHS[0])], f"{seed} sentiment")
    tune(net, sentiment, plan, work / "sentiment", rate=SENTIMENT_RATE, seed=seed)


def emotion_examples(conversations: Sequence[Conversation], texts: Texts) -> list[Example]:
    """All contexts and situations of the conversations, with smoothed labels."""
    smooth = corpora.soft_labels()
    examples = corpora.emotions(conversations, texts)
    return [Example(example.text, "emotions", smooth[example.label]) for example in examples]


def train_emotions(
    net: SemNet,
    examples: Sequence[Example],
    feeling: Sequence[Example],
    work: Path,
    *,
    epochs: int,
    seed: int,
    runs: int,
    name: str,
) -> None:
    """The second stage. Each run has its own order of the data; `net` gets their mean weights."""
    start = copy.deepcopy(net.state_dict())
    total: dict[str, torch.Tensor] = {}
    for number in range(runs):
        net.load_state_dict(start)
        own = seed + 1 + number
        plan = mixed([(examples, epochs), (feeling, RATED_EPOCHS[1])], f"{own} emotions")
        tune(net, None, plan, work / f"{name}-{number}", rate=ENCODER_RATE, seed=own)
        for part, value in net.state_dict().items():
            total[part] = total[part] + value if number else value.clone()
    means = {n: v / runs if v.is_floating_point() else v for n, v in total.items()}
    net.load_state_dict({**net.state_dict(), **means})


def mixed(
    parts: Sequence[tuple[Sequence[Example], int]], seed: str, size: int = corpora.BATCH
) -> list[list[Example]]:
    """The batches of several tasks, each over its own number of epochs, evenly mixed."""
    placed = []
    for examples, epochs in parts:
        for epoch in range(epochs):
            batches = list(corpora.batches(examples, f"{seed} {epoch}", size))
            for place, batch in enumerate(batches):
                jitter = random.Random(f"{seed} {epoch} {place}").random()
                placed.append(((epoch + (place + jitter) / len(batches)) / epochs, batch))
    return [batch for _, batch in sorted(placed, key=lambda pair: pair[0])]


def tune(
    net: SemNet,
    sentiment: torch.nn.Linear | None,
    plan: Sequence[Sequence[Example]],
    work: Path,
    *,
    rate: float,
    seed: int,
) -> None:
    """One stage over the batches of `plan`; lower rates for lower layers, falling to 0."""
    torch.manual_seed(seed)
    net.grader.requires_grad_(False)
    net.recent.requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(net, sentiment, rate, HEAD_RATE), fused=True)
    schedule = _linear(optimizer, len(plan), WARMUP)
    state = {"net": net, "optimizer": optimizer, "schedule": schedule, "sentiment": sentiment}
    done = _restore(work, state)
    net.train()
    for step, batch in enumerate(progress(plan, work.name)):
        if step < done:
            continue
        _step(net, _loss(net, sentiment, batch), optimizer, schedule)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == len(plan):
            _checkpoint(work, state, step + 1)
    net.eval()


def _loss(
    net: SemNet,
    sentiment: torch.nn.Linear | None,
    batch: Sequence[Example],
) -> torch.Tensor:
    """The loss of a batch of one task."""
    ids, mask, segments = collate([example.text for example in batch])
    task = batch[0].task
    with torch.autocast("cpu", torch.bfloat16):
        hidden = net.hidden(ids, mask)
        if task == "emotions":
            said = net.emotions(hidden, mask, segments)
        elif task == "taught":
            both = net.emotions(hidden, mask, segments), net.affects(hidden, segments)
            said = torch.cat(both, 1)
        elif task == "affect":
            said = net.affects(hidden, segments)
        else:
            assert sentiment is not None
            said = sentiment(net.dropout(last_turn(hidden, segments)))
    said = said.float()
    wanted = torch.tensor([example.target for example in batch])
    if task == "emotions":
        return _emotion_loss(said, wanted)
    if task == "affect":
        return _affect_loss(said, wanted)
    if task == "taught":
        count = len(EMOTIONS)
        loss = _emotion_loss(said[:, :count], wanted[:, :count])
        told = ~wanted[:, count:].isnan().any(1)
        if not told.any():
            return loss
        return loss + TAUGHT_AFFECT * _affect_loss(said[told, count:], wanted[told, count:])
    each = F.binary_cross_entropy_with_logits(said, wanted, reduction="none")
    return each.sum(-1).mean()


def _emotion_loss(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return -(wanted * F.log_softmax(said, -1)).sum(-1).mean()


def _affect_loss(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Valence, and arousal for half; the targets are in [-1, 1], what is said is in `SCALES`."""
    valence = F.smooth_l1_loss(said[:, 0], wanted[:, 0] / affect.SCALES[0])
    return valence + 0.5 * F.smooth_l1_loss(said[:, 1], wanted[:, 1] / affect.SCALES[1])


def _groups(
    net: SemNet, sentiment: torch.nn.Linear | None, rate: float, head_rate: float
) -> list[dict[str, Any]]:
    """Parameters with their rates: each encoder layer lower than the one above it."""
    layers = int(net.encoder.config.num_hidden_layers)
    groups = []
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.01 if parameter.dim() > 1 else 0.0
        if not name.startswith("encoder."):
            groups.append({"params": [parameter], "lr": head_rate, "weight_decay": decay})
            continue
        depth = int(name.split("layer.")[1].split(".")[0]) + 1 if "layer." in name else 0
        lower = rate * LAYER_DECAY ** (layers - depth)
        groups.append({"params": [parameter], "lr": lower, "weight_decay": decay})
    if sentiment is not None:
        own = list(sentiment.parameters())
        groups.append({"params": own, "lr": head_rate, "weight_decay": 0.01})
    return groups


def _linear(optimizer: Any, steps: int, warmup: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 1.0) * max(0.0, 1 - step / max(1, steps))
    )


def _step(net: SemNet, loss: torch.Tensor, optimizer: Any, schedule: Any) -> None:
    check_loss(loss)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()


def _checkpoint(work: Path, state: dict[str, Any], step: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in state.items() if part is not None}
    part = work / "state.part"
    try:
        torch.save({**states, "step": step}, part)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise DataError(f"The checkpoint cannot be written to {work}: {error}.") from None
    part.replace(work / "state.pt")


def _restore(work: Path, state: dict[str, Any]) -> int:
    """The steps that an interrupted training had finished."""
    path = work / "state.pt"
    if not path.is_file():
        return 0
    states = torch.load(path, weights_only=True)
    for name, part in state.items():
        if part is not None:
            part.load_state_dict(states[name])
    return int(states["step"])
