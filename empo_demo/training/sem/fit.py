"""The SEM: one small encoder, fine-tuned for emotions, that four more heads read from.

Stage one: emotions of ED-train's dialogue contexts and situations, in several runs from the same
start whose weights are averaged (a model soup, Wortsman et al. 2022, arXiv 2203.05482), with a
checkpoint after each epoch (a kill loses at most one). Stage two (`sem_finish`): the soup averaged
with the pretrained weights, then cause words (fold 0 of ED-valid) and EPITOME levels on the frozen
encoder. `sem_report` calibrates on fold 1 and measures on fold 2.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from empo_demo.empathy.encoder import SemNet, collate, save
from empo_demo.errors import DataError
from empo_demo.progress import progress
from empo_demo.training.checkpoints import claim
from empo_demo.training.corpus import read_conversations
from empo_demo.training.sem import corpora
from empo_demo.training.sem.folds import CAUSE_TRAINING, TUNING, fold_of
from empo_demo.training.sem.heads import (
    best_share,
    blend,
    check_loss,
    fit_causes,
    fit_levels,
)
from empo_demo.training.sem.pretrained import (
    ENCODER_RATE,
    HEAD_RATE,
    LAYER_DECAY,
    kept_pieces,
    pretrained,
    prune,
)


def run(data: Path, out: Path, *, epochs: float, seed: int, start: Path | None, runs: int) -> None:
    """Train all stages into `out`, calibrate, measure, and write the card."""
    from empo_demo.training.sem.card import write_card
    from empo_demo.training.sem.cross_validation import cross_validate
    from empo_demo.training.sem.quality import calibrate, measure

    work = out / "checkpoints"
    settings = {"epochs": epochs, "runs": runs, "seed": seed, "start": start}
    claim(work, {**settings, **corpora.hashes(data)})
    torch.manual_seed(seed)
    net, texts = pretrained(start)
    texts = prune(net, texts, kept_pieces(texts, data))
    origin = copy.deepcopy(net.encoder.state_dict())
    emotions = corpora.emotions(read_conversations(data, "train"), texts)
    soup(net, emotions, work, runs=runs, epochs=round(epochs), seed=seed)
    causes = corpora.cause_examples(data, texts, CAUSE_TRAINING)
    pairs = corpora.epitome_pairs(data, texts, ("train", "valid"))
    tuning = [c for c in read_conversations(data, "valid") if fold_of(c.conv_id) == TUNING]
    share = best_share(net, origin, corpora.emotions(tuning, texts))
    blend(net, origin, share)
    fit_causes(net, causes, seed=seed)
    levels = cross_validate(net, pairs, work, seed=seed)
    fit_levels(net, pairs, seed=seed)
    meta = calibrate(net, texts, tuning, data)
    told = {"share": share, "seed": seed, "epochs": epochs, "runs": runs}
    save(net, texts, {**meta, **told}, out)
    figures = measure(out, data, levels)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    write_card(out, data, figures)


def soup(
    net: SemNet,
    examples: Sequence[corpora.Emotion],
    work: Path,
    *,
    runs: int,
    epochs: int,
    seed: int,
) -> None:
    """Stage one: `net` becomes the mean of `runs` fine-tunes of itself in different orders.

    All start from the same weights, heads included: only then does their mean lie in one basin.
    """
    start = copy.deepcopy(net.state_dict())
    total: dict[str, torch.Tensor] = {}
    for number in range(runs):
        net.load_state_dict(start)
        emotion_stage(net, examples, work / f"run-{number}", epochs=epochs, seed=seed + number)
        for name, value in net.state_dict().items():
            total[name] = total[name] + value if number else value.clone()
    means = {n: v / runs if v.is_floating_point() else v for n, v in total.items()}
    net.load_state_dict({**net.state_dict(), **means})


def emotion_stage(
    net: SemNet, examples: Sequence[corpora.Emotion], work: Path, *, epochs: int, seed: int
) -> None:
    """One fine-tune: smoothed cross-entropy, lower rates for lower layers."""
    torch.manual_seed(seed)
    steps = epochs * math.ceil(len(examples) / corpora.BATCH)
    optimizer = torch.optim.AdamW(_groups(net, ENCODER_RATE, HEAD_RATE), fused=True)
    schedule = _linear(optimizer, steps, warmup=150)
    done = _restore(work, net, optimizer, schedule)
    smooth = torch.tensor(corpora.soft_labels())
    net.train()
    for epoch in range(done, epochs):
        order = list(corpora.batches(examples, f"{seed} emotions {epoch}"))
        title = f"emotions, {work.name}, epoch {epoch + 1} of {epochs}"
        for batch in progress(order, title):
            loss = _emotion_loss(net, batch, smooth)
            _step(net, loss, optimizer, schedule)
        _checkpoint(work, net, optimizer, schedule, epoch + 1)


def _emotion_loss(
    net: SemNet, batch: Sequence[corpora.Emotion], smooth: torch.Tensor
) -> torch.Tensor:
    ids, mask, _ = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.emotions(net.hidden(ids, mask), mask)
    targets = smooth[[example.label for example in batch]]
    return -(targets * F.log_softmax(logits.float(), -1)).sum(-1).mean()


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
    check_loss(loss)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()


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
