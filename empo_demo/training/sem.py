"""The SEM: one small encoder, fine-tuned for emotions, then jointly for all five heads.

Stage one: emotions of ED-train's dialogue contexts and situations. Stage two: cause words (fold 0
of ED-valid) and EPITOME levels beside a replay of stage one, at a low rate, on the pruned
vocabulary. Then `sem_finish` averages weights, and `sem_report` calibrates and measures.
Checkpoints after each epoch of stage one; a kill loses at most one.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from empo_demo.empathy.encoder import SemNet, collate, save
from empo_demo.errors import DataError, EngineError
from empo_demo.training import sem_data as data_of
from empo_demo.training.corpus import read_conversations
from empo_demo.training.folds import CAUSE_TRAINING, TUNING, fold_of
from empo_demo.training.sem_finish import best_share, blend, refit
from empo_demo.training.sem_start import kept_pieces, pretrained, prune

ENCODER_RATE, HEAD_RATE, LAYER_DECAY = 2.5e-4, 2e-3, 0.85
JOINT_RATE, JOINT_EPOCHS = 6e-5, 3
REPLAY = 48
"""Emotion examples beside each joint step's causes and pairs."""


def run(data: Path, out: Path, *, epochs: float, seed: int, start: Path | None) -> None:
    """Train all stages into `out`, calibrate, measure, and write the card."""
    from empo_demo.training.sem_card import write_card
    from empo_demo.training.sem_crossval import cross_validate
    from empo_demo.training.sem_report import calibrate, measure

    torch.manual_seed(seed)
    net, texts = pretrained(start)
    train = read_conversations(data, "train")
    work = out / "checkpoints"
    emotions = data_of.emotions(train, texts)
    emotion_stage(net, emotions, work, epochs=round(epochs), seed=seed)
    kept = kept_pieces(texts, data)
    origin, _ = pretrained(start)
    prune(origin, texts, kept)
    texts = prune(net, texts, kept)
    emotions = data_of.emotions(train, texts)
    causes = data_of.cause_examples(data, texts, CAUSE_TRAINING)
    pairs = data_of.epitome_pairs(data, texts, ("train", "valid"))
    first = copy.deepcopy(net)
    joint_stage(net, emotions, causes, pairs, seed=seed)
    tuning = [c for c in read_conversations(data, "valid") if fold_of(c.conv_id) == TUNING]
    share = finish(net, origin, causes, pairs, data_of.emotions(tuning, texts), seed=seed)
    levels = cross_validate(first, origin, pairs, work, share=share, seed=seed)
    meta = calibrate(net, texts, tuning, data)
    save(net, texts, {**meta, "share": share, "seed": seed, "epochs": epochs}, out)
    figures = measure(out, data, levels)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    write_card(out, data, figures)


def finish(
    net: SemNet,
    origin: SemNet,
    causes: Sequence[data_of.CauseExample],
    pairs: Sequence[data_of.Pair],
    tuning: Sequence[data_of.Emotion],
    *,
    seed: int,
) -> float:
    """Average with the start at the best share for `tuning`, refit the heads; returns the share."""
    start = origin.encoder.state_dict()
    share = best_share(net, start, tuning)
    blend(net, start, share)
    refit(net, causes, pairs, seed=seed)
    return share


def emotion_stage(
    net: SemNet, examples: Sequence[data_of.Emotion], work: Path, *, epochs: int, seed: int
) -> None:
    """Stage one: smoothed cross-entropy, lower rates for lower layers."""
    steps = epochs * math.ceil(len(examples) / data_of.BATCH)
    optimizer = torch.optim.AdamW(_groups(net, ENCODER_RATE, HEAD_RATE), fused=True)
    schedule = _linear(optimizer, steps, warmup=150)
    done = _restore(work, net, optimizer, schedule)
    smooth = torch.tensor(data_of.soft_labels())
    net.train()
    for epoch in range(done, epochs):
        order = list(data_of.batches(examples, f"{seed} emotions {epoch}"))
        for batch in _progress(order, f"emotions, epoch {epoch + 1} of {epochs}"):
            loss = _emotion_loss(net, batch, smooth)
            _step(net, loss, optimizer, schedule)
        _checkpoint(work, net, optimizer, schedule, epoch + 1)


def joint_stage(
    net: SemNet,
    emotions: Sequence[data_of.Emotion],
    causes: Sequence[data_of.CauseExample],
    pairs: Sequence[data_of.Pair],
    *,
    seed: int,
    epochs: int = JOINT_EPOCHS,
) -> None:
    """Stage two: every step takes a batch of pairs, one of causes, and a replay of emotions."""
    steps = epochs * math.ceil(len(pairs) / 32)
    optimizer = torch.optim.AdamW(_groups(net, JOINT_RATE, 1e-3), fused=True)
    schedule = _linear(optimizer, steps, warmup=30)
    smooth, weights = torch.tensor(data_of.soft_labels()), level_weights(pairs)
    replay = _endless(emotions, f"{seed} replay", REPLAY)
    cause = _endless(causes, f"{seed} causes", 32) if causes else itertools.repeat([])
    net.train()
    for epoch in range(epochs):
        order = list(data_of.batches(pairs, f"{seed} pairs {epoch}", 32))
        for batch in _progress(order, f"all heads, epoch {epoch + 1} of {epochs}"):
            loss = level_loss(net, batch, weights)
            if emotions:
                loss = loss + _emotion_loss(net, next(replay), smooth)
            if causes:
                loss = loss + cause_loss(net, next(cause))
            _step(net, loss, optimizer, schedule)


def _emotion_loss(
    net: SemNet, batch: Sequence[data_of.Emotion], smooth: torch.Tensor
) -> torch.Tensor:
    ids, mask, _ = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.emotions(net.hidden(ids, mask), mask)
    targets = smooth[[example.label for example in batch]]
    return -(targets * F.log_softmax(logits.float(), -1)).sum(-1).mean()


def cause_loss(
    net: SemNet, batch: Sequence[data_of.CauseExample], hidden: torch.Tensor | None = None
) -> torch.Tensor:
    """Per piece: is its word a cause, and (for the ranking) which share of the causes is it?

    `hidden` are the batch's states where they are known already.
    """
    ids, mask, segments = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.causes(net.hidden(ids, mask) if hidden is None else hidden).float()
    targets = torch.zeros_like(logits)
    for row, example in enumerate(batch):
        for column, segment in enumerate(example.text.segments):
            targets[row, column] = float(segment - 1 in example.causes) if segment else 0.0
    inside = segments > 0
    each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    single = (each * inside).sum() / inside.sum()
    share = targets / targets.sum(-1, keepdim=True).clamp_min(1)
    ranked = F.log_softmax(logits.masked_fill(~inside, -1e4), -1)
    return 2 * single - 0.5 * (share * ranked).sum(-1).mean()


def level_loss(
    net: SemNet,
    batch: Sequence[data_of.Pair],
    weights: torch.Tensor,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted cross-entropy of the three mechanisms; `hidden` as in `cause_loss`."""
    ids, mask, segments = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        states = net.hidden(ids, mask) if hidden is None else hidden
        logits = net.levels(states, segments).float()
    levels = torch.tensor([example.levels for example in batch])
    losses = [
        F.cross_entropy(logits[:, m], levels[:, m], weight=weights[m], label_smoothing=0.05)
        for m in range(levels.shape[1])
    ]
    return torch.stack(losses).sum()


def level_weights(pairs: Sequence[data_of.Pair]) -> torch.Tensor:
    """(3, 3) class weights, the fourth root of the inverse frequency: rare levels count more."""
    counts = torch.ones(3, 3)
    for pair in pairs:
        for mechanism, level in enumerate(pair.levels):
            counts[mechanism, level] += 1
    weights = (counts.sum(-1, keepdim=True) / counts) ** 0.25
    return weights / weights.mean(-1, keepdim=True)


def _groups(net: SemNet, rate: float, head_rate: float) -> list[dict[str, Any]]:
    """Parameters with their rates: each encoder layer lower than the one above it."""
    layers = int(net.encoder.config.num_hidden_layers)
    groups = []
    for name, parameter in net.named_parameters():
        decay = 0.01 if parameter.dim() > 1 else 0.0
        if not name.startswith("encoder."):
            groups.append({"params": [parameter], "lr": head_rate, "weight_decay": decay})
            continue
        depth = int(name.split("layer.")[1].split(".")[0]) + 1 if "layer." in name else 0
        lower = rate * LAYER_DECAY ** (layers - depth)
        groups.append({"params": [parameter], "lr": lower, "weight_decay": decay})
    return groups


def _linear(optimizer: Any, steps: int, warmup: int) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 1.0) * max(0.0, 1 - step / max(1, steps))
    )


def _step(net: SemNet, loss: torch.Tensor, optimizer: Any, schedule: Any) -> None:
    if not torch.isfinite(loss):
        raise EngineError(
            "The loss is no number; the last checkpoint is kept. Run the command again, "
            "with another --seed."
        )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()


def _endless(examples: Sequence[Any], seed: str, size: int) -> Iterator[list[Any]]:
    for turn in itertools.count():
        yield from data_of.batches(examples, f"{seed} {turn}", size)


def _progress(batches: Sequence[Any], title: str) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    yield from track(batches, title, console=Console(stderr=True))


def _checkpoint(work: Path, net: SemNet, optimizer: Any, schedule: Any, epoch: int) -> None:
    work.mkdir(parents=True, exist_ok=True)
    state = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": epoch,
    }
    part = work / "emotions.part"
    try:
        torch.save(state, part)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise DataError(f"The checkpoint cannot be written to {work}: {error}.") from None
    part.replace(work / "emotions.pt")


def _restore(work: Path, net: SemNet, optimizer: Any, schedule: Any) -> int:
    """The epochs that an interrupted training had finished."""
    path = work / "emotions.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    if state.get("optimizer"):
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    return int(state["epoch"])
