"""What the encoder and its heads learn from the MPNet teacher, on more text than has labels.

Labelled contexts and situations get half of their target from the teacher and half from their
label. Single turns, GoEmotions' and EmoBank's texts and general dialogues have none of the 32
labels; their target is the teacher's answer alone. The teacher says the valence of every single
turn, the cause words of situations of ED-train, and the EPITOME levels of replies in it. No
dialogue and no pair that a figure is claimed on is among what the teacher learns or answers for the
encoder.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from empo_demo.empathy.encoder import Texts
from empo_demo.training.corpus import Conversation, read_lines
from recipes.common import read_general
from recipes.sem import affect, ask, corpora, lessons, mpnet, teacher_figures
from recipes.sem.choice import temperature
from recipes.sem.corpora import CauseExample, Pair, soft_labels
from recipes.sem.folds import held_out_causes, held_out_pair, tunes
from recipes.sem.intervals import Figure
from recipes.sem.lessons import Labelled
from recipes.sem.mpnet import Teacher
from recipes.sem.tune import Example

TAUGHT = 0.5
"""The share of the teacher in the target of a labelled text."""
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""A word or a sign, as EmoCause's texts are cut."""
GENERAL, COMMENTS, LATER = 20_000, 30_000, 20_000
"""The most texts of each kind without a label."""
SITUATIONS, REPLIES = 4_000, 4_000
"""The most situations whose cause words, and replies whose levels, the teacher says."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What the student learns, and how well the teacher reads what it has not learnt."""

    examples: list[Example]
    causes: list[CauseExample]
    pairs: list[Pair]
    figures: list[Figure]


def learn(
    texts: Texts,
    seen: Sequence[Conversation],
    data: Path,
    work: Path,
    *,
    folder: Path,
    seed: int,
) -> Taught:
    """Train the teacher on `seen` and on its other tasks, then ask it. Resumes after a kill."""
    rng = random.Random(f"{seed} taught")
    known = lessons.labelled(seen)
    aside = [row for row in known if tunes(row.conversation, 0)]
    own = [row for row in known if not tunes(row.conversation, 0)]
    pairs = corpora.epitome_pairs(data, texts, ("train", "valid"))
    graded = [pair for pair in pairs if not held_out_pair(pair.seeker)]
    teacher = Teacher(mpnet.fetch(folder), corpora.count_kinds(data))
    comments, _ = corpora.go_emotions(data, teacher.turns)
    rated = affect.emobank(data, texts, "train")
    plan = lessons.first(teacher, own, comments, rated, graded, seed=seed)
    lessons.train(teacher, plan, work / "first.pt", seed=seed, pairs=graded)
    free = _unlabelled(seen, data, rated, rng)
    heat = _heat(teacher, aside or own, work / "aside")
    examples = _feelings(teacher, texts, known, free, heat, work / "feelings")
    taught_pairs = _levels(teacher, texts, _replies(seen, rng, REPLIES), work / "levels")
    figures = teacher_figures.first(teacher, texts, data, pairs, work / "measured")
    causes = corpora.cause_examples(data, texts)
    plan = lessons.last(teacher, own, causes, seed=seed)
    lessons.train(teacher, plan, work / "last.pt", seed=seed, rate=lessons.LAST_RATE)
    situations = [c.situation for c in rng.sample(list(seen), min(SITUATIONS, len(seen)))]
    named = _causes(teacher, texts, situations)
    kept = [example for example in causes if held_out_causes(example.conv_id)]
    return Taught(examples, named, taught_pairs, figures + teacher_figures.last(teacher, kept))


def _heat(teacher: Teacher, aside: Sequence[Labelled], work: Path) -> float:
    """The temperature of the teacher's emotions, from blocks of writers that it was not tuned on.

    What it was tuned on it says too surely.
    """
    said = ask.feelings(teacher, [teacher.turns(row.dialogue) for row in aside], work)
    return temperature(said[:, :-2], torch.tensor([row.label for row in aside]))


def _feelings(
    teacher: Teacher,
    texts: Texts,
    known: Sequence[Labelled],
    free: Sequence[tuple[str, ...]],
    heat: float,
    work: Path,
) -> list[Example]:
    """Emotions and valence as targets: for texts with labels first, then for those without."""
    dialogues = [*(row.dialogue for row in known), *free]
    said = ask.feelings(teacher, [teacher.turns(dialogue) for dialogue in dialogues], work)
    labels = torch.tensor([row.label for row in known])
    count = said.shape[1] - 2
    targets = said.clone()
    targets[:, :count] = (said[:, :count] / heat).softmax(1)
    smooth = torch.tensor(soft_labels())
    own = targets[: len(known), :count]
    targets[: len(known), :count] = TAUGHT * own + (1 - TAUGHT) * smooth[labels]
    targets[:, count:] *= torch.tensor(affect.SCALES)
    # The teacher read a dialogue as one text; the encoder's valence is that of the last turn.
    several = torch.tensor([len(dialogue) > 1 for dialogue in dialogues])
    targets[several, count:] = float("nan")
    return [
        Example(texts.turns(dialogue), "taught", target)
        for dialogue, target in zip(dialogues, targets.tolist(), strict=True)
    ]


def _levels(
    teacher: Teacher, texts: Texts, replies: Sequence[tuple[str, str]], work: Path
) -> list[Pair]:
    said = ask.levels(teacher, [teacher.pair(*reply) for reply in replies], work).softmax(-1)
    return [
        Pair(
            f"taught {i}",
            post,
            reply,
            texts.pair(post, reply),
            tuple(int(row.argmax()) for row in likely),
            ((), (), ()),
            tuple(tuple(row.tolist()) for row in likely),
        )
        for i, ((post, reply), likely) in enumerate(zip(replies, said, strict=True))
    ]


def _causes(teacher: Teacher, texts: Texts, situations: Sequence[str]) -> list[CauseExample]:
    words = [own for situation in situations if (own := tuple(WORD.findall(situation)))]
    said = ask.causes(teacher, [teacher.words(own) for own in words], [len(own) for own in words])
    return [
        CauseExample(
            f"taught {i}",
            own,
            frozenset(),
            texts.words(own),
            tuple(torch.tensor(logits).sigmoid().tolist()),
        )
        for i, (own, logits) in enumerate(zip(words, said, strict=True))
    ]


def _replies(
    conversations: Sequence[Conversation], rng: random.Random, most: int
) -> list[tuple[str, str]]:
    """Listeners' turns with the turn before each."""
    found = [
        (conversation.turns[i - 1]["content"], turn["content"])
        for conversation in conversations
        for i, turn in enumerate(conversation.turns)
        if i and turn["role"] == "assistant"
    ]
    return rng.sample(found, min(most, len(found)))


def _unlabelled(
    conversations: Sequence[Conversation],
    data: Path,
    rated: Sequence[affect.Rated],
    rng: random.Random,
) -> list[tuple[str, ...]]:
    """Single turns, comments, sentences and general dialogues, cut where they get long."""
    later: list[tuple[str, ...]] = [
        (turn["content"],) for conversation in conversations for turn in conversation.turns[1:]
    ]
    comments: list[tuple[str, ...]] = [
        (str(row["text"]),) for _, row in read_lines(data / "goemotions.train.jsonl.gz")
    ]
    comments += [(e.content,) for e in rated if not affect.calibrates(e)]
    general: list[tuple[str, ...]] = []
    if (data / "general_dialogues.jsonl.gz").is_file():
        for _, messages in read_general(data):
            turns = tuple(message["content"] for message in messages[:3])
            general.append(turns[: rng.choice((1, 3))])
    found: list[tuple[str, ...]] = []
    for kind, most in (
        (later, LATER),
        (comments, COMMENTS),
        (general, GENERAL),
    ):
        rng.shuffle(kind)
        found += kind[:most]
    return found
