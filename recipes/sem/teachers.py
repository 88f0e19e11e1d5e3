"""Targets of the emotions from teachers that did not see the dialogue (distillation).

A label names one of 32 close emotions; a teacher says how likely each is. An encoder is too sure of
dialogues that it was trained on, so each teacher is trained on one half of the dialogues and reads
the other half. Distillation: arXiv 1503.02531.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from empo_demo.empathy.encoder import SemNet, Texts
from empo_demo.training.corpus import Conversation
from recipes.sem.choice import logits, temperature
from recipes.sem.folds import half
from recipes.sem.tune import Example, emotion_examples, train_emotions

TAUGHT = 0.5
"""The share of the teacher in a target; the label has the rest."""
FIRST_SEED = 20
"""How far the teachers' seeds are from the run's."""


def learn_emotions(
    net: SemNet,
    texts: Texts,
    seen: Sequence[Conversation],
    feeling: Sequence[Example],
    work: Path,
    *,
    epochs: int,
    seed: int,
    runs: int,
    name: str,
    teachers: bool,
) -> None:
    """Train `net` on the contexts and situations of `seen`, on request with targets of teachers."""
    examples = (
        taught_examples(net, texts, seen, feeling, work, epochs=epochs, seed=seed, name=name)
        if teachers
        else emotion_examples(seen, texts)
    )
    train_emotions(net, examples, feeling, work, epochs=epochs, seed=seed, runs=runs, name=name)


def taught_examples(
    net: SemNet,
    texts: Texts,
    seen: Sequence[Conversation],
    feeling: Sequence[Example],
    work: Path,
    *,
    epochs: int,
    seed: int,
    name: str,
) -> list[Example]:
    """The examples of `seen`, each with the mean of its label's target and its teacher's answer.

    Both teachers start from the weights that `net` holds, and `net` ends as it was.
    """
    start = copy.deepcopy(net.state_dict())
    halves = [
        emotion_examples([c for c in seen if half(c.conv_id) == number], texts) for number in (0, 1)
    ]
    examples: list[Example] = []
    for number, own in enumerate(halves):
        other = halves[1 - number]
        if own and other:
            net.load_state_dict(start)
            train_emotions(
                net,
                other,
                feeling,
                work,
                epochs=epochs,
                seed=seed + FIRST_SEED + number,
                runs=1,
                name=f"{name}-teacher-{number}",
            )
            own = _taught(net, own)
        examples += own
    net.load_state_dict(start)
    return examples


def _taught(net: SemNet, examples: Sequence[Example]) -> list[Example]:
    """The examples with half of each target from what `net` says, calibrated on their labels."""
    said = logits(net, [example.text for example in examples])
    targets = torch.tensor([example.target for example in examples])
    likely = (said / temperature(said, targets.argmax(1))).softmax(1)
    mixed = (1 - TAUGHT) * targets + TAUGHT * likely
    return [
        replace(example, target=row) for example, row in zip(examples, mixed.tolist(), strict=True)
    ]
