"""Targets of the emotions from the MPNet teacher, on more text than has labels.

Labelled texts get half of their target from the teacher and half from their label. Single later
turns, GoEmotions' and EmoBank's texts and general dialogues have no label of the 32; their target
is the teacher's answer alone. No dialogue that a figure is claimed on is among them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch

from empo_demo.empathy.emotions import INDEX
from empo_demo.empathy.encoder import Texts
from empo_demo.training.corpus import Conversation, read_general, read_lines
from recipes.sem import mpnet
from recipes.sem.choice import temperature
from recipes.sem.corpora import soft_labels
from recipes.sem.tune import Example

TAUGHT = 0.5
"""The share of the teacher in the target of a labelled text."""
GENERAL, COMMENTS, LATER = 20_000, 30_000, 20_000
"""The most texts of each kind without a label."""


def distilled_examples(
    texts: Texts,
    seen: Sequence[Conversation],
    data: Path,
    work: Path,
    *,
    folder: Path,
    seed: int,
    epochs: int = 1,
) -> list[Example]:
    """Examples of `seen` and of texts without labels, after training the teacher on `seen`."""
    labelled = _labelled(seen)
    teacher = mpnet.Teacher(mpnet.fetch(folder))
    mpnet.train(teacher, labelled, work / "mpnet", epochs=epochs, seed=seed)
    free = _unlabelled(seen, data, seed)
    said = mpnet.logits(teacher, [d for d, _ in labelled] + free, work / "mpnet" / "said")
    labels = torch.tensor([label for _, label in labelled])
    heat = temperature(said[: len(labelled)], labels)
    likely = (said / heat).softmax(1)
    smooth = torch.tensor(soft_labels())
    likely[: len(labelled)] *= TAUGHT
    likely[: len(labelled)] += (1 - TAUGHT) * smooth[labels]
    dialogues = [*(dialogue for dialogue, _ in labelled), *free]
    return [
        Example(texts.turns(dialogue), "emotions", target)
        for dialogue, target in zip(dialogues, likely.tolist(), strict=True)
    ]


def _labelled(conversations: Sequence[Conversation]) -> list[tuple[list[str], int]]:
    """Every context of a listener's turn, and every situation, with its label."""
    found = []
    for conversation in conversations:
        found.append(([conversation.situation], INDEX[conversation.emotion]))
        for i, turn in enumerate(conversation.turns):
            if turn["role"] == "assistant":
                found.append(
                    ([t["content"] for t in conversation.turns[:i]], INDEX[conversation.emotion])
                )
    return found


def _unlabelled(conversations: Sequence[Conversation], data: Path, seed: int) -> list[list[str]]:
    """Single later turns, comments, sentences and general dialogues, cut where they get long."""
    rng = random.Random(f"{seed} unlabelled")
    later = [
        [turn["content"]]
        for conversation in conversations
        for turn in conversation.turns[2:]
        if turn["role"] == "user"
    ]
    comments = [
        [str(row["text"])]
        for name in ("goemotions", "emobank")
        for _, row in read_lines(data / f"{name}.train.jsonl.gz")
    ]
    general = []
    if (data / "general_dialogues.jsonl.gz").is_file():
        for _, messages in read_general(data):
            turns = [message["content"] for message in messages[:3]]
            general.append(turns[: rng.choice((1, 3))])
    found = []
    for kind, most in ((later, LATER), (comments, COMMENTS), (general, GENERAL)):
        rng.shuffle(kind)
        found += kind[:most]
    return found
