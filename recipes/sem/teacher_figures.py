"""How well the teacher reads what it has not learnt: the same figures as the SEM's, beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from empo_demo.empathy.encoder import Texts
from empo_demo.training.corpus import read_conversations
from recipes.sem import affect, ask
from recipes.sem.choice import Rows
from recipes.sem.corpora import CauseExample, Pair
from recipes.sem.cross_validate_heads import cause_figures, level_figures
from recipes.sem.folds import held_out_pair
from recipes.sem.intervals import Figure
from recipes.sem.lessons import Labelled, labelled
from recipes.sem.mpnet import Teacher
from recipes.sem.quality import common_labels, pearson_figure, top


def first(
    teacher: Teacher, texts: Texts, data: Path, pairs: Sequence[Pair], work: Path
) -> list[Figure]:
    """After the first stage: emotions on ED-valid, valence on EmoBank's, levels of other posts."""
    common = common_labels(read_conversations(data, "train"), lambda c: 1)
    rows = labelled(read_conversations(data, "valid"))
    figures = [
        top(name, emotion_rows(teacher, own, work), common, k)
        for name, own in (
            ("contexts", [row for row in rows if row.turns]),
            ("situations", [row for row in rows if not row.turns]),
        )
        for k in (1, 5)
        if own
    ]
    rated = affect.emobank(data, texts, "valid")
    said = ask.feelings(teacher, [teacher.turns([e.content]) for e in rated], work)
    truth = np.array([e.affect[0] for e in rated])
    documents = [e.document for e in rated]
    figures.append(pearson_figure("valence", said[:, -2].numpy(), truth, documents))
    own = [pair for pair in pairs if held_out_pair(pair.seeker)]
    if own:
        levels = ask.levels(teacher, [teacher.pair(p.post, p.response) for p in own], work)
        figures += level_figures(own, levels.argmax(-1).numpy())
    return _named(figures)


def emotion_rows(teacher: Teacher, rows: Sequence[Labelled], work: Path) -> Rows:
    """What the teacher says of contexts or situations."""
    said = ask.feelings(teacher, [teacher.turns(row.dialogue) for row in rows], work)
    likely = said[:, :-2].softmax(1).numpy()
    return Rows(
        likely,
        np.zeros_like(likely, dtype=bool),
        np.array([row.label for row in rows]),
        tuple(row.conversation for row in rows),
        np.array([row.turns for row in rows]),
    )


def last(teacher: Teacher, held: Sequence[CauseExample]) -> list[Figure]:
    """After the last stage: cause words' recall on the fold that was held out."""
    if not held:
        return []
    texts = [teacher.words(e.words) for e in held]
    said = ask.causes(teacher, texts, [len(e.words) for e in held])
    chances = [(1 / (1 + np.exp(-np.array(row)))).tolist() for row in said]
    return _named([f for f in cause_figures(held, chances) if "recall %" in f["name"]])


def _named(figures: Sequence[Figure]) -> list[Figure]:
    """The goals are the SEM's, not the teacher's."""
    free = {"needed": None, "aim": None, "reached": None}
    return [{**f, "name": f"the teacher: {f['name']}", **free} for f in figures]
