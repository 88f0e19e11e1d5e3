"""The emotions' figures over all of ED-train and ED-valid, with every choice inside the folds.

Three encoders are trained, each without a third of the dialogues (whole blocks of neighbouring
tasks, so that hardly a writer is on both sides). Another twelfth is kept from each training: the
share, the emotion head, its penalty and temperature, and the bound of the 90 % set are chosen on
it. Nothing is chosen on the third that is measured. Each encoder sees 58 % of the dialogues where
the shipped one sees 79 %, so these figures are on the low side.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch

from empo_demo.empathy.encoder import SemNet, Texts
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.sem import quality
from recipes.sem.choice import (
    Item,
    State,
    answers,
    average,
    features,
    items_of,
    refit,
    rows_of,
    settings,
)
from recipes.sem.folds import cross_validate, fold_of, kept, outer_fold, tunes
from recipes.sem.intervals import Figure
from recipes.sem.teachers import learn_emotions
from recipes.sem.tune import Example


def cross_validate_emotions(
    net: SemNet,
    origin: State,
    texts: Texts,
    data: Path,
    feeling: Sequence[Example],
    work: Path,
    *,
    epochs: int,
    seed: int,
    teachers: bool,
) -> list[Figure]:
    """Train, choose and read each fold from the weights that `net` holds; then the figures.

    What was read in a fold is kept in `work` and not made again. `net` ends as it was.
    """
    train, valid = (read_conversations(data, split) for split in ("train", "valid"))
    both = [*train, *valid]
    start = copy.deepcopy(net.state_dict())
    # Fold by fold, as the intervals of the figures draw in the order of the items.
    items = sorted(items_of(both, texts), key=lambda item: outer_fold(item.conversation))

    def read(fold: int, own: list[int], _: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        def anew() -> tuple[np.ndarray, np.ndarray]:
            probabilities, likely = _read_fold(
                net,
                origin,
                texts,
                [c for c in both if outer_fold(c.conv_id) != fold],
                [items[i] for i in own],
                feeling,
                work,
                fold,
                epochs=epochs,
                seed=seed,
                teachers=teachers,
            )
            net.load_state_dict(start)
            return probabilities.astype(np.float32), likely

        return list(zip(*kept(work / f"fold-{fold}.npz", anew), strict=True))

    rows = cross_validate([outer_fold(item.conversation) for item in items], read)
    probabilities, likely = (np.array(column) for column in zip(*rows, strict=True))
    return _figures(items, probabilities, likely, train, {c.conv_id for c in valid})


def _read_fold(
    net: SemNet,
    origin: State,
    texts: Texts,
    rest: Sequence[Conversation],
    own: Sequence[Item],
    feeling: Sequence[Example],
    work: Path,
    fold: int,
    *,
    epochs: int,
    seed: int,
    teachers: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and likely labels of the texts `own`, (n, 32) each, learnt from `rest`."""
    seen = [c for c in rest if not tunes(c.conv_id, fold)]
    learn_emotions(
        net,
        texts,
        seen,
        feeling,
        work,
        epochs=epochs,
        seed=seed,
        runs=1,
        name=f"fold-{fold}",
        teachers=teachers,
    )
    items = items_of([c for c in rest if tunes(c.conv_id, fold)], texts)
    average(net, origin, items)
    x = torch.cat(features(net, [item.text for item in items]), 1)
    labels = torch.tensor([item.label for item in items])
    inner = np.array([fold_of(item.conversation) for item in items])
    penalty, heat, bound = settings(net, x, labels, inner)
    head = refit(net, x, labels, penalty)
    read = torch.cat(features(net, [item.text for item in own]), 1)
    return answers(read, head, heat, bound)


def _figures(
    items: Sequence[Item],
    rows: np.ndarray,
    likely: np.ndarray,
    train: Sequence[Conversation],
    valid: set[str],
) -> list[Figure]:
    """Contexts and situations of all folds, and the contexts of each of the two splits."""
    later_turns = np.array([item.turns > 0 for item in items])
    contexts, situations = (
        rows_of(list(compress(items, which)), rows[which], likely[which])
        for which in (later_turns, ~later_turns)
    )
    turns = quality.common_labels(train, lambda c: sum(t["role"] == "assistant" for t in c.turns))
    once = quality.common_labels(train, lambda c: 1)
    later = np.array([name in valid for name in contexts.conversations])
    figures = quality.emotion_figures(
        "contexts, cross-validated", contexts, turns, (52.0, 54.0), (86.0, 88.0)
    )
    for name, which in (("ED-train", ~later), ("ED-valid", later)):
        title = f"contexts of {name}, cross-validated"
        figures += [quality.top(title, contexts, turns, k, which) for k in (1, 5) if which.any()]
    return figures + quality.emotion_figures(
        "situations, cross-validated", situations, once, (58.0, 60.0), None
    )
