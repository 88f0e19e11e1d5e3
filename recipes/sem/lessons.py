"""What the teacher learns: the emotions, with five further tasks among them.

The emotions of contexts and situations, GoEmotions' kinds, EmoBank's valence and arousal and
EPITOME's levels come `first`. The cause words come `last`, beside some of the emotions again,
because EmoCause's situations are those of ED-valid: what the teacher says of emotions is asked
before, so that they can be measured on all of ED-valid. A kill loses at most `SAVE_EVERY` steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from empo_demo.empathy.emotions import INDEX
from empo_demo.empathy.encoder import Text
from empo_demo.progress import progress
from empo_demo.training.corpus import Conversation
from recipes.sem import corpora
from recipes.sem.affect import SCALES, Rated, calibrates
from recipes.sem.folds import held_out_causes
from recipes.sem.heads import check_loss, level_weights
from recipes.sem.mpnet import Teacher
from recipes.sem.tune import Example, mixed

BATCH = 32
RATE, LAST_RATE, HEAD_RATE, WARMUP, DECAY = 4e-4, 2e-4, 2e-3, 50, 0.01
SMOOTHING = 0.05
SAVE_EVERY = 50
WEIGHTS = {"emotions": 1.0, "sentiment": 0.2, "affect": 0.5, "causes": 0.5, "levels": 0.3}
"""How much a batch of each task counts. The emotions come first."""
LEVEL_EPOCHS, RATED_EPOCHS, CAUSE_EPOCHS = 3, 2, 3
AMONG = 2_000
"""Examples of the emotions among those of the last stage, so that it forgets nothing."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A situation (`turns` is 0) or a context of a listener's turn, with its label (0 to 31)."""

    conversation: str
    turns: int
    dialogue: tuple[str, ...]
    label: int


def labelled(conversations: Sequence[Conversation]) -> list[Labelled]:
    """Every situation, and every context of a listener's turn."""
    found = []
    for conversation in conversations:
        label = INDEX[conversation.emotion]
        found.append(Labelled(conversation.conv_id, 0, (conversation.situation,), label))
        for i, turn in enumerate(conversation.turns):
            if turn["role"] == "assistant":
                before = tuple(t["content"] for t in conversation.turns[:i])
                found.append(Labelled(conversation.conv_id, i, before, label))
    return found


def first(
    teacher: Teacher,
    dialogues: Sequence[Labelled],
    comments: Sequence[tuple[Text, list[float]]],
    rated: Sequence[Rated],
    pairs: Sequence[corpora.Pair],
    *,
    seed: int,
) -> list[list[Example]]:
    """The batches of the first stage. `pairs` are those that no figure is claimed on."""
    turns = teacher.turns
    feeling = [
        Example(
            turns([e.content]), "affect", [x / s for x, s in zip(e.affect, SCALES, strict=True)]
        )
        for e in rated
        if not calibrates(e)
    ]
    kinds = [Example(text, "sentiment", target) for text, target in comments]
    levels = [Example(teacher.pair(p.post, p.response), "levels", p.levels) for p in pairs]
    parts = [
        ([Example(turns(d.dialogue), "emotions", d.label) for d in dialogues], 1),
        (kinds, 1),
        (feeling, RATED_EPOCHS),
        (levels, LEVEL_EPOCHS),
    ]
    return mixed(parts, f"{seed} teacher", BATCH)


def last(
    teacher: Teacher,
    dialogues: Sequence[Labelled],
    causes: Sequence[corpora.CauseExample],
    *,
    seed: int,
) -> list[list[Example]]:
    """The batches of the last stage: cause words but those of the held-out fold, and emotions."""
    own = [e for e in causes if not held_out_causes(e.conv_id)]
    words = [Example(teacher.words(e.words), "causes", sorted(e.causes)) for e in own]
    some = random.Random(f"{seed} among").sample(list(dialogues), min(AMONG, len(dialogues)))
    among = [Example(teacher.turns(d.dialogue), "emotions", d.label) for d in some]
    return mixed([(words, CAUSE_EPOCHS), (among, 1)], f"{seed} last", BATCH)


def train(
    teacher: Teacher,
    plan: Sequence[Sequence[Example]],
    state: Path,
    *,
    seed: int,
    rate: float = RATE,
    pairs: Sequence[corpora.Pair] = (),
) -> None:
    """Tune `teacher` over the batches of `plan`; `state` is the file of its checkpoint."""
    torch.manual_seed(seed)
    weights = level_weights(pairs)
    lora = [p for n, p in teacher.encoder.named_parameters() if p.requires_grad]
    heads = [p for n, p in teacher.named_parameters() if not n.startswith("encoder.")]
    groups: list[dict[str, Any]] = [
        {"params": lora, "lr": rate},
        {"params": heads, "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, 1.0) * max(0.0, 1 - step / len(plan))
    )
    done = 0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        done = int(kept["step"])
        teacher.load_state_dict(kept["teacher"], strict=False)
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
    teacher.train()
    for step, batch in enumerate(progress(plan, f"the teacher, {state.stem}")):
        if step < done:
            continue
        task = batch[0].task
        loss = WEIGHTS[task] * _loss(teacher, batch, weights)
        check_loss(loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*lora, *heads], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == len(plan):
            state.parent.mkdir(parents=True, exist_ok=True)
            part = state.with_suffix(".part")
            whole = {"teacher": teacher.tuned(), "optimizer": optimizer.state_dict()}
            torch.save({**whole, "schedule": schedule.state_dict(), "step": step + 1}, part)
            part.replace(state)
    teacher.eval()


def _loss(teacher: Teacher, batch: Sequence[Example], weights: torch.Tensor) -> torch.Tensor:
    """The loss of a batch of one task."""
    task, texts = batch[0].task, [example.text for example in batch]
    said = teacher(task, texts)
    if task == "causes":
        return _cause_loss(said, batch)
    wanted = torch.tensor([example.target for example in batch])
    if task == "emotions":
        return F.cross_entropy(said, wanted, label_smoothing=SMOOTHING)
    if task == "affect":
        return F.smooth_l1_loss(said, wanted)
    if task == "sentiment":
        each = F.binary_cross_entropy_with_logits(said, wanted, reduction="none")
        return each.sum(-1).mean()
    losses = [
        F.cross_entropy(said[:, m], wanted[:, m], weight=weights[m], label_smoothing=SMOOTHING)
        for m in range(wanted.shape[1])
    ]
    return torch.stack(losses).sum()


def _cause_loss(said: torch.Tensor, batch: Sequence[Example]) -> torch.Tensor:
    """Whether each piece of a word belongs to a cause word, and how the pieces are ranked."""
    inside, targets = torch.zeros_like(said, dtype=torch.bool), torch.zeros_like(said)
    for row, example in enumerate(batch):
        for column, segment in enumerate(example.text.segments):
            inside[row, column] = segment > 0
            targets[row, column] = float(segment > 0 and segment - 1 in example.target)
    each = F.binary_cross_entropy_with_logits(said, targets, reduction="none")
    share = targets / targets.sum(-1, keepdim=True).clamp_min(1)
    ranked = F.log_softmax(said.masked_fill(~inside, -1e4), -1)
    return 2 * (each * inside).sum() / inside.sum() - 0.5 * (share * ranked).sum(-1).mean()
